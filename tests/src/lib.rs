//! Scaffold.

pub mod load;
