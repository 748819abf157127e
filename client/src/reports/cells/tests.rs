//! Cells add up to the same, in whatever order and parts, and come back from their bytes.

use proptest::prelude::*;

use super::*;

/// One thing that happened, as a cell counts it.
#[derive(Clone, Debug)]
struct Happened {
    person: u16,
    name: u16,
    records: u64,
    time: u64,
}

fn happened() -> impl Strategy<Value = Happened> {
    // Few enough names that they meet, enough that some are left out.
    (0..60_u16, 0..60_u16, 0..=u64::MAX, 0..=u64::MAX)
        .prop_map(|(person, name, records, time)| Happened { person, name, records, time })
}

fn cell(happened: &[Happened]) -> Cell {
    let mut cell = Cell::default();
    for Happened { person, name, records, time } in happened {
        cell.count += 1;
        cell.records = cell.records.saturating_add(*records);
        cell.seen(*time);
        cell.stopped = cell.stopped.max(time / 2);
        cell.people.insert(&format!("u-{person}"));
        cell.datasets.insert(&format!("dataset {name}"));
        cell.tools.insert(&format!("tool {}", name / 2));
        cell.minutes.note(*time);
    }
    cell
}

fn merged(one: &Cell, other: &Cell) -> Cell {
    let mut sum = one.clone();
    sum.merge(other);
    sum
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn parts_add_up_to_the_whole_in_any_order_and_grouping(
        all in prop::collection::vec(happened(), 0..120), cuts in any::<[prop::sample::Index; 2]>(),
    ) {
        let mut cuts = cuts.map(|cut| cut.index(all.len() + 1));
        cuts.sort_unstable();
        let (a, b, c) =
            (cell(&all[..cuts[0]]), cell(&all[cuts[0]..cuts[1]]), cell(&all[cuts[1]..]));
        let whole = cell(&all);
        prop_assert_eq!(&merged(&merged(&a, &b), &c), &whole);
        prop_assert_eq!(&merged(&a, &merged(&b, &c)), &whole);
        prop_assert_eq!(&merged(&c, &merged(&b, &a)), &whole);
        prop_assert_eq!(&merged(&whole, &Cell::default()), &whole);
        prop_assert_eq!(&merged(&Cell::default(), &whole), &whole);
    }

    #[test]
    fn cells_come_back_from_their_bytes(all in prop::collection::vec(happened(), 0..120)) {
        let cell = cell(&all);
        prop_assert_eq!(Cell::parse(&cell.encode()), Some(cell));
    }

    #[test]
    fn no_bytes_make_a_cell_or_a_key_panic(bytes in prop::collection::vec(any::<u8>(), 0..80)) {
        if let Some(cell) = Cell::parse(&bytes) {
            prop_assert_eq!(merged(&cell, &cell).people, cell.people);
        }
        if let Some((report, day, group)) = CellKey::parse(&bytes).and_then(|key| key.read()) {
            let parts: Vec<_> = group.0.iter().map(String::as_str).collect();
            let key = CellKey::new(report, day, &parts);
            prop_assert_eq!(key.as_bytes(), bytes.as_slice());
        }
    }

    #[test]
    fn keys_of_different_groups_differ_and_lie_in_their_period(
        one in prop::collection::vec("[a\u{1f}]{0,3}", 0..4),
        other in prop::collection::vec("[a\u{1f}]{0,3}", 0..4),
        day in 0..20_u32,
    ) {
        let key = |group: &[String]| {
            let parts: Vec<_> = group.iter().map(String::as_str).collect();
            CellKey::new(Report::Flows, Day(day), &parts)
        };
        prop_assert_eq!(key(&one) == key(&other), one == other);
        let range = CellKey::range(Report::Flows, Period::new(Day(5), Day(10)).unwrap());
        let is_inside = range.contains(&key(&one).as_bytes().to_vec());
        prop_assert_eq!(is_inside, (5..10).contains(&day));
        let read = key(&one).read().unwrap();
        prop_assert_eq!(read, (Report::Flows, Day(day), Group(one)));
    }
}

#[test]
fn what_was_counted_in_parts_makes_the_same_cells() {
    let count = |cells: &mut Cells, days: Range<u32>| {
        for day in days {
            for group in ["a", "b"] {
                cells.change(Report::Flows, Day(day), &[group], |cell| cell.count += 1);
            }
        }
    };
    let (mut whole, mut first, mut second) = (Cells::default(), Cells::default(), Cells::default());
    count(&mut whole, 0..8);
    count(&mut first, 0..5);
    count(&mut second, 5..8);
    second.merge(first);
    assert_eq!(second.len(), 16);
    assert_eq!(second.by_day(), whole.by_day());
    let period = Period::new(Day(2), Day(4)).unwrap();
    let totals = second.of(Report::Flows, period).by_group();
    let counts: Vec<_> = totals.iter().map(|(group, cell)| (group.part(0), cell.count)).collect();
    assert_eq!(counts, [("a", 2), ("b", 2)]);
    assert!(second.of(Report::Sources, period).is_empty());
    assert_eq!(whole.drain(), second.drain());
    assert!(whole.is_empty());
}

#[test]
fn names_beyond_the_bound_are_counted() {
    let mut names = Names::default();
    for name in 0..40 {
        names.insert(&format!("{name:02}"));
    }
    names.insert("39");
    names.insert("");
    assert_eq!((names.count(), names.iter().count()), (40, Names::KEPT_MAX));
    assert!(names.listed().ends_with("30, 31, +8"), "{}", names.listed());
}

#[test]
fn beyond_the_bound_people_are_estimated_within_three_percent() {
    const PEOPLE: u64 = 100_000;
    let (mut one, mut other) = (Distinct::default(), Distinct::default());
    for person in 0..PEOPLE {
        let set = if person % 2 == 0 { &mut one } else { &mut other };
        set.insert(&person.to_string());
    }
    one.merge(&other);
    assert_eq!(one.smallest.len(), Distinct::EXACT_MAX);
    assert!(one.count().abs_diff(PEOPLE) < PEOPLE * 3 / 100, "{}", one.count());
}

#[test]
fn minutes_tell_when_there_was_anything() {
    let mut minutes = Minutes::default();
    minutes.note(0);
    minutes.note(61_000_000_000);
    minutes.note(super::super::period::DAY_NANOS * 3 - 1);
    assert_eq!(minutes.iter().collect::<Vec<_>>(), [0, 1, 1_439]);
}
