//! The custodian: an auditor that stores and signs.
//!
//! ```text
//! follow (client::pull) -> copy (verify, then store) -> cosign -> book -> AuditService, HTTP
//! ```

pub mod copy;
pub mod error;
