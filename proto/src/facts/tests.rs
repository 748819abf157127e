//! Facts of whole logs.
