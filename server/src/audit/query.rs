//! `Query`: which entries meet a filter, with their proofs.
//!
//! An answer is bounded in hits, in bytes and in work; where it ends, a page token says how to go
//! on. The token is the next index and a digest over it and the question, so that one of another
//! question is refused rather than answered with something else.

use std::ops::Range;

use access_ledger_proto::{
    entry::Entry,
    error::FilterError,
    event,
    facts::{erased::Redactions, redactions::Erasable},
    hash::sha256,
    position::Index,
    terms::Criteria,
    wire,
};
use bytes::Bytes;
use prost::Message as _;

use super::{indexed, refuse_index, runs::RUN_BYTES_MAX};
use crate::{
    book::{Book, Published, inclusion_path, unreadable},
    index::Search,
    refusal::Refusal,
    storage::Record,
};

/// Answers one page.
pub(super) fn query(
    book: &Book,
    published: &Published,
    request: &wire::QueryRequest,
) -> Result<wire::QueryResponse, Refusal> {
    let filter = request.filter.clone().unwrap_or_default();
    let criteria = Criteria::parse(&filter).map_err(refuse_filter)?;
    let question = Question { filter, newest_first: request.newest_first };
    let token = question.parse_token(&request.page_token)?;
    let size = indexed(book, published.size);
    let range = match token {
        Some(next) if question.newest_first => Index::GENESIS..next.min(size.next_index()),
        Some(next) => next..size.next_index(),
        None => Index::GENESIS..size.next_index(),
    };
    let rules = criteria.rules();
    // Asked for after the size, so the findings follow from as many entries at least.
    let by_rule =
        (!rules.is_empty()).then(|| book.index.indexes_of_rules(rules.iter().map(String::as_str)));
    let search = Search {
        criteria: &criteria,
        by_rule,
        range,
        newest_first: question.newest_first,
        hits_max: hits_max(request.page_size),
    };
    let found = book.index.search(&book.reader, &search).map_err(refuse_index)?;
    let (hits, redactions) = (Vec::new(), None);
    let mut answer = Answer { book, published, request, hits, bytes: 0, redactions };
    let rest = answer.add_all(&found.indexes, found.rest)?;
    Ok(wire::QueryResponse {
        hits: answer.hits,
        next_page_token: question.token(&rest),
        indexed_size: size.0,
        checkpoint: published.note.clone(),
    })
}

/// What a token is bound to.
struct Question {
    filter: wire::Filter,
    newest_first: bool,
}

impl Question {
    /// The token that goes on with what is left; empty when nothing is.
    fn token(&self, rest: &Range<Index>) -> String {
        if rest.is_empty() {
            return String::new();
        }
        let next = if self.newest_first { rest.end } else { rest.start };
        format!("{:016x}{:016x}", next.0, self.check(next))
    }

    /// Where a token goes on; `None` for the empty one, of the first page.
    fn parse_token(&self, token: &str) -> Result<Option<Index>, Refusal> {
        if token.is_empty() {
            return Ok(None);
        }
        let parts = token.split_at_checked(16).filter(|_| token.len() == 32);
        let hex = |digits| u64::from_str_radix(digits, 16).ok();
        let parsed = parts.and_then(|(next, check)| Some((Index(hex(next)?), hex(check)?)));
        match parsed {
            Some((next, check)) if check == self.check(next) => Ok(Some(next)),
            _ => {
                let problem = "not a token of a page before with this filter and order".to_owned();
                Err(Refusal::Request { field: "page_token", problem })
            }
        }
    }

    fn check(&self, next: Index) -> u64 {
        let mut message = TOKEN_LABEL.to_vec();
        message.push(u8::from(self.newest_first));
        message.extend_from_slice(&next.0.to_be_bytes());
        message.extend_from_slice(&self.filter.encode_to_vec());
        let digest = sha256(&message);
        let first = digest.as_ref().first_chunk::<8>().copied();
        u64::from_be_bytes(first.unwrap_or_default())
    }
}

/// A page in the making.
struct Answer<'a> {
    book: &'a Book,
    published: &'a Published,
    request: &'a wire::QueryRequest,
    hits: Vec<wire::QueryHit>,
    bytes: usize,
    /// Looked for when the first event turns out to be erased.
    redactions: Option<Redactions>,
}

impl Answer<'_> {
    /// Adds hits while they fit into a message, one at least; what is left of the search then.
    fn add_all(&mut self, indexes: &[Index], rest: Range<Index>) -> Result<Range<Index>, Refusal> {
        for &index in indexes {
            let hit = self.hit(index)?;
            self.bytes += hit.encoded_len();
            if self.bytes > RUN_BYTES_MAX && !self.hits.is_empty() {
                return Ok(if self.request.newest_first {
                    Index::GENESIS..index.next()
                } else {
                    index..self.published.size.next_index()
                });
            }
            self.hits.push(hit);
        }
        Ok(rest)
    }

    fn hit(&mut self, index: Index) -> Result<wire::QueryHit, Refusal> {
        let (reader, with_events) = (&self.book.reader, self.request.with_events);
        let record = if with_events {
            reader.read(index, 1, 1).map_err(unreadable)?.pop()
        } else {
            let entries = reader.read_entries(index, 1, 1).map_err(unreadable)?;
            entries.into_iter().next().map(|entry| Record { entry, event: None })
        };
        let record = record.ok_or_else(|| unreadable(format!("no entry at index {index}")))?;
        let inclusion_path = if self.request.with_proofs {
            inclusion_path(&self.book.tree, index, self.published.size)?
        } else {
            Vec::new()
        };
        let is_erased = with_events && record.event.is_none();
        let redaction_index = if is_erased { self.redaction_of(index, &record.entry)? } else { 0 };
        let (entry, event): (_, Bytes) = (record.entry, record.event.unwrap_or_default());
        Ok(wire::QueryHit { index: index.0, entry, event, inclusion_path, redaction_index })
    }

    /// Where the redaction lies that erased the event of this entry.
    fn redaction_of(&mut self, index: Index, entry: &Bytes) -> Result<u64, Refusal> {
        let (redactions, sources) = (self.redactions.take(), self.book.sources());
        let redactions = match redactions {
            Some(redactions) => redactions,
            None => self.read_redactions()?,
        };
        let place = Entry::parse(entry).ok().and_then(|entry| {
            let erasable = Erasable::of(&sources, entry.source, index);
            redactions.of(index, entry.recorded_at, erasable)
        });
        let place = place.map_or(0, |(place, _)| place.0);
        self.redactions = Some(redactions);
        Ok(place)
    }

    fn read_redactions(&self) -> Result<Redactions, Refusal> {
        let bodies = vec!["control_change".to_owned(), "redaction".to_owned()];
        let criteria = Criteria::parse(&wire::Filter { bodies, ..Default::default() });
        let search = Search {
            criteria: &criteria.map_err(refuse_filter)?,
            by_rule: None,
            range: Index::GENESIS..self.published.size.next_index(),
            newest_first: false,
            hits_max: REDACTIONS_MAX,
        };
        let (book, mut redactions) = (self.book, Redactions::default());
        let found = book.index.search(&book.reader, &search).map_err(refuse_index)?;
        let sources = book.sources();
        for index in found.indexes {
            let record = book.reader.read(index, 1, 1).map_err(unreadable)?.pop();
            let Some(Record { entry, event: Some(event) }) = record else { continue };
            if let (Ok(entry), Some(body)) = (Entry::parse(&entry), event::body(&event)) {
                redactions.take(&sources, (index, entry.recorded_at), entry.source, body);
            }
        }
        Ok(redactions)
    }
}

fn hits_max(page_size: u32) -> usize {
    match usize::try_from(page_size).unwrap_or(usize::MAX) {
        0 => PAGE_SIZE,
        size => size.min(PAGE_SIZE_MAX),
    }
}

fn refuse_filter(error: FilterError) -> Refusal {
    Refusal::Request { field: error.field, problem: error.fault.to_string() }
}

const TOKEN_LABEL: &[u8] = b"access-ledger/query-token/v1\n";

/// Redactions and changes of the rules that are looked at to tell why an event is gone: those of
/// ten years, one a day. Behind them nothing is told.
const REDACTIONS_MAX: usize = 4_096;

/// Hits of a page when none are asked for, and at most.
const PAGE_SIZE: usize = 100;
const PAGE_SIZE_MAX: usize = 1_000;
