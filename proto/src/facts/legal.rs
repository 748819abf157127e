//! What authorities ask for, phase by phase.

use super::{Facts, Noted, assess::LegalStatus};
use crate::{
    event,
    wire::{self, LegalRequestPhase},
};

impl Facts {
    pub(super) fn legal_status(&self, id: &str) -> LegalStatus {
        if id.is_empty() {
            return LegalStatus::None;
        }
        match self.legal.get(id) {
            None => LegalStatus::Unknown,
            Some(row) if is_over(row.phase()) => LegalStatus::Closed,
            Some(_) => LegalStatus::Open,
        }
    }

    /// Adds a phase. What it says replaces what was said before, what it leaves out does not; that
    /// the user was notified, or content produced, is not taken back. A request that is over stays
    /// over, whatever is told of it later.
    pub(super) fn take_legal_request(&mut self, noted: &Noted<'_>, phase: &wire::LegalRequest) {
        let id = phase.legal_request_id.as_str();
        let row = self.legal.get(id).map_or_else(
            || wire::LegalFacts {
                legal_request_id: id.to_owned(),
                index: noted.index.0,
                received_at: noted.time(),
                ..Default::default()
            },
            std::borrow::Cow::into_owned,
        );
        self.legal.insert(id, noted.index, merged(row, noted, phase));
    }
}

fn merged(
    mut row: wire::LegalFacts,
    noted: &Noted<'_>,
    phase: &wire::LegalRequest,
) -> wire::LegalFacts {
    let said = |new: i32, old: i32| if new == 0 { old } else { new };
    let counted = |new: u64, old: u64| if new == 0 { old } else { new };
    row.process = said(phase.process, row.process);
    row.outcome = said(phase.outcome, row.outcome);
    row.accounts_specified = counted(phase.accounts_specified, row.accounts_specified);
    row.accounts_affected = counted(phase.accounts_affected, row.accounts_affected);
    row.emergency |= phase.emergency;
    row.content_produced |= phase.content_produced;
    row.user_notified |= phase.user_notified || phase.phase() == LegalRequestPhase::UserNotified;
    for (new, old) in [(&phase.country, &mut row.country), (&phase.agency, &mut row.agency)] {
        if !new.is_empty() {
            new.clone_into(old);
        }
    }
    if let Some(received_at) = &phase.received_at {
        row.received_at = event::nanos_of(received_at);
    }
    row.categories_produced.extend(&phase.categories_produced);
    row.categories_produced.sort_unstable();
    row.categories_produced.dedup();
    if !is_over(row.phase()) || is_over(phase.phase()) {
        row.phase = phase.phase;
    }
    row.last_index = noted.index.0;
    row
}

const fn is_over(phase: LegalRequestPhase) -> bool {
    matches!(
        phase,
        LegalRequestPhase::Rejected | LegalRequestPhase::Withdrawn | LegalRequestPhase::Closed
    )
}
