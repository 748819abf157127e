//! What can be wrong with a policy, and why a change of the rules is refused.

use thiserror::Error;

/// A text that cannot be the policy.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("line {line}, column {column}: {problem}")]
pub struct PolicyError {
    /// Line of the offending place, from 1.
    pub line: usize,
    /// Column of the offending place in characters, from 1.
    pub column: usize,
    /// What is wrong, in one line.
    pub problem: String,
}
