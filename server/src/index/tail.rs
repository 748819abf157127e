//! The postings of the open block, in memory: entries that have no posting file yet.
//!
//! Holds at most one block's entries: sources as runs of neighbours, for a sealed batch is one run;
//! other terms once each, with the places that have them. That is usually 10 to 30 MB, and at most
//! a few times what the block's events hold in bytes.

use std::collections::{BTreeMap, HashMap};

use access_ledger_proto::{
    position::Index,
    source::{Name, SourceName},
    terms::{self, Criteria, Field},
    wire,
};
use rayon::prelude::*;
use roaring::RoaringBitmap;

use super::{
    error::IndexError,
    posting::{BlockWriter, Lookup, small},
};
use crate::storage::Record;

/// Entries of one source that are neighbours in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Run {
    /// The first of them.
    pub(crate) first: Index,
    /// The source's number of the first.
    pub(crate) first_number: u64,
    /// How many.
    pub(crate) count: u32,
}

impl Run {
    /// How many events to skip to come to the next run.
    pub(crate) fn len(&self) -> usize {
        usize::try_from(self.count).unwrap_or(usize::MAX)
    }
}

/// Postings of the entries from `first` on.
#[derive(Debug)]
pub(crate) struct Tail {
    first: Index,
    count: u64,
    sources: BTreeMap<SourceName, Vec<Run>>,
    /// By [`Field::place`]: each term with its places, ascending; `Source` is in `sources`.
    fields: [HashMap<Box<[u8]>, Vec<u16>>; Field::ALL.len()],
    /// The first bytes of each event's id, and its place.
    event_ids: Vec<(u32, u16)>,
}

/// Decodes the events of records, on all cores: `None` for one that was erased.
pub(crate) fn decode(records: &[Record]) -> Vec<Option<wire::Event>> {
    let decode = |record: &Record| {
        record.event.as_ref().map(|event| terms::decode(event).unwrap_or_default())
    };
    records.par_iter().with_min_len(DECODE_MIN).map(decode).collect()
}

/// The first bytes of an event's id, by which the index finds it; `None` when it is no id.
pub(crate) fn event_id_prefix(id: &[u8]) -> Option<u32> {
    let [first, second, third, fourth, ..] = *<&[u8; 16]>::try_from(id).ok()?;
    Some(u32::from_be_bytes([first, second, third, fourth]))
}

impl Tail {
    /// Without entries.
    pub(crate) fn new(first: Index) -> Self {
        Self {
            first,
            count: 0,
            sources: BTreeMap::new(),
            fields: Default::default(),
            event_ids: Vec::new(),
        }
    }

    /// The first entry that may be here.
    pub(crate) const fn first(&self) -> Index {
        self.first
    }

    /// The index that goes on.
    pub(crate) const fn end(&self) -> Index {
        self.first.plus(self.count)
    }

    /// Appends a run that starts at [`Tail::end`], with its events as [`decode`] gave them.
    pub(crate) fn push(&mut self, source: Name<'_>, run: Run, events: &[Option<wire::Event>]) {
        let places = self.count..self.count + u64::from(run.count);
        for (place, event) in places.clone().zip(events) {
            if let Some(event) = event {
                self.push_event(u16::try_from(place).unwrap_or(u16::MAX), event);
            }
        }
        self.count = places.end;
        let Some(runs) = self.sources.get_mut(source.as_str()) else {
            self.sources.insert(source.to_owned(), vec![run]);
            return;
        };
        match runs.last_mut() {
            Some(last) if last.first.plus(last.count.into()) == run.first => {
                last.count += run.count;
            }
            _ => runs.push(run),
        }
    }

    fn push_event(&mut self, place: u16, event: &wire::Event) {
        if let Some(prefix) = event_id_prefix(&event.event_id) {
            self.event_ids.push((prefix, place));
        }
        terms::terms(event, |field, term| {
            let Some(places) = self.fields.get_mut(field.place()) else { return };
            match places.get_mut(term) {
                Some(places) if places.last() == Some(&place) => {}
                Some(places) => places.push(place),
                None => drop(places.insert(term.into(), vec![place])),
            }
        });
    }

    /// Finds the entry of `source` that has this number.
    pub(crate) fn find(&self, source: Name<'_>, number: u64) -> Lookup {
        let runs = self.sources.get(source.as_str()).map(Vec::as_slice).unwrap_or_default();
        let after = runs.partition_point(|run| run.first_number <= number);
        let Some(run) = after.checked_sub(1).and_then(|at| runs.get(at)) else {
            return Lookup::Before;
        };
        let rank = number - run.first_number;
        if rank < run.count.into() { Lookup::At(run.first.plus(rank)) } else { Lookup::Beyond }
    }

    /// Places, relative to [`Tail::first`], of entries that meet all but time and rules, and whose
    /// events' ids may be among those asked for.
    pub(crate) fn matching(&self, criteria: &Criteria) -> RoaringBitmap {
        let mut matching = RoaringBitmap::new();
        matching.insert_range(..small(self.count));
        let asked = Field::ALL.into_iter().filter(|field| !criteria.terms(*field).is_empty());
        for field in asked {
            let mut places = RoaringBitmap::new();
            for term in criteria.terms(field) {
                self.add_places(field, term, &mut places);
            }
            matching &= places;
            if matching.is_empty() {
                return matching;
            }
        }
        if !criteria.event_ids().is_empty() {
            let prefixes: Vec<_> =
                criteria.event_ids().iter().filter_map(|id| event_id_prefix(id)).collect();
            let found = self.event_ids.iter().filter(|(prefix, _)| prefixes.contains(prefix));
            matching &= found.map(|(_, place)| u32::from(*place)).collect::<RoaringBitmap>();
        }
        matching
    }

    /// Writes the postings into a block of level 0 that starts where they start.
    pub(crate) fn write(&self, mut writer: BlockWriter<'_>) -> Result<(), IndexError> {
        let mut places = Vec::new();
        for (source, runs) in &self.sources {
            places.clear();
            for run in runs {
                places.extend(self.places_of(run).filter_map(|place| u16::try_from(place).ok()));
            }
            let first_number = runs.first().map_or(0, |run| run.first_number);
            writer.chunk(0, first_number, &places)?;
            writer.end_term(source.as_str().as_bytes())?;
        }
        writer.end_field(Field::Source)?;
        for (field, terms) in Field::ALL.into_iter().zip(&self.fields).skip(1) {
            let mut terms: Vec<_> = terms.iter().collect();
            terms.par_sort_unstable();
            for (term, places) in terms {
                match places[..] {
                    [place] => writer.single(term, place.into())?,
                    _ => {
                        writer.chunk(0, 0, places)?;
                        writer.end_term(term)?;
                    }
                }
            }
            writer.end_field(field)?;
        }
        let mut event_ids = self.event_ids.clone();
        event_ids.par_sort_unstable();
        for (prefix, place) in event_ids {
            writer.event_id(prefix, place.into())?;
        }
        writer.end_event_ids()?;
        Ok(writer.finish()?)
    }

    fn add_places(&self, field: Field, term: &[u8], places: &mut RoaringBitmap) {
        if field == Field::Source {
            let runs = str::from_utf8(term).ok().and_then(|name| self.sources.get(name));
            for run in runs.into_iter().flatten() {
                places.insert_range(self.places_of(run));
            }
        } else if let Some(found) = self.fields.get(field.place()).and_then(|terms| terms.get(term))
        {
            places.extend(found.iter().map(|&place| u32::from(place)));
        }
    }

    fn places_of(&self, run: &Run) -> std::ops::Range<u32> {
        let start = small(run.first.0 - self.first.0);
        start..start.saturating_add(run.count)
    }
}

/// Events that are decoded on one core: fewer are not worth another one.
const DECODE_MIN: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbouring_runs_become_one_and_numbers_are_found_by_rank() {
        let (a, b) = (Name::parse(b"a").unwrap(), Name::parse(b"b").unwrap());
        let mut tail = Tail::new(Index(10));
        tail.push(a, Run { first: Index(10), first_number: 5, count: 2 }, &[]);
        tail.push(a, Run { first: Index(12), first_number: 7, count: 1 }, &[]);
        tail.push(b, Run { first: Index(13), first_number: 1, count: 4 }, &[]);
        tail.push(a, Run { first: Index(17), first_number: 8, count: 1 }, &[]);
        assert_eq!(tail.sources.values().map(Vec::len).collect::<Vec<_>>(), [2, 1]);
        assert_eq!(tail.end(), Index(18));
        let found: Vec<_> = (4..=9).map(|number| tail.find(a, number)).collect();
        let at = |index| Lookup::At(Index(index));
        assert_eq!(found, [Lookup::Before, at(10), at(11), at(12), at(17), Lookup::Beyond]);
        assert_eq!(tail.find(Name::parse(b"c").unwrap(), 1), Lookup::Before);
    }
}
