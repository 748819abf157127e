//! What the custodian's own clock says about a log: pure decisions, time is an argument.
//!
//! **Backdating.** When the ledger is asked for its newest checkpoint at a time T and answers with
//! size s, the entries from s on did not exist at T, so none of them may claim an earlier time. T
//! is when the question was sent: an answer that is long on its way makes the bound weaker, never
//! wrong. What was sighted is kept across restarts, so nothing can be backdated into a downtime
//! either. Entries of the first catch-up were there before anybody looked: nothing is said of them.
//!
//! **The future.** No entry may claim a time later than the one at which it came.
//!
//! Both with an allowance for clocks that differ ([`TimeLimits::skew`]).
//!
//! **Stale** is a ledger of which nothing new was seen for too long.

use std::{collections::VecDeque, fmt, time::Duration};

use access_ledger_client::verify::Record;
use access_ledger_proto::{
    entry::Entry,
    position::{Index, Size, count_of},
};
use serde::{Deserialize, Serialize};

use super::alarms::time;

/// How far time may be off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimeLimits {
    /// Between the ledger's clock and the own, and between an entry's time and its publication.
    pub skew: Duration,
    /// Without a new checkpoint, until the ledger counts as stale.
    pub stale_after: Duration,
}

impl Default for TimeLimits {
    fn default() -> Self {
        Self { skew: Duration::from_secs(30), stale_after: Duration::from_secs(300) }
    }
}

/// When a size was the ledger's newest, as it said itself. In nanoseconds since the Unix epoch, by
/// the own clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sighting {
    /// How many entries there were.
    size: u64,
    /// When it was seen first.
    first: u64,
    /// When it was asked for last and was the newest still.
    last: u64,
}

/// The own clock's view of a ledger.
#[derive(Clone, Debug)]
pub struct Timing {
    limits: TimeLimits,
    /// Ascending in size and time. Of those that the copy has passed only the newest is kept: it
    /// bounds what comes next.
    sightings: VecDeque<Sighting>,
    /// Under a checkpoint that was seen.
    known: Size,
    held: Size,
    /// When something new was seen last.
    news_at: u64,
}

/// An entry whose time cannot be right. Times in nanoseconds since the Unix epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WrongTime {
    /// It claims to be older than a checkpoint that did not cover it.
    Backdated {
        /// The entry.
        index: Index,
        /// What it claims.
        recorded_at: u64,
        /// The size that the ledger had then.
        size: Size,
        /// When.
        sighted_at: u64,
    },
    /// It claims a time that had not come.
    FutureDated {
        /// The entry.
        index: Index,
        /// What it claims.
        recorded_at: u64,
        /// When it came.
        now: u64,
    },
}

impl Timing {
    /// Begins to watch at the time `now` with a copy of so many entries, and with what
    /// [`Timing::save`] gave before.
    #[must_use]
    pub fn new(limits: TimeLimits, saved: Vec<Sighting>, held: Size, now: u64) -> Self {
        let sightings: VecDeque<Sighting> = saved.into();
        let known = sightings.back().map_or(held, |newest| held.max(Size(newest.size)));
        let mut timing = Self { limits, sightings, known, held, news_at: now };
        timing.pass(held);
        timing
    }

    /// What to keep across restarts: at most [`SIGHTINGS_MAX`].
    #[must_use]
    pub fn save(&self) -> Vec<Sighting> {
        self.sightings.iter().copied().collect()
    }

    /// The ledger's newest checkpoint, asked for at the time `asked_at`, covers so many entries.
    /// One that went back is for others to judge.
    pub fn sight(&mut self, size: Size, asked_at: u64) {
        self.hear(size, asked_at);
        match self.sightings.back_mut() {
            Some(newest) if newest.size > size.0 => return,
            Some(newest) if newest.size == size.0 => newest.last = newest.last.max(asked_at),
            _ => {
                self.sightings.push_back(Sighting {
                    size: size.0,
                    first: asked_at,
                    last: asked_at,
                });
            }
        }
        if self.sightings.len() > SIGHTINGS_MAX {
            // Every other one: the bounds get coarser while the copy is far behind, never wrong.
            // The first and the last stay.
            let mut at = 0;
            self.sightings.retain(|_| {
                at += 1;
                at % 2 == 1 || at > SIGHTINGS_MAX
            });
        }
    }

    /// A checkpoint of so many entries came at the time `now` without being asked for. It may have
    /// been on its way for any time, so it bounds nothing.
    pub fn hear(&mut self, size: Size, now: u64) {
        if size > self.known {
            self.known = size;
            self.news_at = self.news_at.max(now);
        }
    }

    /// Judges the times of verified records that were new to the copy at the time `now`; of each
    /// offence the first entry.
    pub fn take(&mut self, first: Index, records: &[Record], now: u64) -> Vec<WrongTime> {
        let end = Size(first.plus(count_of(records.len())).0);
        if records.is_empty() {
            return Vec::new();
        }
        let wrong = self.backdated(first, records).into_iter();
        let wrong = wrong.chain(self.future_dated(first, records, now)).collect();
        if end > self.held {
            // A long catch-up asks for no checkpoint, and yet the ledger is heard.
            self.news_at = self.news_at.max(now);
        }
        self.pass(end);
        wrong
    }

    /// Since when nothing new was seen, if that is too long ago at the time `now`.
    #[must_use]
    pub fn stale_since(&self, now: u64) -> Option<u64> {
        let is_long = now.saturating_sub(self.news_at) > nanos(self.limits.stale_after);
        is_long.then_some(self.news_at)
    }

    /// When the ledger was asked last of what the copy holds, and the size that it answered: all
    /// that it had signed by then is here. `None` before the first such answer.
    #[must_use]
    pub fn heard_until(&self) -> Option<(u64, Size)> {
        let passed = self.sightings.front().filter(|sighting| sighting.size <= self.held.0)?;
        Some((passed.last, Size(passed.size)))
    }

    /// How many entries the copy holds, and how many it knows of.
    #[must_use]
    pub fn sizes(&self) -> (Size, Size) {
        (self.held, self.known.max(self.held))
    }

    fn backdated(&self, first: Index, records: &[Record]) -> Option<WrongTime> {
        // Times do not run backwards, so the first entry behind a sighting is the one to look at.
        let suspects = self.sightings.iter().filter_map(|sighting| {
            let index = Index(sighting.size).max(first);
            let recorded_at = recorded_at(first, records, index)?;
            let is_late = recorded_at.saturating_add(nanos(self.limits.skew)) < sighting.last;
            is_late.then_some(WrongTime::Backdated {
                index,
                recorded_at,
                size: Size(sighting.size),
                sighted_at: sighting.last,
            })
        });
        suspects.min_by_key(|suspect| suspect.index())
    }

    fn future_dated(&self, first: Index, records: &[Record], now: u64) -> Option<WrongTime> {
        let latest = now.saturating_add(nanos(self.limits.skew));
        let is_past = |record: &Record| time_of(record).is_none_or(|time| time <= latest);
        let at = records.partition_point(is_past);
        let (index, recorded_at) = (first.plus(count_of(at)), time_of(records.get(at)?)?);
        Some(WrongTime::FutureDated { index, recorded_at, now })
    }

    fn pass(&mut self, held: Size) {
        self.held = self.held.max(held);
        while self.sightings.get(1).is_some_and(|next| next.size <= self.held.0) {
            self.sightings.pop_front();
        }
    }
}

impl WrongTime {
    /// The entry.
    #[must_use]
    pub const fn index(&self) -> Index {
        match self {
            Self::Backdated { index, .. } | Self::FutureDated { index, .. } => *index,
        }
    }
}

impl fmt::Display for WrongTime {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Backdated { index, recorded_at, size, sighted_at } => write!(
                out,
                "entry {index} claims to be of {}, at {} the ledger said that it had {size} entries",
                time(recorded_at),
                time(sighted_at)
            ),
            Self::FutureDated { index, recorded_at, now } => write!(
                out,
                "entry {index} claims to be of {}, it came at {}",
                time(recorded_at),
                time(now)
            ),
        }
    }
}

/// The time of the entry at `index`, if it is among the records.
fn recorded_at(first: Index, records: &[Record], index: Index) -> Option<u64> {
    let offset = usize::try_from(index.0.checked_sub(first.0)?).ok()?;
    records.get(offset).and_then(time_of)
}

/// Verified records parse.
fn time_of(record: &Record) -> Option<u64> {
    Entry::parse(&record.entry).ok().map(|entry| entry.recorded_at)
}

pub(super) fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// Sightings that the copy has not passed: one for each doubling of a long catch-up is plenty.
pub const SIGHTINGS_MAX: usize = 64;

#[cfg(test)]
mod tests {
    use access_ledger_proto::{hash::Digest, source::Name};
    use proptest::prelude::*;

    use super::*;

    const SECOND: u64 = 1_000_000_000;

    /// Some time after the epoch, in seconds.
    const START: u64 = 1_000_000;

    fn record(index: u64, second: u64) -> Record {
        let entry = Entry {
            index: Index(index),
            recorded_at: second * SECOND,
            prev: Digest::ZERO,
            event_digest: Digest::ZERO,
            source_seq: 1,
            source: Name::parse(b"a").unwrap(),
            seal: None,
        };
        Record { entry: entry.encode().into(), event: None }
    }

    fn timing() -> Timing {
        Timing::new(TimeLimits::default(), Vec::new(), Size::ZERO, START * SECOND)
    }

    /// Records from `first` on, of these seconds, as they come at `now`.
    fn take(timing: &mut Timing, first: u64, seconds: &[u64], now: u64) -> Vec<WrongTime> {
        let records: Vec<_> =
            (first..).zip(seconds).map(|(index, &second)| record(index, second)).collect();
        timing.take(Index(first), &records, now * SECOND)
    }

    #[test]
    fn what_was_there_before_anybody_looked_may_be_of_any_time() {
        let mut timing = timing();
        timing.sight(Size(3), START * SECOND);
        assert_eq!(take(&mut timing, 0, &[5, 6, START], START + 1), []);
    }

    #[test]
    fn an_entry_cannot_be_older_than_a_checkpoint_that_did_not_cover_it() {
        let mut timing = timing();
        timing.sight(Size(2), (START + 100) * SECOND);
        let found = take(&mut timing, 0, &[5, 6, START + 69, START + 70], START + 101);
        assert_eq!(found.iter().map(WrongTime::index).collect::<Vec<_>>(), [Index(2)]);
        assert!(found[0].to_string().contains("it had 2 entries"), "{}", found[0]);
        assert_eq!(take(&mut timing, 4, &[START + 70], START + 101), []);
    }

    #[test]
    fn what_comes_unasked_may_have_been_long_on_its_way() {
        let mut timing = timing();
        timing.sight(Size(2), START * SECOND);
        take(&mut timing, 0, &[START, START], START);
        timing.hear(Size(3), (START + 500) * SECOND);
        assert_eq!(take(&mut timing, 2, &[START + 1, START + 2], START + 500), []);
        assert_eq!(timing.stale_since((START + 800) * SECOND), None);
    }

    #[test]
    fn nothing_is_backdated_into_a_downtime() {
        let mut before = timing();
        before.sight(Size(2), START * SECOND);
        assert_eq!(take(&mut before, 0, &[START, START], START), []);
        // Asked again a day later, it is still the newest: the bound moves with it.
        before.sight(Size(2), (START + 86_400) * SECOND);
        let saved = before.save();
        let now = START + 900_000;
        let mut after = Timing::new(TimeLimits::default(), saved, Size(2), now * SECOND);
        after.sight(Size(9), now * SECOND);
        let honest = [START + 86_370, now];
        assert_eq!(take(&mut after.clone(), 2, &honest, now), []);
        let found = take(&mut after, 2, &[START + 86_369, now], now);
        assert_eq!(found.iter().map(WrongTime::index).collect::<Vec<_>>(), [Index(2)]);
    }

    #[test]
    fn no_entry_is_from_the_future() {
        let mut timing = timing();
        assert_eq!(take(&mut timing, 0, &[START, START + 30], START), []);
        let found = take(&mut timing, 2, &[START + 30, START + 31, START + 99], START);
        assert_eq!(found.iter().map(WrongTime::index).collect::<Vec<_>>(), [Index(3)]);
    }

    #[test]
    fn a_ledger_without_news_is_stale_until_it_has_some() {
        let mut timing = timing();
        timing.sight(Size(2), START * SECOND);
        take(&mut timing, 0, &[START, START], START);
        let stale = |timing: &Timing, second| timing.stale_since(second * SECOND);
        assert_eq!(stale(&timing, START + 300), None);
        // An old checkpoint is no news, however often it is served.
        timing.sight(Size(2), (START + 299) * SECOND);
        assert_eq!(stale(&timing, START + 301), Some(START * SECOND));
        timing.sight(Size(9), (START + 301) * SECOND);
        assert_eq!(stale(&timing, START + 400), None);
        // So are entries that are new here, while a catch-up goes on.
        assert_eq!(stale(&timing, START + 602), Some((START + 301) * SECOND));
        take(&mut timing, 2, &[START + 300], START + 602);
        assert_eq!(stale(&timing, START + 900), None);
    }

    #[test]
    fn all_is_heard_up_to_the_last_question_whose_answer_the_copy_holds() {
        let mut timing = timing();
        let now = |second| (START + second) * SECOND;
        let until = |timing: &Timing| timing.heard_until();
        timing.sight(Size(2), now(0));
        assert_eq!(until(&timing), None);
        take(&mut timing, 0, &[START, START], START + 1);
        assert_eq!(until(&timing), Some((now(0), Size(2))));
        timing.sight(Size(2), now(61));
        assert_eq!(until(&timing), Some((now(61), Size(2))));
        // Each answer is ahead of the copy when it comes, and held before the next one.
        for (size, second) in (2..10).zip((62..).step_by(2)) {
            timing.sight(Size(size + 1), now(second));
            assert_eq!(until(&timing).map(|(_, size)| size), Some(Size(size)));
            take(&mut timing, size, &[START], START + second + 1);
            assert_eq!(until(&timing), Some((now(second), Size(size + 1))));
        }
        // What comes unasked tells nothing.
        timing.hear(Size(30), now(90));
        assert_eq!(until(&timing), Some((now(76), Size(10))));
        assert_eq!(timing.sizes(), (Size(10), Size(30)));
    }

    proptest! {
        /// A ledger whose clock is off by less than the allowance, and which publishes in time.
        #[test]
        fn an_honest_ledger_is_never_accused(
            steps in prop::collection::vec(
                (0_u64..20, 0_usize..40, 0_usize..40, any::<bool>()),
                1..200,
            ),
            lag in 0_u64..15,
            early in any::<bool>(),
        ) {
            let mut timing = timing();
            let (mut now, mut log, mut held) = (START, Vec::<u64>::new(), 0_usize);
            for (pause, appended, taken, asked) in steps {
                now += pause;
                let clock = if early { now + lag } else { now - lag };
                log.extend(std::iter::repeat_n(clock, appended));
                if asked {
                    timing.sight(Size(log.len() as u64), now * SECOND);
                }
                let upto = log.len().min(held + taken);
                prop_assert_eq!(take(&mut timing, held as u64, &log[held..upto], now), []);
                held = upto;
                if asked && pause == 7 {
                    let saved = timing.save();
                    let held = Size(held as u64);
                    timing = Timing::new(TimeLimits::default(), saved, held, now * SECOND);
                }
                prop_assert!(timing.save().len() <= SIGHTINGS_MAX);
            }
        }

        /// However far behind the copy is, the newest entries cannot be backdated.
        #[test]
        fn backdating_behind_what_was_sighted_is_found(
            sizes in prop::collection::vec(1_u64..50, 1..300),
            at in any::<prop::sample::Index>(),
        ) {
            let mut timing = timing();
            let mut size = 0;
            let mut now = START;
            for grown in &sizes {
                size += grown;
                now += 100;
                timing.sight(Size(size), now * SECOND);
            }
            let extra = at.index(20) as u64 + 1;
            // Everything old, and some entries behind the newest sighting.
            let log: Vec<u64> = (0..size + extra).map(|_| START).collect();
            let found = take(&mut timing, 0, &log, now);
            prop_assert_eq!(found.len(), 1);
            prop_assert!(found[0].index() <= Index(size));
        }
    }
}
