//! What can be wrong with a policy, and why a change of the rules is refused.

use thiserror::Error;

use super::{ControlError, RedactionError};
use crate::source::SourceName;

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

/// A change of the rules that the ledger does not take.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ControlRefusal {
    /// A party of the governance has not signed it, or with another key or over other words.
    #[error("signed by {}, missing is one of {}", names(.signed), names(.missing))]
    Alone {
        /// Who has signed, the sealer included.
        signed: Vec<SourceName>,
        /// Who of the governance, in service, has not.
        missing: Vec<SourceName>,
    },
    /// The policy cannot be one.
    #[error("policy, {0}")]
    Policy(#[from] PolicyError),
    /// A redaction that erases nothing.
    #[error(transparent)]
    Redaction(#[from] RedactionError),
    /// Anything else that leaves it without effect.
    #[error(transparent)]
    Control(#[from] ControlError),
}

impl ControlRefusal {
    /// The rule of the finding that the change would be.
    #[must_use]
    pub const fn rule(&self) -> &'static str {
        match self {
            Self::Alone { .. } => "CONTROL_CHANGED_ALONE",
            Self::Redaction(error) => error.rule(),
            Self::Policy(_) | Self::Control(_) => "CONTROL_INVALID",
        }
    }
}

fn names(sources: &[SourceName]) -> String {
    let names: Vec<&str> = sources.iter().map(SourceName::as_str).collect();
    if names.is_empty() { "nobody".to_owned() } else { names.join(", ") }
}
