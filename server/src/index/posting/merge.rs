//! Merging posting blocks into one of the next level.

use std::path::Path;

use fst::{IntoStreamer as _, Map, Streamer as _};

use super::{Block, BlockId, BlockWriter, FIELDS, small};
use crate::{index::error::IndexError, os::Disk};

/// Writes the block that `parts` make together: [`MERGE_FACTOR`](super::MERGE_FACTOR) of them, one
/// level lower, in order. Holds their dictionaries and one term's postings of one part in memory.
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
    for field in FIELDS {
        let dictionaries: Vec<_> =
            parts.iter().map(|part| part.as_ref().dictionary(field)).collect::<Result<_, _>>()?;
        let union = dictionaries.iter().map(Map::stream).collect::<fst::map::OpBuilder<'_>>();
        let mut terms = union.union().into_stream();
        while let Some((term, found)) = terms.next() {
            let mut found = found.to_vec();
            found.sort_unstable_by_key(|found| found.index);
            for found in found {
                let Some(part) = parts.get(found.index).map(AsRef::as_ref) else { continue };
                let entries_before = part.id.first.0 - id.first.0;
                let chunks_before = small(entries_before / u64::from(layout.block_entries));
                part.copy_term(found.value, chunks_before, &mut writer)?;
            }
            writer.end_term(term)?;
        }
        writer.end_field(field)?;
    }
    Ok(writer.finish()?)
}
