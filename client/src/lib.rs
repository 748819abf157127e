//! The access ledger's client library: for services that record, and for auditors who believe
//! nothing that they have not verified.
//!
//! ```no_run
//! use access_ledger_client::{connect, recorder::Recorder};
//! # use access_ledger_proto::{note::{Signer, VerifierKey}, wire};
//! # use std::error::Error;
//! #
//! # async fn example(
//! #     key: Signer,
//! #     ledger: VerifierKey,
//! #     event: wire::Event,
//! # ) -> Result<(), Box<dyn Error>> {
//! let channel = connect::channel("http://127.0.0.1:7070")?;
//! let recorder = Recorder::builder(channel, key, ledger).start().await?;
//! let recorded = recorder.record(event).await?.receipt().await?; // in the ledger, proven
//! println!("{}", recorded.index());
//! recorder.close().await?;
//! # Ok(())
//! # }
//! ```

pub mod audit;
pub mod authorize;
pub mod backoff;
#[cfg(feature = "cli")]
pub mod cli;
pub mod connect;
pub mod error;
pub mod evidence;
#[cfg(feature = "audit")]
pub mod fold;
pub mod folder;
pub mod governance;
pub mod keyfile;
pub mod pull;
#[cfg(feature = "audit")]
pub mod query;
pub mod recorder;
#[cfg(feature = "audit")]
pub mod reports;
mod spool;
pub mod verify;
pub mod view;

#[cfg(feature = "fuzz")]
#[doc(hidden)]
pub use spool::fuzz as spool_fuzz;
