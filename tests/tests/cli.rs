//! The command line as a newcomer meets it: what it says when something is wrong, with which exit
//! code, and that a mistake does no lasting harm.

use std::{
    fs,
    path::Path,
    process::{Command, Output},
    time::{Duration, Instant},
};

use access_ledger_tests::process::{Process, binaries};
use anyhow::{Context as _, ensure};
use tempfile::TempDir;

/// A folder to type in, beside a ledger that runs.
struct Desk {
    folder: TempDir,
    ledger: Process,
    url: String,
    vkey: String,
}

/// How a command ended.
#[derive(Debug)]
struct Ended {
    code: Option<i32>,
    out: String,
    err: String,
}

impl Ended {
    fn of(output: Output) -> anyhow::Result<Self> {
        let code = output.status.code();
        Ok(Self {
            code,
            out: String::from_utf8(output.stdout)?,
            err: String::from_utf8(output.stderr)?,
        })
    }

    /// That it ended well, having said this.
    #[track_caller]
    fn says(self, wanted: &str) {
        assert!(self.code == Some(0) && self.out.contains(wanted), "{self:?}");
    }

    /// That it ended with this code, having complained like this.
    #[track_caller]
    fn complains(self, code: i32, wanted: &str) {
        assert!(self.code == Some(code) && self.err.contains(wanted), "{self:?}");
    }
}

impl Desk {
    /// With a service `shop` that has enrolled itself.
    fn new() -> anyhow::Result<Self> {
        let folder = tempfile::tempdir()?;
        let ledger = Process::serve(&folder.path().join("data"), &[])?;
        let url = format!("http://{}", ledger.address);
        let vkey = ledger.vkey.to_string();
        let desk = Self { folder, ledger, url, vkey };
        desk.keygen("shop", "shop.key")?;
        desk.run("enroll --key shop.key --ledger VKEY")?.says("shop is registered at index 1");
        Ok(desk)
    }

    /// Runs `access-ledger` with the words of a line; `VKEY` stands for the ledger's key.
    fn run(&self, line: &str) -> anyhow::Result<Ended> {
        self.run_at(&self.url, line)
    }

    fn run_at(&self, url: &str, line: &str) -> anyhow::Result<Ended> {
        let words = line.split(' ').map(|word| if word == "VKEY" { &self.vkey } else { word });
        let output = Command::new(binaries()?.join("access-ledger"))
            .args(words)
            .env("ACCESS_LEDGER_SERVER", url)
            .current_dir(self.folder.path())
            .output()?;
        Ended::of(output)
    }

    /// Makes a key; its verifier key.
    fn keygen(&self, name: &str, file: &str) -> anyhow::Result<String> {
        let made = self.run(&format!("keygen --name {name} --out {file}"))?;
        ensure!(made.code == Some(0), "{made:?}");
        Ok(made.out.trim().to_owned())
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.folder.path().join(name)
    }

    /// Writes a file of these lines and records it.
    fn record(&self, lines: &[&str]) -> anyhow::Result<Ended> {
        write(&self.path("events.jsonl"), lines.join("\n").as_bytes())?;
        self.run("record --key shop.key events.jsonl")
    }
}

fn write(path: &Path, content: &[u8]) -> anyhow::Result<()> {
    use std::io::Write as _;
    Ok(fs::File::create(path)?.write_all(content)?)
}

fn server(arguments: &[&str]) -> anyhow::Result<Ended> {
    let server = binaries()?.join("access-ledger-server");
    Ended::of(Command::new(server).args(["--log", "error"]).args(arguments).output()?)
}

const READ: &str = r#"{"actor": {"id": "u-1"}, "access": {"action": "ACTION_READ", "data": [{"dataset": "users"}], "outcome": "OUTCOME_ALLOWED"}}"#;

#[test]
fn help_is_there_for_every_command() -> anyhow::Result<()> {
    let desk = Desk::new()?;
    desk.run("--help")?.says("Exit codes: 0 verified or done; 1 the ledger is caught");
    for command in [
        "keygen",
        "enroll",
        "record",
        "verify",
        "prove",
        "check-proof",
        "read",
        "source",
        "policy",
        "control",
        "request",
        "approve",
        "deny",
        "grants",
        "revoke",
        "extend",
        "suspend",
        "resume",
        "end",
    ] {
        desk.run("--help")?.says(&format!("\n  {command} "));
        desk.run(&format!("{command} --help"))?.says("Usage: access-ledger ");
    }
    for command in ["serve", "init", "check", "demo"] {
        server(&["--help"])?.says(&format!("\n  {command} "));
        server(&[command, "--help"])?.says("Usage: access-ledger-server ");
    }
    desk.run("nonsense")?.complains(2, "unrecognized subcommand 'nonsense'");
    desk.run("verify")?.complains(2, "--ledger <VKEY>");
    server(&["nonsense"])?.complains(2, "unrecognized subcommand 'nonsense'");
    Ok(())
}

#[test]
fn a_bad_line_is_named_and_what_came_before_it_is_recorded_once() -> anyhow::Result<()> {
    let desk = Desk::new()?;
    for (line, problem) in [
        (r#"{"actor": {"id": "#, "EOF while parsing"),
        (r#"{"actor": {"nickname": "x"}}"#, "column 21: unrecognized field name 'nickname'"),
        (r#"{"access": {"action": "READ"}}"#, "column 28: unrecognized enum value 'READ'"),
        (r#"{"access": {"action": "ACTION_READ"}}"#, "access.data: missing"),
        (
            &READ.replace("{\"actor\"", r#"{"eventId": "AAEC", "actor""#),
            "event_id: 3 bytes, expected 16",
        ),
        (
            &READ.replace("{\"actor\"", r#"{"occurredAt": "2999-01-01T00:00:00Z", "actor""#),
            "occurred_at: time lies",
        ),
    ] {
        let ended = desk.record(&[READ, "", line, READ])?;
        let at = "error: events.jsonl, line 3 (the lines before it are recorded): ";
        assert!(
            ended.out.contains("recorded 1 event at index ") && ended.err.contains(at),
            "{ended:?}"
        );
        ended.complains(2, problem);
    }
    desk.record(&["{}"])?.complains(2, "error: events.jsonl, line 1: ");
    write(&desk.path("binary"), b"\xff\xfe\n")?;
    desk.run("record --key shop.key binary")?.complains(2, "binary, line 1: ");
    desk.run("verify --ledger VKEY")?.says("8 entries");
    Ok(())
}

#[test]
fn what_the_ledger_would_refuse_for_good_does_not_enter_the_spool() -> anyhow::Result<()> {
    let desk = Desk::new()?;
    for (line, problem) in [
        (
            r#"{"controlChange": {"kind": "CONTROL_KIND_POLICY", "target": "x"}}"#,
            "controlChange changes the rules",
        ),
        (
            r#"{"sourceStatus": {"phase": "SOURCE_PHASE_REGISTERED", "source": "x"}}"#,
            "`access-ledger source`",
        ),
        (
            r#"{"sourceStatus": {"phase": "SOURCE_PHASE_STARTED", "source": "x"}}"#,
            "it must be shop",
        ),
    ] {
        desk.record(&[line])?.complains(2, problem);
        // The next run is not held up by it.
        desk.record(&[READ])?.says("recorded 1 event at index ");
    }
    let own = r#"{"sourceStatus": {"phase": "SOURCE_PHASE_STARTED", "source": "shop"}}"#;
    desk.record(&[own, READ])?.says("recorded 2 events at index 5 to 6");
    desk.record(&[])?.says("recorded 0 events");

    // Neither is governance by a registration that was refused.
    let governance = "--key data/keys/company.key --ledger VKEY";
    let (one, two) = (desk.keygen("bank", "1.key")?, desk.keygen("bank", "2.key")?);
    let register = |vkey| desk.run(&format!("source register {governance} {vkey}"));
    register(&one)?.says("bank is registered at index 7");
    register(&two)?.complains(2, "AlreadyExists: source bank is registered already");
    register(&desk.keygen("cafe", "3.key")?)?.says("cafe is registered at index 8");
    desk.run("source list")?.says("cafe ");
    Ok(())
}

#[test]
fn missing_files_and_unusable_values_are_named() -> anyhow::Result<()> {
    let desk = Desk::new()?;
    let missing = "No such file or directory";
    for line in [
        "record --key shop.key nowhere",
        "record --key nowhere nothing",
        "enroll --key nowhere",
        "check-proof nowhere --ledger VKEY",
        "prove --ledger VKEY --index 1 --out nowhere/proof",
        "source register --key nowhere VKEY",
    ] {
        let ended = desk.run(line)?;
        assert!(
            ended.err.contains("nowhere") || ended.err.contains("nothing"),
            "{line}: {ended:?}"
        );
        ended.complains(2, missing);
    }
    desk.run("keygen --name shop --out shop.key")?.complains(2, "key shop.key: File exists");
    desk.run("keygen --name Shop! --out new.key")?.complains(2, "Shop!");
    desk.run("verify --ledger nonsense")?.complains(2, "invalid value 'nonsense'");
    desk.run("verify --ledger VKEY --view shop.key")?.complains(2, "view shop.key: ");
    desk.run("check-proof shop.key --ledger VKEY")?.complains(2, "shop.key: ");
    desk.run("prove --ledger VKEY --index 99 --out p")?
        .complains(2, "index 99 is beyond the tree of size 2");
    desk.run("read --to 99")?.says("       1  ");
    desk.run_at("nonsense", "read")?
        .complains(2, "address nonsense is none of the form http://host:port");
    desk.run_at("ftp://127.0.0.1:1", "read")?.complains(2, "none of the form http://host:port");
    Ok(())
}

#[test]
fn a_wrong_key_is_refused_before_anything_is_recorded() -> anyhow::Result<()> {
    let desk = Desk::new()?;
    desk.record(&[READ])?.says("recorded 1 event at index 2");
    desk.keygen("stranger", "stranger.key")?;
    write(&desk.path("events.jsonl"), READ.as_bytes())?;
    let record = |key| desk.run(&format!("record --key {key} --ledger VKEY events.jsonl"));
    record("stranger.key")?.complains(2, "source stranger is not registered");
    desk.keygen("shop", "thief.key")?;
    record("thief.key")?.complains(2, "source is registered with key ");
    desk.run("enroll --key thief.key --ledger VKEY")?
        .complains(2, "source shop is registered already");
    // An honest ledger is not accused because somebody asks for more than before.
    desk.run("enroll --key shop.key --role enrol")?
        .complains(2, "source shop is registered already");

    // The key of another ledger of the same name: a source has pinned the right one, an auditor
    // convicts whoever serves under it.
    let name = desk.ledger.vkey.name();
    let wrong = desk.keygen(name, "wrong.key")?;
    let line = format!("record --key shop.key --ledger {wrong} events.jsonl");
    desk.run(&line)?.complains(2, "shop.key.ledger pins the ledger key");
    let line = format!("verify --ledger {wrong} --view wrong.view");
    let caught = desk.run(&line)?;
    let evidence = caught.err.lines().find_map(|line| line.strip_prefix("evidence: "));
    assert!(desk.path(evidence.context("no evidence")?).is_file());
    caught.complains(1, "caught: the checkpoint does not hold: no signature of a known key");
    desk.run("verify --ledger VKEY --view right.view")?.says("3 entries");
    // It may have taken the place of the pinned one: that the log says, and it does not.
    desk.run(&format!("verify --ledger {wrong} --view right.view"))?
        .complains(1, "caught: the checkpoint does not hold: no signature of a known key");
    desk.run("verify --ledger VKEY --view right.view")?.says("3 entries");
    Ok(())
}

#[test]
fn a_proof_holds_only_for_its_ledger_and_its_event() -> anyhow::Result<()> {
    let desk = Desk::new()?;
    write(&desk.path("two.jsonl"), format!("{READ}\n{READ}").as_bytes())?;
    desk.run("record --key shop.key --receipts proofs two.jsonl")?.says("at index 2 to 3");
    desk.run("check-proof proofs/3.tlog-proof --ledger VKEY --event proofs/3.event")?
        .says("index     3");
    desk.run("check-proof proofs/3.tlog-proof --ledger VKEY --event proofs/2.event")?
        .complains(1, "does not hold: the event's digest is ");
    let wrong = desk.keygen(desk.ledger.vkey.name(), "wrong.key")?;
    desk.run(&format!("check-proof proofs/3.tlog-proof --ledger {wrong}"))?
        .complains(1, "does not hold: no signature of a known key");
    desk.run("prove --ledger VKEY --index 3 --out p --event e")?
        .says("under the checkpoint of size 4");
    assert_eq!(fs::read(desk.path("e"))?, fs::read(desk.path("proofs/3.event"))?);
    desk.run("check-proof p --ledger VKEY --event e")?.says("source    shop, number 2");
    Ok(())
}

#[test]
fn a_server_that_is_down_is_told_at_once() -> anyhow::Result<()> {
    let desk = Desk::new()?;
    desk.record(&[READ])?.says("recorded 1 event at index 2");
    desk.ledger.terminate()?;
    let address = desk.ledger.address;
    // It has stopped when nobody answers.
    while std::net::TcpStream::connect(address).is_ok() {
        std::thread::yield_now();
    }
    let said = format!("error: cannot reach {}: Connection refused", desk.url);
    for line in [
        "verify --ledger VKEY",
        "read",
        "read --follow",
        "record --key shop.key events.jsonl",
        "enroll --key shop.key",
        "prove --ledger VKEY --index 1 --out p",
        "source list",
    ] {
        let started = now();
        desk.run(line)?.complains(2, &said);
        assert!(started.elapsed() < Duration::from_secs(5), "{line}");
    }
    Ok(())
}

#[expect(clippy::disallowed_methods, reason = "real processes take real time")]
fn now() -> Instant {
    Instant::now()
}

#[test]
fn the_server_says_what_is_wrong_with_a_folder_and_makes_none() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let at = |name: &str| folder.path().join(name).display().to_string();
    server(&["check", "--data", &at("nowhere")])?.complains(2, "nowhere is no folder");
    assert!(!Path::new(&at("nowhere")).exists());
    fs::create_dir(at("empty"))?;
    server(&["check", "--data", &at("empty")])?.complains(2, "empty holds no ledger");
    let init = ["init", "--origin", "ledger.example/x", "--data", &at("made")];
    server(&init)?.says("ledger key  ledger.example/x+");
    server(&init)?.complains(2, "made holds the ledger ledger.example/x already");
    server(&["check", "--data", &at("made")])?.says("verified");
    let running = Process::serve(Path::new(&at("made")), &[])?;
    server(&["check", "--data", &at("made")])?.complains(2, "made is in use by another process");
    let taken = running.address.to_string();
    let other = server(&[
        "serve",
        "--listen",
        &taken,
        "--metrics-listen",
        "127.0.0.1:0",
        "--data",
        &at("other"),
    ])?;
    assert_eq!(other.err.matches("Address already in use").count(), 1, "{other:?}");
    other.complains(2, &format!("cannot listen on {taken}: "));
    running.kill()?;
    let open = ["serve", "--listen", "0.0.0.0:0", "--data", &at("open")];
    server(&open)?.complains(2, "is not loopback: add --tls-certificate and --tls-key");
    assert!(!Path::new(&at("open")).exists());
    Ok(())
}
