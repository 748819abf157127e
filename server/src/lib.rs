//! The access ledger's server.

pub mod demo;
pub mod error;
pub mod os;
pub mod storage;
