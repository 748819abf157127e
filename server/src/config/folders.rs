//! Flags of the subcommands that work on folders and end by themselves.

use std::path::PathBuf;

use access_ledger_proto::note::VerifierKey;
use clap::Args;

use super::{CredentialArgs, DataArgs};
use crate::{backup::BackupOptions, folder::Purpose};

/// Flags of `check`.
#[derive(Clone, Debug, Args)]
pub struct CheckArgs {
    /// Where the ledger lies, or the custodian. No server may have it open.
    #[command(flatten)]
    pub data: DataArgs,
}

/// Flags of `restore`.
#[derive(Clone, Debug, Args)]
pub struct RestoreArgs {
    /// Where the ledger lies, or the custodian. No server may have it open.
    #[command(flatten)]
    pub data: DataArgs,

    /// Address of the custodian that holds what is missing or damaged, as in
    /// `http://127.0.0.1:7170`. For a custodian's own folder: of the ledger.
    #[arg(long, value_name = "URL")]
    pub from: String,

    /// Verifier key of the ledger that has signed what is restored, where it changed since. By
    /// default one of those in `keys/`, or the one that the copy or custodian knows. The log that
    /// is restored must tell of the change.
    #[arg(long, value_name = "VKEY")]
    pub ledger_key: Option<VerifierKey>,

    /// What the custodian is shown.
    #[command(flatten)]
    pub credentials: CredentialArgs,

    /// Verifier key of a custodian whose cosignature the checkpoint that is restored must have;
    /// as often as wanted. Without any, the ledger's own signature is enough.
    #[arg(long, value_name = "VKEY")]
    pub custodian: Vec<VerifierKey>,
}

/// Flags of `backup`.
#[derive(Clone, Debug, Args)]
pub struct BackupArgs {
    /// Where the ledger lies, or the custodian.
    #[command(flatten)]
    pub data: DataArgs,

    /// Where the copy goes: a folder that is empty or not there yet.
    #[arg(long, value_name = "DIR")]
    pub to: PathBuf,

    /// Copy the keys too. Whoever has a ledger's can sign a second history: without them a copy can
    /// be kept like any other file, and serves only with keys put back. A custodian's keys in a
    /// copy sign nothing before `custodian resume`; without them the copy becomes another
    /// custodian.
    #[arg(long)]
    pub with_keys: bool,
}

impl BackupArgs {
    /// What to copy, and where.
    #[must_use]
    pub fn options(&self) -> BackupOptions {
        let (from, to) = (self.data.data.clone(), self.to.clone());
        BackupOptions { from, to, with_keys: self.with_keys }
    }
}

/// Flags of `rotate`.
#[derive(Clone, Debug, Args)]
pub struct RotateArgs {
    /// Where the ledger lies.
    #[command(flatten)]
    pub data: DataArgs,

    /// The key of the ledger's own source, which seals registrations, verdicts and reads, instead
    /// of the one that signs checkpoints.
    #[arg(long)]
    pub own_source: bool,
}

impl RotateArgs {
    /// Which key is to be replaced.
    #[must_use]
    pub const fn purpose(&self) -> Purpose {
        if self.own_source { Purpose::Source } else { Purpose::Ledger }
    }
}

/// Flags of `demo`.
#[derive(Clone, Debug, Args)]
pub struct DemoArgs {
    /// How many everyday accesses the half-year has, beside those of its story.
    #[arg(long, value_name = "N", default_value_t = crate::demo::half_year::ACCESSES)]
    pub accesses: u64,

    /// The half-year that this seed tells.
    #[arg(long, default_value_t = 1)]
    pub seed: u64,

    /// Keep the ledger in this folder instead of a temporary one.
    #[arg(long, value_name = "DIR")]
    pub keep: Option<PathBuf>,
}
