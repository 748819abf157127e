//! Cuts what is pulled behind seals, so that what is stored ends with a whole batch at any time.
//!
//! Also the place where lengths are checked that the verifier leaves alone and the storage takes
//! for granted.

use access_ledger_client::{pull::Run, verify::Record};
use access_ledger_proto::{
    entry::{Entry, Seal},
    position::{Index, count_of},
    segment::FRAME_HEADER_LEN,
};

use crate::{custodian::error::CopyError, storage::GroupFrames};

/// Holds back the records behind the last seal.
#[derive(Debug)]
pub(crate) struct Cutter {
    /// Of the first record held back, or the next one.
    first: Index,
    /// A batch without its seal.
    open: Vec<Record>,
}

impl Cutter {
    pub(crate) const fn new(first: Index) -> Self {
        Self { first, open: Vec::new() }
    }

    /// The index of the next record to push.
    pub(crate) fn next(&self) -> Index {
        self.first.plus(count_of(self.open.len()))
    }

    /// Takes the next run; gives back whole batches, if any are complete, that fit into one group.
    ///
    /// What cannot be a batch comes back as well: the verifier says what is wrong with it.
    pub(crate) fn push(&mut self, (first, records): Run) -> Result<Option<Run>, CopyError> {
        if first != self.next() {
            return Err(CopyError::OutOfPlace { found: first, wanted: self.next() });
        }
        let last = records.iter().rposition(ends_batch);
        let before = self.open.len();
        self.open.extend(records);
        let end = match last {
            Some(last) => before + last + 1,
            None if self.open.len() > usize::from(Seal::COUNT_MAX) => self.open.len(),
            None => {
                self.check_lengths(self.open.len())?;
                return Ok(None);
            }
        };
        self.check_lengths(end)?;
        Ok(Some(self.cut(end)))
    }

    /// What is held back, without its seal.
    pub(crate) fn flush(&mut self) -> Option<Run> {
        (!self.open.is_empty()).then(|| self.cut(self.open.len()))
    }

    fn cut(&mut self, end: usize) -> Run {
        let rest = self.open.split_off(end);
        let whole = std::mem::replace(&mut self.open, rest);
        let first = self.first;
        self.first = first.plus(count_of(whole.len()));
        (first, whole)
    }

    /// Checks that the first `end` records can be stored together.
    fn check_lengths(&self, end: usize) -> Result<(), CopyError> {
        let mut total = 0;
        for (index, record) in (self.first.0..).map(Index).zip(&self.open).take(end) {
            let bytes = record.event.as_ref().map_or(0, |event| event.len());
            if bytes > Entry::EVENT_LEN_MAX {
                return Err(CopyError::EventTooLarge { index, bytes });
            }
            total += FRAME_HEADER_LEN + record.entry.len() + bytes;
        }
        let limit = GroupFrames::LEN_MAX;
        if total > limit {
            return Err(CopyError::BatchTooLarge { index: self.first, limit });
        }
        Ok(())
    }
}

/// Whether a batch ends here. One that is malformed ends everything.
fn ends_batch(record: &Record) -> bool {
    Entry::parse(&record.entry).map_or(true, |entry| entry.seal.is_some())
}

#[cfg(test)]
mod tests {
    use access_ledger_proto::{hash::Digest, note::KeyId, source::Name};
    use bytes::Bytes;

    use super::*;

    fn record(index: u64, sealed: bool, event_len: usize) -> Record {
        let seal = sealed.then_some(Seal { count: 1, key_id: KeyId([0; 4]), signature: [0; 64] });
        let entry = Entry {
            index: Index(index),
            recorded_at: 1,
            prev: Digest::ZERO,
            event_digest: Digest::ZERO,
            source_seq: index + 1,
            source: Name::parse(b"s").unwrap(),
            seal,
        };
        Record { entry: entry.encode().into(), event: Some(Bytes::from(vec![1; event_len])) }
    }

    fn run(first: u64, seals: &[bool]) -> Run {
        let records = (first..).zip(seals).map(|(index, &sealed)| record(index, sealed, 3));
        (Index(first), records.collect())
    }

    #[test]
    fn whatever_comes_leaves_in_whole_batches() {
        let mut cutter = Cutter::new(Index(7));
        assert!(cutter.push(run(7, &[false, false])).unwrap().is_none());
        let (first, records) = cutter.push(run(9, &[false, true, true, false])).unwrap().unwrap();
        assert_eq!((first, records.len(), cutter.next()), (Index(7), 5, Index(13)));
        let (first, records) = cutter.push(run(13, &[true])).unwrap().unwrap();
        assert_eq!((first, records.len(), cutter.flush()), (Index(12), 2, None));
        let again = cutter.push(run(13, &[true]));
        assert!(matches!(
            again,
            Err(CopyError::OutOfPlace { found: Index(13), wanted: Index(14) })
        ));
    }

    #[test]
    fn what_no_ledger_admits_is_not_held_back_for_ever() {
        let mut cutter = Cutter::new(Index(0));
        let count = usize::from(Seal::COUNT_MAX);
        assert!(cutter.push(run(0, &vec![false; count])).unwrap().is_none());
        let (_, records) = cutter.push(run(count_of(count), &[false])).unwrap().unwrap();
        assert_eq!(records.len(), count + 1, "the verifier is to count them");

        let mut cutter = Cutter::new(Index(0));
        let large = |at: u64| record(at, false, Entry::EVENT_LEN_MAX);
        let refused = (0..300).find_map(|at| cutter.push((Index(at), vec![large(at)])).err());
        assert!(matches!(refused, Some(CopyError::BatchTooLarge { index: Index(0), .. })));

        let mut cutter = Cutter::new(Index(5));
        let refused = cutter.push((Index(5), vec![record(5, true, Entry::EVENT_LEN_MAX + 1)]));
        assert!(matches!(refused, Err(CopyError::EventTooLarge { index: Index(5), .. })));
        let malformed = Record { entry: Bytes::from_static(b"no entry"), event: None };
        let mut cutter = Cutter::new(Index(0));
        assert!(cutter.push((Index(0), vec![malformed])).unwrap().is_some());
    }
}
