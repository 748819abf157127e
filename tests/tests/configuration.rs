//! Settings: a flag takes precedence over the environment, that over the file, that over the
//! default; the example files have them all, with their defaults.

use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use access_ledger_server::{config::Cli, folder::real_disk, settings};
use access_ledger_tests::{pki::put, process::server_binary};
use anyhow::{Context as _, Result, ensure};
use clap::CommandFactory as _;
use toml::{Table, Value};

/// The subcommands that serve, each with its example and the prefix of its own variables.
const SERVICES: [(&str, &str, &str); 2] = [
    ("serve", "ledger.toml", "ACCESS_LEDGER_"),
    ("custodian", "custodian.toml", "ACCESS_LEDGER_CUSTODIAN_"),
];

/// Variables that tell the client the same.
const SHARED: [(&str, &str); 2] =
    [("ledger", "ACCESS_LEDGER_SERVER"), ("ledger-key", "ACCESS_LEDGER_KEY")];

/// The lines of an example that are settings, without the sign in front.
fn settings_of(example: &str) -> Result<Vec<String>> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../server/packaging").join(example);
    let text = fs::read_to_string(path)?;
    ensure!(text.lines().all(|line| line.is_empty() || line.starts_with('#')), "{example}");
    let is_setting = |line: &&str| line.starts_with(|first: char| first.is_ascii_lowercase());
    let bare = text.lines().filter_map(|line| line.strip_prefix('#'));
    Ok(bare.filter(is_setting).map(str::to_owned).collect())
}

/// What is printed of the settings of a subcommand whose file is this.
fn print(subcommand: &str, file: &str) -> Result<String> {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("settings.toml");
    put(&path, file.as_bytes())?;
    let words = ["access-ledger-server", subcommand, "--config"].map(OsString::from);
    let command = Cli::command();
    let line = words.into_iter().chain([path.into()]);
    Ok(settings::print(&command, &settings::parse(&command, line, &*real_disk())?))
}

/// The names of all settings in a printed file, also of those without a value.
fn names(printed: &str) -> BTreeSet<String> {
    let bare = printed.lines().filter(|line| !line.starts_with("# "));
    let keys = bare.filter_map(|line| line.trim_start_matches('#').split_once(" ="));
    keys.map(|(key, _)| key.to_owned()).collect()
}

/// What a custodian must be told.
fn wanted(subcommand: &str, lines: &[String]) -> String {
    let is_wanted = |line: &&String| line.starts_with("ledger");
    let lines = lines.iter().filter(is_wanted).filter(|_| subcommand == "custodian");
    lines.map(|line| format!("{line}\n")).collect()
}

#[test]
fn the_examples_have_every_setting_with_its_default() -> Result<()> {
    for (subcommand, example, _) in SERVICES {
        let lines = settings_of(example)?;
        let example: Table = toml::from_str(&lines.join("\n"))?;
        ensure!(example.len() == lines.len(), "a setting stands there twice");
        let printed = print(subcommand, &wanted(subcommand, &lines))?;
        assert_eq!(example.keys().cloned().collect::<BTreeSet<_>>(), names(&printed));
        for (key, default) in toml::from_str::<Table>(&printed)? {
            assert_eq!(example.get(&key), Some(&default), "{subcommand}: {key}");
        }
        // Every line is taken as it stands.
        let set: Table = toml::from_str(&print(subcommand, &lines.join("\n"))?)?;
        assert_eq!(set, example);
    }
    Ok(())
}

/// Runs the binary with nothing in its environment but these variables; what it prints.
fn run(arguments: &[&str], variables: &BTreeMap<String, String>) -> Result<String> {
    let mut command = Command::new(server_binary()?);
    let output = command.args(arguments).env_clear().envs(variables).output()?;
    ensure!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8(output.stdout)?)
}

/// A value as the environment has it.
fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

#[test]
fn every_setting_has_its_variable_and_what_is_printed_is_read_as_the_same() -> Result<()> {
    let folder = tempfile::tempdir()?;
    for (subcommand, example, prefix) in SERVICES {
        let example: Table = toml::from_str(&settings_of(example)?.join("\n"))?;
        let command = Cli::command();
        let service = command.find_subcommand(subcommand).context("no such subcommand")?;
        let mut variables = BTreeMap::new();
        for (key, value) in &example {
            let is_it = |argument: &&clap::Arg| argument.get_long() == Some(key);
            let argument = service.get_arguments().chain(command.get_arguments()).find(is_it);
            let name = argument.and_then(clap::Arg::get_env).context(key.clone())?;
            let name = name.to_str().context("no text")?;
            let word = key.to_uppercase().replace('-', "_");
            let shared = SHARED.iter().find(|(shared, _)| shared == key).map(|(_, name)| *name);
            let own = [format!("{prefix}{word}"), format!("ACCESS_LEDGER_{word}")];
            ensure!(own.iter().any(|own| own == name) || shared == Some(name), "{key}: {name}");
            variables.insert(name.to_owned(), plain(value));
        }
        ensure!(variables.len() == example.len(), "{subcommand}: two settings, one variable");
        let printed = run(&[subcommand, "--print-config"], &variables)?;
        assert_eq!(toml::from_str::<Table>(&printed)?, example);
        ensure!(printed.matches("  # environment\n").count() == example.len(), "{printed}");
        let path = folder.path().join("printed.toml");
        put(&path, printed.as_bytes())?;
        let path = path.to_str().context("no text")?;
        let again = run(&[subcommand, "--config", path, "--print-config"], &BTreeMap::new())?;
        assert_eq!(toml::from_str::<Table>(&again)?, example);
    }
    Ok(())
}

#[test]
fn a_flag_counts_before_the_environment_and_that_before_the_file() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let path: PathBuf = folder.path().join("ledger.toml");
    put(&path, b"queue-mib = 3\ndanger-skip-guard = true\n")?;
    let path = path.to_str().context("no text")?.to_owned();
    let variable = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    let config = || variable("ACCESS_LEDGER_CONFIG", &path);
    let queue = || variable("ACCESS_LEDGER_QUEUE_MIB", "4");
    let unskipped = || variable("ACCESS_LEDGER_DANGER_SKIP_GUARD", "false");
    let flag: &[&str] = &["--queue-mib", "5"];
    for (flags, variables, size, skips) in [
        (&[][..], vec![], 64, false),
        (&[], vec![config()], 3, true),
        (&[], vec![config(), queue()], 4, true),
        (flag, vec![config(), queue()], 5, true),
        (flag, vec![config(), unskipped()], 5, false),
        (&["--danger-skip-guard"], vec![unskipped()], 64, true),
    ] {
        let line = [&["serve", "--print-config"], flags].concat();
        let printed: Table = toml::from_str(&run(&line, &variables.into_iter().collect())?)?;
        assert_eq!(printed["queue-mib"].as_integer(), Some(size), "{line:?}");
        assert_eq!(printed["danger-skip-guard"].as_bool(), Some(skips), "{line:?}");
    }
    Ok(())
}
