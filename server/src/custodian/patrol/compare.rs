//! Compares records as they are served now with the copy. Blocks: it reads the disk.

use std::sync::Arc;

use access_ledger_client::{evidence::Caught, pull::Run, verify::Record};
use access_ledger_proto::{
    checkpoint::VerifiedCheckpoint,
    error::BuildError,
    event::{self, Body},
    position::{Index, count_of},
    proof::inclusion_path,
    receipt::TlogProof,
    wire,
};
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

/// What there is to say about some records, in their order.
#[derive(Debug)]
pub(super) enum Difference {
    /// The copy holds a redaction of these entries.
    Redaction { first: Index, last: Index },
    /// The ledger serves something else than the copy holds.
    Altered(Caught),
    /// The ledger serves no event where the copy has one.
    Missing(Index),
    /// The ledger serves these events, which may be erased.
    Served { first: Index, last: Index },
}

impl Comparison {
    /// Compares a run that is not empty and lies below the checkpoint.
    pub(super) fn of(&self, (first, served): Run) -> Result<Vec<Difference>, StorageError> {
        let mut differences = Vec::new();
        let mut rest = &served[..];
        let mut next = first;
        while !rest.is_empty() {
            let held = self.reader.read(next, rest.len(), READ_BYTES)?;
            let (now, later) = rest.split_at_checked(held.len()).unwrap_or((rest, &[]));
            if held.is_empty() {
                break;
            }
            for ((index, served), held) in (next.0..).map(Index).zip(now).zip(held) {
                let held = Record { entry: held.entry, event: held.event };
                self.compare(index, served, &held, &mut differences)?;
            }
            next = next.plus(count_of(now.len()));
            rest = later;
        }
        Ok(differences)
    }

    fn compare(
        &self,
        index: Index,
        served: &Record,
        held: &Record,
        differences: &mut Vec<Difference>,
    ) -> Result<(), StorageError> {
        let body = held.event.as_deref().and_then(event::body);
        if let Some((first, last)) = body.and_then(|body| redacted(index, body)) {
            differences.push(Difference::Redaction { first, last });
        }
        let is_other = match (&served.event, &held.event) {
            (Some(served), Some(held)) => served != held,
            _ => false,
        };
        if served.entry != held.entry || is_other {
            differences.push(Difference::Altered(self.altered(index, served, held)?));
            return Ok(());
        }
        match (&served.event, &held.event) {
            (None, Some(_)) => differences.push(Difference::Missing(index)),
            (Some(_), _) if body.is_none_or(is_erasable) => match differences.last_mut() {
                Some(Difference::Served { last, .. }) if last.next() == index => *last = index,
                _ => differences.push(Difference::Served { first: index, last: index }),
            },
            _ => {}
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

/// The entries that an event in the log redacts: only such as lie before it.
fn redacted(index: Index, body: Body<'_>) -> Option<(Index, Index)> {
    if body.number != REDACTION {
        return None;
    }
    let redaction = wire::Redaction::decode(body.bytes).ok()?;
    let last = redaction.last_index.min(index.0.checked_sub(1)?);
    (redaction.first_index <= last).then_some((Index(redaction.first_index), Index(last)))
}

/// What tells who may record, by which rules, and what was erased, is never erased itself.
const fn is_erasable(body: Body<'_>) -> bool {
    !matches!(body.number, Body::SOURCE_STATUS | Body::CONTROL_CHANGE | REDACTION)
}

fn encoded(index: Index, record: &Record) -> Vec<u8> {
    let entries = vec![record.entry.clone()];
    let events = vec![record.event.clone().unwrap_or_default()];
    wire::EntryRun { first_index: index.0, entries, events }.encode_to_vec()
}

/// Field number of `Event.redaction`.
const REDACTION: u32 = 29;

/// Of the copy, at once.
const READ_BYTES: usize = 1 << 20;
