//! What the tests share: a simulated disk, a model ledger, the load tool.

pub mod disk;
pub mod history;
pub mod load;
