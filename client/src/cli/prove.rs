//! `prove`: fetches the proof of one entry, verifies it, and keeps it.

use std::{path::PathBuf, time::Duration};

use access_ledger_proto::{
    checkpoint::VerifiedCheckpoint, hash::sha256, note::VerifierKey, position::Index,
    quorum::Quorum, receipt::TlogProof,
};
use anyhow::anyhow;
use clap::Args;
use tokio::time::{Instant, sleep};

use super::{Failure, Server, cosigners::Cosigners, record::write_synced, say};
use crate::{connect::entry_proof, evidence::Caught, pull::Puller, verify::Scope};

/// Fetches the proof that an entry is in the ledger; it verifies offline, for ever
#[derive(Debug, Args)]
pub(super) struct Prove {
    #[command(flatten)]
    server: Server,
    /// Verifier key of the ledger
    #[arg(long, value_name = "VKEY", env = "ACCESS_LEDGER_KEY")]
    ledger: VerifierKey,
    /// The entry
    #[arg(long, value_name = "N")]
    index: u64,
    /// The file to write; one that exists is replaced
    #[arg(long, value_name = "FILE.tlog-proof")]
    out: PathBuf,
    /// Writes the event's bytes too
    #[arg(long, value_name = "FILE")]
    event: Option<PathBuf>,
    #[command(flatten)]
    cosigners: Cosigners,
}

impl Prove {
    pub(super) async fn run(self) -> Result<(), Failure> {
        let puller = Puller::new(self.server.reach().await?);
        let index = Index(self.index);
        let quorum = self.cosigners.quorum(&self.ledger)?;
        let (proof, checkpoint) = pull_proof(&puller, index, &self.ledger, &quorum).await?;
        if let Some(path) = &self.event {
            let mut records = puller.records(index, index.size_through(), Scope::Events);
            let run = records.next().await.ok_or_else(|| anyhow!("no answer"))??;
            let event = run.1.into_iter().next().and_then(|record| record.event);
            let event = event.ok_or_else(|| anyhow!("the event at index {index} was erased"))?;
            let entry = access_ledger_proto::entry::Entry::parse(&proof.entry)?;
            if sha256(&event) != entry.event_digest {
                let problem = format!("the event at index {index} is not the one recorded there");
                let caught = Caught::Answer { problem, bytes: event };
                return Err(Failure::Caught(Box::new(caught), Box::new(self.ledger)));
            }
            write_synced(path, &event)?;
        }
        write_synced(&self.out, proof.encode().as_bytes())?;
        let size = checkpoint.size();
        say(format_args!("index {index} is under the checkpoint of size {size}"))?;
        Ok(())
    }
}

/// Fetches and verifies the proof of one entry, under a checkpoint that has its quorum; waits a
/// while for that.
pub(super) async fn pull_proof(
    puller: &Puller,
    index: Index,
    ledger: &VerifierKey,
    quorum: &Quorum,
) -> Result<(TlogProof, VerifiedCheckpoint), Failure> {
    let until = Instant::now() + QUORUM_PATIENCE;
    loop {
        let found = puller.receipt(index).await?;
        let (_, proof) = entry_proof(&found)?;
        if proof.index != index {
            let found = proof.index;
            return Err(anyhow!("the answer is for index {found}, asked for was {index}").into());
        }
        let checkpoint = match proof.verify(ledger, &quorum.keys()) {
            Ok(checkpoint) => checkpoint,
            Err(error) => {
                let caught = Caught::Proof { index, error, file: proof.encode() };
                return Err(Failure::Caught(Box::new(caught), Box::new(ledger.clone())));
            }
        };
        let lacking = quorum.lacking(checkpoint.cosignatures());
        if lacking.is_empty() {
            return Ok((proof, checkpoint));
        }
        if Instant::now() >= until {
            let (size, names) = (checkpoint.size(), lacking.join(", "));
            return Err(anyhow!(
                "the checkpoint of size {size} lacks the cosignatures of {names}: ask again later"
            )
            .into());
        }
        sleep(QUORUM_POLL).await;
    }
}

/// How long cosignatures are waited for, which come behind the entries.
const QUORUM_PATIENCE: Duration = Duration::from_secs(10);

const QUORUM_POLL: Duration = Duration::from_millis(200);
