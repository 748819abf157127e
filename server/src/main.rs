//! The binary: parses, runs one subcommand, and says with its exit code how that went.
//!
//! 0: done. 1: what is stored does not hold. 2: usage, file or network.

use std::{
    io::{self, IsTerminal as _, Write as _},
    process::ExitCode,
    sync::Arc,
};

use access_ledger_server::{
    check,
    config::{CheckArgs, Cli, Command, InitArgs, LogFormat, ServeArgs},
    demo,
    error::LedgerError,
    folder::{Folder, Genesis, real_disk},
    identity::Door,
    ledger::Ledger,
    metrics,
    os::{Clock, Disk, Lock, SystemClock},
    serve::{self, Serving, stop_signal},
};
use anyhow::Context as _;
use clap::Parser as _;
use tracing_subscriber::EnvFilter;

/// Events are many small allocations that cross threads; mimalloc is faster at those than the
/// system's allocator (measured: 1.2 times on the streamed path).
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let done = start_log(&cli).and_then(|()| match cli.command {
        Command::Serve(args) => run_server(&args),
        Command::Init(args) => init(&args),
        Command::Check(args) => check(&args),
        Command::Demo(args) => demo::run(&args),
    });
    match done {
        Ok(code) => code,
        Err(failure) => {
            let told = told(&failure);
            let _unwritten = writeln!(io::stderr(), "access-ledger-server: {told}");
            ExitCode::from(2)
        }
    }
}

/// A failure with its causes, each told once: some messages end with their cause already.
fn told(failure: &anyhow::Error) -> String {
    let causes = failure.chain().skip(1).map(ToString::to_string);
    causes.fold(failure.to_string(), |told, cause| {
        if told.ends_with(&cause) { told } else { format!("{told}: {cause}") }
    })
}

fn start_log(cli: &Cli) -> anyhow::Result<()> {
    let filter = EnvFilter::try_new(&cli.log).context("--log")?;
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal());
    match cli.log_format {
        LogFormat::Text => log.init(),
        LogFormat::Json => log.json().init(),
    }
    Ok(())
}

fn init(args: &InitArgs) -> anyhow::Result<ExitCode> {
    let (disk, clock) = (real_disk(), system_clock());
    let _lock = lock(&*disk, &args.data.data)?;
    let vkey = Ledger::init(&args.ledger(), &disk, &clock, &args.genesis(&*disk)?)?;
    let mut out = io::stdout().lock();
    writeln!(out, "ledger key  {vkey}")?;
    if args.governance.is_empty() {
        let [company, custodian] = Folder::new(&args.data.data).governance_keys();
        writeln!(out, "governance  {} (belongs on a machine of the company)", company.display())?;
        writeln!(out, "            {} (on one of the custodian)", custodian.display())?;
    }
    writeln!(out, "\nNext:\n  access-ledger-server serve --data {}", args.data.data.display())?;
    Ok(ExitCode::SUCCESS)
}

fn check(args: &CheckArgs) -> anyhow::Result<ExitCode> {
    let (disk, folder) = (real_disk(), &args.data.data);
    // The lock would make the folder.
    anyhow::ensure!(folder.is_dir(), "{} is no folder", folder.display());
    let _lock = lock(&*disk, folder)?;
    check::run(&disk, folder)
}

fn run_server(args: &ServeArgs) -> anyhow::Result<ExitCode> {
    args.check()?;
    let options = args.ledger();
    let (disk, clock) = (real_disk(), system_clock());
    let door = Door::open(&disk, args.door.files())?;
    let lock = lock(&*disk, &options.folder)?;
    if Folder::new(&options.folder).origin(&*disk)?.is_none() {
        let origin = args.origin.clone().map_or_else(own_origin, Ok)?;
        let genesis = Genesis { self_enrolment: true, ..Genesis::new(origin) };
        let genesis = genesis.with_policy(&*disk, args.policy.as_deref())?;
        Ledger::init(&options, &disk, &clock, &genesis)?;
    }
    serve::runtime(args.threads)?.block_on(async {
        let metrics_address = metrics::expose(args.metrics_listen, &door).await?;
        let ledger = Ledger::open(&options, &disk, &clock, Some(lock))?;
        let stop = stop_signal()?;
        let serving = Serving::bind(ledger, args.listen).await?.behind(door);
        greet(&serving, &metrics_address.to_string())?;
        serving.run(stop).await?;
        Ok(ExitCode::SUCCESS)
    })
}

/// Tells on standard output where the ledger is and what to type next.
fn greet(serving: &Serving, metrics_address: &str) -> io::Result<()> {
    let scheme = if serving.is_encrypted() { "https" } else { "http" };
    let (server, vkey) = (format!("{scheme}://{}", serving.address()), serving.ledger().vkey());
    let mut out = io::stdout().lock();
    writeln!(out, "serving     {server}")?;
    writeln!(out, "ledger key  {vkey}")?;
    writeln!(out, "metrics     {scheme}://{metrics_address}/metrics")?;
    writeln!(out, "\nNext, in another terminal:")?;
    writeln!(out, "  export ACCESS_LEDGER_SERVER={server}")?;
    writeln!(out, "  export LEDGER={vkey}")?;
    writeln!(out, "  access-ledger keygen --name my-service --out my-service.key")?;
    if serving.ledger().allows_self_enrolment() {
        writeln!(out, "  access-ledger enroll --key my-service.key --ledger $LEDGER")?;
    } else {
        writeln!(
            out,
            "  access-ledger source register --key company.key --ledger $LEDGER VKEY-THAT-KEYGEN-PRINTED"
        )?;
    }
    writeln!(out, "  access-ledger record --key my-service.key --ledger $LEDGER events.jsonl")?;
    writeln!(out, "  access-ledger verify --ledger $LEDGER")?;
    out.flush()
}

fn lock(disk: &dyn Disk, folder: &std::path::Path) -> Result<Lock, LedgerError> {
    disk.create_dir(folder)
        .map_err(|source| LedgerError::Io { path: folder.to_owned(), source })?;
    let path = Folder::new(folder).lock();
    Lock::acquire(&path).map_err(|source| match source.kind() {
        io::ErrorKind::WouldBlock => LedgerError::Locked { folder: folder.to_owned() },
        _ => LedgerError::Io { path, source },
    })
}

/// A name that no other ledger has.
fn own_origin() -> anyhow::Result<String> {
    Ok(format!("localhost/{:08x}", getrandom::u32().context("no randomness")?))
}

fn system_clock() -> Arc<dyn Clock> {
    Arc::new(SystemClock)
}
