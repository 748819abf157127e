//! The rows of the facts in the state, for facts that do not hold them in memory.
//!
//! Facts cannot be told that a row could not be read: they would take it for one that is not there.
//! So a read that fails is remembered, and whoever computes from these rows asks before he believes
//! the outcome.

use std::{
    fmt,
    sync::{Arc, OnceLock},
};

use access_ledger_proto::facts::{Archive, Facts, Table};

use super::{
    error::IndexError,
    state::{Draft, State},
};

/// The saved rows.
pub(crate) struct StateArchive {
    state: Arc<State>,
    /// What the first read that failed met.
    failure: OnceLock<String>,
}

impl StateArchive {
    /// Over the rows in `state`.
    pub(crate) const fn new(state: Arc<State>) -> Self {
        Self { state, failure: OnceLock::new() }
    }

    /// Whether all reads so far were answered.
    ///
    /// # Errors
    ///
    /// [`IndexError::Facts`], for ever, once one was not.
    pub(crate) fn check(&self) -> Result<(), IndexError> {
        match self.failure.get() {
            None => Ok(()),
            Some(problem) => Err(IndexError::Facts { problem: problem.clone() }),
        }
    }

    fn note(&self, error: &IndexError) {
        // Of several at once, any.
        self.failure.get_or_init(|| error.to_string());
    }
}

impl Archive for StateArchive {
    fn load(&self, table: Table, key: &str) -> Option<Vec<u8>> {
        let row = self.state.get(&row_key(table, key));
        row.inspect_err(|error| self.note(error)).ok()?.map(|row| row.to_vec())
    }

    fn scan(&self, table: Table, each: &mut dyn FnMut(&str, &[u8])) {
        let scanned = self.state.scan(&row_key(table, ""), &mut |key, row| {
            match str::from_utf8(key) {
                Ok(key) => each(key, row),
                Err(_) => {
                    self.failure.get_or_init(|| format!("malformed key in {table:?}"));
                }
            }
            true
        });
        scanned.unwrap_or_else(|error| self.note(&error));
    }
}

impl fmt::Debug for StateArchive {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("StateArchive").field("failure", &self.failure).finish_non_exhaustive()
    }
}

/// Adds to `draft` the rows that were changed since they were saved.
pub(super) fn save(facts: &Facts, draft: &mut Draft<'_>) -> Result<(), IndexError> {
    for (table, key, row) in facts.changes() {
        draft.put(&row_key(table, key), row.as_deref())?;
    }
    Ok(())
}

fn row_key(table: Table, key: &str) -> Vec<u8> {
    [b"f", &[table.tag()][..], key.as_bytes()].concat()
}

#[cfg(test)]
mod tests {
    use access_ledger_proto::hash::Digest;

    use super::*;
    use crate::index::{posting::Layout, state::Watermark};

    #[test]
    fn rows_are_found_by_table_and_key_and_an_unreadable_one_is_remembered() {
        let folder = tempfile::tempdir().unwrap();
        let layout = Layout { origin: Digest::from_bytes([0; 32]), block_entries: 1 };
        let state = Arc::new(State::reset(folder.path(), &layout).unwrap());
        let archive = StateArchive::new(Arc::clone(&state));
        let put = |key: &[u8]| {
            let mut draft = state.draft().unwrap();
            draft.put(key, Some(b"row")).unwrap();
            draft.apply(&Watermark::START).unwrap();
        };
        put(&row_key(Table::Grants, "a"));
        put(&row_key(Table::Grants, "b"));
        put(&row_key(Table::Requests, "a"));
        let keys = |table| {
            let mut keys = Vec::new();
            archive.scan(table, &mut |key, _| keys.push(key.to_owned()));
            keys
        };
        assert_eq!(
            (keys(Table::Grants), keys(Table::Legal)),
            (vec!["a".into(), "b".into()], vec![])
        );
        assert_eq!(archive.load(Table::Requests, "a").as_deref(), Some(&b"row"[..]));
        assert_eq!(archive.load(Table::Requests, "b"), None);
        assert!(archive.check().is_ok());

        put(&[b'f', Table::Grants.tag(), 0xff]);
        assert_eq!(keys(Table::Grants), ["a", "b"]);
        assert!(matches!(archive.check(), Err(IndexError::Facts { .. })));
        assert_eq!(keys(Table::Legal), [""; 0]);
        assert!(archive.check().is_err(), "for ever");
    }
}
