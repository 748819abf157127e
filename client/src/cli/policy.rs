//! `policy`: the rules that accesses are judged by.

use std::path::{Path, PathBuf};

use access_ledger_proto::{
    error::PolicyError,
    hash::sha256,
    policy::{self, Policy as Rules},
    wire::ControlKind,
};
use anyhow::anyhow;
use clap::{Args, Subcommand};

use super::{
    Failure, complain,
    control::{Apply, Out, Sign, read_text},
    ledger::LedgerArgs,
    say,
};

/// Checks, shows and changes the policy, a set of Cedar rules that the log holds
///
/// A change takes both parties of the governance: one proposes it into a file and signs that, the
/// other reads the file and applies it, which counts as signing.
#[derive(Debug, Subcommand)]
pub(super) enum Policy {
    Check(Check),
    Show(Show),
    /// Prints the policy that a new ledger begins with
    Default,
    /// Prints what a policy can see: the schema that it is checked against
    Schema,
    Propose(Propose),
    Sign(Sign),
    Apply(Apply),
}

/// Checks a policy file, without a ledger: syntax, types, and that each `forbid` has an `@id`
#[derive(Debug, Args)]
pub(super) struct Check {
    /// The Cedar text
    #[arg(value_name = "FILE")]
    file: PathBuf,
}

/// Prints the policy in force, from the verified log; its version on the standard error
#[derive(Debug, Args)]
pub(super) struct Show {
    #[command(flatten)]
    ledger: LedgerArgs,
}

/// Proposes a policy, in place of the one in force
#[derive(Debug, Args)]
pub(super) struct Propose {
    #[command(flatten)]
    out: Out,
    /// The Cedar text
    #[arg(value_name = "FILE")]
    file: PathBuf,
}

impl Policy {
    pub(super) async fn run(self) -> Result<(), Failure> {
        match self {
            Self::Check(command) => command.run(),
            Self::Show(command) => command.run().await,
            Self::Default => print(Rules::DEFAULT),
            Self::Schema => print(Rules::SCHEMA),
            Self::Propose(command) => command.run().await,
            Self::Sign(command) => command.run().await,
            Self::Apply(command) => command.run().await,
        }
    }
}

impl Check {
    fn run(self) -> Result<(), Failure> {
        let (text, rules) = read_policy(&self.file)?;
        let digest = sha256(text.as_bytes());
        say(format_args!("ok        {}", self.file.display()))?;
        say(format_args!("digest    {digest}"))?;
        let rules: Vec<_> = rules.ids().into_iter().collect();
        say(format_args!("rules     {}", rules.join(", ")))?;
        let first = policy::version(1, &text);
        say(format_args!("version   {first} as the first revision of a ledger"))?;
        Ok(())
    }
}

impl Show {
    async fn run(self) -> Result<(), Failure> {
        let facts = self.ledger.facts().await?;
        let policy = facts.policy();
        let version = policy::version(policy.revision, &policy.text);
        // Beside the text, which is to be edited and proposed again.
        complain(format_args!("version {version}, in force since index {}", policy.index));
        print(&policy.text)
    }
}

impl Propose {
    async fn run(self) -> Result<(), Failure> {
        let (text, _) = read_policy(&self.file)?;
        self.out.propose(ControlKind::Policy, "", text.into_bytes()).await
    }
}

fn print(text: &str) -> Result<(), Failure> {
    Ok(say(format_args!("{}", text.trim_end()))?)
}

/// Reads and checks a policy; an error names file, line and column. One that permits nothing is
/// more likely a file gone wrong than what somebody means, who can forbid everything in a rule.
fn read_policy(path: &Path) -> anyhow::Result<(String, Rules)> {
    let text = read_text(path)?;
    match Rules::parse(&text) {
        Ok(rules) if !rules.permits() => {
            Err(anyhow!("{}: no rule permits anything: everything would be denied", path.display()))
        }
        Ok(rules) => Ok((text, rules)),
        Err(PolicyError { line, column, problem }) => {
            Err(anyhow!("{}:{line}:{column}: {problem}", path.display()))
        }
    }
}
