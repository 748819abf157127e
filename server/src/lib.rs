//! The access ledger's server.
//!
//! ```text
//! os  <-  storage  <-  index  <-  book  <-  ledger  <-  serve  <-  demo        (arrow: is used by)
//!             \<-  check            \<-  audit  <-  serve
//!             \<-  witness  <-  http  <-  serve
//! ```
//!
//! The README of this crate tells the life of a record and what lies on disk.

mod audit;
mod book;
pub mod check;
pub mod config;
pub mod demo;
pub mod error;
pub mod folder;
mod http;
pub mod identity;
pub mod index;
pub mod ledger;
pub mod metrics;
pub mod os;
pub mod refusal;
pub mod serve;
pub mod storage;
pub mod witness;
