//! Changes of the rules: who must have signed, which revision, what content.

use prost::Message as _;

use super::super::testing::*;
use super::*;
use crate::{
    facts::assess::{DestinationStatus, ToolStatus},
    wire::{Boundary, DataCategory, Sensitivity},
};

const POLICY: &str = "forbid (principal, action, resource);";

fn take(ledger: &mut Ledger, change: wire::ControlChange) -> Vec<&'static str> {
    ledger.rules("company", EventBody::ControlChange(change))
}

fn policy(revision: u64) -> wire::ControlChange {
    change(ControlKind::Policy, "", revision, POLICY.into())
}

#[test]
fn both_parties_change_the_policy() {
    let mut ledger = Ledger::new();
    assert_eq!((ledger.facts.policy().revision, ledger.facts.policy().index.0), (1, 0));
    assert!(ledger.facts.policy().text.starts_with("permit"));
    let index = ledger.next;
    assert_eq!(take(&mut ledger, policy(2)), [""; 0]);
    let in_force = ledger.facts.policy();
    assert_eq!((in_force.text.as_ref(), in_force.revision, in_force.index.0), (POLICY, 2, index));
}

#[test]
fn one_party_changes_nothing() {
    let mut ledger = Ledger::new();
    let alone = "CONTROL_CHANGED_ALONE";
    let unsigned = wire::ControlChange { approvals: Vec::new(), ..policy(2) };
    assert_eq!(take(&mut ledger, unsigned.clone()), [alone]);
    let message = control_message(ORIGIN, &unsigned);
    let signed_by = |approvals| wire::ControlChange { approvals, ..unsigned.clone() };
    // One's own signature, twice the same, another's text, another's name, somebody without office.
    for approvals in [
        vec![approval("company", 2, &message); 2],
        vec![approval("custodian", 3, "another text\n")],
        vec![approval("custodian", 2, &message)],
        vec![approval("security/ann", 4, &message)],
        vec![approval("nobody", 7, &message)],
        vec![wire::Approval { source: "custodian".into(), ..Default::default() }],
    ] {
        assert_eq!(take(&mut ledger, signed_by(approvals)), [alone]);
    }
    // Signed by both, and sealed by nobody in office.
    let both = vec![approval("company", 2, &message), approval("custodian", 3, &message)];
    let judged = ledger.facts.judge_control(name("gateway"), &signed_by(both));
    assert_eq!(judged, Ok(()));
    // The custodian is no party any more.
    let left = wire::SourceStatus {
        phase: wire::SourcePhase::Decommissioned.into(),
        source: "custodian".into(),
        ..Default::default()
    };
    ledger.take("custodian", EventBody::SourceStatus(left));
    let judged = ledger.facts.judge_control(name("company"), &policy(2));
    assert_eq!(judged, Err(ControlError::Alone { found: 1 }));
    assert_eq!(ledger.facts.policy().revision, 1);
}

#[test]
fn an_old_rule_does_not_come_back_with_old_signatures() {
    let mut ledger = Ledger::new();
    for revision in [0, 1, 3, u64::MAX] {
        assert_eq!(take(&mut ledger, policy(revision)), ["CONTROL_INVALID"], "{revision}");
    }
    let users = |revision, boundary| {
        change(ControlKind::Dataset, "users", revision, dataset(boundary).encode_to_vec())
    };
    let first = users(1, Boundary::Public);
    assert_eq!(take(&mut ledger, first.clone()), [""; 0]);
    assert_eq!(take(&mut ledger, users(2, Boundary::Protected)), [""; 0]);
    assert_eq!(take(&mut ledger, first), ["CONTROL_INVALID"]);
    assert_eq!(ledger.facts.revision(ControlKind::Dataset.into(), "users"), 2);
    let registered = ledger.facts.catalogue().dataset("users").unwrap();
    assert_eq!(registered.boundary(), Boundary::Protected);
}

#[test]
fn content_that_breaks_its_rules_is_without_effect() {
    let mut ledger = Ledger::new();
    let no_boundary = wire::Dataset::default().encode_to_vec();
    let no_country = wire::Site { country: "usa".into(), ..Default::default() }.encode_to_vec();
    for change in [
        change(ControlKind::Dataset, "users", 1, no_boundary),
        change(ControlKind::Dataset, "", 1, dataset(Boundary::Public).encode_to_vec()),
        change(ControlKind::Site, "dc", 1, no_country),
        change(ControlKind::Tool, "t", 1, vec![0xff]),
        change(ControlKind::Policy, "", 2, vec![0xff]),
        change(ControlKind::Policy, "named", 2, POLICY.into()),
        change(ControlKind::Key, "", 1, Vec::new()),
        change(ControlKind::Retention, "", 1, Vec::new()),
        change(ControlKind::Custodian, "c", 1, Vec::new()),
        change(ControlKind::Custodian, "c", 1, custodian(&cosigner("c"), "no key")),
        change(ControlKind::Custodian, "c", 1, custodian(&sealer(), "")),
        change(ControlKind::Custodian, "", 1, custodian(&cosigner("c"), "")),
        wire::ControlChange { kind: 99, ..change(ControlKind::Key, "", 1, Vec::new()) },
    ] {
        let told = format!("{change:?}");
        assert_eq!(take(&mut ledger, change), ["CONTROL_INVALID"], "{told}");
    }
    assert_eq!(ledger.facts.policy().revision, 1);
}

fn key_text(name: &str, key_type: KeyType) -> String {
    VerifierKey::new(name, key_type, &key(7).verifying_key().to_bytes()).unwrap().to_string()
}

fn cosigner(name: &str) -> String {
    key_text(name, KeyType::CosignatureV1)
}

/// A key of the kind that seals, which cosigns nothing.
fn sealer() -> String {
    key_text("c", KeyType::Ed25519)
}

fn custodian(witness_vkey: &str, mirror_vkey: &str) -> Vec<u8> {
    let (witness_vkey, mirror_vkey) = (witness_vkey.to_owned(), mirror_vkey.to_owned());
    wire::Custodian { witness_vkey, mirror_vkey, ..Default::default() }.encode_to_vec()
}

#[test]
fn custodians_and_their_keys_are_told_from_the_log() {
    let mut ledger = Ledger::new();
    let (witness, mirror) = (cosigner("c"), cosigner("c/mirror"));
    let first = change(ControlKind::Custodian, "c", 1, custodian(&witness, &mirror));
    assert_eq!(take(&mut ledger, first), [""; 0]);
    let other = change(ControlKind::Custodian, "d", 1, custodian(&cosigner("d"), ""));
    assert_eq!(take(&mut ledger, other), [""; 0]);
    let registered = ledger.facts.catalogue().custodian("c").unwrap();
    assert_eq!((&registered.witness_vkey, &registered.mirror_vkey), (&witness, &mirror));
    let withdrawn =
        wire::Custodian { withdrawn: true, witness_vkey: witness, ..Default::default() };
    let second = change(ControlKind::Custodian, "c", 2, withdrawn.encode_to_vec());
    assert_eq!(take(&mut ledger, second), [""; 0]);
    let told: Vec<_> = ledger.facts.catalogue().custodians().collect();
    assert_eq!(
        told.iter().map(|(name, one)| (*name, one.withdrawn)).collect::<Vec<_>>(),
        [("c", true), ("d", false)]
    );
}

#[test]
fn a_tool_is_approved_in_its_registered_builds() {
    let mut ledger = Ledger::new();
    let status = |ledger: &Ledger, id: &str, build: u8| {
        let mut event = ledger.event(EventBody::Access(access("", "users")));
        let build_digest = vec![build; 32].into();
        event.tool = Some(wire::Tool { id: id.into(), build_digest, ..Default::default() });
        ledger.assess_event("gateway", &event).tool
    };
    let none = ledger.assess("gateway", EventBody::Access(access("", "users"))).tool;
    assert_eq!((none, status(&ledger, "t", 1)), (ToolStatus::None, ToolStatus::Unregistered));
    let tool =
        wire::RegisteredTool { build_digests: vec![vec![1; 32].into()], ..Default::default() };
    take(&mut ledger, change(ControlKind::Tool, "t", 1, tool.encode_to_vec()));
    assert_eq!(status(&ledger, "t", 1), ToolStatus::Approved);
    assert_eq!(status(&ledger, "t", 2), ToolStatus::OtherBuild);
    let withdrawn = wire::RegisteredTool { withdrawn: true, ..tool };
    take(&mut ledger, change(ControlKind::Tool, "t", 2, withdrawn.encode_to_vec()));
    assert_eq!(status(&ledger, "t", 1), ToolStatus::Withdrawn);
    take(&mut ledger, change(ControlKind::Tool, "any", 1, Vec::new()));
    assert_eq!(status(&ledger, "any", 9), ToolStatus::Approved);
}

#[test]
fn a_destination_is_in_custody_only_where_it_is_registered_so() {
    let mut ledger = Ledger::new();
    let site = |in_custody| wire::Site { in_custody, ..Default::default() }.encode_to_vec();
    take(&mut ledger, change(ControlKind::Site, "home", 1, site(true)));
    take(&mut ledger, change(ControlKind::Site, "abroad", 1, site(false)));
    let to = |place| {
        let destination = Some(place);
        let access = wire::Access { destination, ..access("", "users") };
        ledger.assess("gateway", EventBody::Access(access)).destination
    };
    let site = |site: &str| wire::Place { site: site.into(), ..Default::default() };
    assert_eq!(to(wire::Place::default()), DestinationStatus::None);
    assert_eq!(to(site("home")), DestinationStatus::InCustody);
    assert_eq!(to(site("abroad")), DestinationStatus::OutsideCustody);
    assert_eq!(to(site("elsewhere")), DestinationStatus::Unregistered);
    let country = wire::Place { country: "XX".into(), ..Default::default() };
    assert_eq!(to(country), DestinationStatus::Unregistered);
}

#[test]
fn the_registered_classification_counts_and_another_claim_is_a_mismatch() {
    let mut ledger = Ledger::new();
    let registered = wire::Dataset {
        boundary: Boundary::Protected.into(),
        sensitivity: Sensitivity::Restricted.into(),
        categories: vec![DataCategory::Contact.into(), DataCategory::Device.into()],
        subject_jurisdiction: "US".into(),
        owner: String::new(),
    };
    take(&mut ledger, change(ControlKind::Dataset, "users", 1, registered.encode_to_vec()));
    let facts = |data: wire::Data| {
        let access = wire::Access { data: vec![data], ..access("", "") };
        ledger.assess("gateway", EventBody::Access(access)).data.remove(0)
    };
    let silent = facts(data("users"));
    assert!(silent.registered && !silent.mismatch);
    assert_eq!(silent.boundary, Boundary::Protected);
    assert_eq!((silent.sensitivity, silent.jurisdiction.as_str()), (Sensitivity::Restricted, "US"));
    let within = wire::Data { categories: vec![DataCategory::Device.into()], ..data("users") };
    assert!(!facts(within).mismatch);
    let cases = [
        wire::Data { boundary: Boundary::Public.into(), ..data("users") },
        wire::Data { boundary: 99, ..data("users") },
        wire::Data { sensitivity: Sensitivity::Public.into(), ..data("users") },
        wire::Data { categories: vec![DataCategory::Health.into()], ..data("users") },
        wire::Data { categories: vec![99], ..data("users") },
        wire::Data { subject_jurisdiction: "FR".into(), ..data("users") },
    ];
    for claimed in cases {
        let facts = facts(claimed.clone());
        assert!(facts.mismatch, "{claimed:?}");
        assert_eq!(facts.boundary, Boundary::Protected);
    }
    let other = facts(wire::Data { boundary: Boundary::Public.into(), ..data("logs") });
    assert_eq!(
        (other.registered, other.mismatch, other.boundary),
        (false, false, Boundary::Public)
    );
    // A boundary of a newer client is none that this version could trust.
    let newer = facts(wire::Data { boundary: 99, ..data("logs") });
    assert_eq!(newer.boundary, Boundary::Unspecified);
}
