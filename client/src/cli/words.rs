//! Words of the command line: short names for the vocabulary's enum values, times, durations.

use std::{collections::BTreeMap, sync::LazyLock};

use access_ledger_proto::{hash::Digest, wire};
use bytes::Bytes;
use jiff::{SignedDuration, Span, SpanRelativeTo, Timestamp, civil::Date, tz::TimeZone};
use prost_reflect::{DescriptorPool, EnumDescriptor};

use crate::verify::state::unhex;

/// The values of an enum of the schema.
struct Words {
    /// What all names begin with: `ACTION_`.
    prefix: String,
    /// The rest of each name, without the one for "unspecified".
    values: Vec<(String, i32)>,
}

/// By the enum's name.
static WORDS: LazyLock<BTreeMap<String, Words>> = LazyLock::new(|| {
    let pool = DescriptorPool::decode(wire::FILE_DESCRIPTOR_SET).unwrap_or_default();
    pool.all_enums().map(|kind| (kind.name().to_owned(), Words::of(&kind))).collect()
});

impl Words {
    fn of(kind: &EnumDescriptor) -> Self {
        let zero = kind.default_value();
        let prefix = zero.name().strip_suffix("UNSPECIFIED").unwrap_or_default().to_owned();
        let known = kind.values().filter(|value| value.number() != 0);
        let word = |name: &str| name.strip_prefix(&prefix).unwrap_or(name).to_owned();
        let values = known.map(|value| (word(value.name()), value.number())).collect();
        Self { prefix, values }
    }

    fn value(&self, text: &str) -> Option<i32> {
        let upper = text.to_ascii_uppercase().replace('-', "_");
        let name = upper.strip_prefix(&self.prefix).unwrap_or(&upper);
        self.values.iter().find(|(known, _)| known == name).map(|&(_, value)| value)
    }
}

/// The value of an enum: `read`, `READ`, `ACTION_READ`; `ip-address` like `IP_ADDRESS`.
fn value(kind: &str, text: &str) -> Result<i32, String> {
    let words = WORDS.get(kind).ok_or_else(|| format!("the schema has no {kind}"))?;
    words.value(text).ok_or_else(|| {
        let known: Vec<_> = words.values.iter().map(|(name, _)| spelled(name)).collect();
        format!("found {text:?}, expected one of {}", known.join(", "))
    })
}

/// The word for a value, for people; the number of one that this version does not know.
pub(super) fn word(kind: &str, value: i32) -> String {
    let words = WORDS.get(kind).map(|words| words.values.as_slice()).unwrap_or_default();
    let known = words.iter().find(|&&(_, known)| known == value);
    known.map_or_else(|| value.to_string(), |(name, _)| spelled(name))
}

fn spelled(name: &str) -> String {
    name.to_ascii_lowercase().replace('_', "-")
}

pub(super) fn action(text: &str) -> Result<i32, String> {
    value("Action", text)
}

pub(super) fn category(text: &str) -> Result<i32, String> {
    value("DataCategory", text)
}

pub(super) fn purpose(text: &str) -> Result<i32, String> {
    value("Purpose", text)
}

pub(super) fn outcome(text: &str) -> Result<i32, String> {
    value("Outcome", text)
}

pub(super) fn boundary(text: &str) -> Result<i32, String> {
    value("Boundary", text)
}

pub(super) fn sensitivity(text: &str) -> Result<i32, String> {
    value("Sensitivity", text)
}

/// A SHA-256 in hexadecimal.
pub(super) fn digest(text: &str) -> Result<Bytes, String> {
    let digest = unhex(text).filter(|bytes| bytes.len() == Digest::LEN);
    digest.map(Bytes::from).ok_or_else(|| format!("found {text:?}, expected 64 hexadecimal digits"))
}

/// A stretch of time: `45m`, `8h`, `30d`, `1d 12h`. A day has 24 hours. Not negative.
pub(super) fn duration(text: &str) -> Result<prost_types::Duration, String> {
    let expected = || format!("found {text:?}, expected a duration like 45m, 8h or 30d");
    let span: Span = text.parse().map_err(|_| expected())?;
    let days = SpanRelativeTo::days_are_24_hours();
    let duration: SignedDuration = span.to_duration(days).map_err(|_| expected())?;
    if duration.is_negative() {
        return Err(expected());
    }
    let (seconds, nanos) = (duration.as_secs(), duration.subsec_nanos());
    Ok(prost_types::Duration { seconds, nanos })
}

/// A point in time: RFC 3339, or a date, which is its midnight in UTC.
pub(super) fn time(text: &str) -> Result<prost_types::Timestamp, String> {
    let of_date = || Date::strptime("%Y-%m-%d", text).and_then(|date| date.to_zoned(TimeZone::UTC));
    let time = text.parse::<Timestamp>().or_else(|_| of_date().map(|zoned| zoned.timestamp()));
    let time = time.map_err(|_| {
        format!(
            "found {text:?}, expected a time like 2026-11-22T09:00:00Z or a date like 2026-11-22"
        )
    })?;
    let (seconds, nanos) = (time.as_second(), time.subsec_nanosecond());
    Ok(prost_types::Timestamp { seconds, nanos })
}

#[cfg(test)]
mod tests {
    use access_ledger_proto::wire::{Action, DataCategory, Purpose};

    use super::*;

    #[test]
    fn values_are_read_in_short_and_in_full() {
        for text in ["export", "EXPORT", "ACTION_EXPORT"] {
            assert_eq!(action(text), Ok(Action::Export.into()));
        }
        assert_eq!(category("ip-address"), Ok(DataCategory::IpAddress.into()));
        assert_eq!(purpose("break-glass"), Ok(Purpose::BreakGlass.into()));
        assert_eq!(word("Action", Action::RestoreBackup.into()), "restore-backup");
        assert_eq!(word("Action", 99), "99");
    }

    #[test]
    fn unknown_values_are_told_with_those_that_would_do() {
        let error = action("peek").unwrap_err();
        assert!(error.starts_with("found \"peek\", expected one of read, query, "), "{error}");
        assert!(action("unspecified").is_err());
        assert!(boundary("").is_err());
    }

    #[test]
    fn durations_and_times_are_read_or_refused_with_an_example() {
        let seconds = |text| duration(text).map(|duration| duration.seconds);
        assert_eq!(seconds("8h"), Ok(8 * 3_600));
        assert_eq!(seconds("30d"), Ok(30 * 86_400));
        assert_eq!(seconds("1d 12h"), Ok(36 * 3_600));
        for text in ["", "8", "-8h", "soon", "1mo", "99999999999999h"] {
            assert!(duration(text).is_err(), "{text}");
        }
        assert_eq!(time("1970-01-02").unwrap().seconds, 86_400);
        assert_eq!(time("1970-01-01T01:00:00+01:00").unwrap().seconds, 0);
        for text in ["", "tomorrow", "2026-13-01", "2026-11-22T09:00:00"] {
            assert!(time(text).is_err(), "{text}");
        }
    }
}
