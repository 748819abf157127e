//! Walks the protobuf wire format field by field, without allocating.

use crate::error::{EventError, EventFault};

/// The bytes are no protobuf message, or not one that all parsers read alike.
pub(crate) struct Malformed;

impl From<Malformed> for EventFault {
    fn from(_: Malformed) -> Self {
        Self::Malformed
    }
}

impl From<Malformed> for Box<EventError> {
    fn from(_: Malformed) -> Self {
        Self::from(EventFault::Malformed)
    }
}

impl From<EventFault> for Box<EventError> {
    fn from(fault: EventFault) -> Self {
        Self::new(fault.into())
    }
}

/// One field of the protobuf wire format.
pub(crate) struct WireField<'a> {
    pub(crate) number: u32,
    pub(crate) value: WireValue<'a>,
}

#[derive(Clone, Copy)]
pub(crate) enum WireValue<'a> {
    Varint(u64),
    Fixed,
    Bytes(&'a [u8]),
}

/// Takes the next field from the front of `rest`; `None` at the end.
#[inline]
pub(crate) fn next_field<'a>(rest: &mut &'a [u8]) -> Result<Option<WireField<'a>>, Malformed> {
    if rest.is_empty() {
        return Ok(None);
    }
    let key = varint_u32(rest)?;
    let number = key >> 3;
    if number == 0 {
        return Err(Malformed);
    }
    let value = match key & 7 {
        0 => WireValue::Varint(varint(rest)?),
        1 => take(rest, 8).map(|_| WireValue::Fixed)?,
        2 => {
            let len = usize::try_from(varint_u32(rest)?).map_err(|_| Malformed)?;
            WireValue::Bytes(take(rest, len)?)
        }
        5 => take(rest, 4).map(|_| WireValue::Fixed)?,
        _ => return Err(Malformed),
    };
    Ok(Some(WireField { number, value }))
}

fn take<'a>(rest: &mut &'a [u8], len: usize) -> Result<&'a [u8], Malformed> {
    let (taken, after) = rest.split_at_checked(len).ok_or(Malformed)?;
    *rest = after;
    Ok(taken)
}

/// A tag or a length: a base-128 number of at most 32 bits in at most five bytes. Of longer ones
/// some parsers drop the upper bits, others refuse the message.
fn varint_u32(rest: &mut &[u8]) -> Result<u32, Malformed> {
    let before = rest.len();
    let value = varint(rest)?;
    match u32::try_from(value) {
        Ok(value) if before - rest.len() <= 5 => Ok(value),
        _ => Err(Malformed),
    }
}

/// A base-128 number of at most 64 bits.
#[inline]
pub(crate) fn varint(rest: &mut &[u8]) -> Result<u64, Malformed> {
    if let Some((&byte @ 0..=0x7f, after)) = rest.split_first() {
        *rest = after;
        return Ok(u64::from(byte));
    }
    let mut value = 0_u64;
    for shift in (0..u64::BITS).step_by(7) {
        let (&byte, after) = rest.split_first().ok_or(Malformed)?;
        *rest = after;
        let bits = u64::from(byte & 0x7f);
        if shift == 63 && bits > 1 {
            return Err(Malformed);
        }
        value |= bits << shift;
        if byte & 0x80 == 0 {
            return Ok(value);
        }
    }
    Err(Malformed)
}
