//! A second look at what is about to be told.
//!
//! A round over a large ledger takes hours. What it noted on its way may be in order at its end:
//! the copy has come to the redaction that accounts for it, or the ledger has. So what is overdue
//! is read again, here and there, and only what is so still is told.

use std::{collections::BTreeSet, sync::Arc};

use access_ledger_client::verify::Scope;
use access_ledger_proto::{
    checkpoint::VerifiedCheckpoint,
    position::{Index, Size, count_of},
};
use tokio::time::{Instant, sleep_until, timeout};

use super::{Found, Patrol, budget, length, pace::Pace};

/// Events about which something is to be told.
#[derive(Debug, Default)]
pub(super) struct Overdue {
    /// The ledger serves none, and the copy has one.
    pub(super) missing: BTreeSet<Index>,
    /// The ledger serves one, and the copy has erased it.
    pub(super) served: BTreeSet<Index>,
}

impl Patrol {
    /// What of this is so still.
    ///
    /// No answer is no excuse: what cannot be read again is as it was found, if the ledger answers
    /// at all. If it does not, nothing is said about it.
    pub(super) async fn look_again(
        &mut self,
        overdue: Overdue,
        signed: &Arc<VerifiedCheckpoint>,
        found: &mut Found,
    ) -> Overdue {
        let mut left: BTreeSet<Index> = &overdue.missing | &overdue.served;
        let (mut still, mut pace) = (Overdue::default(), Pace::default());
        while let Some((first, end)) = stretch(&left) {
            let mut records = self.beat.puller.records(first, end, Scope::Events);
            let asked = Instant::now();
            let run = timeout(pace.left(self.options.answer_grace), records.next()).await;
            let begun = Instant::now();
            pace.waited(begun - asked);
            let Ok(Some(Ok(run))) = run else {
                if self.answers().await {
                    still.missing.extend(&left);
                    still.served.extend(&left);
                }
                break;
            };
            let (bytes, next) = (length(&run.1), run.0.plus(count_of(run.1.len())));
            pace.got(run.1.len(), bytes);
            let Some(compared) = self.compared(run, signed, found).await else { break };
            still.missing.extend(compared.missing);
            still.served.extend(compared.served);
            left = left.split_off(&next.max(first.next()));
            sleep_until(begun + budget(bytes, self.options.bytes_per_second)).await;
        }
        Overdue {
            missing: &still.missing & &overdue.missing,
            served: &still.served & &overdue.served,
        }
    }
}

/// The first entry, and the end of those that follow it without a gap.
fn stretch(entries: &BTreeSet<Index>) -> Option<(Index, Size)> {
    let &first = entries.first()?;
    let gapless = (first.0..).map(Index).zip(entries).take_while(|(next, index)| next == *index);
    gapless.last().map(|(_, last)| (first, last.size_through()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbours_are_read_together() {
        let entries = [3, 4, 5, 7, 9].map(Index).into();
        assert_eq!(stretch(&entries), Some((Index(3), Size(6))));
        assert_eq!(stretch(&[Index(7)].into()), Some((Index(7), Size(8))));
        assert_eq!(stretch(&BTreeSet::new()), None);
    }
}
