//! `source`: what governance does with sources.

use std::path::PathBuf;

use access_ledger_proto::{
    note::{KeyType, VerifierKey},
    source::SourceName,
    wire::{self, SourcePhase, SourceRole},
};
use anyhow::{Context as _, anyhow, bail};
use bytes::Bytes;
use clap::{Args, Subcommand, ValueEnum};

use super::{
    Failure, Server,
    caller::Caller,
    control::{show, write_proposal},
    keys::read_key,
    ledger::founders,
    say,
};
use crate::{
    governance::proposal::{Change, Proposal},
    pull::Puller,
};

/// Registers and lists sources
#[derive(Debug, Subcommand)]
pub(super) enum Source {
    Register(Box<Register>),
    Propose(Box<Propose>),
    List(List),
}

/// Registers a source with a governance key
///
/// A source with the role `approve` takes both parties of the governance: with both keys on this
/// machine by `--sign-with`, else by `source propose`.
#[derive(Debug, Args)]
pub(super) struct Register {
    #[command(flatten)]
    caller: Caller,
    #[command(flatten)]
    registration: Registration,
    /// Key file of the other party of the governance, to register an approver
    #[arg(long, value_name = "FILE")]
    sign_with: Option<PathBuf>,
}

/// Proposes a source into a file that both parties of the governance sign
///
/// The file goes on to `access-ledger control sign` and `control apply`.
#[derive(Debug, Args)]
pub(super) struct Propose {
    /// Verifier key of the ledger
    #[arg(long, value_name = "VKEY", env = "ACCESS_LEDGER_KEY")]
    ledger: VerifierKey,
    /// The file to write the proposal to; must not exist
    #[arg(long, value_name = "PROPOSAL")]
    out: PathBuf,
    #[command(flatten)]
    registration: Registration,
}

/// Who a source is, and what it may do.
#[derive(Debug, Args)]
struct Registration {
    /// What the source may do; repeat for more
    #[arg(long = "role", value_enum, default_value = "record")]
    roles: Vec<Role>,
    /// Of an approver: the pseudonymous id of the person whose key it is, so that nobody approves
    /// a request of their own
    #[arg(long, value_name = "ID", default_value = "")]
    principal: String,
    /// Silence longer than so many seconds is a finding; 0: none is
    #[arg(long, value_name = "SECONDS", default_value_t = 0)]
    heartbeat: u32,
    /// Verifier key of the new source, as `keygen` printed it; it holds the name
    #[arg(value_name = "VKEY")]
    source: VerifierKey,
}

/// Lists the registered sources, as the server tells them; `verify` checks what the log says
#[derive(Debug, Args)]
pub(super) struct List {
    #[command(flatten)]
    server: Server,
}

/// What a source may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Role {
    /// Record events
    Record,
    /// Register children below its own name
    #[value(alias = "enroll")]
    Enrol,
    /// Answer access requests
    Approve,
}

impl Role {
    pub(super) const fn wire(self) -> SourceRole {
        match self {
            Self::Record => SourceRole::Record,
            Self::Enrol => SourceRole::Enrol,
            Self::Approve => SourceRole::Approve,
        }
    }
}

impl Source {
    pub(super) async fn run(self) -> Result<(), Failure> {
        match self {
            Self::Register(command) => command.run().await,
            Self::Propose(command) => command.run(),
            Self::List(command) => command.run().await,
        }
    }
}

impl Register {
    async fn run(self) -> Result<(), Failure> {
        let Self { caller, registration, sign_with } = self;
        let approves = registration.roles.contains(&Role::Approve);
        if approves && sign_with.is_none() {
            let other = "--sign-with the other's key, or `access-ledger source propose`";
            return Err(
                anyhow!("the role approve takes both parties of the governance: {other}").into()
            );
        }
        let status = registration.status()?;
        let called = caller.call().await?;
        let recorder = called.recorder().await?;
        let mut proposal = Proposal::new(called.ledger.name(), Change::Source(status))?;
        if let Some(path) = sign_with {
            let sources = founders(&called.puller(), &called.ledger).await?;
            proposal.sign(&read_key(&path)?, &sources)?;
        }
        let applied = proposal.apply(&recorder).await.map_err(|error| called.failure(error))?;
        called.close(&recorder).await?;
        let (name, index) = (registration.source.name(), applied.recorded.index());
        say(format_args!("{name} is registered at index {index}"))?;
        Ok(())
    }
}

impl Propose {
    fn run(self) -> Result<(), Failure> {
        let status = self.registration.status()?;
        let proposal = Proposal::new(self.ledger.name(), Change::Source(status))?;
        write_proposal(&proposal, &self.out)?;
        show(&proposal)?;
        Ok(())
    }
}

impl Registration {
    fn status(&self) -> anyhow::Result<wire::SourceStatus> {
        let Self { source, .. } = self;
        if source.key_type() != KeyType::Ed25519 {
            bail!("key {source} is of type {}, a source's is Ed25519", source.key_type());
        }
        let name = SourceName::parse(source.name()).with_context(|| source.name().to_owned())?;
        let interval = prost_types::Duration { seconds: self.heartbeat.into(), nanos: 0 };
        Ok(wire::SourceStatus {
            phase: SourcePhase::Registered.into(),
            source: name.as_str().to_owned(),
            public_key: Bytes::copy_from_slice(source.public_key().as_bytes()),
            roles: self.roles.iter().map(|role| role.wire().into()).collect(),
            heartbeat_interval: (self.heartbeat > 0).then_some(interval),
            principal: self.principal.clone(),
            ..Default::default()
        })
    }
}

impl List {
    async fn run(self) -> Result<(), Failure> {
        let puller = Puller::new(self.server.reach().await?);
        let mut token = String::new();
        loop {
            let page = puller.sources(&token).await?;
            for source in &page.sources {
                say(format_args!("{}", line(source)))?;
            }
            // A token that does not move on would be followed for ever.
            if page.next_page_token <= token {
                return Ok(());
            }
            token = page.next_page_token;
        }
    }
}

fn line(source: &wire::Source) -> String {
    let roles: Vec<String> = source
        .roles()
        .map(|role| role.as_str_name().trim_start_matches("SOURCE_ROLE_").to_lowercase())
        .collect();
    let mut line = format!(
        "{:<32} {:<16} events {:>10}  registered at {}",
        source.name,
        roles.join(","),
        source.last_seq,
        source.registered_index
    );
    if source.self_enrolled {
        line.push_str("  self-enrolled");
    }
    if source.key_index > 0 {
        let what = if source.public_key.is_empty() { "key revoked" } else { "key replaced" };
        line.push_str(&format!("  {what} at {}", source.key_index));
    }
    if source.decommissioned {
        line.push_str("  decommissioned");
    }
    line
}
