//! What follows from the log alone: folds over its batches, the same code in server, custodian and
//! auditor.

pub mod sequences;
pub mod sources;
