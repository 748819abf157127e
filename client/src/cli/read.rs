//! `read`: prints entries.

use std::io::{self, Write};

use access_ledger_proto::{
    checkpoint::Checkpoint,
    entry::Entry,
    note::Note,
    position::{Index, Size},
    wire::{self, event::Body},
};
use anyhow::{Context as _, anyhow};
use bytes::Bytes;
use clap::Args;
use prost::Message as _;
use serde_json::json;

use super::{Failure, Server, json::event_json, time};
use crate::{
    pull::{Puller, Run},
    query::{ErasedBy, hits_of},
    verify::{Record, Scope, digest},
};

/// Prints entries with their events, as the server tells them
///
/// That each event is the one its entry commits to, and that the entries form a chain, is checked
/// on the way; who sealed them, and what the ledger signed, is for `verify`.
#[derive(Debug, Args)]
pub(super) struct Read {
    #[command(flatten)]
    server: Server,
    /// The first index
    #[arg(long, value_name = "N", default_value_t = 0)]
    from: u64,
    /// The last index, included; default and at most: the newest entry
    #[arg(long, value_name = "N", conflicts_with = "follow")]
    to: Option<u64>,
    /// Go on with every new entry
    #[arg(long)]
    follow: bool,
    /// One JSON object a line: index, recordedAt, source, seq, eventDigest, event (null: erased),
    /// redaction (what erased it: index, legalBasis)
    #[arg(long)]
    json: bool,
}

impl Read {
    pub(super) async fn run(self) -> Result<(), Failure> {
        let puller = Puller::new(self.server.reach().await?);
        if self.follow {
            return self.follow(&puller).await;
        }
        let newest = newest_size(&puller.checkpoint().await?)?;
        let end = self.to.map_or(newest, |to| Index(to).size_through().min(newest));
        let mut records = puller.records(Index(self.from), end, Scope::Events);
        let (mut last, mut redactions) = (None, Redactions::default());
        while let Some(run) = records.next().await {
            let run = run?;
            redactions.look(&puller, &run.1).await?;
            last = self.print(run, last, &redactions)?;
        }
        Ok(())
    }

    /// Prints until the stream cannot be resumed.
    async fn follow(&self, puller: &Puller) -> Result<(), Failure> {
        let mut watch = puller.watch(Index(self.from));
        let (mut last, mut redactions) = (None, Redactions::default());
        loop {
            let run = watch.next().await?.run;
            redactions.look(puller, &run.1).await?;
            last = self.print(run, last, &redactions)?;
        }
    }

    /// Prints a run and checks that it continues the record before, `last`; its own last one.
    fn print(
        &self,
        (first, records): Run,
        last: Option<Record>,
        redactions: &Redactions,
    ) -> Result<Option<Record>, Failure> {
        let mut out = io::BufWriter::new(io::stdout().lock());
        for record in &records {
            let entry = Entry::parse(&record.entry)
                .with_context(|| format!("an entry behind index {first} is malformed"))?;
            if self.json {
                let gone = record.event.is_none();
                let erased_by = redactions.by(entry.index).filter(|_| gone);
                write_json(&mut out, &entry, record.event.as_ref(), erased_by.as_ref())?;
            } else {
                let event = record.event.as_ref();
                let event = event.map_or_else(|| redactions.told(entry.index), summary);
                let (index, at) = (entry.index, time(entry.recorded_at));
                let (source, seq) = (entry.source, entry.source_seq);
                writeln!(out, "{index:>8}  {at:<30}  {source} #{seq}  {event}")?;
            }
        }
        out.flush()?;
        let newest = records.last().cloned();
        let from = Index(first.0.saturating_sub(u64::from(last.is_some())));
        let linked = last.into_iter().chain(records).collect();
        match digest(from, linked, Scope::Events).into_violation() {
            Some(violation) => Err(Failure::Refuted(violation.to_string())),
            None => Ok(newest),
        }
    }
}

/// Who had events erased, on the server's word.
#[derive(Default)]
struct Redactions {
    was_asked: bool,
    /// Each with its own index.
    list: Vec<(Index, wire::Redaction)>,
}

impl Redactions {
    /// Asks for them where the first event is gone.
    async fn look(&mut self, puller: &Puller, records: &[Record]) -> Result<(), Failure> {
        if self.was_asked || records.iter().all(|record| record.event.is_some()) {
            return Ok(());
        }
        self.was_asked = true;
        let bodies = vec!["redaction".to_owned()];
        let request = wire::QueryRequest {
            filter: Some(wire::Filter { bodies, ..Default::default() }),
            with_events: true,
            page_size: REDACTIONS_MAX,
            newest_first: true,
            ..Default::default()
        };
        for hit in hits_of(&puller.query(&request).await?) {
            let event = hit.record.event.and_then(|event| wire::Event::decode(event).ok());
            if let Some(Body::Redaction(redaction)) = event.and_then(|event| event.body) {
                self.list.push((hit.index, redaction));
            }
        }
        Ok(())
    }

    /// Of several redactions the first one erased it.
    fn by(&self, index: Index) -> Option<ErasedBy> {
        let covers = |redaction: &wire::Redaction| {
            (redaction.first_index..=redaction.last_index).contains(&index.0)
        };
        let by = self.list.iter().rev().find(|(_, redaction)| covers(redaction));
        by.map(|(index, redaction)| ErasedBy {
            index: *index,
            legal_basis: redaction.legal_basis.clone(),
        })
    }

    /// What stands in the place of an event that is gone.
    fn told(&self, index: Index) -> String {
        let by = self.by(index);
        by.map_or_else(|| "(erased)".to_owned(), |by| format!("(erased, see {})", by.index))
    }
}

/// Prints an entry with its event as one line of JSON; with what erased it, where that is known.
pub(super) fn write_json(
    out: &mut impl Write,
    entry: &Entry<'_>,
    event: Option<&Bytes>,
    erased_by: Option<&ErasedBy>,
) -> anyhow::Result<()> {
    let event = event.map(event_json).transpose();
    let event = event.with_context(|| format!("the event at index {}", entry.index))?;
    let mut line = json!({
        "index": entry.index.0,
        "recordedAt": time(entry.recorded_at),
        "source": entry.source.as_str(),
        "seq": entry.source_seq,
        "eventDigest": entry.event_digest.to_string(),
        "event": event,
    });
    if let (Some(ErasedBy { index, legal_basis }), Some(line)) = (erased_by, line.as_object_mut()) {
        let redaction = json!({ "index": index.0, "legalBasis": legal_basis });
        line.insert("redaction".to_owned(), redaction);
    }
    writeln!(out, "{line}")?;
    Ok(())
}

/// Size of a checkpoint that is only used to know where to stop reading.
fn newest_size(note: &Bytes) -> anyhow::Result<Size> {
    let note = Note::parse(note).map_err(|error| anyhow!("checkpoint: {error}"))?;
    Ok(Checkpoint::parse(note.text())?.size())
}

/// What happened, in a few words.
fn summary(event: &Bytes) -> String {
    let Ok(event) = wire::Event::decode(event.clone()) else {
        return "(malformed event)".to_owned();
    };
    let actor = event.actor.as_ref().map(|actor| format!(" by {}", actor.id)).unwrap_or_default();
    let Some(body) = event.body else {
        return format!("(unknown event){actor}");
    };
    let what = match &body {
        Body::Access(access) => {
            let datasets: Vec<_> = access.data.iter().map(|data| data.dataset.as_str()).collect();
            let action = short(access.action().as_str_name(), "ACTION_");
            let outcome = short(access.outcome().as_str_name(), "OUTCOME_");
            format!("{action} {} {outcome}", datasets.join(","))
        }
        Body::SourceStatus(status) => {
            let phase = short(status.phase().as_str_name(), "SOURCE_PHASE_");
            format!("source {} {phase}", status.source)
        }
        Body::ControlChange(change) => {
            let kind = short(change.kind().as_str_name(), "CONTROL_KIND_");
            format!("control {kind} {}", change.target)
        }
        Body::Redaction(redaction) => {
            format!("redaction of {} to {}", redaction.first_index, redaction.last_index)
        }
        Body::AccessRequest(request) => format!("access request {}", request.request_id),
        Body::Decision(decision) => format!("decision on {}", decision.request_id),
        Body::LedgerRead(read) => {
            let kind = short(read.kind().as_str_name(), "READ_KIND_");
            format!("ledger read {kind} of {} by {}", read.rows, read.reader)
        }
        other => kind(other).to_owned(),
    };
    format!("{what}{actor}")
}

/// Bodies that are told by their kind alone.
pub(super) const fn kind(body: &Body) -> &'static str {
    match body {
        Body::Access(_) => "access",
        Body::Authorization(_) => "authorization",
        Body::AccessRequest(_) => "access request",
        Body::Decision(_) => "decision",
        Body::GrantChange(_) => "grant change",
        Body::BreakGlass(_) => "break glass",
        Body::LegalRequest(_) => "legal request",
        Body::Transfer(_) => "transfer",
        Body::Erasure(_) => "erasure",
        Body::Holding(_) => "holding",
        Body::Attestation(_) => "attestation",
        Body::SourceStatus(_) => "source status",
        Body::ControlChange(_) => "control change",
        Body::Redaction(_) => "redaction",
        Body::LedgerRead(_) => "ledger read",
        Body::Finding(_) => "finding",
    }
}

fn short<'a>(name: &'a str, prefix: &str) -> &'a str {
    name.strip_prefix(prefix).unwrap_or(name)
}

/// Redactions that erased events are told from: the newest ones, of one page.
const REDACTIONS_MAX: u32 = 1_000;
