//! Merging posting blocks into one of the next level.

use std::{cmp::Ordering, path::Path};

use access_ledger_proto::terms::Field;

use super::{Block, BlockId, BlockWriter, Value, reader::Scan, small};
use crate::{index::error::IndexError, os::Disk};

/// Writes the block that `parts` make together: [`MERGE_FACTOR`](super::MERGE_FACTOR) of them, one
/// level lower, in order. Holds a few pages of each and one term's postings of one part in memory.
///
/// # Errors
///
/// [`IndexError::Damaged`] names the part that is not as written; [`IndexError::Storage`] when the
/// disk refuses. Then the parts are as they were.
pub(crate) fn merge(
    disk: &dyn Disk,
    folder: &Path,
    id: BlockId,
    parts: &[impl AsRef<Block>],
) -> Result<(), IndexError> {
    let Some(layout) = parts.first().map(|part| part.as_ref().layout) else {
        return Ok(());
    };
    let mut writer = BlockWriter::create(disk, folder, &layout, id)?;
    for field in Field::ALL {
        let scans = parts.iter().map(|part| part.as_ref().terms(field)).collect();
        merge_terms(Heads::new(scans)?, id, &mut writer)?;
        writer.end_field(field)?;
    }
    let scans = parts.iter().map(|part| part.as_ref().event_ids()).collect();
    merge_event_ids(Heads::new(scans)?, id, &mut writer)?;
    writer.end_event_ids()?;
    Ok(writer.finish()?)
}

fn merge_terms(
    mut heads: Heads<'_>,
    id: BlockId,
    writer: &mut BlockWriter<'_>,
) -> Result<(), IndexError> {
    let (mut term, mut found) = (Vec::new(), Vec::new());
    while let Some(first) = heads.least(<[u8]>::cmp) {
        term.clear();
        term.extend_from_slice(first.key());
        while let Some(scan) = heads.least(<[u8]>::cmp).filter(|scan| scan.key() == term) {
            found.push((scan.block, scan.value()?));
            heads.advance()?;
        }
        if let [(part, Value::Single(place))] = found[..] {
            writer.single(&term, place + places_before(part, id))?;
        } else {
            for &(part, value) in &found {
                let chunks_before = places_before(part, id) / part.chunk_entries();
                match value {
                    Value::Single(place) => {
                        let (chunk, within) =
                            (place / part.chunk_entries(), place % part.chunk_entries());
                        let within = u16::try_from(within).unwrap_or(u16::MAX);
                        writer.chunk(chunks_before + chunk, 0, &[within])?;
                    }
                    Value::Directory(offset) => part.copy_term(offset, chunks_before, writer)?,
                }
            }
            writer.end_term(&term)?;
        }
        found.clear();
    }
    Ok(())
}

/// Entries of the merged block that lie before those of a part.
fn places_before(part: &Block, merged: BlockId) -> u32 {
    small(part.id.first.0 - merged.first.0)
}

fn merge_event_ids(
    mut heads: Heads<'_>,
    id: BlockId,
    writer: &mut BlockWriter<'_>,
) -> Result<(), IndexError> {
    // Only the ids: places of one part are smaller than those of the next.
    let by_prefix = |left: &[u8], right: &[u8]| left.get(..4).cmp(&right.get(..4));
    while let Some(scan) = heads.least(by_prefix) {
        let (prefix, place) = scan.event_id()?;
        writer.event_id(prefix, place + places_before(scan.block, id))?;
        heads.advance()?;
    }
    Ok(())
}

/// The parts' dictionaries, each at its next key.
struct Heads<'a> {
    /// In the order of the parts; exhausted ones are gone.
    scans: Vec<Scan<'a>>,
    /// Place of the one that was the least.
    least: usize,
}

impl<'a> Heads<'a> {
    fn new(scans: Result<Vec<Scan<'a>>, IndexError>) -> Result<Self, IndexError> {
        let mut heads = Self { scans: Vec::new(), least: 0 };
        for mut scan in scans? {
            if scan.next()? {
                heads.scans.push(scan);
            }
        }
        Ok(heads)
    }

    /// The one with the least key; of equals, that of the earliest part.
    fn least(&mut self, order: impl Fn(&[u8], &[u8]) -> Ordering) -> Option<&Scan<'a>> {
        let heads = self.scans.iter().enumerate();
        let least = heads.min_by(|(_, left), (_, right)| order(left.key(), right.key()));
        let (at, scan) = least?;
        self.least = at;
        Some(scan)
    }

    /// Moves the one that was the least to its next key.
    fn advance(&mut self) -> Result<(), IndexError> {
        let Some(scan) = self.scans.get_mut(self.least) else { return Ok(()) };
        if !scan.next()? {
            self.scans.remove(self.least);
        }
        Ok(())
    }
}
