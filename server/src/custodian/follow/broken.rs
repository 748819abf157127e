//! Why following is broken off, and what each reason follows from.

use access_ledger_client::{evidence::Caught, pull::PullError};
use access_ledger_proto::checkpoint::VerifiedCheckpoint;

use crate::custodian::error::{CopyError, CustodianError};

/// Why following was broken off.
pub(super) enum Break {
    /// The custodian is to stop.
    Stopping,
    /// To be caught up again at once: the ledger is faster than it can be watched, or a newer
    /// checkpoint must tell why an event is gone.
    Again,
    /// The ledger could not be asked, or its answer does not fit.
    Pull(PullError),
    /// The ledger is caught.
    Caught(Box<Caught>),
    /// The custodian itself cannot go on.
    Failed(CustodianError),
}

impl Break {
    /// What it means that the copy does not take what was served under a checkpoint.
    pub(super) fn copy(error: CopyError, served: &VerifiedCheckpoint) -> Self {
        match error {
            CopyError::Log(violation) => {
                let served = Box::new(served.clone());
                Caught::Log { violation, served, proofs: Vec::new() }.into()
            }
            // No ledger admits such a batch, so what is served is not what it signed for.
            CopyError::BatchTooLarge { index, .. } | CopyError::EventTooLarge { index, .. } => {
                let (problem, served) = (error.to_string(), Box::new(served.clone()));
                Caught::Withheld { index, problem, served }.into()
            }
            CopyError::OutOfPlace { .. } => {
                Self::Pull(PullError::Answer { problem: error.to_string() })
            }
            error => Self::Failed(error.into()),
        }
    }
}

impl From<Caught> for Break {
    fn from(caught: Caught) -> Self {
        Self::Caught(Box::new(caught))
    }
}

impl From<CustodianError> for Break {
    fn from(error: CustodianError) -> Self {
        Self::Failed(error)
    }
}

impl From<CopyError> for Break {
    fn from(error: CopyError) -> Self {
        Self::Failed(error.into())
    }
}
