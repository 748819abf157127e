//! Parts of a story's events: innocent, for a test to change.

use access_ledger_proto::{
    position::Index,
    wire::{self, Access, AccessRequest, Boundary, Decision, Event, Principal, Scope},
};
use bytes::Bytes;

use super::{DATASET, DAY, GRANT, HOME, PERSON, PUBLIC, SECOND, SITES, TOOL};

/// [`PERSON`], at home and at a managed device.
#[must_use]
pub fn person() -> Principal {
    Principal {
        id: PERSON.to_owned(),
        kind: wire::PrincipalKind::Human.into(),
        entity: "example-ie".to_owned(),
        entity_country: HOME.to_owned(),
        office_country: HOME.to_owned(),
        physical_country: HOME.to_owned(),
        location_evidence: wire::LocationEvidence::DeviceAttested.into(),
        ..Default::default()
    }
}

/// The access that [`super::Story::access`] starts from.
#[must_use]
pub fn access() -> (Event, Access) {
    let (tool, build) = TOOL;
    let tool = wire::Tool {
        id: tool.to_owned(),
        build_digest: Bytes::copy_from_slice(&build),
        ..Default::default()
    };
    let event = Event { actor: Some(person()), tool: Some(tool), ..Default::default() };
    let access = Access {
        action: wire::Action::Read.into(),
        data: vec![data(DATASET)],
        purpose: wire::Purpose::CustomerSupport.into(),
        justification: "ticket 4711, customer cannot sign in".to_owned(),
        grant_id: GRANT.to_owned(),
        outcome: wire::Outcome::Allowed.into(),
        records: 1,
        ..Default::default()
    };
    (event, access)
}

/// [`PERSON`] asks for access to [`DATASET`] for a week.
#[must_use]
pub fn request(request_id: &str) -> AccessRequest {
    let (actors, datasets) = (vec![PERSON.to_owned()], vec![DATASET.to_owned()]);
    AccessRequest {
        request_id: request_id.to_owned(),
        scope: Some(Scope { actors, datasets, ..Default::default() }),
        justification: "customer cannot sign in after changing the phone number".to_owned(),
        requested_duration: Some(duration(7 * DAY)),
        purpose: wire::Purpose::CustomerSupport.into(),
    }
}

/// An approver approves.
#[must_use]
pub fn approval(request_id: &str) -> Decision {
    Decision {
        request_id: request_id.to_owned(),
        verdict: wire::Verdict::Approve.into(),
        reason: "scope fits the ticket".to_owned(),
        ..Default::default()
    }
}

/// Data of [`DATASET`] or [`PUBLIC`], classified as it is registered.
#[must_use]
pub fn data(dataset: &str) -> wire::Data {
    let boundary = if dataset == PUBLIC { Boundary::Public } else { Boundary::Protected };
    wire::Data {
        dataset: dataset.to_owned(),
        region: SITES[0].0.to_owned(),
        subject_jurisdiction: HOME.to_owned(),
        boundary: boundary.into(),
        sensitivity: wire::Sensitivity::Confidential.into(),
        categories: vec![wire::DataCategory::Contact.into()],
        records: 1,
        ..Default::default()
    }
}

/// Names the event at an index.
#[must_use]
pub fn reference(index: Index) -> wire::EventReference {
    wire::EventReference { event_id: event_id(index), index: Some(index.0) }
}

/// Nanoseconds since the Unix epoch as a message.
#[must_use]
pub fn timestamp(nanos: u64) -> prost_types::Timestamp {
    let prost_types::Duration { seconds, nanos } = duration(nanos);
    prost_types::Timestamp { seconds, nanos }
}

/// Nanoseconds as a message.
#[must_use]
pub fn duration(nanos: u64) -> prost_types::Duration {
    let seconds = i64::try_from(nanos / SECOND).unwrap_or(i64::MAX);
    let nanos = i32::try_from(nanos % SECOND).unwrap_or_default();
    prost_types::Duration { seconds, nanos }
}

/// The id that the event at an index gets.
#[must_use]
pub fn event_id(Index(index): Index) -> Bytes {
    Bytes::copy_from_slice(&u128::from(index + 1).to_be_bytes())
}
