//! Searches against a model: all events, each asked by `Criteria::matches`.

use access_ledger_proto::{
    entry::Entry,
    hash::sha256,
    position::{Index as Place, count_of},
    terms::Criteria,
    wire::{self, Filter, event::Body},
};
use proptest::prelude::*;
use prost::Message as _;
use prost_types::Timestamp;
use roaring::RoaringTreemap;

use super::{Index, SOURCES, ledger::Ledger, settle};
use crate::index::Search;

/// What one event says, as small numbers: so that random filters often meet random events.
#[derive(Clone, Debug)]
struct Say {
    actor: u8,
    datasets: Vec<u8>,
    action: i32,
    country: u8,
    tokens: Vec<u8>,
    grant: u8,
    body: u8,
    id: u8,
}

fn says() -> impl Strategy<Value = Say> {
    let lists = (prop::collection::vec(0..6_u8, 0..4), prop::collection::vec(any::<u8>(), 0..3));
    (0..4_u8, lists, 0..4_i32, 0..3_u8, 0..9_u8, 0..4_u8, any::<u8>()).prop_map(
        |(actor, (datasets, tokens), action, country, grant, body, id)| Say {
            actor,
            datasets,
            action,
            country,
            tokens,
            grant,
            body,
            id,
        },
    )
}

/// All ids begin alike, so only the events tell them apart.
fn event_id(id: u8) -> Vec<u8> {
    [vec![7; 15], vec![id]].concat()
}

fn encode(say: &Say) -> Vec<u8> {
    let data = |dataset: &u8| wire::Data {
        dataset: format!("d{dataset}"),
        boundary: i32::from(*dataset) - 1,
        subject_tokens: say.tokens.iter().map(|token| vec![*token; 16].into()).collect(),
        ..Default::default()
    };
    let grant_id = if say.grant < 3 { String::new() } else { format!("g{}", say.grant) };
    let body = match say.body {
        0 => Body::GrantChange(wire::GrantChange { grant_id, ..Default::default() }),
        1 => Body::Transfer(wire::Transfer {
            data: say.datasets.iter().map(data).collect(),
            grant_id,
            ..Default::default()
        }),
        _ => Body::Access(wire::Access {
            action: if say.action == 3 { 1_234_567 } else { say.action },
            data: say.datasets.iter().map(data).collect(),
            grant_id,
            ..Default::default()
        }),
    };
    let actor = wire::Principal {
        id: format!("u{}", say.actor),
        physical_country: ["US", "SG", ""][usize::from(say.country)].to_owned(),
        ..Default::default()
    };
    let event_id = event_id(say.id).into();
    wire::Event { event_id, actor: Some(actor), body: Some(body), ..Default::default() }
        .encode_to_vec()
}

/// Each part is there or not; an absent one does not restrict.
fn filters() -> impl Strategy<Value = Filter> {
    fn some<T: std::fmt::Debug + 'static>(
        values: impl Strategy<Value = T> + 'static,
    ) -> impl Strategy<Value = Vec<T>> {
        let values = values.boxed();
        prop_oneof![6 => Just(0_usize), 2 => Just(1), 1 => Just(3)]
            .prop_flat_map(move |count| prop::collection::vec(values.clone(), count))
    }
    let time = || prop::option::of(0..60_i64);
    let lists = (
        some((0..5_u8).prop_map(|actor| format!("u{actor}"))),
        some((0..7_u8).prop_map(|dataset| format!("d{dataset}"))),
        some(prop_oneof![0..4_i32, Just(1_234_567)]),
        some(prop::sample::select(vec!["US".to_owned(), "SG".to_owned()])),
        some(any::<u8>().prop_map(|token| vec![token; 16].into())),
        some((3..9_u8).prop_map(|grant| format!("g{grant}"))),
        some(prop::sample::select(SOURCES.map(str::to_owned).to_vec())),
        some(any::<u8>().prop_map(|id| event_id(id).into())),
    );
    (lists, some(-1..6_i32), time(), time()).prop_map(|(lists, boundaries, from, to)| {
        let (actors, datasets, actions, countries, tokens, grants, sources, ids) = lists;
        let at = |seconds| Timestamp { seconds, nanos: 0 };
        Filter {
            actors,
            datasets,
            actions,
            physical_countries: countries,
            subject_tokens: tokens,
            grant_ids: grants,
            sources,
            event_ids: ids,
            boundaries,
            from: from.map(at),
            to: to.map(at),
            ..Default::default()
        }
    })
}

/// A log of these events, a second between two batches.
fn ledger_of(batches: &[(usize, Vec<Say>)]) -> Ledger {
    let mut ledger = Ledger::new(&SOURCES);
    for (source, says) in batches {
        ledger.now += 1_000_000_000;
        let events: Vec<_> = says.iter().map(encode).collect();
        ledger.append(&[(SOURCES[*source], &events)]);
    }
    ledger
}

fn batches(most: usize) -> impl Strategy<Value = Vec<(usize, Vec<Say>)>> {
    let batch = (0..SOURCES.len(), prop::collection::vec(says(), 1..12));
    prop::collection::vec(batch, 1..most)
}

/// Pages through all hits.
fn hits(
    (ledger, index): (&Ledger, &Index),
    criteria: &Criteria,
    by_rule: Option<&RoaringTreemap>,
    (newest_first, hits_max): (bool, usize),
) -> Vec<u64> {
    let mut range = Place::GENESIS..ledger.reader.size().next_index();
    let mut found = Vec::new();
    loop {
        let by_rule = by_rule.cloned();
        let search = Search { criteria, by_rule, range, newest_first, hits_max };
        let page = index.search(&ledger.reader, &search).unwrap();
        assert!(page.indexes.len() <= hits_max);
        found.extend(page.indexes.iter().map(|index| index.0));
        if page.rest.is_empty() {
            return found;
        }
        range = page.rest;
    }
}

/// What the events themselves say.
fn expected(ledger: &Ledger, criteria: &Criteria, by_rule: Option<&RoaringTreemap>) -> Vec<u64> {
    let matches = |&at: &u64| {
        let record = ledger.reader.read(Place(at), 1, usize::MAX).unwrap().pop().unwrap();
        let entry = Entry::parse(&record.entry).unwrap();
        let event = record.event.map(|event| wire::Event::decode(event).unwrap());
        criteria.matches(entry.recorded_at, entry.source, event.as_ref())
            && by_rule.is_none_or(|indexes| indexes.contains(at))
    };
    (0..count_of(ledger.model.len())).filter(matches).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    #[test]
    fn any_filter_finds_what_the_events_say_in_both_orders_and_pages_of_any_size(
        block_entries in 1_u32..40,
        batches in batches(24),
        filters in prop::collection::vec(
            (filters(), prop::option::of(prop::collection::vec(0..150_u64, 0..60)), 1..20_usize),
            1..12),
    ) {
        let ledger = ledger_of(&batches);
        let (index, mut indexer) = ledger.index(block_entries);
        settle(&mut indexer)?;
        for (filter, by_rule, hits_max) in &filters {
            let criteria = Criteria::parse(filter).unwrap();
            let by_rule = by_rule.as_ref().map(RoaringTreemap::from_iter);
            let mut wanted = expected(&ledger, &criteria, by_rule.as_ref());
            let found = |newest| {
                hits((&ledger, &index), &criteria, by_rule.as_ref(), (newest, *hits_max))
            };
            prop_assert_eq!(found(false), wanted.clone(), "{:?}", filter);
            wanted.reverse();
            prop_assert_eq!(found(true), wanted, "{:?}", filter);
        }
    }
}

/// A log of some events of each kind.
pub(super) fn ledger_of_samples() -> Ledger {
    let say = |at: u8| Say {
        actor: at % 3,
        datasets: (0..at % 4).collect(),
        action: i32::from(at % 4),
        country: at % 3,
        tokens: vec![at, at / 2],
        grant: at % 9,
        body: at % 4,
        id: at,
    };
    let batch = |at: u8| (usize::from(at) % SOURCES.len(), vec![say(at), say(at + 100)]);
    ledger_of(&(0..20).map(batch).collect::<Vec<_>>())
}

#[test]
fn each_of_many_terms_is_found_as_written_and_as_merged() {
    // So many that a merged dictionary has pages on three levels.
    const EVENTS: u64 = 170;
    const TOKENS: u64 = 200;
    let token = |event: u64, at: u64| -> Vec<u8> {
        sha256(&(event * TOKENS + at).to_be_bytes()).as_ref()[..16].to_vec()
    };
    let event = |event: u64| {
        let subject_tokens = (0..TOKENS).map(|at| token(event, at).into()).collect();
        let data = vec![wire::Data { subject_tokens, ..Default::default() }];
        let body = Body::Access(wire::Access { data, ..Default::default() });
        wire::Event { body: Some(body), ..Default::default() }.encode_to_vec()
    };
    let mut ledger = Ledger::new(&SOURCES);
    ledger.append(&[("a", &(0..EVENTS).map(event).collect::<Vec<_>>())]);
    let (index, mut indexer) = ledger.index(20);
    settle(&mut indexer).unwrap();
    assert_eq!(ledger.block_files().iter().filter(|file| file.ends_with("-1")).count(), 1);
    let found = |token: Vec<u8>| {
        let filter = Filter { subject_tokens: vec![token.into()], ..Default::default() };
        hits((&ledger, &index), &Criteria::parse(&filter).unwrap(), None, (false, 3))
    };
    for at in (0..EVENTS * TOKENS).step_by(71) {
        let event = at / TOKENS;
        assert_eq!(found(token(event, at % TOKENS)), [event + 1]);
        assert!(found(token(EVENTS + event, at % TOKENS)).is_empty());
    }
}
