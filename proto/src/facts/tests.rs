//! Facts of whole logs: times, who concerns them, and that an archive changes no answer.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
};

use proptest::prelude::*;
use prost::Message as _;
use prost_types::Timestamp;

use super::{rows::ROWS_HOT_MAX, testing::*, *};
use crate::{
    facts::assess::GrantStatus,
    wire::{Access, Action, FindingState, LegalRequestPhase, Verdict},
};

fn time_of(occurred_at: Option<Timestamp>, recorded_at: u64) -> u64 {
    let event = wire::Event { occurred_at, ..Default::default() };
    Noted { index: Index(1), recorded_at, source: name("a"), event: &event }.time()
}

#[test]
fn a_source_is_believed_about_the_last_day_only() {
    let told = |nanos: u64| time_of(Some(timestamp(nanos)), START);
    assert_eq!(told(START), START);
    assert_eq!(told(START - LATE_NANOS_MAX), START - LATE_NANOS_MAX);
    assert_eq!(told(START - LATE_NANOS_MAX - 1), START);
    assert_eq!(told(START + 1), START);
    assert_eq!(time_of(None, START), START);
    for seconds in [i64::MIN, -1, i64::MAX] {
        assert_eq!(time_of(Some(Timestamp { seconds, nanos: i32::MIN }), START), START);
    }
    assert_eq!(time_of(Some(Timestamp { seconds: -1, nanos: 0 }), 5), 0);
}

#[test]
fn of_accesses_only_those_with_a_permission_concern_the_facts() {
    let concerns = |access: Access| {
        let bytes = access.encode_to_vec();
        Facts::concerns(Body { number: Body::ACCESS, bytes: &bytes })
    };
    let plain = || access("", "users");
    assert!(!concerns(plain()));
    assert!(!concerns(Access { legal_request_id: "l".into(), ..plain() }));
    assert!(concerns(access("g", "users")));
    assert!(concerns(Access { intent: Some(wire::EventReference::default()), ..plain() }));
    assert!(concerns(Access { break_glass_id: "b".into(), ..plain() }));
    assert!(concerns(Access { outcome: Outcome::Requested.into(), ..plain() }));
    for (number, concerned) in [
        (Body::TRANSFER, false),
        (Body::ATTESTATION, false),
        (Body::REDACTION, true),
        (Body::LEDGER_READ, false),
        (Body::AUTHORIZATION, true),
        (Body::DECISION, true),
        (Body::SOURCE_STATUS, true),
        (Body::FINDING, true),
    ] {
        assert_eq!(Facts::concerns(Body { number, bytes: &[] }), concerned, "{number}");
    }
    assert!(Facts::concerns(Body { number: Body::ACCESS, bytes: &[0xff] }));
}

#[test]
fn findings_are_handled_by_who_approves_or_governs() {
    let mut ledger = Ledger::new();
    let finding = |state: FindingState| {
        EventBody::Finding(wire::Finding {
            finding_id: "NO_GRANT-7".into(),
            state: state.into(),
            note: "seen".into(),
        })
    };
    let refused = ledger.rules("gateway", finding(FindingState::Closed));
    assert_eq!(refused, ["APPROVER_NOT_AUTHORIZED"]);
    assert!(ledger.facts.handling().get("NO_GRANT-7").is_none());
    for (source, state) in
        [("security/ann", FindingState::Acknowledged), ("custodian", FindingState::Explained)]
    {
        assert_eq!(ledger.rules(source, finding(state)), [""; 0]);
        let row = ledger.facts.handling().get("NO_GRANT-7").unwrap().into_owned();
        assert_eq!((row.by.as_str(), row.state()), (source, state));
    }
}

#[test]
fn a_source_that_left_keeps_the_roles_of_what_it_recorded() {
    let mut ledger = Ledger::new();
    let roles = ledger.facts.sources().get(name("security/ann")).unwrap().roles.now();
    assert!(roles.contains(SourceRole::Approve));
    let left = wire::SourceStatus {
        phase: wire::SourcePhase::Decommissioned.into(),
        source: "security/ann".into(),
        ..Default::default()
    };
    let index = Index(ledger.next);
    ledger.take("company", EventBody::SourceStatus(left));
    let source = ledger.facts.sources().get(name("security/ann")).unwrap();
    assert_eq!(source.decommissioned_at, Some(index));
}

/// The rows of an archive, by table and key.
type Saved = BTreeMap<(Table, String), Vec<u8>>;

#[derive(Debug, Default)]
struct Memory(Mutex<Saved>);

impl Memory {
    fn rows(&self) -> std::sync::MutexGuard<'_, Saved> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn save(&self, facts: &Facts) {
        for (table, key, row) in facts.changes() {
            match row {
                Some(row) => self.rows().insert((table, key.to_owned()), row),
                None => self.rows().remove(&(table, key.to_owned())),
            };
        }
    }
}

impl Archive for Memory {
    fn load(&self, table: Table, key: &str) -> Option<Vec<u8>> {
        self.rows().get(&(table, key.to_owned())).cloned()
    }

    fn scan(&self, table: Table, each: &mut dyn FnMut(&str, &[u8])) {
        for ((other, key), row) in self.rows().iter() {
            if *other == table {
                each(key, row);
            }
        }
    }
}

#[test]
fn what_was_saved_leaves_memory_beyond_a_bound() {
    let memory = Arc::new(Memory::default());
    let archive: Arc<dyn Archive> = memory.clone();
    let mut ledger = Ledger::new();
    ledger.facts = ledger.facts.with_archive(&archive);
    let count = ROWS_HOT_MAX + 100;
    let report = |phase, id: usize| {
        let legal_request_id = format!("{id:06}");
        EventBody::LegalRequest(wire::LegalRequest {
            legal_request_id,
            phase,
            ..Default::default()
        })
    };
    for id in 0..count {
        ledger.take("gateway", report(LegalRequestPhase::Received.into(), id));
    }
    // Not saved: all must stay.
    ledger.facts.settle(Index(0));
    assert_eq!(ledger.facts.legal.len_hot(), count);
    memory.save(&ledger.facts);
    ledger.facts.settle(Index(ledger.next));
    assert!(ledger.facts.legal.len_hot() <= ROWS_HOT_MAX);
    assert_eq!(ledger.facts.changes().count(), 0);
    // The oldest is found again, is changed, and is told of as changed.
    ledger.take("gateway", report(LegalRequestPhase::Closed.into(), 0));
    assert_eq!(ledger.facts.changes().count(), 1);
    let mut keys = 0;
    ledger.facts.legal().each(|key, row| {
        assert_eq!(key, format!("{keys:06}"));
        let closed = row.phase() == LegalRequestPhase::Closed;
        assert_eq!(closed, keys == 0);
        keys += 1;
    });
    assert_eq!(keys, count);
}

#[test]
fn facts_come_back_from_an_archive() {
    let memory = Arc::new(Memory::default());
    let archive: Arc<dyn Archive> = memory.clone();
    let mut ledger = Ledger::new();
    let policy = b"forbid (principal, action, resource);".to_vec();
    let change = change(wire::ControlKind::Policy, "", 2, policy);
    ledger.take("company", EventBody::ControlChange(change));
    let users = dataset(wire::Boundary::Protected).encode_to_vec();
    let users = testing::change(wire::ControlKind::Dataset, "users", 1, users);
    ledger.take("company", EventBody::ControlChange(users));
    let intent = Access { outcome: Outcome::Requested.into(), ..access("", "users") };
    ledger.take("gateway", EventBody::Access(intent));
    memory.save(&ledger.facts);
    let sources: Vec<_> = ledger.facts.sources().iter().cloned().collect();
    let back = Facts::restore(&genesis(), sources, &archive).unwrap();
    assert_eq!(back.policy(), ledger.facts.policy());
    assert_eq!(back.catalogue().dataset("users"), ledger.facts.catalogue().dataset("users"));
    assert_eq!(back.open_intents, ledger.facts.open_intents);
    assert!(back.sources().iter().eq(ledger.facts.sources().iter()));
    assert_eq!(back.revision(wire::ControlKind::Dataset.into(), "users"), 1);
}

/// One of few ids, so that events meet.
fn id() -> impl Strategy<Value = String> {
    (0..4_u8).prop_map(|id| format!("r{id}"))
}

fn body() -> impl Strategy<Value = EventBody> {
    let reference = |id: u8| wire::EventReference { event_id: vec![id; 16].into(), index: None };
    prop_oneof![
        (id(), 0..3_u64).prop_map(|(id, seconds)| {
            let seconds = i64::try_from(seconds * 3_600).unwrap();
            let duration = Some(prost_types::Duration { seconds, nanos: 0 });
            let asked = request(&id, scope(&["eng-1", "ann"], &["users", "r*"]));
            EventBody::AccessRequest(wire::AccessRequest { requested_duration: duration, ..asked })
        }),
        (id(), id(), 0..5_i32, 0..4_u64).prop_map(|(id, grant_id, verdict, max_uses)| {
            let answer = decision(&id, Verdict::Approve);
            EventBody::Decision(wire::Decision { verdict, grant_id, max_uses, ..answer })
        }),
        (id(), 0..7_i32, 0..9_u64).prop_map(|(grant_id, state, hours)| {
            let not_after = Some(timestamp(START + hours * HOUR));
            EventBody::GrantChange(wire::GrantChange {
                grant_id,
                state,
                not_after,
                ..Default::default()
            })
        }),
        (id(), 0..8_i32, 0..20_u64, prop::option::of(0..4_u8), id()).prop_map(
            move |(grant_id, outcome, records, intent, break_glass_id)| {
                let intent = intent.map(reference);
                let site = wire::Data { region: grant_id.clone(), ..data("users") };
                let data = vec![site];
                EventBody::Access(Access {
                    outcome,
                    records,
                    intent,
                    break_glass_id,
                    data,
                    ..access(&grant_id, "")
                })
            }
        ),
        (0..4_u8, 0..3_i32).prop_map(move |(id, decision)| {
            let intent = Some(reference(id));
            EventBody::Authorization(wire::Authorization { intent, decision, ..Default::default() })
        }),
        (id(), 0..5_i32).prop_map(|(break_glass_id, phase)| {
            EventBody::BreakGlass(wire::BreakGlass { break_glass_id, phase, ..Default::default() })
        }),
        (id(), 0..9_i32).prop_map(|(legal_request_id, phase)| {
            EventBody::LegalRequest(wire::LegalRequest {
                legal_request_id,
                phase,
                ..Default::default()
            })
        }),
        (id(), id(), 0..7_i32).prop_map(|(job_id, site, phase)| {
            EventBody::Erasure(wire::Erasure { job_id, site, phase, ..Default::default() })
        }),
        (id(), 0..9_u64).prop_map(|(site, records)| {
            let dataset = "users".into();
            EventBody::Holding(wire::Holding { dataset, site, records, ..Default::default() })
        }),
    ]
}

#[derive(Clone, Debug)]
enum Step {
    Take {
        source: &'static str,
        event_id: u8,
        wait: u64,
        body: Box<EventBody>,
    },
    Save,
    /// Saves, and drops from memory what may be dropped, or begins anew from what was saved.
    Forget,
    Restart,
}

fn step() -> impl Strategy<Value = Step> {
    let source = prop::sample::select(vec!["gateway", "security/ann", "security/ben", "ledger"]);
    let take = (source, 0..4_u8, 0..2_u64, body()).prop_map(|(source, event_id, hours, body)| {
        Step::Take { source, event_id, wait: hours * HOUR, body: Box::new(body) }
    });
    prop_oneof![
        16 => take,
        1 => Just(Step::Save),
        1 => Just(Step::Forget),
        1 => Just(Step::Restart),
    ]
}

impl Facts {
    /// Drops half of the rows from memory that were saved, as if there were many more.
    fn drop_saved(&mut self) {
        self.requests.drop_saved(0);
        self.grants.drop_saved(0);
        self.break_glass.drop_saved(0);
        self.legal.drop_saved(0);
        self.erasures.drop_saved(0);
        self.erased.drop_saved(0);
        self.holdings.drop_saved(0);
        self.intents.drop_saved(0);
    }
}

fn rows_of(facts: &Facts) -> Vec<(Table, String, Vec<u8>)> {
    fn of<T: prost::Message + Default + Clone>(
        rows: &Rows<T>,
        into: &mut Vec<(Table, String, Vec<u8>)>,
    ) {
        rows.each(|key, row| into.push((rows.table(), key.to_owned(), row.encode_to_vec())));
    }
    let mut rows = Vec::new();
    of(&facts.requests, &mut rows);
    of(&facts.grants, &mut rows);
    of(&facts.break_glass, &mut rows);
    of(&facts.legal, &mut rows);
    of(&facts.erasures, &mut rows);
    of(&facts.erased, &mut rows);
    of(&facts.holdings, &mut rows);
    of(&facts.intents, &mut rows);
    rows
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn an_archive_changes_no_answer(steps in prop::collection::vec(step(), 1..120)) {
        let memory = Arc::new(Memory::default());
        let archive: Arc<dyn Archive> = memory.clone();
        let mut plain = Ledger::new();
        let mut archived = Ledger::new();
        archived.facts = archived.facts.with_archive(&archive);
        for step in steps {
            let last = Index(plain.next - 1);
            match step {
                Step::Take { source, event_id, wait, body } => {
                    plain.now += wait;
                    archived.now += wait;
                    let event_id = vec![event_id; 16].into();
                    let event = wire::Event { event_id, ..plain.event(*body) };
                    let assessed = plain.assess_event(source, &event);
                    prop_assert_eq!(assessed, archived.assess_event(source, &event));
                    let objections = plain.take_event(source, &event);
                    prop_assert_eq!(objections, archived.take_event(source, &event));
                }
                Step::Save => {
                    memory.save(&archived.facts);
                    archived.facts.settle(last);
                }
                Step::Forget => {
                    memory.save(&archived.facts);
                    archived.facts.settle(last);
                    // Half of them, and half of what is left.
                    archived.facts.drop_saved();
                    archived.facts.drop_saved();
                }
                Step::Restart => {
                    memory.save(&archived.facts);
                    let sources: Vec<_> = archived.facts.sources().iter().cloned().collect();
                    archived.facts = Facts::restore(&genesis(), sources, &archive).unwrap();
                }
            }
            prop_assert_eq!(rows_of(&plain.facts), rows_of(&archived.facts));
        }
    }

    #[test]
    fn no_event_makes_the_facts_panic(
        bytes in prop::collection::vec(any::<u8>(), 0..200),
        number in 16..32_u32,
    ) {
        let mut ledger = Ledger::new();
        let mut event = Vec::new();
        prost::encoding::encode_key(number, prost::encoding::WireType::LengthDelimited, &mut event);
        prost::encoding::encode_varint(bytes.len() as u64, &mut event);
        event.extend_from_slice(&bytes);
        let _told = Facts::concerns(Body { number, bytes: &bytes });
        if let Ok(event) = wire::Event::decode(event.as_slice()) {
            ledger.assess_event("gateway", &event);
            ledger.take_event("security/ann", &event);
        }
    }
}

#[test]
fn unused_kinds_of_events_change_nothing() {
    let mut ledger = Ledger::new();
    let before = rows_of(&ledger.facts);
    for body in [
        EventBody::Attestation(wire::Attestation::default()),
        EventBody::LedgerRead(wire::LedgerRead::default()),
        EventBody::Transfer(wire::Transfer::default()),
    ] {
        assert_eq!(ledger.rules("gateway", body), [""; 0]);
    }
    let without_body = wire::Event::default();
    ledger.take_event("gateway", &without_body);
    assert_eq!(rows_of(&ledger.facts), before);
}

#[test]
fn a_transfer_rests_on_its_grant_and_legal_request() {
    let mut ledger = Ledger::new();
    let asked = wire::Scope {
        actions: vec![Action::Copy.into()],
        countries: vec!["US".into()],
        ..scope(&[], &["users"])
    };
    ledger.grant("r", asked);
    let transfer = |mode: wire::TransferMode, country: &str| {
        let to = wire::Place { country: country.into(), ..Default::default() };
        let transfer = wire::Transfer {
            to: Some(to),
            mode: mode.into(),
            data: vec![data("users")],
            grant_id: "r".into(),
            legal_request_id: "l".into(),
            ..Default::default()
        };
        ledger.assess("gateway", EventBody::Transfer(transfer))
    };
    let copied = transfer(wire::TransferMode::Copy, "US");
    assert_eq!(copied.grant.status, GrantStatus::Valid);
    assert!(copied.data[0].named_by_grant);
    assert_eq!(copied.legal, assess::LegalStatus::Unknown);
    for (mode, country) in [
        (wire::TransferMode::Api, "US"),
        (wire::TransferMode::RemoteAccess, "US"),
        (wire::TransferMode::Unspecified, "US"),
        (wire::TransferMode::Backup, "CN"),
    ] {
        assert_eq!(transfer(mode, country).grant.status, GrantStatus::Scope, "{mode:?}");
    }
}
