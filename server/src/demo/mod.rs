//! The demonstration: a company's day, recorded, verified, and tampered with.

pub mod day;
