//! The spool's frames: bytes to value and back.

use access_ledger_proto::{hash::sha256, note::KeyId};
use bytes::Bytes;

use super::{Numbered, Owner};

/// What a file's first frame says besides its events.
pub(super) struct Head {
    /// Last number of the file before.
    pub(super) after: u64,
    pub(super) owner: Owner,
}

/// A frame whose CRC holds.
pub(super) struct Frame {
    pub(super) head: Option<Head>,
    pub(super) acknowledged: u64,
    pub(super) first: u64,
    /// They share the memory of the frame.
    pub(super) events: Vec<Numbered>,
    /// Bytes of the whole frame.
    pub(super) len: usize,
}

/// Length and CRC.
pub(super) const PREFIX_LEN: usize = 8;

/// Kind, acknowledged, first.
pub(super) const FIXED_LEN: usize = 17;

/// Appends a frame to `out`. It stays below 4 GiB because what the recorder takes at once does.
pub(super) fn encode(
    acknowledged: u64,
    first: u64,
    head: Option<&Head>,
    events: &[Numbered],
    salt: u32,
    out: &mut Vec<u8>,
) {
    let start = out.len();
    out.extend_from_slice(&[0; PREFIX_LEN]);
    out.push(if head.is_some() { FIRST } else { OTHER });
    out.extend_from_slice(&acknowledged.to_be_bytes());
    out.extend_from_slice(&first.to_be_bytes());
    if let Some(Head { after, owner }) = head {
        out.extend_from_slice(&after.to_be_bytes());
        out.extend_from_slice(&owner.key_id.0);
        put_sized(owner.origin.as_bytes(), out);
        put_sized(owner.source.as_bytes(), out);
    }
    for event in events {
        put_sized(&event.event, out);
    }
    if let Some((prefix, payload)) =
        out.get_mut(start..).and_then(<[u8]>::split_first_chunk_mut::<PREFIX_LEN>)
    {
        let crc = crc32c::crc32c_append(salt, payload);
        let fields = [u32_of(payload.len()), crc].map(u32::to_be_bytes);
        prefix.copy_from_slice(fields.as_flattened());
    }
}

/// Length of the whole frame that begins with `prefix`.
pub(super) fn len(prefix: &[u8]) -> Option<usize> {
    let (len, _) = prefix.split_first_chunk()?;
    usize::try_from(u32::from_be_bytes(*len)).ok()?.checked_add(PREFIX_LEN)
}

/// Reads the frame at the start of `bytes`; `None` when there is no whole one.
pub(super) fn parse(bytes: &Bytes, salt: u32) -> Option<Frame> {
    let mut rest = checked(bytes, salt)?;
    let len = PREFIX_LEN + rest.len();
    let [kind] = take(&mut rest)?;
    let acknowledged = u64::from_be_bytes(take(&mut rest)?);
    let first = u64::from_be_bytes(take(&mut rest)?);
    if acknowledged >= first {
        // Receipts of what was not recorded when this was written.
        return None;
    }
    let head = match kind {
        FIRST => Some(take_head(&mut rest)?),
        OTHER => None,
        _ => return None,
    };
    let mut events = Vec::new();
    while !rest.is_empty() {
        let event = bytes.slice_ref(take_sized(&mut rest)?);
        let seq = first.checked_add(events.len() as u64)?;
        events.push(Numbered { seq, digest: sha256(&event), event });
    }
    Some(Frame { head, acknowledged, first, events, len })
}

/// Whether a frame begins anywhere from `from` on whose number is `next` or somewhat higher.
pub(super) fn any(bytes: &[u8], from: usize, salt: u32, next: u64) -> bool {
    (from..bytes.len()).filter_map(|start| bytes.get(start..)).any(|rest| {
        // The number first: it costs less than a CRC at every offset.
        let first = rest.get(PREFIX_LEN + 9..).and_then(<[u8]>::first_chunk);
        let ahead = first.and_then(|first| u64::from_be_bytes(*first).checked_sub(next));
        ahead.is_some_and(|ahead| ahead < NUMBERS_AHEAD) && checked(rest, salt).is_some()
    })
}

/// What follows the CRC, when that holds.
fn checked(bytes: &[u8], salt: u32) -> Option<&[u8]> {
    let (prefix, payload) = bytes.get(..len(bytes)?)?.split_first_chunk::<PREFIX_LEN>()?;
    let holds = prefix.ends_with(&crc32c::crc32c_append(salt, payload).to_be_bytes());
    holds.then_some(payload)
}

fn take_head(rest: &mut &[u8]) -> Option<Head> {
    let after = u64::from_be_bytes(take(rest)?);
    let key_id = KeyId(take(rest)?);
    let mut text = || String::from_utf8(take_sized(rest)?.to_vec()).ok();
    let owner = Owner { origin: text()?, source: text()?, key_id };
    Some(Head { after, owner })
}

fn take<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    let (taken, after) = rest.split_first_chunk()?;
    *rest = after;
    Some(*taken)
}

fn take_sized<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let len = usize::try_from(u32::from_be_bytes(take(rest)?)).ok()?;
    let (taken, after) = rest.split_at_checked(len)?;
    *rest = after;
    Some(taken)
}

fn put_sized(bytes: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(&u32_of(bytes.len()).to_be_bytes());
    out.extend_from_slice(bytes);
}

/// Lengths here are bounded: names by their rules, events by 32,768, groups by the recorder.
fn u32_of(len: usize) -> u32 {
    u32::try_from(len).unwrap_or(u32::MAX)
}

const FIRST: u8 = 1;
const OTHER: u8 = 2;

/// More than the events of any frame.
const NUMBERS_AHEAD: u64 = 1 << 32;
