//! What the disk can do: small appends, each with one sync.

use std::{fmt, path::Path};

use access_ledger_server::folder::real_disk;
use tokio::time::Instant;

use super::report::Sample;

/// About what one event takes in the log.
const RECORD_BYTES: usize = 576;

/// Where the space for an append comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Space {
    /// The file grows.
    Grows,
    /// Zeros were written there before.
    Prepared,
}

impl fmt::Display for Space {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::Grows => "file grows",
            Self::Prepared => "space prepared",
        })
    }
}

/// Appends `count` records to a new file in `folder` and syncs each.
pub(super) fn append(folder: &Path, space: Space, count: usize) -> anyhow::Result<Sample> {
    let file = real_disk().create(&folder.join(space.to_string()))?;
    if space == Space::Prepared {
        file.write_at(&vec![0; count * RECORD_BYTES], 0)?;
    }
    file.sync_data()?;
    let record = vec![1; RECORD_BYTES];
    let mut latencies = Vec::with_capacity(count);
    let (begun, mut offset) = (Instant::now(), 0);
    for _ in 0..count {
        let started = Instant::now();
        file.write_at(&record, offset)?;
        file.sync_data()?;
        latencies.push(started.elapsed().as_secs_f64());
        offset += RECORD_BYTES as u64;
    }
    Ok(Sample::of(count as f64, begun.elapsed().as_secs_f64(), latencies))
}
