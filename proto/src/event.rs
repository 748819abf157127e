//! Judges the bytes of an event by the rules that stand in `event.proto`, in one pass, without
//! decoding and without allocating.
//!
//! The event's bytes are kept verbatim and read by many parsers for years, so they must have one
//! reading only: a singular field stands at most once, at most one body is set, an enum fits 32 bits.
//! Fields and, where they are not required, enum values that this version does not know are let
//! through: a newer client's event is kept whole.

use crate::{entry::Entry, error::EventError, error::EventFault, source::Name};

/// How far ahead of the ledger's clock `occurred_at` may lie, in nanoseconds: five minutes, more than
/// any clock that is kept by NTP is off.
pub const AHEAD_NANOS_MAX: u64 = 300_000_000_000;

/// The body of an event: which one, and its encoded message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Body<'a> {
    /// Field number in `Event.body`.
    pub number: u32,
    /// The encoded message.
    pub bytes: &'a [u8],
}

impl Body<'_> {
    /// Field number of `Event.access`.
    pub const ACCESS: u32 = 16;
    /// Field number of `Event.source_status`.
    pub const SOURCE_STATUS: u32 = 27;
    /// Field number of `Event.control_change`.
    pub const CONTROL_CHANGE: u32 = 28;
}

/// Checks one event: 1 to 32,768 bytes that keep all rules of `event.proto`.
///
/// `now` is the reader's clock in nanoseconds since the Unix epoch.
///
/// # Errors
///
/// [`EventError`] with the path of the offending field and what is wrong with it.
pub fn validate(bytes: &[u8], now: u64) -> Result<Body<'_>, EventError> {
    if bytes.is_empty() || bytes.len() > Entry::EVENT_LEN_MAX {
        return Err(EventFault::EventLen { len: bytes.len() }.into());
    }
    check_message(EVENT, bytes)?;
    let mut body = None;
    let mut rest = bytes;
    while let Some(field) = next_field(&mut rest)? {
        match (field.number, field.value) {
            (OCCURRED_AT, WireValue::Bytes(time)) => {
                let time = instant(time).map_err(|fault| EventError::at("occurred_at", fault))?;
                if time > now.saturating_add(AHEAD_NANOS_MAX) {
                    return Err(EventError::at("occurred_at", EventFault::Future));
                }
            }
            (BODY_FIRST..=BODY_LAST, WireValue::Bytes(bytes)) => {
                body = Some(Body { number: field.number, bytes });
            }
            _ => {}
        }
    }
    body.ok_or_else(|| EventError::at("body", EventFault::Missing))
}

/// Checks the content of a `ControlChange` of kind GENESIS.
///
/// # Errors
///
/// As [`validate`], for the rules of `Genesis`.
pub fn validate_genesis(bytes: &[u8]) -> Result<(), EventError> {
    check_message(GENESIS, bytes)
}

/// Finds the body of an event that was validated when it was recorded.
///
/// `None` when the bytes are no event, or hold no body that this version knows.
#[must_use]
pub fn body(bytes: &[u8]) -> Option<Body<'_>> {
    let mut rest = bytes;
    while let Ok(Some(field)) = next_field(&mut rest) {
        if let (BODY_FIRST..=BODY_LAST, WireValue::Bytes(bytes)) = (field.number, field.value) {
            return Some(Body { number: field.number, bytes });
        }
    }
    None
}

/// Field numbers of `Event`.
const OCCURRED_AT: u32 = 2;
const BODY_FIRST: u32 = 16;
const BODY_LAST: u32 = 31;

/// Most fields of one message; `build.rs` refuses more.
const FIELDS_MAX: usize = 32;

struct Message {
    /// Name of the message's oneof, if it has one.
    oneof: &'static str,
    oneof_required: bool,
    /// In the order of their numbers.
    fields: &'static [Field],
}

struct Field {
    number: u32,
    name: &'static str,
    in_oneof: bool,
    required: bool,
    /// 0: a singular field.
    items_max: u32,
    kind: Kind,
}

enum Kind {
    Number,
    Enum { known: &'static [i32] },
    Text { lines: bool, len_max: usize },
    Country,
    SourceName,
    Bytes { len_max: usize },
    Exactly { len: usize },
    Timestamp,
    Duration,
    Message { place: usize },
}

include!(concat!(env!("OUT_DIR"), "/schema.rs"));

fn check_message(place: usize, bytes: &[u8]) -> Result<(), EventError> {
    let Some(message) = MESSAGES.get(place) else {
        return Err(EventFault::Malformed.into());
    };
    let mut items = [0_u32; FIELDS_MAX];
    let mut oneof_set = false;
    let mut rest = bytes;
    while let Some(found) = next_field(&mut rest)? {
        let Ok(slot) = message.fields.binary_search_by_key(&found.number, |field| field.number)
        else {
            continue;
        };
        let (Some(field), Some(items)) = (message.fields.get(slot), items.get_mut(slot)) else {
            continue;
        };
        check_field(field, found.value, items)?;
        if field.in_oneof && std::mem::replace(&mut oneof_set, true) {
            return Err(EventError::at(message.oneof, EventFault::Twice));
        }
    }
    if message.oneof_required && !oneof_set {
        return Err(EventError::at(message.oneof, EventFault::Missing));
    }
    for (field, items) in message.fields.iter().zip(items) {
        if field.required && items == 0 {
            return Err(EventError::at(field.name, EventFault::Missing));
        }
    }
    Ok(())
}

/// Checks one occurrence of a field; `items` counts what came before.
fn check_field(field: &Field, value: WireValue<'_>, items: &mut u32) -> Result<(), EventError> {
    let at = |items: u32, error: EventError| {
        if field.items_max > 0 {
            error.within_item(field.name, items)
        } else {
            error.within(field.name)
        }
    };
    let mut count = |fault: Result<(), EventError>| {
        fault.map_err(|error| at(*items, error))?;
        *items += 1;
        if field.items_max == 0 && *items > 1 {
            return Err(EventError::at(field.name, EventFault::Twice));
        }
        if field.items_max > 0 && *items > field.items_max {
            return Err(EventError::at(field.name, EventFault::Items { max: field.items_max }));
        }
        Ok(())
    };
    match (&field.kind, value) {
        // Parsers take repeated enums packed and unpacked.
        (Kind::Enum { known }, WireValue::Bytes(mut packed)) if field.items_max > 0 => {
            while !packed.is_empty() {
                let item = varint(&mut packed).map_err(EventError::from);
                count(item.and_then(|value| check_enum(value, known, field.required)))?;
            }
            Ok(())
        }
        (Kind::Enum { known }, WireValue::Varint(value)) => {
            count(check_enum(value, known, field.required))
        }
        (Kind::Number, WireValue::Varint(_)) => count(Ok(())),
        (Kind::Number | Kind::Enum { .. }, _) | (_, WireValue::Varint(_) | WireValue::Fixed) => {
            count(Err(EventFault::WireType.into()))
        }
        (kind, WireValue::Bytes(bytes)) => count(check_bytes(kind, bytes, field.required)),
    }
}

fn check_enum(value: u64, known: &[i32], required: bool) -> Result<(), EventError> {
    // What a 32-bit reader would truncate has two readings.
    let value = i32::try_from(value.cast_signed()).map_err(|_| EventFault::Malformed)?;
    if required && (value == 0 || !known.contains(&value)) {
        return Err(EventFault::EnumValue { value }.into());
    }
    Ok(())
}

fn check_bytes(kind: &Kind, bytes: &[u8], required: bool) -> Result<(), EventError> {
    let fault = match *kind {
        Kind::Message { place } => return check_message(place, bytes),
        Kind::Timestamp => return timestamp(bytes).map(drop).map_err(EventError::from),
        Kind::Duration => return duration(bytes).map_err(EventError::from),
        _ if bytes.is_empty() => return empty(required),
        Kind::Text { len_max, .. } | Kind::Bytes { len_max } if bytes.len() > len_max => {
            EventFault::Len { len: bytes.len(), max: len_max }
        }
        Kind::Text { lines, .. } => match text_fault(bytes, lines) {
            Some(fault) => fault,
            None => return Ok(()),
        },
        Kind::Country if bytes.len() == 2 && bytes.iter().all(u8::is_ascii_uppercase) => {
            return Ok(());
        }
        Kind::Country => EventFault::Country,
        Kind::SourceName => match Name::parse(bytes) {
            Ok(_) => return Ok(()),
            Err(error) => EventFault::SourceName(error),
        },
        Kind::Exactly { len } if bytes.len() != len => {
            EventFault::Exactly { len: bytes.len(), wanted: len }
        }
        Kind::Bytes { .. } | Kind::Exactly { .. } => return Ok(()),
        Kind::Number | Kind::Enum { .. } => EventFault::WireType,
    };
    Err(fault.into())
}

fn empty(required: bool) -> Result<(), EventError> {
    if required { Err(EventFault::Missing.into()) } else { Ok(()) }
}

/// UTF-8 that a person reads as it is stored: no control characters (line feed and tab only in
/// prose), no line or paragraph separators, nothing that reorders what is shown.
fn text_fault(bytes: &[u8], lines: bool) -> Option<EventFault> {
    // Without an early end, so that the compiler looks at many bytes at once.
    if bytes.iter().fold(true, |plain, byte| plain & matches!(byte, 0x20..=0x7e)) {
        return None;
    }
    let text = match str::from_utf8(bytes) {
        Ok(text) => text,
        Err(error) => return Some(EventFault::Utf8 { position: error.valid_up_to() }),
    };
    let forbidden = |symbol: char| match symbol {
        '\n' | '\t' => !lines,
        '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => true,
        '\u{feff}' => true,
        other => other.is_control(),
    };
    text.char_indices()
        .find(|&(_, symbol)| forbidden(symbol))
        .map(|(position, _)| EventFault::Character { position })
}

/// Seconds and nanoseconds of a `google.protobuf.Timestamp`, in its range: years 1 to 9999.
fn timestamp(bytes: &[u8]) -> Result<(i64, u32), EventFault> {
    let (seconds, nanos) = seconds_and_nanos(bytes)?;
    match u32::try_from(nanos) {
        Ok(nanos @ 0..=999_999_999) if (-62_135_596_800..=253_402_300_799).contains(&seconds) => {
            Ok((seconds, nanos))
        }
        _ => Err(EventFault::TimeRange),
    }
}

/// Nanoseconds since the Unix epoch; earlier instants are out of range.
fn instant(bytes: &[u8]) -> Result<u64, EventFault> {
    let (seconds, nanos) = timestamp(bytes)?;
    let seconds = u64::try_from(seconds).map_err(|_| EventFault::TimeRange)?;
    Ok(seconds.saturating_mul(1_000_000_000).saturating_add(u64::from(nanos)))
}

/// A `google.protobuf.Duration` in its range, and not negative: no field of an event means less than
/// no time.
fn duration(bytes: &[u8]) -> Result<(), EventFault> {
    match seconds_and_nanos(bytes)? {
        (0..=315_576_000_000, 0..=999_999_999) => Ok(()),
        _ => Err(EventFault::TimeRange),
    }
}

/// The two fields that `Timestamp` and `Duration` have in common.
fn seconds_and_nanos(mut bytes: &[u8]) -> Result<(i64, i64), EventFault> {
    let (mut seconds, mut nanos) = (None, None);
    while let Some(field) = next_field(&mut bytes)? {
        let slot = match field.number {
            1 => &mut seconds,
            2 => &mut nanos,
            _ => continue,
        };
        let WireValue::Varint(value) = field.value else {
            return Err(EventFault::WireType);
        };
        if slot.replace(value.cast_signed()).is_some() {
            return Err(EventFault::Twice);
        }
    }
    Ok((seconds.unwrap_or_default(), nanos.unwrap_or_default()))
}

/// One field of the protobuf wire format.
struct WireField<'a> {
    number: u32,
    value: WireValue<'a>,
}

#[derive(Clone, Copy)]
enum WireValue<'a> {
    Varint(u64),
    Fixed,
    Bytes(&'a [u8]),
}

/// Takes the next field from the front of `rest`; `None` at the end.
#[inline]
fn next_field<'a>(rest: &mut &'a [u8]) -> Result<Option<WireField<'a>>, EventFault> {
    if rest.is_empty() {
        return Ok(None);
    }
    let key = varint(rest)?;
    let number = u32::try_from(key >> 3).map_err(|_| EventFault::Malformed)?;
    if number == 0 {
        return Err(EventFault::Malformed);
    }
    let value = match key & 7 {
        0 => WireValue::Varint(varint(rest)?),
        1 => take(rest, 8).map(|_| WireValue::Fixed)?,
        2 => {
            let len = usize::try_from(varint(rest)?).map_err(|_| EventFault::Malformed)?;
            WireValue::Bytes(take(rest, len)?)
        }
        5 => take(rest, 4).map(|_| WireValue::Fixed)?,
        _ => return Err(EventFault::Malformed),
    };
    Ok(Some(WireField { number, value }))
}

fn take<'a>(rest: &mut &'a [u8], len: usize) -> Result<&'a [u8], EventFault> {
    let (taken, after) = rest.split_at_checked(len).ok_or(EventFault::Malformed)?;
    *rest = after;
    Ok(taken)
}

/// A base-128 number of at most 64 bits; nearly all have one byte.
#[inline]
fn varint(rest: &mut &[u8]) -> Result<u64, EventFault> {
    match rest.split_first() {
        Some((&byte, after)) if byte < 0x80 => {
            *rest = after;
            Ok(byte.into())
        }
        _ => long_varint(rest),
    }
}

fn long_varint(rest: &mut &[u8]) -> Result<u64, EventFault> {
    let mut value = 0_u64;
    for shift in (0..u64::BITS).step_by(7) {
        let (&byte, after) = rest.split_first().ok_or(EventFault::Malformed)?;
        *rest = after;
        let bits = u64::from(byte & 0x7f);
        if shift == 63 && bits > 1 {
            return Err(EventFault::Malformed);
        }
        value |= bits << shift;
        if byte & 0x80 == 0 {
            return Ok(value);
        }
    }
    Err(EventFault::Malformed)
}

#[cfg(test)]
mod tests;
