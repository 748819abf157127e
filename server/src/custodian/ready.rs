//! Whether a custodian does its work: it follows, signs, and holds what was signed.

use std::{
    sync::{Arc, Weak},
    time::Duration,
};

use super::{
    desk::Desk,
    lag::{Behind, Lag},
};
use crate::{
    health::{self, Judge, Unready},
    witness::Witness,
};

/// Judges a custodian. What is behind for `behind_after` is an alarm, and not ready either.
pub(super) fn judge(desk: &Arc<Desk>, witness: &Arc<Witness>, behind_after: Duration) -> Judge {
    let (desk, witness) = (Arc::downgrade(desk), Arc::downgrade(witness));
    // The book comes later, and is judged by the watch that began with it.
    let of_book = std::sync::OnceLock::new();
    Arc::new(move || {
        let parts = (Weak::upgrade(&desk), Weak::upgrade(&witness));
        let (Some(desk), Some(witness)) = parts else { return vec![Unready::Stopping] };
        let mut hindrances = Vec::new();
        match &*desk.books().borrow() {
            None => hindrances.push(Unready::NothingHeld),
            Some(book) => hindrances.extend(of_book.get_or_init(|| health::of_book(book))()),
        }
        if witness.is_halted(desk.ledger().name()) {
            // Whether it follows all the same is nobody's question then.
            hindrances.push(Unready::Halted);
        } else {
            hindrances.extend(of_lag(&desk.lag, behind_after));
        }
        hindrances
    })
}

fn of_lag(lag: &Lag, behind_after: Duration) -> Option<Unready> {
    let Behind { entries, time, is_first, .. } = lag.behind();
    if !lag.heard_within(UNHEARD_AFTER) {
        return Some(Unready::LedgerUnheard);
    }
    let is_behind = time >= behind_after || (is_first && entries > 0);
    is_behind.then_some(Unready::CopyBehind { entries, seconds: time.as_secs() })
}

/// The ledger is asked every two seconds; a restart of it takes less.
const UNHEARD_AFTER: Duration = Duration::from_secs(30);

#[cfg(test)]
mod tests {
    use access_ledger_proto::position::Size;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_custodian_is_ready_while_it_hears_the_ledger_and_holds_what_it_signed() {
        let lag = Lag::default();
        let after = async |s| tokio::time::advance(Duration::from_secs(s)).await;
        let told = || of_lag(&lag, Duration::from_secs(20));
        assert_eq!(told(), Some(Unready::LedgerUnheard));
        lag.sees(Size(9));
        let seconds = 0;
        assert_eq!(told(), Some(Unready::CopyBehind { entries: 9, seconds }), "the first time");
        after(40).await;
        assert_eq!(told(), Some(Unready::LedgerUnheard));
        lag.takes(Size(9));
        lag.holds(Size(9));
        assert_eq!(told(), None);
        lag.sees(Size(10));
        after(19).await;
        assert_eq!(told(), None, "not for long");
        after(1).await;
        assert_eq!(told(), Some(Unready::CopyBehind { entries: 1, seconds: 20 }));
    }
}
