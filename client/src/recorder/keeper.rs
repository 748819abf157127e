//! The keeper: the thread that owns the spool.
//!
//! It syncs what was accepted, one sync for everything that waits, and hands it on to be sent. When
//! memory is full, events stay on disk alone and are read back when there is room.

use std::{sync::Arc, time::Duration};

use tokio::sync::oneshot;

use super::shared::Shared;
use crate::{
    error::SpoolError,
    spool::{Numbered, Spool, files::Files},
};

/// What the keeper has to do.
#[derive(Debug)]
pub(super) struct Errand {
    /// To be synced.
    pub(super) incoming: Vec<Numbered>,
    /// To be acknowledged.
    pub(super) settled: u64,
    /// There is room for events that only the spool has.
    pub(super) room: bool,
    /// Nothing has happened for a while.
    pub(super) idle: bool,
    /// There will be no other errand.
    pub(super) last: bool,
}

/// Starts the keeper. The receiver learns when the spool's files are closed.
pub(super) fn spawn<F: Files>(spool: Spool<F>, shared: Arc<Shared>) -> oneshot::Receiver<()> {
    let (ended, end) = oneshot::channel();
    std::thread::spawn(move || {
        if let Err(error) = keep(spool, &shared) {
            tracing::error!(%error, "spool failed");
            shared.fail(error.into());
        }
        drop(ended);
    });
    end
}

fn keep<F: Files>(mut spool: Spool<F>, shared: &Shared) -> Result<(), SpoolError> {
    loop {
        let errand = shared.errand(spool.acknowledged(), spool.has_unread(), IDLE);
        spool.acknowledge(errand.settled)?;
        if !errand.incoming.is_empty() {
            let caught_up = !spool.has_unread();
            spool.append(&errand.incoming)?;
            shared.synced(&errand.incoming);
            if caught_up && errand.room {
                spool.skip_unread();
                shared.hand_over(errand.incoming);
            }
        } else if errand.room && spool.has_unread() && !errand.last {
            shared.hand_over(spool.read()?);
        }
        if spool.owes_mark() && (errand.idle || errand.last) {
            spool.mark()?;
        }
        if errand.last {
            return Ok(());
        }
    }
}

/// After so long without events, what was acknowledged is written down.
const IDLE: Duration = Duration::from_secs(1);
