//! The command line parses as it is documented.

use super::*;

fn parses(line: &str) -> bool {
    Cli::try_parse_from(line.split(' ')).is_ok()
}

const VKEY: &str = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW";

#[test]
fn documented_lines_parse() {
    for line in [
        "access-ledger keygen --name a --out a.key",
        "access-ledger enroll --server http://h:1 --key a.key --parent p.key --role record",
        "access-ledger enrol --server http://h:1 --key a.key --parent p.key --role enroll",
        "access-ledger control key a --new-key VKEY --possession SIGNATURE --server http://h:1 --ledger VKEY --out k.toml",
        "access-ledger control key a --revoke --server http://h:1 --ledger VKEY --out k.toml",
        "access-ledger record --server http://h:1 --key a.key --receipts d file.jsonl",
        "access-ledger record --server http://h:1 --key a.key -",
        "access-ledger verify --server http://h:1 --ledger VKEY --view v.json --full",
        "access-ledger prove --server http://h:1 --ledger VKEY --index 7 --out x.tlog-proof",
        "access-ledger check-proof x.tlog-proof --ledger VKEY --event x.event",
        "access-ledger read --server http://h:1 --from 1 --to 2 --json",
        "access-ledger read --server http://h:1 --follow",
        "access-ledger source register --server http://h:1 --key g.key VKEY --role enrol",
        "access-ledger source list --server http://h:1",
        "access-ledger source register --server http://h:1 --key a.key --sign-with b.key --role approve --principal p-1 VKEY",
        "access-ledger source propose --ledger VKEY --out p.toml --role approve --principal p-1 VKEY",
        "access-ledger policy check p.cedar",
        "access-ledger policy default",
        "access-ledger policy show --server http://h:1 --ledger VKEY",
        "access-ledger policy propose p.cedar --server http://h:1 --ledger VKEY --out p.toml",
        "access-ledger control site s --country US --in-custody --server http://h:1 --ledger VKEY --out s.toml",
        "access-ledger control apply s.toml --server http://h:1 --key b.key",
        "access-ledger control retention --max-age 365d --legal-basis x --server http://h:1 --ledger VKEY --out r.toml",
        "access-ledger control custodian c --witness-key VKEY --url http://c:1 --server http://h:1 --ledger VKEY --out c.toml",
        "access-ledger redact propose --from 4 --to 9 --legal-basis x --server http://h:1 --ledger VKEY --out r.toml",
        "access-ledger redact sign r.toml --server http://h:1 --key a.key",
        "access-ledger redact apply r.toml --server http://h:1 --key b.key",
        "access-ledger request --server http://h:1 --key a.key --by p-1 --dataset users --justification x --duration 30d",
        "access-ledger approve req-1 --server http://h:1 --key a.key --max-uses 1 --not-after 2026-01-01",
        "access-ledger extend req-1 --until 2026-01-01T08:00:00Z --server http://h:1 --key a.key",
        "access-ledger grants --server http://h:1 --ledger VKEY",
        "access-ledger report flows --from 2026-01-01 --to 2026-07-01 --server http://h:1 --ledger VKEY",
        "access-ledger report subject --subject 00ff --from 2026-01-01 --to 2026-07-01 --server http://h:1 --ledger VKEY",
        "access-ledger report subject --token 00ff --with-staff --from 2026-01-01 --to 2026-07-01 --server http://h:1 --ledger VKEY --format csv --by-server",
        "access-ledger findings --server http://h:1 --ledger VKEY --rule NO_GRANT --rule SOURCE_GAP",
        "access-ledger findings --server http://h:1 --ledger VKEY --state open --format json",
        "access-ledger findings --server http://h:1 --ledger VKEY --by-server",
        "access-ledger findings handle --server http://h:1 --key a.key NO_GRANT-7 --state closed --note x",
    ] {
        let line =
            line.replace("VKEY", VKEY).replace("SIGNATURE", &format!("{}==", "A".repeat(86)));
        assert!(parses(&line), "{line}");
    }
}

#[test]
fn what_contradicts_itself_or_is_malformed_is_usage() {
    for line in [
        "access-ledger read --server http://h:1 --follow --to 7",
        "access-ledger verify --server http://h:1 --ledger PeterNeumann+00000000+AQ==",
        "access-ledger verify --server http://h:1",
        "access-ledger control key a --server http://h:1 --ledger VKEY --out k.toml",
        "access-ledger control key a --new-key VKEY --server http://h:1 --ledger VKEY --out k.toml",
        "access-ledger control key a --possession SIGNATURE --server http://h:1 --ledger VKEY --out k.toml",
        "access-ledger control key a --new-key VKEY --possession SIGNATURE --revoke --server http://h:1 --ledger VKEY --out k.toml",
        "access-ledger extend req-1 --server http://h:1 --key a.key",
        "access-ledger request --server http://h:1 --key a.key --dataset users --justification x",
        "access-ledger report rumours --from 2026-01-01 --to 2026-07-01 --server http://h:1",
        "access-ledger report flows --from yesterday --to 2026-07-01 --server http://h:1",
        "access-ledger findings --server http://h:1",
        "access-ledger findings handle --server http://h:1 --key a.key NO_GRANT-7 --state open --note x",
    ] {
        let line =
            line.replace("VKEY", VKEY).replace("SIGNATURE", &format!("{}==", "A".repeat(86)));
        assert!(!parses(&line), "{line}");
        let args = line.split(' ').map(OsString::from);
        assert_eq!(format!("{:?}", run(args)), format!("{:?}", ExitCode::from(2)));
    }
}

#[test]
fn missing_files_are_named_and_exit_with_2() {
    let line = format!("access-ledger check-proof /nowhere/x.tlog-proof --ledger {VKEY}");
    let code = run(line.split(' ').map(OsString::from));
    assert_eq!(format!("{code:?}"), format!("{:?}", ExitCode::from(2)));
}
