//! The index's state on disk: the only place that uses sled.
//!
//! Holds what is small and changes in place. It is written once for every block, in one batch that
//! is flushed, so it is that of a block's end whenever the machine stops.
//!
//! | key | value |
//! |---|---|
//! | `m` | the watermark, below |
//! | `s` name | a source and its last number: fold.rs |
//! | `f` table u8, key | a row of the facts: archive.rs |
//! | `r` | the rest of the findings' fold |
//! | `t` | events declared lost u64, events erased u64 |
//! | `d` report u8, day u32 | the cells of a day: rollups.rs |
//! | `n` report u8, month u32 | the cells of a month |
//!
//! | watermark | bytes | |
//! |---|---|---|
//! | version | 4 | 2 |
//! | origin | 32 | SHA-256 of the origin |
//! | block entries | 4 | |
//! | `indexed_size` | 8 | |
//! | leaf hash | 32 | of the last entry: ties the state to the log that it came from |
//! | recorded at | 8 | time of the last entry, nanoseconds |
//! | findings | 8 | length of the findings' file |
//! | sum | 8 | of the rows |
//!
//! Integers are big-endian. A row counts in the sum with the CRC-32C of its key and value, so that
//! the sum changes with the rows that change, and tells at the next start whether sled has lost a
//! row or brought an older one back.

use std::{
    fs, io,
    ops::Range,
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
    sync::{PoisonError, RwLock, RwLockReadGuard},
};

use access_ledger_proto::{hash::Digest, position::Size};

use super::{
    error::IndexError,
    posting::{Layout, take},
};

/// The opened state.
pub(crate) struct State {
    /// Exchanged when the state was built anew in another folder.
    store: RwLock<sled::Db>,
    layout: Layout,
}

/// How far the state follows from the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Watermark {
    /// How many entries it follows from.
    pub(crate) size: Size,
    /// Leaf hash of the last of them.
    pub(crate) last_leaf: Digest,
    /// When that was recorded, in nanoseconds.
    pub(crate) recorded_at: u64,
    /// Bytes of the findings' file that count.
    pub(crate) findings_length: u64,
}

impl Watermark {
    /// Of no entries.
    pub(crate) const START: Self = Self {
        size: Size::ZERO,
        last_leaf: Digest::from_bytes([0; 32]),
        recorded_at: 0,
        findings_length: 0,
    };
}

/// What a folder of the state holds.
pub(crate) enum Loaded {
    /// Nothing was saved yet.
    Empty,
    /// A state that is whole.
    Saved(State, Watermark),
    /// Of no use, with the reason.
    Unusable(String),
}

/// Changes that are made together. Each key at most once.
pub(crate) struct Draft<'a> {
    state: &'a State,
    batch: sled::Batch,
    sum: u64,
}

impl State {
    /// Opens the state in `folder`, which is created if need be. Reads all of it.
    pub(crate) fn load(folder: &Path, layout: &Layout) -> Loaded {
        let state = match Self::open(folder, layout) {
            Ok(state) => state,
            Err(error) => return Loaded::Unusable(error.to_string()),
        };
        match state.check() {
            Ok(Some(watermark)) => Loaded::Saved(state, watermark),
            Ok(None) => Loaded::Empty,
            Err(reason) => Loaded::Unusable(reason),
        }
    }

    /// Opens an empty state in `folder`, whatever was there.
    pub(crate) fn reset(folder: &Path, layout: &Layout) -> Result<Self, IndexError> {
        Self::remove(folder)?;
        Self::open(folder, layout)
    }

    /// Removes the folder of a state that nobody has open, or whatever has its name.
    pub(crate) fn remove(folder: &Path) -> Result<(), IndexError> {
        let removed = match fs::remove_dir_all(folder) {
            Err(source) if source.kind() == io::ErrorKind::NotADirectory => fs::remove_file(folder),
            Err(source) if source.kind() == io::ErrorKind::NotFound => Ok(()),
            removed => removed,
        };
        removed.map_err(|source| IndexError::Remove { path: folder.into(), source })
    }

    fn open(folder: &Path, layout: &Layout) -> Result<Self, IndexError> {
        let options = sled::Config::new()
            .path(folder)
            .cache_capacity(CACHE_BYTES)
            .mode(sled::Mode::LowSpace)
            // Saving flushes; nothing else is worth a sync.
            .flush_every_ms(None);
        Ok(Self { store: RwLock::new(guarded(|| options.open())?), layout: *layout })
    }

    /// Answers from the rows of another state of the same layout from now on. The store that was
    /// used before is closed.
    pub(crate) fn adopt(&self, other: &Self) {
        let store = other.store().clone();
        *self.store.write().unwrap_or_else(PoisonError::into_inner) = store;
    }

    fn store(&self) -> RwLockReadGuard<'_, sled::Db> {
        self.store.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// The value of a key.
    ///
    /// # Errors
    ///
    /// [`IndexError::State`] when the store refuses or is damaged.
    pub(crate) fn get(&self, key: &[u8]) -> Result<Option<sled::IVec>, IndexError> {
        guarded(|| self.store().get(key))
    }

    /// Hands out all rows whose key starts with `prefix`, in the order of what follows it in the
    /// key, which is what `each` is given, until that returns `false`.
    ///
    /// # Errors
    ///
    /// [`IndexError::State`] when the store refuses or is damaged.
    pub(crate) fn scan(
        &self,
        prefix: &[u8],
        each: &mut dyn FnMut(&[u8], &[u8]) -> bool,
    ) -> Result<(), IndexError> {
        guarded(|| {
            for row in self.store().scan_prefix(prefix) {
                let (key, value) = row?;
                if !each(key.get(prefix.len()..).unwrap_or_default(), &value) {
                    break;
                }
            }
            Ok(())
        })
    }

    /// Hands out all rows whose key lies in a range, ascending, until `each` returns `false`.
    ///
    /// # Errors
    ///
    /// [`IndexError::State`] when the store refuses or is damaged.
    pub(crate) fn range(
        &self,
        keys: Range<Vec<u8>>,
        each: &mut dyn FnMut(&[u8], &[u8]) -> bool,
    ) -> Result<(), IndexError> {
        guarded(|| {
            for row in self.store().range(keys) {
                let (key, value) = row?;
                if !each(&key, &value) {
                    break;
                }
            }
            Ok(())
        })
    }

    /// Starts a change.
    ///
    /// # Errors
    ///
    /// [`IndexError::State`] when the store refuses or is damaged.
    pub(crate) fn draft(&self) -> Result<Draft<'_>, IndexError> {
        let sum = self.get(WATERMARK_KEY)?.and_then(|meta| sum_of(&meta)).unwrap_or_default();
        Ok(Draft { state: self, batch: sled::Batch::default(), sum })
    }

    /// Makes everything durable that was changed.
    ///
    /// # Errors
    ///
    /// [`IndexError::State`] when the store refuses.
    pub(crate) fn flush(&self) -> Result<(), IndexError> {
        guarded(|| self.store().flush()).map(drop)
    }

    /// Whether the rows are what was written; then how far they go.
    fn check(&self) -> Result<Option<Watermark>, String> {
        let text = |error: IndexError| error.to_string();
        let Some(meta) = self.get(WATERMARK_KEY).map_err(text)? else {
            return if self.store().is_empty() { Ok(None) } else { Err("no watermark".into()) };
        };
        let mut sum = 0_u64;
        let add = &mut |key: &[u8], value: &[u8]| {
            if key != WATERMARK_KEY {
                sum = sum.wrapping_add(check_of(key, value));
            }
            true
        };
        self.scan(b"", add).map_err(text)?;
        let watermark = parse_watermark(&meta).ok_or("malformed watermark")?;
        if meta[..] != encode_watermark(&self.layout, &watermark, sum) {
            return Err("other version, origin or block size, or a lost row".into());
        }
        Ok(Some(watermark))
    }
}

impl Draft<'_> {
    /// Gives a key another value, or none.
    ///
    /// # Errors
    ///
    /// [`IndexError::State`] when the store refuses or is damaged.
    pub(crate) fn put(&mut self, key: &[u8], value: Option<&[u8]>) -> Result<(), IndexError> {
        if let Some(before) = self.state.get(key)? {
            self.sum = self.sum.wrapping_sub(check_of(key, &before));
        }
        match value {
            Some(value) => {
                self.sum = self.sum.wrapping_add(check_of(key, value));
                self.batch.insert(key, value);
            }
            None => self.batch.remove(key),
        }
        Ok(())
    }

    /// Carries all changes out, visible at once, and durable after [`State::flush`].
    ///
    /// # Errors
    ///
    /// [`IndexError::State`]; then nothing has changed.
    pub(crate) fn apply(mut self, watermark: &Watermark) -> Result<(), IndexError> {
        let meta = encode_watermark(&self.state.layout, watermark, self.sum);
        self.batch.insert(WATERMARK_KEY, meta);
        guarded(|| self.state.store().apply_batch(self.batch))
    }
}

/// Calls sled, which meets some damage with a panic.
fn guarded<T>(call: impl FnOnce() -> Result<T, sled::Error>) -> Result<T, IndexError> {
    let panicked = |_| Err(sled::Error::ReportableBug("sled panicked".into()));
    Ok(catch_unwind(AssertUnwindSafe(call)).unwrap_or_else(panicked)?)
}

fn encode_watermark(layout: &Layout, watermark: &Watermark, sum: u64) -> Vec<u8> {
    let mut meta = Vec::with_capacity(104);
    meta.extend_from_slice(&VERSION.to_be_bytes());
    meta.extend_from_slice(layout.origin.as_ref());
    meta.extend_from_slice(&layout.block_entries.to_be_bytes());
    meta.extend_from_slice(&watermark.size.0.to_be_bytes());
    meta.extend_from_slice(watermark.last_leaf.as_ref());
    meta.extend_from_slice(&watermark.recorded_at.to_be_bytes());
    meta.extend_from_slice(&watermark.findings_length.to_be_bytes());
    meta.extend_from_slice(&sum.to_be_bytes());
    meta
}

/// The part of the watermark's record that nothing else tells.
fn parse_watermark(mut meta: &[u8]) -> Option<Watermark> {
    let rest = &mut meta;
    let _version_origin_block: [u8; 4 + 32 + 4] = take(rest)?;
    Some(Watermark {
        size: Size(u64::from_be_bytes(take(rest)?)),
        last_leaf: Digest::from_bytes(take(rest)?),
        recorded_at: u64::from_be_bytes(take(rest)?),
        findings_length: u64::from_be_bytes(take(rest)?),
    })
}

fn sum_of(meta: &[u8]) -> Option<u64> {
    meta.last_chunk().copied().map(u64::from_be_bytes)
}

/// What a row adds to the sum.
fn check_of(key: &[u8], value: &[u8]) -> u64 {
    crc32c::crc32c_append(crc32c::crc32c(key), value).into()
}

const VERSION: u32 = 2;

const WATERMARK_KEY: &[u8] = b"m";

/// sled's cache: the state is written far more often than read.
const CACHE_BYTES: u64 = 4 << 20;
