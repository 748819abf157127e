//! Each way to register a source, and each reason to refuse one.

use ed25519_dalek::{Signer as _, SigningKey};

use super::*;
use crate::wire::event::Body as EventBody;

const ORIGIN: &str = "ledger.example/test";

fn key(seed: u8) -> SigningKey {
    SigningKey::from_bytes(&[seed; 32])
}

fn initial(name: &str, seed: u8) -> wire::InitialSource {
    let public_key = key(seed).verifying_key().to_bytes().to_vec().into();
    wire::InitialSource { name: name.into(), public_key }
}

fn genesis_event(self_enrolment: bool, governance: Vec<wire::InitialSource>) -> Vec<u8> {
    let genesis = wire::Genesis {
        origin: ORIGIN.into(),
        ledger_vkey: "vkey".into(),
        ledger_source: Some(initial("ledger", 1)),
        governance,
        self_enrolment,
    };
    let change = wire::ControlChange {
        kind: ControlKind::Genesis.into(),
        content: genesis.encode_to_vec().into(),
        ..Default::default()
    };
    encode(EventBody::ControlChange(change))
}

fn encode(body: EventBody) -> Vec<u8> {
    wire::Event { body: Some(body), ..Default::default() }.encode_to_vec()
}

fn sources(self_enrolment: bool) -> Sources {
    let event = genesis_event(self_enrolment, vec![initial("governance", 2)]);
    Sources::from_genesis(&event).unwrap()
}

fn registration(name: &str, seed: u8, roles: &[SourceRole]) -> wire::SourceStatus {
    wire::SourceStatus {
        phase: SourcePhase::Registered.into(),
        source: name.into(),
        public_key: key(seed).verifying_key().to_bytes().to_vec().into(),
        roles: roles.iter().map(|&role| role.into()).collect(),
        ..Default::default()
    }
}

fn enrolled(
    mut status: wire::SourceStatus,
    seed: u8,
    parent: Option<(&str, u8)>,
) -> wire::SourceStatus {
    let public_key = key(seed).verifying_key();
    let claim = EnrolmentClaim {
        source: Name::parse(status.source.as_bytes()).unwrap(),
        public_key: &public_key,
        roles: Roles::parse(&status.roles).unwrap(),
        heartbeat_nanos: 0,
    };
    let message = claim.message(ORIGIN);
    let sign = |seed| key(seed).sign(message.as_bytes()).to_bytes().to_vec().into();
    status.enrolment = Some(wire::Enrolment {
        possession: sign(seed),
        parent: parent.map(|(name, _)| name.to_owned()).unwrap_or_default(),
        parent_signature: parent.map(|(_, seed)| sign(seed)).unwrap_or_default(),
    });
    status
}

fn judge(
    sources: &Sources,
    sealer: &str,
    status: wire::SourceStatus,
) -> Result<SourceChange, SourceError> {
    let event = encode(EventBody::SourceStatus(status));
    let sealer = sources.get(Name::parse(sealer.as_bytes()).unwrap()).unwrap();
    sources.judge(sealer, Index(9), event::body(&event).unwrap(), true)
}

fn take(sources: &mut Sources, sealer: &str, status: wire::SourceStatus) {
    let change = judge(sources, sealer, status).unwrap();
    sources.apply(change);
}

fn name(text: &str) -> SourceName {
    SourceName::parse(text).unwrap()
}

use SourceRole::{Approve, Enrol, Govern, Record};

#[test]
fn genesis_registers_the_ledger_and_governance() {
    let sources = sources(false);
    let names: Vec<_> = sources.iter().map(|source| source.name.as_str()).collect();
    assert_eq!(names, ["governance", "ledger"]);
    let governance = sources.get(Name::parse(b"governance").unwrap()).unwrap();
    assert!(governance.roles.contains(Govern));
    assert_eq!(sources.ledger_source(), "ledger");
    let twice = genesis_event(false, vec![initial("ledger", 2)]);
    assert_eq!(Sources::from_genesis(&twice).unwrap_err(), SourceError::Genesis);
    let nobody = genesis_event(false, Vec::new());
    assert_eq!(Sources::from_genesis(&nobody).unwrap_err(), SourceError::Genesis);
}

#[test]
fn governance_registers_and_only_with_its_role() {
    let mut sources = sources(false);
    take(&mut sources, "governance", registration("payments", 3, &[Record, Enrol]));
    let again = judge(&sources, "governance", registration("payments", 4, &[Record]));
    assert_eq!(again.unwrap_err(), SourceError::Exists { name: name("payments") });
    let upstart = judge(&sources, "ledger", registration("mine", 4, &[Record]));
    assert_eq!(upstart.unwrap_err(), SourceError::Role { name: name("ledger"), role: Enrol });
    let no_key =
        wire::SourceStatus { public_key: vec![0; 32].into(), ..registration("x", 4, &[Record]) };
    assert_eq!(judge(&sources, "governance", no_key).unwrap_err(), SourceError::PublicKey);
    let no_role = registration("x", 4, &[]);
    assert_eq!(judge(&sources, "governance", no_role).unwrap_err(), SourceError::NoRole);
    let new_role = wire::SourceStatus { roles: vec![77], ..registration("x", 4, &[]) };
    let refused = judge(&sources, "governance", new_role).unwrap_err();
    assert_eq!(refused, SourceError::UnknownRole { value: 77 });
}

#[test]
fn a_parent_registers_children_below_its_name_with_its_own_roles() {
    let mut sources = sources(false);
    take(&mut sources, "governance", registration("payments", 3, &[Record, Enrol]));
    take(&mut sources, "payments", registration("payments/a", 4, &[Record]));
    let beside = judge(&sources, "payments", registration("billing", 5, &[Record]));
    assert_eq!(beside.unwrap_err(), SourceError::NotBelow { parent: name("payments") });
    let more = judge(&sources, "payments", registration("payments/b", 5, &[Approve]));
    assert_eq!(more.unwrap_err(), SourceError::Role { name: name("payments"), role: Approve });
    let grandchild = judge(&sources, "payments/a", registration("payments/a/b", 5, &[Record]));
    assert_eq!(
        grandchild.unwrap_err(),
        SourceError::Role { name: name("payments/a"), role: Enrol }
    );
}

#[test]
fn the_ledger_registers_only_upon_signatures() {
    let mut sources = sources(false);
    take(&mut sources, "governance", registration("payments", 3, &[Record, Enrol]));
    let child = registration("payments/a", 4, &[Record]);
    take(&mut sources, "ledger", enrolled(child, 4, Some(("payments", 3))));
    let other = registration("payments/b", 5, &[Record]);
    let forged = enrolled(other.clone(), 5, Some(("payments", 5)));
    assert_eq!(judge(&sources, "ledger", forged).unwrap_err(), SourceError::Enrolment);
    let not_held = enrolled(other.clone(), 6, Some(("payments", 3)));
    assert_eq!(judge(&sources, "ledger", not_held).unwrap_err(), SourceError::Enrolment);
    let orphan = enrolled(other, 5, None);
    assert_eq!(judge(&sources, "ledger", orphan).unwrap_err(), SourceError::SelfEnrolment);
}

#[test]
fn self_enrolment_is_marked_and_gives_only_the_right_to_record() {
    let mut sources = sources(true);
    let status = enrolled(registration("tool", 4, &[Record]), 4, None);
    take(&mut sources, "ledger", status);
    assert!(sources.get(Name::parse(b"tool").unwrap()).unwrap().self_enrolled);
    let below = enrolled(registration("tool/x", 5, &[Record]), 5, None);
    assert_eq!(
        judge(&sources, "ledger", below).unwrap_err(),
        SourceError::Ancestor { ancestor: name("tool") }
    );
    let greedy = enrolled(registration("other", 5, &[Record, Enrol]), 5, None);
    assert_eq!(judge(&sources, "ledger", greedy).unwrap_err(), SourceError::SelfEnrolmentRoles);
}

#[test]
fn a_decommissioned_source_seals_nothing_more() {
    let mut sources = sources(false);
    take(&mut sources, "governance", registration("a", 3, &[Record]));
    let key_id = sources.get(name("a").as_name()).unwrap().key_id();
    assert!(sources.sealer(name("a").as_name(), key_id).is_ok());
    let end = wire::SourceStatus {
        phase: SourcePhase::Decommissioned.into(),
        ..registration("a", 3, &[])
    };
    let foreign = judge(&sources, "ledger", end.clone()).unwrap_err();
    assert_eq!(foreign, SourceError::Role { name: name("ledger"), role: Govern });
    take(&mut sources, "a", end);
    assert_eq!(
        sources.sealer(name("a").as_name(), key_id).unwrap_err(),
        SourceError::Inactive { name: name("a"), since: Index(9) }
    );
    assert!(matches!(
        sources.sealer(name("ledger").as_name(), key_id),
        Err(SourceError::Key { .. })
    ));
    assert!(matches!(
        sources.sealer(name("b").as_name(), key_id),
        Err(SourceError::Unknown { .. })
    ));
}

#[test]
fn changes_of_the_rules_stand_alone_and_reports_are_about_oneself() {
    let sources = sources(false);
    let governance = sources.get(name("governance").as_name()).unwrap();
    let judge_in_company = |body| {
        let event = encode(body);
        sources.judge(governance, Index(9), event::body(&event).unwrap(), false).map(drop)
    };
    let status = registration("a", 3, &[Record]);
    let beside = judge_in_company(EventBody::SourceStatus(status));
    assert_eq!(beside, Err(SourceError::Alone));
    let change = wire::ControlChange { kind: ControlKind::Policy.into(), ..Default::default() };
    assert_eq!(judge_in_company(EventBody::ControlChange(change)), Err(SourceError::Alone));
    let heartbeat = |source: &str| wire::SourceStatus {
        phase: SourcePhase::Heartbeat.into(),
        source: source.into(),
        ..Default::default()
    };
    assert!(judge_in_company(EventBody::SourceStatus(heartbeat("governance"))).is_ok());
    let foreign = judge_in_company(EventBody::SourceStatus(heartbeat("a")));
    assert_eq!(foreign, Err(SourceError::Foreign { name: name("a") }));
}

#[test]
fn there_is_one_genesis_and_control_needs_governance() {
    let sources = sources(false);
    let judge_control = |sealer: &str, index, kind: ControlKind| {
        let change = wire::ControlChange { kind: kind.into(), ..Default::default() };
        let event = encode(EventBody::ControlChange(change));
        let sealer = sources.get(name(sealer).as_name()).unwrap();
        sources.judge(sealer, index, event::body(&event).unwrap(), true).map(drop)
    };
    assert_eq!(judge_control("ledger", Index(0), ControlKind::Genesis), Ok(()));
    assert_eq!(judge_control("ledger", Index(1), ControlKind::Genesis), Err(SourceError::Genesis));
    assert_eq!(judge_control("governance", Index(1), ControlKind::Policy), Ok(()));
    assert_eq!(
        judge_control("ledger", Index(1), ControlKind::Policy),
        Err(SourceError::Role { name: name("ledger"), role: Govern })
    );
}

#[test]
fn saved_sources_come_back() {
    let mut first = sources(true);
    take(&mut first, "governance", registration("a", 3, &[Record]));
    let saved: Vec<Source> = first.iter().cloned().collect();
    let mut second = sources(true);
    second.restore(saved);
    assert!(second.iter().eq(first.iter()));
    let after: Vec<_> = second.iter_after("a").map(|source| source.name.as_str()).collect();
    assert_eq!(after, ["governance", "ledger"]);
}
