//! Which entries meet a filter: a page of the server's answer, checked, or computed from the
//! verified log.
//!
//! A proven page shows that each hit is in the ledger and meets the filter, not that no hit was
//! left out. For that there is [`Selection`]: an observer of an audit, which sees every entry.

use std::collections::{BTreeMap, BTreeSet, VecDeque, btree_map};

use access_ledger_proto::{
    checkpoint::VerifiedCheckpoint,
    entry::Entry,
    event,
    hash::sha256,
    note::VerifierKey,
    position::{Index, count_of},
    receipt::TlogProof,
    terms::{self, Criteria},
    wire,
};
use bytes::Bytes;
use prost::Message as _;
use rayon::prelude::*;

use self::erased::{Erased, Gone, changes_rules};
use crate::{
    audit::{Audited, Observer},
    evidence::Caught,
    fold::{Fold, FoldError},
    pull::{PullError, Puller, digests},
    verify::{Record, Scope},
};

mod erased;

/// An entry that meets a filter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hit {
    /// Where it lies.
    pub index: Index,
    /// Entry and event; no event where that was erased, or not asked for.
    pub record: Record,
    /// What erased the event, as far as that is known.
    pub erased_by: Option<ErasedBy>,
}

/// The redaction that erased an event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ErasedBy {
    /// Where the redaction lies.
    pub index: Index,
    /// What it says: the law, or the request of a data subject.
    pub legal_basis: String,
}

/// The hits of an answer, on the server's word.
#[must_use]
pub fn hits_of(answer: &wire::QueryResponse) -> Vec<Hit> {
    answer.hits.iter().map(hit_of).collect()
}

/// The hits of an answer that was asked for with events and proofs, each proven to be in the tree
/// that the ledger signed, and to meet the filter. That it has findings of the rules asked for is
/// not checked; nor can be whether a hit is missing.
///
/// # Errors
///
/// [`Caught`] when the answer does not hold: it convicts the server.
pub fn proven_hits(
    answer: &wire::QueryResponse,
    criteria: &Criteria,
    ledger: &VerifierKey,
) -> Result<Vec<Hit>, Caught> {
    let note = answer.checkpoint.clone();
    let checkpoint = VerifiedCheckpoint::open(&note, ledger, &[])
        .map_err(|error| Caught::Checkpoint { error, note })?;
    let wrong = |index: Index, problem: &str| Caught::Answer {
        problem: format!("the entry at index {index} {problem}"),
        bytes: answer.encode_to_vec().into(),
    };
    for hit in &answer.hits {
        let index = Index(hit.index);
        let path = digests(&hit.inclusion_path)
            .map_err(|_| wrong(index, "comes with a proof of hashes that are not 32 bytes long"))?;
        let (entry, checkpoint) = (hit.entry.to_vec(), checkpoint.note().to_owned());
        let proof = TlogProof { entry, index, path, checkpoint };
        proof.verify(ledger, &[]).map_err(|error| {
            let file = proof.encode();
            Caught::Proof { index, error, file }
        })?;
        let entry = Entry::parse(&hit.entry).map_err(|_| wrong(index, "is malformed"))?;
        if hit.event.is_empty() {
            continue;
        }
        if sha256(&hit.event) != entry.event_digest {
            return Err(wrong(index, "comes with another event than the one recorded there"));
        }
        let event = terms::decode(&hit.event);
        if !criteria.matches(entry.recorded_at, entry.source, event.as_ref()) {
            return Err(wrong(index, "does not meet the filter that was asked for"));
        }
    }
    Ok(hits_of(answer))
}

/// Selects the entries that meet a filter on the way of an audit, which sees all of them.
#[derive(Debug)]
pub struct Selection {
    criteria: Criteria,
    newest_first: bool,
    hits_max: usize,
    /// In the order of the log; the first or the last ones.
    hits: VecDeque<Hit>,
    /// All that meet the filter.
    count: u64,
    by_rule: Option<ByRule>,
    /// Changes of the rules and redactions, by their places.
    rules: Vec<(Index, Record)>,
}

/// Entries are found by their findings, some of which come to light long after the entry.
#[derive(Debug, Default)]
struct ByRule {
    fold: Fold,
    /// Those with findings of the rules asked for. Whether they meet the rest of the filter is to
    /// be seen.
    indexes: BTreeSet<Index>,
    /// An event that is not among these was there.
    gone: Gone,
    error: Option<FoldError>,
}

/// What a filter selects of a verified log.
#[derive(Debug)]
pub struct Selected {
    /// The first of them in the order asked for.
    pub hits: Vec<Hit>,
    /// How many there are in all; `None` when that was not counted.
    pub count: Option<u64>,
}

/// What was selected cannot be had.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SelectError {
    /// The findings cannot be computed.
    #[error(transparent)]
    Fold(#[from] FoldError),
    /// An entry that was verified before cannot be pulled again.
    #[error(transparent)]
    Pull(#[from] PullError),
    /// An entry that is pulled again is not the one that was verified.
    #[error(transparent)]
    Caught(Box<Caught>),
}

impl Selection {
    /// Keeps the first `hits_max` entries in the order asked for.
    #[must_use]
    pub fn new(criteria: Criteria, newest_first: bool, hits_max: usize) -> Self {
        let by_rule = (!criteria.rules().is_empty()).then(ByRule::default);
        let (hits, rules) = (VecDeque::new(), Vec::new());
        Self { criteria, newest_first, hits_max, hits, count: 0, by_rule, rules }
    }

    /// What was selected of the log that an audit has verified; of events that are gone, what
    /// erased them, told from the verified redactions.
    ///
    /// Entries that are found by rule are pulled once more, each with its proof. An event that was
    /// there in the audit and is gone then must have been erased since.
    ///
    /// # Errors
    ///
    /// Any [`SelectError`].
    pub async fn conclude(
        mut self,
        puller: &Puller,
        audited: &Audited,
        ledger: &VerifierKey,
    ) -> Result<Selected, SelectError> {
        let mut erased = Erased::of(&self.rules, audited);
        self.rules.clear();
        let mut selected = self.select(puller, (&audited.checkpoint, ledger), &mut erased).await?;
        for hit in selected.hits.iter_mut().filter(|hit| hit.record.event.is_none()) {
            hit.erased_by = erased.by(hit);
        }
        Ok(selected)
    }

    async fn select(
        self,
        puller: &Puller,
        (checkpoint, ledger): (&VerifiedCheckpoint, &VerifierKey),
        erased: &mut Erased,
    ) -> Result<Selected, SelectError> {
        let Self { criteria, newest_first, hits_max, hits, count, by_rule, rules: _ } = self;
        let Some(by_rule) = by_rule else {
            let mut hits = Vec::from(hits);
            if newest_first {
                hits.reverse();
            }
            return Ok(Selected { hits, count: Some(count) });
        };
        if let Some(error) = by_rule.error {
            return Err(error.into());
        }
        let mut indexes: Vec<_> = by_rule.indexes.iter().copied().collect();
        if newest_first {
            indexes.reverse();
        }
        let mut hits = Vec::new();
        for index in indexes {
            if hits.len() >= hits_max {
                return Ok(Selected { hits, count: None });
            }
            let hit = pull_hit(puller, index, checkpoint, ledger).await?;
            if hit.record.event.is_none() && !by_rule.gone.holds(index) {
                erased.expect_accounts(&hit, puller, ledger).await?;
            }
            if meets(&criteria, &hit.record) {
                hits.push(hit);
            }
        }
        let count = Some(count_of(hits.len()));
        Ok(Selected { hits, count })
    }

    fn take_matching(&mut self, first: Index, records: &[Record]) {
        let criteria = &self.criteria;
        let found: Vec<_> = records
            .par_iter()
            .with_min_len(RECORDS_MIN)
            .enumerate()
            .filter(|(_, record)| meets(criteria, record))
            .collect();
        for (offset, record) in found {
            self.count += 1;
            if self.hits.len() >= self.hits_max {
                if !self.newest_first {
                    continue;
                }
                self.hits.pop_front();
            }
            let index = first.plus(count_of(offset));
            self.hits.push_back(Hit { index, record: record.clone(), erased_by: None });
        }
    }
}

impl Observer for Selection {
    fn take(&mut self, first: Index, records: &[Record]) {
        let rules = records.par_iter().with_min_len(RECORDS_MIN).enumerate();
        self.rules.par_extend(
            rules
                .filter(|(_, record)| changes_rules(record))
                .map(|(offset, record)| (first.plus(count_of(offset)), record.clone())),
        );
        let Some(by_rule) = &mut self.by_rule else {
            self.take_matching(first, records);
            return;
        };
        if by_rule.error.is_some() {
            return;
        }
        let criteria = &self.criteria;
        let ByRule { fold, indexes, gone, error } = by_rule;
        let taken = fold.take(first, records, |seen| {
            let noted = seen.noted;
            if seen.is_erased {
                gone.note(noted.index);
            }
            let asked = |rule: &String| criteria.rules().contains(rule);
            for finding in seen.findings.iter().filter(|finding| asked(&finding.rule)) {
                // What is known not to meet the filter is not pulled again.
                let index = Index(finding.index);
                let event = Some(noted.event);
                if index != noted.index || criteria.matches(noted.recorded_at, noted.source, event)
                {
                    indexes.insert(index);
                }
            }
        });
        *error = taken.err();
    }
}

async fn pull_one(puller: &Puller, index: Index) -> Result<Record, PullError> {
    let mut records = puller.records(index, index.size_through(), Scope::Events);
    let run = records.next().await.transpose()?;
    let record = run.and_then(|(_, records)| records.into_iter().next());
    record.ok_or_else(|| PullError::Answer { problem: format!("no entry at index {index}") })
}

/// An entry under a checkpoint that was verified.
async fn pull_hit(
    puller: &Puller,
    index: Index,
    checkpoint: &VerifiedCheckpoint,
    ledger: &VerifierKey,
) -> Result<Hit, SelectError> {
    let path = puller.inclusion_path(index, checkpoint.size()).await?;
    let record = pull_one(puller, index).await?;
    let (entry, note) = (record.entry.to_vec(), checkpoint.note().to_owned());
    let proof = TlogProof { entry, index, path, checkpoint: note };
    proof.verify(ledger, &[]).map_err(|error| {
        let file = proof.encode();
        SelectError::Caught(Box::new(Caught::Proof { index, error, file }))
    })?;
    if let (Ok(entry), Some(event)) = (Entry::parse(&record.entry), &record.event)
        && sha256(event) != entry.event_digest
    {
        let problem = format!("the event at index {index} is not the one recorded there");
        let caught = Caught::Answer { problem, bytes: event.clone() };
        return Err(SelectError::Caught(Box::new(caught)));
    }
    Ok(Hit { index, record, erased_by: None })
}

/// Reads the redactions that a page names for its hits, each once, and notes them. With a
/// checkpoint, which was verified, each is proven to lie under it; that it is lawful only a
/// verified log tells.
///
/// # Errors
///
/// [`SelectError::Pull`]; [`SelectError::Caught`] for an entry that is not the one under the
/// checkpoint, or no redaction of the hit.
pub async fn note_redactions(
    hits: &mut [Hit],
    answer: &wire::QueryResponse,
    puller: &Puller,
    proven: Option<(&VerifiedCheckpoint, &VerifierKey)>,
) -> Result<(), SelectError> {
    let mut read = BTreeMap::new();
    for (hit, told) in hits.iter_mut().zip(&answer.hits) {
        let place = Index(told.redaction_index);
        if place == Index::GENESIS || hit.record.event.is_some() {
            continue;
        }
        if let btree_map::Entry::Vacant(vacant) = read.entry(place) {
            let redaction = match proven {
                Some((checkpoint, ledger)) => pull_hit(puller, place, checkpoint, ledger).await?,
                None => {
                    Hit { index: place, record: pull_one(puller, place).await?, erased_by: None }
                }
            };
            vacant.insert(redaction.record.event.as_ref().and_then(redaction_in));
        }
        let redaction = read.get(&place).and_then(Option::as_ref);
        let covers = |redaction: &&wire::Redaction| {
            (redaction.first_index..=redaction.last_index).contains(&hit.index.0)
        };
        match redaction.filter(covers) {
            Some(redaction) => {
                let legal_basis = redaction.legal_basis.clone();
                hit.erased_by = Some(ErasedBy { index: place, legal_basis });
            }
            None if proven.is_some() => {
                let problem = format!("entry {place} is no redaction of event {}", hit.index);
                let caught = Caught::Answer { problem, bytes: answer.encode_to_vec().into() };
                return Err(SelectError::Caught(Box::new(caught)));
            }
            None => {}
        }
    }
    Ok(())
}

fn redaction_in(event: &Bytes) -> Option<wire::Redaction> {
    let body = event::body(event).filter(|body| body.number == event::Body::REDACTION)?;
    wire::Redaction::decode(body.bytes).ok()
}

fn meets(criteria: &Criteria, record: &Record) -> bool {
    let event = record.event.as_ref().and_then(terms::decode);
    Entry::parse(&record.entry)
        .is_ok_and(|entry| criteria.matches(entry.recorded_at, entry.source, event.as_ref()))
}

fn hit_of(hit: &wire::QueryHit) -> Hit {
    let event = Some(hit.event.clone()).filter(|event| !event.is_empty());
    let record = Record { entry: hit.entry.clone(), event };
    Hit { index: Index(hit.index), record, erased_by: None }
}

/// Records that are worth another core.
const RECORDS_MIN: usize = 64;
