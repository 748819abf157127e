//! Flags of `custodian`, and of what else is done with its folder.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use access_ledger_proto::note::VerifierKey;
use clap::{Args, Subcommand, value_parser};

use super::{ConfigError, CredentialArgs, DoorArgs, TraceArgs};
use crate::{
    custodian::{CustodianOptions, patrol::PatrolOptions, timing::TimeLimits},
    folder::read_signer,
    os::{self, Disk},
    witness::parse_logs,
};

/// Flags of `custodian`.
#[derive(Clone, Debug, Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub struct CustodianArgs {
    /// Instead of following: something else with a custodian's folder.
    #[command(subcommand)]
    pub command: Option<CustodianCommand>,

    /// Address of the ledger, as in `http://127.0.0.1:7070`.
    #[arg(long, value_name = "URL", env = "ACCESS_LEDGER_SERVER", required = true)]
    pub ledger: Option<String>,

    /// Verifier key of the ledger, from a source that is not the ledger.
    #[arg(long, value_name = "VKEY", env = "ACCESS_LEDGER_KEY", required = true)]
    pub ledger_key: Option<VerifierKey>,

    /// Where the custodian lies.
    #[command(flatten)]
    pub data: CustodianDataArgs,

    /// Address for gRPC and HTTP. Port 0: any free one.
    #[arg(long, default_value = "127.0.0.1:7170", env = "ACCESS_LEDGER_CUSTODIAN_LISTEN")]
    pub listen: SocketAddr,

    /// Address for `/metrics`, `/healthz` and `/readyz`. Port 0: any free one.
    #[arg(long, default_value = "127.0.0.1:7171", env = "ACCESS_LEDGER_CUSTODIAN_METRICS_LISTEN")]
    pub metrics_listen: SocketAddr,

    /// Who may call.
    #[command(flatten)]
    pub door: DoorArgs,

    /// What the ledger is shown.
    #[command(flatten)]
    pub credentials: CredentialArgs,

    /// What is traced.
    #[command(flatten)]
    pub traces: TraceArgs,

    /// The private key of a source at the ledger, mode 0600, under whose name who reads here is
    /// recorded there. Without it that is not recorded. The ledger has to let this custodian record
    /// for it.
    #[arg(
        long,
        value_name = "FILE",
        requires = "principals",
        env = "ACCESS_LEDGER_CUSTODIAN_READS_KEY"
    )]
    pub reads_key: Option<PathBuf>,

    /// Where the ledger and its clients reach this custodian, for the policy file that it writes.
    /// By default `http://` and the address of --listen.
    #[arg(long, value_name = "URL", env = "ACCESS_LEDGER_CUSTODIAN_URL")]
    pub url: Option<String>,

    /// The custodian's name, as in `custodian.example/us-user-data`: that of its witness key; the
    /// mirror key has the same with `/mirror`. By default one that is nobody else's; for good.
    #[arg(long, value_name = "NAME", env = "ACCESS_LEDGER_CUSTODIAN_NAME")]
    pub name: Option<String>,

    /// File with further logs to witness, a line `log <vkey>` each: their checkpoints are cosigned
    /// as consistent, without a copy.
    #[arg(long, value_name = "FILE", env = "ACCESS_LEDGER_CUSTODIAN_WITNESS_LOGS")]
    pub witness_logs: Option<PathBuf>,

    /// Seconds that the copy may be behind the ledger before that is an alarm. Not counted before
    /// it caught up for the first time.
    #[arg(
        long,
        value_name = "SECONDS",
        default_value_t = 60,
        env = "ACCESS_LEDGER_CUSTODIAN_BEHIND_AFTER"
    )]
    pub behind_after: u32,

    /// Seconds without anything new from the ledger before that is an alarm. An idle ledger records
    /// a heartbeat of its own.
    #[arg(
        long,
        value_name = "SECONDS",
        default_value_t = 300,
        env = "ACCESS_LEDGER_CUSTODIAN_STALE_AFTER"
    )]
    pub stale_after: u32,

    /// Seconds that the time of an entry may be off by its own clock before that is an alarm.
    #[arg(
        long,
        value_name = "SECONDS",
        default_value_t = 30,
        env = "ACCESS_LEDGER_CUSTODIAN_SKEW"
    )]
    pub skew: u32,

    /// Seconds that the ledger may still serve an event that was redacted.
    #[arg(
        long,
        value_name = "SECONDS",
        default_value_t = 600,
        env = "ACCESS_LEDGER_CUSTODIAN_ERASURE_GRACE"
    )]
    pub erasure_grace: u32,

    /// MiB a second, at most, that are read again of what the ledger serves.
    #[arg(
        long,
        value_name = "MIB",
        default_value_t = 4,
        value_parser = value_parser!(u16).range(1..1_024),
        env = "ACCESS_LEDGER_CUSTODIAN_PATROL_MIB"
    )]
    pub patrol_mib: u16,

    /// Where alarms are sent: JSON by POST, repeated until it is taken.
    #[arg(long, value_name = "URL", env = "ACCESS_LEDGER_CUSTODIAN_WEBHOOK")]
    pub webhook: Option<String>,

    /// MiB at which a segment file is full. Opening reads one segment.
    #[arg(
        long,
        value_name = "MIB",
        default_value_t = 64,
        env = "ACCESS_LEDGER_CUSTODIAN_SEGMENT_MIB"
    )]
    pub segment_mib: u16,

    /// Threads for the network. By default half the processors: verifying needs the rest.
    #[arg(long, value_name = "N", env = "ACCESS_LEDGER_CUSTODIAN_THREADS")]
    pub threads: Option<usize>,
}

/// What else there is to do with a custodian's folder.
#[derive(Clone, Debug, Subcommand)]
pub enum CustodianCommand {
    /// Let a custodian sign again that has caught its ledger: only with the very evidence that
    /// halted it.
    Clear(ClearArgs),
    /// Let a custodian sign again whose folder was put back from a backup with its keys: from the
    /// newest checkpoints that those who rely on it know to be cosigned by it.
    Resume(ResumeArgs),
}

/// Where a custodian lies.
#[derive(Clone, Debug, Args)]
pub struct CustodianDataArgs {
    /// The custodian's data folder.
    #[arg(
        long,
        value_name = "DIR",
        default_value = "access-ledger-custodian",
        env = "ACCESS_LEDGER_CUSTODIAN_DATA"
    )]
    pub data: PathBuf,
}

/// Flags of `custodian clear`.
#[derive(Clone, Debug, Args)]
pub struct ClearArgs {
    /// Where the custodian lies. No custodian may have it open.
    #[command(flatten)]
    pub data: CustodianDataArgs,

    /// The evidence that halted it, as it lies in `alarms/`; read it first, with `access-ledger
    /// check-evidence`.
    #[arg(long, value_name = "FILE")]
    pub evidence: PathBuf,
}

/// Flags of `custodian resume`.
#[derive(Clone, Debug, Args)]
pub struct ResumeArgs {
    /// Where the custodian lies. No custodian may have it open.
    #[command(flatten)]
    pub data: CustodianDataArgs,

    /// The newest checkpoint, cosigned by this custodian, that anybody has of a log; of every log
    /// that it witnesses one. Not from the ledger alone: it could keep a newer one to itself.
    #[arg(long, value_name = "FILE", required_unless_present = "never_cosigned")]
    pub cosigned: Vec<PathBuf>,

    /// A log of which this custodian has never cosigned anything, not since the copy was made
    /// either. Where that is not so, it may sign a second history of it.
    #[arg(long, value_name = "ORIGIN")]
    pub never_cosigned: Vec<String>,

    /// File with the logs that it witnesses besides, as for `custodian`.
    #[arg(long, value_name = "FILE")]
    pub witness_logs: Option<PathBuf>,
}

impl ResumeArgs {
    /// The keys of the logs that are witnessed besides.
    ///
    /// # Errors
    ///
    /// [`ConfigError::File`].
    pub fn others(&self, disk: &dyn Disk) -> Result<Vec<VerifierKey>, ConfigError> {
        read_logs(disk, self.witness_logs.as_deref())
    }
}

impl CustodianArgs {
    /// Checks what the flags say together: the ledger's address and how the custodian is opened.
    ///
    /// # Errors
    ///
    /// As [`DoorArgs::check`]; [`ConfigError::NoLedger`]; [`ConfigError::File`] for the logs and
    /// the key.
    pub fn check(&self, disk: &dyn Disk) -> Result<(String, CustodianOptions), ConfigError> {
        self.door.check(&[self.listen, self.metrics_listen])?;
        // clap wants both, unless a subcommand is named.
        let (url, ledger) =
            self.ledger.clone().zip(self.ledger_key.clone()).ok_or(ConfigError::NoLedger)?;
        let witness_logs = read_logs(disk, self.witness_logs.as_deref())?;
        let key = |path: &PathBuf| {
            read_signer(disk, path).map_err(|error| ConfigError::File {
                path: path.clone(),
                problem: error.to_string(),
            })
        };
        let reads_key = self.reads_key.as_ref().map(key).transpose()?;
        let options = CustodianOptions {
            name: self.name.clone(),
            reads_key,
            witness_logs,
            segment_bytes: u64::from(self.segment_mib.max(1)) << 20,
            behind_after: Duration::from_secs(self.behind_after.into()),
            times: TimeLimits {
                skew: Duration::from_secs(self.skew.into()),
                stale_after: Duration::from_secs(self.stale_after.into()),
            },
            patrol: PatrolOptions {
                bytes_per_second: u32::from(self.patrol_mib) << 20,
                erasure_grace: Duration::from_secs(self.erasure_grace.into()),
                ..PatrolOptions::default()
            },
            webhook: self.webhook.clone(),
            ..CustodianOptions::new(&self.data.data, ledger)
        };
        Ok((url, options))
    }
}

/// The keys in a file of logs, if one is named.
fn read_logs(disk: &dyn Disk, path: Option<&Path>) -> Result<Vec<VerifierKey>, ConfigError> {
    let Some(path) = path else { return Ok(Vec::new()) };
    let file = |problem| ConfigError::File { path: path.to_owned(), problem };
    let bytes = os::read(disk, path, FILE_BYTES_MAX).map_err(|error| file(error.to_string()))?;
    let text = String::from_utf8(bytes).map_err(|error| file(error.to_string()))?;
    parse_logs(&text).map_err(|error| file(error.to_string()))
}

/// Of a file that a flag names.
const FILE_BYTES_MAX: usize = 1 << 20;
