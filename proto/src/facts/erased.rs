//! Which redaction erased an event: told from the redactions of a log, for whoever holds them.

use prost::Message as _;

use super::{
    control::retention_after,
    redactions::{Erasable, Erasing, Retention, judge},
    sources::Sources,
};
use crate::{
    event::Body,
    position::Index,
    source::Name,
    wire::{ControlChange, Redaction},
};

/// The lawful redactions of a log, as far as they were taken up. Memory grows with their number.
#[derive(Debug, Default)]
pub struct Redactions {
    retention: Option<Retention>,
    /// In the order of the log.
    lawful: Vec<Lawful>,
}

#[derive(Debug)]
struct Lawful {
    index: Index,
    erasing: Erasing,
    legal_basis: String,
}

impl Redactions {
    /// Whether an event with this body matters to [`Redactions::take`]: a change of the rules, or a
    /// redaction.
    #[must_use]
    pub const fn concerns(body: Body<'_>) -> bool {
        matches!(body.number, Body::CONTROL_CHANGE | Body::REDACTION)
    }

    /// Takes up the event at `index`, recorded at this time, of this source; events in their order,
    /// those that [`Redactions::concerns`] at least. `sources` are those of the log up to there, or
    /// up to any later place. What is not lawful erases nothing.
    pub fn take(
        &mut self,
        sources: &Sources,
        (index, recorded_at): (Index, u64),
        sealer: Name<'_>,
        body: Body<'_>,
    ) {
        if body.number == Body::CONTROL_CHANGE {
            let Ok(change) = ControlChange::decode(body.bytes) else { return };
            let in_force = self.retention.as_ref();
            let after = retention_after(&sources.before(index), in_force, (sealer, index), &change);
            self.retention = after.or_else(|| self.retention.take());
        } else if body.number == Body::REDACTION {
            let Ok(redaction) = Redaction::decode(body.bytes) else { return };
            let (sources, in_force) = (sources.before(index), self.retention.as_ref());
            let judged = judge(&sources, in_force, (index, recorded_at), sealer, &redaction);
            let legal_basis = redaction.legal_basis;
            self.lawful.extend(judged.ok().map(|erasing| Lawful { index, erasing, legal_basis }));
        }
    }

    /// The first redaction that covers the event at `index`, recorded at this time by a source of
    /// this kind, and its legal basis. An event that is gone is gone by this one.
    #[must_use]
    pub fn of(&self, index: Index, recorded_at: u64, erasable: Erasable) -> Option<(Index, &str)> {
        let covers = |lawful: &&Lawful| {
            let Lawful { erasing, .. } = lawful;
            erasing.range().contains(&index.0) && erasing.covers(recorded_at, erasable)
        };
        self.lawful.iter().find(covers).map(|lawful| (lawful.index, lawful.legal_basis.as_str()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::facts::redactions::testing::erasing;

    #[test]
    fn the_first_lawful_redaction_that_covers_an_event_erased_it() {
        let lawful = |index, first, last, before, basis: &str| Lawful {
            index: Index(index),
            erasing: erasing(first, last, before),
            legal_basis: basis.to_owned(),
        };
        let lawful = vec![
            lawful(20, 4, 9, Some(100), "by age"),
            lawful(30, 8, 12, None, "by both"),
            lawful(40, 0, 39, None, "later"),
        ];
        let redactions = Redactions { lawful, ..Redactions::default() };
        let by = |index, time, erasable| redactions.of(Index(index), time, erasable);
        assert_eq!(by(8, 99, Erasable::ByAge), Some((Index(20), "by age")));
        assert_eq!(by(8, 100, Erasable::ByAge), Some((Index(30), "by both")), "it was too young");
        assert_eq!(by(9, 99, Erasable::ByParties), Some((Index(30), "by both")));
        assert_eq!(by(13, 99, Erasable::ByAge), Some((Index(40), "later")));
        assert_eq!(by(8, 99, Erasable::Never), None);
        assert_eq!(by(40, 99, Erasable::ByAge), None);
    }
}
