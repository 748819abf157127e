//! What a caller shows to a server, and whom it believes to be one.

use std::{
    fs, io,
    net::IpAddr,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use serde::Deserialize;
use tonic::{
    codegen::http::HeaderValue,
    transport::{Certificate, ClientTlsConfig, Endpoint, Identity},
};
use zeroize::Zeroizing;

use super::{Link, endpoint_of, reach_endpoint};
use crate::error::ConnectError;

/// Authorities, client certificate and token. Without any: the system's authorities are believed,
/// and nothing is shown.
#[derive(Clone, Default)]
pub struct Credentials {
    ca: Option<Vec<u8>>,
    identity: Option<(Vec<u8>, Zeroizing<Vec<u8>>)>,
    authorization: Option<HeaderValue>,
}

/// The files that credentials lie in.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CredentialFiles {
    /// PEM: the authorities to believe instead of the system's.
    pub ca: Option<PathBuf>,
    /// PEM: the client's certificate chain, its own first. Together with `key`.
    pub certificate: Option<PathBuf>,
    /// PEM: the private key to it, which only its owner may read.
    pub key: Option<PathBuf>,
    /// One line: the bearer token, which only its owner may read.
    pub token: Option<PathBuf>,
}

impl Credentials {
    /// Believes these authorities (PEM) and no others.
    #[must_use]
    pub fn ca(mut self, pem: impl Into<Vec<u8>>) -> Self {
        self.ca = Some(pem.into());
        self
    }

    /// Shows a certificate (PEM, a chain with its own first) and proves to have its key (PEM).
    #[must_use]
    pub fn identity(mut self, certificate: impl Into<Vec<u8>>, key: impl Into<Vec<u8>>) -> Self {
        self.identity = Some((certificate.into(), Zeroizing::new(key.into())));
        self
    }

    /// Shows a bearer token with every call.
    ///
    /// # Errors
    ///
    /// [`ConnectError::Credentials`] for what no header can carry.
    pub fn token(mut self, token: &str) -> Result<Self, ConnectError> {
        let bearer = Zeroizing::new(format!("Bearer {token}"));
        let is_token = !token.is_empty() && token.bytes().all(|byte| byte.is_ascii_graphic());
        let value = HeaderValue::from_str(&bearer).ok().filter(|_| is_token);
        let mut value = value.ok_or_else(|| ConnectError::Credentials {
            problem: "token is empty or has other characters than visible ASCII".to_owned(),
        })?;
        // Neither printed nor kept in the tables of header compression.
        value.set_sensitive(true);
        self.authorization = Some(value);
        Ok(self)
    }

    /// The authorities that are believed instead of the system's, as PEM.
    #[must_use]
    pub fn ca_pem(&self) -> Option<&[u8]> {
        self.ca.as_deref()
    }

    /// The client's certificate chain and its private key, each as PEM.
    #[must_use]
    pub fn identity_pem(&self) -> Option<(&[u8], &[u8])> {
        self.identity.as_ref().map(|(certificate, key)| (&certificate[..], &key[..]))
    }

    /// An address with the options that the ledger's services need; nothing is connected yet. The
    /// token is no part of it: [`Credentials::link`] sends it.
    ///
    /// # Errors
    ///
    /// [`ConnectError::Address`] for anything but `http://host:port` or `https://host:port`;
    /// [`ConnectError::Credentials`] when there is no TLS to be made of them, or when they would
    /// travel in the clear to another machine.
    pub fn endpoint(&self, uri: &str) -> Result<Endpoint, ConnectError> {
        let endpoint = endpoint_of(uri)?;
        let host = endpoint.uri().host().unwrap_or_default();
        let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        if endpoint.uri().scheme_str() == Some("http") {
            let shows = self.identity.is_some() || self.authorization.is_some();
            if shows && !is_loopback(&host) {
                let problem = format!("{uri} is not encrypted, expected https for credentials");
                return Err(ConnectError::Credentials { problem });
            }
            return Ok(endpoint);
        }
        let mut tls = ClientTlsConfig::new().domain_name(host).timeout(super::CONNECT_TIMEOUT);
        tls = match &self.ca {
            Some(pem) => tls.ca_certificate(Certificate::from_pem(pem)),
            None => tls.with_native_roots(),
        };
        if let Some((certificate, key)) = &self.identity {
            tls = tls.identity(Identity::from_pem(certificate, &**key));
        }
        endpoint.tls_config(tls).map_err(|error| {
            let error: &(dyn std::error::Error + 'static) = &error;
            let causes = std::iter::successors(Some(error), |error| error.source());
            let problem = causes.last().map_or_else(String::new, ToString::to_string);
            ConnectError::Credentials { problem }
        })
    }

    /// A link that connects when it is first used, and again whenever the connection breaks.
    ///
    /// Call it inside a tokio runtime.
    ///
    /// # Errors
    ///
    /// As [`Credentials::endpoint`].
    pub fn link(&self, uri: &str) -> Result<Link, ConnectError> {
        let channel = self.endpoint(uri)?.connect_lazy();
        Ok(Link::new(channel, self.authorization.clone()))
    }

    /// As [`Credentials::link`], once somebody listens there, with a certificate that is believed.
    ///
    /// # Errors
    ///
    /// As [`Credentials::endpoint`]; [`ConnectError::Unreachable`] when nobody does.
    pub async fn reach(&self, uri: &str) -> Result<Link, ConnectError> {
        let channel = reach_endpoint(uri, &self.endpoint(uri)?).await?;
        Ok(Link::new(channel, self.authorization.clone()))
    }
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Credentials")
            .field("ca", &self.ca.is_some())
            .field("identity", &self.identity.is_some())
            .field("token", &self.authorization.is_some())
            .finish()
    }
}

impl CredentialFiles {
    /// Reads a TOML file with the keys `ca`, `certificate`, `key` and `token`, each the path of a
    /// file, which is taken from where the TOML file lies.
    ///
    /// # Errors
    ///
    /// [`ConnectError::File`] with the line when it cannot be read or has other keys.
    #[cfg(feature = "audit")]
    pub fn from_toml(path: &Path) -> Result<Self, ConnectError> {
        let malformed = |problem| ConnectError::File { path: path.to_owned(), problem };
        let text = fs::read_to_string(path).map_err(|error| malformed(error.to_string()))?;
        let files: Self = toml::from_str(&text).map_err(|error| {
            let before = text.get(..error.span().map_or(0, |span| span.start));
            let line = before.unwrap_or_default().matches('\n').count() + 1;
            malformed(format!("line {line}: {}", error.message()))
        })?;
        let folder = path.parent().unwrap_or_else(|| Path::new(""));
        let beside = |file: Option<PathBuf>| file.map(|file| folder.join(file));
        Ok(Self {
            ca: beside(files.ca),
            certificate: beside(files.certificate),
            key: beside(files.key),
            token: beside(files.token),
        })
    }

    /// These files, and those of `rest` where there are none.
    #[must_use]
    pub fn or(self, rest: Self) -> Self {
        // A certificate and its key come from the same place.
        let (certificate, key) = match (self.certificate, self.key) {
            (None, None) => (rest.certificate, rest.key),
            own => own,
        };
        Self { ca: self.ca.or(rest.ca), certificate, key, token: self.token.or(rest.token) }
    }

    /// Reads them all.
    ///
    /// # Errors
    ///
    /// [`ConnectError::File`] for one that cannot be read, or is a secret that others can read;
    /// [`ConnectError::Credentials`] for a certificate without its key, or the other way round.
    pub fn read(&self) -> Result<Credentials, ConnectError> {
        let unusable = |path: &Path, error: io::Error| {
            let (path, problem) = (path.to_owned(), error.to_string());
            ConnectError::File { path, problem }
        };
        let read = |path: &Path| fs::read(path).map_err(|error| unusable(path, error));
        let secret = |path: &Path| read_secret(path).map_err(|error| unusable(path, error));
        let mut credentials = Credentials::default();
        if let Some(path) = &self.ca {
            credentials = credentials.ca(read(path)?);
        }
        match (&self.certificate, &self.key) {
            (Some(certificate), Some(key)) => {
                credentials.identity =
                    Some((read(certificate)?, Zeroizing::new(secret(key)?.as_bytes().to_vec())));
            }
            (None, None) => {}
            (Some(_), None) => {
                let problem = "a client certificate without its key".to_owned();
                return Err(ConnectError::Credentials { problem });
            }
            (None, Some(_)) => {
                let problem = "a key without its client certificate".to_owned();
                return Err(ConnectError::Credentials { problem });
            }
        }
        match &self.token {
            Some(path) => credentials.token(secret(path)?.trim()),
            None => Ok(credentials),
        }
    }
}

/// Reads a text that is its owner's secret; it is wiped when it is dropped.
///
/// # Errors
///
/// What the file system says; `PermissionDenied` when others than the owner may do anything with
/// the file, for then it may be no secret any more.
pub(crate) fn read_secret(path: &Path) -> io::Result<Zeroizing<String>> {
    let text = Zeroizing::new(fs::read_to_string(path)?);
    match fs::metadata(path)?.permissions().mode() & 0o777 {
        mode if mode & 0o077 == 0 => Ok(text),
        mode => {
            let problem = format!("mode is {mode:03o}, a secret's is 600: others may have read it");
            Err(io::Error::new(io::ErrorKind::PermissionDenied, problem))
        }
    }
}

fn is_loopback(host: &str) -> bool {
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_never_travel_in_the_clear_to_another_machine() {
        let with_token = Credentials::default().token("t0ken").unwrap();
        for uri in ["http://127.0.0.1:1", "http://[::1]:1", "http://localhost:1"] {
            with_token.endpoint(uri).unwrap();
        }
        for uri in ["http://192.0.2.1:1", "http://ledger.example:1", "http://localhost.example:1"] {
            let refused = with_token.endpoint(uri).unwrap_err();
            assert!(matches!(refused, ConnectError::Credentials { .. }), "{uri}");
            Credentials::default().endpoint(uri).unwrap();
        }
        for uri in ["ftp://h:1", "h:1", "", "https://"] {
            let refused = with_token.endpoint(uri).unwrap_err();
            assert!(matches!(refused, ConnectError::Address { .. }), "{uri}");
        }
    }

    #[test]
    fn a_token_is_visible_ascii_and_is_not_shown() {
        for bad in ["", "a b", "a\n", "t\u{f6}"] {
            assert!(Credentials::default().token(bad).is_err(), "{bad:?}");
        }
        let credentials = Credentials::default().token("t0ken").unwrap();
        assert!(!format!("{credentials:?}").contains("t0ken"));
    }

    #[test]
    fn secrets_that_others_can_read_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let token = folder.path().join("token");
        fs::File::create(&token).unwrap();
        fs::set_permissions(&token, fs::Permissions::from_mode(0o644)).unwrap();
        let files = CredentialFiles { token: Some(token), ..CredentialFiles::default() };
        let refused = files.read().unwrap_err().to_string();
        assert!(refused.contains("mode is 644"), "{refused}");
        let files = CredentialFiles { key: files.token, ..CredentialFiles::default() };
        let refused = files.read().unwrap_err().to_string();
        assert!(refused.contains("without its client certificate"), "{refused}");
    }

    #[cfg(feature = "audit")]
    #[test]
    fn a_file_of_credentials_names_files_beside_it_and_nothing_else() {
        use std::io::Write as _;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("c.toml");
        let write = |text: &str| fs::File::create(&path).unwrap().write_all(text.as_bytes());
        write("ca = \"ca.pem\"\ntoken = \"/t\"\n").unwrap();
        let files = CredentialFiles::from_toml(&path).unwrap();
        assert_eq!(files.ca, Some(folder.path().join("ca.pem")));
        assert_eq!(files.token, Some("/t".into()));
        let own = CredentialFiles { key: Some("k".into()), ..CredentialFiles::default() };
        let both = own.or(CredentialFiles { certificate: Some("c".into()), ..files });
        assert_eq!((both.key, both.certificate), (Some("k".into()), None));
        assert_eq!(both.token, Some("/t".into()));
        write("ca = \"ca.pem\"\ntokn = \"/t\"\n").unwrap();
        let refused = CredentialFiles::from_toml(&path).unwrap_err().to_string();
        assert!(refused.contains("line 2: unknown field `tokn`"), "{refused}");
    }
}
