//! `control key`, `control role`, `control ledger-key`: keys and roles that governance changes.

use access_ledger_proto::{
    note::VerifierKey,
    wire::{self, ControlKind},
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use clap::Args;
use prost::Message as _;

use super::{Failure, control::Out, source};

/// Proposes another key for a source, or none: from the change on only the new one seals
#[derive(Debug, Args)]
pub(super) struct Key {
    #[command(flatten)]
    out: Out,
    /// Name of the source
    #[arg(value_name = "SOURCE")]
    source: String,
    #[command(flatten)]
    what: NewKey,
    /// With --new-key: what `keygen --replaces-at ORIGIN` prints below it, which shows that the
    /// source holds the key
    #[arg(long, value_name = "BASE64", requires = "new_key", value_parser = signature)]
    possession: Option<Bytes>,
    /// Why, for those who read the log
    #[arg(long, value_name = "TEXT", default_value = "")]
    reason: String,
}

#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
struct NewKey {
    /// The new verifier key, as `keygen --replaces-at ORIGIN` prints it; goes with --possession
    #[arg(long, value_name = "VKEY", requires = "possession")]
    new_key: Option<VerifierKey>,
    /// The source has no key any more, until it gets another one
    #[arg(long)]
    revoke: bool,
}

/// Proposes what a source may do: all roles that it is to have
#[derive(Debug, Args)]
pub(super) struct Role {
    #[command(flatten)]
    out: Out,
    /// Name of the source
    #[arg(value_name = "SOURCE")]
    source: String,
    /// A role that it is to have; repeat for more
    #[arg(long = "role", value_enum, required = true)]
    roles: Vec<source::Role>,
    /// With the role approve: id of the person whose key it is
    #[arg(long, value_name = "ID", default_value = "")]
    principal: String,
    /// Why, for those who read the log
    #[arg(long, value_name = "TEXT", default_value = "")]
    reason: String,
}

/// Proposes another key for the ledger's checkpoints, which `access-ledger-server rotate` made
#[derive(Debug, Args)]
pub(super) struct LedgerKey {
    #[command(flatten)]
    out: Out,
    /// The new verifier key, as `rotate` prints it
    #[arg(long, value_name = "VKEY")]
    new_key: VerifierKey,
    /// What `rotate` prints below it: that the ledger holds the key
    #[arg(long, value_name = "BASE64", value_parser = signature)]
    possession: Bytes,
    /// Why, for those who read the log
    #[arg(long, value_name = "TEXT", default_value = "")]
    reason: String,
}

impl Key {
    pub(super) async fn run(self) -> Result<(), Failure> {
        let Self { out, source, what: NewKey { new_key, .. }, possession, reason } = self;
        let key = new_key.map(|key| Bytes::copy_from_slice(key.public_key().as_bytes()));
        let (public_key, possession) = (key.unwrap_or_default(), possession.unwrap_or_default());
        let content = wire::SourceKey { public_key, possession, reason };
        out.propose(ControlKind::Key, &source, content.encode_to_vec()).await
    }
}

impl Role {
    pub(super) async fn run(self) -> Result<(), Failure> {
        let Self { out, source, roles, principal, reason } = self;
        let roles = roles.into_iter().map(|role| role.wire().into()).collect();
        let content = wire::SourceRoles { roles, principal, reason };
        out.propose(ControlKind::Role, &source, content.encode_to_vec()).await
    }
}

impl LedgerKey {
    pub(super) async fn run(self) -> Result<(), Failure> {
        let Self { out, new_key, possession, reason } = self;
        let content = wire::LedgerKey { ledger_vkey: new_key.to_string(), possession, reason };
        out.propose(ControlKind::LedgerKey, "", content.encode_to_vec()).await
    }
}

fn signature(text: &str) -> Result<Bytes, String> {
    let bytes = STANDARD.decode(text).map_err(|error| error.to_string())?;
    match bytes.len() {
        64 => Ok(bytes.into()),
        length => Err(format!("{length} bytes, expected the 64 of a signature")),
    }
}
