//! What authorities ask for: 100 requests for 107 accounts, of which 82 are answered with data; and
//! one disclosure that nobody had asked for in due form.

use access_ledger_proto::wire::{
    Access, AccessRequest, Action, Attestation, AttestationKind, Decision, LegalProcess,
    LegalRequest, LegalRequestOutcome, LegalRequestPhase, LocationEvidence, Outcome, Place,
    Principal, PrincipalKind, Purpose, RecipientKind, Scope, Transfer, TransferMode, Verdict,
    event::Body,
};
use rand::{Rng, RngExt as _};

use super::{
    Arranged, DAYS, HOUR_NANOS, Happening, What,
    approvals::{answer, days, push},
    at,
    company::{ACCESS_PORTAL, DEPUTY, HOME, HOME_ENTITY, LEAD, LEGAL_DESK},
    datasets::{DEVICES, Dataset, MESSAGES, PROFILE, VIRGINIA},
    draw::{pick, row},
    event_at, timestamp, tool_version,
};

/// Everything that has to do with authorities, all through the half-year.
pub(super) fn arrange(rng: &mut impl Rng, arranged: &mut Arranged) {
    grant(rng, arranged);
    for number in 0..REQUESTS {
        Case::new(rng, number).arrange(rng, arranged);
    }
    let time = at(UNASKED_DAY, 21, 40);
    let transfer = Transfer {
        to: Some(authority("SG", "Ministry of Home Affairs")),
        ..transfer(UNASKED_DAY, &PROFILE, 12)
    };
    push(arranged, UNASKED_DAY, told(rng, time, Body::Transfer(transfer)));
    for (first, last) in [(0, 91), (92, DAYS - 1)] {
        let attestation = Attestation {
            kind: AttestationKind::NilReturn.into(),
            statement: "No request of an authority of this country was received".to_owned(),
            period_start: Some(timestamp(at(first, 0, 0))),
            period_end: Some(timestamp(at(last + 1, 0, 0))),
            country: "CN".to_owned(),
        };
        push(arranged, last, told(rng, at(last, 23, 0), Body::Attestation(attestation)));
    }
}

/// The standing grant of who answers authorities.
fn grant(rng: &mut impl Rng, arranged: &mut Arranged) {
    let datasets = [&PROFILE, &DEVICES, &MESSAGES].map(|dataset| dataset.name.to_owned());
    let request = AccessRequest {
        request_id: GRANT.to_owned(),
        scope: Some(Scope {
            actors: vec![officer().id],
            datasets: datasets.to_vec(),
            ..Scope::default()
        }),
        justification: "Answers to requests of authorities, each by its own process".to_owned(),
        requested_duration: Some(days(DAYS + 16)),
        purpose: Purpose::LegalRequest.into(),
    };
    let mut event = event_at(rng, at(0, 18, 0), Body::AccessRequest(request));
    event.actor = Some(officer());
    push(arranged, 0, Happening::new(at(0, 18, 0), What::Event(ACCESS_PORTAL, event.into())));
    for (approver, hour) in [(LEAD, 19), (DEPUTY, 20)] {
        let decision = Decision {
            request_id: GRANT.to_owned(),
            verdict: Verdict::Approve.into(),
            reason: "Counsel reads each process first".to_owned(),
            party: "company".to_owned(),
            ..Decision::default()
        };
        push(arranged, 0, answer(rng, approver, at(0, hour, 30), decision));
    }
}

/// A request of an authority.
struct Case {
    id: String,
    process: LegalProcess,
    agency: &'static str,
    accounts: u64,
    outcome: LegalRequestOutcome,
    received_on: u64,
    answered_on: u64,
}

impl Case {
    fn new(rng: &mut impl Rng, number: u64) -> Self {
        let emergency = number % 9 == 4;
        let (process, agency) = match emergency {
            true => (LegalProcess::Emergency, *pick(rng, AGENCIES)),
            false => (*row(rng, PROCESSES), *pick(rng, AGENCIES)),
        };
        let outcome = match number % 11 {
            3 => LegalRequestOutcome::NoData,
            8 => LegalRequestOutcome::Rejected,
            _ if rng.random_ratio(1, 3) => LegalRequestOutcome::Partial,
            _ => LegalRequestOutcome::Full,
        };
        let received_on = 1 + number * 165 / REQUESTS;
        let wait = if emergency { 1 } else { rng.random_range(3..14) };
        Self {
            id: format!("LR-2025-{:04}", number + 1),
            process,
            agency,
            // 107 in all.
            accounts: match number {
                10 | 40 | 70 => 2,
                25 | 85 => 3,
                _ => 1,
            },
            outcome,
            received_on,
            answered_on: received_on + wait,
        }
    }

    fn arrange(&self, rng: &mut impl Rng, arranged: &mut Arranged) {
        let received = at(self.received_on, 15, 0) + rng.random_range(0..8 * HOUR_NANOS);
        let request = LegalRequest {
            process: self.process.into(),
            emergency: self.process == LegalProcess::Emergency,
            country: HOME.to_owned(),
            agency: self.agency.to_owned(),
            accounts_specified: self.accounts,
            received_at: Some(timestamp(received)),
            ..self.phase(LegalRequestPhase::Received)
        };
        push(arranged, self.received_on, told(rng, received, Body::LegalRequest(request)));

        let day = self.answered_on;
        let time = at(day, 16, 0) + rng.random_range(0..4 * HOUR_NANOS);
        let answered = match self.outcome {
            LegalRequestOutcome::Full | LegalRequestOutcome::Partial => {
                let dataset = *pick(rng, &[&PROFILE, &PROFILE, &DEVICES, &MESSAGES]);
                self.disclose(rng, dataset, time, arranged);
                LegalRequest {
                    accounts_affected: self.accounts,
                    categories_produced: dataset.data(day).categories,
                    content_produced: dataset.name == MESSAGES.name,
                    ..self.phase(LegalRequestPhase::Produced)
                }
            }
            LegalRequestOutcome::Rejected => self.phase(LegalRequestPhase::Rejected),
            _ => self.phase(LegalRequestPhase::Closed),
        };
        let answered = LegalRequest { outcome: self.outcome.into(), ..answered };
        push(arranged, day, told(rng, time + HOUR_NANOS, Body::LegalRequest(answered)).resting());
        if self.outcome == LegalRequestOutcome::Full && day + 3 < DAYS {
            let notified = self.phase(LegalRequestPhase::UserNotified);
            let time = at(day + 3, 17, 0);
            push(arranged, day + 3, told(rng, time, Body::LegalRequest(notified)));
        }
    }

    /// Somebody at the legal desk takes the data out, and they go to the authority.
    fn disclose(&self, rng: &mut impl Rng, dataset: &Dataset, time: u64, arranged: &mut Arranged) {
        let records = self.accounts * rng.random_range(1..20);
        let day = self.answered_on;
        let mut data = dataset.data(day);
        data.records = records;
        let access = Access {
            action: Action::Export.into(),
            data: vec![data],
            purpose: Purpose::LegalRequest.into(),
            justification: "Records that the process in this case names".to_owned(),
            grant_id: GRANT.to_owned(),
            legal_request_id: self.id.clone(),
            outcome: Outcome::Allowed.into(),
            records,
            bytes: records * dataset.record_bytes,
            ..Access::default()
        };
        let mut event = event_at(rng, time, Body::Access(access));
        event.actor = Some(officer());
        event.tool = Some(tool_version("legal-portal", "3.4", "access-proxy"));
        event.correlation_id.clone_from(&self.id);
        push(arranged, day, Happening::new(time, What::Event(LEGAL_DESK, event.into())).resting());
        let transfer = Transfer {
            to: Some(authority(HOME, self.agency)),
            legal_basis: self.process.as_str_name().to_owned(),
            legal_request_id: self.id.clone(),
            ..transfer(day, dataset, records)
        };
        push(arranged, day, told(rng, time + HOUR_NANOS / 2, Body::Transfer(transfer)));
    }

    fn phase(&self, phase: LegalRequestPhase) -> LegalRequest {
        LegalRequest {
            legal_request_id: self.id.clone(),
            phase: phase.into(),
            ..LegalRequest::default()
        }
    }
}

/// Records that go to an authority.
fn transfer(day: u64, dataset: &Dataset, records: u64) -> Transfer {
    let mut data = dataset.data(day);
    data.records = records;
    data.bytes = records * dataset.record_bytes;
    let from = Place {
        site: VIRGINIA.to_owned(),
        country: HOME.to_owned(),
        entity: HOME_ENTITY.to_owned(),
    };
    Transfer {
        from: Some(from),
        mode: TransferMode::Api.into(),
        data: vec![data],
        recipient_kind: RecipientKind::Authority.into(),
        purpose: Purpose::LegalRequest.into(),
        ..Transfer::default()
    }
}

fn authority(country: &str, agency: &str) -> Place {
    Place { country: country.to_owned(), entity: agency.to_owned(), ..Place::default() }
}

/// What the legal desk records.
fn told(rng: &mut impl Rng, time: u64, body: Body) -> Happening {
    let event = event_at(rng, time, body);
    Happening::new(time, What::Event(LEGAL_DESK, event.into()))
}

fn officer() -> Principal {
    Principal {
        id: "p-legal-1".to_owned(),
        kind: PrincipalKind::Human.into(),
        entity: HOME_ENTITY.to_owned(),
        entity_country: HOME.to_owned(),
        office_country: HOME.to_owned(),
        physical_country: HOME.to_owned(),
        location_evidence: LocationEvidence::DeviceAttested.into(),
        roles: vec!["legal-officer".to_owned()],
        ..Principal::default()
    }
}

const REQUESTS: u64 = 100;

const GRANT: &str = "REQ-LEGAL";

/// When data went to an authority that had no process.
const UNASKED_DAY: u64 = 97;

const PROCESSES: &[(u32, LegalProcess)] = &[
    (6, LegalProcess::Subpoena),
    (4, LegalProcess::SearchWarrant),
    (3, LegalProcess::CourtOrder),
    (1, LegalProcess::PenRegister),
    (1, LegalProcess::Preservation),
];

const AGENCIES: &[&str] = &["FBI", "Homeland Security", "State police", "District attorney"];
