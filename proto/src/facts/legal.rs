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

#[cfg(test)]
mod tests {
    use super::{super::testing::*, *};
    use crate::wire::{DataCategory, LegalProcess, LegalRequestOutcome};

    fn phase(phase: LegalRequestPhase) -> wire::LegalRequest {
        wire::LegalRequest {
            legal_request_id: "l".into(),
            phase: phase.into(),
            ..Default::default()
        }
    }

    fn status(ledger: &Ledger) -> LegalStatus {
        let access = wire::Access { legal_request_id: "l".into(), ..access("", "users") };
        ledger.assess("gateway", EventBody::Access(access)).legal
    }

    fn row(ledger: &Ledger) -> wire::LegalFacts {
        ledger.facts.legal().get("l").unwrap().into_owned()
    }

    #[test]
    fn phases_add_up() {
        let mut ledger = Ledger::new();
        assert_eq!(status(&ledger), LegalStatus::Unknown);
        let received = wire::LegalRequest {
            process: LegalProcess::Subpoena.into(),
            country: "US".into(),
            agency: "county court".into(),
            accounts_specified: 3,
            received_at: Some(timestamp(START - 40 * DAY)),
            ..phase(LegalRequestPhase::Received)
        };
        ledger.take("gateway", EventBody::LegalRequest(received));
        let produced = wire::LegalRequest {
            outcome: LegalRequestOutcome::Partial.into(),
            accounts_affected: 2,
            content_produced: true,
            categories_produced: vec![DataCategory::Contact.into(), 99],
            ..phase(LegalRequestPhase::Produced)
        };
        ledger.take("gateway", EventBody::LegalRequest(produced));
        assert_eq!(status(&ledger), LegalStatus::Open);
        ledger.take("gateway", EventBody::LegalRequest(phase(LegalRequestPhase::Closed)));
        ledger.take("gateway", EventBody::LegalRequest(phase(LegalRequestPhase::UserNotified)));
        let row = row(&ledger);
        assert_eq!(
            (row.process(), row.outcome()),
            (LegalProcess::Subpoena, LegalRequestOutcome::Partial)
        );
        assert_eq!((row.accounts_specified, row.accounts_affected), (3, 2));
        assert_eq!((row.country.as_str(), row.agency.as_str()), ("US", "county court"));
        assert_eq!(row.received_at, START - 40 * DAY);
        assert!(row.content_produced && row.user_notified);
        // A category of a newer client is kept.
        assert_eq!(row.categories_produced, [i32::from(DataCategory::Contact), 99]);
        assert_eq!(row.last_index, ledger.next - 1);
    }

    #[test]
    fn what_is_over_stays_over() {
        for over in
            [LegalRequestPhase::Rejected, LegalRequestPhase::Withdrawn, LegalRequestPhase::Closed]
        {
            let mut ledger = Ledger::new();
            ledger.take("gateway", EventBody::LegalRequest(phase(over)));
            for later in [LegalRequestPhase::Received, LegalRequestPhase::UserNotified] {
                ledger.take("gateway", EventBody::LegalRequest(phase(later)));
                assert_eq!(status(&ledger), LegalStatus::Closed);
                assert_eq!(row(&ledger).phase(), over);
            }
        }
    }

    #[test]
    fn a_request_is_known_from_its_first_phase_on_whichever_that_is() {
        let mut ledger = Ledger::new();
        let newer = wire::LegalRequest { phase: 99, ..phase(LegalRequestPhase::Received) };
        ledger.take("gateway", EventBody::LegalRequest(newer));
        assert_eq!((status(&ledger), row(&ledger).phase), (LegalStatus::Open, 99));
        assert_eq!(row(&ledger).received_at, ledger.now - SECOND);
    }
}
