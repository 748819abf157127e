//! `access-ledger report` against a running ledger: recorded by the command line, computed from
//! what was verified.

use std::{
    process::{Command, Output},
    thread::sleep,
    time::Duration,
};

use access_ledger_tests::process::{Process, binaries};

/// Two authorities' requests of 2019, recorded today.
const EVENTS: &str = r#"{"legalRequest": {"legalRequestId": "a", "phase": "LEGAL_REQUEST_PHASE_PRODUCED", "process": "LEGAL_PROCESS_SUBPOENA", "country": "US", "accountsSpecified": "3", "accountsAffected": "2", "outcome": "LEGAL_REQUEST_OUTCOME_PARTIAL", "receivedAt": "2019-03-01T00:00:00Z"}}
{"legalRequest": {"legalRequestId": "b", "phase": "LEGAL_REQUEST_PHASE_REJECTED", "process": "LEGAL_PROCESS_EMERGENCY", "emergency": true, "country": "US", "accountsSpecified": "1", "outcome": "LEGAL_REQUEST_OUTCOME_REJECTED", "receivedAt": "2019-03-02T00:00:00Z"}}
"#;

#[test]
fn the_command_reports_what_it_verified() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let ledger = Process::serve(&folder.path().join("data"), &[])?;
    let url = format!("http://{}", ledger.address);
    let (vkey, origin) = (ledger.vkey.to_string(), ledger.vkey.name().to_owned());
    let run = |words: &[&str]| -> anyhow::Result<Output> {
        let mut command = Command::new(binaries()?.join("access-ledger"));
        command.args(words).env("ACCESS_LEDGER_SERVER", &url).current_dir(folder.path());
        Ok(command.output()?)
    };
    let file = folder.path().join("events.jsonl");
    std::io::Write::write_all(&mut std::fs::File::create(&file)?, EVENTS.as_bytes())?;
    for words in [
        &["keygen", "--name", "office", "--out", "office.key"][..],
        &["enroll", "--key", "office.key", "--ledger", &vkey],
        &["record", "--key", "office.key", "events.jsonl"],
    ] {
        let done = run(words)?;
        assert!(done.status.success(), "{words:?}: {done:?}");
    }
    let period = ["--from", "2019-01-01", "--to", "2019-07-01", "--ledger", &vkey];
    let report = |more: &[&str]| run(&[&["report", "transparency"], &period[..], more].concat());

    let csv = report(&["--format", "csv"])?;
    assert!(csv.status.success(), "{csv:?}");
    let rows = String::from_utf8(csv.stdout.clone())?;
    let wanted = "\r\n2019 H1,US,1,1,2,4,50,\"SUBPOENA 1, EMERGENCY 1\",2,0\r\n";
    assert!(rows.starts_with("half-year,country,") && rows.ends_with(wanted), "{rows}");
    let footer = String::from_utf8(csv.stderr.clone())?;
    assert!(footer.contains("size      4 entries") && footer.contains("verified  yes"), "{footer}");

    let json = report(&["--format", "json"])?;
    let json: serde_json::Value = serde_json::from_slice(&json.stdout)?;
    assert_eq!(json["rows"][0]["total requests"], 2);
    assert_eq!(json["footer"]["origin"], origin);
    assert_eq!(json["footer"]["sources"], 2);

    // Without the server, from a copy of its folder, the answer is the same.
    let copy = folder.path().join("data");
    // The file of the newest checkpoint follows the log a moment later.
    let is_whole = || {
        std::fs::read_to_string(copy.join("checkpoint")).is_ok_and(|note| note.contains("\n4\n"))
    };
    for _ in 0..3_000 {
        if is_whole() {
            break;
        }
        sleep(Duration::from_millis(10));
    }
    ledger.kill()?;
    let copied = report(&["--format", "csv", "--data", &copy.display().to_string()])?;
    assert!(copied.status.success(), "{copied:?}");
    assert_eq!((copied.stdout, copied.stderr), (csv.stdout, csv.stderr));

    let refused = run(&["report", "subject", "--from", "2019-01-01", "--to", "2019-07-01"])?;
    assert_eq!(refused.status.code(), Some(2));
    let backwards =
        run(&["report", "flows", "--from", "2019-07-01", "--to", "2019-01-01", "--ledger", &vkey])?;
    assert_eq!(backwards.status.code(), Some(2));
    Ok(())
}
