//! Whether the ledger takes a redaction, as far as the events that it covers say: whoever asks for
//! too much is told what stands in the way, and where.

use access_ledger_proto::{
    entry::Entry,
    event,
    facts::redactions::{Erasable, check_erasable},
    position::{Index, count_of, memory_len},
    wire,
};

use crate::{
    book::{Book, unreadable},
    refusal::Refusal,
};

/// Checks that both parties together may have everything erased that a redaction covers, and that
/// there is something left to erase. Whether the range is one, and who has signed, is for the
/// writer to judge. Blocks: reads all that it covers.
///
/// # Errors
///
/// [`Refusal::Kept`] names the first event that is never erased; [`Refusal::Erased`] when nothing
/// is left; [`Refusal::Request`] for a range that is too long.
pub(crate) fn check(book: &Book, redaction: &wire::Redaction) -> Result<(), Refusal> {
    let (first, last) = (redaction.first_index, redaction.last_index);
    let Some(more) = last.checked_sub(first) else { return Ok(()) };
    if more >= REDACTION_ENTRIES_MAX {
        let problem =
            format!("range of {} entries, at most {REDACTION_ENTRIES_MAX}", u128::from(more) + 1);
        return Err(Refusal::Request { field: "redaction.last_index", problem });
    }
    let sources = book.sources().clone();
    let end = last.saturating_add(1).min(book.published().size.0);
    let (mut next, mut is_erased) = (Index(first), true);
    while next.0 < end {
        let wanted = memory_len(end - next.0).unwrap_or(usize::MAX);
        let records = book.reader.read(next, wanted, READ_BYTES).map_err(unreadable)?;
        for (index, record) in (next.0..).map(Index).zip(&records) {
            let entry = Entry::parse(&record.entry).map_err(unreadable)?;
            let body = record.event.as_ref().and_then(|event| event::body(event));
            let erasable = Erasable::of(&sources, entry.source, entry.index);
            check_erasable(index, erasable, body).map_err(|kept| Refusal::Kept { index, kept })?;
            is_erased &= record.event.is_none();
        }
        next = next.plus(count_of(records.len()));
    }
    if is_erased && first < end {
        return Err(Refusal::Erased { first: Index(first), last: Index(last) });
    }
    Ok(())
}

/// Entries of one redaction: what is checked in a second or so before it is recorded.
const REDACTION_ENTRIES_MAX: u64 = 1 << 20;

/// Bytes of one read of the log.
const READ_BYTES: usize = 256 << 10;
