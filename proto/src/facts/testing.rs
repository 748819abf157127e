//! A small ledger for tests: two parties, two approvers, and a source that records.

use ed25519_dalek::{Signer as _, SigningKey};
use prost::Message as _;
use prost_types::{Duration, Timestamp};

use super::{
    Facts, Noted, Objection,
    assess::{Assessed, GrantStatus},
    control::{control_message, registration_message},
    sources::Roles,
};
use crate::{
    enrolment::EnrolmentClaim,
    note::{KeyType, VerifierKey},
    position::Index,
    seal::source_key_id,
    source::Name,
    wire::{self, Action, Boundary, ControlKind, Outcome, SourcePhase, SourceRole, Verdict},
};

pub(crate) use crate::wire::event::Body as EventBody;

pub(crate) const ORIGIN: &str = "ledger.example/test";

/// When the ledger's time begins: some day in 2026.
pub(crate) const START: u64 = 1_782_864_000_000_000_000;

pub(crate) const SECOND: u64 = 1_000_000_000;
pub(crate) const HOUR: u64 = 3_600 * SECOND;
pub(crate) const DAY: u64 = 24 * HOUR;

pub(crate) fn name(text: &str) -> Name<'_> {
    Name::parse(text.as_bytes()).unwrap()
}

pub(crate) fn key(seed: u8) -> SigningKey {
    SigningKey::from_bytes(&[seed; 32])
}

pub(crate) fn genesis() -> Vec<u8> {
    let initial = |name: &str, seed| wire::InitialSource {
        name: name.into(),
        public_key: key(seed).verifying_key().to_bytes().to_vec().into(),
    };
    let vkey = VerifierKey::new(ORIGIN, KeyType::Ed25519, &key(9).verifying_key().to_bytes());
    let genesis = wire::Genesis {
        origin: ORIGIN.into(),
        ledger_vkey: vkey.unwrap().to_string(),
        ledger_source: Some(initial("ledger", 1)),
        governance: vec![initial("company", 2), initial("custodian", 3)],
        self_enrolment: true,
        policy: "permit (principal, action, resource);".into(),
    };
    let change = wire::ControlChange {
        kind: ControlKind::Genesis.into(),
        content: genesis.encode_to_vec().into(),
        ..Default::default()
    };
    event(EventBody::ControlChange(change)).encode_to_vec()
}

pub(crate) fn event(body: EventBody) -> wire::Event {
    let event_id = vec![7; 16].into();
    wire::Event { event_id, body: Some(body), ..Default::default() }
}

/// A signature of a governance party.
pub(crate) fn approval(party: &str, seed: u8, message: &str) -> wire::Approval {
    let public = key(seed).verifying_key();
    wire::Approval {
        source: party.into(),
        key_id: source_key_id(name(party), &public).0.to_vec().into(),
        signature: key(seed).sign(message.as_bytes()).to_bytes().to_vec().into(),
    }
}

/// A registration that the custodian has signed.
pub(crate) fn registration(
    source: &str,
    seed: u8,
    roles: &[SourceRole],
    principal: &str,
) -> wire::SourceStatus {
    let public_key = key(seed).verifying_key();
    let claim = EnrolmentClaim {
        source: name(source),
        public_key: &public_key,
        roles: roles.iter().copied().collect::<Roles>(),
        heartbeat_nanos: 0,
    };
    let message = registration_message(ORIGIN, &claim, principal);
    wire::SourceStatus {
        phase: SourcePhase::Registered.into(),
        source: source.into(),
        public_key: public_key.to_bytes().to_vec().into(),
        roles: roles.iter().map(|&role| role.into()).collect(),
        principal: principal.into(),
        approvals: vec![approval("custodian", 3, &message)],
        ..Default::default()
    }
}

/// A change that the custodian has signed.
pub(crate) fn change(
    kind: ControlKind,
    target: &str,
    revision: u64,
    content: Vec<u8>,
) -> wire::ControlChange {
    let mut change = wire::ControlChange {
        kind: kind.into(),
        target: target.into(),
        content: content.into(),
        revision,
        ..Default::default()
    };
    change.approvals = vec![approval("custodian", 3, &control_message(ORIGIN, &change))];
    change
}

pub(crate) fn dataset(boundary: Boundary) -> wire::Dataset {
    wire::Dataset { boundary: boundary.into(), ..Default::default() }
}

pub(crate) fn data(dataset: &str) -> wire::Data {
    wire::Data { dataset: dataset.into(), ..Default::default() }
}

pub(crate) fn access(grant_id: &str, dataset: &str) -> wire::Access {
    wire::Access {
        action: Action::Read.into(),
        data: vec![data(dataset)],
        outcome: Outcome::Allowed.into(),
        grant_id: grant_id.into(),
        ..Default::default()
    }
}

pub(crate) fn scope(actors: &[&str], datasets: &[&str]) -> wire::Scope {
    let owned = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect();
    wire::Scope { actors: owned(actors), datasets: owned(datasets), ..Default::default() }
}

pub(crate) fn request(id: &str, scope: wire::Scope) -> wire::AccessRequest {
    wire::AccessRequest {
        request_id: id.into(),
        scope: Some(scope),
        justification: "customer reported a failed payment, reading the order".into(),
        requested_duration: Some(Duration { seconds: 3_600, nanos: 0 }),
        ..Default::default()
    }
}

pub(crate) fn decision(id: &str, verdict: Verdict) -> wire::Decision {
    wire::Decision { request_id: id.into(), verdict: verdict.into(), ..Default::default() }
}

pub(crate) fn timestamp(nanos: u64) -> Timestamp {
    let seconds = i64::try_from(nanos / SECOND).unwrap();
    Timestamp { seconds, nanos: i32::try_from(nanos % SECOND).unwrap() }
}

pub(crate) struct Ledger {
    pub(crate) facts: Facts,
    pub(crate) next: u64,
    pub(crate) now: u64,
    /// Id of the person who acts in the events that are taken.
    pub(crate) actor: String,
}

impl Ledger {
    /// `company` and `custodian` govern; `security/ann` and `security/ben` approve for the persons
    /// `ann` and `ben`; `gateway` records.
    pub(crate) fn new() -> Self {
        let facts = Facts::from_genesis(&genesis()).unwrap();
        let mut ledger = Self { facts, next: 1, now: START, actor: "eng-1".into() };
        for (source, seed, roles, principal) in [
            ("security/ann", 4, &[SourceRole::Approve, SourceRole::Record][..], "ann"),
            ("security/ben", 5, &[SourceRole::Approve, SourceRole::Record], "ben"),
            ("gateway", 6, &[SourceRole::Record], ""),
        ] {
            let status = registration(source, seed, roles, principal);
            ledger.take("company", EventBody::SourceStatus(status));
            assert!(ledger.facts.sources().get(name(source)).is_some(), "{source}");
        }
        ledger
    }

    /// The event as it would be taken next.
    pub(crate) fn event(&self, body: EventBody) -> wire::Event {
        let actor = wire::Principal { id: self.actor.clone(), ..Default::default() };
        let occurred_at = Some(timestamp(self.now));
        wire::Event { actor: Some(actor), occurred_at, ..event(body) }
    }

    pub(crate) fn take(&mut self, source: &str, body: EventBody) -> Vec<Objection> {
        let event = self.event(body);
        self.take_event(source, &event)
    }

    pub(crate) fn take_event(&mut self, source: &str, event: &wire::Event) -> Vec<Objection> {
        self.now += SECOND;
        let noted = self.noted(source, event);
        let objections = self.facts.apply(&noted);
        self.next += 1;
        objections
    }

    fn noted<'a>(&self, source: &'a str, event: &'a wire::Event) -> Noted<'a> {
        Noted { index: Index(self.next), recorded_at: self.now, source: name(source), event }
    }

    /// The rules of the objections to an event.
    pub(crate) fn rules(&mut self, source: &str, body: EventBody) -> Vec<&'static str> {
        self.take(source, body).iter().map(|objection| objection.rule).collect()
    }

    pub(crate) fn assess(&self, source: &str, body: EventBody) -> Assessed {
        self.assess_event(source, &self.event(body))
    }

    pub(crate) fn assess_event(&self, source: &str, event: &wire::Event) -> Assessed {
        self.facts.assess(&self.noted(source, event))
    }

    /// What becomes of an access by the gateway with this grant.
    pub(crate) fn status(&self, access: wire::Access) -> GrantStatus {
        self.assess("gateway", EventBody::Access(access)).grant.status
    }

    /// The gateway asks for access in the name of the actor, and `security/ann` approves.
    pub(crate) fn grant(&mut self, id: &str, scope: wire::Scope) {
        self.grant_by(request(id, scope), decision(id, Verdict::Approve));
    }

    pub(crate) fn grant_by(&mut self, request: wire::AccessRequest, decision: wire::Decision) {
        assert_eq!(self.rules("gateway", EventBody::AccessRequest(request)), [""; 0]);
        assert_eq!(self.rules("security/ann", EventBody::Decision(decision)), [""; 0]);
    }

    pub(crate) fn grant_facts(&self, id: &str) -> wire::GrantFacts {
        self.facts.grants().get(id).unwrap().into_owned()
    }
}
