//! A client in another language, written from `proto/FORMATS.md` and the `.proto` files alone,
//! agrees with the ledger.
//!
//! Runs `tests/python`. Needs `python3` with `venv`; the packages of its `requirements.txt` are
//! installed once into cargo's target directory.

use std::{
    fs::File,
    io::{BufRead as _, BufReader, Write as _},
    path::Path,
    process::{Child, ChildStdout, Command, Stdio},
};

use access_ledger_tests::{
    process::server_binary,
    python::{run, script},
};
use anyhow::{Context as _, ensure};

#[test]
fn python_agrees_with_the_known_answers() -> anyhow::Result<()> {
    run(client()?.arg("--self-test").arg(Path::new(PACKAGE).join("vectors/ledger.json")))
}

#[test]
fn python_records_verifies_and_is_refused_what_must_be() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let server = Server::start(&folder.path().join("data"))?;
    let seed_file = folder.path().join("seed.hex");
    File::create(&seed_file)?.write_all("5eed".repeat(16).as_bytes())?;
    let mut client = client()?;
    client.arg("--server").arg(&server.address).arg("--ledger").arg(&server.vkey);
    client.arg("--source").arg("interop/python").arg("--seed-file").arg(&seed_file);
    run(&mut client)?;
    // A service that starts again enrols again, and goes on with the next number.
    run(&mut client)
}

/// A server of its own on an empty folder, killed when dropped.
struct Server {
    process: Child,
    address: String,
    vkey: String,
    /// Kept open: the server may print more.
    _stdout: BufReader<ChildStdout>,
}

impl Server {
    fn start(data: &Path) -> anyhow::Result<Self> {
        let mut process = Command::new(server_binary()?)
            .args(["serve", "--listen", "127.0.0.1:0", "--metrics-listen", "127.0.0.1:0", "--data"])
            .arg(data)
            .stdout(Stdio::piped())
            .spawn()?;
        let mut stdout = BufReader::new(process.stdout.take().context("no stdout")?);
        let (mut address, mut vkey) = (None, None);
        let mut line = String::new();
        while address.is_none() || vkey.is_none() {
            line.clear();
            ensure!(stdout.read_line(&mut line)? > 0, "the server ended before it was ready");
            for word in line.split_whitespace() {
                let word = word.trim_start_matches("http://");
                if word.starts_with("127.0.0.1:") {
                    address = Some(word.to_owned());
                } else if word.matches('+').count() >= 2 {
                    vkey = Some(word.to_owned());
                }
            }
        }
        let (address, vkey) = (address.unwrap_or_default(), vkey.unwrap_or_default());
        Ok(Self { process, address, vkey, _stdout: stdout })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself; the test has its result either way.
        drop(self.process.kill());
        drop(self.process.wait());
    }
}

/// `client.py`, ready for its arguments.
fn client() -> anyhow::Result<Command> {
    script("client.py", SCRATCH)
}

/// The folder of this package.
const PACKAGE: &str = env!("CARGO_MANIFEST_DIR");

/// Cargo's folder for files of integration tests.
const SCRATCH: &str = env!("CARGO_TARGET_TMPDIR");
