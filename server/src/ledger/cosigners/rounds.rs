//! Which checkpoint is asked for.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use access_ledger_proto::position::Size;
use tokio::{sync::watch, time::sleep};

use crate::book::{Book, Published};

/// Agrees with all askers on the checkpoint to ask for.
pub(super) struct Rounds {
    book: Arc<Book>,
    target: watch::Sender<Arc<Published>>,
    /// What each asker is asking for at the moment.
    asking: Mutex<Vec<Option<Size>>>,
}

/// An asker is asking; dropped when it is done.
pub(super) struct Asking<'a> {
    rounds: &'a Rounds,
    seat: usize,
}

impl Rounds {
    /// For so many askers, beginning with the newest checkpoint.
    pub(super) fn new(book: Arc<Book>, askers: usize) -> Self {
        let target = watch::Sender::new(book.published());
        Self { book, target, asking: Mutex::new(vec![None; askers]) }
    }

    /// The checkpoint to ask for, and every later one.
    pub(super) fn targets(&self) -> watch::Receiver<Arc<Published>> {
        self.target.subscribe()
    }

    /// Notes that the asker on this seat asks for the checkpoint of this size.
    pub(super) fn begin(&self, seat: usize, size: Size) -> Asking<'_> {
        self.set(seat, Some(size));
        Asking { rounds: self, seat }
    }

    /// Moves on when checkpoints are published, once an interval.
    pub(super) async fn run(self: Arc<Self>, interval: Duration) {
        let mut checkpoints = self.book.checkpoints();
        while checkpoints.changed().await.is_ok() {
            self.advance();
            sleep(interval).await;
        }
    }

    /// Makes the newest checkpoint the target, if the round is over: the target has its quorum, or
    /// nobody asks for it.
    fn advance(&self) {
        let asking = self.asking.lock().unwrap_or_else(PoisonError::into_inner);
        let target = self.target.borrow().size;
        let is_met = self.book.cosigned().is_some_and(|cosigned| cosigned.size >= target);
        if is_met || !asking.contains(&Some(target)) {
            let newest = self.book.published();
            if newest.size > target {
                self.target.send_replace(newest);
            }
        }
    }

    fn set(&self, seat: usize, size: Option<Size>) {
        let mut asking = self.asking.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(asking) = asking.get_mut(seat) {
            *asking = size;
        }
    }
}

impl Drop for Asking<'_> {
    fn drop(&mut self) {
        self.rounds.set(self.seat, None);
        self.rounds.advance();
    }
}
