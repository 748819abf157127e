//! `enroll`: registers a source by its own key.

use std::path::PathBuf;

use access_ledger_proto::{facts::sources::Roles, note::VerifierKey};
use clap::Args;

use super::{
    Failure, Server,
    keys::{ledger_key, read_key},
    say,
    source::Role,
};
use crate::{connect, pull::Puller};

/// Registers a source by its own key: by itself where the ledger allows that, or below a parent
#[derive(Debug, Args)]
pub(super) struct Enroll {
    #[command(flatten)]
    server: Server,
    /// The source's key file
    #[arg(long, value_name = "FILE")]
    key: PathBuf,
    /// Key file of the parent, which has the role `enrol` and vouches for the new source
    #[arg(long, value_name = "FILE")]
    parent: Option<PathBuf>,
    /// What the source may do; repeat for more. By itself a source may only enrol to record
    #[arg(long = "role", value_enum, default_value = "record")]
    roles: Vec<Role>,
    /// Verifier key of the ledger; else the one pinned beside the key file, else the server's word
    #[arg(long, value_name = "VKEY")]
    ledger: Option<VerifierKey>,
}

impl Enroll {
    pub(super) async fn run(self) -> Result<(), Failure> {
        let key = read_key(&self.key)?;
        let parent = self.parent.as_deref().map(read_key).transpose()?;
        let channel = connect::reach(&self.server.url).await?;
        let puller = Puller::new(channel.clone());
        let ledger = ledger_key(self.ledger.as_ref(), &self.key, &puller).await?;
        let roles = Roles::from_iter(self.roles.into_iter().map(Role::wire));
        let enrolled = connect::enroll(channel, &ledger, &key, roles, parent.as_ref())
            .await
            .map_err(|error| Failure::of_connect(error, &ledger))?;
        say(format_args!("{} is registered at index {}", key.name(), enrolled.index))?;
        Ok(())
    }
}
