//! What the command line shows to a server, and whom it believes to be one.

use std::path::PathBuf;

use clap::Args;
use zeroize::Zeroizing;

use crate::{
    connect::{CredentialFiles, Credentials, Link},
    error::ConnectError,
};

/// Credentials: none for a ledger on this machine that asks for none.
///
/// A token itself is no flag, for others see the flags of a process: `ACCESS_LEDGER_TOKEN`, or a
/// file.
#[derive(Clone, Debug, Default, Args)]
pub(super) struct CredentialArgs {
    /// Certificates (PEM) of the authorities that vouch for the server; else those of the system
    #[arg(long, value_name = "FILE", env = "ACCESS_LEDGER_CA", help_heading = "Credentials")]
    ca: Option<PathBuf>,
    /// The client's certificate chain (PEM)
    #[arg(
        long,
        value_name = "FILE",
        env = "ACCESS_LEDGER_CERTIFICATE",
        help_heading = "Credentials"
    )]
    certificate: Option<PathBuf>,
    /// The private key (PEM) to the client's certificate, mode 0600
    #[arg(
        long,
        value_name = "FILE",
        env = "ACCESS_LEDGER_CERTIFICATE_KEY",
        help_heading = "Credentials"
    )]
    certificate_key: Option<PathBuf>,
    /// The file with the bearer token, mode 0600; the variable `ACCESS_LEDGER_TOKEN` holds the
    /// token itself
    #[arg(
        long,
        value_name = "FILE",
        env = "ACCESS_LEDGER_TOKEN_FILE",
        help_heading = "Credentials"
    )]
    token_file: Option<PathBuf>,
    /// TOML with the files `ca`, `certificate`, `key` and `token`, for what is given in no other
    /// way
    #[arg(
        long,
        value_name = "FILE",
        env = "ACCESS_LEDGER_CREDENTIALS",
        help_heading = "Credentials"
    )]
    credentials: Option<PathBuf>,
}

impl CredentialArgs {
    /// Connects, once somebody answers there.
    pub(super) async fn reach(&self, url: &str) -> Result<Link, ConnectError> {
        // Boxed: the commands' futures hold this one.
        Box::pin(self.read()?.reach(url)).await
    }

    fn read(&self) -> Result<Credentials, ConnectError> {
        let given = CredentialFiles {
            ca: self.ca.clone(),
            certificate: self.certificate.clone(),
            key: self.certificate_key.clone(),
            token: self.token_file.clone(),
        };
        let rest = self.credentials.as_deref().map(CredentialFiles::from_toml).transpose()?;
        let files = given.or(rest.unwrap_or_default());
        match std::env::var("ACCESS_LEDGER_TOKEN").map(Zeroizing::new) {
            Ok(token) if self.token_file.is_none() && !token.is_empty() => {
                CredentialFiles { token: None, ..files }.read()?.token(&token)
            }
            _ => files.read(),
        }
    }
}
