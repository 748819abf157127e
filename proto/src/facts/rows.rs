//! Tables of facts that may lie partly in an archive, so that what grows with the log need not lie
//! in memory.
//!
//! A row that was changed stays in memory until whoever keeps the archive has saved it and says so
//! ([`Rows::settle`]). Without an archive all rows stay in memory.

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet},
    fmt::Debug,
    sync::Arc,
};

use prost::Message;

use crate::position::Index;

/// How many rows of a table may stay in memory that the archive holds too. A row is about 500
/// bytes (one with a scope of thousands of names up to 32 KiB), so a table stays below some 10 MB,
/// while what a day works with is rarely fetched from the archive.
pub const ROWS_HOT_MAX: usize = 16_384;

/// The kinds of facts. The value is the tag that an archive keeps them under.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Table {
    /// [`RequestFacts`](crate::wire::RequestFacts) by request id.
    Requests = 1,
    /// [`GrantFacts`](crate::wire::GrantFacts) by grant id.
    Grants = 2,
    /// [`BreakGlassFacts`](crate::wire::BreakGlassFacts) by their id.
    BreakGlass = 3,
    /// [`LegalFacts`](crate::wire::LegalFacts) by the legal request's id.
    Legal = 4,
    /// [`ErasureFacts`](crate::wire::ErasureFacts) by job id.
    Erasures = 5,
    /// [`ErasedFacts`](crate::wire::ErasedFacts) by `<site>\n<dataset>`. Always in memory.
    Erased = 6,
    /// [`HoldingFacts`](crate::wire::HoldingFacts) by `<site>\n<dataset>`.
    Holdings = 7,
    /// [`IntentFacts`](crate::wire::IntentFacts) by event id, in lower-case hex.
    Intents = 8,
    /// [`ControlFacts`](crate::wire::ControlFacts) by `<kind>\n<target>`. Always in memory.
    Controls = 9,
    /// [`HandlingFacts`](crate::wire::HandlingFacts) by finding id.
    Handling = 10,
}

impl Table {
    /// All tables, ascending by tag.
    pub const ALL: [Self; 10] = [
        Self::Requests,
        Self::Grants,
        Self::BreakGlass,
        Self::Legal,
        Self::Erasures,
        Self::Erased,
        Self::Holdings,
        Self::Intents,
        Self::Controls,
        Self::Handling,
    ];

    /// The tag that an archive keeps its rows under.
    #[must_use]
    pub const fn tag(self) -> u8 {
        self as u8
    }

    /// What every event is judged by must be found without a look into the archive.
    const fn is_resident(self) -> bool {
        matches!(self, Self::Erased | Self::Controls)
    }
}

/// Saved rows, in another place than memory.
///
/// It holds what [`changes`](super::Facts::changes) gave out, and may have been saved for an older
/// place of the log than the facts that load from it, but never for a later one: they would apply
/// again what it holds already. A row that cannot be read counts as one that is not there, which
/// the rules answer with a denial.
pub trait Archive: Debug + Send + Sync {
    /// The encoded row; `None` when the table has none of this key.
    fn load(&self, table: Table, key: &str) -> Option<Vec<u8>>;

    /// Hands out all rows of a table, ascending by the bytes of their keys.
    fn scan(&self, table: Table, each: &mut dyn FnMut(&str, &[u8]));
}

/// The rows of one table.
#[derive(Clone, Debug)]
pub struct Rows<T> {
    table: Table,
    hot: BTreeMap<Arc<str>, Row<T>>,
    /// Keys of the rows that were changed and not saved since.
    changed: BTreeSet<Arc<str>>,
    archive: Option<Arc<dyn Archive>>,
}

#[derive(Clone, Debug)]
struct Row<T> {
    /// `None`: removed, which the archive may not know yet.
    value: Option<T>,
    /// The entry that changed it last.
    changed: Index,
}

impl<T: Message + Default + Clone> Rows<T> {
    pub(super) const fn new(table: Table) -> Self {
        Self { table, hot: BTreeMap::new(), changed: BTreeSet::new(), archive: None }
    }

    /// Takes rows that are not in memory from another archive, which holds the same.
    pub(super) fn rest_on(&mut self, archive: &Arc<dyn Archive>) {
        self.archive = Some(Arc::clone(archive));
    }

    /// Takes rows that are not in memory from `archive`, from now on.
    pub(super) fn attach(&mut self, archive: &Arc<dyn Archive>) {
        self.archive = None;
        if self.table.is_resident() {
            archive.scan(self.table, &mut |key, bytes| {
                if let Ok(value) = T::decode(bytes)
                    && !self.hot.contains_key(key)
                {
                    let row = Row { value: Some(value), changed: Index::GENESIS };
                    self.hot.insert(key.into(), row);
                }
            });
        }
        self.archive = Some(Arc::clone(archive));
    }

    /// Which table it is.
    pub(super) const fn table(&self) -> Table {
        self.table
    }

    /// The row of a key, out of memory or the archive.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<Cow<'_, T>> {
        match self.hot.get(key) {
            Some(row) => row.value.as_ref().map(Cow::Borrowed),
            None => self.load(key).map(Cow::Owned),
        }
    }

    /// Whether memory holds no row: what a look into the archive is not worth for resident tables.
    pub(super) fn is_hot_empty(&self) -> bool {
        self.hot.is_empty()
    }

    /// Changes a row in place; `None` when there is none.
    pub(super) fn change<R>(
        &mut self,
        key: &str,
        index: Index,
        change: impl FnOnce(&mut T) -> R,
    ) -> Option<R> {
        if !self.hot.contains_key(key) {
            let value = self.load(key)?;
            self.insert(key, index, value);
        }
        let (key, _) = self.hot.get_key_value(key)?;
        let key = Arc::clone(key);
        let row = self.hot.get_mut(&key)?;
        let answer = change(row.value.as_mut()?);
        row.changed = index;
        self.changed.insert(key);
        Some(answer)
    }

    /// Sets a row.
    pub(super) fn insert(&mut self, key: &str, index: Index, value: T) {
        self.put(key, Row { value: Some(value), changed: index });
    }

    /// Takes a row out; whether the archive holds it is not asked.
    pub(super) fn remove(&mut self, key: &str, index: Index) {
        if self.archive.is_some() {
            self.put(key, Row { value: None, changed: index });
        } else {
            self.hot.remove(key);
            self.changed.remove(key);
        }
    }

    fn put(&mut self, key: &str, row: Row<T>) {
        let key: Arc<str> = key.into();
        self.changed.insert(Arc::clone(&key));
        self.hot.insert(key, row);
    }

    fn load(&self, key: &str) -> Option<T> {
        if self.table.is_resident() {
            return None;
        }
        let bytes = self.archive.as_ref()?.load(self.table, key)?;
        T::decode(bytes.as_slice()).ok()
    }

    /// Hands out all rows, of memory and archive, ascending by key. Holds one archived row at a
    /// time.
    pub fn each(&self, mut each: impl FnMut(&str, &T)) {
        let mut hot = self.hot.iter().peekable();
        if let Some(archive) = self.archive.as_ref().filter(|_| !self.table.is_resident()) {
            archive.scan(self.table, &mut |key, bytes| {
                while let Some((before, row)) = hot.next_if(|(hot, _)| hot.as_ref() < key) {
                    if let Some(value) = &row.value {
                        each(before, value);
                    }
                }
                // The row in memory, which comes next, is the newer one.
                let is_hot = hot.peek().is_some_and(|(hot, _)| hot.as_ref() == key);
                if !is_hot && let Ok(value) = T::decode(bytes) {
                    each(key, &value);
                }
            });
        }
        for (key, row) in hot {
            if let Some(value) = &row.value {
                each(key, value);
            }
        }
    }

    /// The rows that were changed and not saved since, encoded, ascending by key; `None` for a row
    /// that is no more.
    pub fn changes(&self) -> impl Iterator<Item = (&str, Option<Vec<u8>>)> {
        self.changed.iter().filter_map(|key| {
            let row = self.hot.get(key)?;
            Some((key.as_ref(), row.value.as_ref().map(Message::encode_to_vec)))
        })
    }

    /// Says that the archive holds all changes up to and with the entry `saved_up_to`. Beyond
    /// [`ROWS_HOT_MAX`] rows, the older half of those that were saved leaves memory.
    pub(super) fn settle(&mut self, saved_up_to: Index) {
        let hot = &mut self.hot;
        self.changed.retain(|key| match hot.get(key) {
            Some(row) if row.changed > saved_up_to => true,
            Some(Row { value: None, .. }) => {
                hot.remove(key);
                false
            }
            _ => false,
        });
        self.drop_saved(ROWS_HOT_MAX);
    }

    /// Lets the older half of the rows leave memory when there are more than `hot_max`, but for
    /// those that were not saved.
    pub(super) fn drop_saved(&mut self, hot_max: usize) {
        let hot = &mut self.hot;
        if self.archive.is_none() || self.table.is_resident() || hot.len() <= hot_max {
            return;
        }
        let mut ages: Vec<Index> = hot.values().map(|row| row.changed).collect();
        let middle = ages.len() / 2;
        let (_, &mut middle, _) = ages.select_nth_unstable(middle);
        let changed = &self.changed;
        hot.retain(|key, row| row.changed > middle || changed.contains(key));
    }

    /// How many rows are in memory.
    #[cfg(test)]
    pub(super) fn len_hot(&self) -> usize {
        self.hot.len()
    }
}
