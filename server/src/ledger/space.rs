//! Space on the disk: appends end while some is left.
//!
//! A write that finds the disk full poisons the writer until a restart, and the index cannot save
//! itself either. So appends are refused before that, for as long as less than the reserve is free;
//! what was recorded before is still answered, and reads go on.

use std::{path::PathBuf, sync::Arc};

use tracing::{info, warn};

use crate::{os::Disk, refusal::Refusal};

/// Looks at how much space is left. Belongs to the writer, who asks once a group.
pub(crate) struct Space {
    disk: Arc<dyn Disk>,
    folder: PathBuf,
    reserve_bytes: u64,
    /// What was free at the last look, when that was too little.
    short: Option<u64>,
}

impl Space {
    /// On the disk that holds `folder`, of which `reserve_bytes` are kept free.
    pub(crate) fn new(disk: Arc<dyn Disk>, folder: PathBuf, reserve_bytes: u64) -> Self {
        Self { disk, folder, reserve_bytes, short: None }
    }

    /// Looks again. A file system that does not answer is taken to have space: whether it takes a
    /// write, the write will tell.
    pub(crate) fn look(&mut self) {
        if self.reserve_bytes == 0 {
            return;
        }
        let free_bytes = self.disk.free_bytes(&self.folder).unwrap_or(u64::MAX);
        let was_short = self.short.is_some();
        self.short = (free_bytes < self.reserve_bytes).then_some(free_bytes);
        metrics::gauge!("access_ledger_disk_free_bytes").set(free_bytes as f64);
        match (was_short, self.short) {
            (false, Some(_)) => {
                warn!(free_bytes, reserve_bytes = self.reserve_bytes, "ended appends");
            }
            (true, None) => info!(free_bytes, "takes appends again"),
            _ => {}
        }
    }

    /// Whether what was free at the last look is enough.
    ///
    /// # Errors
    ///
    /// [`Refusal::DiskFull`] when it is not.
    pub(crate) const fn check(&self) -> Result<(), Refusal> {
        match self.short {
            Some(free_bytes) => {
                Err(Refusal::DiskFull { free_bytes, reserve_bytes: self.reserve_bytes })
            }
            None => Ok(()),
        }
    }
}
