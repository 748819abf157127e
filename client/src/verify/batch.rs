//! Batches, put together again from the stretches that runs cut them into.

use access_ledger_proto::{
    entry::Seal,
    error::SequenceGap,
    hash::{Digest, sha256_of_digests},
    position::{Index, count_of},
    source::SourceName,
};
use bytes::Bytes;

use super::{
    digest::{DigestedRun, Stretch},
    error::Fault,
};

/// Which bodies were seen among events that change no rule: bit n is the body with number n, the
/// highest one any other.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Bodies(u64);

impl Bodies {
    pub(super) const fn insert(&mut self, number: u32) {
        let bit = if number < Self::OTHER { number } else { Self::OTHER };
        self.0 |= 1 << bit;
    }

    const fn extend(&mut self, more: Self) {
        self.0 |= more.0;
    }

    /// Their numbers.
    pub(super) fn numbers(self) -> impl Iterator<Item = u32> {
        (0..=Self::OTHER).filter(move |bit| self.0 & 1 << bit != 0)
    }

    const OTHER: u32 = u64::BITS - 1;
}

/// A batch whose seal has not come yet.
#[derive(Clone, Debug)]
pub(super) struct OpenBatch {
    pub(super) source: SourceName,
    pub(super) first_index: Index,
    pub(super) first_seq: u64,
    /// At most [`Seal::COUNT_MAX`].
    pub(super) digests: Vec<Digest>,
    recorded_at: u64,
    notable: Vec<(Index, Bytes)>,
    ordinary: Bodies,
}

/// A batch with its seal.
#[derive(Debug)]
pub(super) struct SealedBatch {
    pub(super) source: SourceName,
    pub(super) first_index: Index,
    pub(super) first_seq: u64,
    /// How many entries it has, which its seal may contradict.
    pub(super) count: u64,
    pub(super) seal: Seal,
    /// Time of the last entry.
    pub(super) recorded_at: u64,
    /// SHA-256 of the joined event digests.
    pub(super) joined: Digest,
    /// Events that may change the rules, with their places.
    pub(super) notable: Vec<(Index, Bytes)>,
    /// Bodies of the other events.
    pub(super) ordinary: Bodies,
}

impl OpenBatch {
    /// Opens a batch that `stretch` begins and does not seal.
    pub(super) fn begin(run: &DigestedRun, stretch: &Stretch) -> Self {
        let mut open = Self {
            source: stretch.source.clone(),
            first_index: run.index(stretch.range.start),
            first_seq: stretch.first_seq,
            digests: Vec::new(),
            recorded_at: stretch.recorded_at,
            notable: Vec::new(),
            ordinary: Bodies::default(),
        };
        open.extend(run, stretch);
        open
    }

    /// Checks that `stretch`, at the start of a run, goes on with this batch.
    pub(super) fn admits(&self, stretch: &Stretch) -> Result<(), Fault> {
        if stretch.source != self.source {
            let (found, open) = (stretch.source.clone(), self.source.clone());
            return Err(Fault::Interrupted { found, open });
        }
        let expected = self.first_seq.saturating_add(count_of(self.digests.len()));
        if stretch.first_seq != expected {
            let (name, found) = (self.source.clone(), stretch.first_seq);
            return Err(Fault::Sequence(SequenceGap { name, found, expected }));
        }
        Ok(())
    }

    /// Takes up a stretch that was admitted.
    pub(super) fn extend(&mut self, run: &DigestedRun, stretch: &Stretch) {
        let digests = run.event_digests.get(stretch.range.clone()).unwrap_or_default();
        self.digests.extend_from_slice(digests);
        self.recorded_at = stretch.recorded_at;
        self.notable.extend(notable_events(run, stretch));
        self.ordinary.extend(stretch.ordinary);
    }

    /// Closes the batch.
    pub(super) fn sealed(self, seal: Seal) -> SealedBatch {
        SealedBatch {
            source: self.source,
            first_index: self.first_index,
            first_seq: self.first_seq,
            count: count_of(self.digests.len()),
            seal,
            recorded_at: self.recorded_at,
            joined: sha256_of_digests(&self.digests),
            notable: self.notable,
            ordinary: self.ordinary,
        }
    }
}

impl SealedBatch {
    /// A batch that lies in one run as a whole.
    pub(super) fn whole(run: &DigestedRun, stretch: &Stretch, seal: Seal) -> Self {
        Self {
            source: stretch.source.clone(),
            first_index: run.index(stretch.range.start),
            first_seq: stretch.first_seq,
            count: count_of(stretch.range.len()),
            seal,
            recorded_at: stretch.recorded_at,
            joined: stretch.joined,
            notable: notable_events(run, stretch).collect(),
            ordinary: stretch.ordinary,
        }
    }
}

fn notable_events<'a>(
    run: &'a DigestedRun,
    stretch: &'a Stretch,
) -> impl Iterator<Item = (Index, Bytes)> + 'a {
    let offsets = stretch.notable.iter();
    offsets.filter_map(|&offset| Some((run.index(offset), run.event(offset)?.clone())))
}

#[cfg(test)]
mod tests {
    use access_ledger_proto::{
        error::SourceError,
        wire::{self, event::Body},
    };

    use super::*;
    use crate::verify::{
        LogVerifier, Scope,
        honest::{Honest, access, event},
    };

    /// Not only the first event of a batch is of a kind that its source may record.
    #[test]
    fn every_body_of_a_batch_is_judged_however_the_log_is_cut() {
        let verdict = || event(9, Body::Authorization(wire::Authorization::default()));
        for place in 0..4 {
            let mut events: Vec<Bytes> = (0..3).map(access).collect();
            events.insert(place, verdict());
            let mut ledger = Honest::new();
            ledger.register("a");
            ledger.batch("a", events);
            for run_len in 1..=ledger.records.len() {
                let mut verifier = LogVerifier::new(ledger.signer.verifier(), Scope::Events);
                let mut runs = Vec::new();
                for (number, run) in ledger.records.chunks(run_len).enumerate() {
                    runs.push((Index(count_of(number * run_len)), run.to_vec()));
                }
                let violation = verifier.advance(runs).unwrap_err();
                let is_it = matches!(violation.what, Fault::Source(SourceError::Body { .. }));
                assert!(is_it, "{place} {run_len}: {violation}");
            }
        }
    }

    #[test]
    fn bodies_are_remembered_by_number() {
        let (mut bodies, mut more) = (Bodies::default(), Bodies::default());
        for number in [0, 16, 62, 63, 64, u32::MAX] {
            bodies.insert(number);
        }
        more.insert(17);
        bodies.extend(more);
        assert_eq!(bodies.numbers().collect::<Vec<_>>(), [0, 16, 17, 62, 63]);
    }
}
