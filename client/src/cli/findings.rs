//! `findings`: what an auditor must look at; `findings handle`: what somebody made of it.

use std::{
    collections::BTreeSet,
    io::{self, Write},
};

use access_ledger_proto::{
    findings::rules,
    wire::{self, FindingRecord, FindingState, ListFindingsRequest, event::Body},
};
use clap::{Args, Subcommand, ValueEnum};
use serde_json::json;

use super::{Failure, caller::Caller, complain, ledger::LedgerArgs, say, time, words::word};
use crate::{evidence::printable, fold::FindingsList};

/// Lists the findings: what the facts, the policy or the clock of the log object to
///
/// Reads and verifies the whole log like `verify`, and computes the findings from it. One line
/// each, in the order in which they come to light: index and time of what it is about, how grave
/// it is, the finding's id (rule and index), and the facts. What each of the rules means follows on
/// the standard error.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub(super) struct Findings {
    #[command(subcommand)]
    handle: Option<Handling>,
    /// Present unless there is a subcommand.
    #[command(flatten)]
    ledger: Option<LedgerArgs>,
    #[command(flatten)]
    list: List,
}

#[derive(Debug, Subcommand)]
enum Handling {
    Handle(Box<Handle>),
}

#[derive(Debug, Args)]
struct List {
    /// Only of this rule; repeat for more
    #[arg(long = "rule", value_name = "RULE")]
    rules: Vec<String>,
    /// Only those in this state; repeat for more
    #[arg(long = "state", value_name = "STATE", value_enum)]
    states: Vec<State>,
    /// Lines for people, or one JSON object a line
    #[arg(long, value_enum, default_value = "table")]
    format: Format,
    /// Ask the server for its list instead of computing it: fast, and nothing is verified
    #[arg(long)]
    by_server: bool,
}

/// Records what you make of a finding
///
/// Counts from sources with the role `approve` or `govern`. What was said before stays in the log.
#[derive(Debug, Args)]
struct Handle {
    #[command(flatten)]
    caller: Caller,
    /// The finding, as `findings` lists it
    #[arg(value_name = "ID")]
    finding_id: String,
    /// What you make of it
    #[arg(long, value_enum)]
    state: Handled,
    /// Why
    #[arg(long, value_name = "TEXT")]
    note: String,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Format {
    Table,
    Json,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum State {
    /// Nobody has handled it
    Open,
    Acknowledged,
    Explained,
    Confirmed,
    Closed,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Handled {
    /// Seen, and looked into
    Acknowledged,
    /// It was in order, and the note says why
    Explained,
    /// It was not in order
    Confirmed,
    /// Nothing is left to do
    Closed,
}

impl Findings {
    pub(super) async fn run(self) -> Result<(), Failure> {
        match (self.handle, self.ledger) {
            (Some(Handling::Handle(handle)), _) => handle.run().await,
            (None, Some(ledger)) if self.list.by_server => self.list.ask(&ledger).await,
            (None, Some(ledger)) => self.list.compute(&ledger).await,
            (None, None) => Err(anyhow::anyhow!("no ledger was named").into()),
        }
    }
}

impl List {
    /// The list that follows from verified entries.
    async fn compute(&self, ledger: &LedgerArgs) -> Result<(), Failure> {
        let (audited, observed) = ledger.observe(FindingsList::default()).await?;
        let findings = observed.conclude()?;
        let (mut shown, mut rules) = (0_u64, BTreeSet::new());
        let mut out = io::BufWriter::new(io::stdout().lock());
        for finding in findings.iter().filter(|finding| self.wants(finding)) {
            self.print(&mut out, finding)?;
            rules.insert(finding.rule.as_str());
            shown += 1;
        }
        out.flush()?;
        drop(out);
        self.explain(&rules);
        let (origin, size) = (audited.checkpoint.origin(), audited.checkpoint.size());
        let found = findings.len();
        complain(format_args!(
            "verified {origin}, {size} entries: {found} findings, {shown} of them shown"
        ));
        Ok(())
    }

    /// The server's own list.
    async fn ask(&self, ledger: &LedgerArgs) -> Result<(), Failure> {
        let puller = ledger.puller().await?;
        let mut request = ListFindingsRequest {
            rules: self.rules.clone(),
            states: self.states.iter().map(|state| state.wire().into()).collect(),
            ..Default::default()
        };
        let mut rules = BTreeSet::new();
        loop {
            let page = puller.findings(request.clone()).await?;
            let mut out = io::BufWriter::new(io::stdout().lock());
            page.findings.iter().try_for_each(|finding| self.print(&mut out, finding))?;
            out.flush()?;
            rules.extend(page.findings.into_iter().map(|finding| finding.rule));
            request.page_token = page.next_page_token;
            if request.page_token.is_empty() {
                self.explain(&rules.iter().map(String::as_str).collect());
                let size = page.indexed_size;
                complain(format_args!(
                    "NOT verified: as the server tells them, from {size} entries"
                ));
                return Ok(());
            }
        }
    }

    fn wants(&self, finding: &FindingRecord) -> bool {
        let in_state = |state: &State| finding.state() == state.wire();
        (self.rules.is_empty() || self.rules.contains(&finding.rule))
            && (self.states.is_empty() || self.states.iter().any(in_state))
    }

    /// Tells people what the rules mean, beside the list, so that its lines stay findings alone.
    /// What a rule of a policy's own means, only that policy says.
    fn explain(&self, names: &BTreeSet<&str>) {
        if matches!(self.format, Format::Json) {
            return;
        }
        for rule in names.iter().filter_map(|name| rules::find(name)) {
            complain(format_args!("{}: {}", rule.name, rule.meaning));
        }
    }

    fn print(&self, out: &mut impl Write, finding: &FindingRecord) -> io::Result<()> {
        match self.format {
            Format::Table => print_line(out, finding),
            Format::Json => writeln!(out, "{}", as_json(finding)),
        }
    }
}

impl Handle {
    async fn run(self) -> Result<(), Failure> {
        let Self { caller, finding_id, state, note } = self;
        let id = finding_id.clone();
        let body = Body::Finding(wire::Finding { finding_id, state: state.wire().into(), note });
        let event = wire::Event { body: Some(body), ..Default::default() };
        let called = caller.call().await?;
        let recorder = called.recorder().await?;
        let ticket = recorder.record(event).await.map_err(|error| called.failure(error))?;
        let recorded = ticket.receipt().await.map_err(|error| called.failure(error))?;
        called.close(&recorder).await?;
        let (state, index) = (word("FindingState", state.wire().into()), recorded.index());
        say(format_args!("finding {id} is {state} since index {index}"))?;
        Ok(())
    }
}

fn print_line(out: &mut impl Write, finding: &FindingRecord) -> io::Result<()> {
    let severity = word("Severity", finding.severity);
    let (index, at, id) = (finding.index, time(finding.time), printable(&finding.finding_id));
    write!(out, "{index:>8}  {at:<30}  {severity:<8}  {id}")?;
    if finding.state != 0 {
        write!(out, " ({})", word("FindingState", finding.state))?;
    }
    for fact in &finding.facts {
        write!(out, "  {}={}", fact.name, printable(&fact.value))?;
    }
    writeln!(out)
}

fn as_json(finding: &FindingRecord) -> serde_json::Value {
    let facts = finding.facts.iter().map(|fact| (fact.name.clone(), fact.value.clone().into()));
    let state =
        if finding.state == 0 { "open".into() } else { word("FindingState", finding.state) };
    json!({
        "id": finding.finding_id,
        "rule": finding.rule,
        "severity": word("Severity", finding.severity),
        "index": finding.index,
        "related": finding.related,
        "foundIndex": finding.found_index,
        "time": time(finding.time),
        "state": state,
        "facts": facts.collect::<serde_json::Map<_, _>>(),
    })
}

impl State {
    const fn wire(self) -> FindingState {
        match self {
            Self::Open => FindingState::Unspecified,
            Self::Acknowledged => FindingState::Acknowledged,
            Self::Explained => FindingState::Explained,
            Self::Confirmed => FindingState::Confirmed,
            Self::Closed => FindingState::Closed,
        }
    }
}

impl Handled {
    const fn wire(self) -> FindingState {
        match self {
            Self::Acknowledged => FindingState::Acknowledged,
            Self::Explained => FindingState::Explained,
            Self::Confirmed => FindingState::Confirmed,
            Self::Closed => FindingState::Closed,
        }
    }
}
