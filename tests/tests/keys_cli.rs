//! Keys by the command line: encrypted files that `openssl` reads, and keys that change.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::Path,
    process::{Command, Output},
};

use access_ledger_proto::note::VerifierKey;
use access_ledger_tests::{
    node::Node,
    pki::put,
    process::{binaries, run_server},
};
use anyhow::{Context as _, ensure};

/// Runs `access-ledger` in a folder; what it printed.
fn ran(folder: &Path, server: &str, line: &str) -> anyhow::Result<String> {
    let output = run(folder, server, line)?;
    ensure!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8(output.stdout)?)
}

/// Runs it; what it complained of.
fn complained(folder: &Path, server: &str, line: &str) -> anyhow::Result<String> {
    let output = run(folder, server, line)?;
    ensure!(output.status.code() == Some(2), "{line}: {output:?}");
    Ok(String::from_utf8(output.stderr)?)
}

fn run(folder: &Path, server: &str, line: &str) -> anyhow::Result<Output> {
    let mut command = Command::new(binaries()?.join("access-ledger"));
    command.args(line.split_whitespace()).current_dir(folder);
    Ok(command.env("ACCESS_LEDGER_SERVER", server).output()?)
}

fn secret(path: &Path, text: &str) -> anyhow::Result<()> {
    put(path, text.as_bytes())?;
    Ok(fs::set_permissions(path, fs::Permissions::from_mode(0o600))?)
}

#[test]
fn a_key_file_is_encrypted_and_openssl_reads_it() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let at = folder.path();
    secret(&at.join("pass"), "correct horse\n")?;
    let plain = ran(at, "-", "keygen --name payments --out payments.key")?;
    let vkey: VerifierKey = plain.trim().parse()?;
    ran(at, "-", "key encrypt --passphrase-file pass payments.key")?;
    let text = fs::read_to_string(at.join("payments.key"))?;
    assert!(text.starts_with(&vkey.to_string()) && text.contains("BEGIN ENCRYPTED PRIVATE KEY"));
    assert_eq!(fs::metadata(at.join("payments.key"))?.permissions().mode() & 0o777, 0o600);

    let openssl = Command::new("openssl")
        .args(["pkey", "-in", "payments.key", "-passin", "file:pass", "-pubout", "-outform", "DER"])
        .current_dir(at)
        .output()?;
    ensure!(openssl.status.success(), "{}", String::from_utf8_lossy(&openssl.stderr));
    assert!(openssl.stdout.ends_with(vkey.public_key().as_bytes()));

    // The other way round: what openssl encrypts, by another scheme, is read.
    let pkcs8 = Command::new("openssl")
        .args(["pkcs8", "-topk8", "-in", "payments.key", "-passin", "file:pass"])
        .args(["-v2", "aes-256-cbc", "-iter", "2048", "-passout", "pass:correct horse"])
        .current_dir(at)
        .output()?;
    ensure!(pkcs8.status.success(), "{}", String::from_utf8_lossy(&pkcs8.stderr));
    let text = format!("{vkey}\n{}", String::from_utf8(pkcs8.stdout)?);
    secret(&at.join("payments.key"), &text)?;

    let locked = complained(at, "-", "key decrypt payments.key")?;
    assert!(locked.contains("no passphrase is given"), "{locked}");
    secret(&at.join("wrong"), "correct horsf\n")?;
    let wrong = complained(at, "-", "key decrypt --passphrase-file wrong payments.key")?;
    assert!(wrong.contains("not decrypted"), "{wrong}");
    assert_eq!(ran(at, "-", "key decrypt --passphrase-file pass payments.key")?, plain);
    assert!(fs::read_to_string(at.join("payments.key"))?.starts_with("PRIVATE+KEY+payments+"));
    fs::set_permissions(at.join("payments.key"), fs::Permissions::from_mode(0o644))?;
    let open = complained(at, "-", "key encrypt --passphrase-file pass payments.key")?;
    assert!(open.contains("mode is 644"), "{open}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_change_by_proposal_signature_and_record() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let (at, data) = (folder.path(), folder.path().join("data"));
    let node = Node::start(&data).await?;
    let (server, vkey, origin) = (node.url.clone(), node.vkey.to_string(), node.vkey.name());
    for party in ["company", "custodian"] {
        let key = format!("{party}.key");
        fs::copy(data.join("keys").join(&key), at.join(&key))?;
    }
    let ran = |line: &str| ran(at, &server, line);
    ran("keygen --name payments --out old.key")?;
    ran(&format!("enroll --key old.key --ledger {vkey}"))?;
    let made = ran(&format!("keygen --name payments --out new.key --replaces-at {origin}"))?;
    let (key, possession) = made.trim().split_once('\n').context("two lines")?;
    let propose = format!("control key payments --ledger {vkey} --reason laptop-lost");
    ran(&format!("{propose} --new-key {key} --possession {possession} --out rekey.toml"))?;
    // Both parties see what they sign.
    let shown = ran("control sign --key custodian.key rekey.toml")?;
    assert!(shown.contains(key) && shown.contains("laptop-lost"), "{shown}");
    ran("control apply --key company.key rekey.toml")?;
    let event = r#"{"actor": {"id": "emp-4711"}, "access": {"action": "ACTION_READ", "data": [{"dataset": "users.profile"}], "outcome": "OUTCOME_ALLOWED"}}"#;
    put(&at.join("events.jsonl"), event.as_bytes())?;
    let refused = complained(at, &server, "record --key old.key events.jsonl")?;
    assert!(refused.contains("registered with key"), "{refused}");
    ran(&format!("record --key new.key --ledger {vkey} events.jsonl"))?;
    assert!(ran("source list")?.contains("key replaced at"));

    // A party's own key, and then what only that key's signature carries.
    let made =
        ran(&format!("keygen --name custodian --out custodian.2.key --replaces-at {origin}"))?;
    let (key, possession) = made.trim().split_once('\n').context("two lines")?;
    ran(&format!(
        "control key custodian --ledger {vkey} --new-key {key} --possession {possession} --out c.toml"
    ))?;
    ran("control sign --key custodian.key c.toml")?;
    ran("control apply --key company.key c.toml")?;
    ran(&format!("control role payments --ledger {vkey} --role record --role enrol --out r.toml"))?;
    ran("control sign --key custodian.2.key r.toml")?;
    ran("control apply --key company.key r.toml")?;

    // The ledger's key: made beside the ledger that runs, put in force by both parties.
    let output = run_server(&["rotate"], &data)?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let told = String::from_utf8(output.stdout)?;
    let word = |name: &str| {
        let line = told.lines().find_map(|line| line.strip_prefix(name));
        line.map(str::trim).with_context(|| format!("no {name} in {told}"))
    };
    let (next, possession) = (word("next key")?, word("possession")?);
    ran(&format!(
        "control ledger-key --ledger {vkey} --new-key {next} --possession {possession} --out l.toml"
    ))?;
    ran("control sign --key custodian.2.key l.toml")?;
    ran("control apply --key company.key l.toml")?;
    for key in [&vkey, next] {
        let verified = ran(&format!("verify --ledger {key}"))?;
        assert!(verified.contains(&format!("key       {next} since index")), "{verified}");
    }
    ran(&format!("control key payments --ledger {next} --revoke --out revoke.toml"))?;
    ran("control sign --key custodian.2.key revoke.toml")?;
    ran("control apply --key company.key revoke.toml")?;
    assert!(ran("source list")?.contains("key revoked at"));
    Ok(())
}
