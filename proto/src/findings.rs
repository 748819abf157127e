//! What an auditor must look at: whatever the facts, the policy or a clock of the log object to.
//!
//! [`Findings`] is the fold over all entries of a log. It passes each on to the facts and the
//! policy ([`Authority`]) and makes a [`FindingRecord`] of
//!
//! - each rule that a performed access or a transfer breaks,
//! - each objection of the facts to an event that has no effect,
//! - a verdict that allowed what the policy of its place forbids, or that is not the ledger's,
//! - what did not happen in time (`timers.rs`), found by the first entry behind the deadline,
//! - what a source says of itself: that it lost events, that nobody vouched for it,
//! - events that are gone and that no redaction accounts for, once the log has ended.
//!
//! The same log gives the same findings in the same order, whoever folds it, however often the fold
//! was saved and restored in between.

use prost::Message as _;

use crate::{
    authority::{Authority, Judgement},
    error::SourceError,
    facts::{
        Facts, Noted,
        assess::{Beyond, IntentStatus},
        intents::intent_key,
        is_low_information,
        redactions::Erasable,
    },
    missing::{Missing, Stretch},
    position::Index,
    source::Name,
    wire::{
        self, AuthorizationDecision, BreakGlassPhase, ErasableOn, FindingFact, FindingRecord,
        FindingState, FindingsState, Outcome, SourcePhase, event::Body,
    },
};

pub mod rules;
mod timers;
mod told;

use self::{
    timers::{Intent, Lapse, Timers},
    told::{of_access, of_event},
};

/// The fold. Memory is that of the facts, and a little for each source with heartbeats, open
/// emergency and unanswered intent; some bits for each entry where events are missing.
#[derive(Clone, Debug)]
pub struct Findings {
    authority: Authority,
    timers: Timers,
    missing: Missing,
    /// The last entry that was taken.
    newest: Index,
}

/// What [`Findings::save`] gave does not belong to these facts, or is damaged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("saved state of the findings does not fit the facts")]
pub struct StateMismatch;

impl Findings {
    /// The fold of a log that holds only its entry 0, whose event this is.
    ///
    /// # Errors
    ///
    /// As [`Facts::from_genesis`].
    pub fn from_genesis(event: &[u8]) -> Result<Self, SourceError> {
        Ok(Self::new(Authority::new(Facts::from_genesis(event)?)))
    }

    /// Goes on from facts behind which nothing is due: those of a log without heartbeats, intents
    /// and emergencies so far. Otherwise [`Findings::restore`].
    #[must_use]
    pub fn new(authority: Authority) -> Self {
        let (timers, missing) = (Timers::default(), Missing::default());
        Self { authority, timers, missing, newest: Index::GENESIS }
    }

    /// Goes on from restored facts and what [`Findings::save`] gave at the same place of the log.
    ///
    /// # Errors
    ///
    /// [`StateMismatch`].
    pub fn restore(authority: Authority, saved: &[u8]) -> Result<Self, StateMismatch> {
        let saved = FindingsState::decode(saved).map_err(|_| StateMismatch)?;
        let facts = authority.facts();
        let timers = Timers::restore(facts.sources(), &saved.heard, saved.intents);
        let mut timers = timers.ok_or(StateMismatch)?;
        facts.break_glass().each(|id, row| {
            if row.reviewed_at == 0 && !row.overdue {
                timers.review(id, row.review_due);
            }
        });
        let mut missing = Missing::default();
        for stretch in saved.missing {
            let erasable = match stretch.erasable() {
                ErasableOn::Age => Erasable::ByAge,
                ErasableOn::Parties => Erasable::ByParties,
                ErasableOn::Nobody | ErasableOn::Unspecified => Erasable::Never,
            };
            missing.restore(Stretch {
                erasable,
                first: Index(stretch.first_index),
                last: Index(stretch.last_index),
                recorded_at: stretch.recorded_at,
            });
        }
        Ok(Self { authority, timers, missing, newest: Index(saved.newest) })
    }

    /// What must be kept beside the facts to go on from here: some bytes for each source with
    /// heartbeats and for each stretch of missing events, and the events of unanswered intents.
    #[must_use]
    pub fn save(&self) -> Vec<u8> {
        let missing = self.missing.iter().map(|stretch| wire::MissingEvents {
            first_index: stretch.first.0,
            last_index: stretch.last.0,
            recorded_at: stretch.recorded_at,
            erasable: i32::from(match stretch.erasable {
                Erasable::Never => ErasableOn::Nobody,
                Erasable::ByParties => ErasableOn::Parties,
                Erasable::ByAge => ErasableOn::Age,
            }),
        });
        let (heard, intents) = (self.timers.heard(), self.timers.intents());
        let (missing, newest) = (missing.collect(), self.newest.0);
        FindingsState { heard, intents, missing, newest }.encode_to_vec()
    }

    /// The facts and the policy as they stand.
    #[must_use]
    pub const fn authority(&self) -> &Authority {
        &self.authority
    }

    /// The same, to have the facts' changes saved and settled.
    #[must_use]
    pub const fn authority_mut(&mut self) -> &mut Authority {
        &mut self.authority
    }

    /// Takes the next entry with its event; what it brings to light is added to `found`. Entry 0
    /// changes nothing.
    ///
    /// The judgement of an access, performed or not, or of a transfer; `None` for other events.
    pub fn take(&mut self, noted: &Noted<'_>, found: &mut Vec<FindingRecord>) -> Option<Judgement> {
        let mut found = Found { index: noted.index, first: found.len(), list: found };
        self.pass(noted.index, noted.recorded_at, noted.source, &mut found);
        let judgement = match &noted.event.body {
            Some(Body::Access(_) | Body::Transfer(_)) => Some(self.authority.judge(noted)),
            Some(Body::Authorization(verdict)) => {
                self.take_verdict(noted, verdict, &mut found);
                None
            }
            _ => None,
        };
        if let Some(judgement) = judgement.as_ref().filter(|judgement| judgement.performed) {
            let rests_on_erased = self.rests_on_erased(noted, judgement);
            for rule in &judgement.rules {
                if rests_on_erased && **rule == *"BEYOND_VERDICT" {
                    continue;
                }
                let (related, facts) = of_access(rule, noted, judgement, self.authority.facts());
                found.push(rule, noted.index, judgement.time, related, facts);
            }
        }
        for objection in self.authority.apply(noted) {
            let mut facts = of_event(noted);
            facts.extend(objection.facts.into_iter().map(|(name, value)| fact(name, value)));
            let related = objection.related.into_iter().map(|index| index.0).collect();
            found.push(objection.rule, noted.index, noted.time(), related, facts);
        }
        self.note(noted, &mut found);
        judgement
    }

    /// Takes the next entry, whose event is gone.
    pub fn missing(
        &mut self,
        index: Index,
        recorded_at: u64,
        source: Name<'_>,
        found: &mut Vec<FindingRecord>,
    ) {
        let mut found = Found { index, first: found.len(), list: found };
        self.pass(index, recorded_at, source, &mut found);
        let erasable = Erasable::of(self.authority.facts().sources(), source, index);
        self.missing.miss(index, recorded_at, erasable);
    }

    /// What is found when the log ends here: events that no redaction accounts for. They are not
    /// found for good, for their record may follow.
    #[must_use]
    pub fn conclude(&self) -> Vec<FindingRecord> {
        let mut list = Vec::new();
        for (first, last, time) in self.missing.gaps() {
            let mut found = Found { index: self.newest, first: list.len(), list: &mut list };
            let facts = vec![fact("first", first), fact("last", last)];
            found.push("ERASED_WITHOUT_RECORD", first, time, Vec::new(), facts);
        }
        list
    }

    /// What humans made of a finding so far: UNSPECIFIED for open.
    #[must_use]
    pub fn state_of(&self, finding_id: &str) -> FindingState {
        let handling = self.authority.facts().handling().get(finding_id);
        handling.map_or(FindingState::Unspecified, |row| row.state())
    }

    /// Time passes, and a source is heard.
    fn pass(&mut self, index: Index, recorded_at: u64, source: Name<'_>, found: &mut Found<'_>) {
        if self.timers.is_due(recorded_at) {
            for lapse in self.timers.lapsed(recorded_at) {
                self.take_lapse(lapse, found);
            }
        }
        self.timers.hear(source, recorded_at, index);
        self.newest = index;
    }

    fn take_lapse(&mut self, lapse: Lapse, found: &mut Found<'_>) {
        match lapse {
            Lapse::Unanswered(index, intent) => {
                let noted = intent.noted(index);
                found.push("INTENT_UNANSWERED", index, noted.time(), Vec::new(), of_event(&noted));
            }
            Lapse::Silent { source, index, recorded_at, interval } => {
                let facts = vec![
                    fact("source", &source),
                    fact("promised_seconds", interval / NANOS),
                    fact("last_heard", index),
                ];
                found.push("SOURCE_SILENT", index, recorded_at, Vec::new(), facts);
            }
            Lapse::ReviewDue { break_glass_id, deadline } => {
                let row = self.authority.facts().break_glass().get(&break_glass_id);
                let Some(row) = row.filter(|row| row.reviewed_at == 0) else { return };
                let facts = vec![
                    fact("break_glass", &row.break_glass_id),
                    fact("incident", &row.incident),
                    fact("declared_by", &row.declared_by),
                    fact("accesses", row.accesses),
                    fact("records", row.records),
                ];
                let index = Index(row.index);
                self.authority.facts_mut().note_overdue(&break_glass_id, found.index);
                found.push("BREAK_GLASS_UNREVIEWED", index, deadline, Vec::new(), facts);
            }
        }
    }

    /// Only the ledger's own source gives verdicts, and an ALLOW must be what the policy says right
    /// before it. A denial harms nobody's data.
    fn take_verdict(
        &mut self,
        noted: &Noted<'_>,
        verdict: &wire::Authorization,
        found: &mut Found<'_>,
    ) {
        let facts = self.authority.facts();
        let is_foreign = noted.source.as_str() != facts.sources().ledger_source();
        let index = verdict.intent.as_ref().and_then(|intent| {
            intent
                .index
                .or_else(|| facts.intents().get(&intent_key(&intent.event_id)).map(|row| row.index))
        });
        let intent = match index {
            Some(index) if !is_foreign => self.timers.answered(Index(index)),
            _ => None,
        };
        if verdict.decision() == AuthorizationDecision::Deny {
            return;
        }
        let mut facts = of_event(noted);
        let related = index.into_iter().collect();
        let problem = match (intent, index) {
            _ if is_foreign => "not of the ledger".to_owned(),
            (Some(intent), Some(index)) => {
                let intent = intent.noted(Index(index));
                let due = self.authority.verdict(&intent);
                if due.decision() == AuthorizationDecision::Allow {
                    return;
                }
                facts.extend(of_event(&intent).into_iter().filter(|fact| fact.name != "source"));
                format!("denied by {}", due.rules.join(", "))
            }
            // What it answers cannot be judged any more; its record accounts for it, or is found.
            (None, Some(index)) if self.missing.contains(Index(index)) => return,
            _ => "no intent awaited it".to_owned(),
        };
        facts.push(fact("problem", problem));
        found.push("POLICY_VIOLATED", noted.index, noted.time(), related, facts);
    }

    /// What an event means for timers and missing events, and what it says of itself; after the
    /// facts have taken it.
    fn note(&mut self, noted: &Noted<'_>, found: &mut Found<'_>) {
        match &noted.event.body {
            Some(Body::Access(access)) if access.outcome() == Outcome::Requested => {
                self.timers.intend(noted.index, Intent::of(noted));
            }
            Some(Body::SourceStatus(status)) => self.note_status(noted, status, found),
            Some(Body::BreakGlass(phase)) if phase.phase() == BreakGlassPhase::Declared => {
                self.note_emergency(noted, phase, found);
            }
            Some(Body::Redaction(redaction)) => self.note_redaction(noted, redaction),
            _ => {}
        }
    }

    fn note_status(
        &mut self,
        noted: &Noted<'_>,
        status: &wire::SourceStatus,
        found: &mut Found<'_>,
    ) {
        let facts = self.authority.facts();
        let name = Name::parse(status.source.as_bytes()).ok();
        let Some(source) = name.and_then(|name| facts.sources().get(name)) else { return };
        let is_new = source.registered_at == noted.index;
        match status.phase() {
            SourcePhase::Registered if is_new => {
                let (index, at) = (noted.index, noted.recorded_at);
                self.timers.expect(&source.name, source.heartbeat_nanos, at, index);
                if source.self_enrolled {
                    let facts = vec![fact("source", &source.name)];
                    found.push("SOURCE_UNVETTED", index, noted.time(), Vec::new(), facts);
                }
            }
            SourcePhase::GapDeclared => {
                let mut facts = of_event(noted);
                facts.push(fact("dropped", status.dropped));
                facts.push(fact("reason", &status.reason));
                found.push("SOURCE_GAP", noted.index, noted.time(), Vec::new(), facts);
            }
            SourcePhase::Stopped => self.timers.stop(source.name.as_name()),
            SourcePhase::Decommissioned if source.decommissioned_at == Some(noted.index) => {
                self.timers.forget(source.name.as_name());
            }
            _ => {}
        }
    }

    fn note_emergency(
        &mut self,
        noted: &Noted<'_>,
        phase: &wire::BreakGlass,
        found: &mut Found<'_>,
    ) {
        let declared = self.authority.facts().break_glass().get(&phase.break_glass_id);
        if let Some(row) = declared.filter(|row| row.index == noted.index.0) {
            self.timers.review(&phase.break_glass_id, row.review_due);
        }
        if is_low_information(&phase.reason) {
            let mut facts = of_event(noted);
            facts.push(fact("break_glass", &phase.break_glass_id));
            facts.push(fact("reason", &phase.reason));
            let rule = "LOW_INFORMATION_JUSTIFICATION";
            found.push(rule, noted.index, noted.time(), Vec::new(), facts);
        }
    }

    /// To what is no lawful redaction the facts have objected.
    fn note_redaction(&mut self, noted: &Noted<'_>, redaction: &wire::Redaction) {
        if let Ok(erasing) = self.authority.facts().judge_redaction(noted, redaction) {
            self.missing.account(&erasing);
        }
    }

    /// Whether an access carries out an intent that is gone: nobody can tell any more whether it
    /// went beyond the verdict on it.
    fn rests_on_erased(&self, noted: &Noted<'_>, judgement: &Judgement) -> bool {
        let Some(Body::Access(access)) = &noted.event.body else { return false };
        let intent = access.intent.as_ref().and_then(|intent| intent.index);
        judgement.assessed.intent == IntentStatus::Beyond(Beyond::Unknown)
            && intent.is_some_and(|index| self.missing.contains(Index(index)))
    }
}

/// What one entry brings to light.
struct Found<'a> {
    /// The entry.
    index: Index,
    /// Its first finding in the list.
    first: usize,
    list: &'a mut Vec<FindingRecord>,
}

impl Found<'_> {
    fn push(
        &mut self,
        rule: &str,
        index: Index,
        time: u64,
        related: Vec<u64>,
        facts: Vec<FindingFact>,
    ) {
        let before = self.list.get(self.first..).unwrap_or_default();
        let same = before.iter().filter(|one| one.rule == rule && one.index == index.0).count();
        let finding_id = match same {
            0 => format!("{rule}-{index}"),
            more => format!("{rule}-{index}-{more}"),
        };
        let mut told: Vec<FindingFact> = Vec::with_capacity(facts.len());
        for fact in facts {
            let is_known = told.iter().any(|before| before.name == fact.name);
            if !fact.value.is_empty() && !is_known {
                told.push(fact);
            }
        }
        self.list.push(FindingRecord {
            finding_id,
            rule: rule.to_owned(),
            severity: rules::severity(rule).into(),
            index: index.0,
            related,
            found_index: self.index.0,
            time,
            facts: told,
            state: FindingState::Unspecified.into(),
        });
    }
}

/// A named fact. One without a value is left out of the finding, as is a second one of its name.
fn fact(name: &str, value: impl ToString) -> FindingFact {
    FindingFact { name: name.to_owned(), value: value.to_string() }
}

/// Nanoseconds in a second.
const NANOS: u64 = 1_000_000_000;
