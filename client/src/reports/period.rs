//! Days, periods of days, half-years: all in UTC.
//!
//! Reports count by whole days, because that is what a server's rollups keep. Which time of an
//! event counts is told by `Noted::time`.

use std::{fmt, ops::Range, str::FromStr};

use jiff::{Timestamp, civil, tz::TimeZone};

use crate::error::ReportError;

/// A day, counted from 1970-01-01.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Day(pub u32);

/// Whole days, at least one: from midnight before the first up to midnight after the last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Period {
    first: Day,
    end: Day,
}

impl Day {
    /// The day that a time lies in, given in nanoseconds since the Unix epoch.
    #[must_use]
    pub fn of(nanos: u64) -> Self {
        // The quotient of the largest time has 18 bits.
        Self(u32::try_from(nanos / DAY_NANOS).unwrap_or(u32::MAX))
    }

    /// Its first nanosecond since the Unix epoch. Saturates.
    #[must_use]
    pub const fn start(self) -> u64 {
        // A cast that only widens.
        DAY_NANOS.saturating_mul(self.0 as u64)
    }
}

impl fmt::Display for Day {
    /// As in `2026-03-31`.
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match date(self.start()) {
            Some(date) => date.fmt(out),
            None => write!(out, "day {}", self.0),
        }
    }
}

impl FromStr for Day {
    type Err = ReportError;

    /// Reads a date as in `2026-03-31`, not before 1970.
    fn from_str(text: &str) -> Result<Self, ReportError> {
        let wrong = || ReportError::Date { found: text.to_owned() };
        let date: civil::Date = text.parse().map_err(|_| wrong())?;
        let midnight = date.to_zoned(TimeZone::UTC).map_err(|_| wrong())?.timestamp();
        let nanos = u64::try_from(midnight.as_nanosecond()).map_err(|_| wrong())?;
        Ok(Self::of(nanos))
    }
}

impl Period {
    /// From the beginning of `first` up to the beginning of `end`.
    ///
    /// # Errors
    ///
    /// [`ReportError::Period`] when that is not at least one day.
    pub fn new(first: Day, end: Day) -> Result<Self, ReportError> {
        if first >= end {
            return Err(ReportError::Period { from: first.start(), to: end.start() });
        }
        Ok(Self { first, end })
    }

    /// The same of two times in nanoseconds since the Unix epoch.
    ///
    /// # Errors
    ///
    /// [`ReportError::Period`] when one of them is not midnight, or they do not hold one day.
    pub fn of(from: u64, to: u64) -> Result<Self, ReportError> {
        let (first, end) = (Day::of(from), Day::of(to));
        if first.start() != from || end.start() != to {
            return Err(ReportError::Period { from, to });
        }
        Self::new(first, end)
    }

    /// From the first day that can be named up to the end of this period.
    #[must_use]
    pub const fn since_ever(self) -> Self {
        Self { first: Day(0), end: self.end }
    }

    /// The period of the same length directly before, cut off at 1970; `None` when nothing of it
    /// is left.
    #[must_use]
    pub fn before(self) -> Option<Self> {
        let days = self.end.0.saturating_sub(self.first.0);
        let first = Day(self.first.0.saturating_sub(days));
        Self::new(first, self.first).ok()
    }

    /// The numbers of its days, ascending.
    #[must_use]
    pub const fn days(self) -> Range<u32> {
        self.first.0..self.end.0
    }

    /// Its first nanosecond since the Unix epoch.
    #[must_use]
    pub const fn from(self) -> u64 {
        self.first.start()
    }

    /// The first nanosecond behind it.
    #[must_use]
    pub const fn to(self) -> u64 {
        self.end.start()
    }

    /// Its beginning, for a message.
    #[must_use]
    pub fn from_time(self) -> prost_types::Timestamp {
        midnight(self.first)
    }

    /// Its end, for a message.
    #[must_use]
    pub fn to_time(self) -> prost_types::Timestamp {
        midnight(self.end)
    }

    /// Whether a time lies in it, given in nanoseconds since the Unix epoch.
    #[must_use]
    pub fn contains(self, nanos: u64) -> bool {
        self.contains_day(Day::of(nanos))
    }

    /// Whether it holds a day.
    #[must_use]
    pub fn contains_day(self, day: Day) -> bool {
        self.first <= day && day < self.end
    }
}

impl fmt::Display for Period {
    /// Its first and its last day: `2026-01-01/2026-06-30`.
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}/{}", self.first, Day(self.end.0.saturating_sub(1)))
    }
}

fn midnight(day: Day) -> prost_types::Timestamp {
    let seconds = i64::from(day.0).saturating_mul(DAY_SECONDS);
    prost_types::Timestamp { seconds, nanos: 0 }
}

/// The half-year of a time, as in `2019 H2`.
pub(super) fn half_year(nanos: u64) -> String {
    date(nanos).map_or_else(String::new, |date| {
        format!("{} H{}", date.year(), if date.month() <= 6 { 1 } else { 2 })
    })
}

/// A time of a report: RFC 3339 in UTC, to the second; empty for 0, which stands for none.
pub(super) fn time(nanos: u64) -> String {
    if nanos == 0 {
        return String::new();
    }
    Timestamp::from_second(i64::try_from(nanos / SECOND_NANOS).unwrap_or(i64::MAX))
        .map_or_else(|_| format!("{nanos} ns"), |time| time.to_string())
}

fn date(nanos: u64) -> Option<civil::Date> {
    let time = Timestamp::from_second(i64::try_from(nanos / SECOND_NANOS).ok()?).ok()?;
    Some(time.to_zoned(TimeZone::UTC).date())
}

pub(super) const SECOND_NANOS: u64 = 1_000_000_000;
pub(super) const DAY_NANOS: u64 = 86_400 * SECOND_NANOS;
const DAY_SECONDS: i64 = 86_400;

#[cfg(test)]
mod tests {
    use super::*;

    fn day(text: &str) -> Day {
        text.parse().unwrap()
    }

    #[test]
    fn days_read_as_they_are_written() {
        assert_eq!(day("1970-01-01"), Day(0));
        assert_eq!(day("2019-07-01").to_string(), "2019-07-01");
        assert_eq!(Day::of(u64::MAX).to_string(), "2554-07-21");
        for wrong in ["1969-12-31", "2026-02-30", "2026-1-1", "today", "9999-12-31"] {
            assert!(wrong.parse::<Day>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_period_is_whole_days_and_not_empty() {
        let (first, end) = (day("2026-01-01"), day("2026-07-01"));
        let period = Period::new(first, end).unwrap();
        assert_eq!(Period::of(first.start(), end.start()).unwrap(), period);
        assert_eq!(period.to_string(), "2026-01-01/2026-06-30");
        assert!(period.contains(first.start()) && !period.contains(end.start()));
        assert!(Period::new(end, end).is_err());
        assert!(Period::of(first.start() + 1, end.start()).is_err());
    }

    #[test]
    fn the_period_before_has_the_same_length_where_time_allows_it() {
        let period = Period::new(day("2026-01-11"), day("2026-01-21")).unwrap();
        assert_eq!(period.before().unwrap().to_string(), "2026-01-01/2026-01-10");
        assert_eq!(Period::new(Day(3), Day(9)).unwrap().before().unwrap().days(), 0..3);
        assert_eq!(Period::new(Day(0), Day(9)).unwrap().before(), None);
    }

    #[test]
    fn half_years_begin_in_january_and_july() {
        for (date, wanted) in [
            ("2019-01-01", "2019 H1"),
            ("2019-06-30", "2019 H1"),
            ("2019-07-01", "2019 H2"),
            ("2019-12-31", "2019 H2"),
        ] {
            assert_eq!(half_year(day(date).start()), wanted);
        }
    }

    #[test]
    fn times_are_told_to_the_second() {
        let nine = day("2026-03-01").start() + 9 * 3_600 * SECOND_NANOS;
        assert_eq!(time(nine + 7), "2026-03-01T09:00:00Z");
        assert_eq!(time(0), "");
    }
}
