//! What each kind of event is found by, and that filters mean what they say.

use std::collections::BTreeSet;

use bytes::Bytes;
use prost_reflect::DescriptorPool;
use prost_types::Timestamp;

use super::*;
use crate::source::Name;

fn found(event: &wire::Event) -> BTreeSet<(Field, String)> {
    let mut found = BTreeSet::new();
    terms(event, |field, term| {
        let is_number = matches!(
            field,
            Field::Boundary
                | Field::Category
                | Field::Action
                | Field::Outcome
                | Field::Purpose
                | Field::Body
        );
        let text = match <[u8; 4]>::try_from(term) {
            Ok(number) if is_number => i32::from_be_bytes(number).to_string(),
            _ => String::from_utf8(term.to_vec()).unwrap(),
        };
        found.insert((field, text));
    });
    found
}

fn of(body: Body) -> wire::Event {
    wire::Event { body: Some(body), ..Default::default() }
}

fn set(terms: &[(Field, &str)]) -> BTreeSet<(Field, String)> {
    terms.iter().map(|(field, term)| (*field, (*term).to_owned())).collect()
}

fn place(site: &str, country: &str, entity: &str) -> Option<wire::Place> {
    Some(wire::Place { site: site.into(), country: country.into(), entity: entity.into() })
}

fn data() -> wire::Data {
    wire::Data {
        dataset: "users".into(),
        region: "us-east".into(),
        subject_jurisdiction: "US".into(),
        boundary: 1,
        categories: vec![2, 777],
        subject_tokens: vec![Bytes::from_static(b"token")],
        ..Default::default()
    }
}

fn access() -> wire::Event {
    let actor = wire::Principal {
        id: "u-1".into(),
        entity: "acme".into(),
        entity_country: "US".into(),
        office_country: "IE".into(),
        physical_country: "ZZ".into(),
        ..Default::default()
    };
    let customer = wire::Principal { id: "agent-7".into(), ..Default::default() };
    wire::Event {
        event_id: Bytes::from_static(&[7; 16]),
        actor: Some(actor),
        on_behalf_of: Some(customer),
        tool: Some(wire::Tool { id: "console".into(), ..Default::default() }),
        ..of(Body::Access(wire::Access {
            action: 7,
            outcome: 2,
            data: vec![data()],
            grant_id: "g-1".into(),
            legal_request_id: "l-1".into(),
            break_glass_id: "b-1".into(),
            destination: place("laptop", "SG", "vendor"),
            ..Default::default()
        }))
    }
}

const DATA: [(Field, &str); 7] = [
    (Field::Dataset, "users"),
    (Field::Region, "us-east"),
    (Field::Jurisdiction, "US"),
    (Field::Boundary, "1"),
    (Field::Category, "2"),
    (Field::Category, "777"),
    (Field::SubjectToken, "token"),
];

#[test]
fn an_access_is_found_by_who_where_with_what_and_which_data() {
    let mut wanted = set(&[
        (Field::Actor, "u-1"),
        (Field::Actor, "agent-7"),
        (Field::Entity, "acme"),
        (Field::EntityCountry, "US"),
        (Field::OfficeCountry, "IE"),
        (Field::PhysicalCountry, "ZZ"),
        (Field::Tool, "console"),
        (Field::Body, "16"),
        (Field::Action, "7"),
        (Field::Outcome, "2"),
        (Field::Purpose, "0"),
        (Field::Grant, "g-1"),
        (Field::LegalRequest, "l-1"),
        (Field::BreakGlass, "b-1"),
        (Field::Region, "laptop"),
        (Field::PlaceCountry, "SG"),
        (Field::Entity, "vendor"),
    ]);
    wanted.extend(set(&DATA));
    assert_eq!(found(&access()), wanted);
}

#[test]
fn a_transfer_is_found_by_both_ends_and_its_data() {
    let transfer = Body::Transfer(wire::Transfer {
        from: place("us-east", "US", "acme"),
        to: place("sg-1", "SG", "affiliate"),
        data: vec![data()],
        purpose: 11,
        grant_id: "g-2".into(),
        legal_request_id: "l-2".into(),
        ..Default::default()
    });
    let mut wanted = set(&[
        (Field::Body, "23"),
        (Field::Purpose, "11"),
        (Field::Grant, "g-2"),
        (Field::LegalRequest, "l-2"),
        (Field::Region, "sg-1"),
        (Field::PlaceCountry, "US"),
        (Field::PlaceCountry, "SG"),
        (Field::Entity, "acme"),
        (Field::Entity, "affiliate"),
    ]);
    wanted.extend(set(&DATA));
    assert_eq!(found(&of(transfer)), wanted);
}

#[test]
fn what_belongs_to_a_grant_is_found_by_its_id_and_its_requests() {
    let scope = wire::Scope {
        actors: vec!["u-2".into()],
        datasets: vec!["chat*".into()],
        actions: vec![1],
        categories: vec![6],
        ..Default::default()
    };
    let scoped = [
        (Field::Actor, "u-2"),
        (Field::Dataset, "chat*"),
        (Field::Action, "1"),
        (Field::Category, "6"),
    ];
    let request = Body::AccessRequest(wire::AccessRequest {
        request_id: "r".into(),
        scope: Some(scope.clone()),
        purpose: 3,
        ..Default::default()
    });
    let mut wanted = set(&[(Field::Body, "18"), (Field::Grant, "r"), (Field::Purpose, "3")]);
    wanted.extend(set(&scoped));
    assert_eq!(found(&of(request)), wanted);

    let decision = Body::Decision(wire::Decision {
        request_id: "r".into(),
        grant_id: "g".into(),
        narrowed_scope: Some(scope),
        ..Default::default()
    });
    let mut wanted = set(&[(Field::Body, "19"), (Field::Grant, "r"), (Field::Grant, "g")]);
    wanted.extend(set(&scoped));
    assert_eq!(found(&of(decision)), wanted);

    let change =
        Body::GrantChange(wire::GrantChange { grant_id: "g".into(), ..Default::default() });
    assert_eq!(found(&of(change)), set(&[(Field::Body, "20"), (Field::Grant, "g")]));
    let verdict =
        Body::Authorization(wire::Authorization { grant_id: "g".into(), ..Default::default() });
    assert_eq!(found(&of(verdict)), set(&[(Field::Body, "17"), (Field::Grant, "g")]));
}

#[test]
fn records_of_places_and_authorities_are_found_by_what_they_name() {
    assert_found([
        (
            Body::LegalRequest(wire::LegalRequest {
                legal_request_id: "l".into(),
                country: "US".into(),
                categories_produced: vec![2],
                ..Default::default()
            }),
            vec![(Field::LegalRequest, "l"), (Field::PlaceCountry, "US"), (Field::Category, "2")],
        ),
        (
            Body::Erasure(wire::Erasure {
                site: "s".into(),
                dataset: "d".into(),
                ..Default::default()
            }),
            vec![(Field::Region, "s"), (Field::Dataset, "d")],
        ),
        (
            Body::Holding(wire::Holding {
                dataset: "d".into(),
                site: "s".into(),
                country: "US".into(),
                site_operator: "custodian".into(),
                ..Default::default()
            }),
            vec![
                (Field::Dataset, "d"),
                (Field::Region, "s"),
                (Field::PlaceCountry, "US"),
                (Field::Entity, "custodian"),
            ],
        ),
    ]);
}

#[test]
fn records_of_the_ledger_itself_are_found_by_what_they_name() {
    assert_found([
        (
            Body::ControlChange(wire::ControlChange {
                kind: wire::ControlKind::Tool.into(),
                target: "console".into(),
                ..Default::default()
            }),
            vec![(Field::Tool, "console")],
        ),
        (
            Body::ControlChange(wire::ControlChange {
                kind: wire::ControlKind::Policy.into(),
                target: "x".into(),
                ..Default::default()
            }),
            vec![],
        ),
        (
            Body::SourceStatus(wire::SourceStatus {
                source: "s".into(),
                principal: "u-9".into(),
                ..Default::default()
            }),
            vec![(Field::Actor, "u-9")],
        ),
        (
            Body::LedgerRead(wire::LedgerRead {
                reader: "auditor".into(),
                subject_tokens: vec![Bytes::from_static(b"token")],
                ..Default::default()
            }),
            vec![(Field::Actor, "auditor"), (Field::SubjectToken, "token")],
        ),
        (
            Body::BreakGlass(wire::BreakGlass { break_glass_id: "b".into(), ..Default::default() }),
            vec![(Field::BreakGlass, "b")],
        ),
        (
            Body::Attestation(wire::Attestation { country: "DE".into(), ..Default::default() }),
            vec![(Field::PlaceCountry, "DE")],
        ),
    ]);
}

fn assert_found<const N: usize>(cases: [(Body, Vec<(Field, &str)>); N]) {
    for (body, mut wanted) in cases {
        let number = body_number(&body).to_string();
        wanted.push((Field::Body, &number));
        assert_eq!(found(&of(body)), set(&wanted));
    }
}

#[test]
fn kinds_are_numbered_and_named_as_in_the_proto_file() {
    let pool = DescriptorPool::decode(wire::FILE_DESCRIPTOR_SET).unwrap();
    let event = pool.get_message_by_name("access_ledger.v1.Event").unwrap();
    let oneof = event.oneofs().next().unwrap();
    let kinds: Vec<_> =
        oneof.fields().map(|field| (field.number(), field.name().to_owned())).collect();
    let named: Vec<_> =
        (BODY_FIRST..).zip(BODY_NAMES).map(|(number, name)| (number, name.to_owned())).collect();
    assert_eq!(named, kinds);
    for (place, field) in Field::ALL.into_iter().enumerate() {
        assert_eq!(field.place(), place);
    }
}

fn matches(filter: wire::Filter, event: Option<&wire::Event>) -> bool {
    let criteria = Criteria::parse(&filter).unwrap();
    criteria.matches(1_000_000_005, Name::parse(b"payments").unwrap(), event)
}

#[test]
fn values_of_a_field_are_alternatives_and_fields_are_all_required() {
    let event = access();
    let all = wire::Filter {
        actors: vec!["nobody".into(), "u-1".into()],
        office_countries: vec!["IE".into()],
        categories: vec![777],
        bodies: vec!["access".into(), "transfer".into()],
        event_ids: vec![Bytes::from_static(&[1; 16]), Bytes::from_static(&[7; 16])],
        sources: vec!["payments".into()],
        ..Default::default()
    };
    assert!(matches(wire::Filter::default(), Some(&event)));
    assert!(matches(all.clone(), Some(&event)));
    let mut spoilt = vec![all.clone(); 6];
    spoilt[0].actors.pop();
    spoilt[1].office_countries = vec!["US".into()];
    spoilt[2].categories = vec![1];
    spoilt[3].bodies.remove(0);
    spoilt[4].event_ids.pop();
    spoilt[5].sources = vec!["payments/child".into()];
    for filter in spoilt {
        assert!(!matches(filter, Some(&event)));
    }
    assert!(!matches(all, None));
}

#[test]
fn time_is_from_the_first_and_before_the_second() {
    let at = |nanos| Some(Timestamp { seconds: 1, nanos });
    let filter = |from, to| wire::Filter { from, to, ..Default::default() };
    assert!(matches(filter(at(5), at(6)), None));
    assert!(!matches(filter(at(6), None), None));
    assert!(!matches(filter(None, at(5)), None));
    let before = Some(Timestamp { seconds: -1, nanos: 0 });
    let never = Some(Timestamp { seconds: i64::MAX, nanos: 999_999_999 });
    assert!(matches(filter(before, never), None));
    assert!(!matches(filter(None, before), None));
}

#[test]
fn an_erased_event_is_found_by_its_source_alone() {
    let of_source = wire::Filter { sources: vec!["payments".into()], ..Default::default() };
    assert!(matches(of_source, None));
    assert!(!matches(wire::Filter { actions: vec![0], ..Default::default() }, None));
}

#[test]
fn malformed_filters_are_refused_by_field() {
    let cases = [
        ("actors", wire::Filter { actors: vec![String::new()], ..Default::default() }),
        ("tools", wire::Filter { tools: vec!["x".repeat(257)], ..Default::default() }),
        ("actions", wire::Filter { actions: vec![1; 101], ..Default::default() }),
        ("rules", wire::Filter { rules: vec!["R".into(); 101], ..Default::default() }),
        ("rules", wire::Filter { rules: vec![String::new()], ..Default::default() }),
        (
            "office_countries",
            wire::Filter { office_countries: vec!["us".into()], ..Default::default() },
        ),
        ("jurisdictions", wire::Filter { jurisdictions: vec!["USA".into()], ..Default::default() }),
        ("sources", wire::Filter { sources: vec!["A B".into()], ..Default::default() }),
        ("bodies", wire::Filter { bodies: vec!["Access".into()], ..Default::default() }),
        (
            "subject_tokens",
            wire::Filter { subject_tokens: vec![vec![0; 65].into()], ..Default::default() },
        ),
        ("event_ids", wire::Filter { event_ids: vec![vec![0; 15].into()], ..Default::default() }),
        (
            "from",
            wire::Filter { from: Some(Timestamp { seconds: 0, nanos: -1 }), ..Default::default() },
        ),
        (
            "to",
            wire::Filter {
                to: Some(Timestamp { seconds: 0, nanos: i32::MAX }),
                ..Default::default()
            },
        ),
    ];
    for (field, filter) in cases {
        assert_eq!(Criteria::parse(&filter).unwrap_err().field, format!("filter.{field}"));
    }
}
