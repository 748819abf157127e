//! `keygen`: makes a key.

use std::path::PathBuf;

use access_ledger_proto::{
    facts::sources::possession_message,
    note::{KeyType, Signer},
    source::SourceName,
};
use anyhow::{Context as _, anyhow};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use clap::Args;
use zeroize::Zeroizing;

use super::{Failure, keys::write_key, say};

/// Makes a source's key and prints its public half, the verifier key
#[derive(Debug, Args)]
pub(super) struct Keygen {
    /// The source's name: 1 to 128 of `a-z 0-9 . _ / : @ -`; a child's name is `parent/child`
    #[arg(long)]
    name: String,
    /// The file to write the private key to, readable by its owner only; must not exist
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// Name of the ledger at which the key is to take the place of the source's: prints, too, that
    /// it is held, for `control key`
    #[arg(long, value_name = "ORIGIN")]
    replaces_at: Option<String>,
}

impl Keygen {
    pub(super) fn run(self) -> Result<(), Failure> {
        let name = SourceName::parse(&self.name).with_context(|| self.name.clone())?;
        let mut seed = Zeroizing::new([0; 32]);
        getrandom::fill(&mut *seed).map_err(|error| anyhow!("no random bytes: {error}"))?;
        let key = Signer::new(name.as_str(), KeyType::Ed25519, *seed)?;
        write_key(&self.out, &key)?;
        say(format_args!("{}", key.verifier()))?;
        if let Some(origin) = &self.replaces_at {
            let message = possession_message(origin, key.name(), key.verifier().public_key());
            say(format_args!("{}", STANDARD.encode(key.sign(message.as_bytes()))))?;
        }
        Ok(())
    }
}
