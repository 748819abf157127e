//! Computes judgements and findings from verified records, on all cores.
//!
//! Decoding events is most of the work and needs no order, so records are decoded in chunks on all
//! cores while the chunk before is folded, entry by entry, in the order of the log.

use access_ledger_proto::{
    authority::Judgement,
    entry::Entry,
    error::{EntryError, SourceError},
    event,
    facts::Noted,
    findings::Findings,
    position::{Index, count_of},
    source::Name,
    wire::{Event, FindingRecord},
};
use bytes::Bytes;
use prost::Message as _;
use rayon::prelude::*;
use thiserror::Error;

use crate::{audit::Observer, verify::Record};

/// Records that do not make a log: they were not verified, or not given from entry 0 on.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum FoldError {
    /// Entry 0 is no genesis.
    #[error("genesis: {0}")]
    Genesis(#[source] SourceError),
    /// The bytes of an entry.
    #[error("entry {index} is malformed: {error}")]
    Entry {
        /// Where it lies.
        index: Index,
        /// What is wrong.
        error: EntryError,
    },
    /// Records that do not follow those before.
    #[error("records begin at {found}, wanted those from {wanted} on")]
    Order {
        /// Where the records begin.
        found: Index,
        /// The next index.
        wanted: Index,
    },
}

/// One entry, with what was made of it.
#[derive(Clone, Copy, Debug)]
pub struct Observation<'a> {
    /// The entry with its event; with an empty event where that was erased.
    pub noted: &'a Noted<'a>,
    /// The event is gone.
    pub is_erased: bool,
    /// Of an access or a transfer.
    pub judgement: Option<&'a Judgement>,
    /// What the entry brought to light, which may be about others.
    pub findings: &'a [FindingRecord],
}

/// A log on its way through the fold of [`Findings`], from entry 0 on.
///
/// Memory is that of the facts, and of two chunks of decoded events.
#[derive(Debug, Default)]
pub struct Fold {
    /// From entry 0 on.
    findings: Option<Findings>,
    next: Index,
    /// What the entry at hand brings to light.
    found: Vec<FindingRecord>,
}

/// A record, decoded.
struct Decoded<'a> {
    index: Index,
    recorded_at: u64,
    source: Name<'a>,
    record: &'a Record,
    /// `None`: erased.
    event: Option<Event>,
}

type Chunk<'a> = Result<Vec<Decoded<'a>>, FoldError>;

impl Fold {
    /// Before entry 0.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The fold as it stands; `None` before entry 0.
    #[must_use]
    pub const fn findings(&self) -> Option<&Findings> {
        self.findings.as_ref()
    }

    /// Takes the next records, `first` being the index of the first of them, and hands each on to
    /// `each`. After an error the fold has no further use.
    ///
    /// # Errors
    ///
    /// Any [`FoldError`]; none for the records of a verified log.
    pub fn take(
        &mut self,
        first: Index,
        records: &[Record],
        mut each: impl FnMut(&Observation<'_>) + Send,
    ) -> Result<(), FoldError> {
        if first != self.next {
            return Err(FoldError::Order { found: first, wanted: self.next });
        }
        let firsts = (first.0..).step_by(CHUNK).map(Index);
        let mut chunks = firsts.zip(records.chunks(CHUNK));
        let (mut chunk, mut done) = (chunks.next().map(decode), None);
        while let Some(decoded) = chunk.transpose()? {
            let fold = || decoded.iter().try_for_each(|one| self.fold(one, &mut each));
            // What is done with is taken apart by another core as well.
            let decode_next = || {
                drop(done.take());
                chunks.next().map(decode)
            };
            let (folded, next) = rayon::join(fold, decode_next);
            folded?;
            (chunk, done) = (next, Some(decoded));
        }
        Ok(())
    }

    fn fold(
        &mut self,
        decoded: &Decoded<'_>,
        each: &mut impl FnMut(&Observation<'_>),
    ) -> Result<(), FoldError> {
        let &Decoded { index, recorded_at, source, record, ref event } = decoded;
        if index != self.next {
            return Err(FoldError::Order { found: index, wanted: self.next });
        }
        self.next = index.next();
        self.found.clear();
        let nothing = Event::default();
        let noted = Noted { index, recorded_at, source, event: event.as_ref().unwrap_or(&nothing) };
        let is_erased = event.is_none();
        let judgement = match &mut self.findings {
            None => {
                let genesis = record.event.as_deref().unwrap_or_default();
                let findings = Findings::from_genesis(genesis).map_err(FoldError::Genesis)?;
                self.findings = Some(findings);
                None
            }
            Some(findings) if is_erased => {
                findings.missing(index, recorded_at, source, &mut self.found);
                None
            }
            Some(findings) => findings.take(&noted, &mut self.found),
        };
        let (judgement, findings) = (judgement.as_ref(), self.found.as_slice());
        each(&Observation { noted: &noted, is_erased, judgement, findings });
        Ok(())
    }
}

/// All findings of a log, in the order in which they are found: an observer for an audit.
#[derive(Debug, Default)]
pub struct FindingsList {
    fold: Fold,
    list: Vec<FindingRecord>,
    error: Option<FoldError>,
}

impl FindingsList {
    /// The findings at the end of the log, each with what humans made of it so far.
    ///
    /// # Errors
    ///
    /// Any [`FoldError`]; none for the records of a verified log.
    pub fn conclude(self) -> Result<Vec<FindingRecord>, FoldError> {
        let Self { fold, mut list, error } = self;
        if let Some(error) = error {
            return Err(error);
        }
        if let Some(findings) = fold.findings() {
            list.extend(findings.conclude());
            for finding in &mut list {
                finding.state = findings.state_of(&finding.finding_id).into();
            }
        }
        Ok(list)
    }
}

impl Observer for FindingsList {
    fn take(&mut self, first: Index, records: &[Record]) {
        let Self { fold, list, error } = self;
        if error.is_none() {
            let keep = |seen: &Observation<'_>| list.extend_from_slice(seen.findings);
            *error = fold.take(first, records, keep).err();
        }
    }
}

/// Decodes records on all cores.
fn decode((first, records): (Index, &[Record])) -> Chunk<'_> {
    let decoded = records.par_iter().with_min_len(CHUNK_MIN).enumerate().map(|(offset, record)| {
        let index = first.plus(count_of(offset));
        let entry = Entry::parse(&record.entry);
        let entry = entry.map_err(|error| FoldError::Entry { index, error })?;
        let (index, recorded_at, source) = (entry.index, entry.recorded_at, entry.source);
        let event = record.event.as_ref().map(decode_event);
        Ok(Decoded { index, recorded_at, source, record, event })
    });
    decoded.collect()
}

/// An event that parsers would read differently says nothing, to everybody alike.
fn decode_event(bytes: &Bytes) -> Event {
    let is_clear = event::body(bytes).is_some();
    let event = is_clear.then(|| Event::decode(bytes.clone()).ok()).flatten();
    event.unwrap_or_default()
}

/// Records that are decoded while as many are folded: enough work to be worth parting, little
/// enough to stay in the cores' caches, at about 2 KiB each.
const CHUNK: usize = 512;

/// Fewest records that are worth another core.
const CHUNK_MIN: usize = 64;
