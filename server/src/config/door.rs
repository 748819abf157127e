//! Flags of both servers: who may call them, and what they show to others.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use access_ledger_client::{
    connect::{CredentialFiles, Credentials},
    error::ConnectError,
};
use clap::{Args, value_parser};

use super::ConfigError;
use crate::identity::{DoorFiles, TlsFiles};

/// Who may call a server, and how.
#[derive(Clone, Debug, Args)]
pub struct DoorArgs {
    /// The server's certificate chain (PEM), its own first: all connections are TLS then. Read
    /// again when it changes, as the other files here.
    #[arg(
        long,
        value_name = "FILE",
        requires = "tls_key",
        env = "ACCESS_LEDGER_TLS_CERTIFICATE",
        help_heading = "Who may call"
    )]
    pub tls_certificate: Option<PathBuf>,

    /// The private key (PEM) to it, mode 0600.
    #[arg(
        long,
        value_name = "FILE",
        requires = "tls_certificate",
        env = "ACCESS_LEDGER_TLS_KEY",
        help_heading = "Who may call"
    )]
    pub tls_key: Option<PathBuf>,

    /// The authorities (PEM) whose client certificates are believed.
    #[arg(
        long,
        value_name = "FILE",
        requires = "tls_certificate",
        env = "ACCESS_LEDGER_TLS_CLIENT_CA",
        help_heading = "Who may call"
    )]
    pub tls_client_ca: Option<PathBuf>,

    /// The principals (TOML): who may call, by which certificate or token, in which roles. Without
    /// it everybody may do everything, which is for loopback.
    #[arg(
        long,
        value_name = "FILE",
        env = "ACCESS_LEDGER_PRINCIPALS",
        help_heading = "Who may call"
    )]
    pub principals: Option<PathBuf>,

    /// Seconds over which what a principal reads is added up into one record. Searches are recorded
    /// one by one, before they are answered. Nothing is recorded without --principals.
    #[arg(
        long,
        value_name = "S",
        default_value_t = 10,
        value_parser = value_parser!(u32).range(1..),
        env = "ACCESS_LEDGER_READS_WINDOW_S",
        help_heading = "Who may call"
    )]
    pub reads_window_s: u32,

    /// Serve on an address other than loopback although nothing is encrypted. Without --principals
    /// whoever can reach the port can record and read.
    #[arg(long, env = "ACCESS_LEDGER_DANGER_PLAINTEXT", help_heading = "Who may call")]
    pub danger_plaintext: bool,
}

impl DoorArgs {
    /// Checks that only loopback is served in the clear, and to everybody.
    ///
    /// # Errors
    ///
    /// [`ConfigError::Plaintext`], [`ConfigError::Everybody`].
    pub fn check(&self, addresses: &[SocketAddr]) -> Result<(), ConfigError> {
        for &address in addresses.iter().filter(|address| !address.ip().is_loopback()) {
            let is_encrypted = self.tls_certificate.is_some();
            if !is_encrypted && !self.danger_plaintext {
                return Err(ConfigError::Plaintext { address });
            }
            if is_encrypted && self.principals.is_none() {
                return Err(ConfigError::Everybody { address });
            }
        }
        Ok(())
    }

    /// How long reads are added up.
    #[must_use]
    pub fn reads_window(&self) -> Duration {
        Duration::from_secs(self.reads_window_s.into())
    }

    /// The files of the door.
    #[must_use]
    pub fn files(&self) -> DoorFiles {
        let pair = self.tls_certificate.clone().zip(self.tls_key.clone());
        let client_ca = self.tls_client_ca.clone();
        let tls = pair.map(|(certificate, key)| TlsFiles { certificate, key, client_ca });
        DoorFiles { tls, principals: self.principals.clone() }
    }
}

/// What this server shows when it calls others, and whom it believes.
#[derive(Clone, Debug, Args)]
pub struct CredentialArgs {
    /// Certificates (PEM) of the authorities that vouch for the ledger, besides those of the system
    /// for witnesses, instead of them for the ledger.
    #[arg(long, value_name = "FILE", env = "ACCESS_LEDGER_CA", help_heading = "Calling others")]
    pub ca: Option<PathBuf>,

    /// The certificate chain (PEM) that is shown.
    #[arg(
        long,
        value_name = "FILE",
        requires = "certificate_key",
        env = "ACCESS_LEDGER_CERTIFICATE",
        help_heading = "Calling others"
    )]
    pub certificate: Option<PathBuf>,

    /// The private key (PEM) to it, mode 0600.
    #[arg(
        long,
        value_name = "FILE",
        requires = "certificate",
        env = "ACCESS_LEDGER_CERTIFICATE_KEY",
        help_heading = "Calling others"
    )]
    pub certificate_key: Option<PathBuf>,

    /// The file with the bearer token, mode 0600. The followed ledger sees it, no witness does:
    /// each of them could use it elsewhere.
    #[arg(
        long,
        value_name = "FILE",
        env = "ACCESS_LEDGER_TOKEN_FILE",
        help_heading = "Calling others"
    )]
    pub token_file: Option<PathBuf>,
}

impl CredentialArgs {
    /// Reads the files.
    ///
    /// # Errors
    ///
    /// As [`CredentialFiles::read`].
    pub fn read(&self) -> Result<Credentials, ConnectError> {
        let files = CredentialFiles {
            ca: self.ca.clone(),
            certificate: self.certificate.clone(),
            key: self.certificate_key.clone(),
            token: self.token_file.clone(),
        };
        files.read()
    }
}
