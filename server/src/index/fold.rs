//! What the index computes from the log, folded over it from entry 0.

use std::collections::BTreeSet;

use access_ledger_proto::{
    entry::{Entry, Seal},
    error::SourceError,
    event::{self, Body},
    facts::{sequences::Sequences, sources::Sources},
    position::{Index, Size},
    source::{Name, SourceName},
    wire,
};
use prost::Message as _;

use super::{
    error::IndexError,
    findings::FindingLog,
    registry,
    state::{Draft, State, Watermark},
    tail::Run,
};
use crate::storage::Record;

/// What follows from the entries below `size`.
pub(crate) struct Fold {
    pub(crate) sources: Sources,
    pub(crate) sequences: Sequences,
    pub(crate) size: Size,
    /// Time of the last entry.
    pub(crate) recorded_at: u64,
    /// All findings.
    pub(crate) log: FindingLog,
    /// Sources that something changed for since the state was saved.
    changed: BTreeSet<SourceName>,
}

impl Fold {
    /// Before entry 0, whose event is `genesis`.
    pub(crate) fn new(genesis: &[u8], log: FindingLog) -> Result<Self, IndexError> {
        let sources = Sources::from_genesis(genesis).map_err(IndexError::Genesis)?;
        let changed = sources.iter().map(|source| source.name.clone()).collect();
        let sequences = Sequences::default();
        Ok(Self { sources, sequences, size: Size::ZERO, recorded_at: 0, log, changed })
    }

    /// As `state` has it; `None` when that cannot be.
    pub(crate) fn restore(
        state: &State,
        genesis: &[u8],
        watermark: &Watermark,
        log: FindingLog,
    ) -> Result<Option<Self>, IndexError> {
        let mut fold = Self::new(genesis, log)?;
        (fold.size, fold.recorded_at) = (watermark.size, watermark.recorded_at);
        fold.changed.clear();
        let mut saved = Vec::new();
        state.scan(registry::PREFIX, &mut |name, row| {
            saved.push(registry::parse(name, row));
            true
        })?;
        let Some(saved) = saved.into_iter().collect::<Option<Vec<_>>>() else { return Ok(None) };
        for (source, last_number) in &saved {
            if *last_number > 0 {
                fold.sequences.restore(source.name.as_name(), *last_number);
            }
        }
        fold.sources.restore(saved.into_iter().map(|(source, _)| source));
        Ok(Some(fold))
    }

    /// Adds to `draft` what has changed since the state was saved.
    pub(crate) fn save(&self, draft: &mut Draft<'_>) -> Result<(), IndexError> {
        for name in &self.changed {
            let Some(source) = self.sources.get(name.as_name()) else { continue };
            let row = registry::encode(source, self.sequences.last(name.as_name()));
            draft.put(&registry::key(name), Some(&row))?;
        }
        Ok(())
    }

    /// Everything so far was saved.
    pub(crate) fn settle(&mut self) {
        self.changed.clear();
        self.log.settle();
    }

    /// Moves past a part of a batch; `seal` and `last`, its last record, if the batch ends with it.
    fn take(
        &mut self,
        source: Name<'_>,
        run: Run,
        last: &Record,
        seal: Option<Seal>,
    ) -> Result<(), IndexError> {
        let unlawful = |fault| IndexError::Unlawful { index: run.first, fault };
        if !self.changed.contains(source.as_str()) {
            if self.sources.get(source).is_none() {
                return Err(unlawful(SourceError::Unknown { name: source.to_owned() }));
            }
            self.changed.insert(source.to_owned());
        }
        // A run ends with a batch, so its count is a batch's at most.
        let count = u16::try_from(run.count).unwrap_or(u16::MAX);
        self.sequences
            .advance(source, run.first_number, count)
            .map_err(|gap| IndexError::Sequence { index: run.first, gap })?;
        self.size = Size(run.first.plus(run.count.into()).0);
        // What changes the rules stands alone in its batch.
        match (seal, &last.event) {
            (Some(Seal { count: 1, key_id, .. }), Some(event)) => {
                let status = event::body(event).filter(|body| body.number == Body::SOURCE_STATUS);
                let Some(body) = status else { return Ok(()) };
                let sealer = self.sources.sealer(source, key_id).map_err(unlawful)?;
                let change = self.sources.judge(sealer, run.first, body, true).map_err(unlawful)?;
                self.sources.apply(change);
                let status = wire::SourceStatus::decode(body.bytes)
                    .map_err(|_| unlawful(SourceError::Undecodable))?;
                let target = SourceName::parse(&status.source);
                self.changed.insert(target.map_err(|fault| unlawful(fault.into()))?);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// Moves past records that follow each other from `self.size` on.
    ///
    /// # Errors
    ///
    /// [`IndexError::Entry`], [`IndexError::Sequence`], [`IndexError::Unlawful`] for what no sound
    /// log holds; then the facts are of no use any more.
    pub(crate) fn take_records(&mut self, records: &[Record]) -> Result<(), IndexError> {
        runs(self.size.next_index(), records, |source, run, last, seal| {
            self.take(source, run, last, seal)
        })
    }
}

/// Cuts records that follow each other from `first` on into runs. A run ends with a batch at the
/// latest.
pub(crate) fn runs<'a>(
    first: Index,
    records: &'a [Record],
    mut each: impl FnMut(Name<'a>, Run, &'a Record, Option<Seal>) -> Result<(), IndexError>,
) -> Result<(), IndexError> {
    let mut open: Option<(Name<'a>, Run, &'a Record)> = None;
    for (index, record) in (first.0..).map(Index).zip(records) {
        let entry =
            Entry::parse(&record.entry).map_err(|fault| IndexError::Entry { index, fault })?;
        let mut run = Run { first: index, first_number: entry.source_seq, count: 1 };
        if let Some((source, before, last)) = open.take() {
            let next_number = before.first_number + u64::from(before.count);
            if source == entry.source && next_number == entry.source_seq {
                run = Run { count: before.count + 1, ..before };
            } else {
                each(source, before, last, None)?;
            }
        }
        if entry.seal.is_some() || run.count == u32::from(Seal::COUNT_MAX) {
            each(entry.source, run, record, entry.seal)?;
        } else {
            open = Some((entry.source, run, record));
        }
    }
    match open {
        Some((source, run, last)) => each(source, run, last, None),
        None => Ok(()),
    }
}
