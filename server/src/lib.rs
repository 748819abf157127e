//! The access ledger's server.
//!
//! ```text
//! os  <-  storage  <-  index  <-  book  <-  ledger  <-  serve  <-  demo        (arrow: is used by)
//!             \<-  check            \<-  audit  <-  serve
//!             \<-  witness  <-  http  <-  serve
//!                  identity  <-  transport  <-  serve
//! ```
//!
//! The README of this crate tells the life of a record and what lies on disk.

mod audit;
pub mod backup;
mod book;
pub mod check;
pub mod config;
pub mod custodian;
pub mod demo;
mod erase;
pub mod error;
pub mod folder;
pub mod guard;
pub mod health;
mod http;
pub mod identity;
pub mod index;
pub mod ledger;
pub mod metrics;
pub mod os;
pub mod outbound;
mod reads;
pub mod refusal;
pub mod restore;
pub mod rotate;
pub mod scrub;
pub mod serve;
pub mod settings;
pub mod storage;
pub mod trace;
pub mod transport;
pub mod witness;
mod works;
