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
    fn any_bytes_are_judged_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let _judged = (validate(&bytes, NOW), validate_genesis(&bytes), body(&bytes));
    }
}
