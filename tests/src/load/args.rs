//! The command line, and what follows from it.

use std::{env, ffi::OsString, net::SocketAddr, path::PathBuf, time::Duration};

use access_ledger_proto::note::VerifierKey;
use access_ledger_server::config::DoorArgs;
use clap::{Args, Parser, Subcommand, ValueEnum};

/// Measures the ledger against what the machine can do.
#[derive(Debug, Parser)]
#[command(name = "access-ledger-load", version)]
pub struct Cli {
    /// What to measure.
    #[command(subcommand)]
    pub(super) command: Command,

    /// How often each thing is measured; medians are told.
    #[arg(long, global = true, default_value_t = 5)]
    pub(super) rounds: usize,

    /// Measure next to nothing, in seconds: shows that the tool works, not what the ledger does.
    #[arg(long, global = true)]
    pub(super) quick: bool,

    /// Also write the results to this file.
    #[arg(long, global = true, value_name = "FILE")]
    pub(super) json: Option<PathBuf>,

    /// Where ledgers are made for the time of the run. It must lie on a disk, not in memory.
    #[arg(long, global = true, value_name = "DIR")]
    dir: Option<PathBuf>,

    /// Threads for the network of each server. By default as many as `serve` takes.
    #[arg(long, global = true, value_name = "N")]
    pub(super) server_threads: Option<usize>,

    /// How many callers `unary` has at once.
    #[arg(long, global = true, value_name = "N,N", value_delimiter = ',', default_values_t = [1, 10, 100, 1_000])]
    callers: Vec<usize>,

    /// Entries of the ledger that `check` verifies, and that `custodian` catches up with.
    #[arg(long, global = true, value_name = "N", default_value_t = 1_000_000)]
    check_entries: u64,

    /// Entries of the ledgers that `open` opens, ascending; the largest takes 530 bytes an entry.
    #[arg(long, global = true, value_name = "N,N", value_delimiter = ',', default_values_t = [1_000_000, 10_000_000])]
    open_entries: Vec<u64>,

    /// Idle connections of `memory`.
    #[arg(long, global = true, value_name = "N", default_value_t = 10_000)]
    connections: usize,
}

/// The measurements, and the processes that they start.
#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Everything.
    All,
    /// Streamed appends in batches.
    Stream,
    /// Appends of one event a call.
    Unary,
    /// Intents with their verdicts, one a call.
    Authorize,
    /// Appends with and without a custodian that cosigns.
    Cosign,
    /// Verifying, on disk and over the network.
    Check,
    /// Opening, memory, bytes on disk.
    Open,
    /// A custodian that catches up with a ledger.
    Custodian,
    /// Appends over TLS with roles, and without either.
    Secure,
    /// Memory with idle connections, and with callers that do not read.
    Memory,
    /// A ledger, until standard input ends.
    #[command(hide = true)]
    ServeLedger(LedgerArgs),
    /// A custodian, until standard input ends.
    #[command(hide = true)]
    ServeCustodian(CustodianArgs),
    /// A service that decodes and echoes, until standard input ends.
    #[command(hide = true)]
    ServeEcho,
    /// Callers that hold on to something of a server, until standard input ends.
    #[command(hide = true)]
    Hold(HoldArgs),
    /// What `access-ledger pki` does.
    #[command(hide = true)]
    Pki {
        /// Its arguments.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        words: Vec<OsString>,
    },
    /// Opens a ledger once and tells what that took.
    #[command(hide = true)]
    OpenLedger(FolderArgs),
}

/// What a process of this tool is told.
#[derive(Debug, Args)]
pub(super) struct FolderArgs {
    /// The data folder.
    #[arg(long)]
    pub(super) data: PathBuf,
}

/// What a ledger of this tool is told.
#[derive(Debug, Args)]
pub(super) struct LedgerArgs {
    /// The data folder.
    #[arg(long)]
    pub(super) data: PathBuf,
    /// Where to listen; default: any free port.
    #[arg(long)]
    pub(super) listen: Option<SocketAddr>,
    /// Trust policy whose witnesses are asked to cosign.
    #[arg(long)]
    pub(super) witnesses: Option<PathBuf>,
    /// Who may call.
    #[command(flatten)]
    pub(super) door: DoorArgs,
}

/// What callers of this tool are told.
#[derive(Debug, Args)]
pub(super) struct HoldArgs {
    /// What they hold.
    #[arg(long, value_enum)]
    pub(super) held: Held,
    /// How many.
    #[arg(long)]
    pub(super) count: usize,
    /// Address of the ledger.
    #[arg(long)]
    pub(super) server: SocketAddr,
    /// The ledger's key.
    #[arg(long)]
    pub(super) ledger_key: VerifierKey,
    /// A folder with an authority and a client certificate: connections are TLS.
    #[arg(long)]
    pub(super) security: Option<PathBuf>,
}

/// What callers hold.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(super) enum Held {
    /// Connections without a call.
    Connections,
    /// Long answers that they do not read.
    Answers,
    /// Streams of receipts that they do not read.
    Receipts,
}

/// What a custodian of this tool is told.
#[derive(Debug, Args)]
pub(super) struct CustodianArgs {
    /// The data folder.
    #[arg(long)]
    pub(super) data: PathBuf,
    /// Address of the ledger.
    #[arg(long)]
    pub(super) ledger: String,
    /// The ledger's key.
    #[arg(long)]
    pub(super) ledger_key: VerifierKey,
}

/// How much to measure.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    /// At least one.
    pub(super) rounds: usize,
    /// How long one round of a stream lasts.
    pub(super) stream_time: Duration,
    /// Callers at once, and calls of all of them together in one round.
    pub(super) unary: Vec<(usize, usize)>,
    /// Syncs in one round.
    pub(super) syncs: usize,
    /// Entries of the ledger that is verified.
    pub(super) check_entries: u64,
    /// Entries of the ledgers that are opened, ascending.
    pub(super) open_entries: Vec<u64>,
    /// Idle connections.
    pub(super) connections: usize,
    /// Streams of receipts that nobody reads.
    pub(super) deaf_streams: usize,
    /// Where ledgers are made.
    pub(super) dir: PathBuf,
    /// Threads for the network of each server; `None`: the server's default.
    pub(super) server_threads: Option<usize>,
}

/// Calls in a round of about two seconds. More callers share a sync, as far as processors allow.
const fn calls(callers: usize) -> usize {
    let calls = 1_000 * if callers < 40 { callers } else { 40 };
    if calls < callers { callers } else { calls }
}

impl Cli {
    pub(super) fn plan(&self) -> Plan {
        let dir = self.dir.clone().unwrap_or_else(env::temp_dir);
        let server_threads = self.server_threads;
        if self.quick {
            return Plan {
                rounds: 1,
                stream_time: Duration::from_millis(200),
                unary: vec![(1, 20), (10, 100)],
                syncs: 20,
                check_entries: 20_000,
                open_entries: vec![10_000, 40_000],
                connections: 200,
                deaf_streams: 2,
                dir,
                server_threads,
            };
        }
        Plan {
            rounds: self.rounds.max(1),
            stream_time: Duration::from_secs(2),
            unary: self.callers.iter().map(|&callers| (callers, calls(callers))).collect(),
            syncs: 100,
            check_entries: self.check_entries,
            open_entries: self.open_entries.clone(),
            connections: self.connections,
            deaf_streams: 64,
            dir,
            server_threads,
        }
    }
}
