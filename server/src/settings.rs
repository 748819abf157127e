//! The configuration file: TOML whose keys are the long flags of the subcommand that reads it.
//!
//! ```toml
//! data = "/var/lib/access-ledger"
//! listen = "10.0.0.5:7070"
//! metrics.listen = "127.0.0.1:9100"      # the same as metrics-listen
//! ```
//!
//! There is one list of settings, that of the flags, so file and flags never differ in what they
//! know or how they are explained. The command line takes precedence over the environment,
//! that over the file, and that over the default.

use std::{ffi::OsString, fmt::Write as _, path::PathBuf};

use clap::{Arg, ArgAction, ArgMatches, Command, error::ErrorKind, parser::ValueSource};
use thiserror::Error;
use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use crate::os::{self, Disk};

/// Why the settings cannot be used.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum SettingsError {
    /// The command line, or the environment, is wrong; or help was asked for.
    #[error(transparent)]
    Usage(#[from] clap::Error),
    /// The file cannot be read.
    #[error("settings {}: {source}", .path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// Something in the file is wrong.
    #[error("{}:{line}:{column}: {problem}", .path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// From 1.
        line: usize,
        /// From 1, in characters.
        column: usize,
        /// What was found before what was wanted.
        problem: String,
    },
}

/// Reads the command line, and the file that it or the environment names with `--config`, into
/// matches of `command`: a program with subcommands, whose first argument is its own name.
///
/// # Errors
///
/// [`SettingsError::Usage`], [`SettingsError::Io`]; [`SettingsError::File`] for what is no TOML, an
/// unknown key (with the nearest known one), or a value that the flag does not take.
pub fn parse(
    command: &Command,
    arguments: impl IntoIterator<Item = OsString>,
    disk: &dyn Disk,
) -> Result<ArgMatches, SettingsError> {
    let mut line: Vec<OsString> = arguments.into_iter().collect();
    // What is missing on the command line may be in the file; what is wrong is told at the end.
    let lenient = without_requirements(command.clone());
    let given = lenient.clone().ignore_errors(true).try_get_matches_from(&line)?;
    if let Some(path) = given.get_one::<PathBuf>(CONFIG).cloned() {
        let io = |source| SettingsError::Io { path: path.clone(), source };
        let bytes = os::read(disk, &path, FILE_BYTES_MAX).map_err(io)?;
        let text = String::from_utf8(bytes)
            .map_err(|error| io(std::io::Error::new(std::io::ErrorKind::InvalidData, error)))?;
        let file = File { path, text };
        line.extend(file.flags(&lenient, &given)?);
    }
    Ok(command.clone().try_get_matches_from(line)?)
}

/// All settings of the subcommand in `matches` as a commented file that [`parse`] reads.
#[must_use]
pub fn print(command: &Command, matches: &ArgMatches) -> String {
    let mut text = String::new();
    let Some((name, given)) = matches.subcommand() else { return text };
    let Some(subcommand) = command.find_subcommand(name) else { return text };
    for argument in settings(command, subcommand) {
        let help = argument.get_long_help().or_else(|| argument.get_help());
        for line in wrapped(&help.map(ToString::to_string).unwrap_or_default()) {
            // Writing to a `String` cannot fail.
            let _infallible = writeln!(text, "# {line}");
        }
        let key = argument.get_long().unwrap_or_default();
        let _infallible = match value(argument, given) {
            Some(value) => writeln!(text, "{key} = {value}{}\n", source(argument, given)),
            None => writeln!(text, "#{key} =\n"),
        };
    }
    text
}

/// A settings file.
struct File {
    path: PathBuf,
    text: String,
}

impl File {
    /// The flags that the file stands for, without those that are given otherwise.
    fn flags(&self, command: &Command, given: &ArgMatches) -> Result<Vec<OsString>, SettingsError> {
        let Some((name, given)) = given.subcommand() else { return Ok(Vec::new()) };
        let Some(subcommand) = command.find_subcommand(name) else { return Ok(Vec::new()) };
        if given.subcommand().is_some() {
            // The file is of the service, not of what else is done with its folder.
            return Ok(Vec::new());
        }
        let table = DeTable::parse(&self.text).map_err(|error| {
            self.wrong(error.span().unwrap_or_default().start, error.message().to_owned())
        })?;
        let known: Vec<&Arg> = settings(command, subcommand).collect();
        let mut flags = Vec::new();
        let mut tables = vec![(String::new(), table.get_ref())];
        while let Some((prefix, table)) = tables.pop() {
            for (key, value) in table {
                let at = key.span().start;
                let key = format!("{prefix}{}", key.get_ref());
                if let DeValue::Table(inner) = value.get_ref() {
                    tables.push((format!("{key}-"), inner));
                    continue;
                }
                let argument = known.iter().find(|known| known.get_long() == Some(&key));
                let argument = argument.ok_or_else(|| self.wrong(at, unknown(&key, &known)))?;
                let these = self.flag(argument, &key, value)?;
                let line = [command.get_name(), name].map(OsString::from).into_iter();
                let alone = command.clone().try_get_matches_from(line.chain(these.clone()));
                if let Err(error) = alone
                    // What a setting needs besides itself may stand elsewhere.
                    && error.kind() != ErrorKind::MissingRequiredArgument
                {
                    return Err(self.wrong(value.span().start, one_line(&error)));
                }
                let is_given = matches!(
                    given.value_source(argument.get_id().as_str()),
                    Some(ValueSource::CommandLine | ValueSource::EnvVariable)
                );
                if !is_given {
                    flags.extend(these);
                }
            }
        }
        Ok(flags)
    }

    /// The flags that one key stands for.
    fn flag(
        &self,
        argument: &Arg,
        key: &str,
        value: &Spanned<DeValue<'_>>,
    ) -> Result<Vec<OsString>, SettingsError> {
        let is_switch = matches!(argument.get_action(), ArgAction::SetTrue);
        let takes_many = matches!(argument.get_action(), ArgAction::Append);
        let wrong = |wanted: &str| {
            let found = value.get_ref().type_str();
            self.wrong(value.span().start, format!("{key} is of type {found}, expected {wanted}"))
        };
        let flag = |text: &str| OsString::from(format!("--{key}={text}"));
        match value.get_ref() {
            DeValue::Boolean(is_on) if is_switch => {
                Ok(is_on.then(|| OsString::from(format!("--{key}"))).into_iter().collect())
            }
            _ if is_switch => Err(wrong("boolean")),
            DeValue::String(text) => Ok(vec![flag(text)]),
            DeValue::Integer(number) => match i128::from_str_radix(number.as_str(), number.radix())
            {
                Ok(number) => Ok(vec![flag(&number.to_string())]),
                Err(_) => Err(wrong("a whole number")),
            },
            DeValue::Array(items) if takes_many => {
                let flags = items.iter().map(|item| match item.get_ref() {
                    DeValue::Array(_) => Err(wrong("an array of strings")),
                    _ => self.flag(argument, key, item),
                });
                Ok(flags.collect::<Result<Vec<_>, _>>()?.concat())
            }
            _ => Err(wrong(if takes_many { "string or array" } else { "string or integer" })),
        }
    }

    fn wrong(&self, offset: usize, problem: String) -> SettingsError {
        let before = self.text.get(..offset).unwrap_or_default();
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        let column = before.get(line_start..).unwrap_or_default().chars().count() + 1;
        let line = before.matches('\n').count() + 1;
        SettingsError::File { path: self.path.clone(), line, column, problem }
    }
}

/// What a file may set: the flags of a subcommand and those of the program, but for the two that
/// are about the file.
fn settings<'a>(command: &'a Command, subcommand: &'a Command) -> impl Iterator<Item = &'a Arg> {
    let own = command.get_arguments().filter(|argument| argument.is_global_set());
    let all = subcommand.get_arguments().filter(|argument| !argument.is_global_set()).chain(own);
    all.filter(|argument| {
        let long = argument.get_long();
        long.is_some_and(|long| ![CONFIG, PRINT_CONFIG, "help", "version"].contains(&long))
    })
}

fn without_requirements(command: Command) -> Command {
    let relaxed = command.mut_args(|argument| argument.required(false));
    relaxed.mut_subcommands(without_requirements)
}

fn unknown(key: &str, known: &[&Arg]) -> String {
    let names = known.iter().filter_map(|argument| argument.get_long());
    let nearest = names.max_by(|left, right| {
        strsim::jaro_winkler(left, key).total_cmp(&strsim::jaro_winkler(right, key))
    });
    format!("unknown setting {key}, the nearest known one is {}", nearest.unwrap_or_default())
}

/// What clap says, without its advice on the command line.
fn one_line(error: &clap::Error) -> String {
    let text = error.to_string();
    let first = text.lines().next().unwrap_or_default();
    first.trim_start_matches("error: ").to_owned()
}

/// A setting's value as TOML; `None` without one.
fn value(argument: &Arg, given: &ArgMatches) -> Option<String> {
    let id = argument.get_id().as_str();
    if matches!(argument.get_action(), ArgAction::SetTrue) {
        return Some(given.get_flag(id).to_string());
    }
    let texts: Vec<String> =
        given.get_raw(id)?.map(|raw| literal(&raw.to_string_lossy())).collect();
    match (&texts[..], argument.get_action()) {
        (_, ArgAction::Append) => Some(format!("[{}]", texts.join(", "))),
        ([text], _) => Some(text.clone()),
        _ => None,
    }
}

fn literal(text: &str) -> String {
    match text.parse::<i64>() {
        Ok(number) if number.to_string() == text => text.to_owned(),
        _ => toml::Value::String(text.to_owned()).to_string(),
    }
}

/// Where a value comes from, when that is no default. What the file says came as flags.
fn source(argument: &Arg, given: &ArgMatches) -> &'static str {
    match given.value_source(argument.get_id().as_str()) {
        Some(ValueSource::CommandLine) => "  # set",
        Some(ValueSource::EnvVariable) => "  # environment",
        _ => "",
    }
}

/// Lines of at most 98 characters, where words allow.
fn wrapped(text: &str) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split_whitespace() {
        match lines.last_mut() {
            Some(line) if line.chars().count() + 1 + word.chars().count() <= 98 => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}

/// The flag that names the file.
const CONFIG: &str = "config";

/// The flag that prints instead of doing.
const PRINT_CONFIG: &str = "print-config";

/// A hundred times what all settings take.
const FILE_BYTES_MAX: usize = 1 << 20;

#[cfg(test)]
mod tests {
    use clap::{CommandFactory as _, FromArgMatches as _};

    use super::*;
    use crate::{
        config::{Cli, Command as Subcommand, ServeArgs},
        os::RealDisk,
    };

    /// `serve` with a settings file and flags.
    fn serve(file: &str, flags: &[&str]) -> Result<ServeArgs, String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ledger.toml");
        let mut disk_file = std::fs::File::create(&path).unwrap();
        std::io::Write::write_all(&mut disk_file, file.as_bytes()).unwrap();
        let line = ["access-ledger-server", "serve", "--config"].map(OsString::from);
        let flags = flags.iter().map(OsString::from);
        let line = line.into_iter().chain([path.clone().into()]).chain(flags);
        let parsed = parse(&Cli::command(), line, &RealDisk);
        let shown = path.display().to_string();
        let matches = parsed.map_err(|error| error.to_string().replace(&shown, "FILE"))?;
        match Cli::from_arg_matches(&matches).map_err(|error| error.to_string())?.command {
            Subcommand::Serve(args) => Ok(*args),
            other => Err(format!("{other:?}")),
        }
    }

    #[test]
    fn a_file_sets_what_flags_set_and_flags_come_first() {
        let file = "data = '/d'\nqueue-mib = 9\nsegment-mib = 0x10\ndanger-plaintext = true\n\
                    [metrics]\nlisten = '127.0.0.1:1'\n";
        let args = serve(file, &["--queue-mib", "7"]).unwrap();
        assert_eq!(args.data.data, PathBuf::from("/d"));
        assert_eq!((args.queue_mib, args.segment_mib, args.door.danger_plaintext), (7, 16, true));
        assert_eq!(args.metrics_listen, "127.0.0.1:1".parse().unwrap());
        assert_eq!(args.listen, "127.0.0.1:7070".parse().unwrap(), "the default");
        assert!(!serve("danger-plaintext = false", &[]).unwrap().door.danger_plaintext);
    }

    #[test]
    fn what_is_wrong_is_named_with_its_place() {
        let refused = |file: &str, wanted: &str| {
            let told = serve(file, &["--queue-mib", "7"]).unwrap_err();
            assert!(told.starts_with(wanted), "{told}");
        };
        refused(
            "data = '/d'\nlisten-on = 1",
            "FILE:2:1: unknown setting listen-on, the nearest known one is listen",
        );
        refused("[metrics]\nlisen = ''", "FILE:2:1: unknown setting metrics-lisen, the nearest");
        refused("config = 'x'", "FILE:1:1: unknown setting config");
        refused("listen = 'nowhere'", "FILE:1:10: invalid value 'nowhere' for '--listen");
        refused("queue-mib = -1", "FILE:1:13: invalid value '-1' for '--queue-mib");
        refused("queue-mib = [1]", "FILE:1:13: queue-mib is of type array, expected string or");
        refused("danger-plaintext = 1", "FILE:1:20: danger-plaintext is of type integer, expected");
        refused("data = ", "FILE:1:");
    }

    #[test]
    fn settings_that_need_each_other_may_stand_apart_but_not_be_missing() {
        let pair = "[tls]\ncertificate = 'c'\nkey = 'k'\n";
        assert_eq!(serve(pair, &[]).unwrap().door.tls_key, Some(PathBuf::from("k")));
        let half = "[tls]\ncertificate = 'c'\n";
        assert!(serve(half, &["--tls-key", "k"]).is_ok());
        assert!(serve(half, &[]).unwrap_err().contains("--tls-key"));
    }

    #[test]
    fn what_is_printed_is_read_as_the_same_settings() {
        let command = Cli::command();
        let line = ["access-ledger-server", "serve", "--origin", "a \"b\"", "--queue-mib", "5"];
        let matches = parse(&command, line.map(OsString::from), &RealDisk).unwrap();
        let printed = print(&command, &matches);
        assert!(printed.contains("\nqueue-mib = 5  # set\n"), "{printed}");
        assert!(printed.contains("\n#threads =\n"), "{printed}");
        assert!(printed.lines().all(|line| line.chars().count() <= 100), "{printed}");
        let read = serve(&printed, &[]).unwrap();
        assert_eq!((read.origin.as_deref(), read.queue_mib), (Some("a \"b\""), 5));
    }
}
