//! What the tests share: a simulated disk, a model ledger.

pub mod disk;
pub mod history;
