//! Redactions by the command line, as two parties type them: what is shown before anybody signs,
//! what is refused, and what is told of an event that is gone.

use std::{
    fs,
    io::Write as _,
    process::{Command, Output},
    time::Duration,
};

use access_ledger_tests::{node::Node, process::binaries};
use anyhow::{Context as _, bail, ensure};
use tempfile::TempDir;

/// A folder to type in, beside a ledger that runs in this process.
struct Desk {
    folder: TempDir,
    node: Node,
}

impl Desk {
    async fn new() -> anyhow::Result<Self> {
        let folder = tempfile::tempdir()?;
        let node = Node::start(&folder.path().join("data")).await?;
        for party in ["company", "custodian"] {
            let key = format!("{party}.key");
            fs::copy(folder.path().join("data/keys").join(&key), folder.path().join(&key))?;
        }
        Ok(Self { folder, node })
    }

    async fn run(&self, line: &str) -> anyhow::Result<Output> {
        let vkey = self.node.vkey.to_string();
        let mut command = Command::new(binaries()?.join("access-ledger"));
        command
            .args(line.split_whitespace().map(|word| word.replace("VKEY", &vkey)))
            .env("ACCESS_LEDGER_SERVER", format!("http://{}", self.node.address))
            .current_dir(self.folder.path());
        Ok(tokio::task::spawn_blocking(move || command.output()).await??)
    }

    /// Runs a line that must end well; what it said.
    async fn says(&self, line: &str) -> anyhow::Result<String> {
        let ended = self.run(line).await?;
        ensure!(ended.status.success(), "{line}: {ended:?}");
        Ok(String::from_utf8(ended.stdout)?)
    }

    /// Runs a line that must be refused with exit code 2; why.
    async fn complains(&self, line: &str) -> anyhow::Result<String> {
        let ended = self.run(line).await?;
        ensure!(ended.status.code() == Some(2), "{line}: {ended:?}");
        Ok(String::from_utf8(ended.stderr)?)
    }
}

const PROPOSE: &str = "redact propose --legal-basis request-7 --ledger VKEY";

#[tokio::test(flavor = "multi_thread")]
async fn two_parties_have_events_erased_over_one_file() -> anyhow::Result<()> {
    let desk = Desk::new().await?;
    let clients = desk.node.clients();
    let mut payments = clients.enrolled("payments", 1, &desk.node.vkey).await?;
    let first = clients.record(&payments.record(4)?).await?.first_index;
    let last = first + 1;
    for (from, to, why) in [
        (first - 1, first, "event at index 1 holds a SourceStatus, which is never erased"),
        (0, first, "event at index 0 is the genesis"),
        (first, first + 99, "beyond the log"),
        (last, first, "is empty"),
    ] {
        let command = format!("{PROPOSE} --from {from} --to {to} --out no.toml");
        let told = desk.complains(&command).await?;
        ensure!(told.contains(why), "{told}");
        ensure!(!desk.folder.path().join("no.toml").exists());
    }
    let told = desk.says(&format!("{PROPOSE} --from {first} --to {last} --out r.toml")).await?;
    ensure!(told.contains("2 access") && told.contains("request-7"), "{told}");
    // One party alone is refused, and nothing is recorded.
    let told = desk.complains("redact apply r.toml --key company.key --ledger VKEY").await?;
    ensure!(told.contains("missing is one of custodian"), "{told}");
    desk.says("redact sign r.toml --key company.key --ledger VKEY").await?;
    let text = fs::read_to_string(desk.folder.path().join("r.toml"))?;
    let mut edited = fs::File::create(desk.folder.path().join("edited.toml"))?;
    edited.write_all(text.replace("request-7", "request-8").as_bytes())?;
    let told = desk.complains("redact apply edited.toml --key custodian.key --ledger VKEY").await?;
    ensure!(told.contains("missing is one of company"), "{told}");
    let told = desk.says("redact apply r.toml --key custodian.key --ledger VKEY").await?;
    let at = told.split_whitespace().last().context("no index")?.to_owned();

    let gone = format!("(erased, see {at})");
    for _ in 0..500 {
        let read = desk.says(&format!("read --from {first} --to {last}")).await?;
        if read.matches(&gone).count() == 2 {
            let again = format!("{PROPOSE} --from {first} --to {last} --out again.toml");
            let told = desk.complains(&again).await?;
            ensure!(told.contains("are erased already"), "{told}");
            desk.says("verify --ledger VKEY --full").await?;
            let json = format!(r#""redaction":{{"index":{at},"legalBasis":"request-7"}}"#);
            for flags in ["", "--ledger VKEY --proofs", "--ledger VKEY --verified"] {
                let found = desk.says(&format!("query --source payments {flags}")).await?;
                let told = format!("by redaction {at}: request-7");
                ensure!(found.matches(&told).count() == 2, "{flags}: {found}");
                let query = format!("query --source payments --format json {flags}");
                let found = desk.says(&query).await?;
                ensure!(found.matches(&json).count() == 2, "{flags}: {found}");
            }
            let read = desk.says(&format!("read --from {first} --to {last} --json")).await?;
            ensure!(read.matches(&json).count() == 2, "{read}");
            return desk.node.stop().await;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    bail!("never erased")
}
