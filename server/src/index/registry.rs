//! The registered sources as rows of the state, each with its last number.
//!
//! | part | bytes | |
//! |---|---|---|
//! | public key | 32 | |
//! | roles | 4 | bit n: role n |
//! | heartbeat | 8 | nanoseconds |
//! | registered at | 8 | index |
//! | decommissioned at | 8 | index |
//! | flags | 1 | 1 self-enrolled, 2 decommissioned |
//! | last number | 8 | |
//! | principal | | the rest: id of the person whose key it is |

use access_ledger_proto::{
    facts::sources::{Roles, Source},
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
    let roles = source.roles.values().into_iter().fold(0_u32, |bits, role| bits | 1 << role);
    let decommissioned = source.decommissioned_at;
    let flags = (u8::from(source.self_enrolled) * SELF_ENROLLED)
        | (u8::from(decommissioned.is_some()) * DECOMMISSIONED);
    let mut row = Vec::with_capacity(69 + source.principal.len());
    row.extend_from_slice(source.public_key.as_bytes());
    row.extend_from_slice(&roles.to_be_bytes());
    row.extend_from_slice(&source.heartbeat_nanos.to_be_bytes());
    row.extend_from_slice(&source.registered_at.0.to_be_bytes());
    row.extend_from_slice(&decommissioned.unwrap_or_default().0.to_be_bytes());
    row.push(flags);
    row.extend_from_slice(&last_number.to_be_bytes());
    row.extend_from_slice(source.principal.as_bytes());
    row
}

/// A source and its last number; `name` is the key without [`PREFIX`].
pub(super) fn parse(name: &[u8], mut row: &[u8]) -> Option<(Source, u64)> {
    let rest = &mut row;
    let name = SourceName::parse(str::from_utf8(name).ok()?).ok()?;
    let public_key = VerifyingKey::from_bytes(&take(rest)?).ok()?;
    let roles = u32::from_be_bytes(take(rest)?);
    let roles: Vec<i32> = (0..31).filter(|role| roles & 1 << role != 0).collect();
    let heartbeat_nanos = u64::from_be_bytes(take(rest)?);
    let registered_at = Index(u64::from_be_bytes(take(rest)?));
    let decommissioned_at = Index(u64::from_be_bytes(take(rest)?));
    let [flags] = take(rest)?;
    let last_number = u64::from_be_bytes(take(rest)?);
    let source = Source {
        name,
        public_key,
        roles: Roles::parse(&roles).ok()?,
        heartbeat_nanos,
        registered_at,
        self_enrolled: flags & SELF_ENROLLED != 0,
        principal: str::from_utf8(rest).ok()?.to_owned(),
        decommissioned_at: (flags & DECOMMISSIONED != 0).then_some(decommissioned_at),
    };
    Some((source, last_number))
}

/// What the keys of these rows start with.
pub(super) const PREFIX: &[u8] = b"s";

const SELF_ENROLLED: u8 = 1;

const DECOMMISSIONED: u8 = 2;
