//! Redactions by the command line, as two parties type them: what is shown before anybody signs,
//! what is refused, and what is told of an event that is gone.

use std::{fs, time::Duration};

use access_ledger_tests::desk::Desk;
use anyhow::{Context as _, bail, ensure};

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
        desk.run(&command).await?.complains(why);
        ensure!(!desk.path("no.toml").exists());
    }
    let propose = format!("{PROPOSE} --from {first} --to {last} --out r.toml");
    desk.run(&propose).await?.says(&["2 access", "request-7"]);
    // One party alone is refused, and nothing is recorded.
    let alone = desk.run("redact apply r.toml --key company.key --ledger VKEY").await?;
    alone.complains("missing is one of custodian");
    desk.run("redact sign r.toml --key company.key --ledger VKEY").await?.says(&[]);
    let text = fs::read_to_string(desk.path("r.toml"))?;
    desk.write("edited.toml", &text.replace("request-7", "request-8"))?;
    let edited = desk.run("redact apply edited.toml --key custodian.key --ledger VKEY").await?;
    edited.complains("missing is one of company");
    let applied = desk.run("redact apply r.toml --key custodian.key --ledger VKEY").await?;
    let applied = applied.says(&[]).out;
    let at = applied.split_whitespace().last().context("no index")?.to_owned();

    let gone = format!("(erased, see {at})");
    for _ in 0..500 {
        let read = desk.run(&format!("read --from {first} --to {last}")).await?.says(&[]).out;
        if read.matches(&gone).count() == 2 {
            let again = format!("{PROPOSE} --from {first} --to {last} --out again.toml");
            desk.run(&again).await?.complains("are erased already");
            desk.run("verify --ledger VKEY --full").await?.says(&[]);
            let json = format!(r#""redaction":{{"index":{at},"legalBasis":"request-7"}}"#);
            for flags in ["", "--ledger VKEY --proofs", "--ledger VKEY --verified"] {
                let found =
                    desk.run(&format!("query --source payments {flags}")).await?.says(&[]).out;
                let told = format!("by redaction {at}: request-7");
                ensure!(found.matches(&told).count() == 2, "{flags}: {found}");
                let query = format!("query --source payments --format json {flags}");
                let found = desk.run(&query).await?.says(&[]).out;
                ensure!(found.matches(&json).count() == 2, "{flags}: {found}");
            }
            let read =
                desk.run(&format!("read --from {first} --to {last} --json")).await?.says(&[]).out;
            ensure!(read.matches(&json).count() == 2, "{read}");
            return desk.node.stop().await;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    bail!("never erased")
}
