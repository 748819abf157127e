//! `enroll`: registers a source by its own key.

use std::{path::PathBuf, time::Duration};

use access_ledger_proto::facts::sources::Roles;
use clap::Args;

use super::{
    Failure,
    caller::{Called, Caller},
    keys::read_key,
    prove::pull_proof,
    say,
    source::Role,
};
use crate::connect;

/// Registers a source by its own key: by itself where the ledger allows that, or below a parent
#[derive(Debug, Args)]
pub(super) struct Enroll {
    #[command(flatten)]
    caller: Caller,
    /// Key file of the parent, which has the role `enrol` and vouches for the new source
    #[arg(long, value_name = "FILE")]
    parent: Option<PathBuf>,
    /// What the source may do; repeat for more. By itself a source may only enrol to record
    #[arg(long = "role", value_enum, default_value = "record")]
    roles: Vec<Role>,
    /// Silence longer than so many seconds is a finding, so recorders send heartbeats; 0: none is
    #[arg(long, value_name = "SECONDS", default_value_t = 0)]
    heartbeat: u32,
}

impl Enroll {
    pub(super) async fn run(self) -> Result<(), Failure> {
        let parent = self.parent.as_deref().map(read_key).transpose()?;
        let called = self.caller.call().await?;
        let puller = called.puller();
        let Called { link, key, ledger, quorum } = called;
        let roles = Roles::from_iter(self.roles.into_iter().map(Role::wire));
        let heartbeat = Duration::from_secs(self.heartbeat.into());
        let enrolled = connect::enroll(link, &ledger, &key, roles, parent.as_ref(), heartbeat)
            .await
            .map_err(|error| Failure::of_connect(error, &ledger))?;
        if quorum.wants_any() {
            let _proven = pull_proof(&puller, enrolled.index, &ledger, &quorum).await?;
        }
        say(format_args!("{} is registered at index {}", key.name(), enrolled.index))?;
        Ok(())
    }
}
