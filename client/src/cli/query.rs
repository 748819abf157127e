//! `query`: finds entries by what their events say.

use std::{
    io::{self, Write as _},
    path::PathBuf,
};

use access_ledger_proto::{
    checkpoint::VerifiedCheckpoint,
    entry::Entry,
    note::VerifierKey,
    position::count_of,
    terms::{self, Criteria},
    wire::{self, Filter, event::Body},
};
use anyhow::{Context as _, anyhow};
use bytes::Bytes;
use clap::{Args, ValueEnum};
use comfy_table::{Table, presets};
use prost_types::Timestamp;

use super::{
    Failure, Server, complain,
    ledger::LedgerArgs,
    read::{kind, write_json},
    time,
    words::{self, word},
};
use crate::{
    evidence::printable,
    pull::Puller,
    query::{Hit, SelectError, Selection, hits_of, note_redactions, proven_hits},
    verify::state::unhex,
};

/// Finds entries by what their events say
///
/// Every flag may be repeated: an entry is found when it has one of the values of each flag given.
/// By default the answer is the server's word. With `--proofs`, each hit is proven to be in the
/// ledger and to meet the filter. With `--verified`, the whole log is read and verified and the
/// answer computed from it: only then is it certain that no hit was left out.
#[derive(Debug, Args)]
pub(super) struct Query {
    #[command(flatten)]
    server: Server,
    #[command(flatten)]
    filter: FilterArgs,
    /// From the newest entry backwards
    #[arg(long)]
    newest: bool,
    /// At most so many hits; 0: all
    #[arg(long, value_name = "N", default_value_t = 100)]
    limit: usize,
    /// Prove each hit against the ledger's checkpoint
    #[arg(long, requires = "ledger")]
    proofs: bool,
    /// Verify the whole log and answer from it
    #[arg(long, requires = "ledger", conflicts_with = "proofs")]
    verified: bool,
    /// Verifier key of the ledger, from somebody you trust
    #[arg(long, value_name = "VKEY", env = "ACCESS_LEDGER_KEY")]
    ledger: Option<VerifierKey>,
    /// The view file of `--verified`; default: that of `verify`
    #[arg(long, value_name = "FILE", requires = "verified")]
    view: Option<PathBuf>,
    /// A table for people, or one JSON object a line: index, recordedAt, source, seq, eventDigest,
    /// event (null: erased), redaction (what erased it: index, legalBasis)
    #[arg(long, value_enum, default_value = "table")]
    format: Format,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Format {
    Table,
    Json,
}

/// What to find. Words like `export` or `ip-address` are those of the vocabulary; a number stands
/// for a value that this version does not know.
#[derive(Debug, Args)]
struct FilterArgs {
    /// Who did it, for whom, or who is to be given access
    #[arg(long = "actor", value_name = "ID")]
    actors: Vec<String>,
    /// The actor's entity, or that of a place which data comes from or goes to
    #[arg(long = "entity", value_name = "NAME")]
    entities: Vec<String>,
    /// Country of the actor's entity
    #[arg(long = "entity-country", value_name = "CC")]
    entity_countries: Vec<String>,
    /// Country of the actor's office
    #[arg(long = "office-country", value_name = "CC")]
    office_countries: Vec<String>,
    /// Country where the actor was
    #[arg(long = "physical-country", value_name = "CC")]
    physical_countries: Vec<String>,
    /// Country that data lies in, comes from or goes to, or whose authority asks
    #[arg(long = "place-country", value_name = "CC")]
    place_countries: Vec<String>,
    /// The tool
    #[arg(long = "tool", value_name = "ID")]
    tools: Vec<String>,
    /// The dataset
    #[arg(long = "dataset", value_name = "NAME")]
    datasets: Vec<String>,
    /// Region or site that data lies at, comes from or goes to
    #[arg(long = "region", value_name = "NAME")]
    regions: Vec<String>,
    /// Country whose law protects the persons
    #[arg(long = "jurisdiction", value_name = "CC")]
    jurisdictions: Vec<String>,
    /// Boundary of the data: protected, public, ...
    #[arg(long = "boundary", value_name = "WORD", value_parser = number_or(words::boundary))]
    boundaries: Vec<i32>,
    /// Category of the data: contact, location, ...
    #[arg(long = "category", value_name = "WORD", value_parser = number_or(words::category))]
    categories: Vec<i32>,
    /// What was done: read, export, ...
    #[arg(long = "action", value_name = "WORD", value_parser = number_or(words::action))]
    actions: Vec<i32>,
    /// How it ended: allowed, denied, ...
    #[arg(long = "outcome", value_name = "WORD", value_parser = number_or(words::outcome))]
    outcomes: Vec<i32>,
    /// What for: customer-support, ...
    #[arg(long = "purpose", value_name = "WORD", value_parser = number_or(words::purpose))]
    purposes: Vec<i32>,
    /// The grant, or the request that it answers
    #[arg(long = "grant", value_name = "ID")]
    grant_ids: Vec<String>,
    /// The authority's request
    #[arg(long = "legal-request", value_name = "ID")]
    legal_request_ids: Vec<String>,
    /// The emergency
    #[arg(long = "break-glass", value_name = "ID")]
    break_glass_ids: Vec<String>,
    /// The data subject's token, in hexadecimal
    #[arg(long = "subject", value_name = "HEX", value_parser = hex)]
    subject_tokens: Vec<Bytes>,
    /// Rule that a finding about the entry is of
    #[arg(long = "rule", value_name = "RULE")]
    rules: Vec<String>,
    /// The source that recorded it
    #[arg(long = "source", value_name = "NAME")]
    sources: Vec<String>,
    /// Kind of event: access, transfer, legal-request, ...
    #[arg(long = "kind", value_name = "WORD")]
    kinds: Vec<String>,
    /// The event's id, in hexadecimal
    #[arg(long = "event-id", value_name = "HEX", value_parser = hex)]
    event_ids: Vec<Bytes>,
    /// Recorded at this time or later: RFC 3339, or a date (midnight UTC)
    #[arg(long, value_name = "TIME", value_parser = words::time)]
    from: Option<Timestamp>,
    /// Recorded before this time
    #[arg(long, value_name = "TIME", value_parser = words::time)]
    to: Option<Timestamp>,
}

impl FilterArgs {
    fn into_filter(self) -> Filter {
        let bodies = self.kinds.iter().map(|kind| kind.to_ascii_lowercase().replace('-', "_"));
        Filter {
            bodies: bodies.collect(),
            actors: self.actors,
            entities: self.entities,
            entity_countries: self.entity_countries,
            office_countries: self.office_countries,
            physical_countries: self.physical_countries,
            place_countries: self.place_countries,
            tools: self.tools,
            datasets: self.datasets,
            regions: self.regions,
            jurisdictions: self.jurisdictions,
            boundaries: self.boundaries,
            categories: self.categories,
            actions: self.actions,
            outcomes: self.outcomes,
            purposes: self.purposes,
            grant_ids: self.grant_ids,
            legal_request_ids: self.legal_request_ids,
            break_glass_ids: self.break_glass_ids,
            subject_tokens: self.subject_tokens,
            rules: self.rules,
            sources: self.sources,
            event_ids: self.event_ids,
            from: self.from,
            to: self.to,
        }
    }
}

/// How to ask and to show, without the filter.
struct Asked {
    server: Server,
    newest: bool,
    /// At most so many hits.
    limit: usize,
    format: Format,
}

impl Query {
    pub(super) async fn run(self) -> Result<(), Failure> {
        let filter = self.filter.into_filter();
        let criteria = Criteria::parse(&filter)?;
        let limit = if self.limit == 0 { usize::MAX } else { self.limit };
        let (server, newest, format) = (self.server, self.newest, self.format);
        let asked = Asked { server, newest, limit, format };
        match self.ledger {
            Some(ledger) if self.verified => asked.verified(criteria, ledger, self.view).await,
            Some(ledger) if self.proofs => {
                asked.by_server(filter, Some((&criteria, &ledger))).await
            }
            _ => asked.by_server(filter, None).await,
        }
    }
}

impl Asked {
    /// The server's answer, page by page, with or without proofs.
    async fn by_server(
        self,
        filter: Filter,
        proofs: Option<(&Criteria, &VerifierKey)>,
    ) -> Result<(), Failure> {
        let puller = Puller::new(self.server.reach().await?);
        let mut request = wire::QueryRequest {
            filter: Some(filter),
            newest_first: self.newest,
            with_events: true,
            with_proofs: proofs.is_some(),
            ..Default::default()
        };
        let (mut hits, mut searched) = (Vec::new(), 0);
        while hits.len() < self.limit {
            let left = count_of(self.limit - hits.len());
            request.page_size = u32::try_from(left).unwrap_or(u32::MAX);
            let page = puller.query(&request).await?;
            let mut found = match proofs {
                Some((criteria, ledger)) => {
                    proven_hits(&page, criteria, ledger).map_err(|caught| {
                        Failure::Caught(Box::new(caught), Box::new(ledger.clone()))
                    })?
                }
                None => hits_of(&page),
            };
            let checkpoint = match proofs {
                Some((_, ledger)) => Some(VerifiedCheckpoint::open(&page.checkpoint, ledger, &[])?),
                None => None,
            };
            let proven = checkpoint.as_ref().zip(proofs.map(|(_, ledger)| ledger));
            note_redactions(&mut found, &page, &puller, proven)
                .await
                .map_err(|error| failure(error, proofs.map(|(_, ledger)| ledger)))?;
            searched = page.indexed_size;
            request.page_token = page.next_page_token;
            hits.extend(found);
            if request.page_token.is_empty() {
                break;
            }
        }
        self.show(&hits)?;
        let more = if request.page_token.is_empty() { "" } else { ", and there may be more" };
        let count = hits.len();
        let (how, caution) = match proofs {
            Some(_) => ("each proven", "that none was left out is NOT verified"),
            None => ("NOT verified", "as the server tells them"),
        };
        complain(format_args!("{count} hits among {searched} entries{more}: {how}; {caution}"));
        Ok(())
    }

    /// The answer of the verified log.
    async fn verified(
        self,
        criteria: Criteria,
        ledger: VerifierKey,
        view: Option<PathBuf>,
    ) -> Result<(), Failure> {
        let selection = Selection::new(criteria, self.newest, self.limit);
        let args = LedgerArgs::new(self.server.clone(), ledger.clone(), view);
        let (audited, selection) = Box::pin(args.observe(selection)).await?;
        let checkpoint = &audited.checkpoint;
        let puller = args.puller().await?;
        let selected = Box::pin(selection.conclude(&puller, &audited, &ledger)).await;
        let selected = selected.map_err(|error| failure(error, Some(&ledger)))?;
        self.show(&selected.hits)?;
        let (shown, size) = (selected.hits.len(), checkpoint.size());
        let all = selected.count.map_or_else(|| "more".to_owned(), |count| count.to_string());
        complain(format_args!(
            "verified {}, {size} entries: {shown} hits shown of {all}",
            checkpoint.origin()
        ));
        Ok(())
    }

    fn show(&self, hits: &[Hit]) -> anyhow::Result<()> {
        let mut out = io::BufWriter::new(io::stdout().lock());
        match self.format {
            Format::Json => {
                for hit in hits {
                    let erased_by = hit.erased_by.as_ref();
                    write_json(&mut out, &parse(hit)?, hit.record.event.as_ref(), erased_by)?;
                }
            }
            Format::Table if hits.is_empty() => {}
            Format::Table => writeln!(out, "{}", table(hits)?)?,
        }
        Ok(out.flush()?)
    }
}

/// As wide as its content, so that a pipe loses nothing.
fn table(hits: &[Hit]) -> anyhow::Result<String> {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(COLUMNS);
    for hit in hits {
        let entry = parse(hit)?;
        let source = format!("{} #{}", entry.source, entry.source_seq);
        let mut row = vec![hit.index.to_string(), time(entry.recorded_at), source];
        row.extend(match &hit.record.event {
            None => {
                let by = hit
                    .erased_by
                    .as_ref()
                    .map(|erased| format!("by redaction {}: {}", erased.index, erased.legal_basis));
                let nothing = String::new;
                ["(erased)".to_owned(), nothing(), nothing(), by.unwrap_or_default()]
            }
            Some(event) => cells(&terms::decode(event).unwrap_or_default()),
        });
        table.add_row(row.into_iter().map(printable));
    }
    table.column_iter_mut().for_each(|column| {
        column.set_padding((0, 2));
    });
    Ok(table.trim_fmt())
}

/// What, by whom, with what, about what.
fn cells(event: &wire::Event) -> [String; 4] {
    let actor = event.actor.as_ref().map(|actor| match actor.physical_country.as_str() {
        "" => actor.id.clone(),
        country => format!("{} ({country})", actor.id),
    });
    let tool = event.tool.as_ref().map(|tool| tool.id.clone());
    let (what, about) = event.body.as_ref().map(told).unwrap_or_default();
    [what, actor.unwrap_or_default(), tool.unwrap_or_default(), about]
}

/// What happened, and about what.
fn told(body: &Body) -> (String, String) {
    let datasets = |data: &[wire::Data]| {
        data.iter().map(|data| data.dataset.as_str()).collect::<Vec<_>>().join(", ")
    };
    match body {
        Body::Access(access) => {
            let (action, outcome) =
                (word("Action", access.action), word("Outcome", access.outcome));
            (format!("{action} {outcome}"), datasets(&access.data))
        }
        Body::Transfer(transfer) => {
            let site = |place: &Option<wire::Place>| {
                place.as_ref().map(|place| place.site.clone()).unwrap_or_default()
            };
            let (from, to) = (site(&transfer.from), site(&transfer.to));
            let mode = word("TransferMode", transfer.mode);
            (format!("transfer {mode}"), format!("{from} to {to}: {}", datasets(&transfer.data)))
        }
        Body::AccessRequest(request) => ("access request".to_owned(), request.request_id.clone()),
        Body::Decision(decision) => {
            let verdict = word("Verdict", decision.verdict);
            (format!("decision {verdict}"), decision.request_id.clone())
        }
        Body::GrantChange(change) => {
            let state = word("GrantState", change.state);
            (format!("grant {state}"), change.grant_id.clone())
        }
        Body::BreakGlass(emergency) => {
            let phase = word("BreakGlassPhase", emergency.phase);
            (format!("break glass {phase}"), emergency.break_glass_id.clone())
        }
        Body::LegalRequest(request) => {
            let phase = word("LegalRequestPhase", request.phase);
            let (id, country) = (&request.legal_request_id, &request.country);
            (format!("legal request {phase}"), format!("{id} {country}"))
        }
        Body::Erasure(erasure) => {
            let phase = word("ErasurePhase", erasure.phase);
            (format!("erasure {phase}"), format!("{} {}", erasure.site, erasure.dataset))
        }
        Body::Holding(holding) => {
            ("holding".to_owned(), format!("{} {}", holding.site, holding.dataset))
        }
        Body::SourceStatus(status) => {
            let phase = word("SourcePhase", status.phase);
            (format!("source {phase}"), status.source.clone())
        }
        Body::ControlChange(change) => {
            let kind = word("ControlKind", change.kind);
            (format!("control {kind}"), change.target.clone())
        }
        Body::Finding(finding) => {
            let state = word("FindingState", finding.state);
            (format!("finding {state}"), finding.finding_id.clone())
        }
        Body::Redaction(redaction) => {
            let about = format!("{} to {}", redaction.first_index, redaction.last_index);
            ("redaction".to_owned(), about)
        }
        other => (kind(other).to_owned(), String::new()),
    }
}

fn failure(error: SelectError, ledger: Option<&VerifierKey>) -> Failure {
    match (error, ledger) {
        (SelectError::Caught(caught), Some(ledger)) => {
            Failure::Caught(caught, Box::new(ledger.clone()))
        }
        (other, _) => other.into(),
    }
}

fn parse(hit: &Hit) -> anyhow::Result<Entry<'_>> {
    let entry = Entry::parse(&hit.record.entry);
    let entry = entry.with_context(|| format!("the entry at index {} is malformed", hit.index))?;
    if entry.index != hit.index {
        return Err(anyhow!("the entry at index {} says {}", hit.index, entry.index));
    }
    Ok(entry)
}

/// Reads a word, or the number of a value.
fn number_or(
    word: fn(&str) -> Result<i32, String>,
) -> impl Fn(&str) -> Result<i32, String> + Clone + Send + Sync + 'static {
    move |text| text.parse().or_else(|_| word(text))
}

fn hex(text: &str) -> Result<Bytes, String> {
    let bytes = unhex(&text.replace('-', ""));
    bytes.map(Bytes::from).ok_or_else(|| format!("found {text:?}, expected hexadecimal digits"))
}

const COLUMNS: [&str; 7] = ["index", "recorded at", "source", "what", "actor", "tool", "about"];
