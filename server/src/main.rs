//! The binary: parses, runs one subcommand, and says with its exit code how that went.
//!
//! 0: done. 1: what is stored does not hold. 2: usage, file or network.

use std::{
    io::{self, IsTerminal as _, Write as _},
    process::ExitCode,
    sync::Arc,
};

use access_ledger_client::keyfile;
use access_ledger_server::{
    backup, check,
    config::{
        CheckArgs, ClearArgs, Cli, Command, CustodianArgs, CustodianCommand, InitArgs, LogFormat,
        RestoreArgs, ResumeArgs, ServeArgs,
    },
    custodian::{self, Custodian, suspension},
    demo,
    error::LedgerError,
    folder::{Folder, Genesis, real_disk},
    guard,
    health::Health,
    identity::Door,
    ledger::Ledger,
    metrics,
    os::{self, Clock, Disk, Lock, SystemClock},
    restore, rotate,
    serve::{self, Serving, stop_signal},
    settings::{self, SettingsError},
    trace::{Exporter, LogLayer},
};
use anyhow::Context as _;
use clap::{CommandFactory as _, FromArgMatches as _};
use clap_complete::Shell;
use tokio::task::spawn_blocking;
use tracing_subscriber::{
    EnvFilter, Layer as _, fmt, layer::SubscriberExt as _, registry, util::SubscriberInitExt as _,
};

/// Events are many small allocations that cross threads; mimalloc is faster at those than the
/// system's allocator (measured: 1.2 times on the streamed path).
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let (command, disk) = (Cli::command(), real_disk());
    let matches = match settings::parse(&command, std::env::args_os(), &*disk) {
        Ok(matches) => matches,
        Err(SettingsError::Usage(usage)) => usage.exit(),
        Err(failure) => return refuse(&failure.into()),
    };
    let cli = Cli::from_arg_matches(&matches).unwrap_or_else(|usage| usage.exit());
    if cli.print_config {
        let _unread = write!(io::stdout(), "{}", settings::print(&command, &matches));
        return ExitCode::SUCCESS;
    }
    cli.passphrase_file.clone().into_iter().for_each(keyfile::use_passphrase_file);
    let exporter = match start_log(&cli) {
        Ok(exporter) => exporter,
        Err(failure) => return refuse(&failure),
    };
    let done = match cli.command {
        Command::Serve(args) => run_server(&args),
        Command::Init(args) => init(&args),
        Command::Check(args) => check(&args),
        Command::Custodian(args) => run_custodian(&args),
        Command::Restore(args) => restore(&args),
        Command::Backup(args) => backup::run(&disk, &args.options()),
        Command::Rotate(args) => {
            rotate::run(&*disk, &args.data.data, args.purpose(), &mut io::stdout())
                .map(|()| ExitCode::SUCCESS)
        }
        Command::Completions { shell } => print_completions(command, shell),
        Command::Man { subcommand } => print_manual(command, subcommand.as_deref()),
        Command::Demo(args) => demo::run(&args),
    };
    if let Some(exporter) = exporter {
        exporter.finish();
    }
    done.unwrap_or_else(|failure| refuse(&failure))
}

fn refuse(failure: &anyhow::Error) -> ExitCode {
    let _unwritten = writeln!(io::stderr(), "access-ledger-server: {}", told(failure));
    ExitCode::from(2)
}

/// A failure with its causes, each told once: some messages end with their cause already.
fn told(failure: &anyhow::Error) -> String {
    let causes = failure.chain().skip(1).map(ToString::to_string);
    causes.fold(failure.to_string(), |told, cause| {
        if told.ends_with(&cause) { told } else { format!("{told}: {cause}") }
    })
}

/// Starts the log, and the export of traces where they are wanted.
fn start_log(cli: &Cli) -> anyhow::Result<Option<Exporter>> {
    let filter = EnvFilter::try_new(&cli.log).context("--log")?;
    let log = fmt::layer().with_writer(io::stderr).with_ansi(io::stderr().is_terminal());
    let log: LogLayer = match cli.log_format {
        LogFormat::Text => log.with_filter(filter).boxed(),
        LogFormat::Json => log.json().with_filter(filter).boxed(),
    };
    let export = match &cli.command {
        Command::Serve(args) => {
            args.traces.export("access-ledger", args.otlp_one_in, &args.credentials)?
        }
        Command::Custodian(args) => {
            args.traces.export("access-ledger-custodian", 1, &args.credentials)?
        }
        _ => None,
    };
    let started = export.map(|options| Exporter::start(&options)).transpose()?;
    let (spans, exporter) = started.unzip();
    registry().with([Some(log), spans].into_iter().flatten().collect::<Vec<_>>()).init();
    Ok(exporter)
}

fn print_completions(mut command: clap::Command, shell: Shell) -> anyhow::Result<ExitCode> {
    let mut script = Vec::new();
    let name = command.get_name().to_owned();
    clap_complete::generate(shell, &mut command, name, &mut script);
    io::stdout().write_all(&script)?;
    Ok(ExitCode::SUCCESS)
}

fn print_manual(mut command: clap::Command, subcommand: Option<&str>) -> anyhow::Result<ExitCode> {
    command.build();
    let page = match subcommand {
        None => command,
        Some(name) => {
            let found = command.find_subcommand(name);
            found.with_context(|| format!("no subcommand {name}"))?.clone()
        }
    };
    clap_mangen::Man::new(page).render(&mut io::stdout())?;
    Ok(ExitCode::SUCCESS)
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
    os::raise_open_files().context("the limit of open files")?;
    let (disk, clock) = (real_disk(), system_clock());
    let door = Door::open(&disk, args.door.files())?;
    let mut options = args.ledger(&*disk)?;
    options.cosigning.credentials = args.credentials.read()?;
    let lock = lock(&*disk, &options.folder)?;
    let folder = Folder::new(&options.folder);
    let is_new = folder.origin(&*disk)?.is_none();
    if is_new {
        let origin = args.origin.clone().map_or_else(own_origin, Ok)?;
        let genesis = Genesis { self_enrolment: true, ..Genesis::new(origin) };
        let genesis = genesis.with_policy(&*disk, args.policy.as_deref())?;
        Ledger::init(&options, &disk, &clock, &genesis)?;
    }
    let health = Health::new();
    serve::runtime(args.threads)?.block_on(async {
        door.keep_fresh()?;
        let metrics_address = metrics::expose(args.metrics_listen, &door, &health).await?;
        // Nobody can have seen anything of a key that was just made.
        if !is_new && !args.danger_skip_guard {
            let vkey = folder.open_keys(&*disk)?.ledger.verifier().clone();
            options.seen = guard::ask(&options.cosigning, &vkey, guard::PATIENCE).await?;
        }
        let open = move || Ledger::open(&options, &disk, &clock, Some(lock));
        let ledger = spawn_blocking(open).await??;
        let stop = stop_signal()?;
        let serving = Serving::bind(ledger, args.listen).await?.behind(door).telling(health);
        let serving = serving.adding_up_reads(args.door.reads_window());
        greet(&serving, &metrics_address.to_string())?;
        serving.run(stop).await?;
        Ok(ExitCode::SUCCESS)
    })
}

fn run_custodian(args: &CustodianArgs) -> anyhow::Result<ExitCode> {
    match &args.command {
        Some(CustodianCommand::Clear(args)) => return clear(args),
        Some(CustodianCommand::Resume(args)) => return resume(args),
        None => {}
    }
    let (disk, clock) = (real_disk(), system_clock());
    let (ledger, options) = args.check(&*disk)?;
    os::raise_open_files().context("the limit of open files")?;
    let door = Door::open(&disk, args.door.files())?;
    let credentials = args.credentials.read()?;
    let lock = lock(&*disk, &options.folder)?;
    let health = Health::new();
    serve::runtime(args.threads)?.block_on(async {
        door.keep_fresh()?;
        let metrics_address = metrics::expose(args.metrics_listen, &door, &health).await?;
        let open = move || Custodian::open(options, &disk, &clock, Some(lock));
        let custodian = spawn_blocking(open).await??;
        let stop = stop_signal()?;
        let custodian = custodian.showing(credentials);
        let serving = Serving::bind(custodian, args.listen).await?.behind(door).telling(health);
        let serving = serving.adding_up_reads(args.door.reads_window());
        greet_custodian(args, &serving, &metrics_address.to_string())?;
        serving.run(&ledger, stop).await?;
        Ok(ExitCode::SUCCESS)
    })
}

/// Tells on standard output where the custodian is and what to do with its keys.
fn greet_custodian(
    args: &CustodianArgs,
    serving: &Serving<Custodian>,
    metrics_address: &str,
) -> anyhow::Result<()> {
    let scheme = if serving.is_encrypted() { "https" } else { "http" };
    let here = format!("{scheme}://{}", serving.address());
    let url = args.url.as_ref().unwrap_or(&here);
    let [witness, mirror] = serving.custodian().vkeys();
    let policy = serving.custodian().write_quorum_policy(url)?;
    let mut out = io::stdout().lock();
    writeln!(out, "serving     {here}")?;
    writeln!(out, "witness key {witness}")?;
    writeln!(out, "mirror key  {mirror}")?;
    writeln!(out, "metrics     {scheme}://{metrics_address}/metrics")?;
    writeln!(out, "policy      {}\n", policy.display())?;
    writeln!(out, "{}", serving.custodian().quorum_policy(url))?;
    if let Some(halt) = serving.custodian().halt() {
        writeln!(out, "HALTED      {}", halt.message)?;
    }
    Ok(out.flush()?)
}

fn clear(args: &ClearArgs) -> anyhow::Result<ExitCode> {
    let (disk, folder) = (real_disk(), &args.data.data);
    anyhow::ensure!(folder.is_dir(), "{} is no folder", folder.display());
    let _lock = lock(&*disk, folder)?;
    let halt = custodian::clear::clear(&disk, &system_clock(), folder, &args.evidence)?;
    writeln!(io::stdout(), "cleared     {}: {}", halt.alarm, halt.message)?;
    Ok(ExitCode::SUCCESS)
}

fn resume(args: &ResumeArgs) -> anyhow::Result<ExitCode> {
    let (disk, folder) = (real_disk(), &args.data.data);
    anyhow::ensure!(folder.is_dir(), "{} is no folder", folder.display());
    let _lock = lock(&*disk, folder)?;
    let others = args.others(&*disk)?;
    let mut out = io::stdout().lock();
    let told = (&args.cosigned[..], &args.never_cosigned[..]);
    for (origin, size) in suspension::resume(&*disk, folder, told, &others)? {
        writeln!(out, "signs on    behind size {size} of {origin}")?;
    }
    Ok(ExitCode::SUCCESS)
}

fn restore(args: &RestoreArgs) -> anyhow::Result<ExitCode> {
    let (disk, folder) = (real_disk(), &args.data.data);
    anyhow::ensure!(folder.is_dir(), "{} is no folder", folder.display());
    let _lock = lock(&*disk, folder)?;
    let custodian = (&*args.from, &args.credentials.read()?);
    let trusted = (args.ledger_key.as_ref(), &*args.custodian);
    restore::run((&disk, system_clock()), folder, custodian, trusted)
}

/// Tells on standard output where the ledger is and what to type next.
fn greet(serving: &Serving<Ledger>, metrics_address: &str) -> io::Result<()> {
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
