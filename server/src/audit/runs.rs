//! Entries as streams of runs: those that are there, or whatever is recorded as it is recorded.

use std::sync::Arc;

use access_ledger_proto::{
    entry::Entry,
    position::{Index, Size, count_of},
    wire::{self, ReadKind},
};
use bytes::Bytes;
use tokio::{
    sync::watch,
    time::{Instant, sleep_until},
};

use crate::{
    book::{Book, Published, unreadable},
    reads::{Reader, is_news, sent},
    refusal::Refusal,
    storage::{LogReader, ReadMemory},
};

/// Where a stream of entries stands.
pub(super) struct Cursor {
    book: Arc<Book>,
    next: Index,
    with_events: bool,
    reader: Reader,
    memory: ReadMemory,
}

impl Cursor {
    /// Begins to read, which is noted.
    pub(super) fn begin(book: &Arc<Book>, first: Index, with_events: bool, reader: Reader) -> Self {
        let memory = ReadMemory::default();
        let cursor = Self { book: book.clone(), next: first, with_events, reader, memory };
        cursor.reader.began(cursor.kind());
        cursor
    }

    /// Whether entries below `end` are left.
    pub(super) fn is_before(&self, end: Size) -> bool {
        end.contains(self.next)
    }

    /// The next run of entries below `end`.
    pub(super) async fn next(&mut self, end: Size) -> Result<wire::EntryRun, Refusal> {
        let run = self.read(end).await?;
        self.reader.streamed(self.kind(), sent(&run), true);
        Ok(run)
    }

    /// What the stream brings.
    const fn kind(&self) -> ReadKind {
        if self.with_events { ReadKind::Events } else { ReadKind::Entries }
    }

    /// Reads the next run of entries below `end`, off the network's threads.
    async fn read(&mut self, end: Size) -> Result<wire::EntryRun, Refusal> {
        let (reader, first, with_events) = (self.book.reader.clone(), self.next, self.with_events);
        let limits = self.limits(end);
        let mut memory = std::mem::take(&mut self.memory);
        let read = move || {
            let run = read_run(&reader, &mut memory, first, limits, with_events);
            (run, memory)
        };
        let read = tokio::task::spawn_blocking(read).await.map_err(|_| Refusal::Stopping)?;
        let (run, memory) = read;
        let run = run?;
        self.memory = memory;
        self.next = first.plus(count_of(run.entries.len()));
        Ok(run)
    }

    /// Most entries and bytes of the next run.
    fn limits(&self, end: Size) -> (usize, usize) {
        let left = end.0.saturating_sub(self.next.0);
        (usize::try_from(left).unwrap_or(usize::MAX).min(RUN_ENTRIES_MAX), RUN_BYTES_MAX)
    }
}

fn read_run(
    reader: &LogReader,
    memory: &mut ReadMemory,
    first: Index,
    limits: (usize, usize),
    with_events: bool,
) -> Result<wire::EntryRun, Refusal> {
    let (mut entries, mut events) = (Vec::new(), Vec::new());
    if with_events {
        let records = reader.read_on(memory, first, limits).map_err(unreadable)?;
        entries.reserve_exact(records.len());
        events.reserve_exact(records.len());
        for record in records {
            entries.push(record.entry);
            events.push(record.event.unwrap_or_default());
        }
    } else {
        entries = reader.read_entries(first, limits.0, limits.1).map_err(unreadable)?;
    }
    if entries.is_empty() {
        return Err(unreadable(format!("no entry at index {first}")));
    }
    Ok(wire::EntryRun { first_index: first.0, entries, events })
}

/// Where somebody stands who reads whatever is recorded.
pub(super) struct Following {
    cursor: Cursor,
    checkpoints: watch::Receiver<Arc<Published>>,
    /// The checkpoint up to which is read at the moment.
    group: Option<Arc<Published>>,
    /// The next group does not begin before.
    due: Instant,
}

impl Following {
    /// Follows from where `cursor` stands.
    pub(super) fn begin(cursor: Cursor) -> Self {
        let checkpoints = cursor.book.checkpoints();
        Self { cursor, checkpoints, group: None, due: Instant::now() }
    }

    /// The next run, as soon as there is one.
    pub(super) async fn next(&mut self) -> Result<wire::WatchResponse, Refusal> {
        let group = match self.group.take() {
            Some(group) => group,
            None => self.newer_group().await?,
        };
        let cursor = &mut self.cursor;
        let run = cursor.read(group.size).await?;
        let is_news = is_news(&run, cursor.book.sources().ledger_source());
        cursor.reader.streamed(cursor.kind(), sent(&run), is_news);
        let is_whole = !cursor.is_before(group.size);
        let checkpoint = if is_whole { group.note.clone() } else { Bytes::new() };
        self.group = (!is_whole).then_some(group);
        Ok(wire::WatchResponse { run: Some(run), checkpoint })
    }

    /// Waits until a checkpoint covers more than was read, and until it is time: the newest then.
    async fn newer_group(&mut self) -> Result<Arc<Published>, Refusal> {
        // Many may wait at once.
        self.cursor.memory = ReadMemory::default();
        // While nobody waits for those who follow, not even this task is woken for each group.
        sleep_until(self.due).await;
        let next = self.cursor.next;
        let newer = self.checkpoints.wait_for(|published| published.size.contains(next));
        let newer = newer.await.map_err(|_| Refusal::Stopping)?.clone();
        self.due = Instant::now() + self.cursor.book.unawaited_interval();
        Ok(newer)
    }
}

/// Most bytes of frames in one response: reading is sequential, and a slow reader holds little.
pub(super) const RUN_BYTES_MAX: usize = 512 << 10;

/// Most entries in one response: as many as fit without their events.
const RUN_ENTRIES_MAX: usize = RUN_BYTES_MAX / Entry::LEN_MIN;
