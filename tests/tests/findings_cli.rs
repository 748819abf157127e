//! Findings on the command line: computed from what was verified, filtered, and handled.

use std::process::Command;

use access_ledger_tests::process::{Process, binaries};
use anyhow::ensure;

/// Runs `access-ledger` with these words; what it printed.
fn access_ledger(words: &[&str]) -> anyhow::Result<String> {
    Ok(run(words)?.0)
}

/// The same with what it said beside.
fn run(words: &[&str]) -> anyhow::Result<(String, String)> {
    let output = Command::new(binaries()?.join("access-ledger")).args(words).output()?;
    ensure!(output.status.success(), "{words:?}: {output:?}");
    Ok((String::from_utf8(output.stdout)?, String::from_utf8(output.stderr)?))
}

#[test]
fn findings_are_listed_from_verified_entries_and_handled() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let path = |name: &str| folder.path().join(name).display().to_string();
    let ledger = Process::serve(&folder.path().join("data"), &[])?;
    let (url, vkey) = (format!("http://{}", ledger.address), ledger.vkey.to_string());
    let (key, view, governance) =
        (path("shop.key"), path("view.json"), path("data/keys/company.key"));
    let list = |more: &[&str]| {
        let words = ["findings", "--server", &url, "--ledger", &vkey, "--view", &view];
        access_ledger(&[&words, more].concat())
    };
    ensure!(list(&[])?.is_empty(), "a new ledger is in order");

    access_ledger(&["keygen", "--name", "shop", "--out", &key])?;
    access_ledger(&["enroll", "--server", &url, "--key", &key, "--ledger", &vkey])?;
    let found = list(&[])?;
    ensure!(found.lines().count() == 1, "{found}");
    ensure!(found.contains("low       SOURCE_UNVETTED-1  source=shop"), "{found}");
    ensure!(list(&["--rule", "SOURCE_GAP"])?.is_empty());
    // What the rule means is said once, to people alone.
    let words = ["findings", "--server", &url, "--ledger", &vkey, "--view", &view];
    let meaning = "SOURCE_UNVETTED: a source registered itself and nobody vouched for it\n";
    for more in [&[][..], &["--by-server"]] {
        let (_, beside) = run(&[&words, more].concat())?;
        ensure!(beside.matches(meaning).count() == 1, "{beside}");
    }
    let (_, beside) = run(&[&words[..], &["--format", "json"]].concat())?;
    ensure!(!beside.contains("SOURCE_UNVETTED"), "{beside}");

    let (id, note) = ("SOURCE_UNVETTED-1", "the shop's pod, seen by its team");
    let handle = ["findings", "handle", "--server", &url, "--ledger", &vkey, "--key", &governance];
    let said =
        access_ledger(&[&handle, &[id, "--state", "explained", "--note", note][..]].concat())?;
    ensure!(said.contains("SOURCE_UNVETTED-1 is explained since index 2"), "{said}");
    ensure!(list(&["--state", "open"])?.is_empty());
    let explained = list(&["--state", "explained", "--format", "json"])?;
    let finding: serde_json::Value = serde_json::from_str(explained.trim_end())?;
    ensure!(finding["id"] == id && finding["state"] == "explained", "{finding}");
    ensure!(finding["facts"]["source"] == "shop", "{finding}");
    Ok(())
}
