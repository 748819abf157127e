//! What is shipped around the binaries says what the binaries do: metrics, dashboard, manual pages,
//! completions, service units, image.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use access_ledger_server::{config::Cli, os::RealDisk};
use access_ledger_tests::process::binaries;
use anyhow::{Context as _, Result, ensure};
use clap::{CommandFactory as _, Parser as _};
use serde_json::Value;

fn server() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../server")
}

/// All Rust sources of the server, as one text each.
fn sources() -> Result<Vec<(PathBuf, String)>> {
    let (mut found, mut folders) = (Vec::new(), vec![server().join("src")]);
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder)? {
            let path = entry?.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.push((path.clone(), fs::read_to_string(path)?));
            }
        }
    }
    Ok(found)
}

/// Text between quotes, from the first on.
fn quoted(text: &str) -> impl Iterator<Item = &str> {
    text.split('"').skip(1).step_by(2)
}

/// Kind and meaning of each metric, as the server describes it to Prometheus.
fn described() -> Result<BTreeMap<String, (String, String)>> {
    let text = fs::read_to_string(server().join("src/metrics.rs"))?;
    let body = text.split("fn describe() {").nth(1).context("no describe()")?;
    let body = body.split("\n}").next().context("no end")?;
    let mut found = BTreeMap::new();
    for kind in ["counter", "gauge", "histogram"] {
        for call in body.split(&format!("{kind}!(")).skip(1) {
            let mut texts = quoted(call.split(");").next().unwrap_or_default());
            let name = texts.next().context("no name")?.to_owned();
            let meaning = texts.next().context("no meaning")?.to_owned();
            ensure!(found.insert(name.clone(), (kind.to_owned(), meaning)).is_none(), "{name}");
        }
    }
    Ok(found)
}

#[test]
fn every_metric_is_described_and_every_description_is_of_a_metric() -> Result<()> {
    let described: BTreeSet<_> = described()?.into_keys().collect();
    let mut used = BTreeSet::new();
    for (path, text) in sources()? {
        if !path.ends_with("src/metrics.rs") {
            let names = quoted(&text).filter(|text| text.starts_with("access_ledger_"));
            used.extend(names.map(str::to_owned));
        }
    }
    assert_eq!(used, described);
    Ok(())
}

#[test]
fn the_readme_has_all_metrics() -> Result<()> {
    let readme = fs::read_to_string(server().join("README.md"))?;
    let row = |line: &str| -> Option<(String, (String, String))> {
        let cells: Vec<_> = line.strip_prefix("| `")?.split(" | ").collect();
        let [name, kind, meaning] = &cells[..] else { return None };
        let name = name.trim_end_matches('`').split('{').next()?;
        let meaning = meaning.trim_end_matches(" |");
        Some((name.to_owned(), ((*kind).to_owned(), meaning.to_owned())))
    };
    let rows: BTreeMap<_, _> = readme
        .lines()
        .filter_map(row)
        .filter(|(name, _)| name.starts_with("access_ledger_"))
        .collect();
    assert_eq!(rows, described()?);
    Ok(())
}

#[test]
fn the_dashboard_shows_all_metrics_and_no_others() -> Result<()> {
    let described = described()?;
    let text = fs::read_to_string(server().join("packaging/grafana.json"))?;
    let dashboard: Value = serde_json::from_str(&text)?;
    let panels = dashboard["panels"].as_array().context("no panels")?;
    let mut shown = BTreeSet::new();
    for panel in panels {
        let targets = panel["targets"].as_array().map(Vec::as_slice).unwrap_or_default();
        for target in targets {
            let expression = target["expr"].as_str().context("no expression")?;
            let words = expression.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
            let names: Vec<_> = words.filter(|word| word.starts_with("access_ledger_")).collect();
            ensure!(!names.is_empty(), "{expression}");
            for name in names {
                let of_histogram = ["_bucket", "_sum", "_count"]
                    .iter()
                    .find_map(|suffix| name.strip_suffix(suffix))
                    .filter(|base| {
                        described.get(*base).is_some_and(|(kind, _)| kind == "histogram")
                    });
                let base = of_histogram.unwrap_or(name);
                ensure!(described.contains_key(base), "{name} in {expression}");
                shown.insert(base.to_owned());
            }
        }
    }
    assert_eq!(shown, described.into_keys().collect());
    let ids: BTreeSet<_> = panels.iter().filter_map(|panel| panel["id"].as_u64()).collect();
    assert_eq!(ids.len(), panels.len());
    Ok(())
}

#[test]
fn manual_pages_and_completions_are_those_of_the_commands() -> Result<()> {
    let print = |binary: &str, arguments: &[&str]| -> Result<String> {
        let printed = Command::new(binaries()?.join(binary)).args(arguments).output()?;
        ensure!(printed.status.success(), "{binary} {arguments:?}: {printed:?}");
        Ok(String::from_utf8(printed.stdout)?)
    };
    for (binary, subcommand) in [("access-ledger-server", "serve"), ("access-ledger", "verify")] {
        for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
            let script = print(binary, &["completions", shell])?;
            ensure!(script.contains(binary) && script.contains(subcommand), "{script}");
        }
        let page = print(binary, &["man"])?;
        ensure!(page.contains(".TH") && page.contains(subcommand), "{page}");
        ensure!(!page.contains("completions"), "what is hidden is shown");
        let page = print(binary, &["man", subcommand])?;
        ensure!(page.contains(".SH OPTIONS"), "{page}");
        let unknown = Command::new(binaries()?.join(binary)).args(["man", "nothing"]).output()?;
        assert_eq!(unknown.status.code(), Some(2));
    }
    Ok(())
}

/// The heading that each flag stands under in a help text.
fn headings(help: &str) -> BTreeMap<String, String> {
    let (mut found, mut heading) = (BTreeMap::new(), "");
    for line in help.lines() {
        match line.trim_start() {
            flag if flag.starts_with("--") => {
                let flag = flag.split_whitespace().next().unwrap_or_default();
                found.insert(flag.to_owned(), heading.to_owned());
            }
            _ if line.ends_with(':') && !line.starts_with(' ') => heading = line,
            _ => {}
        }
    }
    found
}

#[test]
fn help_shows_a_flag_under_the_heading_of_its_kind() -> Result<()> {
    for (binary, subcommand, heading, flags) in [
        ("access-ledger", "record", "Options:", &["--server", "--key", "--ledger"][..]),
        ("access-ledger", "record", "Credentials:", &["--ca", "--token-file"]),
        ("access-ledger", "verify", "Options:", &["--ledger", "--view", "--full", "--quorum"]),
        ("access-ledger", "request", "Options:", &["--duration", "--key", "--justification"]),
        ("access-ledger", "request", "Scope:", &["--dataset", "--actor", "--country"]),
        ("access-ledger-server", "serve", "Options:", &["--listen", "--origin", "--threads"]),
        ("access-ledger-server", "serve", "Who may call:", &["--principals", "--tls-key"]),
        ("access-ledger-server", "serve", "Calling others:", &["--ca", "--certificate"]),
        ("access-ledger-server", "serve", "Traces:", &["--otlp"]),
        ("access-ledger-server", "custodian", "Options:", &["--ledger", "--name", "--webhook"]),
        ("access-ledger-server", "restore", "Options:", &["--from", "--custodian"]),
    ] {
        let shown = Command::new(binaries()?.join(binary)).args([subcommand, "--help"]).output()?;
        let headings = headings(&String::from_utf8(shown.stdout)?);
        for flag in flags {
            assert_eq!(
                headings.get(*flag).map(String::as_str),
                Some(heading),
                "{subcommand} {flag}"
            );
        }
    }
    Ok(())
}

#[test]
fn every_reason_of_a_refusal_is_documented_where_clients_look() -> Result<()> {
    let text = fs::read_to_string(server().join("src/refusal.rs"))?;
    let text = text.split("#[cfg(test)]").next().context("empty")?;
    let is_reason = |text: &&str| {
        text.len() > 3 && text.bytes().all(|byte| byte.is_ascii_uppercase() || byte == b'_')
    };
    let reasons: BTreeSet<&str> = quoted(text).filter(is_reason).collect();
    assert!(reasons.len() > 30, "{reasons:?}");
    let mut documented = String::new();
    for service in ["recorder", "audit"] {
        let path = format!("../proto/access_ledger/v1/{service}.proto");
        documented.push_str(&fs::read_to_string(server().join(path))?);
    }
    let words: BTreeSet<&str> =
        documented.split(|c: char| !c.is_ascii_uppercase() && c != '_').collect();
    assert_eq!(reasons.difference(&words).collect::<Vec<_>>(), Vec::<&&str>::new());
    Ok(())
}

#[test]
fn the_units_start_the_server_with_flags_that_it_has() -> Result<()> {
    for unit in ["server", "custodian"] {
        let path = server().join(format!("packaging/access-ledger-{unit}.service"));
        let text = fs::read_to_string(path)?;
        let line = text.lines().find_map(|line| line.strip_prefix("ExecStart="));
        let line = line.context("starts nothing")?;
        // What a custodian must be told comes from its file of settings.
        let command = Cli::command().mut_subcommands(|one| one.mut_args(|arg| arg.required(false)));
        let given = command.try_get_matches_from(line.split(' '))?;
        ensure!(given.subcommand_name().is_some(), "{line}");
        for hardening in ["NoNewPrivileges=yes", "ProtectSystem=strict", "CapabilityBoundingSet="] {
            ensure!(text.lines().any(|line| line == hardening), "{unit} lacks {hardening}");
        }
    }
    Ok(())
}

#[test]
#[expect(clippy::print_stderr, reason = "a test that does nothing says so")]
fn systemd_understands_the_units_and_finds_little_left_open() -> Result<()> {
    let folder = tempfile::tempdir()?;
    for unit in ["server", "custodian"] {
        let name = format!("access-ledger-{unit}.service");
        let text = fs::read_to_string(server().join("packaging").join(&name))?;
        // The binary is not installed here; everything else is as it is shipped.
        let text = text.replace("/usr/local/bin/access-ledger-server", "/bin/true");
        let path = folder.path().join(name);
        access_ledger_server::os::replace(&RealDisk, &path, text.as_bytes())?;
        let analyze = |arguments: &[&str]| {
            Command::new("systemd-analyze").args(arguments).arg(&path).output()
        };
        let Ok(verified) = analyze(&["verify", "--man=no"]) else {
            eprintln!("skipped: there is no systemd-analyze on this machine");
            return Ok(());
        };
        ensure!(verified.status.success() && verified.stderr.is_empty(), "{verified:?}");
        // In tenths: 10 is "safe", 100 "unsafe".
        let rated = analyze(&["security", "--offline=true", "--threshold=15"])?;
        ensure!(rated.status.success(), "{rated:?}");
    }
    Ok(())
}

#[test]
fn cargo_installs_both_binaries() -> Result<()> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let asked = Command::new(cargo)
        .args(["metadata", "--no-deps", "--offline", "--format-version", "1"])
        .current_dir(server())
        .output()?;
    let metadata: Value = serde_json::from_slice(&asked.stdout)?;
    let packages = metadata["packages"].as_array().context("no packages")?;
    for (package, binary) in [
        ("access-ledger-server", "access-ledger-server"),
        ("access-ledger-client", "access-ledger"),
    ] {
        let package = packages.iter().find(|found| found["name"] == package);
        let package = package.context("no such package")?;
        let targets = package["targets"].as_array().context("no targets")?;
        let target = targets.iter().find(|target| target["name"] == binary);
        let target = target.with_context(|| format!("{binary} is not installed"))?;
        ensure!(target["kind"][0] == "bin", "{target}");
        // What it needs comes without a flag.
        let default = package["features"]["default"].as_array().cloned().unwrap_or_default();
        let needed = target["required-features"].as_array().cloned().unwrap_or_default();
        ensure!(needed.iter().all(|feature| default.contains(feature)), "{binary}: {needed:?}");
        ensure!(package["license"] == "Apache-2.0 OR MIT", "{}", package["license"]);
    }
    Ok(())
}

#[test]
fn the_image_runs_the_server_as_nobody() -> Result<()> {
    let text = fs::read_to_string(server().join("packaging/Dockerfile"))?;
    let list = |instruction: &str| -> Result<Vec<String>> {
        let line = text.lines().find_map(|line| line.strip_prefix(instruction));
        Ok(serde_json::from_str(line.context("no such line")?)?)
    };
    let line = [list("ENTRYPOINT ")?, list("CMD ")?].concat();
    Cli::try_parse_from(line)?;
    ensure!(text.contains("\nUSER 65532:65532\n"));
    let version = text.split("FROM rust:").nth(1).and_then(|rest| rest.split('-').next());
    let manifest = fs::read_to_string(server().join("../Cargo.toml"))?;
    let wanted = manifest.split("rust-version = \"").nth(1).and_then(|rest| rest.split('"').next());
    assert_eq!(version, wanted);
    Ok(())
}

#[test]
fn the_licences_of_the_manifest_are_there() -> Result<()> {
    let manifest = fs::read_to_string(server().join("../Cargo.toml"))?;
    ensure!(manifest.contains("license = \"Apache-2.0 OR MIT\""));
    for (file, says) in
        [("LICENSE-APACHE", "Version 2.0, January 2004"), ("LICENSE-MIT", "MIT License")]
    {
        ensure!(fs::read_to_string(server().join(file))?.contains(says), "{file}");
    }
    Ok(())
}
