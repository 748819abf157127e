//! What a search asks for, in one line that a person reads: it stands in the record of the search
//! (`LedgerRead.query`).
//!
//! The form is canonical: fields in the order of the request, values in ascending order and each
//! once, so that the same question always has the same words, however it was put:
//!
//! ```text
//! actors "u-7", "u-9"; subject_tokens 0a0b; actions ACTION_READ; from 2026-03-01T00:00:00Z
//! ```
//!
//! Pages, order and proofs are not part of a question: whoever turns the page asks the same.

use std::fmt::Display;

use prost_types::Timestamp;

use crate::{
    event::text_fault,
    hash::sha256,
    wire::{
        Action, Boundary, DataCategory, Filter, FindingState, GetReportRequest,
        ListFindingsRequest, Outcome, Purpose,
    },
};

/// Most bytes of what is returned here. What is longer is cut, and ends with the SHA-256 of the
/// whole.
pub const LEN_MAX: usize = 4_096;

/// What a filter asks for; `everything` for one that has no conditions.
#[must_use]
pub fn of_filter(filter: &Filter) -> String {
    let mut words = Words::default();
    words.texts("actors", &filter.actors);
    words.texts("entities", &filter.entities);
    words.texts("entity_countries", &filter.entity_countries);
    words.texts("office_countries", &filter.office_countries);
    words.texts("physical_countries", &filter.physical_countries);
    words.texts("tools", &filter.tools);
    words.texts("datasets", &filter.datasets);
    words.texts("regions", &filter.regions);
    words.texts("jurisdictions", &filter.jurisdictions);
    words.numbers::<Boundary>("boundaries", &filter.boundaries, Boundary::as_str_name);
    words.numbers::<DataCategory>("categories", &filter.categories, DataCategory::as_str_name);
    words.numbers::<Action>("actions", &filter.actions, Action::as_str_name);
    words.numbers::<Outcome>("outcomes", &filter.outcomes, Outcome::as_str_name);
    words.numbers::<Purpose>("purposes", &filter.purposes, Purpose::as_str_name);
    words.texts("grant_ids", &filter.grant_ids);
    words.texts("legal_request_ids", &filter.legal_request_ids);
    words.bytes("subject_tokens", &filter.subject_tokens);
    words.texts("rules", &filter.rules);
    words.texts("sources", &filter.sources);
    words.texts("bodies", &filter.bodies);
    words.bytes("event_ids", &filter.event_ids);
    words.time("from", filter.from.as_ref());
    words.time("to", filter.to.as_ref());
    words.texts("break_glass_ids", &filter.break_glass_ids);
    words.texts("place_countries", &filter.place_countries);
    words.end()
}

/// Which findings are asked for; `everything` without conditions.
#[must_use]
pub fn of_findings(request: &ListFindingsRequest) -> String {
    let mut words = Words::default();
    words.texts("rules", &request.rules);
    words.numbers::<FindingState>("states", &request.states, FindingState::as_str_name);
    words.end()
}

/// Which report is asked for.
#[must_use]
pub fn of_report(request: &GetReportRequest) -> String {
    let mut words = Words::default();
    words.texts("report", std::slice::from_ref(&request.name));
    words.time("from", request.from.as_ref());
    words.time("to", request.to.as_ref());
    if !request.subject_token.is_empty() {
        words.bytes("subject_token", std::slice::from_ref(&request.subject_token));
    }
    if request.with_staff {
        words.field("with_staff", std::iter::once("true"));
    }
    words.end()
}

/// Words in the making.
#[derive(Default)]
struct Words(String);

impl Words {
    fn field(&mut self, name: &str, values: impl Iterator<Item = impl Display>) {
        use std::fmt::Write as _;
        let before = if self.0.is_empty() { "" } else { "; " };
        for (place, value) in values.enumerate() {
            // Writing into a string does not fail.
            let _written = match place {
                0 => write!(self.0, "{before}{name} {value}"),
                _ => write!(self.0, ", {value}"),
            };
        }
    }

    fn texts(&mut self, name: &str, values: &[String]) {
        self.field(name, ascending(values).map(|value| quoted(value)));
    }

    fn bytes(&mut self, name: &str, values: &[impl AsRef<[u8]> + Ord]) {
        let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        self.field(name, ascending(values).map(|value| hex(value.as_ref())));
    }

    fn numbers<E: TryFrom<i32>>(&mut self, name: &str, values: &[i32], word: fn(&E) -> &str) {
        let told = |&value: &i32| match E::try_from(value) {
            Ok(known) => word(&known).to_owned(),
            Err(_) => value.to_string(),
        };
        self.field(name, ascending(values).map(told));
    }

    fn time(&mut self, name: &str, time: Option<&Timestamp>) {
        self.field(name, time.into_iter());
    }

    fn end(self) -> String {
        let Self(mut words) = self;
        if words.is_empty() {
            return "everything".to_owned();
        }
        if words.len() > LEN_MAX {
            let digest = format!("... sha256 {}", sha256(words.as_bytes()));
            words.truncate(words.floor_char_boundary(LEN_MAX - digest.len()));
            words.push_str(&digest);
        }
        words
    }
}

/// Each value once, in order.
fn ascending<T: Ord>(values: &[T]) -> impl Iterator<Item = &T> {
    let mut values: Vec<&T> = values.iter().collect();
    values.sort_unstable();
    values.dedup();
    values.into_iter()
}

/// In quotes; what no event may hold, quotes and backslashes as `\u{22}`. So whatever is asked for
/// can be recorded, and no value can pose as another condition.
fn quoted(value: &str) -> String {
    let mut quoted = String::from("\"");
    for symbol in value.chars() {
        let is_plain = !matches!(symbol, '"' | '\\')
            && text_fault(symbol.encode_utf8(&mut [0; 4]).as_bytes(), false).is_none();
        if is_plain {
            quoted.push(symbol);
        } else {
            quoted.extend(symbol.escape_unicode());
        }
    }
    quoted.push('"');
    quoted
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use proptest::prelude::*;

    use super::*;

    fn texts(values: &[&str]) -> Vec<String> {
        values.iter().map(|&value| value.to_owned()).collect()
    }

    #[test]
    fn the_same_question_has_the_same_words() {
        let filter = Filter {
            actors: texts(&["u-9", "u-7", "u-9"]),
            actions: vec![99, Action::Read.into()],
            subject_tokens: vec![Bytes::from_static(&[10, 11])],
            from: Some(Timestamp { seconds: 1_772_323_200, nanos: 0 }),
            ..Filter::default()
        };
        assert_eq!(
            of_filter(&filter),
            "actors \"u-7\", \"u-9\"; actions ACTION_READ, 99; subject_tokens 0a0b; \
             from 2026-03-01T00:00:00Z"
        );
        assert_eq!(of_filter(&Filter::default()), "everything");
        let findings = ListFindingsRequest {
            rules: texts(&["NO_GRANT"]),
            states: vec![FindingState::Unspecified.into()],
            page_size: 7,
            page_token: "12".to_owned(),
        };
        assert_eq!(of_findings(&findings), "rules \"NO_GRANT\"; states FINDING_STATE_UNSPECIFIED");
        let report = GetReportRequest {
            name: "subject".to_owned(),
            from: filter.from,
            to: None,
            subject_token: Bytes::from_static(&[255]),
            with_staff: true,
        };
        assert_eq!(
            of_report(&report),
            "report \"subject\"; from 2026-03-01T00:00:00Z; subject_token ff; with_staff true"
        );
    }

    #[test]
    fn no_value_poses_as_another_condition() {
        let posing = Filter { actors: texts(&["a\"; tools \"b"]), ..Filter::default() };
        assert_eq!(of_filter(&posing), "actors \"a\\u{22}; tools \\u{22}b\"");
        let hidden = Filter { actors: texts(&["a\u{202e}\n"]), ..Filter::default() };
        assert_eq!(of_filter(&hidden), "actors \"a\\u{202e}\\u{a}\"");
    }

    #[test]
    fn what_is_too_long_is_cut_and_still_told_apart() {
        let long = |last: &str| Filter {
            actors: (0..100).map(|n| format!("{n:>200}é")).chain([last.to_owned()]).collect(),
            ..Filter::default()
        };
        let (one, other) = (of_filter(&long("~one")), of_filter(&long("~other")));
        assert!(one.len() <= LEN_MAX && one.len() > LEN_MAX - 4, "{}", one.len());
        assert_ne!(one, other);
    }

    proptest! {
        #[test]
        fn words_can_be_recorded_whatever_is_asked_for(
            actors in prop::collection::vec(any::<String>(), 0..40),
            datasets in prop::collection::vec("\\PC{0,256}", 0..40),
            actions in prop::collection::vec(any::<i32>(), 0..9),
            tokens in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..64), 0..100),
        ) {
            let subject_tokens = tokens.into_iter().map(Bytes::from).collect();
            let filter = Filter { actors, datasets, actions, subject_tokens, ..Filter::default() };
            let words = of_filter(&filter);
            prop_assert!(!words.is_empty() && words.len() <= LEN_MAX);
            prop_assert_eq!(text_fault(words.as_bytes(), false), None);
        }
    }
}
