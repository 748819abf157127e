//! `revoke`, `extend`, `suspend`, `resume`, `end`: changes a grant.

use access_ledger_proto::wire::{self, GrantState};
use clap::Args;

use super::{Failure, caller::Caller, say, words};
use crate::governance;

/// Changes the state of a grant
#[derive(Debug, Args)]
pub(super) struct Change {
    #[command(flatten)]
    caller: Caller,
    /// Id of the grant
    #[arg(value_name = "GRANT")]
    grant: String,
    /// Why
    #[arg(long, value_name = "TEXT", default_value = "")]
    reason: String,
}

/// Lets a grant end later
#[derive(Debug, Args)]
pub(super) struct Extend {
    #[command(flatten)]
    change: Change,
    /// The new end
    #[arg(long, value_name = "TIME", value_parser = words::time)]
    until: prost_types::Timestamp,
}

impl Change {
    pub(super) async fn run(self, state: GrantState) -> Result<(), Failure> {
        self.record(state, None).await
    }

    async fn record(
        self,
        state: GrantState,
        not_after: Option<prost_types::Timestamp>,
    ) -> Result<(), Failure> {
        let Self { caller, grant: grant_id, reason } = self;
        let change = wire::GrantChange { grant_id, state: state.into(), reason, not_after };
        let called = caller.call().await?;
        let recorder = called.recorder().await?;
        let changed = governance::change_grant(&recorder, change).await;
        let changed = changed.map_err(|error| called.failure(error))?;
        called.close(&recorder).await?;
        let (grant, index) = (changed.grant_id, changed.recorded.index());
        let state = words::word("GrantState", state.into());
        say(format_args!("grant {grant} is {state} since index {index}"))?;
        Ok(())
    }
}

impl Extend {
    pub(super) async fn run(self) -> Result<(), Failure> {
        self.change.record(GrantState::Extended, Some(self.until)).await
    }
}
