//! The load tool: what the ledger does, beside what this machine could do at all.
//!
//! Machines differ and are shared, so no number stands alone: every comparison runs side by side,
//! in several rounds of alternating order, and what counts is the ratio of the medians.
//!
//! ```text
//! stream     appends in batches over one stream   :  a service that decodes and echoes
//! unary      appends of one event                 :  a service that echoes; bare fdatasync
//! authorize  intents, answered with verdicts      :  appends of one event
//! cosign     appends with a custodian that cosigns :  without
//! check      check, and an audit over the network :  openssl dgst -sha256
//! open       opening and memory at two sizes      :  each other; bytes on disk an event
//! custodian  a custodian that begins with nothing :  check of the same log
//! secure     appends over TLS with roles          :  the same without either
//! memory     idle connections, deaf callers       :  bounds of memory
//! ```
//!
//! The servers are processes of their own: this binary again, with a hidden subcommand, which runs
//! what `access-ledger-server serve` runs.

mod args;
mod authorize;
mod child;
mod cosign;
mod custodian;
mod disk;
mod echo;
mod fill;
mod memory;
mod offline;
mod open;
mod report;
mod secure;
mod source;
mod stream;
mod unary;

use std::{ffi::OsString, process::ExitCode};

use access_ledger_client::cli;

pub use self::args::Cli;
use self::{
    args::{Command, Plan},
    report::{Report, Section},
};

/// Runs what the command line asks for and prints tables and ratios.
///
/// # Errors
///
/// Whatever fails: a measurement that is cut short is none.
pub fn run(cli: &Cli) -> anyhow::Result<ExitCode> {
    let plan = cli.plan();
    let report = match &cli.command {
        Command::All => {
            let measured = [
                stream::measure as Measurement,
                unary::measure,
                authorize::measure,
                cosign::measure,
                offline::measure,
                open::measure,
                custodian::measure,
                secure::measure,
                memory::measure,
            ];
            measure(&plan, &measured)
        }
        Command::Stream => measure(&plan, &[stream::measure]),
        Command::Unary => measure(&plan, &[unary::measure]),
        Command::Authorize => measure(&plan, &[authorize::measure]),
        Command::Cosign => measure(&plan, &[cosign::measure]),
        Command::Check => measure(&plan, &[offline::measure]),
        Command::Open => measure(&plan, &[open::measure]),
        Command::Custodian => measure(&plan, &[custodian::measure]),
        Command::Secure => measure(&plan, &[secure::measure]),
        Command::Memory => measure(&plan, &[memory::measure]),
        Command::Hold(args) => return memory::hold(args).map(|()| ExitCode::SUCCESS),
        Command::Pki { words } => {
            let program = ["access-ledger", "pki"].map(OsString::from);
            return Ok(cli::run(program.into_iter().chain(words.iter().cloned())));
        }
        Command::ServeLedger(data) => {
            return child::serve_ledger(data, cli.server_threads).map(|()| ExitCode::SUCCESS);
        }
        Command::ServeCustodian(args) => {
            return child::serve_custodian(args, cli.server_threads).map(|()| ExitCode::SUCCESS);
        }
        Command::ServeEcho => {
            return child::serve_echo(cli.server_threads).map(|()| ExitCode::SUCCESS);
        }
        Command::OpenLedger(data) => return open::probe(data).map(|()| ExitCode::SUCCESS),
    }?;
    if let Some(path) = &cli.json {
        report.write_json(path)?;
    }
    Ok(ExitCode::SUCCESS)
}

type Measurement = fn(&Plan) -> anyhow::Result<Vec<Section>>;

/// Prints each section as soon as it is there.
fn measure(plan: &Plan, measurements: &[Measurement]) -> anyhow::Result<Report> {
    let mut report = Report::begin()?;
    for measurement in measurements {
        for section in measurement(plan)? {
            report.add(section)?;
        }
    }
    Ok(report)
}
