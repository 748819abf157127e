//! The guard against rollbacks: before a ledger grows, it asks those who cosign it what they have
//! seen of it.
//!
//! A ledger that was put back to an older state (a backup, a lost disk, an operator who wants to
//! forget) would sign a second history without knowing. Its witnesses remember: what they cosigned
//! must be in the local log, whole and with the same root. Nobody needs to be believed for that:
//! the notes bear the ledger's own signature.

use std::time::Duration;

use access_ledger_proto::{
    checkpoint::VerifiedCheckpoint, error::BuildError, note::VerifierKey, position::Size,
    proof::root_at, witness::origin_hex,
};
use futures_util::future::try_join_all;
use tokio::time::{Instant, sleep};
use tracing::{info, warn};

use crate::{
    error::LedgerError,
    ledger::Cosigning,
    outbound::{Outbound, OutboundError},
    storage::TreeFiles,
};

/// What a witness has seen of this ledger.
#[derive(Clone, Debug)]
pub struct Seen {
    /// Address of the witness.
    pub by: String,
    /// A checkpoint that this ledger signed.
    pub checkpoint: VerifiedCheckpoint,
}

/// For how long witnesses that do not answer are asked again.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Asks all witnesses that have an address for the newest checkpoint of the ledger with this key
/// that they know. One that knows none has nothing to say.
///
/// # Errors
///
/// [`LedgerError::Unguarded`] when one of them does not give a note that verifies within
/// `patience`.
pub async fn ask(
    cosigning: &Cosigning,
    ledger: &VerifierKey,
    patience: Duration,
) -> Result<Vec<Seen>, LedgerError> {
    let places = cosigning.places();
    if places.is_empty() {
        return Ok(Vec::new());
    }
    let unguarded = |error: OutboundError| LedgerError::Unguarded {
        by: "nobody was asked".to_owned(),
        problem: error.to_string(),
    };
    let outbound = Outbound::new(&cosigning.credentials).map_err(unguarded)?;
    let until = Instant::now() + patience;
    let asked = places.iter().map(|place| ask_one(&outbound, &place.url, ledger, until));
    let seen: Vec<Option<Seen>> = try_join_all(asked).await?;
    Ok(seen.into_iter().flatten().collect())
}

async fn ask_one(
    outbound: &Outbound,
    prefix: &str,
    ledger: &VerifierKey,
    until: Instant,
) -> Result<Option<Seen>, LedgerError> {
    let url = format!("{prefix}/{}/checkpoint", origin_hex(ledger.name()));
    loop {
        let problem = match outbound.get(&url).await {
            Ok(answer) if answer.status == 200 => {
                match VerifiedCheckpoint::open(&answer.body, ledger, &[]) {
                    Ok(checkpoint) => {
                        let size = checkpoint.size().0;
                        info!(witness = prefix, size, "asked what a witness has seen");
                        return Ok(Some(Seen { by: prefix.to_owned(), checkpoint }));
                    }
                    Err(error) => error.to_string(),
                }
            }
            Ok(answer) if answer.status == 404 => {
                warn!(witness = prefix, "asked a witness that has seen nothing of this ledger");
                return Ok(None);
            }
            Ok(answer) => format!("status {}", answer.status),
            Err(error) => error.to_string(),
        };
        if Instant::now() + RETRY_INTERVAL > until {
            return Err(LedgerError::Unguarded { by: prefix.to_owned(), problem });
        }
        warn!(witness = prefix, problem, "could not ask what a witness has seen");
        sleep(RETRY_INTERVAL).await;
    }
}

/// Compares what witnesses have seen with the local tree of this size.
///
/// # Errors
///
/// [`LedgerError::RolledBack`] when one has seen more; [`LedgerError::OtherHistory`] when one has
/// seen something else; [`LedgerError::Storage`] when the tree cannot be read.
pub(crate) fn compare(seen: &[Seen], local: Size, tree: &TreeFiles) -> Result<(), LedgerError> {
    for Seen { by, checkpoint } in seen {
        let (size, wanted) = (checkpoint.size(), checkpoint.root());
        if size > local {
            return Err(LedgerError::RolledBack { local, cosigned: size, by: by.clone() });
        }
        let found = root_at(tree, size).map_err(|error| match error {
            BuildError::Source(error) => LedgerError::Storage(error),
            other => LedgerError::Unguarded { by: by.clone(), problem: other.to_string() },
        })?;
        if found != wanted {
            return Err(LedgerError::OtherHistory { size, found, wanted, by: by.clone() });
        }
    }
    Ok(())
}

/// Between two attempts.
const RETRY_INTERVAL: Duration = Duration::from_millis(500);
