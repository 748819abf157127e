//! Erases the events of a redaction from the log, and says what could not be read. What is damaged
//! keeps nothing else waiting: all that lies before it and behind it is erased.

use access_ledger_proto::{
    event,
    facts::redactions::{Erasable, Erasing},
    position::Index,
};

use crate::{book::Book, error::StorageError, storage::Attempt};

/// What was done.
#[derive(Debug, Default)]
pub(super) struct Wiped {
    /// Events whose bytes were overwritten.
    pub(super) events: u64,
    /// The first damage that was met. What it is about is left as it was.
    pub(super) damage: Option<StorageError>,
}

/// Erases the events of one redaction, or some of them when it is to stop.
///
/// # Errors
///
/// As [`LogReader::erase`](crate::storage::LogReader::erase), but for damage.
pub(super) fn wipe(
    book: &Book,
    erasing: &Erasing,
    attempt: Attempt,
    is_stopping: &dyn Fn() -> bool,
) -> Result<Wiped, StorageError> {
    let sources = book.sources().clone();
    let (mut next, end) = (Index(*erasing.range().start()), Index(erasing.range().end() + 1));
    let (mut limit, mut wiped) = (end, Wiped::default());
    while next < end && !is_stopping() {
        let erased = book.reader.erase(&(next..limit), attempt, |entry, event| {
            let erasable = Erasable::of(&sources, entry.source, entry.index);
            erasing.erases(entry.recorded_at, erasable, event.and_then(event::body))
        });
        match erased {
            Ok(erased) => {
                wiped.events += erased.events;
                next = erased.next;
                if next == limit {
                    limit = end;
                }
            }
            Err(StorageError::Damage { index, .. }) if next < index && index < limit => {
                limit = index;
            }
            Err(error @ StorageError::Damage { .. }) => {
                next = behind(book, next, &error);
                limit = end;
                wiped.damage.get_or_insert(error);
            }
            Err(error) => return Err(error),
        }
    }
    Ok(wiped)
}

/// Where to go on behind damage that was met at `next`: one frame, or the segment that it is in.
fn behind(book: &Book, next: Index, damage: &StorageError) -> Index {
    match damage {
        StorageError::Damage { index, .. } if *index < next => book.reader.segment_end(next),
        _ => next.next(),
    }
}
