//! The access ledger's server.

pub mod error;
pub mod index;
pub mod os;
pub mod storage;
