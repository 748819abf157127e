//! `custody`: how much of each dataset lies at which site, by the newest word on it before the end
//! of the period.
//!
//! The change is that of the records since the word before, in percent. Of a site only the last two
//! words are known, so a period that ends before both leaves it out.

use std::collections::BTreeMap;

use access_ledger_proto::wire::HoldingFacts;

use super::{
    Ground, Options,
    figures::{change, percent},
    grid::{Column, Row, number, text},
    period::time,
};

pub(super) const COLUMNS: [Column; 6] = [
    text("dataset"),
    text("site"),
    text("operator"),
    number("share of records"),
    text("as of"),
    number("change"),
];

/// What lies at a site, as known at the end of the period.
struct Held {
    dataset: String,
    site: String,
    operator: String,
    records: u64,
    as_of: u64,
    change: String,
}

pub(super) fn rows(options: &Options, ground: &dyn Ground) -> Vec<Row> {
    let mut held = Vec::new();
    ground.facts().holdings().each(|_, facts| held.extend(at(options.period.to(), facts)));
    let mut whole: BTreeMap<String, u64> = BTreeMap::new();
    for held in &held {
        let sum = whole.entry(held.dataset.clone()).or_default();
        *sum = sum.saturating_add(held.records);
    }
    held.sort_by(|one, other| (&one.dataset, &one.site).cmp(&(&other.dataset, &other.site)));
    let row = |held: Held| {
        let whole = whole.get(&held.dataset).copied().unwrap_or_default();
        let share = percent(held.records, whole);
        vec![held.dataset, held.site, held.operator, share, time(held.as_of), held.change]
    };
    held.into_iter().map(row).collect()
}

/// The newest word before a time.
fn at(end: u64, facts: &HoldingFacts) -> Option<Held> {
    let held = |records, as_of, change| Held {
        dataset: facts.dataset.clone(),
        site: facts.site.clone(),
        operator: facts.site_operator.clone(),
        records,
        as_of,
        change,
    };
    let has_previous = facts.previous_as_of != 0;
    if facts.as_of < end {
        let since = match has_previous {
            true => change(facts.records, facts.previous_records),
            false => String::new(),
        };
        return Some(held(facts.records, facts.as_of, since));
    }
    let fits = has_previous && facts.previous_as_of < end;
    fits.then(|| held(facts.previous_records, facts.previous_as_of, String::new()))
}
