//! Which events may be erased, and on whose word.
//!
//! An event's bytes may go, its entry stays. A [`wire::Redaction`] is the record of it, and stands
//! behind what it erases. It is lawful in two ways:
//!
//! - **Both parties** of the governance have signed it: the source that seals it counts as one, the
//!   others sign the message below.
//! - It is a **run of the retention**: both parties have signed, once, how old events get
//!   (`ControlChange` of kind RETENTION); the ledger's own source records each run.
//!
//! ```text
//! access-ledger/redaction/v1\n
//! <origin>\n
//! <first index, decimal>\n
//! <last index, decimal>\n
//! <legal basis>\n
//! ```
//!
//! What a redaction erases must be plain to an auditor who never saw the bytes. So it is told from
//! entries alone: from who sealed an event, and when it was recorded.
//!
//! | the source's roles | erased by both parties | by the retention |
//! |---|---|---|
//! | GOVERN | never | never |
//! | RECORD and nothing else | yes | once old enough |
//! | any others, and the ledger's own source | yes | never |
//!
//! The ledger, which has the bytes, keeps more: no redaction that it takes covers a registration,
//! a change of the rules or another redaction, and a run of the retention erases only accesses,
//! transfers and attestations, for nothing else in the log rests on those ([`expires`]).

use std::ops::RangeInclusive;

use super::{
    Facts, Noted, Objection,
    control::{PARTIES_MIN, parties},
    sources::{Roles, Sources},
};
use crate::{
    error::{Kept, RedactionError},
    event::Body,
    position::Index,
    source::Name,
    wire::{self, SourceRole},
};

/// The text that both parties sign for a redaction, in the ledger of this origin.
#[must_use]
pub fn redaction_message(origin: &str, redaction: &wire::Redaction) -> String {
    let wire::Redaction { first_index, last_index, legal_basis, .. } = redaction;
    format!("access-ledger/redaction/v1\n{origin}\n{first_index}\n{last_index}\n{legal_basis}\n")
}

/// On whose word an event may be erased, as far as its entry tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Erasable {
    /// On nobody's.
    Never,
    /// On that of both parties.
    ByParties,
    /// On that of both parties, or by the retention once it is old enough.
    ByAge,
}

impl Erasable {
    /// Of the event at `index`, by the source of this name: what counts are its roles of then.
    #[must_use]
    pub fn of(sources: &Sources, name: Name<'_>, index: Index) -> Self {
        let Some(source) = sources.get(name) else { return Self::Never };
        match *source.roles.at(index) {
            roles if roles.contains(SourceRole::Govern) => Self::Never,
            // What the ledger itself records belongs to the others' events.
            _ if name.as_str() == sources.ledger_source() => Self::ByParties,
            Roles::RECORDER => Self::ByAge,
            _ => Self::ByParties,
        }
    }
}

/// How old events get: what the newest lawful `ControlChange` of kind RETENTION says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Retention {
    /// The change's place, which runs name.
    pub index: Index,
    /// The change's revision.
    pub revision: u64,
    /// Age in nanoseconds; 0: nothing expires.
    pub max_age_nanos: u64,
    /// Why, for runs to repeat.
    pub legal_basis: String,
}

impl Retention {
    /// Events recorded before this time have expired for a run that is recorded at `now`: both in
    /// nanoseconds since the Unix epoch. Whole hours, so that whoever missed the events need not
    /// remember the time of each. 0 when nothing expires.
    #[must_use]
    pub const fn expired_before(&self, now: u64) -> u64 {
        if self.max_age_nanos == 0 {
            return 0;
        }
        let limit = now.saturating_sub(self.max_age_nanos);
        limit - limit % EXPIRY_STEP_NANOS
    }
}

/// A redaction that was found lawful: what it erases. Only [`judge`] makes one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Erasing {
    first: Index,
    last: Index,
    /// Of a run of the retention: what was recorded before.
    before: Option<u64>,
}

impl Erasing {
    /// From the first index to the last, both included: not empty.
    #[must_use]
    pub const fn range(&self) -> RangeInclusive<u64> {
        self.first.0..=self.last.0
    }

    /// Whether it is a run of the retention.
    #[must_use]
    pub const fn is_run(&self) -> bool {
        self.before.is_some()
    }

    /// Whether it erases the events of its range that were recorded at this time, by a source of
    /// this kind.
    #[must_use]
    pub fn covers(&self, recorded_at: u64, erasable: Erasable) -> bool {
        match (erasable, self.before) {
            (Erasable::Never, _) | (Erasable::ByParties, Some(_)) => false,
            (Erasable::ByParties | Erasable::ByAge, None) => true,
            (Erasable::ByAge, Some(before)) => recorded_at < before,
        }
    }

    /// Whether it erases this event of its range, whose bytes are at hand.
    #[must_use]
    pub fn erases(&self, recorded_at: u64, erasable: Erasable, body: Option<Body<'_>>) -> bool {
        let is_kept = match body {
            Some(body) if self.is_run() => !expires(body),
            Some(body) => kept_name(body).is_some(),
            // Nobody knows what it says, so nothing rests on it.
            None => self.is_run(),
        };
        !is_kept && self.covers(recorded_at, erasable)
    }
}

/// Judges a redaction that `sealer` has sealed at `index`, with the sources and the retention as
/// they stand right before it.
///
/// # Errors
///
/// [`RedactionError`]: the first that applies, in the order of the enum's variants.
pub fn judge(
    sources: &Sources,
    retention: Option<&Retention>,
    (index, recorded_at): (Index, u64),
    sealer: Name<'_>,
    redaction: &wire::Redaction,
) -> Result<Erasing, RedactionError> {
    let (first, last) = (Index(redaction.first_index), Index(redaction.last_index));
    if first > last {
        return Err(RedactionError::Empty { first, last });
    }
    if last >= index {
        return Err(RedactionError::Beyond { last, index });
    }
    if redaction.retention_index == 0 {
        let message = redaction_message(&sources.genesis().origin, redaction);
        let found = parties(sources, sealer, &message, &redaction.approvals).len();
        if found < PARTIES_MIN {
            return Err(RedactionError::Alone { found });
        }
        return Ok(Erasing { first, last, before: None });
    }
    if sealer.as_str() != sources.ledger_source() {
        return Err(RedactionError::Sealer { name: sealer.to_owned() });
    }
    let found = Index(redaction.retention_index);
    let in_force = retention.filter(|retention| retention.max_age_nanos > 0);
    match in_force {
        Some(retention)
            if retention.index == found && retention.legal_basis == redaction.legal_basis =>
        {
            let before = Some(retention.expired_before(recorded_at));
            Ok(Erasing { first, last, before })
        }
        _ => {
            let wanted = in_force.map(|retention| retention.index);
            Err(RedactionError::Retention { found, wanted })
        }
    }
}

/// That both parties together may have an event erased.
///
/// # Errors
///
/// [`Kept`]: why not.
pub fn check_erasable(
    index: Index,
    erasable: Erasable,
    body: Option<Body<'_>>,
) -> Result<(), Kept> {
    if index == Index::GENESIS {
        return Err(Kept::Genesis);
    }
    if let Some(body) = body.and_then(kept_name) {
        return Err(Kept::Body { body });
    }
    if erasable == Erasable::Never { Err(Kept::Governance) } else { Ok(()) }
}

/// Whether the retention erases events with this body: those that nothing else in the log rests on.
#[must_use]
pub const fn expires(body: Body<'_>) -> bool {
    matches!(body.number, Body::ACCESS | Body::TRANSFER | Body::ATTESTATION)
}

/// The name of a body that is never erased: it says who may seal what, or what was erased.
const fn kept_name(body: Body<'_>) -> Option<&'static str> {
    match body.number {
        Body::SOURCE_STATUS => Some("SourceStatus"),
        Body::CONTROL_CHANGE => Some("ControlChange"),
        Body::REDACTION => Some("Redaction"),
        _ => None,
    }
}

impl Facts {
    /// The retention in force; `None` when there never was one.
    #[must_use]
    pub const fn retention(&self) -> Option<&Retention> {
        self.retention.as_ref()
    }

    /// Judges a redaction by what comes before it.
    ///
    /// # Errors
    ///
    /// As [`judge`].
    pub fn judge_redaction(
        &self,
        noted: &Noted<'_>,
        redaction: &wire::Redaction,
    ) -> Result<Erasing, RedactionError> {
        let place = (noted.index, noted.recorded_at);
        judge(&self.sources, self.retention(), place, noted.source, redaction)
    }

    pub(super) fn take_redaction(
        &self,
        noted: &Noted<'_>,
        redaction: &wire::Redaction,
    ) -> Vec<Objection> {
        let judged = self.judge_redaction(noted, redaction);
        judged.err().map(|error| error.objection(redaction)).into_iter().collect()
    }
}

impl RedactionError {
    /// The rule of the finding that such a redaction is.
    #[must_use]
    pub const fn rule(&self) -> &'static str {
        match self {
            Self::Alone { .. } => "CONTROL_CHANGED_ALONE",
            _ => "CONTROL_INVALID",
        }
    }

    fn objection(&self, redaction: &wire::Redaction) -> Objection {
        let facts = vec![
            ("kind", "REDACTION".to_owned()),
            ("first", redaction.first_index.to_string()),
            ("last", redaction.last_index.to_string()),
            ("problem", self.to_string()),
        ];
        Objection::new(self.rule(), facts)
    }
}

/// Events expire by the hour in which they were recorded.
pub const EXPIRY_STEP_NANOS: u64 = super::HOUR_NANOS;

/// No retention is shorter: an intent stays open for a day, and what is carried out by then must
/// find it.
pub const RETENTION_NANOS_MIN: u64 = 24 * super::HOUR_NANOS;

#[cfg(test)]
pub(crate) mod testing {
    //! Redactions that nobody judged, for tests of what follows from lawful ones.

    use super::{Erasing, Index};

    pub(crate) fn erasing(first: u64, last: u64, before: Option<u64>) -> Erasing {
        Erasing { first: Index(first), last: Index(last), before }
    }
}

#[cfg(test)]
mod tests;
