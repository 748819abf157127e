//! Scaffold.

pub mod verify;
