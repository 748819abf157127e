//! What security costs: appends over TLS 1.3 by a principal with a client certificate, beside the
//! same in the clear on loopback.
//!
//! Both ledgers are processes of their own and measured in turn, as those of `cosign` are.

use std::{
    env, fs,
    io::Write as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::Arc,
};

use access_ledger_client::connect::{CredentialFiles, Credentials};
use access_ledger_server::demo::half_year::ACCESS_LEN;
use anyhow::ensure;
use tokio_rustls::{
    TlsConnector,
    rustls::{
        self, ClientConfig, RootCertStore,
        pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
    },
};

use super::{
    args::Plan,
    child::Child,
    cosign::{self, Side},
    report::{Ratio, Sample, Section, Wanted},
    source::{self, BATCH_EVENTS},
    stream::BATCHES,
};

/// Measures (l): appends over TLS, with roles, and without either.
pub(super) fn measure(plan: &Plan) -> anyhow::Result<Vec<Section>> {
    let events = source::events(BATCHES * BATCH_EVENTS)?;
    let folders = tempfile::tempdir_in(&plan.dir)?;
    let plain = Child::ledger(plan, &folders.path().join("plain"))?;
    let security = Security::make(folders.path())?;
    let secure = Child::secure_ledger(plan, &folders.path().join("secure"), &security)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let samples = runtime.block_on(async {
        let sides = [Side::new(&plain, false).await?, Side::new(&secure, false).await?];
        cosign::rounds(plan, &events, sides, None).await
    })?;
    let [[stream_plain, unary_plain], [stream, unary]] =
        samples.map(|rounds| rounds.map(|samples| Sample::median(&samples)));
    let ratio = |name: &str, found: f64| Ratio::new(name, found, Wanted::Nothing);
    Ok(vec![Section {
        id: "secure",
        title: format!(
            "(l) TLS 1.3, client certificate, principals; streams of {BATCH_EVENTS} x {ACCESS_LEN} B \
             and one caller; processor time of the ledger alone"
        ),
        columns: Sample::columns(),
        rows: vec![
            stream_plain.row("stream, plain"),
            stream.row("stream, secure"),
            unary_plain.row("1 caller, plain"),
            unary.row("1 caller, secure"),
        ],
        ratios: vec![
            ratio("rate of a stream, secure : plain", stream.per_second / stream_plain.per_second),
            ratio(
                "processor time of a streamed entry, secure : plain",
                stream.cpu_us / stream_plain.cpu_us,
            ),
            ratio("rate of 1 caller, secure : plain", unary.per_second / unary_plain.per_second),
            ratio("processor time of a call, secure : plain", unary.cpu_us / unary_plain.cpu_us),
            ratio("p50 of 1 caller, secure : plain", unary.p50_ms / unary_plain.p50_ms),
        ],
    }])
}

/// An authority, the certificates of a server and of a client, and the client's principal.
pub(super) struct Security {
    folder: PathBuf,
}

impl Security {
    /// Makes all of it in this folder.
    pub(super) fn make(folder: &Path) -> anyhow::Result<Self> {
        let this = Self { folder: folder.to_owned() };
        let ca = this.name("ca.pem");
        make(&["ca", "--out", &ca])?;
        make(&["server", "--ca", &ca, "--out", &this.name("server.pem")])?;
        let client = this.name("client.pem");
        make(&["client", "--ca", &ca, "--uri", CLIENT, "--out", &client])?;
        let principals = format!(
            "[[principal]]\nname = \"load\"\nroles = [\"record\", \"audit\"]\n\
             sources = [\"stream\", \"caller\", \"filler\"]\nuris = [\"{CLIENT}\"]\n"
        );
        fs::File::create(this.path("principals.toml"))?.write_all(principals.as_bytes())?;
        Ok(this)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    fn name(&self, name: &str) -> String {
        self.path(name).display().to_string()
    }

    /// What the server is told.
    pub(super) fn flags(&self) -> [String; 8] {
        [
            "--tls-certificate".to_owned(),
            self.name("server.pem"),
            "--tls-key".to_owned(),
            self.name("server.pem.key"),
            "--tls-client-ca".to_owned(),
            self.name("ca.pem"),
            "--principals".to_owned(),
            self.name("principals.toml"),
        ]
    }

    /// What the client shows.
    pub(super) fn credentials(&self) -> anyhow::Result<Credentials> {
        let files = CredentialFiles {
            ca: Some(self.path("ca.pem")),
            certificate: Some(self.path("client.pem")),
            key: Some(self.path("client.pem.key")),
            token: None,
        };
        Ok(files.read()?)
    }

    /// Where everything is.
    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }
}

/// `access-ledger pki`, as a process of its own, for it tells what it made.
fn make(words: &[&str]) -> anyhow::Result<()> {
    let mut this = Command::new(env::current_exe()?);
    let status = this.arg("pki").args(words).stdout(Stdio::null()).status()?;
    ensure!(status.success(), "pki {words:?}: {status}");
    Ok(())
}

/// TLS as a client with the certificate in a folder that [`Security`] made.
pub(super) fn connector(folder: &Path) -> anyhow::Result<TlsConnector> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(folder.join("ca.pem"))?)?;
    let chain = CertificateDer::pem_file_iter(folder.join("client.pem"))?;
    let key = PrivateKeyDer::from_pem_file(folder.join("client.pem.key"))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_client_auth_cert(chain.collect::<Result<_, _>>()?, key)?;
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(Arc::new(config).into())
}

const CLIENT: &str = "spiffe://load.example/client";
