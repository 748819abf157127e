//! The access ledger's protocol, as pure code: no I/O, no clock, no randomness, no async.
//!
//! Both sides of the ledger run this code: the server to write, services and auditors to verify.
//! What it takes from outside may be any bytes at all: nothing here panics on input, and what is
//! allocated is bounded by a small multiple of the input's size.

#[cfg(feature = "policy")]
pub mod authority;
pub mod chain;
pub mod checkpoint;
pub mod enrolment;
pub mod entry;
pub mod error;
pub mod event;
pub mod facts;
#[cfg(feature = "policy")]
pub mod findings;
pub mod hash;
pub mod missing;
pub mod note;
#[cfg(feature = "policy")]
pub mod policy;
pub mod position;
pub mod proof;
pub mod quorum;
pub mod receipt;
pub mod seal;
pub mod segment;
pub mod source;
pub mod terms;
pub mod tree;
pub mod wire;
pub mod witness;
pub mod wording;
