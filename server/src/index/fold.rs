//! The facts that the index keeps: the registered sources and the last number of each, folded over
//! the log from entry 0.

use std::collections::BTreeSet;

use access_ledger_proto::{
    entry::{Entry, Seal},
    error::SourceError,
    event::{self, Body},
    facts::{
        sequences::Sequences,
        sources::{Source, Sources},
    },
    position::{Index, Size},
    source::{Name, SourceName},
    wire,
};
use prost::Message as _;

use super::{error::IndexError, tail::Run};
use crate::storage::Record;

/// The facts at `size`.
#[derive(Debug)]
pub(crate) struct Fold {
    pub(crate) sources: Sources,
    pub(crate) sequences: Sequences,
    pub(crate) size: Size,
    /// Sources that something changed for since this was emptied.
    pub(crate) changed: BTreeSet<SourceName>,
}

impl Fold {
    /// Before entry 0, whose event is `genesis`.
    pub(crate) fn new(genesis: &[u8]) -> Result<Self, IndexError> {
        let sources = Sources::from_genesis(genesis).map_err(IndexError::Genesis)?;
        let changed = sources.iter().map(|source| source.name.clone()).collect();
        Ok(Self { sources, sequences: Sequences::default(), size: Size::ZERO, changed })
    }

    /// Puts back what was saved at `size`.
    pub(crate) fn restore(&mut self, size: Size, saved: Vec<(Source, u64)>) {
        for (source, last_number) in &saved {
            if *last_number > 0 {
                self.sequences.restore(source.name.as_name(), *last_number);
            }
        }
        self.sources.restore(saved.into_iter().map(|(source, _)| source));
        self.size = size;
        self.changed.clear();
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

    /// Moves past records that follow each other from `self.size` on, and hands out their runs.
    ///
    /// # Errors
    ///
    /// [`IndexError::Entry`], [`IndexError::Sequence`], [`IndexError::Unlawful`] for what no sound
    /// log holds; then the facts are of no use any more.
    pub(crate) fn take_records<'a>(
        &mut self,
        records: &'a [Record],
        mut each: impl FnMut(Name<'a>, Run),
    ) -> Result<(), IndexError> {
        runs(self.size.next_index(), records, |source, run, last, seal| {
            self.take(source, run, last, seal)?;
            each(source, run);
            Ok(())
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
