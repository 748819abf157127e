//! Each rule with a message that breaks it, and agreement with prost.

use proptest::prelude::*;
use prost::Message as _;

use super::*;
use crate::wire;

const NOW: u64 = 1_790_000_000_000_000_000;

fn access() -> wire::Access {
    wire::Access {
        action: wire::Action::Read.into(),
        data: vec![wire::Data { dataset: "users".into(), ..Default::default() }],
        outcome: wire::Outcome::Allowed.into(),
        ..Default::default()
    }
}

fn event() -> wire::Event {
    wire::Event {
        event_id: vec![7; 16].into(),
        occurred_at: Some(prost_types::Timestamp { seconds: 1_790_000_000, nanos: 0 }),
        actor: Some(wire::Principal { id: "p".into(), ..Default::default() }),
        body: Some(wire::event::Body::Access(access())),
        ..Default::default()
    }
}

fn with_access(change: impl FnOnce(&mut wire::Access)) -> Vec<u8> {
    let mut access = access();
    change(&mut access);
    wire::Event { body: Some(wire::event::Body::Access(access)), ..event() }.encode_to_vec()
}

fn refused(bytes: &[u8]) -> (String, EventFault) {
    let error = validate(bytes, NOW).expect_err("the event breaks a rule");
    (error.path, error.fault)
}

#[test]
fn a_good_event_is_accepted_and_its_body_found() {
    let bytes = event().encode_to_vec();
    let found = validate(&bytes, NOW).unwrap();
    assert_eq!(found.number, Body::ACCESS);
    assert_eq!(wire::Access::decode(found.bytes).unwrap(), access());
    assert_eq!(body(&bytes), Some(found));
}

#[test]
fn body_numbers_are_those_of_the_proto_file() {
    use wire::event::Body as B;
    for (body, number) in [
        (B::Access(Default::default()), Body::ACCESS),
        (B::SourceStatus(Default::default()), Body::SOURCE_STATUS),
        (B::ControlChange(Default::default()), Body::CONTROL_CHANGE),
        (B::Access(Default::default()), BODY_FIRST),
        (B::Finding(Default::default()), BODY_LAST),
    ] {
        let bytes = wire::Event { body: Some(body), ..Default::default() }.encode_to_vec();
        assert_eq!(super::body(&bytes).map(|body| body.number), Some(number));
    }
}

#[test]
fn missing_and_misshapen_fields_are_named() {
    let cases: Vec<(Vec<u8>, &str, EventFault)> = vec![
        (
            wire::Event { event_id: vec![1; 15].into(), ..event() }.encode_to_vec(),
            "event_id",
            EventFault::Exactly { len: 15, wanted: 16 },
        ),
        (
            wire::Event { event_id: Vec::new().into(), ..event() }.encode_to_vec(),
            "event_id",
            EventFault::Missing,
        ),
        (
            wire::Event { occurred_at: None, ..event() }.encode_to_vec(),
            "occurred_at",
            EventFault::Missing,
        ),
        (wire::Event { body: None, ..event() }.encode_to_vec(), "body", EventFault::Missing),
        (wire::Event { actor: None, ..event() }.encode_to_vec(), "actor", EventFault::Missing),
        (with_access(|access| access.action = 0), "access.action", EventFault::Missing),
        (
            with_access(|access| access.action = 999),
            "access.action",
            EventFault::EnumValue { value: 999 },
        ),
        (with_access(|access| access.data.clear()), "access.data", EventFault::Missing),
        (
            with_access(|access| access.data.push(wire::Data::default())),
            "access.data[1].dataset",
            EventFault::Missing,
        ),
        (
            with_access(|access| access.data[0].subject_jurisdiction = "usa".into()),
            "access.data[0].subject_jurisdiction",
            EventFault::Country,
        ),
        (
            with_access(|access| access.grant_id = "x".repeat(257)),
            "access.grant_id",
            EventFault::Len { len: 257, max: 256 },
        ),
        (
            with_access(|access| access.grant_id = "a\nb".into()),
            "access.grant_id",
            EventFault::Character { position: 1 },
        ),
        (
            with_access(|access| access.justification = "a\u{202e}b".into()),
            "access.justification",
            EventFault::Character { position: 1 },
        ),
        (
            with_access(|access| access.data = vec![access.data[0].clone(); 257]),
            "access.data",
            EventFault::Items { max: 256 },
        ),
    ];
    for (bytes, path, fault) in cases {
        assert_eq!(refused(&bytes), (path.to_owned(), fault));
    }
}

#[test]
fn prose_may_have_lines_and_optional_enums_may_be_new() {
    let bytes = with_access(|access| {
        access.justification = "first line\n\tsecond, \u{e9}".into();
        access.purpose = 4_711;
    });
    assert!(validate(&bytes, NOW).is_ok());
}

#[test]
fn times_outside_their_range_are_refused() {
    let at = |seconds, nanos| {
        let occurred_at = Some(prost_types::Timestamp { seconds, nanos });
        wire::Event { occurred_at, ..event() }.encode_to_vec()
    };
    let refusal = |fault| ("occurred_at".to_owned(), fault);
    assert!(validate(&at(1_790_000_300, 0), NOW).is_ok());
    assert_eq!(refused(&at(1_790_000_300, 1)), refusal(EventFault::Future));
    assert_eq!(refused(&at(i64::MAX, 0)), refusal(EventFault::TimeRange));
    assert_eq!(refused(&at(-1, 0)), refusal(EventFault::TimeRange));
    assert_eq!(refused(&at(5, -1)), refusal(EventFault::TimeRange));
    assert_eq!(refused(&at(5, 1_000_000_000)), refusal(EventFault::TimeRange));
    assert!(validate(&at(0, 0), NOW).is_ok());
}

#[test]
fn an_event_with_two_readings_is_refused() {
    let good = event().encode_to_vec();
    let id_again = wire::Event { event_id: vec![8; 16].into(), ..Default::default() };
    let twice = [good.clone(), id_again.encode_to_vec()].concat();
    assert_eq!(refused(&twice), ("event_id".to_owned(), EventFault::Twice));
    let other_body = wire::event::Body::Finding(wire::Finding {
        finding_id: "x".into(),
        state: 1,
        ..Default::default()
    });
    let second = wire::Event { body: Some(other_body), ..Default::default() };
    let two_bodies = [good, second.encode_to_vec()].concat();
    assert_eq!(refused(&two_bodies), ("body".to_owned(), EventFault::Twice));
    // action = 2^32 + 1: a 32-bit reader sees READ.
    let wide = [&[0x08][..], &[0x81, 0x80, 0x80, 0x80, 0x10]].concat();
    let mut bytes = wire::Event { body: None, ..event() }.encode_to_vec();
    bytes.extend_from_slice(&[0x82, 0x01, 6]);
    bytes.extend_from_slice(&wide);
    assert_eq!(refused(&bytes), ("access.action".to_owned(), EventFault::Malformed));
}

#[test]
fn length_limits_hold_for_the_event_as_a_whole() {
    assert_eq!(refused(&[]).1, EventFault::EventLen { len: 0 });
    assert_eq!(refused(&vec![0; 32_769]).1, EventFault::EventLen { len: 32_769 });
}

#[test]
fn unknown_fields_are_kept_and_groups_refused() {
    let good = event().encode_to_vec();
    // Field 1000: a varint, then a string.
    let newer = [good.clone(), vec![0xc0, 0x3e, 5], vec![0xc2, 0x3e, 1, b'x']].concat();
    assert!(validate(&newer, NOW).is_ok());
    let group = [good, vec![0xc3, 0x3e, 0xc4, 0x3e]].concat();
    assert_eq!(refused(&group).1, EventFault::Malformed);
}

/// An event whose access is these bytes.
fn with_access_bytes(access: &[u8]) -> Vec<u8> {
    let mut bytes = wire::Event { body: None, ..event() }.encode_to_vec();
    bytes.extend_from_slice(&[0x82, 0x01, u8::try_from(access.len()).unwrap()]);
    bytes.extend_from_slice(access);
    bytes
}

#[test]
fn what_parsers_read_differently_is_malformed() {
    let good = event().encode_to_vec();
    let extended = |more: &[u8]| [good.as_slice(), more].concat();
    let cases: [(&str, Vec<u8>); 9] = [
        ("field number 0", extended(&[0x00, 1])),
        ("field number 2^29", extended(&[0x80, 0x80, 0x80, 0x80, 0x10, 1])),
        ("a tag of six bytes", extended(&[0xc0, 0xbe, 0x80, 0x80, 0x80, 0x00, 1])),
        ("a length of six bytes", extended(&[0xc2, 0x3e, 0x81, 0x80, 0x80, 0x80, 0x80, 0x00, 0])),
        ("a length of 2^32", extended(&[0xc2, 0x3e, 0x80, 0x80, 0x80, 0x80, 0x10])),
        (
            "a number of eleven bytes",
            extended(&[[0xc0, 0x3e].as_slice(), &[0x80; 10], &[0]].concat()),
        ),
        ("a number of 65 bits", extended(&[[0xc0, 0x3e].as_slice(), &[0xff; 9], &[2]].concat())),
        ("wire type 6", extended(&[0xc6, 0x3e])),
        ("a cut tag", extended(&[0x80])),
    ];
    for (what, bytes) in cases {
        assert_eq!(refused(&bytes), (String::new(), EventFault::Malformed), "{what}");
        assert_eq!(body(&bytes), None, "{what}");
    }
    let last_number = extended(&[0xf8, 0xff, 0xff, 0xff, 0x0f, 1]);
    assert!(validate(&last_number, NOW).is_ok());
}

#[test]
fn booleans_are_0_or_1() {
    let actor = |privileged: &[u8]| {
        let principal = [&[0x0a, 1, b'x', 0x48][..], privileged].concat();
        let len = u8::try_from(principal.len()).unwrap();
        let nobody = wire::Event { actor: None, ..event() }.encode_to_vec();
        [nobody, vec![0x3a, len], principal].concat()
    };
    assert!(validate(&actor(&[0]), NOW).is_ok());
    assert!(validate(&actor(&[1]), NOW).is_ok());
    // 2^32: true for those who read 64 bits, false for those who read 32.
    for wide in [&[2][..], &[0x80, 0x80, 0x80, 0x80, 0x10]] {
        let refusal = ("actor.privileged".to_owned(), EventFault::Malformed);
        assert_eq!(refused(&actor(wide)), refusal);
    }
}

#[test]
fn packed_and_unpacked_enums_count_together() {
    let categories = |packed: &[u8], single: usize| {
        let data =
            [&[0x12, 1, b'x', 0x3a, u8::try_from(packed.len()).unwrap()][..], packed].concat();
        let data = [data, [0x38, 1].repeat(single)].concat();
        with_access_bytes(
            &[&[0x08, 1, 0x38, 2, 0x12, u8::try_from(data.len()).unwrap()][..], &data].concat(),
        )
    };
    assert!(validate(&categories(&[1; 40], 12), NOW).is_ok());
    let path = "access.data[0].categories".to_owned();
    assert_eq!(refused(&categories(&[1; 60], 5)), (path.clone(), EventFault::Items { max: 64 }));
    // Cut within an item, and an item of 33 bits.
    let item = |at: usize| format!("{path}[{at}]");
    assert_eq!(refused(&categories(&[1, 0x80], 0)), (item(1), EventFault::Malformed));
    let wide = [1, 1, 0x80, 0x80, 0x80, 0x80, 0x10];
    assert_eq!(refused(&categories(&wide, 0)), (item(2), EventFault::Malformed));
}

#[test]
fn other_wire_types_and_repeated_messages_are_refused_by_name() {
    let good = event().encode_to_vec();
    let cases: [(&[u8], &str, EventFault); 6] = [
        (&[0x18, 1], "correlation_id", EventFault::WireType),
        (&[0x1d, 0, 0, 0, 0], "correlation_id", EventFault::WireType),
        (&[0x80, 0x01, 1], "access", EventFault::Twice),
        (&[0x12, 2, 0x08, 5], "occurred_at", EventFault::Twice),
        (&[0x42, 5, 0x0a, 1, b'x', 0x4a, 0], "on_behalf_of.privileged", EventFault::WireType),
        (&[0x42, 6, 0x0a, 1, b'x', 0x0a, 1, b'x'], "on_behalf_of.id", EventFault::Twice),
    ];
    for (more, path, fault) in cases {
        assert_eq!(refused(&[&good, more].concat()), (path.to_owned(), fault));
    }
    let twice = vec![0x12, 4, 0x08, 5, 0x08, 5];
    let other = wire::Event { occurred_at: None, ..event() }.encode_to_vec();
    let refusal = ("occurred_at".to_owned(), EventFault::Twice);
    assert_eq!(refused(&[other, twice].concat()), refusal);
}

#[test]
fn a_body_of_a_later_version_is_refused_even_beside_a_known_one() {
    // Field 32, and field 63 as a number.
    for (more, number) in [(&[0x82, 0x02, 0][..], 32), (&[0xf8, 0x03, 1], 63)] {
        let refusal = ("body".to_owned(), EventFault::UnknownBody { number });
        let beside = [event().encode_to_vec(), more.to_vec()].concat();
        assert_eq!(refused(&beside), refusal);
        assert_eq!(body(&beside), None);
    }
}

#[test]
fn an_event_with_two_bodies_has_none() {
    let status = |source: &str| {
        let status = wire::SourceStatus { source: source.into(), ..Default::default() };
        let body = Some(wire::event::Body::SourceStatus(status));
        wire::Event { body, ..Default::default() }.encode_to_vec()
    };
    assert!(body(&status("a")).is_some());
    assert_eq!(body(&[status("a"), status("b")].concat()), None);
    assert_eq!(body(&[status("a"), event().encode_to_vec()].concat()), None);
    assert_eq!(body(&[status("a"), vec![0xff]].concat()), None);
}

#[test]
fn what_is_required_is_not_empty() {
    let request = wire::AccessRequest {
        request_id: "r".into(),
        scope: Some(wire::Scope::default()),
        ..Default::default()
    };
    let empty_scope = Some(wire::event::Body::AccessRequest(request));
    let missing = |path: &str| (path.to_owned(), EventFault::Missing);
    let bytes = wire::Event { body: empty_scope, ..event() }.encode_to_vec();
    assert_eq!(refused(&bytes), missing("access_request.scope"));
    // A scope of later fields alone restricts nothing for a reader of this version.
    let later = [&[0x0a, 1, b'r', 0x12, 3][..], &[0x52, 1, b'x']].concat();
    let head = wire::Event { body: None, ..event() }.encode_to_vec();
    let bytes = [&head[..], &[0x92, 0x01, 8], &later].concat();
    assert_eq!(refused(&bytes), missing("access_request.scope"));
    let nameless = with_access(|access| access.intent = Some(wire::EventReference::default()));
    assert_eq!(refused(&nameless), missing("access.intent.event_id"));
    let blank = with_access(|access| access.data[0].fields = vec!["a".into(), String::new()]);
    assert_eq!(refused(&blank), missing("access.data[0].fields[1]"));
}

#[test]
fn only_who_touches_data_must_be_named() {
    let finding = wire::Finding { finding_id: "F-1".into(), state: 1, ..Default::default() };
    let body = Some(wire::event::Body::Finding(finding));
    assert!(validate(&wire::Event { actor: None, body, ..event() }.encode_to_vec(), NOW).is_ok());
}

#[test]
fn invisible_and_reordering_characters_are_refused() {
    for hidden in ['\u{61c}', '\u{200b}', '\u{2060}', '\u{2066}', '\u{feff}', '\u{e0041}', '\u{7f}']
    {
        let bytes = with_access(|access| access.grant_id = format!("a{hidden}"));
        let refusal = ("access.grant_id".to_owned(), EventFault::Character { position: 1 });
        assert_eq!(refused(&bytes), refusal, "{hidden:?}");
    }
    let joined = with_access(|access| access.grant_id = "\u{645}\u{6cc}\u{200c}\u{62e}".into());
    assert!(validate(&joined, NOW).is_ok());
}

#[test]
fn a_body_is_judged_alone_as_within_its_event() {
    let bytes = event().encode_to_vec();
    assert!(validate_body(body(&bytes).unwrap()).is_ok());
    let bad = Body { number: Body::ACCESS, bytes: &[0x08, 1] };
    assert_eq!(validate_body(bad).unwrap_err().path, "data");
    let unknown = Body { number: 32, bytes: &[] };
    let fault = EventFault::UnknownBody { number: 32 };
    assert_eq!(validate_body(unknown).unwrap_err().fault, fault);
}

proptest! {
    #[test]
    fn what_is_accepted_prost_decodes_to_the_same_body(
        bytes in proptest::collection::vec(any::<u8>(), 0..64), cut in 0_usize..120, flip: u8,
    ) {
        let mut event = event().encode_to_vec();
        let at = cut % event.len();
        event[at] ^= flip;
        event.extend_from_slice(&bytes);
        if let Ok(body) = validate(&event, NOW) {
            let decoded = wire::Event::decode(&event[..]);
            prop_assert!(decoded.is_ok());
            if body.number == Body::ACCESS {
                let access = wire::Access::decode(body.bytes).unwrap();
                prop_assert_eq!(decoded.unwrap().body, Some(wire::event::Body::Access(access)));
            }
        }
    }

    #[test]
    fn any_bytes_are_judged_without_a_panic(
        bytes in proptest::collection::vec(any::<u8>(), 0..300),
    ) {
        let _judged = (validate(&bytes, NOW), validate_genesis(&bytes), body(&bytes));
    }
}
