//! `check-proof`: verifies a proof file, offline.

use std::{fs, path::PathBuf};

use access_ledger_proto::{
    entry::Entry, error::ReceiptError, hash::sha256, note::VerifierKey, receipt::TlogProof,
};
use anyhow::Context as _;
use clap::Args;

use super::{Failure, cosigners::Cosigners, say, time};

/// Verifies a proof file without asking anybody
#[derive(Debug, Args)]
pub(super) struct CheckProof {
    /// The proof
    #[arg(value_name = "FILE.tlog-proof")]
    file: PathBuf,
    /// Verifier key of the ledger
    #[arg(long, value_name = "VKEY", env = "ACCESS_LEDGER_KEY")]
    ledger: VerifierKey,
    /// The event's bytes, to be compared with the entry
    #[arg(long, value_name = "FILE")]
    event: Option<PathBuf>,
    #[command(flatten)]
    cosigners: Cosigners,
}

impl CheckProof {
    pub(super) fn run(self) -> Result<(), Failure> {
        let file = || self.file.display().to_string();
        let bytes = fs::read(&self.file).with_context(file)?;
        let proof = TlogProof::parse(&bytes).with_context(file)?;
        let refuted = |error: ReceiptError| Failure::Refuted(error.to_string());
        let quorum = self.cosigners.quorum(&self.ledger)?;
        let checkpoint = proof.verify(&self.ledger, &quorum.keys()).map_err(refuted)?;
        let lacking = quorum.lacking(checkpoint.cosignatures());
        if !lacking.is_empty() {
            let (size, names) = (checkpoint.size(), lacking.join(", "));
            let problem = format!("checkpoint of size {size} without the cosignatures of {names}");
            return Err(Failure::Refuted(problem));
        }
        let entry = Entry::parse(&proof.entry).map_err(|error| refuted(error.into()))?;
        if let Some(path) = &self.event {
            let event = fs::read(path).with_context(|| path.display().to_string())?;
            let (found, wanted) = (sha256(&event), entry.event_digest);
            if found != wanted {
                let problem = format!("the event's digest is {found}, the entry has {wanted}");
                return Err(Failure::Refuted(problem));
            }
        }
        say(format_args!("index     {}", entry.index))?;
        say(format_args!("recorded  {}", time(entry.recorded_at)))?;
        say(format_args!("source    {}, number {}", entry.source, entry.source_seq))?;
        let compared = if self.event.is_some() { "the file's" } else { "not compared" };
        say(format_args!("event     {} ({compared})", entry.event_digest))?;
        say(format_args!("ledger    {}, size {}", checkpoint.origin(), checkpoint.size()))?;
        say(format_args!("root      {}", checkpoint.root()))?;
        for cosignature in checkpoint.cosignatures() {
            let at = time(cosignature.timestamp_s.saturating_mul(1_000_000_000));
            say(format_args!("cosigned  by {} at {at}", cosignature.key.name()))?;
        }
        Ok(())
    }
}
