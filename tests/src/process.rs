//! The real binary, as a process of its own.

use std::{
    io::{BufReader, Read as _},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, ChildStdout, Command, ExitStatus, Output, Stdio},
    sync::OnceLock,
};

use access_ledger_proto::note::VerifierKey;
use anyhow::{Context as _, ensure};
use rustix::process::{Pid, Signal, kill_process};

/// A server of its own; killed when dropped.
pub struct Process {
    child: Child,
    stdout: BufReader<ChildStdout>,
    /// Where it serves gRPC.
    pub address: SocketAddr,
    /// Where it serves metrics.
    pub metrics_address: SocketAddr,
    /// The ledger's verifier key.
    pub vkey: VerifierKey,
}

impl Process {
    /// Starts `serve` on a folder, with further flags, and waits until it says that it is ready.
    /// It listens on a free port, unless a flag says where.
    ///
    /// # Errors
    ///
    /// When it ends before, with what it printed last.
    pub fn serve(data: &Path, flags: &[&str]) -> anyhow::Result<Self> {
        Self::start(Command::new(server_binary()?), data, flags)
    }

    /// The same, of which no file may become longer: what it writes beyond that fails for real.
    ///
    /// # Errors
    ///
    /// As [`Process::serve`].
    pub fn serve_within(data: &Path, file_kib_max: u32, flags: &[&str]) -> anyhow::Result<Self> {
        let mut shell = Command::new("bash");
        // The write is to fail, and not to end the process.
        let script = format!("trap '' XFSZ; ulimit -f {file_kib_max}; exec \"$0\" \"$@\"");
        shell.arg("-c").arg(script).arg(server_binary()?);
        Self::start(shell, data, flags)
    }

    fn start(mut command: Command, data: &Path, flags: &[&str]) -> anyhow::Result<Self> {
        let mut child = command
            .args(["--log", "error", "serve"])
            .args(anywhere("--listen", flags))
            .args(anywhere("--metrics-listen", flags))
            .arg("--data")
            .arg(data)
            .args(flags)
            .stdout(Stdio::piped())
            .spawn()?;
        let mut stdout = BufReader::new(child.stdout.take().context("no standard output")?);
        let address = address_of(&value(&mut stdout, "serving")?)?;
        let vkey = VerifierKey::parse(&value(&mut stdout, "ledger key")?)?;
        let metrics_address = metrics_address(&value(&mut stdout, "metrics")?)?;
        Ok(Self { child, stdout, address, metrics_address, vkey })
    }

    /// Starts `custodian` on a folder, which follows the ledger at an address, and waits until it
    /// says that it is ready. `vkey` is then that of the ledger.
    ///
    /// # Errors
    ///
    /// When it ends before, with what it printed last.
    pub fn custodian(
        data: &Path,
        ledger: SocketAddr,
        vkey: &VerifierKey,
        flags: &[&str],
    ) -> anyhow::Result<Self> {
        let mut child = Command::new(server_binary()?)
            .args(["--log", "error", "custodian", "--listen", "127.0.0.1:0"])
            .args(["--metrics-listen", "127.0.0.1:0", "--ledger", &format!("http://{ledger}")])
            .args(["--ledger-key", &vkey.to_string(), "--data"])
            .arg(data)
            .args(flags)
            .stdout(Stdio::piped())
            .spawn()?;
        let mut stdout = BufReader::new(child.stdout.take().context("no standard output")?);
        let address = address_of(&value(&mut stdout, "serving")?)?;
        for key in ["witness key", "mirror key"] {
            VerifierKey::parse(&value(&mut stdout, key)?)?;
        }
        let metrics_address = metrics_address(&value(&mut stdout, "metrics")?)?;
        Ok(Self { child, stdout, address, metrics_address, vkey: vkey.clone() })
    }

    /// Bytes of the process that are in memory.
    ///
    /// # Errors
    ///
    /// What the system says.
    pub fn resident_bytes(&self) -> anyhow::Result<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib = line.and_then(|line| line.split_whitespace().next()).context("no VmRSS")?;
        Ok(1_024 * kib.parse::<u64>()?)
    }

    /// Kills the process, which gets no chance to do anything more.
    ///
    /// # Errors
    ///
    /// What the system says.
    pub fn kill(mut self) -> anyhow::Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// Asks the process to stop.
    ///
    /// # Errors
    ///
    /// What the system says.
    pub fn terminate(&self) -> anyhow::Result<()> {
        self.signal(Signal::TERM)
    }

    /// Tells the process that its files changed.
    ///
    /// # Errors
    ///
    /// What the system says.
    pub fn hang_up(&self) -> anyhow::Result<()> {
        self.signal(Signal::HUP)
    }

    fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        kill_process(pid.context("no process id")?, signal)?;
        Ok(())
    }

    /// Waits until the process ended by itself.
    ///
    /// # Errors
    ///
    /// What the system says.
    pub fn wait(self) -> anyhow::Result<ExitStatus> {
        Ok(self.wait_telling()?.0)
    }

    /// Waits until the process ended by itself; also what it printed behind the addresses and the
    /// key.
    ///
    /// # Errors
    ///
    /// What the system says.
    pub fn wait_telling(mut self) -> anyhow::Result<(ExitStatus, String)> {
        let mut rest = String::new();
        self.stdout.read_to_string(&mut rest)?;
        Ok((self.child.wait()?, rest))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended by itself; the test has its result either way.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// The flag for a free port, unless there is another.
fn anywhere<'a>(flag: &'a str, flags: &[&str]) -> impl Iterator<Item = &'a str> + use<'a> {
    let is_given = flags.contains(&flag);
    [flag, "127.0.0.1:0"].into_iter().filter(move |_| !is_given)
}

/// What the process prints behind a label, in the next line.
fn value(stdout: &mut impl std::io::BufRead, label: &str) -> anyhow::Result<String> {
    let mut line = String::new();
    stdout.read_line(&mut line)?;
    let value = line
        .strip_prefix(label)
        .with_context(|| format!("the server printed {line:?} where {label:?} was due"))?;
    Ok(value.trim().to_owned())
}

fn metrics_address(url: &str) -> anyhow::Result<SocketAddr> {
    address_of(url.trim_end_matches("/metrics"))
}

/// The address in a URL without a path.
fn address_of(url: &str) -> anyhow::Result<SocketAddr> {
    let (_, address) = url.split_once("://").context("no URL")?;
    Ok(address.parse()?)
}

/// Runs the binary to its end.
///
/// # Errors
///
/// When it cannot be started.
pub fn run_server(arguments: &[&str], data: &Path) -> anyhow::Result<Output> {
    Ok(Command::new(server_binary()?).args(arguments).arg("--data").arg(data).output()?)
}

/// The server's binary, built first, so that no older one is tested, in the profile of the tests.
///
/// # Errors
///
/// When it does not build.
pub fn server_binary() -> anyhow::Result<PathBuf> {
    Ok(binaries()?.join("access-ledger-server"))
}

/// The folder of both binaries, `access-ledger-server` and `access-ledger`, as [`server_binary`].
///
/// # Errors
///
/// When they do not build.
pub fn binaries() -> anyhow::Result<&'static Path> {
    static BINARIES: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    let built = BINARIES.get_or_init(|| build().map_err(|error| format!("{error:#}")));
    match built {
        Ok(path) => Ok(path),
        Err(problem) => anyhow::bail!("cannot build the binaries: {problem}"),
    }
}

fn build() -> anyhow::Result<PathBuf> {
    let (options, folder): (&[&str], _) =
        if cfg!(debug_assertions) { (&[], "debug") } else { (&["--release"], "release") };
    let mut cargo = Command::new(env!("CARGO"));
    // Of the workspace, like the tests themselves: with other packages, the features of what they
    // depend on would change, and all of it would be built anew.
    cargo.args(["build", "--quiet", "--locked", "--workspace", "--bins"]);
    let output = cargo.args(options).current_dir(env!("CARGO_MANIFEST_DIR")).output()?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    // A test's binary lies in `<target>/<profile>/deps`.
    let own = std::env::current_exe()?;
    let target = own.ancestors().nth(3).context("the test lies in no target folder")?;
    Ok(target.join(folder))
}
