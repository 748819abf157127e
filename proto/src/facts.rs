//! What follows from the log alone: folds over its entries, the same code in server, custodian and
//! auditor.
//!
//! [`Facts`] is the fold that grants, emergencies, legal requests, erasures, intents and the rules
//! of governance come out of. Every event that changes one of them is applied
//! ([`Facts::apply`]), in the order of the log; what an access or a transfer may rest on is told
//! by [`Facts::assess`] with the facts before it. What the facts mean is for the policy to say.
//!
//! An event may be recorded though it has no effect: it is in the log for good, and what is wrong
//! with it is an [`Objection`], from which a finding is made.

pub mod assess;
pub mod control;
pub mod emergencies;
pub mod erased;
mod erasures;
mod grants;
pub mod intents;
mod justification;
mod legal;
pub mod redactions;
pub mod requests;
mod rows;
pub mod scope;
pub mod sequences;
pub mod sources;

use std::{collections::BTreeSet, sync::Arc};

use self::{
    control::Catalogue,
    redactions::Retention,
    sources::{Source, Sources},
};
pub use self::{
    justification::is_low_information,
    rows::{Archive, ROWS_HOT_MAX, Rows, Table},
};
use crate::{
    error::SourceError,
    event::{self, Body, WireValue},
    position::Index,
    source::Name,
    wire::{self, Outcome, SourceRole, event::Body as EventBody},
};

/// How long before its recording an event may have happened and still be believed: one day. A spool
/// may fail to reach its ledger for a night; who backdates further is not believed.
pub const LATE_NANOS_MAX: u64 = 24 * HOUR_NANOS;

const HOUR_NANOS: u64 = 3_600_000_000_000;

/// An entry with its decoded event.
#[derive(Clone, Copy, Debug)]
pub struct Noted<'a> {
    /// Its place.
    pub index: Index,
    /// When the ledger recorded it: nanoseconds since the Unix epoch.
    pub recorded_at: u64,
    /// Who sealed it.
    pub source: Name<'a>,
    /// The event.
    pub event: &'a wire::Event,
}

impl Noted<'_> {
    /// When it happened: what the source says, unless that lies after the recording or more than
    /// [`LATE_NANOS_MAX`] before it; then the recording's. Nanoseconds since the Unix epoch.
    #[must_use]
    pub fn time(&self) -> u64 {
        let occurred_at = self.event.occurred_at.as_ref().map_or(0, event::nanos_of);
        let earliest = self.recorded_at.saturating_sub(LATE_NANOS_MAX);
        if (earliest..=self.recorded_at).contains(&occurred_at) {
            occurred_at
        } else {
            self.recorded_at
        }
    }

    /// The id of the person who acts; empty when the event names none.
    #[must_use]
    pub fn actor(&self) -> &str {
        self.event.actor.as_ref().map_or("", |actor| &actor.id)
    }
}

/// Why an event that is in the log has no effect, or should not be there: what a finding is made
/// of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Objection {
    /// The finding's rule.
    pub rule: &'static str,
    /// Other entries that it rests on.
    pub related: Vec<Index>,
    /// Named facts.
    pub facts: Vec<(&'static str, String)>,
}

impl Objection {
    fn new(rule: &'static str, facts: Vec<(&'static str, String)>) -> Self {
        Self { rule, related: Vec::new(), facts }
    }

    fn because_of(mut self, index: u64) -> Self {
        self.related.push(Index(index));
        self
    }
}

/// The policy in force: its text; what it means is for `policy.rs`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyFacts {
    /// Cedar.
    pub text: Arc<str>,
    /// 1 for that of the genesis.
    pub revision: u64,
    /// The entry that brought it.
    pub index: Index,
}

/// What follows from the log up to some entry.
#[derive(Clone, Debug)]
pub struct Facts {
    sources: Sources,
    policy: PolicyFacts,
    catalogue: Catalogue,
    retention: Option<Retention>,
    requests: Rows<wire::RequestFacts>,
    grants: Rows<wire::GrantFacts>,
    break_glass: Rows<wire::BreakGlassFacts>,
    legal: Rows<wire::LegalFacts>,
    erasures: Rows<wire::ErasureFacts>,
    erased: Rows<wire::ErasedFacts>,
    holdings: Rows<wire::HoldingFacts>,
    intents: Rows<wire::IntentFacts>,
    controls: Rows<wire::ControlFacts>,
    handling: Rows<wire::HandlingFacts>,
    /// Time and event id of the open intents, to forget them in time.
    open_intents: BTreeSet<(u64, [u8; 16])>,
}

impl Facts {
    /// The facts of a log that holds only its entry 0, whose event this is.
    ///
    /// # Errors
    ///
    /// As [`Sources::from_genesis`].
    pub fn from_genesis(event: &[u8]) -> Result<Self, SourceError> {
        let sources = Sources::from_genesis(event)?;
        let text = sources.genesis().policy.as_str().into();
        Ok(Self {
            sources,
            policy: PolicyFacts { text, revision: 1, index: Index::GENESIS },
            catalogue: Catalogue::default(),
            retention: None,
            requests: Rows::new(Table::Requests),
            grants: Rows::new(Table::Grants),
            break_glass: Rows::new(Table::BreakGlass),
            legal: Rows::new(Table::Legal),
            erasures: Rows::new(Table::Erasures),
            erased: Rows::new(Table::Erased),
            holdings: Rows::new(Table::Holdings),
            intents: Rows::new(Table::Intents),
            controls: Rows::new(Table::Controls),
            handling: Rows::new(Table::Handling),
            open_intents: BTreeSet::new(),
        })
    }

    /// Takes rows that are not in memory from an archive, from now on, and from it at once what
    /// must be in memory. See [`Archive`] for what it may hold.
    #[must_use]
    pub fn with_archive(mut self, archive: &Arc<dyn Archive>) -> Self {
        self.requests.attach(archive);
        self.grants.attach(archive);
        self.break_glass.attach(archive);
        self.legal.attach(archive);
        self.erasures.attach(archive);
        self.erased.attach(archive);
        self.holdings.attach(archive);
        self.intents.attach(archive);
        self.controls.attach(archive);
        self.handling.attach(archive);
        self.enforce_saved();
        self.find_open_intents();
        self
    }

    /// Takes rows that are not in memory from another archive from now on, which holds what the one
    /// before did.
    pub fn rest_on(&mut self, archive: &Arc<dyn Archive>) {
        self.requests.rest_on(archive);
        self.grants.rest_on(archive);
        self.break_glass.rest_on(archive);
        self.legal.rest_on(archive);
        self.erasures.rest_on(archive);
        self.erased.rest_on(archive);
        self.holdings.rest_on(archive);
        self.intents.rest_on(archive);
        self.controls.rest_on(archive);
        self.handling.rest_on(archive);
    }

    /// The facts as they were saved: `archive` holds their changes, `sources` the registered
    /// sources ([`Sources::iter`]), both of the same place of the log.
    ///
    /// # Errors
    ///
    /// As [`Facts::from_genesis`].
    pub fn restore(
        genesis: &[u8],
        sources: impl IntoIterator<Item = Source>,
        archive: &Arc<dyn Archive>,
    ) -> Result<Self, SourceError> {
        let mut facts = Self::from_genesis(genesis)?;
        facts.sources.restore(sources);
        Ok(facts.with_archive(archive))
    }

    /// Whether an event with this body may change what [`Facts::assess`] says of later ones, or
    /// have an objection. Told from the encoded bytes, without allocating: of accesses, only those
    /// that are an intent or name a grant, an intent or an emergency.
    ///
    /// What does not concern the facts need not be applied, except by who wants
    /// [`ErasureFacts::accesses_after`](wire::ErasureFacts) counted.
    #[must_use]
    pub fn concerns(body: Body<'_>) -> bool {
        match body.number {
            Body::ACCESS => access_concerns(body.bytes),
            Body::TRANSFER | Body::ATTESTATION | Body::LEDGER_READ => false,
            _ => true,
        }
    }

    /// Moves past an entry: of a verified log, after all that come before it.
    pub fn apply(&mut self, noted: &Noted<'_>) -> Vec<Objection> {
        let Some(body) = &noted.event.body else { return Vec::new() };
        match body {
            EventBody::Access(access) => self.take_access(noted, access),
            EventBody::Authorization(verdict) => self.take_verdict(noted, verdict),
            EventBody::AccessRequest(request) => return self.take_request(noted, request),
            EventBody::Decision(decision) => return self.take_decision(noted, decision),
            EventBody::GrantChange(change) => return self.take_grant_change(noted, change),
            EventBody::BreakGlass(phase) => return self.take_break_glass(noted, phase),
            EventBody::LegalRequest(phase) => self.take_legal_request(noted, phase),
            EventBody::Erasure(phase) => self.take_erasure(noted, phase),
            EventBody::Holding(holding) => self.take_holding(noted, holding),
            EventBody::SourceStatus(status) => self.sources.take(noted.source, noted.index, status),
            EventBody::ControlChange(change) => return self.take_control(noted, change),
            EventBody::Finding(finding) => return self.take_handling(noted, finding),
            EventBody::Redaction(redaction) => return self.take_redaction(noted, redaction),
            EventBody::Transfer(_) | EventBody::Attestation(_) | EventBody::LedgerRead(_) => {}
        }
        Vec::new()
    }

    /// The rows that were changed and not saved since ([`Facts::settle`]): table, key, and the
    /// encoded row or `None` for one that is no more. An archive that carries them out holds all
    /// that [`Facts::restore`] needs but the sources.
    pub fn changes(&self) -> impl Iterator<Item = (Table, &str, Option<Vec<u8>>)> {
        fn of<T: prost::Message + Default + Clone>(
            rows: &Rows<T>,
        ) -> impl Iterator<Item = (Table, &str, Option<Vec<u8>>)> {
            rows.changes().map(|(key, row)| (rows.table(), key, row))
        }
        of(&self.requests)
            .chain(of(&self.grants))
            .chain(of(&self.break_glass))
            .chain(of(&self.legal))
            .chain(of(&self.erasures))
            .chain(of(&self.erased))
            .chain(of(&self.holdings))
            .chain(of(&self.intents))
            .chain(of(&self.controls))
            .chain(of(&self.handling))
    }

    /// Says that the archive holds all changes up to and with the entry `saved_up_to`. Of what was
    /// saved, at most [`ROWS_HOT_MAX`] rows a table stay in memory.
    pub fn settle(&mut self, saved_up_to: Index) {
        self.requests.settle(saved_up_to);
        self.grants.settle(saved_up_to);
        self.break_glass.settle(saved_up_to);
        self.legal.settle(saved_up_to);
        self.erasures.settle(saved_up_to);
        self.erased.settle(saved_up_to);
        self.holdings.settle(saved_up_to);
        self.intents.settle(saved_up_to);
        self.controls.settle(saved_up_to);
        self.handling.settle(saved_up_to);
    }

    /// The sources.
    #[must_use]
    pub const fn sources(&self) -> &Sources {
        &self.sources
    }

    /// The policy in force.
    #[must_use]
    pub const fn policy(&self) -> &PolicyFacts {
        &self.policy
    }

    /// The registered datasets, tools, sites and custodians.
    #[must_use]
    pub const fn catalogue(&self) -> &Catalogue {
        &self.catalogue
    }

    /// Requests by their id.
    #[must_use]
    pub const fn requests(&self) -> &Rows<wire::RequestFacts> {
        &self.requests
    }

    /// Grants by their id.
    #[must_use]
    pub const fn grants(&self) -> &Rows<wire::GrantFacts> {
        &self.grants
    }

    /// Emergencies by their id.
    #[must_use]
    pub const fn break_glass(&self) -> &Rows<wire::BreakGlassFacts> {
        &self.break_glass
    }

    /// Authorities' requests by their id.
    #[must_use]
    pub const fn legal(&self) -> &Rows<wire::LegalFacts> {
        &self.legal
    }

    /// Erasure jobs by their id.
    #[must_use]
    pub const fn erasures(&self) -> &Rows<wire::ErasureFacts> {
        &self.erasures
    }

    /// Holdings by `<site>\n<dataset>`.
    #[must_use]
    pub const fn holdings(&self) -> &Rows<wire::HoldingFacts> {
        &self.holdings
    }

    /// Open intents by event id, in lower-case hex.
    #[must_use]
    pub const fn intents(&self) -> &Rows<wire::IntentFacts> {
        &self.intents
    }

    /// The rules that governance changed, by `<kind>\n<target>`.
    #[must_use]
    pub const fn controls(&self) -> &Rows<wire::ControlFacts> {
        &self.controls
    }

    /// What humans made of findings, by finding id.
    #[must_use]
    pub const fn handling(&self) -> &Rows<wire::HandlingFacts> {
        &self.handling
    }

    /// Whether the source that sealed an entry has a role.
    fn has_role(&self, noted: &Noted<'_>, role: SourceRole) -> bool {
        self.sources.get(noted.source).is_some_and(|source| source.roles.now().contains(role))
    }

    /// A finding is handled by who may answer requests or change the rules.
    fn take_handling(&mut self, noted: &Noted<'_>, finding: &wire::Finding) -> Vec<Objection> {
        if !self.has_role(noted, SourceRole::Approve) && !self.has_role(noted, SourceRole::Govern) {
            return vec![not_authorized(noted).with("finding", &finding.finding_id)];
        }
        let row = wire::HandlingFacts {
            state: finding.state,
            index: noted.index.0,
            by: noted.source.as_str().to_owned(),
            note: finding.note.clone(),
        };
        self.handling.insert(&finding.finding_id, noted.index, row);
        Vec::new()
    }
}

impl Objection {
    fn with(mut self, name: &'static str, value: &str) -> Self {
        self.facts.push((name, value.to_owned()));
        self
    }
}

/// The sealer lacks the role that the event takes.
fn not_authorized(noted: &Noted<'_>) -> Objection {
    let source = noted.source.as_str().to_owned();
    Objection::new("APPROVER_NOT_AUTHORIZED", vec![("source", source)])
}

/// Whether data was touched: as the access says, or as it says in a way that this version does not
/// know.
#[must_use]
pub fn is_performed(access: &wire::Access) -> bool {
    !matches!(
        Outcome::try_from(access.outcome),
        Ok(Outcome::Requested | Outcome::Denied | Outcome::Error)
    )
}

/// How many records an access or a transfer touched: as it says in all, or of its data one by one.
#[must_use]
pub fn records_of(total: u64, data: &[wire::Data]) -> u64 {
    total.max(data.iter().fold(0, |sum, data| sum.saturating_add(data.records)))
}

/// Whether an encoded `Access` is an intent, or names a grant, an intent or an emergency.
fn access_concerns(bytes: &[u8]) -> bool {
    const GRANT_ID: u32 = 5;
    const OUTCOME: u32 = 7;
    const INTENT: u32 = 13;
    const BREAK_GLASS_ID: u32 = 14;
    let mut rest = bytes;
    loop {
        match event::next_field(&mut rest) {
            Ok(Some(field)) => match (field.number, field.value) {
                (GRANT_ID | BREAK_GLASS_ID, WireValue::Bytes(id)) if !id.is_empty() => return true,
                (INTENT, _) => return true,
                (OUTCOME, WireValue::Varint(1)) => return true,
                _ => {}
            },
            Ok(None) => return false,
            // Whoever decodes it finds out.
            Err(_) => return true,
        }
    }
}

#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
