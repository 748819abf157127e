//! The command line `access-ledger`: one file a subcommand, each of which parses nothing and
//! decides little; what they do is in the library.
//!
//! Exit codes: 0 verified or done; 1 the ledger is caught, or a proof does not hold; 2 usage, file
//! or network; 3 denied, of `authorize`, or not proven, of `check-evidence`.

use std::{
    ffi::OsString,
    fmt,
    io::{self, Write as _},
    path::{Path, PathBuf},
    process::ExitCode,
};

use access_ledger_proto::{note::VerifierKey, wire::GrantState};
use clap::{Args, CommandFactory as _, Parser, Subcommand};

use self::credentials::CredentialArgs;
pub use self::json::parse_event;
use crate::{
    audit::AuditError,
    connect::Link,
    error::{ConnectError, RecorderError},
    evidence::{Caught, printable},
    keyfile,
};

mod approve;
mod authorize;
mod caller;
mod check_evidence;
mod check_proof;
mod control;
mod cosigners;
mod credentials;
mod enroll;
mod findings;
mod grant;
mod json;
mod key;
mod keygen;
mod keys;
mod ledger;
mod pki;
mod policy;
mod prove;
mod query;
mod read;
mod record;
mod redact;
mod rekey;
mod report;
mod request;
mod scope;
mod source;
mod verify;
mod words;

/// Records accesses to protected data in an access ledger, and audits one.
#[derive(Debug, Parser)]
#[command(name = "access-ledger", version, max_term_width = 100, after_help = AFTER_HELP)]
struct Cli {
    #[command(subcommand)]
    command: Command,
    /// File with the passphrase of encrypted key files; new ones are encrypted under it
    #[arg(long, global = true, value_name = "FILE", env = "ACCESS_LEDGER_PASSPHRASE_FILE")]
    passphrase_file: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
enum Command {
    Keygen(keygen::Keygen),
    #[command(subcommand)]
    Key(key::Key),
    #[command(alias = "enrol")]
    Enroll(enroll::Enroll),
    Record(record::Record),
    Authorize(authorize::Authorize),
    Verify(verify::Verify),
    Prove(prove::Prove),
    CheckProof(check_proof::CheckProof),
    CheckEvidence(check_evidence::CheckEvidence),
    Read(read::Read),
    #[command(subcommand)]
    Source(source::Source),
    #[command(subcommand)]
    Policy(policy::Policy),
    #[command(subcommand)]
    Control(control::Control),
    #[command(subcommand)]
    Redact(redact::Redact),
    Request(request::Request),
    Approve(approve::Approve),
    Deny(approve::Deny),
    Grants(report::Grants),
    /// Takes a grant back for good
    Revoke(grant::Change),
    Extend(grant::Extend),
    /// Puts a grant out of force until it is resumed
    Suspend(grant::Change),
    /// Puts a suspended grant in force again
    Resume(grant::Change),
    /// Ends a grant that is no longer needed
    End(grant::Change),
    Findings(findings::Findings),
    Query(Box<query::Query>),
    Report(report::ReportArgs),
    /// Prints a completion script for a shell
    #[command(hide = true)]
    Completions {
        /// For which one
        shell: clap_complete::Shell,
    },
    /// Prints a manual page in roff: of the program, or of a subcommand
    #[command(hide = true)]
    Man {
        /// Of which one
        subcommand: Option<String>,
    },
    #[command(subcommand)]
    Pki(pki::Pki),
}

const AFTER_HELP: &str = "\
Exit codes: 0 verified or done; 1 the ledger is caught, or a proof does not hold;
2 usage, file or network; 3 (authorize) denied, (check-evidence) not proven.
Start a ledger to try it on with `access-ledger-server serve`.";

/// Where the ledger is.
#[derive(Clone, Debug, Args)]
struct Server {
    /// Address of the ledger (for reading, a custodian's too), as in http://127.0.0.1:7070 or
    /// https://ledger.example:7070
    #[arg(long = "server", value_name = "URL", env = "ACCESS_LEDGER_SERVER")]
    url: String,
    #[command(flatten)]
    credentials: CredentialArgs,
}

impl Server {
    /// Connects, once somebody answers there.
    async fn reach(&self) -> Result<Link, ConnectError> {
        self.credentials.reach(&self.url).await
    }
}

/// Why a command did not end well.
#[derive(Debug)]
enum Failure {
    /// The ledger is caught: the evidence is kept.
    Caught(Box<Caught>, Box<VerifierKey>),
    /// The ledger's verdict on an intended access is no.
    Denied(String),
    /// A proof does not hold; the file at hand is the evidence.
    Refuted(String),
    /// All was said in the output, and the exit code says the rest.
    Said(u8),
    /// Usage, file or network.
    Other(anyhow::Error),
}

impl<E: Into<anyhow::Error>> From<E> for Failure {
    fn from(error: E) -> Self {
        Self::Other(error.into())
    }
}

impl Failure {
    fn of_audit(error: AuditError, ledger: &VerifierKey) -> Self {
        match error {
            AuditError::Caught(caught) => Self::Caught(caught, Box::new(ledger.clone())),
            other => other.into(),
        }
    }

    fn of_connect(error: ConnectError, ledger: &VerifierKey) -> Self {
        match error {
            ConnectError::Answer { fault, evidence } => {
                let caught = Caught::Answer { problem: fault.to_string(), bytes: evidence };
                Self::Caught(Box::new(caught), Box::new(ledger.clone()))
            }
            other => other.into(),
        }
    }

    fn of_recorder(error: RecorderError, ledger: &VerifierKey) -> Self {
        let problem = error.to_string();
        match error {
            RecorderError::Evidence { evidence: bytes, .. } => {
                let caught = Caught::Answer { problem, bytes };
                Self::Caught(Box::new(caught), Box::new(ledger.clone()))
            }
            RecorderError::Lost { .. } => Self::Refuted(problem),
            other => other.into(),
        }
    }

    /// Tells what happened and keeps the evidence; the exit code.
    fn report(self) -> u8 {
        match self {
            Self::Caught(caught, ledger) => {
                complain(format_args!("caught: {}", printable(&caught)));
                match caught.keep(Path::new("."), &ledger) {
                    Ok(path) => complain(format_args!("evidence: {}", path.display())),
                    Err(error) => {
                        complain(format_args!("the evidence cannot be written: {error}"));
                        complain(format_args!("{}", caught.evidence(&ledger)));
                    }
                }
                1
            }
            Self::Refuted(problem) => {
                complain(format_args!("does not hold: {}", printable(problem)));
                1
            }
            Self::Denied(rules) => {
                complain(format_args!("denied: {}", printable(rules)));
                3
            }
            Self::Said(code) => code,
            // The reader of our output has seen enough.
            Self::Other(error) if is_broken_pipe(&error) => 0,
            Self::Other(error) => {
                complain(format_args!("error: {}", printable(format_args!("{error:#}"))));
                2
            }
        }
    }
}

/// Runs the command line with these arguments, the program's name first.
#[must_use]
pub fn run(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let cli = match Cli::try_parse_from(args) {
        Ok(cli) => cli,
        Err(error) => {
            let code = u8::from(error.use_stderr()) * 2;
            // Nobody is left to tell when the terminal is gone.
            return error.print().map_or_else(|_| ExitCode::from(2), |()| ExitCode::from(code));
        }
    };
    cli.passphrase_file.into_iter().for_each(keyfile::use_passphrase_file);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let done = match runtime {
        Ok(runtime) => runtime.block_on(cli.command.run()),
        Err(error) => Err(error.into()),
    };
    done.map_or_else(|failure| ExitCode::from(failure.report()), |()| ExitCode::SUCCESS)
}

impl Command {
    async fn run(self) -> Result<(), Failure> {
        match self {
            Self::Keygen(command) => command.run(),
            Self::Key(command) => command.run(),
            Self::Enroll(command) => command.run().await,
            Self::Record(command) => command.run().await,
            Self::Authorize(command) => command.run().await,
            Self::Verify(command) => command.run().await,
            Self::Prove(command) => command.run().await,
            Self::CheckProof(command) => command.run(),
            Self::CheckEvidence(command) => command.run(),
            Self::Read(command) => command.run().await,
            Self::Source(command) => command.run().await,
            Self::Policy(command) => command.run().await,
            Self::Control(command) => command.run().await,
            Self::Redact(command) => command.run().await,
            Self::Request(command) => command.run().await,
            Self::Approve(command) => command.run().await,
            Self::Deny(command) => command.run().await,
            Self::Grants(command) => Box::pin(command.run()).await,
            Self::Revoke(command) => command.run(GrantState::Revoked).await,
            Self::Extend(command) => command.run().await,
            Self::Suspend(command) => command.run(GrantState::Suspended).await,
            Self::Resume(command) => command.run(GrantState::Active).await,
            Self::End(command) => command.run(GrantState::Ended).await,
            Self::Findings(command) => Box::pin(command.run()).await,
            Self::Query(command) => Box::pin(command.run()).await,
            Self::Report(command) => Box::pin(command.run()).await,
            Self::Completions { shell } => print_completions(shell),
            Self::Man { subcommand } => print_manual(subcommand.as_deref()),
            Self::Pki(command) => command.run(),
        }
    }
}

fn print_completions(shell: clap_complete::Shell) -> Result<(), Failure> {
    let (mut command, mut script) = (Cli::command(), Vec::new());
    let name = command.get_name().to_owned();
    clap_complete::generate(shell, &mut command, name, &mut script);
    Ok(io::stdout().write_all(&script)?)
}

fn print_manual(subcommand: Option<&str>) -> Result<(), Failure> {
    let mut command = Cli::command();
    command.build();
    let page = match subcommand {
        None => command,
        Some(name) => {
            let found = command.find_subcommand(name).cloned();
            found.ok_or_else(|| anyhow::anyhow!("no subcommand {name}"))?
        }
    };
    Ok(clap_mangen::Man::new(page).render(&mut io::stdout())?)
}

/// Prints one line of output.
fn say(line: fmt::Arguments<'_>) -> Result<(), io::Error> {
    writeln!(io::stdout().lock(), "{line}")
}

/// Prints one line for the human beside the output.
fn complain(line: fmt::Arguments<'_>) {
    if writeln!(io::stderr().lock(), "{line}").is_err() {
        tracing::debug!("nobody reads the standard error");
    }
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    let io = error.chain().find_map(|cause| cause.downcast_ref::<io::Error>());
    io.is_some_and(|io| io.kind() == io::ErrorKind::BrokenPipe)
}

/// A time of the log for people: RFC 3339 in UTC.
fn time(nanos: u64) -> String {
    jiff::Timestamp::from_nanosecond(i128::from(nanos))
        .map_or_else(|_| format!("{nanos} ns"), |time| time.to_string())
}

#[cfg(test)]
mod tests;
