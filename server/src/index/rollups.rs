//! What reports count, by day and by month, as rows of the state.
//!
//! The entries of the open block are counted in memory; at its end that is added to the days'
//! pages. A month's page is made once, when no entry can fall into it any more: an event counts for
//! the day that it happened on, which the fold believes to lie at most [`LATE_NANOS_MAX`] before
//! its recording, and times of recording do not run backwards. So a report over half a year reads
//! a few pages a month instead of hundreds.
//!
//! A page holds the cells of one report and day or month:
//!
//! | part | bytes | |
//! |---|---|---|
//! | group length | 4 | |
//! | group | | a cell's key without report and day |
//! | cell length | 4 | |
//! | cell | | |

use std::{
    collections::{BTreeMap, btree_map::Entry},
    ops::Range,
};

use access_ledger_client::reports::{Cell, CellKey, Cells, Day, Period, Report, Reports};
use access_ledger_proto::{facts::LATE_NANOS_MAX, position::memory_len};
use jiff::{ToSpan as _, civil::Date};

use super::{
    error::IndexError,
    posting::take,
    state::{Draft, State},
};

/// Report and day: what the keys of a day's cells begin with.
type DayKey = [u8; 5];

/// The cells of one report and day, by the rest of their keys.
type Page = BTreeMap<Vec<u8>, Cell>;

/// Adds to `draft` what was counted between two watermarks, the newer of which was recorded at
/// `now`, the older at `before`.
///
/// # Errors
///
/// [`IndexError::State`] when the store refuses or is damaged.
pub(super) fn save(
    state: &State,
    draft: &mut Draft<'_>,
    recent: &Cells,
    (before, now): (u64, u64),
) -> Result<(), IndexError> {
    let mut days: BTreeMap<DayKey, Page> = BTreeMap::new();
    for (key, cell) in recent.clone().drain() {
        let Some((&day, group)) = key.as_bytes().split_first_chunk() else { continue };
        let page = match days.entry(day) {
            Entry::Occupied(page) => page.into_mut(),
            Entry::Vacant(page) => page.insert(read(state, &page_key(DAYS, day))?),
        };
        page.entry(group.to_vec()).or_default().merge(&cell);
    }
    for (day, page) in &days {
        draft.put(&page_key(DAYS, *day), Some(&encode(page)))?;
    }
    for month in closed(before, now) {
        for report in Report::ALL.into_iter().filter(|report| is_monthly(*report)) {
            let page = month_page(state, &days, report, month)?;
            if !page.is_empty() {
                let first = day_key(report, Day(month.days().start));
                draft.put(&page_key(MONTHS, first), Some(&encode(&page)))?;
            }
        }
    }
    Ok(())
}

/// All days of a month, of which `changed` are newer than the saved ones.
fn month_page(
    state: &State,
    changed: &BTreeMap<DayKey, Page>,
    report: Report,
    month: Period,
) -> Result<Page, IndexError> {
    let key = |day| day_key(report, Day(day));
    let days = key(month.days().start)..key(month.days().end);
    let (mut total, mut problem) = (Page::new(), Ok(()));
    for (_, page) in changed.range(days.clone()) {
        add(&mut total, page);
    }
    let saved = page_key(DAYS, days.start)..page_key(DAYS, days.end);
    state.range(saved, &mut |key, page| {
        let is_newer = key
            .get(1..)
            .and_then(|day| day.try_into().ok())
            .is_some_and(|day: DayKey| changed.contains_key(&day));
        if !is_newer {
            problem = parse_page(page).map(|page| add(&mut total, &page));
        }
        problem.is_ok()
    })?;
    problem.map(|()| total)
}

/// The saved cells of a report in a period; those of whole months, which were closed when `now` was
/// recorded, as if of the month's first day.
///
/// # Errors
///
/// [`IndexError::State`] when the store refuses or is damaged.
pub(super) fn load(
    state: &State,
    report: Report,
    period: Period,
    now: u64,
) -> Result<Cells, IndexError> {
    let mut cells = Cells::default();
    let days = period.days();
    let months = if is_monthly(report) { whole_months(&days, now) } else { days.start..days.start };
    let parts =
        [(DAYS, days.start..months.start), (MONTHS, months.clone()), (DAYS, months.end..days.end)];
    for (prefix, days) in parts {
        let key = |day| page_key(prefix, day_key(report, Day(day)));
        let mut problem = Ok(());
        state.range(key(days.start)..key(days.end), &mut |key, page| {
            problem = add_page(&mut cells, key.get(1..).unwrap_or_default(), page);
            problem.is_ok()
        })?;
        problem?;
    }
    Ok(cells)
}

/// The days of those months that lie in `days` as a whole, and that no entry falls into any more
/// when `now` was recorded. Empty, at the beginning, when there are none.
fn whole_months(days: &Range<u32>, now: u64) -> Range<u32> {
    let open = Day::of(now.saturating_sub(LATE_NANOS_MAX));
    let start = match month_of(Day(days.start)) {
        Some(month) if month.days().start == days.start => days.start,
        Some(month) => month.days().end,
        None => days.end,
    };
    let end = month_of(open.min(Day(days.end))).map_or(days.start, |month| month.days().start);
    if start < end { start..end } else { days.start..days.start }
}

/// Adds the cells of a page, whose key begins with report and day.
fn add_page(cells: &mut Cells, day: &[u8], page: &[u8]) -> Result<(), IndexError> {
    for (group, cell) in parse_page(page)? {
        let key = CellKey::parse(&[day, &group].concat()).ok_or_else(malformed)?;
        cells.add(key, &cell);
    }
    Ok(())
}

/// Months that no entry falls into any more when `now` was recorded, and did when `before` was.
fn closed(before: u64, now: u64) -> impl Iterator<Item = Period> {
    let first = month_of(Day::of(before.saturating_sub(LATE_NANOS_MAX)));
    let next = |month: &Period| month_of(Day(month.days().end));
    std::iter::successors(first, next)
        .take_while(move |month| is_closed(*month, now))
        .skip_while(move |month| is_closed(*month, before))
}

/// Whether months are added up.
const fn is_monthly(report: Report) -> bool {
    Reports::ALL.contains(report) && !report.tells_days_apart()
}

/// Whether all that will be recorded from `now` on happened later.
fn is_closed(month: Period, now: u64) -> bool {
    month.to().saturating_add(LATE_NANOS_MAX) <= now
}

/// The calendar month of a day; `None` beyond the year 9999.
fn month_of(day: Day) -> Option<Period> {
    let date = Date::constant(1970, 1, 1).checked_add(i64::from(day.0).days()).ok()?;
    let first = day.0.checked_sub(u32::try_from(date.day()).ok()? - 1)?;
    let days = u32::try_from(date.days_in_month()).ok()?;
    Period::new(Day(first), Day(first + days)).ok()
}

fn day_key(report: Report, day: Day) -> DayKey {
    let [d0, d1, d2, d3] = day.0.to_be_bytes();
    [report.tag(), d0, d1, d2, d3]
}

fn page_key(prefix: u8, key: DayKey) -> Vec<u8> {
    [&[prefix], &key[..]].concat()
}

fn add(total: &mut Page, page: &Page) {
    for (group, cell) in page {
        total.entry(group.clone()).or_default().merge(cell);
    }
}

fn read(state: &State, key: &[u8]) -> Result<Page, IndexError> {
    state.get(key)?.map_or_else(|| Ok(Page::new()), |page| parse_page(&page))
}

fn parse_page(mut rest: &[u8]) -> Result<Page, IndexError> {
    let mut page = Page::new();
    while !rest.is_empty() {
        let (group, cell) = parse(&mut rest).ok_or_else(malformed)?;
        page.insert(group, cell);
    }
    Ok(page)
}

fn parse(rest: &mut &[u8]) -> Option<(Vec<u8>, Cell)> {
    let group = take_part(rest)?.to_vec();
    Some((group, Cell::parse(take_part(rest)?)?))
}

fn take_part<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let length = memory_len(u32::from_be_bytes(take(rest)?).into())?;
    let (part, after) = rest.split_at_checked(length)?;
    *rest = after;
    Some(part)
}

fn encode(page: &Page) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (group, cell) in page {
        for part in [group, &cell.encode()] {
            // Both are far below 4 GiB.
            bytes.extend_from_slice(&u32::try_from(part.len()).unwrap_or(u32::MAX).to_be_bytes());
            bytes.extend_from_slice(part);
        }
    }
    bytes
}

fn malformed() -> IndexError {
    IndexError::Facts { problem: "malformed page of a report".into() }
}

const DAYS: u8 = b'd';

const MONTHS: u8 = b'n';

#[cfg(test)]
mod tests {
    use access_ledger_proto::{hash::Digest, position::Size};
    use proptest::prelude::*;

    use super::*;
    use crate::index::{posting::Layout, state::Watermark};

    const HOUR: u64 = 3_600_000_000_000;

    /// What cells count, over all days.
    fn totals(mut cells: Cells) -> BTreeMap<Vec<u8>, Cell> {
        let mut totals = Page::new();
        for (key, cell) in cells.drain() {
            let group = key.as_bytes().get(5..).unwrap_or_default().to_vec();
            totals.entry(group).or_default().merge(&cell);
        }
        totals
    }

    fn state(folder: &std::path::Path) -> State {
        State::reset(folder, &Layout { origin: Digest::from_bytes([0; 32]), block_entries: 1 })
            .unwrap()
    }

    fn count(cells: &mut Cells, day: u32, group: &str) {
        let change = |cell: &mut Cell| cell.count += 1;
        cells.change(Report::Flows, Day(day), &[group], change);
        cells.change(Report::Sources, Day(day), &["other"], change);
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

        #[test]
        fn saved_cells_add_up_over_any_period(
            start in 18_000_u32..19_000,
            blocks in prop::collection::vec(
                prop::collection::vec((0_u64..24 * 9, 0_u64..=24, 0..3_usize), 1..20), 1..30),
            periods in prop::collection::vec((0_u32..300, 1_u32..300), 1..20),
        ) {
            let folder = tempfile::tempdir().unwrap();
            let state = state(folder.path());
            let mut whole = Cells::default();
            let mut now = Day(start).start();
            for block in blocks {
                let (mut recent, before) = (Cells::default(), now);
                for (pause, late, group) in block {
                    now += pause * HOUR / 4;
                    // Nothing before the first entry, either.
                    let day = Day::of(now - late * HOUR);
                    for cells in [&mut recent, &mut whole] {
                        count(cells, day.0, ["a", "b", "c"][group]);
                    }
                }
                let mut draft = state.draft().unwrap();
                save(&state, &mut draft, &recent, (before, now)).unwrap();
                let size = Size(1);
                draft.apply(&Watermark { size, recorded_at: now, ..Watermark::START }).unwrap();
            }
            for (first, days) in periods {
                let first = Day(start - 20 + first);
                let period = Period::new(first, Day(first.0 + days)).unwrap();
                let found = load(&state, Report::Flows, period, now).unwrap();
                prop_assert_eq!(totals(found), totals(whole.of(Report::Flows, period)));
            }
            // Which is told day by day.
            let ever = Period::new(Day(0), Day(u32::MAX)).unwrap();
            let mut found = load(&state, Report::Sources, ever, now).unwrap();
            prop_assert_eq!(found.drain(), whole.of(Report::Sources, ever).drain());
        }
    }

    #[test]
    fn months_are_read_as_one_page_once_nothing_can_come_to_them() {
        // 2026-01-01 and the months that follow.
        let [january, february, march] = [20_454, 20_485, 20_513];
        let end = |day| Day(day).start() + LATE_NANOS_MAX;
        assert_eq!(whole_months(&(january..march), end(march)), january..march);
        assert_eq!(whole_months(&(january..march), end(march) - 1), january..february);
        assert_eq!(whole_months(&(january + 1..march + 5), end(march + 40)), february..march);
        assert_eq!(whole_months(&(january + 1..march - 1), end(march)), january + 1..january + 1);
        assert_eq!(whole_months(&(january..january + 9), end(march)), january..january);
        let closed = |before, now| -> Vec<_> {
            closed(before, now).map(|month| month.days().start).collect()
        };
        assert_eq!(closed(end(february) - 1, end(march)), [january, february]);
        assert_eq!(closed(end(february), end(march)), [february]);
        assert!(closed(end(february), end(march) - 1).is_empty());
    }
}
