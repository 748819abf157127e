//! TLS: who is let in by which certificate, and what changes while the server runs.

use std::{fs, sync::Arc, time::Duration};

use access_ledger_client::{
    audit::{AuditOptions, audit},
    connect::{CredentialFiles, Link},
    error::ConnectError,
    pull::Puller,
    recorder::Recorder,
    verify::Scope,
    view::View,
};
use access_ledger_proto::{
    quorum::Quorum,
    wire::{self, Outcome},
};
use access_ledger_server::{
    error::IdentityError,
    identity::{Door, DoorFiles, TlsFiles},
    os::{Disk, RealDisk},
};
use access_ledger_tests::{
    node::{Clients, Node, Setup},
    parties::access,
    pki::{Pki, put},
    source::Refused,
};
use anyhow::{Context as _, ensure};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    sync::mpsc,
    time::timeout,
};
use tokio_rustls::{
    TlsConnector,
    rustls::{
        ClientConfig, RootCertStore,
        pki_types::{CertificateDer, ServerName, pem::PemObject as _},
    },
};
use tonic::{Code, Streaming};

const PRINCIPALS: &str = r#"
[[principal]]
name = "payments"
roles = ["record"]
uris = ["spiffe://corp.example/payments"]

[[principal]]
name = "auditor"
roles = ["audit"]
dns = ["audit.corp.example"]
"#;

const PATIENCE: Duration = Duration::from_secs(30);

const PAYMENTS: [&str; 2] = ["--uri", "spiffe://corp.example/payments"];

const AUDITOR: [&str; 2] = ["--dns", "audit.corp.example"];

/// A ledger over TLS, its authority, and its principals.
struct Scene {
    _folder: TempDir,
    pki: Pki,
    door: Arc<Door>,
    node: Node,
}

fn disk() -> Arc<dyn Disk> {
    Arc::new(RealDisk)
}

impl Scene {
    async fn new() -> anyhow::Result<Self> {
        let (folder, pki) = (tempfile::tempdir()?, Pki::new()?);
        let door = Door::open(&disk(), pki.door(PRINCIPALS)?)?;
        let credentials = pki.client("own.pem", &PAYMENTS)?.read()?;
        let setup = Setup { door: door.clone(), credentials, ..Setup::new(folder.path()) };
        let node = setup.start().await?;
        Ok(Self { _folder: folder, pki, door, node })
    }

    async fn reach(&self, files: &CredentialFiles) -> Result<Link, ConnectError> {
        files.read()?.reach(&self.node.url).await
    }

    async fn clients(&self, files: &CredentialFiles) -> anyhow::Result<Clients> {
        Ok(Clients::over(self.reach(files).await?))
    }
}

/// How a call for the checkpoint, which needs to be known, is refused.
async fn refused(clients: &Clients) -> Option<(Code, String)> {
    let call = clients.auditor.clone().get_checkpoint(wire::GetCheckpointRequest::default()).await;
    let refused = Refused::of(&call.err()?);
    Some((refused.code, refused.reason))
}

fn unauthenticated() -> Option<(Code, String)> {
    Some((Code::Unauthenticated, "UNAUTHENTICATED".to_owned()))
}

#[tokio::test(flavor = "multi_thread")]
async fn certificates_lead_to_principals_for_recorders_and_auditors() -> anyhow::Result<()> {
    let scene = Scene::new().await?;
    let mut source = scene.node.clients().enrolled("payments", 1, &scene.node.vkey).await?;
    scene.node.clients().record(&source.record(3)?).await?;
    let link = scene.reach(&scene.pki.client("pod.pem", &PAYMENTS)?).await?;
    let key = source.key().clone();
    let recorder = Recorder::builder(link, key, scene.node.vkey.clone()).start().await?;
    let event = access("users", "", Outcome::Allowed);
    let recorded = recorder.record(event).await?.receipt().await?;
    recorder.close().await?;

    let auditor = scene.reach(&scene.pki.client("auditor.pem", &AUDITOR)?).await?;
    let mut view = View::open(&scene.pki.path("view.json"), &scene.node.vkey)?;
    let options = AuditOptions { scope: Scope::Events, full: false, quorum: Quorum::default() };
    let puller = Puller::new(auditor.clone());
    let audited = audit(&puller, &mut view, &options, Arc::new(|_, _| {})).await?;
    ensure!(audited.checkpoint.size().contains(recorded.index()), "{audited:?}");
    let appended = Clients::over(auditor).append(&source.record(1)?).await;
    assert_eq!(Refused::of(&appended.err().context("recorded")?).reason, "CALL_FORBIDDEN");
    scene.node.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_not_known_gets_no_further_than_the_health() -> anyhow::Result<()> {
    let scene = Scene::new().await?;
    let stranger = scene.pki.client("stranger.pem", &["--uri", "spiffe://corp.example/other"])?;
    let both = [&PAYMENTS[..], &AUDITOR].concat();
    for files in [scene.pki.nobody(), stranger, scene.pki.client("both.pem", &both)?] {
        let clients = scene.clients(&files).await?;
        assert_eq!(refused(&clients).await, unauthenticated(), "{files:?}");
        let mut health = tonic_health::pb::health_client::HealthClient::new(clients.channel);
        health.check(tonic_health::pb::HealthCheckRequest::default()).await?;
    }
    scene.node.stop().await
}

/// Which of the ids such a certificate vouches for is anybody's guess (X.509-SVID, section 2).
#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_with_a_spiffe_id_among_other_uris_is_nobodys() -> anyhow::Result<()> {
    let scene = Scene::new().await?;
    let id = PAYMENTS[1];
    let plain = ["https://audit.corp.example/one", "https://audit.corp.example/two"];
    let uris = format!("dns = [\"audit.corp.example\"]\nuris = [\"{}\"]", plain[0]);
    scene.pki.principals(&PRINCIPALS.replace("dns = [\"audit.corp.example\"]", &uris))?;
    assert!(scene.door.reload()?);
    for (name, uris, wanted) in [
        ("one.pem", &[id][..], None),
        ("before.pem", &[id, plain[1]], unauthenticated()),
        ("behind.pem", &[plain[1], id], unauthenticated()),
        ("two.pem", &[id, "spiffe://corp.example/other"], unauthenticated()),
        // Plain URIs are names like those of hosts: any of them may be the known one.
        ("plain.pem", &plain, None),
    ] {
        let clients = scene.clients(&scene.pki.client_of(name, uris)?).await?;
        assert_eq!(refused(&clients).await, wanted, "{uris:?}");
    }
    scene.node.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_nobody_vouches_for_is_refused_by_the_other_side() -> anyhow::Result<()> {
    let scene = Scene::new().await?;
    // A server that the client's authority does not vouch for.
    let other = Pki::new()?;
    let reached = scene.reach(&other.nobody()).await;
    let told = reached.err().context("believed the server")?.to_string();
    assert!(told.contains("UnknownIssuer"), "{told}");
    // Clients whose certificate another authority made, or that has run out: the server ends the
    // handshake, which a client of TLS 1.3 may learn with its first call only.
    let foreign = CredentialFiles {
        ca: Some(scene.pki.path("ca.pem")),
        ..other.client("foreign.pem", &PAYMENTS)?
    };
    let expired = scene.pki.client("old.pem", &[&PAYMENTS[..], &["--days", "0"]].concat())?;
    for files in [foreign, expired] {
        if let Ok(link) = scene.reach(&files).await {
            let refused = refused(&Clients::over(link)).await.context("let in")?;
            assert_eq!(refused.1, "", "the connection ends, no service answers: {refused:?}");
        }
    }
    // A certificate for servers is none for clients.
    scene.pki.server("posing.pem", "ca.pem")?;
    let posing = CredentialFiles {
        certificate: Some(scene.pki.path("posing.pem")),
        key: Some(scene.pki.path("posing.pem.key")),
        ..scene.pki.nobody()
    };
    if let Ok(link) = scene.reach(&posing).await {
        assert_eq!(refused(&Clients::over(link)).await.context("let in")?.1, "");
    }
    // Without TLS nobody gets anything.
    let plain = Clients::connect(scene.node.address).await;
    if let Ok(clients) = plain {
        assert_eq!(refused(&clients).await.context("answered in the clear")?.1, "");
    }
    scene.node.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn changed_files_are_in_force_without_a_restart() -> anyhow::Result<()> {
    let scene = Scene::new().await?;
    let auditor = scene.pki.client("auditor.pem", &AUDITOR)?;
    let open = scene.clients(&auditor).await?;
    assert_eq!(refused(&open).await, None);
    assert!(!scene.door.reload()?);

    // A token in the place of a certificate: open connections lose their principal.
    let (with_token, digest) = scene.pki.token("auditor.token")?;
    let changed =
        PRINCIPALS.replace("dns = [\"audit.corp.example\"]", &format!("tokens = [\"{digest}\"]"));
    scene.pki.principals(&changed)?;
    assert!(scene.door.reload()?);
    assert_eq!(refused(&open).await, unauthenticated());
    let with_token = scene.clients(&with_token).await?;
    assert_eq!(refused(&with_token).await, None);

    // A file that cannot be used changes nothing, and is complained of once.
    let broken = changed.replace("roles", "rolls");
    let path = scene.pki.principals(&broken)?;
    let complaint = scene.door.reload().err().context("took nonsense")?;
    assert!(matches!(complaint, IdentityError::Principals { line: 4, .. }), "{complaint}");
    assert!(!scene.door.reload()?);
    assert_eq!(refused(&with_token).await, None);
    put(&path, changed.as_bytes())?;
    assert!(scene.door.reload()?);

    // A new certificate from another authority; the pair is replaced one file after the other.
    let other = Pki::new()?;
    put(&scene.pki.path("server.pem"), &fs::read(other.path("server.pem"))?)?;
    let complaint = scene.door.reload().err().context("took half a pair")?;
    assert!(matches!(complaint, IdentityError::Tls { .. }), "{complaint}");
    scene.reach(&auditor).await?;
    put(&scene.pki.path("server.pem.key"), &fs::read(other.path("server.pem.key"))?)?;
    assert!(scene.door.reload()?);
    let told = scene.reach(&auditor).await.err().context("the old certificate is shown")?;
    assert!(told.to_string().contains("UnknownIssuer"), "{told}");
    scene.reach(&other.nobody()).await?;
    // Connections from before go on.
    assert_eq!(refused(&with_token).await, None);
    scene.node.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_end_with_the_right_to_them_and_with_nothing_else() -> anyhow::Result<()> {
    let scene = Scene::new().await?;
    let mut source = scene.node.clients().enrolled("payments", 1, &scene.node.vkey).await?;
    let (batch, later) = (source.record(1)?, source.record(1)?);
    let (sender, requests) = mpsc::channel(1);
    let requests = tokio_stream::wrappers::ReceiverStream::new(requests);
    let mut recorder = scene.node.clients().recorder;
    let mut receipts = recorder.append_stream(requests).await?.into_inner();
    sender.send(batch.request()).await?;
    receipts.message().await?.context("no receipt")?;
    let auditor = scene.clients(&scene.pki.client("auditor.pem", &AUDITOR)?).await?;
    let watch = async |first_index| {
        let request = wire::WatchRequest { first_index, with_events: false };
        anyhow::Ok(auditor.auditor.clone().watch(request).await?.into_inner())
    };
    let mut watched = watch(3).await?;
    let ended = async |watched: &mut Streaming<wire::WatchResponse>| {
        let end = timeout(PATIENCE, watched.message()).await.context("it goes on")?;
        let refused = Refused::of(&end.err().context("it ended well")?);
        anyhow::Ok((refused.code, refused.reason))
    };

    // One that is added, and one that has another role besides, change nothing for the others.
    let (_, digest) = scene.pki.token("other.token")?;
    let other =
        format!("[[principal]]\nname = \"other\"\nroles = [\"audit\"]\ntokens = [\"{digest}\"]\n");
    let more = PRINCIPALS.replace("[\"audit\"]", "[\"audit\", \"operate\"]") + &other;
    scene.pki.principals(&more)?;
    assert!(scene.door.reload()?);
    sender.send(later.request()).await?;
    receipts.message().await?.context("no receipt")?;
    watched.message().await?.context("nothing new")?;

    // The role is gone; then the certificate is nobody's; and who records is bound to others.
    scene.pki.principals(&PRINCIPALS.replace("\"audit\"", "\"operate\""))?;
    assert!(scene.door.reload()?);
    let forbidden = (Code::PermissionDenied, "CALL_FORBIDDEN".to_owned());
    assert_eq!(ended(&mut watched).await?, forbidden);
    scene.pki.principals(PRINCIPALS)?;
    assert!(scene.door.reload()?);
    let mut watched = watch(4).await?;
    let bound = "roles = [\"record\"]\nsources = [\"shop\"]";
    let without = PRINCIPALS.replace("audit.corp", "nobody.corp");
    scene.pki.principals(&without.replace("roles = [\"record\"]", bound))?;
    assert!(scene.door.reload()?);
    assert_eq!(Some(ended(&mut watched).await?), unauthenticated());
    let end = timeout(PATIENCE, receipts.message()).await.context("it goes on")?;
    let refused = Refused::of(&end.err().context("it ended well")?);
    assert_eq!((refused.code, refused.reason), forbidden);
    scene.node.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_counts_for_more_than_the_certificate_beside_it() -> anyhow::Result<()> {
    let scene = Scene::new().await?;
    let (token, digest) = scene.pki.token("gateway.token")?;
    let gateway = format!(
        "[[principal]]\nname = \"gateway\"\nroles = [\"authorize\"]\ntokens = [\"{digest}\"]\n"
    );
    scene.pki.principals(&format!("{PRINCIPALS}{gateway}"))?;
    assert!(scene.door.reload()?);
    let auditor = scene.pki.client("auditor.pem", &AUDITOR)?;
    let both = auditor.clone().or(token);
    let sources = async |clients: Clients| {
        let call = clients.auditor.clone().list_sources(wire::ListSourcesRequest::default()).await;
        call.err().map(|status| Refused::of(&status).reason)
    };
    assert_eq!(sources(scene.clients(&auditor).await?).await, None);
    let reason = sources(scene.clients(&both).await?).await;
    assert_eq!(reason.as_deref(), Some("CALL_FORBIDDEN"));
    // A token that nobody knows is not made good by the certificate.
    put(&scene.pki.path("gateway.token"), b"guessed\n")?;
    let reason = sources(scene.clients(&both).await?).await;
    assert_eq!(reason.as_deref(), Some("UNAUTHENTICATED"));
    scene.node.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_are_served_over_tls_and_a_silent_handshake_holds_nobody_up() -> anyhow::Result<()> {
    let scene = Scene::new().await?;
    let mut silent = Vec::new();
    for _ in 0..50 {
        silent.push(TcpStream::connect(scene.node.address).await?);
    }
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(scene.pki.path("ca.pem"))?)?;
    let provider = Arc::new(tokio_rustls::rustls::crypto::ring::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    let stream = TcpStream::connect(scene.node.address).await?;
    let connector = TlsConnector::from(Arc::new(config));
    let connecting = connector.connect(ServerName::try_from("localhost")?, stream);
    let mut stream = timeout(Duration::from_secs(9), connecting).await??;
    stream.write_all(b"GET /checkpoint HTTP/1.1\r\nHost: l\r\nConnection: close\r\n\r\n").await?;
    let mut answer = Vec::new();
    // How a connection ends is not what this is about.
    drop(stream.read_to_end(&mut answer).await);
    let answer = String::from_utf8(answer)?.to_lowercase();
    assert!(
        answer.starts_with("http/1.1 401") && answer.contains("www-authenticate: bearer"),
        "{answer}"
    );
    drop(silent);
    scene.node.stop().await
}

#[test]
fn unusable_files_are_refused_at_the_start() -> anyhow::Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    let pki = Pki::new()?;
    let good = pki.door(PRINCIPALS)?;
    let tls = good.tls.clone().context("no TLS")?;
    let told = |files: DoorFiles| -> anyhow::Result<String> {
        Ok(Door::open(&disk(), files).err().context("taken")?.to_string())
    };
    let with = |tls: TlsFiles| DoorFiles { tls: Some(tls), ..good.clone() };
    let missing = told(with(TlsFiles { certificate: pki.path("none.pem"), ..tls.clone() }))?;
    assert!(missing.contains("none.pem: No such file"), "{missing}");
    let no_chain = told(with(TlsFiles { certificate: tls.key.clone(), ..tls.clone() }))?;
    assert!(no_chain.contains("no certificate in it"), "{no_chain}");
    let other = told(with(TlsFiles { key: pki.path("ca.pem.key"), ..tls.clone() }))?;
    assert!(other.contains("KeyMismatch") || other.contains("keys may not"), "{other}");
    fs::set_permissions(&tls.key, fs::Permissions::from_mode(0o640))?;
    let exposed = told(good.clone())?;
    assert!(exposed.contains("server.pem.key: mode is 640"), "{exposed}");
    fs::set_permissions(&tls.key, fs::Permissions::from_mode(0o600))?;
    Door::open(&disk(), good.clone())?;
    pki.principals("[[principal]]\nname = 3\n")?;
    let malformed = told(good)?;
    assert!(malformed.contains("principals.toml:2: invalid type"), "{malformed}");
    Ok(())
}
