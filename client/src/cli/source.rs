//! `source`: what governance does with sources.

use access_ledger_proto::{
    note::{KeyType, VerifierKey},
    source::SourceName,
    wire::{self, SourcePhase, SourceRole, event::Body},
};
use anyhow::{Context as _, bail};
use bytes::Bytes;
use clap::{Args, Subcommand, ValueEnum};

use super::{Failure, Server, caller::Caller, say};
use crate::{connect, pull::Puller};

/// Registers and lists sources
#[derive(Debug, Subcommand)]
pub(super) enum Source {
    Register(Box<Register>),
    List(List),
}

/// Registers a source with a governance key
#[derive(Debug, Args)]
pub(super) struct Register {
    #[command(flatten)]
    caller: Caller,
    /// What the source may do; repeat for more
    #[arg(long = "role", value_enum, default_value = "record")]
    roles: Vec<Role>,
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
            Self::List(command) => command.run().await,
        }
    }
}

impl Register {
    async fn run(self) -> Result<(), Failure> {
        let registration = self.registration()?;
        let called = self.caller.call().await?;
        let told = |error| Failure::of_recorder(error, &called.ledger);
        let recorder = called.recorder().await?;
        let ticket = recorder.record(registration).await.map_err(told)?;
        let recorded = ticket.receipt().await.map_err(told)?;
        recorder.close().await.map_err(told)?;
        say(format_args!("{} is registered at index {}", self.source.name(), recorded.index()))?;
        Ok(())
    }

    fn registration(&self) -> anyhow::Result<wire::Event> {
        if self.source.key_type() != KeyType::Ed25519 {
            bail!(
                "key {} is of type {}, a source's is Ed25519",
                self.source,
                self.source.key_type()
            );
        }
        let name =
            SourceName::parse(self.source.name()).with_context(|| self.source.name().to_owned())?;
        let interval = prost_types::Duration { seconds: self.heartbeat.into(), nanos: 0 };
        let status = wire::SourceStatus {
            phase: SourcePhase::Registered.into(),
            source: name.as_str().to_owned(),
            public_key: Bytes::copy_from_slice(self.source.public_key().as_bytes()),
            roles: self.roles.iter().map(|role| role.wire().into()).collect(),
            heartbeat_interval: (self.heartbeat > 0).then_some(interval),
            ..Default::default()
        };
        Ok(wire::Event { body: Some(Body::SourceStatus(status)), ..Default::default() })
    }
}

impl List {
    async fn run(self) -> Result<(), Failure> {
        let puller = Puller::new(connect::reach(&self.server.url).await?);
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
    if source.decommissioned {
        line.push_str("  decommissioned");
    }
    line
}
