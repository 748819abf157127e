//! Certificates, tokens and principals for a test, made by `access-ledger pki` itself.

use std::{
    ffi::OsString,
    fs,
    io::Write as _,
    path::{Path, PathBuf},
    process::ExitCode,
};

use access_ledger_client::{cli, connect::CredentialFiles};
use access_ledger_proto::hash::sha256;
use access_ledger_server::identity::{DoorFiles, TlsFiles};
use anyhow::{anyhow, ensure};
use rcgen::{
    CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, Issuer, KeyPair, SanType,
};
use tempfile::TempDir;

/// A folder with an authority and what it vouches for.
pub struct Pki {
    folder: TempDir,
}

impl Pki {
    /// With an authority (`ca.pem`) and a server of this machine (`server.pem`).
    ///
    /// # Errors
    ///
    /// When a command fails.
    pub fn new() -> anyhow::Result<Self> {
        let pki = Self { folder: tempfile::tempdir()? };
        pki.run(&["ca", "--out", &pki.name("ca.pem")])?;
        pki.server("server.pem", "ca.pem")?;
        Ok(pki)
    }

    /// A file of this folder.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn name(&self, name: &str) -> String {
        self.path(name).display().to_string()
    }

    /// Runs `access-ledger pki` with these words.
    ///
    /// # Errors
    ///
    /// When it fails.
    pub fn run(&self, words: &[&str]) -> anyhow::Result<()> {
        let all = ["access-ledger", "pki"].iter().chain(words).map(OsString::from);
        // On a thread of its own: the command line brings a runtime.
        let run = std::thread::scope(|threads| threads.spawn(|| cli::run(all)).join());
        let code = run.map_err(|_| anyhow!("pki {words:?} panicked"))?;
        ensure!(code == ExitCode::SUCCESS, "pki {words:?} ended with {code:?}");
        Ok(())
    }

    /// Makes a server's certificate in the file `name`, by the authority in the file `ca`.
    ///
    /// # Errors
    ///
    /// When the command fails.
    pub fn server(&self, name: &str, ca: &str) -> anyhow::Result<()> {
        self.run(&["server", "--ca", &self.name(ca), "--out", &self.name(name)])
    }

    /// Makes a client's certificate with the flags for its names, and trusts the authority.
    ///
    /// # Errors
    ///
    /// When the command fails.
    pub fn client(&self, name: &str, names: &[&str]) -> anyhow::Result<CredentialFiles> {
        let (ca, out) = (self.name("ca.pem"), self.name(name));
        self.run(&[&["client", "--ca", &ca, "--out", &out], names].concat())?;
        Ok(CredentialFiles {
            ca: Some(self.path("ca.pem")),
            certificate: Some(self.path(name)),
            key: Some(self.path(&format!("{name}.key"))),
            token: None,
        })
    }

    /// The same with any number of URIs, which `access-ledger pki` does not give one certificate.
    ///
    /// # Errors
    ///
    /// When the authority's key cannot be read, or the certificate cannot be written.
    pub fn client_of(&self, name: &str, uris: &[&str]) -> anyhow::Result<CredentialFiles> {
        let key = KeyPair::from_pem(&fs::read_to_string(self.path("ca.pem.key"))?)?;
        // What an authority is called follows from its key.
        let digest = sha256(key.public_key_raw()).to_string();
        let mut authority = CertificateParams::default();
        authority.distinguished_name = DistinguishedName::new();
        let called = format!("access-ledger development {}", digest.split_at(16).0);
        authority.distinguished_name.push(DnType::CommonName, called);
        let mut params = CertificateParams::default();
        for uri in uris {
            params.subject_alt_names.push(SanType::URI((*uri).try_into()?));
        }
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        // The key and the place of the files are those of any client.
        let files = self.client(name, &["--dns", "nobody.example"])?;
        let own = KeyPair::from_pem(&fs::read_to_string(self.path(&format!("{name}.key")))?)?;
        let certificate = params.signed_by(&own, &Issuer::new(authority, key))?;
        put(&self.path(name), certificate.pem().as_bytes())?;
        Ok(files)
    }

    /// Makes a token, and trusts the authority; also the digest for a file of principals.
    ///
    /// # Errors
    ///
    /// When the command fails.
    pub fn token(&self, name: &str) -> anyhow::Result<(CredentialFiles, String)> {
        self.run(&["token", "--out", &self.name(name)])?;
        let digest = sha256(fs::read_to_string(self.path(name))?.trim_end().as_bytes());
        let (ca, token) = (Some(self.path("ca.pem")), Some(self.path(name)));
        let files = CredentialFiles { ca, token, ..CredentialFiles::default() };
        Ok((files, format!("sha256:{digest}")))
    }

    /// What only trusts the authority.
    #[must_use]
    pub fn nobody(&self) -> CredentialFiles {
        CredentialFiles { ca: Some(self.path("ca.pem")), ..CredentialFiles::default() }
    }

    /// Writes the file of principals.
    ///
    /// # Errors
    ///
    /// When it cannot be written.
    pub fn principals(&self, text: &str) -> anyhow::Result<PathBuf> {
        let path = self.path("principals.toml");
        put(&path, text.as_bytes())?;
        Ok(path)
    }

    /// A door over TLS for the principals of this text.
    ///
    /// # Errors
    ///
    /// When the file cannot be written.
    pub fn door(&self, principals: &str) -> anyhow::Result<DoorFiles> {
        let tls = TlsFiles {
            certificate: self.path("server.pem"),
            key: self.path("server.pem.key"),
            client_ca: Some(self.path("ca.pem")),
        };
        Ok(DoorFiles { tls: Some(tls), principals: Some(self.principals(principals)?) })
    }
}

/// The token of a principal of [`door_in_the_clear`].
#[must_use]
pub fn token_of(name: &str) -> String {
    format!("token-of-{name}")
}

/// A door without TLS, for principals of these names and roles, as in `"record", "audit"`; its file
/// lies in `folder`.
///
/// # Errors
///
/// When the file cannot be written.
pub fn door_in_the_clear(folder: &Path, principals: &[(&str, &str)]) -> anyhow::Result<DoorFiles> {
    let table = |(name, roles): &(&str, &str)| {
        let digest = sha256(token_of(name).as_bytes());
        format!(
            "[[principal]]\nname = \"{name}\"\nroles = [{roles}]\n\
             tokens = [\"sha256:{digest}\"]\n"
        )
    };
    let path = folder.join("principals.toml");
    put(&path, principals.iter().map(table).collect::<String>().as_bytes())?;
    Ok(DoorFiles { tls: None, principals: Some(path) })
}

/// Puts these bytes in place of a file's, whose mode stays.
///
/// # Errors
///
/// What the file system says.
pub fn put(path: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    Ok(fs::File::create(path)?.write_all(bytes)?)
}
