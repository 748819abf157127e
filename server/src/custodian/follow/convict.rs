//! What a ledger that was caught is asked for before the alarm is raised.

use std::time::Duration;

use access_ledger_client::{
    audit::prove,
    evidence::Caught,
    pull::Patience,
    view::{check_consistency, compare},
};

use super::Follow;

impl Follow {
    /// Asks the ledger for what convicts it by itself, as far as it still tells: soon, for the
    /// alarm waits for that.
    pub(super) fn convict(&self, caught: Caught) -> Caught {
        let patience = Patience { answer: CONVICT_PATIENCE, repeat: CONVICT_PATIENCE };
        let puller = self.puller.clone().with_patience(patience);
        if let (Caught::Log { served, .. }, Some(held)) = (&caught, self.desk.newest())
            && let Ok(Some((old, new))) = compare(&held, served)
            && let Ok(Ok(path)) = self.ask(puller.consistency_path(old, new))
            && let Err(forked) = check_consistency(&held, served, path)
            && forked.leads_elsewhere()
        {
            return forked;
        }
        self.runtime.block_on(prove(&puller, caught))
    }
}

/// How long a ledger that was caught may take to answer each question about it.
const CONVICT_PATIENCE: Duration = Duration::from_secs(3);
