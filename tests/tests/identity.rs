//! The binaries over TLS as an operator starts them: flags, environment and files, SIGHUP, and what
//! is refused at the start.

use std::{
    path::Path,
    process::{Command, Output},
    time::Duration,
};

use access_ledger_tests::{
    pki::{Pki, put},
    process::{Process, binaries, run_server},
};
use anyhow::{Context as _, ensure};

/// A principal with a token.
fn principal(name: &str, roles: &str, digest: &str) -> String {
    format!("[[principal]]\nname = \"{name}\"\nroles = [{roles}]\ntokens = [\"{digest}\"]\n")
}

/// A ledger over TLS for the principals of this text.
fn serve(pki: &Pki, principals: &str) -> anyhow::Result<Process> {
    let text = |name: &str| pki.path(name).display().to_string();
    pki.principals(principals)?;
    let (certificate, key) = (text("server.pem"), text("server.pem.key"));
    let (ca, principals) = (text("ca.pem"), text("principals.toml"));
    let flags = [
        &["--tls-certificate", &certificate, "--tls-key", &key][..],
        &["--tls-client-ca", &ca, "--principals", &principals],
    ];
    Process::serve(&pki.path("data"), &flags.concat())
}

/// Runs `access-ledger` with the words of a line in a folder, and nothing in its environment but
/// these variables.
fn client(folder: &Path, line: &str, variables: &[(&str, &str)]) -> anyhow::Result<Output> {
    let mut command = Command::new(binaries()?.join("access-ledger"));
    command.args(line.split(' ')).current_dir(folder).env_clear();
    Ok(command.envs(variables.iter().copied()).output()?)
}

#[track_caller]
fn ended(output: &Output, code: i32, wanted: &str) {
    let told = [&output.stdout[..], &output.stderr].concat();
    let told = String::from_utf8_lossy(&told);
    assert!(output.status.code() == Some(code) && told.contains(wanted), "{code} {wanted}: {told}");
}

#[test]
fn the_client_takes_credentials_from_flags_environment_and_file() -> anyhow::Result<()> {
    let pki = Pki::new()?;
    let (_, digest) = pki.token("token")?;
    pki.client("client.pem", &["--uri", "spiffe://corp.example/payments"])?;
    let recorder = "[[principal]]\nname = \"payments\"\nroles = [\"record\"]\n\
                    uris = [\"spiffe://corp.example/payments\"]\n";
    let auditor = principal("auditor", "\"audit\"", &digest);
    let ledger = serve(&pki, &format!("{recorder}{auditor}"))?;
    let url = format!("https://localhost:{}", ledger.address.port());
    let folder = pki.path(".");
    let run = |line: &str, variables: &[(&str, &str)]| {
        let line = line.replace("URL", &url).replace("VKEY", &ledger.vkey.to_string());
        client(&folder, &line, variables)
    };

    // Flags: a client certificate.
    ended(&run("keygen --name payments --out a.key", &[])?, 0, "payments+");
    let shown = "--ca ca.pem --certificate client.pem --certificate-key client.pem.key";
    let enrolled = run(&format!("enroll --server URL --key a.key --ledger VKEY {shown}"), &[])?;
    ended(&enrolled, 0, "payments is registered at index 1");
    let denied = run(&format!("verify --server URL --ledger VKEY {shown}"), &[])?;
    ended(&denied, 2, "principal payments has none of the roles for this call: audit or custody");

    // Environment: a token by itself, or its file.
    let token = std::fs::read_to_string(pki.path("token"))?;
    let told = [
        ("ACCESS_LEDGER_SERVER", &*url),
        ("ACCESS_LEDGER_CA", "ca.pem"),
        ("ACCESS_LEDGER_TOKEN", token.trim_end()),
    ];
    ended(&run("verify --ledger VKEY", &told)?, 0, "verified");
    let told = [("ACCESS_LEDGER_CA", "ca.pem"), ("ACCESS_LEDGER_TOKEN_FILE", "token")];
    ended(&run("source list --server URL", &told)?, 0, "payments");

    // Every command that asks a ledger knows them, however its flags are grouped.
    let told = [
        ("ACCESS_LEDGER_SERVER", &*url),
        ("ACCESS_LEDGER_CA", "ca.pem"),
        ("ACCESS_LEDGER_TOKEN_FILE", "token"),
    ];
    for line in [
        "prove --ledger VKEY --index 0 --out 0.tlog-proof",
        "read",
        "findings --ledger VKEY",
        "query --ledger VKEY",
        "grants --ledger VKEY",
    ] {
        ended(&run(line, &told)?, 0, "");
        let shown = format!("{line} --server URL --ca ca.pem --token-file token");
        ended(&run(&shown.replace("0.tlog", "1.tlog"), &[])?, 0, "");
    }

    // A file, and what is missing or wrong.
    put(&pki.path("client.toml"), b"ca = \"ca.pem\"\ntoken = \"token\"\n")?;
    let by_file = "source list --server URL --credentials client.toml";
    ended(&run(by_file, &[])?, 0, "payments");
    let half = format!("{by_file} --certificate client.pem");
    ended(&run(&half, &[])?, 2, "a client certificate without its key");
    ended(
        &run("source list --server URL --ca ca.pem", &[])?,
        2,
        "no token, and no client certificate",
    );
    ended(&run("source list --server URL", &[])?, 2, "UnknownIssuer");
    let plain = url.replace("https://localhost", "http://ledger.example");
    let in_the_clear = format!("source list --server {plain} --credentials client.toml");
    ended(&run(&in_the_clear, &[])?, 2, "expected https for credentials");
    put(&pki.path("client.toml"), b"ca = \"ca.pem\"\ntokens = \"token\"\n")?;
    ended(&run(by_file, &[])?, 2, "client.toml: line 2: unknown field `tokens`");
    Ok(())
}

#[test]
fn a_hang_up_takes_over_changed_principals() -> anyhow::Result<()> {
    let pki = Pki::new()?;
    let ((_, one), (_, two)) = (pki.token("one")?, pki.token("two")?);
    let ledger = serve(&pki, &principal("auditor", "\"audit\"", &one))?;
    let list = |token: &str| {
        let port = ledger.address.port();
        let line = format!(
            "source list --server https://127.0.0.1:{port} --ca ca.pem --token-file {token}"
        );
        client(&pki.path("."), &line, &[])
    };
    ended(&list("one")?, 0, "ledger");
    ended(&list("two")?, 2, "token is unknown");
    pki.principals(&principal("auditor", "\"audit\"", &two))?;
    ledger.hang_up()?;
    let began = tokio::time::Instant::now();
    while !list("two")?.status.success() {
        ensure!(began.elapsed() < Duration::from_secs(30), "the new token is still unknown");
    }
    ended(&list("one")?, 2, "token is unknown");
    Ok(())
}

#[test]
fn other_addresses_want_tls_and_principals() -> anyhow::Result<()> {
    let pki = Pki::new()?;
    let data = pki.path("data");
    let key = pki.path("server.pem.key").display().to_string();
    let certificate = pki.path("server.pem").display().to_string();
    let tls = ["--tls-certificate", &certificate, "--tls-key", &key];
    let start = |listen: &str, flags: &[&str]| {
        let fixed = ["serve", "--listen", listen, "--metrics-listen", "127.0.0.1:0"];
        run_server(&[&fixed[..], flags].concat(), &data)
    };
    ended(&start("0.0.0.0:0", &[])?, 2, "0.0.0.0:0 is not loopback: add --tls-certificate");
    ended(&start("0.0.0.0:0", &tls)?, 2, "0.0.0.0:0 is not loopback: add --principals");
    ended(&start("127.0.0.1:0", &tls[..2])?, 2, "--tls-key");
    let principals = pki.principals("[[principal]]\nname = \"a\"\nroles = [\"rule\"]\n")?;
    let principals = principals.to_str().context("no text")?;
    let malformed = start("127.0.0.1:0", &["--principals", principals])?;
    ended(&malformed, 2, "principals.toml:3: unknown variant `rule`");
    ensure!(!data.exists(), "a refused start made a ledger");
    Ok(())
}

#[test]
fn keys_that_others_can_read_are_refused() -> anyhow::Result<()> {
    use std::{fs, os::unix::fs::PermissionsExt as _};
    let folder = tempfile::tempdir()?;
    let data = folder.path().join("data");
    drop(Process::serve(&data, &[])?);
    let path = data.join("keys/ledger.key");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644))?;
    let fixed = ["serve", "--listen", "127.0.0.1:0", "--metrics-listen", "127.0.0.1:0"];
    let refused = run_server(&fixed, &data)?;
    ended(&refused, 2, "ledger.key: mode is 644, a secret's is 600: others may have read it");
    Ok(())
}

#[test]
fn pki_overwrites_nothing_and_keeps_keys_private() -> anyhow::Result<()> {
    use std::{fs, os::unix::fs::PermissionsExt as _};
    let pki = Pki::new()?;
    pki.token("token")?;
    for key in ["ca.pem.key", "server.pem.key", "token"] {
        let mode = fs::metadata(pki.path(key))?.permissions().mode() & 0o777;
        assert_eq!(mode, 0o600, "{key}");
    }
    let before = fs::read(pki.path("ca.pem.key"))?;
    let again = client(&pki.path("."), "pki ca --out ca.pem", &[])?;
    ended(&again, 2, "ca.pem.key: File exists");
    assert_eq!(fs::read(pki.path("ca.pem.key"))?, before);
    ended(&client(&pki.path("."), "pki client --uri payments", &[])?, 2, "spiffe://corp.example");
    Ok(())
}
