//! `key`: encrypts and decrypts key files.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, anyhow};
use clap::{Args, Subcommand};

use super::{
    Failure,
    keys::{beside, read_key, write_new},
    say,
};
use crate::keyfile::{Passphrase, clear_text, encrypt};

/// Encrypts a key file under the passphrase of `--passphrase-file` (PKCS#8, which `openssl` reads),
/// or puts it back in the clear
#[derive(Debug, Subcommand)]
pub(super) enum Key {
    /// Encrypts a key file; whoever uses it names the passphrase
    Encrypt(File),
    /// Puts a key file back in the clear
    Decrypt(File),
}

#[derive(Debug, Args)]
pub(super) struct File {
    /// The key file; it is replaced as a whole
    #[arg(value_name = "FILE")]
    path: PathBuf,
}

impl Key {
    pub(super) fn run(self) -> Result<(), Failure> {
        let path = match &self {
            Self::Encrypt(File { path }) | Self::Decrypt(File { path }) => path,
        };
        let key = read_key(path)?;
        let text = match &self {
            Self::Decrypt(_) => clear_text(&key),
            Self::Encrypt(_) => {
                let passphrase = Passphrase::at_hand()?;
                encrypt(&key, &passphrase.ok_or_else(|| anyhow!("add --passphrase-file"))?)?
            }
        };
        replace(path, &text).with_context(|| format!("key {}", path.display()))?;
        say(format_args!("{}", key.verifier()))?;
        Ok(())
    }
}

/// Puts another text in the place of a key file, which only its owner reads before and after.
#[expect(clippy::disallowed_methods, reason = "the draft is synced, and either file holds the key")]
fn replace(path: &Path, text: &str) -> io::Result<()> {
    let draft = beside(path, ".new");
    write_new(&draft, text, 0o600)?;
    fs::rename(&draft, path)
}
