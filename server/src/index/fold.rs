//! What the index computes from the log, folded over it from entry 0: facts and findings, where
//! each source stands, and what the reports count.

use std::{collections::BTreeSet, mem, sync::Arc};

use access_ledger_client::{
    fold::Observation,
    reports::{Cells, Reports, observe},
};
use access_ledger_proto::{
    authority::Authority,
    entry::{Entry, Seal},
    error::SourceError,
    event::{self, Body},
    facts::{Archive, Facts, Noted, redactions::Erasable, sequences::Sequences},
    findings::Findings,
    position::{Index, Size, memory_len},
    source::{Name, SourceName},
    wire::{self, FindingRecord, SourcePhase, event::Body as EventBody},
};

use super::{
    archive::{self, StateArchive},
    error::IndexError,
    findings::FindingLog,
    posting::take,
    registry, rollups,
    state::{Draft, State, Watermark},
    tail::Run,
};
use crate::storage::Record;

/// What footers tell of the log as a whole.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Totals {
    /// Events that sources declared lost.
    pub(crate) declared_lost: u64,
    /// Events that were erased before they were indexed.
    pub(crate) erased: u64,
}

/// What follows from the entries below `size`.
pub(crate) struct Fold {
    pub(crate) findings: Findings,
    pub(crate) sequences: Sequences,
    pub(crate) size: Size,
    /// Time of the last entry, in nanoseconds.
    pub(crate) recorded_at: u64,
    /// All findings.
    pub(crate) log: FindingLog,
    /// What was counted since the state was saved.
    pub(crate) cells: Cells,
    archive: Arc<StateArchive>,
    pub(crate) totals: Totals,
    /// Sources that something changed for since then.
    changed: BTreeSet<SourceName>,
    /// Time of the last entry then; of entry 0 before that.
    pub(crate) saved_at: u64,
    /// The first event since the fold began that was rotten.
    rotten: Option<Index>,
    /// Empty between two entries.
    found: Vec<FindingRecord>,
}

impl Fold {
    /// Before entry 0, whose event is `genesis`. Nothing is in `archive`.
    pub(crate) fn new(
        genesis: &[u8],
        archive: Arc<StateArchive>,
        log: FindingLog,
    ) -> Result<Self, IndexError> {
        let facts = Facts::from_genesis(genesis).map_err(IndexError::Genesis)?;
        let facts = facts.with_archive(&(Arc::clone(&archive) as Arc<dyn Archive>));
        let changed = facts.sources().iter().map(|source| source.name.clone()).collect();
        let findings = Findings::new(Authority::new(facts));
        let mut fold = Self::at(&Watermark::START, findings, archive, log);
        fold.changed = changed;
        Ok(fold)
    }

    /// As `state` has it; `None` when that cannot be.
    pub(crate) fn restore(
        state: &State,
        genesis: &[u8],
        watermark: &Watermark,
        archive: Arc<StateArchive>,
        log: FindingLog,
    ) -> Result<Option<Self>, IndexError> {
        let mut saved = Vec::new();
        state.scan(registry::PREFIX, &mut |name, row| {
            saved.push(registry::parse(name, row));
            true
        })?;
        let Some(saved) = saved.into_iter().collect::<Option<Vec<_>>>() else { return Ok(None) };
        let mut sequences = Sequences::default();
        for (source, last_number) in saved.iter().filter(|(_, last_number)| *last_number > 0) {
            sequences.restore(source.name.as_name(), *last_number);
        }
        let sources = saved.into_iter().map(|(source, _)| source);
        let facts = Facts::restore(genesis, sources, &(Arc::clone(&archive) as Arc<dyn Archive>))
            .map_err(IndexError::Genesis)?;
        let rest = state.get(REST_KEY)?.unwrap_or_default();
        let Ok(findings) = Findings::restore(Authority::new(facts), &rest) else {
            return Ok(None);
        };
        archive.check()?;
        let mut fold = Self::at(watermark, findings, archive, log);
        fold.sequences = sequences;
        let totals = state.get(TOTALS_KEY)?.and_then(|row| Totals::parse(&row));
        Ok(totals.map(|totals| Self { totals, ..fold }))
    }

    fn at(
        watermark: &Watermark,
        findings: Findings,
        archive: Arc<StateArchive>,
        log: FindingLog,
    ) -> Self {
        Self {
            findings,
            sequences: Sequences::default(),
            size: watermark.size,
            recorded_at: watermark.recorded_at,
            log,
            cells: Cells::default(),
            archive,
            totals: Totals::default(),
            changed: BTreeSet::new(),
            saved_at: watermark.recorded_at,
            rotten: None,
            found: Vec::new(),
        }
    }

    /// The facts behind the last entry.
    pub(crate) const fn facts(&self) -> &Facts {
        self.findings.authority().facts()
    }

    /// Adds to `draft` what has changed since the state was saved.
    pub(crate) fn save(&self, state: &State, draft: &mut Draft<'_>) -> Result<(), IndexError> {
        for name in &self.changed {
            let Some(source) = self.facts().sources().get(name.as_name()) else { continue };
            let row = registry::encode(source, self.sequences.last(name.as_name()));
            draft.put(&registry::key(name), Some(&row))?;
        }
        archive::save(self.facts(), draft)?;
        draft.put(REST_KEY, Some(&self.findings.save()))?;
        draft.put(TOTALS_KEY, Some(&self.totals.encode()))?;
        rollups::save(state, draft, &self.cells, (self.saved_at, self.recorded_at))?;
        self.archive.check()
    }

    /// Goes on over another archive, which holds the same rows.
    pub(crate) fn rest_on(&mut self, archive: &Arc<StateArchive>) {
        self.archive = Arc::clone(archive);
        let archive = Arc::clone(archive) as Arc<dyn Archive>;
        self.findings.authority_mut().facts_mut().rest_on(&archive);
    }

    /// Everything so far was saved.
    pub(crate) fn settle(&mut self) {
        if let Some(last) = self.size.last_index() {
            self.findings.authority_mut().facts_mut().settle(last);
        }
        self.changed.clear();
        self.log.settle();
        self.cells = Cells::default();
        self.saved_at = self.recorded_at;
    }

    /// Moves past records that follow each other from `self.size` on; `events` are theirs, `None`
    /// for those that are gone, `rotten` among them.
    ///
    /// # Errors
    ///
    /// [`IndexError::Entry`], [`IndexError::Sequence`], [`IndexError::Unlawful`] for what no sound
    /// log holds, [`IndexError::Rotten`] when the rules cannot be known, [`IndexError::Facts`] when
    /// rows could not be read; then the fold is of no use any more.
    pub(crate) fn take(
        &mut self,
        records: &[Record],
        events: &[Option<wire::Event>],
        rotten: &[Index],
    ) -> Result<(), IndexError> {
        let first = self.size.next_index();
        runs(first, records, |source, run, last, seal| {
            self.take_run(source, run, last, seal).map_err(|error| self.blame(error))?;
            let at = memory_len(run.first.0 - first.0).unwrap_or(usize::MAX);
            let records = records.iter().zip(events).skip(at);
            let count = memory_len(run.count.into()).unwrap_or(usize::MAX);
            for (index, (record, event)) in (run.first.0..).map(Index).zip(records.take(count)) {
                if rotten.binary_search(&index).is_ok() {
                    self.check_rotten(index, source)?;
                } else if event.is_none() {
                    self.totals.erased += 1;
                }
                self.take_record(index, source, record, event.as_ref())?;
            }
            Ok(())
        })?;
        self.archive.check()
    }

    /// What governance has recorded must be known. Any other event may be gone by a redaction, too,
    /// and then nothing is known of what it said; that no redaction accounts for it, is found.
    fn check_rotten(&mut self, index: Index, source: Name<'_>) -> Result<(), IndexError> {
        self.rotten = self.rotten.or(Some(index));
        match Erasable::of(self.facts().sources(), source, index) {
            Erasable::Never => Err(IndexError::Rotten { index }),
            Erasable::ByParties | Erasable::ByAge => Ok(()),
        }
    }

    /// Where events are not known, what seems to break a rule says nothing of the log.
    fn blame(&self, error: IndexError) -> IndexError {
        match (error, self.rotten) {
            (IndexError::Unlawful { .. }, Some(index)) => IndexError::Rotten { index },
            (error, _) => error,
        }
    }

    /// A part of a batch; `seal` and `last`, its last record, if the batch ends with it.
    fn take_run(
        &mut self,
        source: Name<'_>,
        run: Run,
        last: &Record,
        seal: Option<Seal>,
    ) -> Result<(), IndexError> {
        let sources = self.findings.authority().facts().sources();
        let unlawful = |fault| IndexError::Unlawful { index: run.first, fault };
        if !self.changed.contains(source.as_str()) {
            if sources.get(source).is_none() {
                return Err(unlawful(SourceError::Unknown { name: source.to_owned() }));
            }
            self.changed.insert(source.to_owned());
        }
        // A run ends with a batch, so its count is a batch's at most.
        let count = u16::try_from(run.count).unwrap_or(u16::MAX);
        self.sequences
            .advance(source, run.first_number, count)
            .map_err(|gap| IndexError::Sequence { index: run.first, gap })?;
        // What changes the rules stands alone in its batch.
        if let (Some(Seal { count: 1, key_id, .. }), Some(event)) = (seal, &last.event)
            && let Some(body) = event::body(event)
            && body.number == Body::SOURCE_STATUS
        {
            let (sealer, _) = sources.sealer(source, key_id).map_err(unlawful)?;
            // The facts apply it.
            let _lawful = sources.judge(sealer, run.first, body, true).map_err(unlawful)?;
        }
        Ok(())
    }

    fn take_record(
        &mut self,
        index: Index,
        source: Name<'_>,
        record: &Record,
        event: Option<&wire::Event>,
    ) -> Result<(), IndexError> {
        let entry =
            Entry::parse(&record.entry).map_err(|fault| IndexError::Entry { index, fault })?;
        let recorded_at = entry.recorded_at;
        let mut found = mem::take(&mut self.found);
        let is_erased = event.is_none();
        let nothing;
        let event = match event {
            Some(event) => event,
            None => {
                nothing = wire::Event::default();
                &nothing
            }
        };
        let noted = Noted { index, recorded_at, source, event };
        let judgement = match index {
            // The facts began with it.
            Index::GENESIS => None,
            _ if is_erased => {
                self.findings.missing(index, recorded_at, source, &mut found);
                None
            }
            _ => self.findings.take(&noted, &mut found),
        };
        let judgement = judgement.as_ref();
        let seen = Observation { noted: &noted, is_erased, judgement, findings: &found };
        observe(&mut self.cells, Reports::ALL, &seen);
        self.note_status(event);
        found.drain(..).for_each(|finding| self.log.push(&finding));
        self.found = found;
        if index == Index::GENESIS {
            self.saved_at = recorded_at;
        }
        self.recorded_at = recorded_at;
        self.size = Size(index.plus(1).0);
        Ok(())
    }

    /// The source that a status or a change of the rules is about has changed.
    fn note_status(&mut self, event: &wire::Event) {
        let status = match &event.body {
            Some(EventBody::SourceStatus(status)) => status,
            Some(EventBody::ControlChange(change)) => {
                // Of its key or its roles.
                self.changed.extend(SourceName::parse(&change.target));
                return;
            }
            _ => return,
        };
        self.changed.extend(SourceName::parse(&status.source));
        if status.phase() == SourcePhase::GapDeclared {
            let lost = &mut self.totals.declared_lost;
            *lost = lost.saturating_add(status.dropped);
        }
    }
}

impl Totals {
    fn encode(self) -> Vec<u8> {
        [self.declared_lost.to_be_bytes(), self.erased.to_be_bytes()].concat()
    }

    fn parse(mut row: &[u8]) -> Option<Self> {
        let rest = &mut row;
        let declared_lost = u64::from_be_bytes(take(rest)?);
        let erased = u64::from_be_bytes(take(rest)?);
        rest.is_empty().then_some(Self { declared_lost, erased })
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

/// Where the rest of the findings' fold is in the state.
const REST_KEY: &[u8] = b"r";

/// Where the totals are in the state.
const TOTALS_KEY: &[u8] = b"t";
