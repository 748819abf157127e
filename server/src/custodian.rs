//! The custodian: an auditor who keeps a copy, signs for it, and raises the alarm.

pub mod alarms;
pub mod halt;
