//! A proposal's file says all that is signed, and what is no proposal is refused where it stands.

use access_ledger_proto::{
    note::{KeyType, Signer},
    wire::{Boundary, DataCategory, Sensitivity},
};
use proptest::prelude::*;
use prost::Message as _;

use super::*;

const ORIGIN: &str = "ledger.example/tests";

fn control(kind: ControlKind, target: &str, content: Vec<u8>, revision: u64) -> Change {
    Change::Control(wire::ControlChange {
        kind: kind.into(),
        target: target.to_owned(),
        content: content.into(),
        approvals: Vec::new(),
        revision,
    })
}

fn signer(name: &str, seed: u8) -> Signer {
    Signer::new(name, KeyType::Ed25519, [seed; 32]).unwrap()
}

/// The sources of a ledger that `company` and `custodian` govern.
fn sources() -> Sources {
    let initial = |key: &Signer| wire::InitialSource {
        name: key.name().to_owned(),
        public_key: Bytes::copy_from_slice(key.verifier().public_key().as_bytes()),
    };
    let genesis = wire::Genesis {
        origin: ORIGIN.to_owned(),
        ledger_vkey: signer(ORIGIN, 1).verifier().to_string(),
        ledger_source: Some(initial(&signer("ledger", 2))),
        governance: vec![initial(&signer("company", 3)), initial(&signer("custodian", 4))],
        ..Default::default()
    };
    let change = wire::ControlChange {
        kind: ControlKind::Genesis.into(),
        content: genesis.encode_to_vec().into(),
        ..Default::default()
    };
    let event = wire::Event { body: Some(Body::ControlChange(change)), ..Default::default() };
    Sources::from_genesis(&event.encode_to_vec()).unwrap()
}

fn dataset() -> Change {
    let dataset = wire::Dataset {
        boundary: Boundary::Protected.into(),
        sensitivity: Sensitivity::Restricted.into(),
        categories: vec![DataCategory::Contact.into(), DataCategory::Location.into()],
        subject_jurisdiction: "US".to_owned(),
        owner: "trust and safety".to_owned(),
    };
    control(ControlKind::Dataset, "accounts.profile", dataset.encode_to_vec(), 3)
}

fn approver() -> Change {
    let key = signer("security/lead", 5);
    Change::Source(wire::SourceStatus {
        phase: SourcePhase::Registered.into(),
        source: key.name().to_owned(),
        public_key: Bytes::copy_from_slice(key.verifier().public_key().as_bytes()),
        roles: vec![SourceRole::Approve.into()],
        heartbeat_interval: Some(prost_types::Duration { seconds: 60, nanos: 0 }),
        principal: "p-17".to_owned(),
        ..Default::default()
    })
}

fn redaction(first_index: u64, last_index: u64, legal_basis: &str) -> Change {
    let legal_basis = legal_basis.to_owned();
    Change::Redaction(wire::Redaction {
        first_index,
        last_index,
        legal_basis,
        ..Default::default()
    })
}

fn retention(seconds: i64, legal_basis: &str) -> Change {
    let max_age = (seconds > 0).then_some(prost_types::Duration { seconds, nanos: 0 });
    let retention = wire::Retention { max_age, legal_basis: legal_basis.to_owned() };
    control(ControlKind::Retention, "", retention.encode_to_vec(), 1)
}

#[test]
fn a_redaction_or_retention_that_no_ledger_takes_is_refused_by_its_field() {
    let field = |change| match Proposal::new(ORIGIN, change).unwrap_err() {
        ProposalError::Change { field, .. } => field,
        other => panic!("{other}"),
    };
    assert_eq!(field(redaction(9, 8, "order")), "last_index");
    assert_eq!(field(redaction(8, 9, "")), "legal_basis");
    assert_eq!(field(redaction(8, 9, "two\nlines")), "legal_basis");
    assert_eq!(field(retention(3_600, "order")), "max_age");
    assert_eq!(field(retention(86_400, "")), "legal_basis");
    let mut run = redaction(8, 9, "order");
    if let Change::Redaction(run) = &mut run {
        run.retention_index = 4;
    }
    assert_eq!(field(run), "retention_index");
}

/// Changes of every kind, with texts that TOML has to escape.
fn changes() -> impl Strategy<Value = Change> {
    let name = "[a-z ='\"\\\\#\\[\\]é\u{202f}]{1,20}";
    let text = prop_oneof!["(?s).{0,200}", "[\\r\\n\\t '\"\\\\a]{0,40}"];
    let country = prop_oneof![Just(String::new()), Just("US".to_owned())];
    let digests = prop::collection::vec(prop::collection::vec(any::<u8>(), 32), 0..3);
    prop_oneof![
        (text, any::<u64>()).prop_map(|(text, revision)| {
            control(ControlKind::Policy, "", text.into_bytes(), revision >> 1)
        }),
        (name, digests, any::<bool>()).prop_map(|(target, digests, withdrawn)| {
            let build_digests = digests.into_iter().map(Bytes::from).collect();
            let owner_entity = target.clone();
            let tool = wire::RegisteredTool { owner_entity, build_digests, withdrawn };
            control(ControlKind::Tool, &target, tool.encode_to_vec(), 1)
        }),
        (name, country, any::<bool>()).prop_map(|(target, country, in_custody)| {
            let site = wire::Site { country, site_operator: target.clone(), in_custody };
            control(ControlKind::Site, &target, site.encode_to_vec(), 7)
        }),
        ("[a-z '\"#]{1,20}", 1..4_000_000_000_u32, any::<u32>()).prop_map(
            |(basis, last, before)| {
                redaction(u64::from(last.saturating_sub(before)), last.into(), &basis)
            }
        ),
        ("[a-z '\"#]{1,20}", prop_oneof![Just(0), 86_400..u32::MAX])
            .prop_map(|(basis, seconds)| retention(seconds.into(), &basis)),
        (any::<bool>(), any::<bool>()).prop_map(|(is_mirror, withdrawn)| {
            let key = |name| {
                let key = Signer::new(name, KeyType::CosignatureV1, [6; 32]).unwrap();
                key.verifier().to_string()
            };
            let custodian = wire::Custodian {
                witness_vkey: key("c"),
                mirror_vkey: if is_mirror { key("c/mirror") } else { String::new() },
                url: "https://c.example".to_owned(),
                withdrawn,
            };
            control(ControlKind::Custodian, "c", custodian.encode_to_vec(), 2)
        }),
        ("[a-z '\"#]{0,20}", any::<u8>(), any::<[u8; 64]>()).prop_map(|(reason, seed, signed)| {
            let public_key = *signer("a", seed).verifier().public_key();
            let content = wire::SourceKey {
                public_key: Bytes::copy_from_slice(public_key.as_bytes()),
                possession: Bytes::copy_from_slice(&signed),
                reason,
            };
            control(ControlKind::Key, "payments/a", content.encode_to_vec(), 1)
        }),
        Just(control(ControlKind::Key, "payments/a", Vec::new(), 2)),
        ("[a-z '\"#]{0,20}", prop::collection::vec(1..4_i32, 1..4)).prop_map(|(reason, roles)| {
            let content = wire::SourceRoles { roles, principal: reason.clone(), reason };
            control(ControlKind::Role, "payments/a", content.encode_to_vec(), 3)
        }),
        (any::<u8>(), any::<[u8; 64]>()).prop_map(|(seed, signed)| {
            let content = wire::LedgerKey {
                ledger_vkey: signer(ORIGIN, seed).verifier().to_string(),
                possession: Bytes::copy_from_slice(&signed),
                ..Default::default()
            };
            control(ControlKind::LedgerKey, "", content.encode_to_vec(), 4)
        }),
        Just(dataset()),
        Just(approver()),
    ]
}

proptest! {
    #[test]
    fn files_say_all_that_is_signed(change in changes(), sign in any::<bool>()) {
        let mut proposal = Proposal::new(ORIGIN, change).unwrap();
        if sign {
            proposal.sign(&signer("custodian", 4), &sources()).unwrap();
        }
        let read = Proposal::parse(&proposal.to_text()).unwrap();
        prop_assert_eq!(read.message(), proposal.message());
        prop_assert_eq!(read, proposal);
    }

    #[test]
    fn any_text_is_read_or_refused(text in ".{0,200}", cut in any::<prop::sample::Index>()) {
        let _no_panic = Proposal::parse(&text);
        let file = Proposal::new(ORIGIN, dataset()).unwrap().to_text();
        let mut broken = file.clone();
        broken.insert_str(cut.index(file.len()), &text);
        let _no_panic = Proposal::parse(&broken);
    }
}

#[test]
fn a_file_reads_like_this() {
    let text = Proposal::new(ORIGIN, dataset()).unwrap().to_text();
    let (_, text) = text.split_once("\n\n").unwrap();
    let wanted = r#"ledger = "ledger.example/tests"
target = "accounts.profile"
revision = 3

[change.dataset]
boundary = "BOUNDARY_PROTECTED"
sensitivity = "SENSITIVITY_RESTRICTED"
categories = [
    "DATA_CATEGORY_CONTACT",
    "DATA_CATEGORY_LOCATION",
]
subject_jurisdiction = "US"
owner = "trust and safety"
"#;
    assert_eq!(text, wanted);
}

#[test]
fn what_is_wrong_is_told_with_its_place() {
    let good = r#"ledger = "o"
target = "t"
revision = 1

[change.dataset]
boundary = "BOUNDARY_PROTECTED"
subject_jurisdiction = "US"
"#;
    Proposal::parse(good).unwrap();
    for (wanted, found, place, problem) in [
        ("BOUNDARY_PROTECTED", "PROTECTED", "6:12", "found \"PROTECTED\", expected a Boundary"),
        ("\"US\"", "\"usa\"", "7:1", "subject_jurisdiction: not an ISO 3166-1 alpha-2 code"),
        ("BOUNDARY_PROTECTED", "BOUNDARY_UNSPECIFIED", "6:1", "boundary: "),
        ("revision = 1", "revision = -1", "3:12", "expected u64"),
        ("revision = 1", "revison = 1", "3:1", "unknown field `revison`, expected one of"),
        ("subject", "jurisdiction = \"US\"\nsubject", "7:1", "unknown field `jurisdiction`"),
        ("change.dataset", "change.data", "5:9", "unknown variant `data`, expected one of"),
        ("target = \"t\"", "", "1:1", "target: missing"),
        ("target = \"t\"", "target = t", "2:10", ""),
        ("ledger = \"o\"", "", "1:1", "missing field `ledger`"),
    ] {
        let error = Proposal::parse(&good.replace(wanted, found)).unwrap_err().to_string();
        let holds = error.starts_with(&format!("{place}: ")) && error.contains(problem);
        assert!(holds, "{found}: {error}, wanted {place}: {problem}");
    }
}

#[test]
fn only_what_two_parties_may_change_can_be_proposed() {
    for change in [
        control(ControlKind::Retention, "t", Vec::new(), 1),
        control(ControlKind::Genesis, "t", Vec::new(), 1),
        control(ControlKind::Policy, "t", Vec::new(), 1),
        control(ControlKind::Site, "", Vec::new(), 1),
        control(ControlKind::Policy, "", vec![0xff], 1),
        control(ControlKind::Dataset, "t", Vec::new(), 1),
        control(ControlKind::Key, "", Vec::new(), 1),
        control(ControlKind::Role, "t", Vec::new(), 1),
        control(ControlKind::LedgerKey, "t", Vec::new(), 1),
        control(ControlKind::LedgerKey, "", Vec::new(), 1),
        // A value of a later version has no name that a person could read.
        control(
            ControlKind::Dataset,
            "t",
            wire::Dataset { boundary: 1, sensitivity: 99, ..Default::default() }.encode_to_vec(),
            1,
        ),
        // Bytes that this version would not write as it reads them.
        control(ControlKind::Site, "t", vec![0x18, 0x00], 1),
        Change::Source(wire::SourceStatus::default()),
    ] {
        let refused = Proposal::new(ORIGIN, change.clone());
        assert!(matches!(refused, Err(ProposalError::Change { .. })), "{change:?}: {refused:?}");
    }
}

#[test]
fn each_party_signs_once_and_nobody_else() {
    let sources = sources();
    let mut proposal = Proposal::new(ORIGIN, dataset()).unwrap();
    for key in [signer("payments", 9), signer("company", 9), signer("ledger", 2)] {
        let refused = proposal.sign(&key, &sources).unwrap_err();
        assert!(matches!(refused, ProposalError::NotGovernance { .. }), "{refused}");
        let known = format!("key {} is no governance key", key.name());
        assert!(refused.to_string().starts_with(&known), "{refused}");
    }
    for (name, seed) in [("company", 3), ("custodian", 4), ("company", 3)] {
        proposal.sign(&signer(name, seed), &sources).unwrap();
    }
    let names: Vec<_> = proposal.approvals().iter().map(|given| given.source.as_str()).collect();
    assert_eq!(names, ["custodian", "company"]);
    let mut foreign = Proposal::new("ledger.example/other", dataset()).unwrap();
    let refused = foreign.sign(&signer("company", 3), &sources);
    assert!(matches!(refused, Err(ProposalError::Foreign { .. })));
}
