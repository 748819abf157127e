//! Each way to register a source, and each reason to refuse one.

use ed25519_dalek::{Signer as _, SigningKey};

use super::*;
use crate::{facts::control::registration_message, wire::event::Body as EventBody};

const ORIGIN: &str = "ledger.example/test";

fn key(seed: u8) -> SigningKey {
    SigningKey::from_bytes(&[seed; 32])
}

fn initial(name: &str, seed: u8) -> wire::InitialSource {
    let public_key = key(seed).verifying_key().to_bytes().to_vec().into();
    wire::InitialSource { name: name.into(), public_key }
}

fn vkey(name: &str, key_type: KeyType) -> String {
    let public_key = key(9).verifying_key().to_bytes();
    VerifierKey::new(name, key_type, &public_key).unwrap().to_string()
}

fn genesis(self_enrolment: bool, governance: Vec<wire::InitialSource>) -> wire::Genesis {
    wire::Genesis {
        origin: ORIGIN.into(),
        ledger_vkey: vkey(ORIGIN, KeyType::Ed25519),
        ledger_source: Some(initial("ledger", 1)),
        governance,
        self_enrolment,
        policy: String::new(),
    }
}

fn genesis_event(self_enrolment: bool, governance: Vec<wire::InitialSource>) -> Vec<u8> {
    event_of(&genesis(self_enrolment, governance))
}

fn event_of(genesis: &wire::Genesis) -> Vec<u8> {
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

/// A registration for a person, with the signatures of these parties.
fn approved(
    status: wire::SourceStatus,
    principal: &str,
    parties: &[(&str, u8)],
) -> wire::SourceStatus {
    let public_key = parse_public_key(&status.public_key).unwrap();
    let claim = EnrolmentClaim {
        source: Name::parse(status.source.as_bytes()).unwrap(),
        public_key: &public_key,
        roles: Roles::parse(&status.roles).unwrap(),
        heartbeat_nanos: 0,
    };
    let message = registration_message(ORIGIN, &claim, principal);
    let approvals =
        parties.iter().map(|&(party, seed)| crate::facts::testing::approval(party, seed, &message));
    wire::SourceStatus { approvals: approvals.collect(), principal: principal.into(), ..status }
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
    assert!(governance.roles.now().contains(Govern));
    assert_eq!(sources.ledger_source(), "ledger");
    let twice = genesis_event(false, vec![initial("ledger", 2)]);
    assert_eq!(Sources::from_genesis(&twice).unwrap_err(), SourceError::Genesis);
    // One holder under two names would count as two.
    for alike in [vec![initial("a", 2), initial("b", 2)], vec![initial("a", 1)]] {
        let event = genesis_event(false, alike);
        assert_eq!(Sources::from_genesis(&event).unwrap_err(), SourceError::Genesis);
    }
    let vkeys = [
        "vkey".to_owned(),
        vkey("elsewhere", KeyType::Ed25519),
        vkey(ORIGIN, KeyType::CosignatureV1),
    ];
    for ledger_vkey in vkeys {
        let genesis = wire::Genesis { ledger_vkey, ..genesis(false, vec![initial("a", 2)]) };
        assert_eq!(Sources::from_genesis(&event_of(&genesis)).unwrap_err(), SourceError::Genesis);
    }
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
    assert_eq!(more.unwrap_err(), SourceError::Role { name: name("payments"), role: Govern });
    let grandchild = judge(&sources, "payments/a", registration("payments/a/b", 5, &[Record]));
    assert_eq!(
        grandchild.unwrap_err(),
        SourceError::Role { name: name("payments/a"), role: Enrol }
    );
}

#[test]
fn nobody_gains_power_by_a_registration() {
    let event = genesis_event(false, vec![initial("governance", 2), initial("custodian", 7)]);
    let mut sources = Sources::from_genesis(&event).unwrap();
    let partner = judge(&sources, "governance", registration("partner", 3, &[Govern]));
    assert_eq!(partner.unwrap_err(), SourceError::Governance);
    let security = registration("security", 3, &[Record, Enrol, Approve]);
    take(&mut sources, "governance", approved(security, "ann", &[("custodian", 7)]));
    let double = registration("security/double", 4, &[Approve]);
    let refused = SourceError::Role { name: name("security"), role: Govern };
    assert_eq!(judge(&sources, "security", double.clone()).unwrap_err(), refused);
    let upon_signatures = enrolled(double, 4, Some(("security", 3)));
    assert_eq!(judge(&sources, "ledger", upon_signatures).unwrap_err(), refused);
    take(&mut sources, "security", registration("security/pod", 4, &[Record, Enrol]));
}

#[test]
fn both_parties_name_an_approver() {
    let event = genesis_event(false, vec![initial("company", 2), initial("custodian", 3)]);
    let mut sources = Sources::from_genesis(&event).unwrap();
    let status = registration("security/ann", 4, &[Approve]);
    let one = SourceError::Parties { found: 1 };
    for parties in [&[][..], &[("company", 2)], &[("custodian", 2)], &[("security/ann", 4)]] {
        let alone = judge(&sources, "company", approved(status.clone(), "ann", parties));
        assert_eq!(alone.unwrap_err(), one);
    }
    let both = approved(status, "ann", &[("custodian", 3)]);
    // The signature is for this person, these roles and this key.
    for changed in [
        wire::SourceStatus { principal: "ben".into(), ..both.clone() },
        wire::SourceStatus { source: "security/ben".into(), ..both.clone() },
        wire::SourceStatus { roles: vec![Record.into(), Approve.into()], ..both.clone() },
    ] {
        assert_eq!(judge(&sources, "company", changed).unwrap_err(), one);
    }
    take(&mut sources, "company", both);
    assert_eq!(sources.get(name("security/ann").as_name()).unwrap().principal, "ann");
    // Of who approves nothing, no person is noted: nobody has signed for it.
    let gateway = registration("gateway", 5, &[Record]);
    take(&mut sources, "company", wire::SourceStatus { principal: "ann".into(), ..gateway });
    assert_eq!(sources.get(name("gateway").as_name()).unwrap().principal, "");
}

#[test]
fn the_ledger_records_its_own_and_nobody_else_does() {
    let mut sources = sources(false);
    take(&mut sources, "governance", registration("gateway", 3, &[Record]));
    let judge = |sealer: &str, body| {
        let event = encode(body);
        let sealer = sources.get(name(sealer).as_name()).unwrap();
        sources.judge(sealer, Index(9), event::body(&event).unwrap(), false).map(drop)
    };
    let verdict = || EventBody::Authorization(wire::Authorization::default());
    let read = || EventBody::LedgerRead(wire::LedgerRead::default());
    let access = || EventBody::Access(wire::Access::default());
    let foreign = |source, number| Err(SourceError::Body { name: name(source), number });
    assert_eq!(judge("ledger", verdict()), Ok(()));
    assert_eq!(judge("ledger", read()), Ok(()));
    assert_eq!(judge("ledger", access()), foreign("ledger", Body::ACCESS));
    assert_eq!(judge("gateway", access()), Ok(()));
    assert_eq!(judge("gateway", verdict()), foreign("gateway", Body::AUTHORIZATION));
    // A custodian has readers of its own.
    assert_eq!(judge("gateway", read()), Ok(()));
}

#[test]
fn an_enrolment_is_replayed_nowhere() {
    let mut sources = sources(true);
    take(&mut sources, "governance", registration("payments", 3, &[Record, Enrol]));
    let child = enrolled(registration("payments/a", 4, &[Record]), 4, Some(("payments", 3)));
    let changed = [
        wire::SourceStatus { source: "payments/b".into(), ..child.clone() },
        wire::SourceStatus { roles: vec![Record.into(), Enrol.into()], ..child.clone() },
        wire::SourceStatus {
            public_key: key(5).verifying_key().to_bytes().to_vec().into(),
            ..child.clone()
        },
        wire::SourceStatus {
            heartbeat_interval: Some(prost_types::Duration { seconds: 9, nanos: 0 }),
            ..child.clone()
        },
    ];
    for status in changed {
        assert_eq!(judge(&sources, "ledger", status).unwrap_err(), SourceError::Enrolment);
    }
    let mut alone = child.clone();
    alone.enrolment.as_mut().unwrap().parent.clear();
    let ancestor = SourceError::Ancestor { ancestor: name("payments") };
    assert_eq!(judge(&sources, "ledger", alone).unwrap_err(), ancestor);
    // Its signatures are for the ledger to check; under another seal nobody would.
    let vouched = judge(&sources, "governance", child.clone()).unwrap_err();
    assert_eq!(vouched, SourceError::Enrolment);
    let end = wire::SourceStatus {
        phase: SourcePhase::Decommissioned.into(),
        source: "payments".into(),
        ..Default::default()
    };
    take(&mut sources, "governance", end);
    let since = Index(9);
    let inactive = SourceError::Inactive { name: name("payments"), since };
    assert_eq!(judge(&sources, "ledger", child).unwrap_err(), inactive);
    let again = judge(&sources, "governance", registration("payments", 3, &[Record]));
    assert_eq!(again.unwrap_err(), SourceError::Exists { name: name("payments") });
}

#[test]
fn sources_of_the_genesis_end_by_their_own_word_only() {
    let event = genesis_event(false, vec![initial("company", 2), initial("custodian", 3)]);
    let mut sources = Sources::from_genesis(&event).unwrap();
    let end = |source: &str| wire::SourceStatus {
        phase: SourcePhase::Decommissioned.into(),
        source: source.into(),
        ..Default::default()
    };
    for (sealer, target) in [("company", "custodian"), ("company", "ledger"), ("ledger", "ledger")]
    {
        let refused = judge(&sources, sealer, end(target)).unwrap_err();
        assert_eq!(refused, SourceError::Founding { name: name(target) }, "{sealer}");
    }
    take(&mut sources, "company", end("company"));
}

#[test]
fn a_status_with_two_readings_is_refused() {
    let sources = sources(false);
    let governance = sources.get(name("governance").as_name()).unwrap();
    let twice = [
        registration("a", 3, &[Record]).encode_to_vec(),
        wire::SourceStatus { source: "b".into(), ..Default::default() }.encode_to_vec(),
    ];
    let bytes = twice.concat();
    let body = Body { number: Body::SOURCE_STATUS, bytes: &bytes };
    let judged = sources.judge(governance, Index(9), body, true).map(drop);
    assert_eq!(judged, Err(SourceError::Undecodable));
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
    let key_id = sources.get(name("a").as_name()).unwrap().key_id().unwrap();
    assert!(sources.sealer(name("a").as_name(), key_id).is_ok());
    let end = wire::SourceStatus {
        phase: SourcePhase::Decommissioned.into(),
        ..registration("a", 3, &[])
    };
    let end = wire::SourceStatus { public_key: Vec::new().into(), ..end };
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
    let usurped = judge_control("governance", Index(0), ControlKind::Genesis);
    assert_eq!(usurped, Err(SourceError::Genesis));
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
