//! Scaffold.

pub mod demo;
