//! Judges the bytes of an event by the rules that stand in `event.proto`, without decoding them
//! and, for an event that keeps the rules, without allocating.
//!
//! The event's bytes are kept verbatim and read by many parsers for years, so they must have one
//! reading only: a singular field stands at most once, at most one body is set, and nothing is
//! written in a form that some parsers truncate and others refuse (enums beyond 32 bits, booleans
//! other than 0 and 1, field numbers beyond 2^29 - 1, tags and lengths of more than five bytes,
//! groups). Fields and, where they are not required, enum values that this version does not know
//! are let through: a newer client's event is kept whole. A body that it does not know is refused,
//! because nothing could be judged by it.

mod fields;

pub(crate) use self::fields::{Malformed, WireField, WireValue, next_field, varint};
use crate::{
    entry::Entry,
    error::{EventError, EventFault},
    source::Name,
    wire::ControlKind,
};

/// How far ahead of the ledger's clock `occurred_at` may lie, in nanoseconds: five minutes, more
/// than any clock that is kept by NTP is off.
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
    /// Field number of `Event.authorization`.
    pub const AUTHORIZATION: u32 = 17;
    /// Field number of `Event.access_request`.
    pub const ACCESS_REQUEST: u32 = 18;
    /// Field number of `Event.decision`.
    pub const DECISION: u32 = 19;
    /// Field number of `Event.grant_change`.
    pub const GRANT_CHANGE: u32 = 20;
    /// Field number of `Event.break_glass`.
    pub const BREAK_GLASS: u32 = 21;
    /// Field number of `Event.legal_request`.
    pub const LEGAL_REQUEST: u32 = 22;
    /// Field number of `Event.transfer`.
    pub const TRANSFER: u32 = 23;
    /// Field number of `Event.erasure`.
    pub const ERASURE: u32 = 24;
    /// Field number of `Event.holding`.
    pub const HOLDING: u32 = 25;
    /// Field number of `Event.attestation`.
    pub const ATTESTATION: u32 = 26;
    /// Field number of `Event.source_status`.
    pub const SOURCE_STATUS: u32 = 27;
    /// Field number of `Event.control_change`.
    pub const CONTROL_CHANGE: u32 = 28;
    /// Field number of `Event.redaction`.
    pub const REDACTION: u32 = 29;
    /// Field number of `Event.ledger_read`.
    pub const LEDGER_READ: u32 = 30;
    /// Field number of `Event.finding`.
    pub const FINDING: u32 = 31;
}

/// Nanoseconds since the Unix epoch: 0 for an instant before it, saturating for one after 2554.
#[must_use]
pub fn nanos_of(time: &prost_types::Timestamp) -> u64 {
    nanos(time.seconds, time.nanos)
}

/// Nanoseconds of a duration: 0 for a negative one, saturating beyond 584 years.
#[must_use]
pub fn nanos_in(duration: &prost_types::Duration) -> u64 {
    nanos(duration.seconds, duration.nanos)
}

fn nanos(seconds: i64, nanos: i32) -> u64 {
    let seconds = i128::from(seconds) * 1_000_000_000;
    let sum = (seconds + i128::from(nanos)).max(0);
    u64::try_from(sum).unwrap_or(u64::MAX)
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
    let mut body = None;
    check_message(EVENT, bytes, |field| {
        match (field.number, field.value) {
            (OCCURRED_AT, WireValue::Bytes(time)) => {
                let time = instant(time).map_err(|fault| at("occurred_at", fault))?;
                if time > now.saturating_add(AHEAD_NANOS_MAX) {
                    return Err(at("occurred_at", EventFault::Future));
                }
            }
            (BODY_FIRST..=BODY_LAST, WireValue::Bytes(bytes)) => {
                body = Some(Body { number: field.number, bytes });
            }
            (number @ BODY_FIRST..=BODY_NUMBER_MAX, _) => {
                return Err(at("body", EventFault::UnknownBody { number }));
            }
            _ => {}
        }
        Ok(())
    })
    .map_err(|error| *error)?;
    body.ok_or_else(|| EventError::at("body", EventFault::Missing))
}

/// Checks the content of a `ControlChange` of kind GENESIS.
///
/// # Errors
///
/// As [`validate`], for the rules of `Genesis`.
pub fn validate_genesis(bytes: &[u8]) -> Result<(), EventError> {
    check_message(GENESIS, bytes, |_| Ok(())).map_err(|error| *error)
}

/// Checks the content of a `ControlChange` by the message that `control.proto` has for its kind;
/// that of another kind has no rules here.
///
/// # Errors
///
/// As [`validate`], for the rules of the message.
pub fn validate_control(kind: ControlKind, content: &[u8]) -> Result<(), EventError> {
    let place = match kind {
        ControlKind::Dataset => DATASET,
        ControlKind::Tool => REGISTERED_TOOL,
        ControlKind::Site => SITE,
        ControlKind::Retention => RETENTION,
        ControlKind::Custodian => CUSTODIAN,
        ControlKind::Key => SOURCE_KEY,
        ControlKind::Role => SOURCE_ROLES,
        ControlKind::LedgerKey => LEDGER_KEY,
        _ => return Ok(()),
    };
    check_message(place, content, |_| Ok(())).map_err(|error| *error)
}

/// Checks the message of a body on its own.
///
/// # Errors
///
/// As [`validate`], with paths that begin below the body; [`EventFault::UnknownBody`] for one that
/// this version does not know.
pub(crate) fn validate_body(body: Body<'_>) -> Result<(), EventError> {
    match MESSAGES.get(EVENT).and_then(|event| event.find(body.number)) {
        Some((_, &Field { kind: Kind::Message { place }, in_oneof: true, .. })) => {
            check_message(place, body.bytes, |_| Ok(())).map_err(|error| *error)
        }
        _ => Err(EventFault::UnknownBody { number: body.number }.into()),
    }
}

/// Finds the body of an event, which a verifier need not have validated.
///
/// `None` when the bytes are no protobuf message, hold no body that this version knows, or more
/// than one: parsers would read different events. Two readers that use this function always agree.
#[must_use]
pub fn body(bytes: &[u8]) -> Option<Body<'_>> {
    let mut body = None;
    let mut rest = bytes;
    while let Some(field) = next_field(&mut rest).ok()? {
        match (field.number, field.value) {
            (BODY_FIRST..=BODY_LAST, WireValue::Bytes(bytes)) if body.is_none() => {
                body = Some(Body { number: field.number, bytes });
            }
            (BODY_FIRST..=BODY_NUMBER_MAX, _) => return None,
            _ => {}
        }
    }
    body
}

/// Field numbers of `Event`.
const OCCURRED_AT: u32 = 2;
const BODY_FIRST: u32 = 16;
const BODY_LAST: u32 = 31;

/// The last number that `event.proto` keeps for bodies of later versions.
const BODY_NUMBER_MAX: u32 = 63;

/// Most fields of one message; `build.rs` refuses more.
const FIELDS_MAX: usize = 32;

/// What a check says. Boxed, so that the answer of nearly every check fits a register.
type Checked = Result<(), Box<EventError>>;

struct Message {
    /// Name of the message's oneof, if it has one.
    oneof: &'static str,
    oneof_required: bool,
    /// Bit n stands for `fields[n]`.
    required: u32,
    /// Places in `fields`: the first field only together with the second.
    together: &'static [(usize, usize)],
    /// By field number: one more than the place in `fields`; 0 for a number that is not known.
    places: &'static [u8],
    /// At most [`FIELDS_MAX`].
    fields: &'static [Field],
}

impl Message {
    fn find(&self, number: u32) -> Option<(usize, &Field)> {
        let place = *self.places.get(usize::try_from(number).ok()?)?;
        let place = usize::from(place).checked_sub(1)?;
        Some((place, self.fields.get(place)?))
    }
}

struct Field {
    name: &'static str,
    in_oneof: bool,
    required: bool,
    /// 0: a singular field.
    items_max: u32,
    kind: Kind,
}

enum Kind {
    Flag,
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

/// Checks a message; `each` sees every field after it was checked, unknown ones too.
fn check_message<'a>(
    place: usize,
    bytes: &'a [u8],
    mut each: impl FnMut(WireField<'a>) -> Checked,
) -> Checked {
    let Some(message) = MESSAGES.get(place) else {
        return Err(EventFault::Malformed.into());
    };
    let mut items = [0_u32; FIELDS_MAX];
    let mut present = 0_u32;
    let mut oneof_set = false;
    let mut rest = bytes;
    while let Some(found) = next_field(&mut rest)? {
        if let Some((place, field)) = message.find(found.number)
            && let Some(items) = items.get_mut(place)
        {
            check_field(field, found.value, items)?;
            present |= u32::from(*items > 0) << place;
            if field.in_oneof && std::mem::replace(&mut oneof_set, true) {
                return Err(at(message.oneof, EventFault::Twice));
            }
        }
        each(found)?;
    }
    if message.oneof_required && !oneof_set {
        return Err(at(message.oneof, EventFault::Missing));
    }
    let together = message
        .together
        .iter()
        .fold(0, |wanted, &(place, with)| wanted | (present >> place & 1) << with);
    let missing = ((message.required | together) & !present).trailing_zeros();
    match usize::try_from(missing).ok().and_then(|place| message.fields.get(place)) {
        Some(field) => Err(at(field.name, EventFault::Missing)),
        None => Ok(()),
    }
}

/// Checks one occurrence of a field; `items` counts what came before.
fn check_field(field: &Field, value: WireValue<'_>, items: &mut u32) -> Checked {
    if field.items_max == 0 {
        if *items > 0 {
            return Err(at(field.name, EventFault::Twice));
        }
        *items = 1;
        return check_value(field, value).map_err(|error| Box::new(error.within(field.name)));
    }
    let (Kind::Enum { .. }, WireValue::Bytes(mut packed)) = (&field.kind, value) else {
        return check_item(field, Ok(value), items);
    };
    // Parsers take repeated enums packed and unpacked.
    while !packed.is_empty() {
        check_item(field, varint(&mut packed).map(WireValue::Varint), items)?;
    }
    Ok(())
}

fn at(field: &str, fault: EventFault) -> Box<EventError> {
    Box::new(EventError::at(field, fault))
}

fn check_item(field: &Field, value: Result<WireValue<'_>, Malformed>, items: &mut u32) -> Checked {
    value
        .map_err(Box::from)
        .and_then(|value| check_value(field, value))
        .map_err(|error| Box::new(error.within_item(field.name, *items)))?;
    *items += 1;
    if *items > field.items_max {
        return Err(at(field.name, EventFault::Items { max: field.items_max }));
    }
    Ok(())
}

fn check_value(field: &Field, value: WireValue<'_>) -> Checked {
    let fault = match (&field.kind, value) {
        (Kind::Enum { known }, WireValue::Varint(value)) => {
            return check_enum(value, known, field.required);
        }
        (Kind::Flag, WireValue::Varint(0 | 1)) | (Kind::Number, WireValue::Varint(_)) => {
            return Ok(());
        }
        // Some parsers look at the low 32 bits, others at all.
        (Kind::Flag, WireValue::Varint(_)) => EventFault::Malformed,
        (Kind::Flag | Kind::Number | Kind::Enum { .. }, _)
        | (_, WireValue::Varint(_) | WireValue::Fixed) => EventFault::WireType,
        (kind, WireValue::Bytes(bytes)) => return check_bytes(kind, bytes, field),
    };
    Err(fault.into())
}

fn check_enum(value: u64, known: &[i32], required: bool) -> Checked {
    // What a 32-bit reader would truncate has two readings.
    let value = i32::try_from(value.cast_signed()).map_err(|_| Malformed)?;
    if required && (value == 0 || !known.contains(&value)) {
        return Err(EventFault::EnumValue { value }.into());
    }
    Ok(())
}

fn check_bytes(kind: &Kind, bytes: &[u8], field: &Field) -> Checked {
    let repeated = field.items_max > 0;
    let fault = match *kind {
        // Of items, the fields say what is missing.
        Kind::Message { place } if field.required && !repeated && says_nothing(place, bytes) => {
            EventFault::Missing
        }
        Kind::Message { place } => return check_message(place, bytes, |_| Ok(())),
        Kind::Timestamp => return timestamp(bytes).map(drop).map_err(Box::from),
        Kind::Duration => return duration(bytes).map_err(Box::from),
        _ if bytes.is_empty() && (field.required || repeated) => EventFault::Missing,
        _ if bytes.is_empty() => return Ok(()),
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
        Kind::Flag | Kind::Number | Kind::Enum { .. } => EventFault::WireType,
    };
    Err(fault.into())
}

/// Whether a message holds nothing that this version knows, but for values that are the default:
/// its readers see an empty one. Whoever checks the message tells what is malformed.
fn says_nothing(place: usize, bytes: &[u8]) -> bool {
    let Some(message) = MESSAGES.get(place) else { return true };
    let mut rest = bytes;
    loop {
        let found = match next_field(&mut rest) {
            Ok(None) => return true,
            Ok(Some(found)) => found,
            Err(_) => return false,
        };
        let Some((_, field)) = message.find(found.number) else { continue };
        let is_default = match (&field.kind, found.value) {
            (Kind::Message { .. } | Kind::Timestamp | Kind::Duration, _) => false,
            (_, WireValue::Bytes(bytes)) => bytes.is_empty(),
            (_, WireValue::Varint(value)) => value == 0 && field.items_max == 0,
            (_, WireValue::Fixed) => false,
        };
        if !is_default {
            return false;
        }
    }
}

/// UTF-8 that a person reads as it is stored: no control characters (line feed and tab only in
/// prose), no line or paragraph separators, nothing that reorders what is shown, nothing that is
/// not shown at all. The joiners U+200C and U+200D belong to the spelling of some languages.
pub(crate) fn text_fault(bytes: &[u8], lines: bool) -> Option<EventFault> {
    // Without a way out of the loop, so that many bytes are looked at at once.
    if bytes.iter().fold(true, |plain, byte| plain & matches!(byte, 0x20..=0x7e)) {
        return None;
    }
    let text = match str::from_utf8(bytes) {
        Ok(text) => text,
        Err(error) => return Some(EventFault::Utf8 { position: error.valid_up_to() }),
    };
    let forbidden = |symbol: char| match symbol {
        '\n' | '\t' => !lines,
        '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}' | '\u{200e}' | '\u{200f}' => true,
        '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' => true,
        '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}' => true,
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

/// A `google.protobuf.Duration` in its range, and not negative: no field of an event means less
/// than no time.
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

#[cfg(test)]
mod tests;
