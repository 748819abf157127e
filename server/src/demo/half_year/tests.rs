//! The half-year is the same for the same seed, keeps the rules of the vocabulary, and tells the
//! story that it is to tell.

use std::collections::{BTreeMap, BTreeSet};

use access_ledger_proto::{
    event::validate,
    hash::sha256,
    source::Name,
    wire::{Access, Action, Boundary, LegalRequestOutcome, LegalRequestPhase, Outcome},
};
use bytes::Bytes;
use prost::Message as _;

use super::*;

fn days(seed: u64, count: u64) -> Vec<Day> {
    HalfYear::new(seed, count).collect()
}

fn events(days: &[Day]) -> impl Iterator<Item = (&'static str, &Event)> {
    days.iter().flat_map(|day| &day.happenings).filter_map(|happening| match &happening.what {
        What::Event(source, event) => Some((*source, &**event)),
        What::Rule(_) => None,
    })
}

fn accesses(days: &[Day]) -> impl Iterator<Item = (&Event, &Access)> {
    events(days).filter_map(|(_, event)| match &event.body {
        Some(Body::Access(access)) => Some((event, access)),
        _ => None,
    })
}

fn encoded(seed: u64) -> Vec<u8> {
    let days = days(seed, 500);
    events(&days).flat_map(|(_, event)| event.encode_to_vec()).collect()
}

#[test]
fn one_seed_tells_one_half_year() {
    assert_eq!(encoded(7), encoded(7));
    assert_ne!(encoded(7), encoded(8));
    // The bytes themselves: another machine, or another version of a crate, tells the same.
    assert_eq!(
        sha256(&encoded(7)).to_string(),
        "cea7b87ae9458424747a1f9abfc896dbff923934d4ff64c64a3941eeff4e9cab"
    );
}

#[test]
fn events_are_valid_and_in_order_within_their_day() {
    let days = days(1, 3_000);
    assert_eq!(days.len() as u64, DAYS);
    for (number, day) in (0..).zip(&days) {
        assert_eq!(day.number, number);
        let mut before = at(number, 0, 0);
        for Happening { time, what, .. } in &day.happenings {
            assert!((before..at(number + 1, 0, 0)).contains(time), "{what:?} at {time}");
            before = *time;
            let What::Event(source, event) = what else { continue };
            assert_eq!(event.occurred_at, Some(timestamp(*time)));
            validate(&event.encode_to_vec(), *time).unwrap();
            Name::parse(source.as_bytes()).unwrap();
            let approves = APPROVERS.iter().any(|(approver, _)| approver == source);
            assert!(approves || SOURCES.contains(source), "{source}");
        }
    }
}

#[test]
fn the_story_is_the_same_beside_as_many_everyday_accesses_as_asked_for() {
    let story = days(2, 0);
    let told: Vec<_> = events(&story).collect();
    assert!((500..2_000).contains(&accesses(&story).count()));
    for count in [1, 183, 1_000] {
        let days = days(2, count);
        let all: Vec<_> = events(&days).collect();
        assert!(told.iter().all(|one| all.contains(one)));
        let performed = |access: &(&Event, &Access)| access.1.outcome() != Outcome::Requested;
        let made = accesses(&days).filter(performed).count() - accesses(&story).count();
        assert_eq!(u64::try_from(made).unwrap(), count);
    }
}

#[test]
fn authorities_ask_as_often_as_is_published() {
    let days = days(3, 0);
    let requests = events(&days).filter_map(|(_, event)| match &event.body {
        Some(Body::LegalRequest(request)) => Some(request),
        _ => None,
    });
    let (mut accounts, mut produced) = (BTreeMap::new(), BTreeSet::new());
    for request in requests {
        if request.phase() == LegalRequestPhase::Received {
            accounts.insert(request.legal_request_id.clone(), request.accounts_specified);
        }
        let (full, part) = (LegalRequestOutcome::Full, LegalRequestOutcome::Partial);
        if [full, part].contains(&request.outcome()) {
            produced.insert(request.legal_request_id.clone());
        }
    }
    assert_eq!((accounts.len(), accounts.values().sum::<u64>(), produced.len()), (100, 107, 82));
}

#[test]
fn a_build_that_nobody_vetted_moves_more_and_more() {
    let days = days(4, ACCESSES);
    let vetted: Vec<_> = ["support-console@4.12.0", "moderation-tool@2.31.4"]
        .map(|build| Bytes::copy_from_slice(sha256(build.as_bytes()).as_bytes()))
        .to_vec();
    assert_eq!(datasets::build_digest("moderation-tool", "2.31.4"), vetted[1]);
    let mut by_month = [0_u64; 7];
    for day in &days {
        for (event, access) in accesses(std::slice::from_ref(day)) {
            let tool = event.tool.as_ref().unwrap();
            let leaks = tool.id == "moderation-tool" && tool.build_digest != vetted[1];
            assert_eq!(leaks, access.action() == Action::Copy && tool.id == "moderation-tool");
            by_month[usize::try_from(day.number / 31).unwrap()] +=
                u64::from(leaks) * access.records;
        }
    }
    assert_eq!(by_month[..2], [0, 0]);
    assert!(by_month[2..6].is_sorted() && by_month[5] > 50 * by_month[2], "{by_month:?}");
}

#[test]
fn the_half_year_is_mixed() {
    let days = days(4, ACCESSES);
    let mut outcomes = BTreeMap::new();
    let mut countries = BTreeSet::new();
    let (mut foreign, mut granted) = (0, 0);
    for (event, access) in accesses(&days) {
        *outcomes.entry(access.outcome()).or_insert(0_u32) += 1;
        assert_eq!(access.outcome() == Outcome::Denied, !access.deny_reason.is_empty());
        let person = event.on_behalf_of.as_ref().or(event.actor.as_ref()).unwrap();
        let protected = access.data[0].boundary() == Boundary::Protected;
        if person.office_country != HOME && protected {
            foreign += 1;
            granted += u32::from(!access.grant_id.is_empty());
        }
        countries.insert(person.office_country.clone());
    }
    let sources: BTreeSet<_> = events(&days).map(|(source, _)| source).collect();
    assert_eq!(sources.len(), SOURCES.len() + APPROVERS.len());
    assert_eq!(Vec::from_iter(countries), ["CN", "GB", "IE", "PH", "SG", "US"]);
    let count = |outcome| outcomes.get(&outcome).copied().unwrap_or_default();
    assert!((15_000..20_500).contains(&count(Outcome::Allowed)), "{outcomes:?}");
    assert!((200..2_500).contains(&count(Outcome::Denied)), "{outcomes:?}");
    assert!((5..200).contains(&count(Outcome::AllowedUnapproved)), "{outcomes:?}");
    assert!((3_000..10_000).contains(&foreign), "{foreign} foreign accesses");
    assert!(granted * 100 > foreign * 75, "{granted} grants for {foreign} foreign accesses");
}

#[test]
fn offices_work_by_day_and_rest_at_weekends() {
    let days = days(5, ACCESSES);
    let (mut by_hour, mut by_weekday) = ([0_u32; 24], [0_u32; 7]);
    for day in &days {
        for (event, _) in accesses(std::slice::from_ref(day)) {
            let actor = event.actor.as_ref().unwrap();
            let home = actor.kind() == PrincipalKind::Human && actor.office_country == HOME;
            let seconds = u64::try_from(event.occurred_at.unwrap().seconds).unwrap();
            by_hour[usize::try_from(seconds / 3_600 % 24).unwrap()] += u32::from(home);
            by_weekday[usize::try_from((day.number + 1) % 7).unwrap()] += u32::from(home);
        }
    }
    // 18:00 UTC is mid-morning at home, 12:00 UTC the end of the night; 5 is Saturday.
    assert!(by_hour[18] > 20 * by_hour[12], "{by_hour:?}");
    assert!(by_weekday[2] > 3 * by_weekday[5], "{by_weekday:?}");
}
