//! `check-evidence`: judges a file of evidence, offline.

use std::{fs, path::PathBuf};

use access_ledger_proto::note::VerifierKey;
use anyhow::Context as _;
use clap::Args;

use super::{Failure, say};
use crate::evidence::{Evidence, Verdict};

/// Judges a file of evidence without asking anybody: exit code 1 proven, 3 not proven
#[derive(Debug, Args)]
pub(super) struct CheckEvidence {
    /// The evidence
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Verifier key of the ledger that the evidence must be against; without it, whose the key in
    /// the file is remains for you to find out
    #[arg(long, value_name = "VKEY", env = "ACCESS_LEDGER_KEY")]
    ledger: Option<VerifierKey>,
    /// Verifier key of a witness that you know, beside those that the file names; repeat for more
    #[arg(long = "witness", value_name = "VKEY")]
    witnesses: Vec<VerifierKey>,
}

impl CheckEvidence {
    pub(super) fn run(self) -> Result<(), Failure> {
        let file = || self.file.display().to_string();
        let bytes = fs::read(&self.file).with_context(file)?;
        let evidence = Evidence::parse(&bytes).with_context(file)?;
        if let Some(wanted) = self.ledger.as_ref().filter(|wanted| **wanted != evidence.ledger) {
            let problem = format!("evidence is against {}, asked was {wanted}", evidence.ledger);
            return Err(anyhow::anyhow!(problem).context(file()).into());
        }
        let verdict = evidence.judge(&self.witnesses).with_context(file)?;
        say(format_args!("ledger    {}{}", evidence.ledger, self.known(&evidence.ledger)))?;
        say(format_args!("claim     {}", evidence.finding))?;
        match verdict {
            Verdict::Proven(convictions) => {
                for conviction in convictions {
                    let (key, misdeed) = (conviction.key, conviction.misdeed);
                    let known = self.known(&key);
                    say(format_args!("PROVEN    {key}{known} signed {misdeed}"))?;
                }
                Err(Failure::Said(1))
            }
            Verdict::NotProven => {
                say(format_args!(
                    "NOT PROVEN by this file alone: it is the word of whoever wrote it; what the \
                     ledger signed is in it, so ask the ledger for that"
                ))?;
                Err(Failure::Said(3))
            }
        }
    }

    /// A remark on a key that nobody but the file names.
    fn known(&self, key: &VerifierKey) -> &'static str {
        let known = self.ledger.iter().chain(&self.witnesses).any(|known| known == key);
        if known { "" } else { " (a key that the file names: make sure whose it is)" }
    }
}
