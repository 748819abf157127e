//! What must happen before a certain time of the log: a source must be heard, an emergency
//! reviewed, an intent answered.
//!
//! Time is that of the entries (`recorded_at`), so whoever reads the same log sees the same lapses,
//! at the same entries. A plain entry costs one look at the earliest deadline and, where sources
//! promised heartbeats, one at its source: a source's deadline is not moved with every entry but
//! only when it comes, to where the last entry has put it.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    facts::{Noted, sources::Sources},
    position::Index,
    source::{Name, SourceName},
    wire::{Event, HeardState, PendingIntent},
};

/// Deadlines, and what they are about. Memory grows with the sources that promised heartbeats, with
/// the open emergencies, and with the intents of the last [`ANSWER_NANOS_MAX`], of which there are
/// at most [`INTENTS_MAX`].
#[derive(Clone, Debug, Default)]
pub(super) struct Timers {
    due: BTreeSet<(u64, Timer)>,
    heard: BTreeMap<SourceName, Heard>,
    intents: BTreeMap<Index, Intent>,
}

/// What a deadline is about; equal deadlines lapse in this order.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Timer {
    Intent(Index),
    BreakGlass(String),
    Source(SourceName),
}

/// When a source that promised heartbeats was last heard.
#[derive(Clone, Copy, Debug)]
struct Heard {
    /// Nanoseconds that it may be silent for.
    interval: u64,
    recorded_at: u64,
    index: Index,
    /// Its deadline in `due`, which its newer entries do not move; none while it is known to be
    /// silent, or said that it stops.
    armed: Option<u64>,
}

/// An intended access that awaits the ledger's verdict.
#[derive(Clone, Debug)]
pub(super) struct Intent {
    recorded_at: u64,
    source: SourceName,
    /// As it was recorded: the verdict is judged by it.
    event: Event,
}

/// A deadline that has passed.
#[derive(Clone, Debug)]
#[expect(clippy::large_enum_variant, reason = "few are ever held, and not for long")]
pub(super) enum Lapse {
    /// No verdict on the intent at this index.
    Unanswered(Index, Intent),
    /// The emergency of this id was to be reviewed by then, unless it was.
    ReviewDue { break_glass_id: String, deadline: u64 },
    /// Not heard since the entry at `index`.
    Silent { source: SourceName, index: Index, recorded_at: u64, interval: u64 },
}

impl Timers {
    /// Whether anything may have lapsed before the time `now`.
    pub(super) fn is_due(&self, now: u64) -> bool {
        self.due.first().is_some_and(|(deadline, _)| *deadline < now)
            || self.intents.len() > INTENTS_MAX
    }

    /// What has lapsed before the time `now`, in the order of the deadlines.
    pub(super) fn lapsed(&mut self, now: u64) -> Vec<Lapse> {
        let mut lapsed = Vec::new();
        while let Some((deadline, _)) = self.due.first()
            && *deadline < now
            && let Some((deadline, timer)) = self.due.pop_first()
        {
            self.lapse(now, deadline, timer, &mut lapsed);
        }
        while self.intents.len() > INTENTS_MAX
            && let Some((index, intent)) = self.intents.pop_first()
        {
            self.due.remove(&(intent.deadline(), Timer::Intent(index)));
            lapsed.push((now, Timer::Intent(index), Lapse::Unanswered(index, intent)));
        }
        // Deadlines of sources move late, so they come out of order.
        lapsed.sort_by(|one, other| (one.0, &one.1).cmp(&(other.0, &other.1)));
        lapsed.into_iter().map(|(_, _, lapse)| lapse).collect()
    }

    fn lapse(
        &mut self,
        now: u64,
        deadline: u64,
        timer: Timer,
        lapsed: &mut Vec<(u64, Timer, Lapse)>,
    ) {
        let lapse = match &timer {
            Timer::Intent(index) => {
                let Some(intent) = self.intents.remove(index) else { return };
                Lapse::Unanswered(*index, intent)
            }
            Timer::BreakGlass(id) => Lapse::ReviewDue { break_glass_id: id.clone(), deadline },
            Timer::Source(name) => {
                let Some(heard) = self.heard.get_mut(name) else { return };
                let deadline = heard.deadline();
                if deadline >= now {
                    heard.armed = Some(deadline);
                    self.due.insert((deadline, timer));
                    return;
                }
                heard.armed = None;
                let Heard { interval, recorded_at, index, .. } = *heard;
                let lapse = Lapse::Silent { source: name.clone(), index, recorded_at, interval };
                lapsed.push((deadline, timer, lapse));
                return;
            }
        };
        lapsed.push((deadline, timer, lapse));
    }

    /// An entry of this source was recorded.
    #[inline]
    pub(super) fn hear(&mut self, source: Name<'_>, recorded_at: u64, index: Index) {
        if self.heard.is_empty() {
            return;
        }
        let Some(heard) = self.heard.get_mut(source.as_str()) else {
            return;
        };
        (heard.recorded_at, heard.index) = (recorded_at, index);
        if heard.armed.is_none() {
            let deadline = *heard.armed.insert(heard.deadline());
            self.due.insert((deadline, Timer::Source(source.to_owned())));
        }
    }

    /// A source was registered and promised to be heard at least every `interval` nanoseconds.
    pub(super) fn expect(
        &mut self,
        source: &SourceName,
        interval: u64,
        recorded_at: u64,
        index: Index,
    ) {
        if interval == 0 {
            return;
        }
        let mut heard = Heard { interval, recorded_at, index, armed: None };
        heard.armed = Some(heard.deadline());
        self.due.insert((heard.deadline(), Timer::Source(source.clone())));
        self.heard.insert(source.clone(), heard);
    }

    /// A source said that it stops: its silence is no finding until it is heard again.
    pub(super) fn stop(&mut self, source: Name<'_>) {
        if let Some(heard) = self.heard.get_mut(source.as_str())
            && let Some(deadline) = heard.armed.take()
        {
            self.due.remove(&(deadline, Timer::Source(source.to_owned())));
        }
    }

    /// A source left service.
    pub(super) fn forget(&mut self, source: Name<'_>) {
        self.stop(source);
        self.heard.remove(source.as_str());
    }

    /// An emergency is to be reviewed by a time.
    pub(super) fn review(&mut self, break_glass_id: &str, deadline: u64) {
        self.due.insert((deadline, Timer::BreakGlass(break_glass_id.to_owned())));
    }

    /// An intent awaits its verdict.
    pub(super) fn intend(&mut self, index: Index, intent: Intent) {
        self.due.insert((intent.deadline(), Timer::Intent(index)));
        self.intents.insert(index, intent);
    }

    /// The intent at an index, which has got its verdict; `None` for one that does not await any.
    pub(super) fn answered(&mut self, index: Index) -> Option<Intent> {
        let intent = self.intents.remove(&index)?;
        self.due.remove(&(intent.deadline(), Timer::Intent(index)));
        Some(intent)
    }

    /// The sources that promised heartbeats, for [`Timers::restore`].
    pub(super) fn heard(&self) -> Vec<HeardState> {
        let heard = self.heard.iter().map(|(source, heard)| HeardState {
            source: source.as_str().to_owned(),
            recorded_at: heard.recorded_at,
            index: heard.index.0,
            quiet: heard.armed.is_none(),
        });
        heard.collect()
    }

    /// The intents that await their verdict, for [`Timers::restore`].
    pub(super) fn intents(&self) -> Vec<PendingIntent> {
        let intents = self.intents.iter().map(|(index, intent)| PendingIntent {
            index: index.0,
            recorded_at: intent.recorded_at,
            source: intent.source.as_str().to_owned(),
            event: Some(intent.event.clone()),
        });
        intents.collect()
    }

    /// Puts back what [`Timers::heard`] and [`Timers::intents`] gave. Emergencies are not among
    /// them: they follow from the facts.
    ///
    /// `None` for sources that are not registered and names that are none.
    pub(super) fn restore(
        sources: &Sources,
        heard: &[HeardState],
        intents: Vec<PendingIntent>,
    ) -> Option<Self> {
        let mut timers = Self::default();
        for state in heard {
            let name = Name::parse(state.source.as_bytes()).ok()?;
            let source = sources.get(name)?;
            let index = Index(state.index);
            timers.expect(&source.name, source.heartbeat_nanos, state.recorded_at, index);
            if state.quiet {
                timers.stop(name);
            }
        }
        for pending in intents {
            let source = SourceName::parse(&pending.source).ok()?;
            let event = pending.event?;
            let intent = Intent { recorded_at: pending.recorded_at, source, event };
            timers.intend(Index(pending.index), intent);
        }
        Some(timers)
    }
}

impl Heard {
    const fn deadline(&self) -> u64 {
        self.recorded_at.saturating_add(self.interval)
    }
}

impl Intent {
    pub(super) fn of(noted: &Noted<'_>) -> Self {
        let (recorded_at, source) = (noted.recorded_at, noted.source.to_owned());
        Self { recorded_at, source, event: noted.event.clone() }
    }

    /// The intent as it was when it was recorded.
    pub(super) fn noted(&self, index: Index) -> Noted<'_> {
        let Self { recorded_at, ref source, ref event } = *self;
        Noted { index, recorded_at, source: source.as_name(), event }
    }

    const fn deadline(&self) -> u64 {
        self.recorded_at.saturating_add(ANSWER_NANOS_MAX)
    }
}

/// How long an intent may await its verdict, in nanoseconds. The ledger records both in one group,
/// so a minute is far more than any stop between them takes.
const ANSWER_NANOS_MAX: u64 = 60_000_000_000;

/// Most intents that await their verdict: more than one group of the log holds, which is all that
/// an honest ledger has open. Of more, the oldest count as unanswered.
const INTENTS_MAX: usize = 1 << 16;

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> SourceName {
        SourceName::parse(text).unwrap()
    }

    fn silent(timers: &mut Timers, now: u64) -> Vec<(String, u64)> {
        let told = |lapse| match lapse {
            Lapse::Silent { source, index, .. } => (source.as_str().to_owned(), index.0),
            other => panic!("{other:?}"),
        };
        timers.lapsed(now).into_iter().map(told).collect()
    }

    #[test]
    fn a_source_is_silent_once_until_it_is_heard_again() {
        let mut timers = Timers::default();
        timers.expect(&name("a"), 10, 100, Index(1));
        timers.hear(name("a").as_name(), 105, Index(2));
        timers.hear(name("other").as_name(), 105, Index(3));
        assert_eq!(silent(&mut timers, 115), []);
        assert_eq!(silent(&mut timers, 116), [("a".to_owned(), 2)]);
        assert_eq!(silent(&mut timers, 1_000), []);
        timers.hear(name("a").as_name(), 1_000, Index(9));
        assert_eq!(silent(&mut timers, 1_011), [("a".to_owned(), 9)]);
    }

    #[test]
    fn a_source_that_stops_or_leaves_is_not_silent() {
        let mut timers = Timers::default();
        timers.expect(&name("a"), 10, 100, Index(1));
        timers.expect(&name("b"), 10, 100, Index(2));
        timers.expect(&name("c"), 0, 100, Index(3));
        timers.stop(name("a").as_name());
        timers.forget(name("b").as_name());
        assert_eq!(silent(&mut timers, u64::MAX), []);
        timers.hear(name("a").as_name(), 200, Index(4));
        timers.hear(name("b").as_name(), 200, Index(5));
        assert_eq!(silent(&mut timers, u64::MAX), [("a".to_owned(), 4)]);
    }

    #[test]
    fn lapses_come_in_the_order_of_their_true_deadlines() {
        let mut timers = Timers::default();
        timers.expect(&name("a"), 10, 100, Index(1));
        timers.expect(&name("b"), 12, 100, Index(2));
        // Moves the deadline behind that of `b`, which the set does not know yet.
        timers.hear(name("a").as_name(), 109, Index(3));
        assert_eq!(silent(&mut timers, 200), [("b".to_owned(), 2), ("a".to_owned(), 3)]);
    }

    #[test]
    fn no_more_than_a_bound_of_intents_awaits_a_verdict() {
        let mut timers = Timers::default();
        let intent = Intent { recorded_at: 5, source: name("a"), event: Event::default() };
        for index in 0..=65_536 {
            timers.intend(Index(index), intent.clone());
        }
        let lapsed = timers.lapsed(5);
        assert!(matches!(*lapsed, [Lapse::Unanswered(Index(0), _)]), "{}", lapsed.len());
        assert!(timers.answered(Index(0)).is_none());
        assert!(timers.answered(Index(1)).is_some());
        let last = timers.lapsed(5 + ANSWER_NANOS_MAX);
        assert!(last.is_empty(), "the deadline itself is in time");
        assert_eq!(timers.lapsed(6 + ANSWER_NANOS_MAX).len(), 65_535);
        assert!(timers.due.is_empty());
    }
}
