//! The index's state on disk: the only place that uses sled.
//!
//! Holds what is small and changes in place: the registered sources with their last numbers, and
//! the watermark. It is written once for every block, in one batch that is flushed, so it is that
//! of a block's end whenever the machine stops.
//!
//! | key | value |
//! |---|---|
//! | `m` | version u32, origin digest 32, block entries u32, `indexed_size` u64, leaf hash of the last entry 32, CRC-32C over all source records in the order of their names |
//! | `s` name | public key 32, roles u32 (bit n: role n), heartbeat nanoseconds u64, registered at u64, decommissioned at u64, flags u8 (1 self-enrolled, 2 decommissioned), last number u64, principal (the rest, UTF-8) |
//!
//! Integers are big-endian. The leaf hash ties the state to the log that it came from.

use std::{
    fs, io,
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
};

use access_ledger_proto::{
    facts::sources::{Roles, Source},
    hash::Digest,
    position::{Index, Size},
    source::SourceName,
};
use ed25519_dalek::VerifyingKey;

use super::{
    error::IndexError,
    fold::Fold,
    posting::{Layout, take},
};

/// The opened state.
pub(crate) struct State {
    store: sled::Db,
}

/// What was saved last.
pub(crate) struct Saved {
    /// How many entries it follows from.
    pub(crate) size: Size,
    /// Leaf hash of the last of them.
    pub(crate) last_leaf: Digest,
    /// All sources, each with its last number.
    pub(crate) sources: Vec<(Source, u64)>,
}

/// What a folder of the state holds.
pub(crate) enum Loaded {
    /// Nothing was saved yet.
    Empty(State),
    /// A state that is whole.
    Saved(State, Saved),
    /// Of no use, with the reason.
    Unusable(String),
}

impl State {
    /// Opens the state in `folder`, which is created if need be.
    pub(crate) fn load(folder: &Path, layout: &Layout) -> Loaded {
        // sled meets some damage with a panic.
        let loaded = catch_unwind(AssertUnwindSafe(|| {
            let state = Self::open(folder).map_err(|error| error.to_string())?;
            match state.read(layout)? {
                Some(saved) => Ok(Loaded::Saved(state, saved)),
                None => Ok(Loaded::Empty(state)),
            }
        }));
        match loaded {
            Ok(Ok(loaded)) => loaded,
            Ok(Err(reason)) => Loaded::Unusable(reason),
            Err(_) => Loaded::Unusable("sled panicked".into()),
        }
    }

    /// Opens an empty state in `folder`, whatever was there.
    pub(crate) fn reset(folder: &Path) -> Result<Self, IndexError> {
        match fs::remove_dir_all(folder) {
            Err(source) if source.kind() == io::ErrorKind::NotADirectory => {
                fs::remove_file(folder)
                    .map_err(|source| IndexError::Remove { path: folder.into(), source })?;
            }
            Err(source) if source.kind() != io::ErrorKind::NotFound => {
                return Err(IndexError::Remove { path: folder.into(), source });
            }
            _ => {}
        }
        Ok(Self::open(folder)?)
    }

    fn open(folder: &Path) -> Result<Self, sled::Error> {
        let store = sled::Config::new()
            .path(folder)
            .cache_capacity(CACHE_BYTES)
            .mode(sled::Mode::LowSpace)
            // Saving flushes; nothing else is worth a sync.
            .flush_every_ms(None)
            .open()?;
        Ok(Self { store })
    }

    /// Saves the facts, whose last entry has this leaf hash. Durable when it returns.
    ///
    /// # Errors
    ///
    /// [`IndexError::State`]; then the state is the one before.
    pub(crate) fn save(
        &self,
        layout: &Layout,
        fold: &Fold,
        last_leaf: Digest,
    ) -> Result<(), IndexError> {
        let mut batch = sled::Batch::default();
        let mut crc = 0;
        for source in fold.sources.iter() {
            let record = encode_source(source, fold.sequences.last(source.name.as_name()));
            let key = [SOURCE_PREFIX, source.name.as_str().as_bytes()].concat();
            crc = crc32c::crc32c_append(crc32c::crc32c_append(crc, &key), &record);
            if fold.changed.contains(&source.name) {
                batch.insert(key, record);
            }
        }
        batch.insert(META_KEY, encode_meta(layout, fold.size, last_leaf, crc));
        self.store.apply_batch(batch)?;
        self.store.flush()?;
        Ok(())
    }

    fn read(&self, layout: &Layout) -> Result<Option<Saved>, String> {
        let text = |error: sled::Error| error.to_string();
        let Some(meta) = self.store.get(META_KEY).map_err(text)? else {
            return if self.store.is_empty() { Ok(None) } else { Err("no watermark".into()) };
        };
        let (mut sources, mut crc) = (Vec::new(), 0);
        for record in self.store.scan_prefix(SOURCE_PREFIX) {
            let (key, value) = record.map_err(text)?;
            crc = crc32c::crc32c_append(crc32c::crc32c_append(crc, &key), &value);
            let name = key.get(SOURCE_PREFIX.len()..).unwrap_or_default();
            sources.push(parse_source(name, &value).ok_or("malformed source record")?);
        }
        let mut rest = &meta[..];
        let (size, last_leaf) = parse_size(&mut rest).ok_or("malformed watermark")?;
        if meta[..] != encode_meta(layout, size, last_leaf, crc) {
            return Err("other version, origin or block size, or a lost record".into());
        }
        Ok(Some(Saved { size, last_leaf, sources }))
    }
}

fn encode_meta(layout: &Layout, size: Size, last_leaf: Digest, crc: u32) -> Vec<u8> {
    let mut meta = Vec::with_capacity(84);
    meta.extend_from_slice(&VERSION.to_be_bytes());
    meta.extend_from_slice(layout.origin.as_ref());
    meta.extend_from_slice(&layout.block_entries.to_be_bytes());
    meta.extend_from_slice(&size.0.to_be_bytes());
    meta.extend_from_slice(last_leaf.as_ref());
    meta.extend_from_slice(&crc.to_be_bytes());
    meta
}

/// The part of the meta record that nothing else tells.
fn parse_size(meta: &mut &[u8]) -> Option<(Size, Digest)> {
    let _version_origin_block: [u8; 4 + 32 + 4] = take(meta)?;
    let size = Size(u64::from_be_bytes(take(meta)?));
    Some((size, Digest::from_bytes(take(meta)?)))
}

fn encode_source(source: &Source, last_number: u64) -> Vec<u8> {
    let roles = source.roles.values().into_iter().fold(0_u32, |bits, role| bits | 1 << role);
    let decommissioned = source.decommissioned_at;
    let flags = (u8::from(source.self_enrolled) * SELF_ENROLLED)
        | (u8::from(decommissioned.is_some()) * DECOMMISSIONED);
    let mut record = Vec::with_capacity(69 + source.principal.len());
    record.extend_from_slice(source.public_key.as_bytes());
    record.extend_from_slice(&roles.to_be_bytes());
    record.extend_from_slice(&source.heartbeat_nanos.to_be_bytes());
    record.extend_from_slice(&source.registered_at.0.to_be_bytes());
    record.extend_from_slice(&decommissioned.unwrap_or_default().0.to_be_bytes());
    record.push(flags);
    record.extend_from_slice(&last_number.to_be_bytes());
    record.extend_from_slice(source.principal.as_bytes());
    record
}

fn parse_source(name: &[u8], mut record: &[u8]) -> Option<(Source, u64)> {
    let rest = &mut record;
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

const VERSION: u32 = 2;

const META_KEY: &[u8] = b"m";

const SOURCE_PREFIX: &[u8] = b"s";

const SELF_ENROLLED: u8 = 1;

const DECOMMISSIONED: u8 = 2;

/// sled's cache: the state is written far more often than read.
const CACHE_BYTES: u64 = 4 << 20;
