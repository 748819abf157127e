//! Reads as they are added up, and as they are recorded.

use std::ops::Range;

use access_ledger_proto::{
    hash::Digest,
    wire::{self, ReadKind},
    wording,
};
use bytes::Bytes;
use tokio::time::Instant;

use crate::folder::timestamp;

/// What a reader was sent: how many rows and, of entries, between which indexes.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sent {
    rows: u64,
    indexes: Option<Range<u64>>,
}

/// What a search asks for.
#[derive(Clone, Debug)]
pub(crate) struct Question {
    kind: ReadKind,
    words: String,
    subjects: Vec<Bytes>,
}

/// What one principal read in one way, until it is recorded.
#[derive(Debug)]
pub(super) struct Sum {
    calls: u64,
    sent: Sent,
    /// Answers that were sent, messages of streams among them.
    pub(super) answers: u64,
    /// Nanoseconds since the Unix epoch.
    first_at: u64,
    last_at: u64,
    /// When it is to be recorded.
    pub(super) due: Instant,
    /// It was to be recorded before, and could not.
    pub(super) has_failed: bool,
}

impl Sent {
    /// Rows that are no entries.
    pub(crate) const fn rows(rows: u64) -> Self {
        Self { rows, indexes: None }
    }

    /// Entries that follow one another.
    pub(crate) const fn run(first: u64, count: u64) -> Self {
        let indexes = if count == 0 { None } else { Some(first..first.saturating_add(count)) };
        Self { rows: count, indexes }
    }

    /// Entries in any order.
    pub(crate) fn hits(indexes: impl Iterator<Item = u64>) -> Self {
        let one = |index| Self::run(index, 1);
        indexes.map(one).fold(Self::default(), Self::with)
    }

    fn with(self, other: Self) -> Self {
        let indexes = match (self.indexes, other.indexes) {
            (Some(one), Some(other)) => Some(one.start.min(other.start)..one.end.max(other.end)),
            (one, other) => one.or(other),
        };
        Self { rows: self.rows.saturating_add(other.rows), indexes }
    }

    fn first_and_end(&self) -> (u64, u64) {
        self.indexes.as_ref().map_or((0, 0), |indexes| (indexes.start, indexes.end))
    }
}

impl Question {
    pub(crate) fn of_query(request: &wire::QueryRequest) -> Self {
        let everything = wire::Filter::default();
        let filter = request.filter.as_ref().unwrap_or(&everything);
        let words = wording::of_filter(filter);
        Self::new(ReadKind::Query, words, filter.subject_tokens.iter())
    }

    pub(crate) fn of_findings(request: &wire::ListFindingsRequest) -> Self {
        Self::new(ReadKind::Findings, wording::of_findings(request), [].iter())
    }

    pub(crate) fn of_report(request: &wire::GetReportRequest) -> Self {
        let subject = std::slice::from_ref(&request.subject_token).iter();
        Self::new(ReadKind::Report, wording::of_report(request), subject)
    }

    fn new<'a>(kind: ReadKind, words: String, subjects: impl Iterator<Item = &'a Bytes>) -> Self {
        // Nobody has a token that no event may hold, and a record must not fail for one.
        let is_token = |token: &&Bytes| (1..=SUBJECT_TOKEN_LEN_MAX).contains(&token.len());
        let mut subjects: Vec<Bytes> = subjects.filter(is_token).cloned().collect();
        subjects.sort_unstable();
        subjects.dedup();
        Self { kind, words, subjects }
    }

    /// The record of a search by `reader`, with the digest of its answer.
    pub(super) fn record(self, reader: &str, sent: &Sent, digest: &Digest) -> wire::LedgerRead {
        let (first_index, end_index) = sent.first_and_end();
        wire::LedgerRead {
            reader: reader.to_owned(),
            query: self.words,
            rows: sent.rows,
            result_digest: Bytes::copy_from_slice(digest.as_bytes()),
            kind: self.kind.into(),
            calls: 1,
            first_index,
            end_index,
            subject_tokens: self.subjects,
            ..wire::LedgerRead::default()
        }
    }
}

impl Sum {
    /// Of one answer at `now`: nanoseconds since the Unix epoch.
    pub(super) const fn of(calls: u64, sent: Sent, now: u64, due: Instant) -> Self {
        Self { calls, sent, answers: 1, first_at: now, last_at: now, due, has_failed: false }
    }

    /// Adds another one of the same principal and kind.
    pub(super) fn add(&mut self, other: Self) {
        self.calls = self.calls.saturating_add(other.calls);
        self.sent = std::mem::take(&mut self.sent).with(other.sent);
        self.answers = self.answers.saturating_add(other.answers);
        self.first_at = self.first_at.min(other.first_at);
        self.last_at = self.last_at.max(other.last_at);
        self.due = self.due.min(other.due);
        self.has_failed |= other.has_failed;
    }

    /// The record of it.
    pub(super) fn record(&self, reader: &str, kind: ReadKind) -> wire::LedgerRead {
        let (first_index, end_index) = self.sent.first_and_end();
        wire::LedgerRead {
            reader: reader.to_owned(),
            rows: self.sent.rows,
            kind: kind.into(),
            calls: self.calls,
            first_index,
            end_index,
            first_at: Some(timestamp(self.first_at)),
            last_at: Some(timestamp(self.last_at)),
            ..wire::LedgerRead::default()
        }
    }
}

/// Bytes of the longest subject token (`event.proto`).
const SUBJECT_TOKEN_LEN_MAX: usize = 64;
