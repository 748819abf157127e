//! The postings of the open block, in memory: entries that have no posting file yet.
//!
//! Holds at most one block's entries, as runs of neighbours: a sealed batch is one run.

use std::collections::BTreeMap;

use access_ledger_proto::{
    position::Index,
    source::{Name, SourceName},
};
use roaring::RoaringBitmap;

use super::{
    error::IndexError,
    posting::{BlockWriter, Field, Lookup, small},
};

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

/// Postings of the entries from `first` on.
#[derive(Debug)]
pub(crate) struct Tail {
    first: Index,
    count: u64,
    sources: BTreeMap<SourceName, Vec<Run>>,
}

impl Tail {
    /// Without entries.
    pub(crate) const fn new(first: Index) -> Self {
        Self { first, count: 0, sources: BTreeMap::new() }
    }

    /// The first entry that may be here.
    pub(crate) const fn first(&self) -> Index {
        self.first
    }

    /// The index that goes on.
    pub(crate) const fn end(&self) -> Index {
        self.first.plus(self.count)
    }

    /// Appends a run that starts at [`Tail::end`].
    pub(crate) fn push(&mut self, source: Name<'_>, run: Run) {
        self.count += u64::from(run.count);
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

    /// Writes the postings into a block of level 0 that starts where they start.
    pub(crate) fn write(&self, mut writer: BlockWriter<'_>) -> Result<(), IndexError> {
        let mut bytes = Vec::new();
        for (source, runs) in &self.sources {
            let mut bitmap = RoaringBitmap::new();
            for run in runs {
                let start = small(run.first.0 - self.first.0);
                bitmap.insert_range(start..start.saturating_add(run.count));
            }
            bitmap.optimize();
            bytes.clear();
            // Writing to memory does not fail.
            let written = bitmap.serialize_into(&mut bytes);
            debug_assert!(written.is_ok());
            let first_number = runs.first().map_or(0, |run| run.first_number);
            writer.chunk(0, first_number, small(bitmap.len()), &bytes)?;
            writer.end_term(source.as_str().as_bytes())?;
        }
        writer.end_field(Field::Source)?;
        Ok(writer.finish()?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbouring_runs_become_one_and_numbers_are_found_by_rank() {
        let (a, b) = (Name::parse(b"a").unwrap(), Name::parse(b"b").unwrap());
        let mut tail = Tail::new(Index(10));
        tail.push(a, Run { first: Index(10), first_number: 5, count: 2 });
        tail.push(a, Run { first: Index(12), first_number: 7, count: 1 });
        tail.push(b, Run { first: Index(13), first_number: 1, count: 4 });
        tail.push(a, Run { first: Index(17), first_number: 8, count: 1 });
        assert_eq!(tail.sources.values().map(Vec::len).collect::<Vec<_>>(), [2, 1]);
        assert_eq!(tail.end(), Index(18));
        let found: Vec<_> = (4..=9).map(|number| tail.find(a, number)).collect();
        let at = |index| Lookup::At(Index(index));
        assert_eq!(found, [Lookup::Before, at(10), at(11), at(12), at(17), Lookup::Beyond]);
        assert_eq!(tail.find(Name::parse(b"c").unwrap(), 1), Lookup::Before);
    }
}
