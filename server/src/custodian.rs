//! The custodian: an auditor that stores and signs.
//!
//! ```text
//! follow (client::pull) -> copy (verify, then store) -> cosign -> book -> AuditService, HTTP
//!                               \-> alarms -> webhook
//! ```

pub mod alarms;
pub mod copy;
pub mod error;
pub mod halt;
