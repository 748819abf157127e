//! Answers filters: which entries meet all that is asked, newest or oldest first, a page at a time.
//!
//! Goes over the log stretch by stretch (the tail, the posting blocks) and, within a block, chunk
//! by chunk. A block's directories tell which chunks have a term and how often, so chunks that lack
//! a field altogether are never read, the rarest field is read first, and a page ends the walk. The
//! work of one call is bounded whatever is asked: when it is used up, the answer is short and says
//! where to go on.

use std::ops::Range;

use access_ledger_proto::{
    entry::Entry,
    position::Index as Place,
    terms::{self, Criteria, Field},
};
use roaring::{RoaringBitmap, RoaringTreemap};

use super::{
    Index,
    error::IndexError,
    posting::{Block, Chunk, small},
    rebuilding,
    tail::event_id_prefix,
};
use crate::storage::LogReader;

/// What to search for, and where.
pub struct Search<'a> {
    /// What entries must have.
    pub criteria: &'a Criteria,
    /// When rules are asked for: the entries that have findings of them.
    pub by_rule: Option<RoaringTreemap>,
    /// Where to search: from the first index, before the second, which the index covers
    /// ([`Index::indexed_size`]); so do `by_rule`'s findings.
    pub range: Range<Place>,
    /// From the end backwards.
    pub newest_first: bool,
    /// Most hits, at least 1.
    pub hits_max: usize,
}

/// What a search found.
#[derive(Debug, PartialEq, Eq)]
pub struct Hits {
    /// In the order asked for.
    pub indexes: Vec<Place>,
    /// What was not searched; empty when all was.
    pub rest: Range<Place>,
}

impl Index {
    /// Searches a range of the log, whose reader this is. Blocks.
    ///
    /// Whether it finds anything or not, it does a bounded amount of work, some tens of
    /// milliseconds, and leaves the rest of the range to another call.
    ///
    /// # Errors
    ///
    /// [`IndexError::Damaged`], and from then on [`IndexError::Rebuilding`] until the follower has
    /// read the log again; [`IndexError::Storage`] when the disk refuses.
    pub fn search(&self, reader: &LogReader, search: &Search<'_>) -> Result<Hits, IndexError> {
        let found = self.shared.read_tail(|tail| {
            let reaches = search.range.end > tail.first();
            let places = reaches.then(|| tail.matching(search.criteria));
            (tail.first(), places.unwrap_or_default())
        });
        let (tail_first, tail_places) = found;
        // Read after the tail: what leaves the tail is in a block by then.
        let blocks = self.shared.blocks.list();
        let mut walk = Walk::new(reader, search)?;
        let tail = Stretch::Tail(tail_first, tail_places);
        let stretches = blocks.iter().map(|block| Stretch::Block(block)).chain([tail]);
        let mut stretches: Vec<_> = stretches.collect();
        if search.newest_first {
            stretches.reverse();
        }
        let walked = walk.over(&stretches, tail_first);
        walked.inspect_err(|error| {
            self.shared.blocks.drop_damaged(error);
            if matches!(error, IndexError::Damaged { .. }) {
                self.shared.progress.ask_for_repair();
            }
        })?;
        Ok(Hits { indexes: walk.hits, rest: walk.range })
    }
}

/// A part of the log that is searched as one.
enum Stretch<'a> {
    /// The places of the tail that match.
    Tail(Place, RoaringBitmap),
    Block(&'a Block),
}

/// A search under way.
struct Walk<'a> {
    reader: &'a LogReader,
    search: &'a Search<'a>,
    /// What is left to search.
    range: Range<Place>,
    hits: Vec<Place>,
    /// Pieces of work done.
    work: u32,
}

/// Whether to go on.
#[derive(PartialEq, Eq)]
enum Flow {
    On,
    Enough,
}

impl<'a> Walk<'a> {
    /// Of what was recorded in the time asked for.
    fn new(reader: &'a LogReader, search: &'a Search<'a>) -> Result<Self, IndexError> {
        let range = search.range.clone();
        let (from, to) = search.criteria.recorded;
        let start = if from == 0 { range.start } else { first_at(reader, &range, from)? };
        let end = if to == u64::MAX { range.end } else { first_at(reader, &range, to)? };
        Ok(Self { reader, search, range: start..end, hits: Vec::new(), work: 0 })
    }

    /// Searches all stretches, which come in the order asked for.
    fn over(&mut self, stretches: &[Stretch<'_>], tail_first: Place) -> Result<(), IndexError> {
        for stretch in stretches {
            let covered = match stretch {
                Stretch::Tail(first, _) => *first..Place(u64::MAX),
                // A block may hold what was in the tail a moment ago, too.
                Stretch::Block(block) => block.id.first..block.end().min(tail_first),
            };
            let todo = intersection(&covered, &self.range);
            if todo.is_empty() {
                continue;
            }
            if self.work > WORK_MAX {
                return Ok(());
            }
            let gap = if self.search.newest_first {
                todo.end..self.range.end
            } else {
                self.range.start..todo.start
            };
            if !gap.is_empty() {
                return Err(rebuilding(gap.start, gap.end));
            }
            let flow = match stretch {
                Stretch::Tail(first, places) => {
                    let places = self.by_rule(*first, u32::MAX, places.clone());
                    self.take(*first, &places)?
                }
                Stretch::Block(block) => self.over_block(block, &todo)?,
            };
            if flow == Flow::Enough {
                return Ok(());
            }
            self.done_through(&todo);
        }
        if self.range.is_empty() {
            return Ok(());
        }
        Err(rebuilding(self.range.start, self.range.end))
    }

    /// Searches a part of a block.
    fn over_block(&mut self, block: &Block, todo: &Range<Place>) -> Result<Flow, IndexError> {
        let lists = self.lists(block)?;
        let chunk_entries = u64::from(block.chunk_entries());
        let number = |index: Place| small((index.0 - block.id.first.0) / chunk_entries);
        let last = Place(todo.end.0.saturating_sub(1));
        let mut numbers = candidates(&lists, number(todo.start)..number(last).saturating_add(1));
        if self.search.newest_first {
            numbers.reverse();
        }
        for chunk in numbers {
            if self.work > WORK_MAX {
                return Ok(Flow::Enough);
            }
            self.work += 1;
            let first = block.id.first.plus(u64::from(chunk) * chunk_entries);
            let all = first..first.plus(chunk_entries);
            let places = self.places(block, &lists, chunk, first)?;
            if self.take(first, &places)? == Flow::Enough {
                return Ok(Flow::Enough);
            }
            self.done_through(&intersection(&all, todo));
        }
        Ok(Flow::On)
    }

    /// For each field asked for, and for event ids, the chunks of a block that have one of the
    /// values, ascending.
    fn lists(&mut self, block: &Block) -> Result<Vec<Vec<Chunk>>, IndexError> {
        let mut lists = Vec::new();
        for field in Field::ALL {
            let terms = self.search.criteria.terms(field);
            if terms.is_empty() {
                continue;
            }
            let mut list = Vec::new();
            for term in terms {
                self.work += 1;
                list.append(&mut block.chunks(field, term)?);
            }
            list.sort_by_key(|chunk| chunk.number);
            lists.push(list);
            if lists.last().is_some_and(Vec::is_empty) {
                return Ok(lists);
            }
        }
        let ids = self.search.criteria.event_ids();
        let mut list = Vec::new();
        for prefix in ids.iter().filter_map(|id| event_id_prefix(id)) {
            self.work += 1;
            match block.event_chunks(prefix, EVENT_CHUNKS_MAX)? {
                Some(mut chunks) => list.append(&mut chunks),
                // So many that looking at the events is no more work than looking for them.
                None => return Ok(lists),
            }
        }
        if !ids.is_empty() {
            list.sort_by_key(|chunk| chunk.number);
            lists.push(list);
        }
        Ok(lists)
    }

    /// The places of a chunk that have one of the values of each field, and are found by rule.
    fn places(
        &mut self,
        block: &Block,
        lists: &[Vec<Chunk>],
        chunk: u32,
        first: Place,
    ) -> Result<RoaringBitmap, IndexError> {
        let mut places = RoaringBitmap::new();
        places.insert_range(..block.chunk_entries());
        places = self.by_rule(first, block.chunk_entries(), places);
        let mut lists: Vec<_> = lists.iter().map(|list| in_chunk(list, chunk)).collect();
        lists.sort_by_key(|list| list.iter().map(|chunk| u64::from(chunk.count)).sum::<u64>());
        for list in lists {
            if places.is_empty() {
                break;
            }
            let mut found = RoaringBitmap::new();
            for chunk in list {
                self.work += 1;
                found |= block.places(chunk)?;
            }
            places &= found;
        }
        Ok(places)
    }

    /// Of `places`, which are relative to `first`, those that have a finding of the rules asked
    /// for.
    fn by_rule(&self, first: Place, count: u32, places: RoaringBitmap) -> RoaringBitmap {
        let Some(by_rule) = &self.search.by_rule else { return places };
        let end = first.plus(count.into());
        let mut indexes = by_rule.iter();
        indexes.advance_to(first.0);
        let found = indexes.take_while(|index| *index < end.0).map(|index| small(index - first.0));
        places & found.collect::<RoaringBitmap>()
    }

    /// Takes the hits among places, relative to `first`, that lie in what is left to search.
    fn take(&mut self, first: Place, places: &RoaringBitmap) -> Result<Flow, IndexError> {
        let todo = self.range.clone();
        let indexes = places.iter().map(|place| first.plus(place.into()));
        if self.search.newest_first {
            self.take_each(indexes.rev().filter(|index| todo.contains(index)))
        } else {
            self.take_each(indexes.filter(|index| todo.contains(index)))
        }
    }

    fn take_each(&mut self, indexes: impl Iterator<Item = Place>) -> Result<Flow, IndexError> {
        for index in indexes {
            if self.hits.len() >= self.search.hits_max || self.work > WORK_MAX {
                self.go_on_with(index);
                return Ok(Flow::Enough);
            }
            if self.is_hit(index)? {
                self.hits.push(index);
            }
        }
        Ok(Flow::On)
    }

    /// Event ids are found by their first bytes only; the event decides.
    fn is_hit(&mut self, index: Place) -> Result<bool, IndexError> {
        if self.search.criteria.event_ids().is_empty() {
            return Ok(true);
        }
        self.work += 1;
        let record = self.reader.read(index, 1, usize::MAX)?.pop();
        let event = record.and_then(|record| terms::decode(&record.event?));
        Ok(self.search.criteria.has_event_id(event.as_ref()))
    }

    /// All of `done` was searched, which is at the near end of what is left.
    fn done_through(&mut self, done: &Range<Place>) {
        if self.search.newest_first {
            self.range.end = done.start;
        } else {
            self.range.start = done.end;
        }
    }

    /// All before `index`, in the order asked for, was searched.
    fn go_on_with(&mut self, index: Place) {
        if self.search.newest_first {
            self.range.end = index.next();
        } else {
            self.range.start = index;
        }
    }
}

/// The chunks in a range that all lists have, ascending.
fn candidates(lists: &[Vec<Chunk>], range: Range<u32>) -> Vec<u32> {
    let Some(shortest) = lists.iter().min_by_key(|list| list.len()) else {
        return range.collect();
    };
    let mut numbers: Vec<_> = shortest.iter().map(|chunk| chunk.number).collect();
    numbers.dedup();
    numbers.retain(|&number| {
        range.contains(&number) && lists.iter().all(|list| !in_chunk(list, number).is_empty())
    });
    numbers
}

/// The part of a list that is about one chunk.
fn in_chunk(list: &[Chunk], number: u32) -> &[Chunk] {
    let start = list.partition_point(|chunk| chunk.number < number);
    let end = list.partition_point(|chunk| chunk.number <= number);
    list.get(start..end).unwrap_or_default()
}

fn intersection(left: &Range<Place>, right: &Range<Place>) -> Range<Place> {
    left.start.max(right.start)..left.end.min(right.end)
}

/// The first entry in a range that was recorded at `time` or later; the range's end when none was.
/// Times never fall, so this is a binary search.
fn first_at(reader: &LogReader, range: &Range<Place>, time: u64) -> Result<Place, IndexError> {
    let (mut start, mut end) = (range.start.0, range.end.0);
    while start < end {
        let middle = start + (end - start) / 2;
        let index = Place(middle);
        let entry = reader.read_entries(index, 1, usize::MAX)?.pop().unwrap_or_default();
        let entry = Entry::parse(&entry).map_err(|fault| IndexError::Entry { index, fault })?;
        if entry.recorded_at < time { start = middle + 1 } else { end = middle }
    }
    Ok(Place(start))
}

/// Pieces of work of one search: a term looked up, a chunk or an event read. Each takes a few
/// microseconds.
const WORK_MAX: u32 = 8_192;

/// Most events of one block whose ids begin alike that are looked for one by one.
const EVENT_CHUNKS_MAX: usize = 1_024;
