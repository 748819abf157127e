//! Whoever calls the ledger with a key of their own.

use std::path::PathBuf;

use access_ledger_proto::{
    note::{Signer, VerifierKey},
    quorum::Quorum,
};
use clap::Args;

use super::{
    Failure, Server,
    cosigners::read_quorum,
    keys::{ledger_key, read_key},
};
use crate::{connect::Link, governance::GovernanceError, pull::Puller, recorder::Recorder};

/// The ledger, and the key to seal with.
#[derive(Debug, Args)]
pub(super) struct Caller {
    #[command(flatten)]
    server: Server,
    /// The key file to seal with; it holds the source's name
    #[arg(long, value_name = "FILE")]
    pub(super) key: PathBuf,
    /// Verifier key of the ledger; else the one pinned beside the key file, else the server's word
    #[arg(long, value_name = "VKEY", env = "ACCESS_LEDGER_KEY")]
    ledger: Option<VerifierKey>,
    /// Trust policy (C2SP tlog-policy): an event counts as recorded once the policy's witnesses
    /// have cosigned it
    #[arg(long, value_name = "FILE", value_parser = read_quorum)]
    quorum: Option<Quorum>,
}

/// A caller whose ledger was reached.
#[derive(Debug)]
pub(super) struct Called {
    pub(super) link: Link,
    pub(super) key: Signer,
    pub(super) ledger: VerifierKey,
    pub(super) quorum: Quorum,
}

impl Caller {
    /// Reads the key, reaches the ledger, and learns which key that must have.
    pub(super) async fn call(&self) -> Result<Called, Failure> {
        let key = read_key(&self.key)?;
        let link = self.server.reach().await?;
        let puller = Puller::new(link.clone());
        let ledger = ledger_key(self.ledger.as_ref(), &self.key, &puller).await?;
        let quorum = self.quorum.clone().unwrap_or_default();
        Ok(Called { link, key, ledger, quorum })
    }
}

impl Called {
    pub(super) fn puller(&self) -> Puller {
        Puller::new(self.link.clone())
    }

    /// A recorder for what a person does: one event a batch, for what changes the rules stands
    /// alone in its batch. No spool: what the ledger refuses would stay there, and be refused for
    /// ever.
    pub(super) async fn recorder(&self) -> Result<Recorder, Failure> {
        let (link, key) = (self.link.clone(), self.key.clone());
        let builder = Recorder::builder(link, key, self.ledger.clone()).batch_events_max(1);
        builder.quorum(self.quorum.clone()).start().await.map_err(|error| self.failure(error))
    }

    /// Ends a recorder whose events all have their receipts.
    pub(super) async fn close(&self, recorder: &Recorder) -> Result<(), Failure> {
        recorder.close().await.map(drop).map_err(|error| self.failure(error))
    }

    /// Why something was not recorded, with what it proves against the ledger.
    pub(super) fn failure(&self, error: impl Into<GovernanceError>) -> Failure {
        match error.into() {
            GovernanceError::Recorder(error) => Failure::of_recorder(error, &self.ledger),
            error => error.into(),
        }
    }
}
