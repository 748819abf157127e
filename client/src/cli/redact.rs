//! `redact`: has event bytes erased that both governance parties agree on.

use std::{collections::BTreeMap, ops::RangeInclusive};

use access_ledger_proto::{
    entry::Entry,
    error::Kept,
    event,
    facts::{
        Facts,
        redactions::{Erasable, check_erasable},
    },
    position::{Index, count_of},
    wire,
};
use anyhow::{Context as _, anyhow, ensure};
use clap::{Args, Subcommand};
use prost::Message as _;

use super::{
    Failure, complain,
    control::{Apply, Out, Sign, show, write_proposal},
    ledger::Rules,
    read::kind,
    say,
};
use crate::{
    audit::Observer,
    governance::proposal::{Change, Proposal},
    verify::Record,
};

/// Has the bytes of events erased, for good; their entries and all proofs stay
///
/// A redaction takes both parties of the governance. One proposes it into a file and signs that;
/// the other reads the file, signs it too or applies it, which counts as signing. The ledger and
/// its custodians then overwrite the bytes.
#[derive(Debug, Subcommand)]
pub(super) enum Redact {
    Propose(Propose),
    Sign(Sign),
    Apply(Apply),
}

/// Proposes to erase the events of a range, after looking at what that is
#[derive(Debug, Args)]
pub(super) struct Propose {
    #[command(flatten)]
    out: Out,
    /// The first index
    #[arg(long, value_name = "N")]
    from: u64,
    /// The last index, included
    #[arg(long, value_name = "N")]
    to: u64,
    /// The law, order or request that asks for it
    #[arg(long, value_name = "TEXT")]
    legal_basis: String,
}

/// What a range holds, looked at on the way of an audit.
struct Covered {
    range: RangeInclusive<u64>,
    rules: Rules,
    /// How many events of each kind.
    kinds: BTreeMap<&'static str, u64>,
    /// Of them, those that others may rest on.
    ground: u64,
    erased: u64,
    /// The first that is never erased.
    kept: Option<(Index, Kept)>,
    size: u64,
}

impl Redact {
    pub(super) async fn run(self) -> Result<(), Failure> {
        match self {
            Self::Propose(command) => command.run().await,
            Self::Sign(command) => command.run().await,
            Self::Apply(command) => command.run().await,
        }
    }
}

impl Propose {
    async fn run(self) -> Result<(), Failure> {
        let Self { out, from, to, legal_basis } = self;
        if from > to {
            return Err(anyhow!("range from {from} to {to} is empty").into());
        }
        let observed = Box::pin(out.ledger.observe(Covered::new(from..=to)));
        let (_, covered) = observed.await?;
        covered.check()?;
        let facts = covered.rules.0.as_ref().context("the ledger has no genesis")?;
        let origin = &facts.sources().genesis().origin;
        let (first_index, last_index) = (from, to);
        let redaction =
            wire::Redaction { first_index, last_index, legal_basis, ..Default::default() };
        let proposal = Proposal::new(origin, Change::Redaction(redaction))?;
        write_proposal(&proposal, &out.out)?;
        show(&proposal)?;
        covered.show()?;
        Ok(())
    }
}

impl Covered {
    fn new(range: RangeInclusive<u64>) -> Self {
        let (rules, kinds) = (Rules(None), BTreeMap::new());
        Self { range, rules, kinds, ground: 0, erased: 0, kept: None, size: 0 }
    }

    /// That the ledger would take it.
    fn check(&self) -> anyhow::Result<()> {
        let (first, last) = (self.range.start(), self.range.end());
        ensure!(*last < self.size, "index {last} is beyond the log, which has {}", self.size);
        if let Some((index, kept)) = self.kept {
            return Err(anyhow!("event at index {index} {kept}"));
        }
        ensure!(!self.kinds.is_empty(), "events from {first} to {last} are erased already");
        Ok(())
    }

    fn show(&self) -> anyhow::Result<()> {
        for (kind, count) in &self.kinds {
            say(format_args!("           {count} {kind}"))?;
        }
        if self.erased > 0 {
            say(format_args!("           {} erased already", self.erased))?;
        }
        if self.ground > 0 {
            complain(format_args!(
                "note: {} of these say what others rest on (requests, decisions, emergencies, \
                 uses); what rests on them will be found without ground",
                self.ground
            ));
        }
        Ok(())
    }

    fn take_record(&mut self, index: Index, record: &Record) {
        let (Ok(entry), Some(facts)) = (Entry::parse(&record.entry), &self.rules.0) else { return };
        let body = record.event.as_ref().and_then(|event| event::body(event));
        let erasable = Erasable::of(facts.sources(), entry.source, entry.index);
        if let Err(kept) = check_erasable(index, erasable, body) {
            self.kept = self.kept.or(Some((index, kept)));
        }
        let Some(event) = &record.event else {
            self.erased += 1;
            return;
        };
        self.ground += u64::from(body.is_some_and(Facts::concerns));
        let event = wire::Event::decode(event.clone()).unwrap_or_default();
        let kind = event.body.as_ref().map_or("of an unknown kind", kind);
        *self.kinds.entry(kind).or_default() += 1;
    }
}

impl Observer for Covered {
    fn take(&mut self, first: Index, records: &[Record]) {
        self.rules.take(first, records);
        self.size = first.plus(count_of(records.len())).0;
        for (index, record) in (first.0..).map(Index).zip(records) {
            if self.range.contains(&index.0) {
                self.take_record(index, record);
            }
        }
    }
}
