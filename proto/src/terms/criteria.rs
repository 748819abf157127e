//! A filter, checked, and whether an entry meets it.

use std::collections::BTreeSet;

use prost_types::Timestamp;

use super::{BODY_FIRST, BODY_NAMES, Field, number_term, terms};
use crate::{
    error::{FilterError, FilterFault},
    source::Name,
    wire::{self, Filter},
};

/// What entries must have to be found: a [`Filter`] that was checked.
///
/// Of each field that is asked for, an entry has one of the values; and so for all fields.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Criteria {
    /// By [`Field::place`]: the terms asked for, ascending; empty where any will do.
    terms: [Vec<Vec<u8>>; Field::ALL.len()],
    event_ids: BTreeSet<[u8; EVENT_ID_LEN]>,
    rules: Vec<String>,
    /// `recorded_at` in nanoseconds since the Unix epoch: from the first, before the second.
    pub recorded: (u64, u64),
}

impl Criteria {
    /// Most values of one field.
    pub const VALUES_MAX: usize = 100;

    /// Checks a filter.
    ///
    /// # Errors
    ///
    /// [`FilterError`] names the first field that is malformed.
    pub fn parse(filter: &Filter) -> Result<Self, FilterError> {
        let mut criteria = Self {
            terms: Default::default(),
            event_ids: BTreeSet::new(),
            rules: filter.rules.clone(),
            recorded: (
                nanos("filter.from", filter.from.as_ref())?.unwrap_or(0),
                nanos("filter.to", filter.to.as_ref())?.unwrap_or(u64::MAX),
            ),
        };
        criteria.add_names(filter)?;
        criteria.add_countries(filter)?;
        criteria.add_numbers(filter)?;
        criteria.add_ids(filter)?;
        Ok(criteria)
    }

    /// The terms asked for in a field, ascending; empty: any will do.
    #[must_use]
    pub fn terms(&self, field: Field) -> &[Vec<u8>] {
        self.terms.get(field.place()).map(Vec::as_slice).unwrap_or_default()
    }

    /// The event ids asked for; empty: any will do.
    #[must_use]
    pub const fn event_ids(&self) -> &BTreeSet<[u8; EVENT_ID_LEN]> {
        &self.event_ids
    }

    /// The rules of which an entry must have a finding; empty: it need not have any. Which it has
    /// does not follow from the entry, so [`Criteria::matches`] leaves it to the caller.
    #[must_use]
    pub fn rules(&self) -> &[String] {
        &self.rules
    }

    /// Whether an entry meets all but the rules. An event that was erased, `None`, meets only what
    /// the entry tells: source and time.
    #[must_use]
    pub fn matches(&self, recorded_at: u64, source: Name<'_>, event: Option<&wire::Event>) -> bool {
        let (from, to) = self.recorded;
        if recorded_at < from || recorded_at >= to || !self.has_event_id(event) {
            return false;
        }
        let mut missing = self.asked();
        let mut meet = |field: Field, term: &[u8]| {
            let bit = 1_u32 << field.place();
            let wanted = self.terms(field);
            if missing & bit != 0 && wanted.binary_search_by(|found| (**found).cmp(term)).is_ok() {
                missing &= !bit;
            }
        };
        meet(Field::Source, source.as_str().as_bytes());
        if let Some(event) = event {
            terms(event, meet);
        }
        missing == 0
    }

    /// Whether an event has one of the ids asked for.
    #[must_use]
    pub fn has_event_id(&self, event: Option<&wire::Event>) -> bool {
        let is_asked = |event: &wire::Event| {
            let id = <[u8; EVENT_ID_LEN]>::try_from(&event.event_id[..]);
            id.is_ok_and(|id| self.event_ids.contains(&id))
        };
        self.event_ids.is_empty() || event.is_some_and(is_asked)
    }

    /// Bit n for [`Field::ALL`]`[n]`: the fields that are asked for.
    fn asked(&self) -> u32 {
        let asked = Field::ALL.into_iter().filter(|field| !self.terms(*field).is_empty());
        asked.fold(0, |bits, field| bits | 1 << field.place())
    }

    fn add_names(&mut self, filter: &Filter) -> Result<(), FilterError> {
        let names = [
            ("filter.actors", Field::Actor, &filter.actors),
            ("filter.entities", Field::Entity, &filter.entities),
            ("filter.tools", Field::Tool, &filter.tools),
            ("filter.datasets", Field::Dataset, &filter.datasets),
            ("filter.regions", Field::Region, &filter.regions),
            ("filter.grant_ids", Field::Grant, &filter.grant_ids),
            ("filter.legal_request_ids", Field::LegalRequest, &filter.legal_request_ids),
            ("filter.break_glass_ids", Field::BreakGlass, &filter.break_glass_ids),
        ];
        for (name, field, values) in names {
            self.add(name, field, values, |value| text(value, TEXT_LEN_MAX))?;
        }
        self.add("filter.sources", Field::Source, &filter.sources, |value| {
            let name = Name::parse(value.as_bytes());
            name.map_err(|_| FilterFault::Source { found: value.clone() })?;
            Ok(value.clone().into_bytes())
        })?;
        check_count("filter.rules", filter.rules.len())?;
        let rules = filter.rules.iter().try_for_each(|rule| text(rule, TEXT_LEN_MAX).map(drop));
        rules.map_err(|fault| FilterError { field: "filter.rules", fault })
    }

    fn add_countries(&mut self, filter: &Filter) -> Result<(), FilterError> {
        let countries = [
            ("filter.entity_countries", Field::EntityCountry, &filter.entity_countries),
            ("filter.office_countries", Field::OfficeCountry, &filter.office_countries),
            ("filter.physical_countries", Field::PhysicalCountry, &filter.physical_countries),
            ("filter.jurisdictions", Field::Jurisdiction, &filter.jurisdictions),
            ("filter.place_countries", Field::PlaceCountry, &filter.place_countries),
        ];
        for (name, field, values) in countries {
            self.add(name, field, values, |value| {
                if value.len() == 2 && value.bytes().all(|byte| byte.is_ascii_uppercase()) {
                    return Ok(value.clone().into_bytes());
                }
                Err(FilterFault::Country { found: value.clone() })
            })?;
        }
        Ok(())
    }

    fn add_numbers(&mut self, filter: &Filter) -> Result<(), FilterError> {
        let numbers = [
            ("filter.boundaries", Field::Boundary, &filter.boundaries),
            ("filter.categories", Field::Category, &filter.categories),
            ("filter.actions", Field::Action, &filter.actions),
            ("filter.outcomes", Field::Outcome, &filter.outcomes),
            ("filter.purposes", Field::Purpose, &filter.purposes),
        ];
        for (name, field, values) in numbers {
            self.add(name, field, values, |&value| Ok(number_term(value).to_vec()))?;
        }
        self.add("filter.bodies", Field::Body, &filter.bodies, |value| {
            let kinds = (BODY_FIRST..).zip(BODY_NAMES);
            let number = kinds.into_iter().find(|(_, name)| name == value);
            let (number, _) = number.ok_or_else(|| FilterFault::Body { found: value.clone() })?;
            Ok(number.to_be_bytes().to_vec())
        })
    }

    fn add_ids(&mut self, filter: &Filter) -> Result<(), FilterError> {
        self.add("filter.subject_tokens", Field::SubjectToken, &filter.subject_tokens, |token| {
            check_len(token.len(), 1, SUBJECT_TOKEN_LEN_MAX)?;
            Ok(token.to_vec())
        })?;
        check_count("filter.event_ids", filter.event_ids.len())?;
        for id in &filter.event_ids {
            let fault = FilterFault::Len { len: id.len(), min: EVENT_ID_LEN, max: EVENT_ID_LEN };
            let id = <[u8; EVENT_ID_LEN]>::try_from(&id[..]);
            self.event_ids
                .insert(id.map_err(|_| FilterError { field: "filter.event_ids", fault })?);
        }
        Ok(())
    }

    fn add<T>(
        &mut self,
        name: &'static str,
        field: Field,
        values: &[T],
        term: impl Fn(&T) -> Result<Vec<u8>, FilterFault>,
    ) -> Result<(), FilterError> {
        check_count(name, values.len())?;
        let terms: Result<Vec<_>, _> = values.iter().map(term).collect();
        let mut terms = terms.map_err(|fault| FilterError { field: name, fault })?;
        terms.sort_unstable();
        terms.dedup();
        if let Some(wanted) = self.terms.get_mut(field.place()) {
            *wanted = terms;
        }
        Ok(())
    }
}

fn text(value: &str, max: usize) -> Result<Vec<u8>, FilterFault> {
    check_len(value.len(), 1, max)?;
    Ok(value.as_bytes().to_vec())
}

const fn check_len(len: usize, min: usize, max: usize) -> Result<(), FilterFault> {
    if len < min || len > max {
        return Err(FilterFault::Len { len, min, max });
    }
    Ok(())
}

const fn check_count(field: &'static str, count: usize) -> Result<(), FilterError> {
    if count > Criteria::VALUES_MAX {
        return Err(FilterError { field, fault: FilterFault::Count { count } });
    }
    Ok(())
}

/// Nanoseconds since the Unix epoch; times before it are as good as the epoch, for no entry is.
fn nanos(field: &'static str, time: Option<&Timestamp>) -> Result<Option<u64>, FilterError> {
    let Some(time) = time else { return Ok(None) };
    let nanos = match u32::try_from(time.nanos) {
        Ok(nanos @ 0..=999_999_999) => u64::from(nanos),
        _ => return Err(FilterError { field, fault: FilterFault::Time { nanos: time.nanos } }),
    };
    let Ok(seconds) = u64::try_from(time.seconds) else { return Ok(Some(0)) };
    Ok(Some(seconds.saturating_mul(1_000_000_000).saturating_add(nanos)))
}

/// Bytes of an event's id.
const EVENT_ID_LEN: usize = 16;

/// Bytes of the longest text in an event that is found by (`rules.proto`).
const TEXT_LEN_MAX: usize = 256;

/// Bytes of the longest subject token (`event.proto`).
const SUBJECT_TOKEN_LEN_MAX: usize = 64;
