//! Processes of this tool: the servers, each on its own so that it competes like a real one.

use std::{
    env, fs,
    io::{self, BufRead as _, BufReader, Read as _, Write as _},
    net::{Ipv4Addr, SocketAddr},
    path::Path,
    process::{ChildStdin, Command, Stdio},
    sync::Arc,
    thread,
    time::Duration,
};

use access_ledger_client::connect::{Credentials, Link};
use access_ledger_proto::{
    checkpoint::Checkpoint,
    note::{Note, VerifierKey},
    wire::{self, audit_service_client::AuditServiceClient},
};
use access_ledger_server::{
    config::read_quorum,
    custodian::{Custodian, CustodianOptions},
    folder::{Folder, Genesis, real_disk},
    health::Health,
    identity::Door,
    ledger::{Ledger, LedgerOptions},
    metrics,
    os::{self, Clock, SystemClock},
    serve::{self, Serving},
};
use anyhow::{Context as _, ensure};
use clap::ValueEnum as _;
use tokio::{
    sync::oneshot,
    time::{Instant, sleep},
};
use tonic::transport::Endpoint;

use super::{
    args::{CustodianArgs, Held, LedgerArgs, Plan},
    echo,
    secure::Security,
};

/// The origin of every ledger that this tool makes.
pub(super) const ORIGIN: &str = "load.example/ledger";

/// A process that serves, until this is dropped.
pub(super) struct Child {
    process: std::process::Child,
    stdin: Option<ChildStdin>,
    /// What its callers show.
    credentials: Option<Credentials>,
    /// The words that it said when it was ready.
    said: Vec<String>,
}

impl Child {
    /// Starts a ledger on the folder, which gets one if it is empty.
    pub(super) fn ledger(plan: &Plan, data: &Path) -> anyhow::Result<Self> {
        Self::start(plan, "serve-ledger", |command| command.arg("--data").arg(data))
    }

    /// The same behind a door that wants TLS and a client certificate.
    pub(super) fn secure_ledger(
        plan: &Plan,
        data: &Path,
        security: &Security,
    ) -> anyhow::Result<Self> {
        let credentials = Some(security.credentials()?);
        let mut child = Self::start(plan, "serve-ledger", |command| {
            command.arg("--data").arg(data).args(security.flags())
        })?;
        child.credentials = credentials;
        Ok(child)
    }

    /// Starts callers that hold on to so much of something of the ledger.
    pub(super) fn holder(
        plan: &Plan,
        ledger: &Self,
        (held, count): (Held, usize),
        security: Option<&Path>,
    ) -> anyhow::Result<Self> {
        let (server, key, count) = (ledger.said(0)?, ledger.said(1)?, count.to_string());
        let held = held.to_possible_value().context("nothing to hold")?;
        Self::start(plan, "hold", |command| {
            let command = command.args(["--server", server, "--ledger-key", key]);
            let command = command.args(["--held", held.get_name(), "--count", &count]);
            match security {
                Some(folder) => command.arg("--security").arg(folder),
                None => command,
            }
        })
    }

    /// Starts the ledger on the folder where it was before, with the witnesses of this policy.
    pub(super) fn witnessed_ledger(
        plan: &Plan,
        data: &Path,
        address: &str,
        witnesses: &Path,
    ) -> anyhow::Result<Self> {
        Self::start(plan, "serve-ledger", |command| {
            let command = command.arg("--data").arg(data).args(["--listen", address]);
            command.arg("--witnesses").arg(witnesses)
        })
    }

    /// Starts a custodian that follows a ledger; it says its address and the file of its policy.
    pub(super) fn custodian(plan: &Plan, data: &Path, ledger: &Self) -> anyhow::Result<Self> {
        let (url, key) = (format!("http://{}", ledger.said(0)?), ledger.said(1)?);
        Self::start(plan, "serve-custodian", |command| {
            command.arg("--data").arg(data).args(["--ledger", &url, "--ledger-key", key])
        })
    }

    /// Starts a service that decodes and echoes.
    pub(super) fn echo(plan: &Plan) -> anyhow::Result<Self> {
        Self::start(plan, "serve-echo", |command| command)
    }

    /// Opens the ledger once, in a process of its own.
    pub(super) fn open(plan: &Plan, data: &Path) -> anyhow::Result<Self> {
        Self::start(plan, "open-ledger", |command| command.arg("--data").arg(data))
    }

    fn start(
        plan: &Plan,
        command: &str,
        tell: impl FnOnce(&mut Command) -> &mut Command,
    ) -> anyhow::Result<Self> {
        let mut this = Command::new(env::current_exe()?);
        tell(this.arg(command));
        if let Some(threads) = plan.server_threads {
            this.arg("--server-threads").arg(threads.to_string());
        }
        let mut process = this.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let stdin = process.stdin.take();
        let stdout = process.stdout.take().context("no standard output")?;
        let mut line = String::new();
        BufReader::new(stdout).read_line(&mut line)?;
        let said: Vec<_> = line.split_whitespace().map(str::to_owned).collect();
        ensure!(!said.is_empty(), "{command} ended before it was ready");
        Ok(Self { process, stdin, credentials: None, said })
    }

    /// The word at this place of what the process said.
    pub(super) fn said(&self, place: usize) -> anyhow::Result<&str> {
        Ok(self.said.get(place).context("too few words")?)
    }

    /// A connection to the server.
    pub(super) async fn connect(&self) -> anyhow::Result<Link> {
        if let Some(credentials) = &self.credentials {
            return Ok(credentials.reach(&format!("https://{}", self.said(0)?)).await?);
        }
        let server = format!("http://{}", self.said(0)?);
        Ok(Endpoint::from_shared(server)?.tcp_nodelay(true).connect().await?.into())
    }

    /// Seconds of processor time that the process and this one have taken.
    pub(super) fn cpu_seconds(&self) -> anyhow::Result<f64> {
        Ok(cpu_seconds(&self.process.id().to_string())? + cpu_seconds("self")?)
    }

    /// Seconds of processor time that the process alone has taken.
    pub(super) fn whole_cpu_seconds(&self) -> anyhow::Result<f64> {
        cpu_seconds(&self.process.id().to_string())
    }

    /// Seconds of processor time that the process alone has taken, but for the threads of its
    /// index: these come after the log when a processor is idle, in whichever round that is.
    pub(super) fn own_cpu_seconds(&self) -> anyhow::Result<f64> {
        let process = self.process.id().to_string();
        let mut seconds = cpu_seconds(&process)?;
        for thread in fs::read_dir(format!("/proc/{process}/task"))? {
            let thread = thread?.path();
            if fs::read_to_string(thread.join("comm")).is_ok_and(|name| name.starts_with("index")) {
                seconds -= stat_seconds(&thread)?;
            }
        }
        Ok(seconds)
    }

    /// Waits until the index covers all that is recorded, so that it takes no part in what is
    /// measured next.
    pub(super) async fn rest(&self) -> anyhow::Result<()> {
        let mut auditor = AuditServiceClient::new(self.connect().await?);
        let limit = Instant::now() + PATIENCE;
        loop {
            let request = wire::GetCheckpointRequest::default();
            let note = auditor.get_checkpoint(request).await?.into_inner().checkpoint;
            let note = Note::parse(&note)?;
            let size = Checkpoint::parse(note.text())?.size();
            let request = wire::QueryRequest { page_size: 1, ..Default::default() };
            let found = auditor.query(request).await?.into_inner();
            if found.indexed_size >= size.0 {
                return Ok(());
            }
            ensure!(Instant::now() < limit, "the index stays behind");
        }
    }

    /// Waits until the process takes next to no processor time.
    pub(super) async fn idle(&self) -> anyhow::Result<()> {
        let limit = Instant::now() + PATIENCE;
        let mut before = self.own_cpu_seconds()?;
        loop {
            sleep(Duration::from_secs(1)).await;
            let now = self.own_cpu_seconds()?;
            if now - before < 0.05 {
                return Ok(());
            }
            ensure!(Instant::now() < limit, "the process does not come to rest");
            before = now;
        }
    }

    /// Megabytes of the process that are in memory.
    pub(super) fn resident_mb(&self) -> anyhow::Result<f64> {
        resident_mb(&self.process.id().to_string())
    }

    /// The ledger's key.
    pub(super) fn vkey(&self) -> anyhow::Result<VerifierKey> {
        Ok(self.said(1)?.parse()?)
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        drop(self.stdin.take());
        // A server that does not stop in order is no part of what is measured.
        let _ended = self.process.wait();
    }
}

/// Serves the ledger in the folder.
pub(super) fn serve_ledger(args: &LedgerArgs, threads: Option<usize>) -> anyhow::Result<()> {
    os::raise_open_files()?;
    let (disk, clock): (_, Arc<dyn Clock>) = (real_disk(), Arc::new(SystemClock));
    let mut options = LedgerOptions::new(&args.data);
    if let Some(witnesses) = &args.witnesses {
        options.cosigning.witnesses = Some(read_quorum(&*disk, witnesses)?);
    }
    if Folder::new(&args.data).origin(&*disk)?.is_none() {
        let origin = ORIGIN.to_owned();
        let genesis = Genesis { self_enrolment: true, ..Genesis::new(origin) };
        Ledger::init(&options, &disk, &clock, &genesis)?;
    }
    serve::runtime(threads)?.block_on(async {
        let _address = metrics::expose(any_port(), &Door::for_everybody(), &Health::new()).await?;
        let ledger = Ledger::open(&options, &disk, &clock, None)?;
        let serving = Serving::bind(ledger, args.listen.unwrap_or_else(any_port)).await?;
        let serving = serving.behind(Door::open(&disk, args.door.files())?);
        say(&format!("{} {}", serving.address(), serving.ledger().vkey()))?;
        Ok(serving.run(stdin_end()).await?)
    })
}

/// Follows a ledger and cosigns what it holds.
pub(super) fn serve_custodian(args: &CustodianArgs, threads: Option<usize>) -> anyhow::Result<()> {
    let (disk, clock): (_, Arc<dyn Clock>) = (real_disk(), Arc::new(SystemClock));
    let options = CustodianOptions::new(&args.data, args.ledger_key.clone());
    serve::runtime(threads)?.block_on(async {
        let _address = metrics::expose(any_port(), &Door::for_everybody(), &Health::new()).await?;
        let custodian = Custodian::open(options, &disk, &clock, None)?;
        let serving = Serving::bind(custodian, any_port()).await?;
        let address = serving.address();
        let policy = serving.custodian().write_quorum_policy(&format!("http://{address}"))?;
        say(&format!("{address} {}", policy.display()))?;
        Ok(serving.run(&args.ledger, stdin_end()).await?)
    })
}

/// Serves the echo.
pub(super) fn serve_echo(threads: Option<usize>) -> anyhow::Result<()> {
    serve::runtime(threads)?.block_on(async {
        let listener = tokio::net::TcpListener::bind(any_port()).await?;
        say(&listener.local_addr()?.to_string())?;
        echo::serve(listener, stdin_end()).await;
        Ok(())
    })
}

/// Seconds of processor time that a process has taken.
pub(super) fn cpu_seconds(process: &str) -> anyhow::Result<f64> {
    stat_seconds(&Path::new("/proc").join(process))
}

/// The same of a process or a thread by its folder.
fn stat_seconds(folder: &Path) -> anyhow::Result<f64> {
    let stat = fs::read_to_string(folder.join("stat"))?;
    // The name of the program stands in parentheses and may hold anything.
    let (_, fields) = stat.rsplit_once(')').context("no name in stat")?;
    // proc_pid_stat(5): utime and stime are fields 14 and 15, in ticks; the name is field 2.
    let ticks = fields.split_whitespace().skip(11).take(2).map(str::parse::<u32>);
    let ticks: u32 = ticks.sum::<Result<_, _>>()?;
    Ok(f64::from(ticks) / TICKS_PER_SECOND)
}

/// An index, or a custodian, that is slower than a round takes a multiple of it.
pub(super) const PATIENCE: Duration = Duration::from_secs(120);

/// Megabytes of a process that are in memory.
pub(super) fn resident_mb(process: &str) -> anyhow::Result<f64> {
    let status = fs::read_to_string(format!("/proc/{process}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.split_whitespace().next()).context("no VmRSS")?;
    Ok(kib.parse::<f64>()? * 1_024.0 / 1e6)
}

/// What Linux tells to programs, whatever its kernel counts in.
const TICKS_PER_SECOND: f64 = 100.0;

/// Tells the process that started this one.
pub(super) fn say(line: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "{line}")?;
    out.flush()
}

/// Resolves when standard input ends: when the process that started this one wants it, or is gone.
pub(super) async fn stdin_end() {
    let (ended, has_ended) = oneshot::channel::<()>();
    thread::spawn(move || {
        let _count = io::stdin().lock().read_to_end(&mut Vec::new());
        drop(ended);
    });
    let _dropped = has_ended.await;
}

/// A free port of loopback.
pub(super) fn any_port() -> SocketAddr {
    (Ipv4Addr::LOCALHOST, 0).into()
}
