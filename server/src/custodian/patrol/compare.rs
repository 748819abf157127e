//! Compares records as they are served now with the copy. Blocks: it reads the disk.

use std::{ops::RangeInclusive, sync::Arc};

use access_ledger_client::{evidence::Caught, pull::Run, verify::Record};
use access_ledger_proto::{
    checkpoint::VerifiedCheckpoint,
    entry::Entry,
    error::BuildError,
    position::{Index, count_of},
    proof::inclusion_path,
    receipt::TlogProof,
    wire,
};
use bytes::Bytes;
use prost::Message as _;

use crate::{
    error::StorageError,
    storage::{LogReader, TreeFiles},
};

/// What records are compared with.
pub(super) struct Comparison {
    pub(super) reader: LogReader,
    pub(super) tree: TreeFiles,
    pub(super) signed: Arc<VerifiedCheckpoint>,
}

/// What there is to say about some records, each in their order.
#[derive(Debug, Default)]
pub(super) struct Compared {
    /// The ledger serves other bytes than the copy holds.
    pub(super) altered: Vec<Caught>,
    /// The ledger serves no event where the copy has one.
    pub(super) missing: Vec<Index>,
    /// The ledger serves an event that was erased here.
    pub(super) served: Vec<Index>,
    /// Events that were erased here.
    pub(super) erased: Vec<RangeInclusive<Index>>,
}

impl Comparison {
    /// Compares a run that lies below the checkpoint.
    pub(super) fn of(&self, (first, served): Run) -> Result<Compared, StorageError> {
        let mut compared = Compared::default();
        let (mut next, mut rest) = (first, &served[..]);
        while !rest.is_empty() {
            let held = self.reader.read(next, rest.len(), READ_BYTES)?;
            let Some((now, later)) = rest.split_at_checked(held.len().max(1)) else {
                break;
            };
            for ((index, served), held) in (next.0..).map(Index).zip(now).zip(held) {
                let held = Record { entry: held.entry, event: held.event };
                self.compare(index, served, &held, &mut compared)?;
            }
            (next, rest) = (next.plus(count_of(now.len())), later);
        }
        Ok(compared)
    }

    fn compare(
        &self,
        index: Index,
        served: &Record,
        held: &Record,
        compared: &mut Compared,
    ) -> Result<(), StorageError> {
        let is_other_event = match (&served.event, &held.event) {
            (Some(served), Some(held)) => served != held,
            (Some(_), None) => {
                compared.served.push(index);
                false
            }
            (None, Some(_)) => {
                compared.missing.push(index);
                false
            }
            (None, None) => false,
        };
        if held.event.is_none() {
            match compared.erased.pop() {
                Some(range) if range.end().next() == index => {
                    compared.erased.push(*range.start()..=index);
                }
                other => compared.erased.extend(other.into_iter().chain([index..=index])),
            }
        }
        if served.entry != held.entry || is_other_event {
            compared.altered.push(self.altered(index, served, held)?);
        }
        Ok(())
    }

    fn altered(
        &self,
        index: Index,
        served: &Record,
        held: &Record,
    ) -> Result<Caught, StorageError> {
        let size = self.signed.size();
        let path = inclusion_path(&self.tree, index, size).map_err(|error| match error {
            BuildError::Source(error) => error,
            _ => StorageError::TreeBehind { found: self.tree.size(), wanted: size },
        })?;
        let checkpoint = self.signed.note().to_owned();
        let proof = TlogProof { entry: held.entry.to_vec(), index, path, checkpoint };
        Ok(Caught::Altered {
            index,
            signed: Box::new((*self.signed).clone()),
            proof: Box::new(proof),
            held: encoded(index, held),
            served: encoded(index, served),
        })
    }
}

/// The record alone. Of what no record is as long as only the beginning: it is signed by nobody.
fn encoded(index: Index, record: &Record) -> Vec<u8> {
    let cut = |bytes: &Bytes| bytes.slice(..bytes.len().min(KEPT_BYTES_MAX));
    let entries = vec![cut(&record.entry)];
    let events = vec![record.event.as_ref().map(cut).unwrap_or_default()];
    wire::EntryRun { first_index: index.0, entries, events }.encode_to_vec()
}

/// Of an entry or an event that is kept as evidence: longer than any.
const KEPT_BYTES_MAX: usize = Entry::EVENT_LEN_MAX + 1;

/// Of the copy, at once.
const READ_BYTES: usize = 1 << 20;
