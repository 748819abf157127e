//! The registered sources as rows of the state, each with its last number.
//!
//! | part | bytes | |
//! |---|---|---|
//! | public key | 32 | as registered |
//! | roles | 4 | bit n: role n; as registered |
//! | heartbeat | 8 | nanoseconds |
//! | registered at | 8 | index |
//! | decommissioned at | 8 | index |
//! | flags | 1 | 1 self-enrolled, 2 decommissioned, 4 amended |
//! | last number | 8 | |
//! | keys | 2 + n * 40 | only if amended: how many; index and public key of each, zeros: revoked |
//! | roles | 2 + n * 12 | only if amended: how many; index and roles of each |
//! | principal | | the rest: id of the person whose key it is |

use access_ledger_proto::{
    facts::sources::{History, Roles, Source},
    position::Index,
    source::SourceName,
};
use ed25519_dalek::VerifyingKey;

use super::posting::take;

/// The key of a source's row.
pub(super) fn key(name: &SourceName) -> Vec<u8> {
    [PREFIX, name.as_str().as_bytes()].concat()
}

/// The row of a source.
pub(super) fn encode(source: &Source, last_number: u64) -> Vec<u8> {
    let first = source.keys.first().map_or(REVOKED, |key| *key.as_bytes());
    let is_amended = source.keys.revision() > 0 || source.roles.revision() > 0;
    let decommissioned = source.decommissioned_at;
    let flags = (u8::from(source.self_enrolled) * SELF_ENROLLED)
        | (u8::from(decommissioned.is_some()) * DECOMMISSIONED)
        | (u8::from(is_amended) * AMENDED);
    let mut row = Vec::with_capacity(69 + source.principal.len());
    row.extend_from_slice(&first);
    row.extend_from_slice(&bits(*source.roles.first()).to_be_bytes());
    row.extend_from_slice(&source.heartbeat_nanos.to_be_bytes());
    row.extend_from_slice(&source.registered_at.0.to_be_bytes());
    row.extend_from_slice(&decommissioned.unwrap_or_default().0.to_be_bytes());
    row.push(flags);
    row.extend_from_slice(&last_number.to_be_bytes());
    if is_amended {
        changes(&mut row, &source.keys, |key| key.map_or(REVOKED, |key| key.to_bytes()));
        changes(&mut row, &source.roles, |roles| bits(*roles).to_be_bytes());
    }
    row.extend_from_slice(source.principal.as_bytes());
    row
}

/// Appends the changes of a history. Each is an entry, so 65,535 changes of one source are not to
/// be had; further ones would be left out.
fn changes<T, const N: usize>(
    row: &mut Vec<u8>,
    history: &History<T>,
    encode: impl Fn(&T) -> [u8; N],
) {
    let count = u16::try_from(history.revision()).unwrap_or(u16::MAX);
    row.extend_from_slice(&count.to_be_bytes());
    for (index, value) in history.changes().take(count.into()) {
        row.extend_from_slice(&index.0.to_be_bytes());
        row.extend_from_slice(&encode(value));
    }
}

/// Takes what [`changes`] appended, over the first value.
fn take_changes<T, const N: usize>(
    rest: &mut &[u8],
    history: &mut History<T>,
    parse: impl Fn([u8; N]) -> Option<T>,
) -> Option<()> {
    for _ in 0..u16::from_be_bytes(take(rest)?) {
        let index = Index(u64::from_be_bytes(take(rest)?));
        history.change(index, parse(take(rest)?)?);
    }
    Some(())
}

fn bits(roles: Roles) -> u32 {
    roles.values().into_iter().fold(0, |bits, role| bits | 1 << role)
}

fn roles(bits: u32) -> Option<Roles> {
    let roles: Vec<i32> = (0..31).filter(|role| bits & 1 << role != 0).collect();
    Roles::parse(&roles).ok()
}

/// A source and its last number; `name` is the key without [`PREFIX`].
pub(super) fn parse(name: &[u8], mut row: &[u8]) -> Option<(Source, u64)> {
    let rest = &mut row;
    let name = SourceName::parse(str::from_utf8(name).ok()?).ok()?;
    let public_key = VerifyingKey::from_bytes(&take(rest)?).ok()?;
    let first_roles = roles(u32::from_be_bytes(take(rest)?))?;
    let heartbeat_nanos = u64::from_be_bytes(take(rest)?);
    let registered_at = Index(u64::from_be_bytes(take(rest)?));
    let decommissioned_at = Index(u64::from_be_bytes(take(rest)?));
    let [flags] = take(rest)?;
    let last_number = u64::from_be_bytes(take(rest)?);
    let mut source = Source::new(name, public_key, first_roles, registered_at);
    if flags & AMENDED != 0 {
        take_changes(rest, &mut source.keys, |key| match key {
            REVOKED => Some(None),
            key => VerifyingKey::from_bytes(&key).ok().map(Some),
        })?;
        take_changes(rest, &mut source.roles, |bits| roles(u32::from_be_bytes(bits)))?;
    }
    let source = Source {
        heartbeat_nanos,
        self_enrolled: flags & SELF_ENROLLED != 0,
        principal: str::from_utf8(rest).ok()?.to_owned(),
        decommissioned_at: (flags & DECOMMISSIONED != 0).then_some(decommissioned_at),
        ..source
    };
    Some((source, last_number))
}

/// What the keys of these rows start with.
pub(super) const PREFIX: &[u8] = b"s";

const SELF_ENROLLED: u8 = 1;

const DECOMMISSIONED: u8 = 2;

const AMENDED: u8 = 4;

/// In the place of a key: none. It is no key that anybody registers, for it is of small order.
const REVOKED: [u8; 32] = [0; 32];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_keeps_all_keys_and_roles() {
        let key = |seed: u8| ed25519_dalek::SigningKey::from_bytes(&[seed; 32]).verifying_key();
        let name = SourceName::parse("payments/a").unwrap();
        let mut source = Source::new(name, key(1), Roles::RECORDER, Index(7));
        source.principal = "p-1".to_owned();
        let back = |source: &Source| parse(b"payments/a", &encode(source, 9));
        assert_eq!(back(&source), Some((source.clone(), 9)));
        source.keys.change(Index(8), Some(key(2)));
        source.keys.change(Index(9), None);
        source.roles.change(Index(10), Roles::parse(&[1, 2]).unwrap());
        source.decommissioned_at = Some(Index(11));
        assert_eq!(back(&source), Some((source.clone(), 9)));
        let row = encode(&source, 9);
        assert_eq!(parse(b"payments/a", row.get(..80).unwrap()), None);
    }
}
