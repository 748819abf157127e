//! Whose cosignatures a command knows, and which of them it wants.

use std::fs;

use access_ledger_proto::{note::VerifierKey, quorum::Quorum};
use anyhow::bail;
use clap::Args;

/// Known witnesses, or a policy that says which of them must have cosigned.
#[derive(Debug, Default, Args)]
pub(super) struct Cosigners {
    /// Verifier key of a cosigner whose signature on the checkpoint is reported; repeat for more
    #[arg(long = "witness", value_name = "VKEY", conflicts_with = "quorum")]
    witnesses: Vec<VerifierKey>,
    /// Trust policy (C2SP tlog-policy): nothing is believed that its witnesses have not cosigned
    #[arg(long, value_name = "FILE", value_parser = read_quorum)]
    quorum: Option<Quorum>,
}

impl Cosigners {
    /// The policy for checkpoints of this ledger.
    pub(super) fn quorum(&self, ledger: &VerifierKey) -> anyhow::Result<Quorum> {
        wanted(self.quorum.as_ref(), &self.witnesses, ledger)
    }
}

/// The policy that was named, or the one that knows these witnesses and wants none of them.
pub(super) fn wanted(
    quorum: Option<&Quorum>,
    witnesses: &[VerifierKey],
    ledger: &VerifierKey,
) -> anyhow::Result<Quorum> {
    let quorum = quorum.cloned().unwrap_or_else(|| Quorum::of_known(witnesses.to_vec()));
    if !quorum.accepts_log(ledger) {
        bail!("--quorum: the policy accepts other logs than {}", ledger.name());
    }
    Ok(quorum)
}

/// Reads a trust policy, for a flag.
pub(super) fn read_quorum(path: &str) -> Result<Quorum, String> {
    let file = fs::read(path).map_err(|error| error.to_string())?;
    Quorum::parse(file).map_err(|error| error.to_string())
}
