//! Targets: what people write: policies, lists of logs, proposals.

use std::sync::LazyLock;

use access_ledger_client::governance::proposal::{Change, Proposal};
use access_ledger_proto::{policy::Policy, quorum::Quorum, wire};
use access_ledger_server::witness::parse_logs;
use prost::Message as _;

use super::samples::{ORIGIN, SAMPLE, signer, sources, witness};

pub(super) fn cedars() -> Vec<Vec<u8>> {
    // One of nine is long: reading it takes a hundred times as long as the others.
    let rules = SMALL_RULES.iter().map(|rule| (*rule).to_owned());
    let pairs = rules.clone().zip(rules.clone().skip(1)).map(|(one, other)| one + &other);
    let texts = rules.chain(pairs).chain([Policy::DEFAULT.to_owned()]);
    texts.map(String::into_bytes).collect()
}

const SMALL_RULES: [&str; 4] = [
    "permit (principal, action, resource);\n",
    "@id(\"NO_GRANT\")\nforbid (principal, action, resource)\n\
     when { context.grant == GrantStanding::\"NONE\" && !context.break_glass };\n",
    "@id(\"PRIVILEGED\")\nforbid (principal, action, resource) when { principal.privileged }\n\
     unless { action in Action::\"MOVE\" };\n",
    "// a remark\n@id(\"BOUNDARY-2\")\nforbid (principal, action, resource)\n\
     when { resource.boundary == Boundary::\"PROTECTED\" && !(1 < 2) };\n",
];

/// A policy is parsed the same way twice, and names at least one rule or is empty of them.
pub(super) fn cedar(bytes: &[u8]) -> bool {
    let Some(text) = str::from_utf8(bytes).ok() else { return false };
    match (Policy::parse(text), Policy::parse(text)) {
        (Ok(policy), Ok(again)) => {
            assert!(text.len() <= Policy::LEN_MAX);
            assert_eq!(policy.ids(), again.ids());
            assert!(policy.ids().iter().all(|id| id.len() <= Policy::ID_LEN_MAX));
            true
        }
        (Err(error), Err(again)) => {
            assert_eq!(error.to_string(), again.to_string());
            false
        }
        (first, second) => unreachable!("{} and {}", first.is_ok(), second.is_ok()),
    }
}

pub(super) fn trusts() -> Vec<Vec<u8>> {
    let (log, witness) = (SAMPLE.ledger.verifier().clone(), witness());
    let policy = format!(
        "# trust\nlog {log} https://log.example\nwitness w {} https://w.example/\n\
         group g any w\nquorum g\n",
        witness.verifier()
    );
    vec![policy.into_bytes(), format!("log {log}\nquorum none\n").into_bytes()]
}

/// What a quorum lacks is what keeps it from being met.
pub(super) fn trust(bytes: &[u8]) -> bool {
    let Ok(quorum) = Quorum::parse(bytes) else { return false };
    assert_eq!(quorum.keys().len(), quorum.witnesses().len());
    assert!(quorum.is_met(&[]) == quorum.lacking(&[]).is_empty());
    true
}

pub(super) fn log_lists() -> Vec<Vec<u8>> {
    let logs = [SAMPLE.ledger.clone(), signer("other.example/log", 9)];
    let lines = logs.map(|key| format!("log {} https://log.example\n", key.verifier()));
    vec![format!("# logs\n\n{}", lines.concat()).into_bytes()]
}

pub(super) fn logs(bytes: &[u8]) -> bool {
    let parsed = str::from_utf8(bytes).ok().and_then(|text| parse_logs(text).ok());
    let Some(keys) = parsed else { return false };
    let lines: String = keys.iter().map(|key| format!("log {key}\n")).collect();
    assert_eq!(parse_logs(&lines).unwrap(), keys);
    true
}

static PROPOSALS: LazyLock<[String; 2]> = LazyLock::new(|| {
    let dataset = wire::Dataset {
        boundary: wire::Boundary::Protected.into(),
        categories: vec![wire::DataCategory::Contact.into()],
        ..Default::default()
    };
    let change = wire::ControlChange {
        kind: wire::ControlKind::Dataset.into(),
        target: "accounts".to_owned(),
        content: dataset.encode_to_vec().into(),
        approvals: Vec::new(),
        revision: 1,
    };
    let mut signed = Proposal::new(ORIGIN, Change::Control(change)).unwrap();
    let plain = signed.to_text();
    signed.sign(&signer("company", 6), &sources()).unwrap();
    [plain, signed.to_text()]
});

pub(super) fn proposals() -> Vec<Vec<u8>> {
    PROPOSALS.iter().map(|text| text.clone().into_bytes()).collect()
}

/// A proposal that was read is written the same, and signed the same.
pub(super) fn proposal(bytes: &[u8]) -> bool {
    let parsed = str::from_utf8(bytes).ok().and_then(|text| Proposal::parse(text).ok());
    let Some(proposal) = parsed else { return false };
    let again = Proposal::parse(&proposal.to_text()).unwrap();
    assert_eq!(again, proposal);
    assert_eq!(again.message(), proposal.message());
    true
}
