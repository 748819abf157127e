//! Flags and environment, checked before anything opens.

mod custodian;
mod door;
mod folders;
mod traces;

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use access_ledger_proto::{note::VerifierKey, quorum::Quorum};
use clap::{Args, Parser, Subcommand, ValueEnum, value_parser};

pub use self::{
    custodian::{ClearArgs, CustodianArgs, CustodianCommand, CustodianDataArgs, ResumeArgs},
    door::{CredentialArgs, DoorArgs},
    folders::{BackupArgs, CheckArgs, DemoArgs, RestoreArgs, RotateArgs},
    traces::TraceArgs,
};
use crate::{
    error::LedgerError,
    folder::Genesis,
    ledger::{Cosigning, LedgerOptions},
    os::{self, Disk},
    scrub::ScrubOptions,
    storage::Options,
};

/// The access ledger: an append-only, hash-chained, signed log of accesses to protected data.
#[derive(Debug, Parser)]
#[command(name = "access-ledger-server", version)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,

    /// Which events of the server itself are logged to standard error: `info`, `debug`, or per
    /// module as in `info,access_ledger_server::ledger=debug`.
    #[arg(long, global = true, default_value = "info", env = "ACCESS_LEDGER_LOG")]
    pub log: String,

    /// How they are written.
    #[arg(
        long,
        global = true,
        value_enum,
        default_value_t = LogFormat::Text,
        env = "ACCESS_LEDGER_LOG_FORMAT"
    )]
    pub log_format: LogFormat,

    /// File with the passphrase of encrypted key files in `keys/`; new ones are encrypted under it.
    #[arg(long, global = true, value_name = "FILE", env = "ACCESS_LEDGER_PASSPHRASE_FILE")]
    pub passphrase_file: Option<PathBuf>,

    /// A TOML file with settings: the long flags of the subcommand, without their dashes. The
    /// command line and the environment take precedence over it.
    #[arg(long, global = true, value_name = "FILE", env = "ACCESS_LEDGER_CONFIG")]
    pub config: Option<PathBuf>,

    /// Print the settings that the subcommand would run with, as such a file, and do nothing.
    #[arg(long, global = true)]
    pub print_config: bool,
}

/// The form of log lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// The subcommands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Serve a ledger over gRPC. In an empty folder: make one first that lets sources enrol
    /// themselves.
    Serve(Box<ServeArgs>),
    /// Make a ledger, without self-enrolment unless asked for.
    Init(InitArgs),
    /// Verify everything that a stopped ledger or custodian has on disk; name the first entry that
    /// does not hold.
    Check(CheckArgs),
    /// Follow a ledger: hold a verified copy, cosign what is held, raise alarms, serve auditors.
    Custodian(Box<CustodianArgs>),
    /// Bring back what a stopped ledger lost, from a custodian that has cosigned it; or what a
    /// custodian lost, from the ledger.
    Restore(Box<RestoreArgs>),
    /// Copy the folder of a ledger or custodian, also while it is served, and verify the copy.
    Backup(BackupArgs),
    /// Make the key that is to take the place of the ledger's, also while that is served; it does
    /// when governance has recorded the change that is printed.
    Rotate(RotateArgs),
    /// Print a completion script for a shell.
    #[command(hide = true)]
    Completions {
        /// For which one.
        shell: clap_complete::Shell,
    },
    /// Print a manual page in roff: of the program, or of a subcommand.
    #[command(hide = true)]
    Man {
        /// Of which one.
        subcommand: Option<String>,
    },
    /// Show the whole thing in under a minute: record a half-year, verify it, tell what it shows,
    /// tamper with copies.
    Demo(DemoArgs),
}

/// Where the ledger lies.
#[derive(Clone, Debug, Args)]
pub struct DataArgs {
    /// The data folder: a ledger's; of `check`, `restore` and `backup` a custodian's too.
    #[arg(
        long,
        value_name = "DIR",
        default_value = "access-ledger-data",
        env = "ACCESS_LEDGER_DATA"
    )]
    pub data: PathBuf,
}

/// Flags of `serve`.
#[derive(Clone, Debug, Args)]
pub struct ServeArgs {
    /// Where the ledger lies.
    #[command(flatten)]
    pub data: DataArgs,

    /// Address for gRPC and HTTP. Port 0: any free one.
    #[arg(long, default_value = "127.0.0.1:7070", env = "ACCESS_LEDGER_LISTEN")]
    pub listen: SocketAddr,

    /// Address for `/metrics`, `/healthz` and `/readyz`. Port 0: any free one.
    #[arg(long, default_value = "127.0.0.1:7071", env = "ACCESS_LEDGER_METRICS_LISTEN")]
    pub metrics_listen: SocketAddr,

    /// Who may call.
    #[command(flatten)]
    pub door: DoorArgs,

    /// What witnesses are shown.
    #[command(flatten)]
    pub credentials: CredentialArgs,

    /// What is traced.
    #[command(flatten)]
    pub traces: TraceArgs,

    /// Of the batches whose callers send no trace of their own (`traceparent`), one in so many is
    /// traced; of the others those whose callers keep theirs.
    #[arg(
        long,
        value_name = "N",
        default_value_t = 100,
        value_parser = value_parser!(u32).range(1..),
        env = "ACCESS_LEDGER_OTLP_ONE_IN"
    )]
    pub otlp_one_in: u32,

    /// The name of the ledger that an empty folder gets. By default one that is nobody else's.
    #[arg(long, value_name = "NAME", env = "ACCESS_LEDGER_ORIGIN")]
    pub origin: Option<String>,

    /// The policy (Cedar) that the ledger of an empty folder begins with. By default the one that
    /// comes with this program.
    #[arg(long, value_name = "FILE", env = "ACCESS_LEDGER_POLICY")]
    pub policy: Option<PathBuf>,

    /// Most MiB of batches that wait to be written; beyond it callers are told to come back.
    #[arg(long, value_name = "MIB", default_value_t = 64, env = "ACCESS_LEDGER_QUEUE_MIB")]
    pub queue_mib: u16,

    /// MiB at which a segment file is full. Opening reads one segment.
    #[arg(long, value_name = "MIB", default_value_t = 64, env = "ACCESS_LEDGER_SEGMENT_MIB")]
    pub segment_mib: u16,

    /// MiB that are kept free on the disk: with less, appends are refused until there is space
    /// again, and reads go on. 0: appends go on until a write fails.
    #[arg(long, value_name = "MIB", default_value_t = 256, env = "ACCESS_LEDGER_RESERVE_MIB")]
    pub reserve_mib: u32,

    /// MiB a second at which what is stored is read again, all the time, to find bit rot. 0: it is
    /// not.
    #[arg(long, value_name = "MIB", default_value_t = 4, env = "ACCESS_LEDGER_SCRUB_MIB")]
    pub scrub_mib: u16,

    /// Trust policy (C2SP tlog-policy) whose witnesses, as far as it gives their addresses, are
    /// asked to cosign every checkpoint, and at the start what they have seen of the ledger.
    #[arg(long, value_name = "FILE", env = "ACCESS_LEDGER_WITNESSES")]
    pub witnesses: Option<PathBuf>,

    /// Trust policy whose witnesses are asked too, and whose quorum must have cosigned before a
    /// receipt is given.
    #[arg(long, value_name = "FILE", env = "ACCESS_LEDGER_RECEIPTS_POLICY")]
    pub receipts_policy: Option<PathBuf>,

    /// Milliseconds that a receipt waits for its cosignatures, before the caller is told to ask
    /// again; at most 50,000, for a call has a minute.
    #[arg(
        long,
        value_name = "MS",
        default_value_t = 5_000,
        value_parser = value_parser!(u32).range(..=50_000),
        env = "ACCESS_LEDGER_RECEIPTS_WAIT_MS"
    )]
    pub receipts_wait_ms: u32,

    /// With witnesses: seconds without an entry after which the ledger records a heartbeat.
    #[arg(
        long,
        value_name = "S",
        default_value_t = 60,
        value_parser = value_parser!(u32).range(1..),
        env = "ACCESS_LEDGER_HEARTBEAT_S"
    )]
    pub heartbeat_s: u32,

    /// Start although a witness does not tell what it has seen, or has seen more than is here:
    /// entries may have been lost, and the ledger would sign a second history.
    #[arg(long, env = "ACCESS_LEDGER_DANGER_SKIP_GUARD")]
    pub danger_skip_guard: bool,

    /// Threads for the network. By default half the processors: the writer and the disk need the
    /// rest.
    #[arg(long, value_name = "N", env = "ACCESS_LEDGER_THREADS")]
    pub threads: Option<usize>,
}

/// Flags of `init`.
#[derive(Clone, Debug, Args)]
pub struct InitArgs {
    /// Where the ledger is to lie.
    #[command(flatten)]
    pub data: DataArgs,

    /// The ledger's name, as in `ledger.example/us-user-data`: part of every seal and checkpoint,
    /// and never to be used for another ledger.
    #[arg(long, value_name = "NAME")]
    pub origin: String,

    /// Verifier key of a governance party (`access-ledger keygen` prints it); twice or more, for
    /// rules change only by two parties together. Without any, the keys of company and custodian
    /// are made in the data folder.
    #[arg(long, value_name = "VKEY")]
    pub governance: Vec<VerifierKey>,

    /// The policy (Cedar) that the ledger begins with. By default the one that comes with this
    /// program.
    #[arg(long, value_name = "FILE")]
    pub policy: Option<PathBuf>,

    /// Let sources enrol themselves. Whoever reaches the port can then record under a new name.
    #[arg(long)]
    pub self_enrolment: bool,
}

/// A refusal of flags that are each right but not together.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// Not loopback, not encrypted.
    #[error(
        "{address} is not loopback: add --tls-certificate and --tls-key (or --danger-plaintext if \
         the network is yours alone)"
    )]
    Plaintext {
        /// The address asked for.
        address: SocketAddr,
    },
    /// Not loopback, and nobody asks who calls.
    #[error("{address} is not loopback: add --principals to tell who may call")]
    Everybody {
        /// The address asked for.
        address: SocketAddr,
    },
    /// No ledger to follow.
    #[error("expected --ledger and --ledger-key")]
    NoLedger,
    /// A file cannot be used.
    #[error("{}: {problem}", .path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong with it, and in which line.
        problem: String,
    },
}

impl ServeArgs {
    /// Checks what the flags say together.
    ///
    /// # Errors
    ///
    /// As [`DoorArgs::check`].
    pub fn check(&self) -> Result<(), ConfigError> {
        self.door.check(&[self.listen, self.metrics_listen])
    }

    /// How the ledger is opened.
    ///
    /// # Errors
    ///
    /// [`LedgerError::Io`], [`LedgerError::Quorum`] for the files of the policies.
    pub fn ledger(&self, disk: &dyn Disk) -> Result<LedgerOptions, LedgerError> {
        let policy = |path: &Option<PathBuf>| {
            path.as_deref().map(|path| read_quorum(disk, path)).transpose()
        };
        Ok(LedgerOptions {
            segment_bytes: u64::from(self.segment_mib.max(1)) << 20,
            queue_bytes_max: usize::from(self.queue_mib.max(1)) << 20,
            reserve_bytes: u64::from(self.reserve_mib) << 20,
            scrub: (self.scrub_mib > 0).then(|| ScrubOptions {
                bytes_per_second: u64::from(self.scrub_mib) << 20,
                ..ScrubOptions::default()
            }),
            cosigning: Cosigning {
                witnesses: policy(&self.witnesses)?,
                receipts: policy(&self.receipts_policy)?,
                receipts_wait: Duration::from_millis(self.receipts_wait_ms.into()),
                heartbeat: Duration::from_secs(self.heartbeat_s.into()),
                ..Cosigning::default()
            },
            ..LedgerOptions::new(&self.data.data)
        })
    }
}

/// Reads a trust policy.
///
/// # Errors
///
/// [`LedgerError::Io`]; [`LedgerError::Quorum`] with the line.
pub fn read_quorum(disk: &dyn Disk, path: &Path) -> Result<Quorum, LedgerError> {
    let file = os::read(disk, path, POLICY_BYTES_MAX);
    let file = file.map_err(|source| LedgerError::io(path, source))?;
    Quorum::parse(file).map_err(|error| LedgerError::Quorum { path: path.to_owned(), error })
}

/// Thousands of witnesses.
const POLICY_BYTES_MAX: usize = 1 << 20;

impl InitArgs {
    /// What the new ledger is to be.
    ///
    /// # Errors
    ///
    /// As [`Genesis::with_policy`].
    pub fn genesis(&self, disk: &dyn Disk) -> Result<Genesis, LedgerError> {
        let genesis = Genesis {
            governance: self.governance.clone(),
            self_enrolment: self.self_enrolment,
            ..Genesis::new(&self.origin)
        };
        genesis.with_policy(disk, self.policy.as_deref())
    }

    /// How the ledger is made.
    #[must_use]
    pub fn ledger(&self) -> LedgerOptions {
        let segment_bytes = Options::SEGMENT_BYTES;
        LedgerOptions { segment_bytes, ..LedgerOptions::new(&self.data.data) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn serve(flags: &[&str]) -> ServeArgs {
        let line = ["access-ledger-server", "serve"].iter().chain(flags);
        match Cli::parse_from(line).command {
            Command::Serve(args) => *args,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_flags_are_consistent() {
        use clap::CommandFactory as _;
        Cli::command().debug_assert();
    }

    #[test]
    fn only_loopback_is_served_in_the_clear() {
        assert_eq!(serve(&[]).check(), Ok(()));
        assert_eq!(serve(&["--listen", "[::1]:0"]).check(), Ok(()));
        let address = "10.0.0.1:7070".parse().unwrap();
        let open = ["--listen", "10.0.0.1:7070"];
        assert_eq!(serve(&open).check(), Err(ConfigError::Plaintext { address }));
        let told = [&open[..], &["--danger-plaintext"]].concat();
        assert_eq!(serve(&told).check(), Ok(()));
        let metrics = serve(&["--metrics-listen", "0.0.0.0:1"]);
        assert!(metrics.check().is_err());
        let tls = [&open[..], &["--tls-certificate", "c", "--tls-key", "k"]].concat();
        assert_eq!(serve(&tls).check(), Err(ConfigError::Everybody { address }));
        // What is dangerous in the clear does not open an encrypted server to everybody.
        let told = [&tls[..], &["--danger-plaintext"]].concat();
        assert_eq!(serve(&told).check(), Err(ConfigError::Everybody { address }));
        let known = [&tls[..], &["--principals", "p"]].concat();
        assert_eq!(serve(&known).check(), Ok(()));
        let tokens = [&open[..], &["--principals", "p"]].concat();
        assert_eq!(serve(&tokens).check(), Err(ConfigError::Plaintext { address }));
    }
}
