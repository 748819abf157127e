//! Every call with every role and with none: what `server/README.md` says of a call is what the
//! server does, and no call is missing there.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    path::Path,
    time::Duration,
};

use access_ledger_client::connect::{Credentials, Link};
use access_ledger_proto::{hash::sha256, wire};
use access_ledger_server::identity::{CALLS, Door, DoorFiles, Role};
use access_ledger_tests::{
    node::{Clients, Node, Setup},
    pki::{Pki, put},
    process::Process,
    source::Refused,
};
use anyhow::{Context as _, ensure};
use bytes::{Buf as _, BufMut as _, Bytes};
use prost::Message as _;
use tempfile::TempDir;
use tonic::{
    Code, Request, Status,
    client::Grpc,
    codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder},
    codegen::http::uri::PathAndQuery,
};

/// Messages as they are on the wire.
#[derive(Default)]
struct Raw;

impl Codec for Raw {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, item: Bytes, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.put(item);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(buffer.copy_to_bytes(buffer.remaining())))
    }
}

/// Who may make a call, as the README tells: the roles, or `None` for anybody.
type Told = BTreeMap<String, Option<Vec<String>>>;

/// A method as the README names it: without the slash and the package in front.
fn short(path: &str) -> &str {
    path.rsplit_once('.').map_or(path, |(_, method)| method)
}

/// The table of calls in the server's README.
fn told() -> anyhow::Result<Told> {
    let readme = Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("no workspace")?;
    let readme = fs::read_to_string(readme.join("server/README.md"))?;
    let (_, section) = readme.split_once("\n## Who may call\n").context("no such section")?;
    let section = section.split("\n## ").next().unwrap_or_default();
    let mut told = Told::new();
    for row in section.lines().filter(|line| line.starts_with("| `")) {
        let mut cells = row.trim_matches('|').split('|').map(str::trim);
        let (calls, roles) =
            (cells.next().unwrap_or_default(), cells.next().context(row.to_owned())?);
        let roles = (roles != "anybody").then(|| {
            let roles =
                if roles == "any" { "record, authorize, audit, custody, operate" } else { roles };
            roles.split(", ").map(str::to_owned).collect()
        });
        for call in calls.split(", ") {
            let call = call.trim_matches('`').to_owned();
            ensure!(
                told.insert(call.clone(), roles.clone()).is_none(),
                "{call} stands there twice"
            );
        }
    }
    Ok(told)
}

fn token_of(role: &str) -> String {
    format!("token-of-{role}")
}

/// The name in the client certificate.
fn uri_of(role: &str) -> String {
    format!("spiffe://corp.example/{role}")
}

/// Principals with one role each, known by token and by certificate.
fn text_of_principals() -> String {
    let principal = |role: Role| {
        let (digest, uri) = (sha256(token_of(role.as_str()).as_bytes()), uri_of(role.as_str()));
        format!(
            "[[principal]]\nname = \"{role}\"\nroles = [\"{role}\"]\n\
             tokens = [\"sha256:{digest}\"]\nuris = [\"{uri}\"]\n"
        )
    };
    Role::ALL.into_iter().map(principal).collect()
}

fn principals(folder: &Path) -> anyhow::Result<DoorFiles> {
    let path = folder.join("principals.toml");
    put(&path, text_of_principals().as_bytes())?;
    Ok(DoorFiles { tls: None, principals: Some(path) })
}

/// A ledger that knows them, on loopback without TLS.
async fn guarded() -> anyhow::Result<(TempDir, Node)> {
    let folder = tempfile::tempdir()?;
    let setup = Setup::new(&folder.path().join("data"));
    let door = Door::open(&setup.disk, principals(folder.path())?)?;
    let node = Setup { door, ..setup }.start().await?;
    Ok((folder, node))
}

fn link(node: &Node, token: Option<&str>) -> anyhow::Result<Link> {
    let credentials = match token {
        Some(token) => Credentials::default().token(token)?,
        None => Credentials::default(),
    };
    Ok(credentials.link(&node.url)?)
}

/// Makes a call with an empty message, or one that any role may send; the first answer, if any.
async fn call(link: Link, path: &str) -> Result<Option<Bytes>, Status> {
    let message = if path.ends_with("/ReadEntries") {
        let genesis = wire::ReadEntriesRequest { end_index: 1, ..Default::default() };
        genesis.encode_to_vec().into()
    } else {
        Bytes::new()
    };
    let mut client = Grpc::new(link);
    client.ready().await.map_err(|error| Status::unknown(error.to_string()))?;
    let path: PathAndQuery = path.parse().map_err(|_| Status::unknown("no path"))?;
    let request = Request::new(tokio_stream::iter([message]));
    let answers = client.streaming(request, path, Raw);
    let answers = tokio::time::timeout(PATIENCE, answers);
    let answers = answers.await.map_err(|_| Status::unknown("no answer"))??;
    tokio::time::timeout(PATIENCE, answers.into_inner().message())
        .await
        .map_err(|_| Status::unknown("no message"))?
}

const PATIENCE: Duration = Duration::from_secs(20);

/// Whether the door let the call in, and how it refused otherwise.
fn verdict(answer: Result<Option<Bytes>, Status>) -> anyhow::Result<Option<(Code, String)>> {
    let Err(status) = answer else { return Ok(None) };
    ensure!(status.code() != Code::Unknown, "{status:?}");
    let refused = Refused::of(&status);
    let by_the_door =
        matches!(&*refused.reason, "UNAUTHENTICATED" | "CALL_FORBIDDEN" | "CALL_UNKNOWN");
    Ok(by_the_door.then_some((refused.code, refused.reason)))
}

#[test]
fn the_readme_tells_the_permission_of_every_method() -> anyhow::Result<()> {
    let told = told()?;
    for (path, permission) in CALLS {
        let method =
            told.get(short(path)).with_context(|| format!("{path} is not in the README"))?;
        let told = method.as_ref().map_or_else(|| "none".to_owned(), |roles| roles.join(" or "));
        assert_eq!(permission.roles(), told, "{path}");
    }
    let named: BTreeSet<_> =
        told.keys().map(|call| &**call).filter(|call| !call.contains(' ')).collect();
    let served: BTreeSet<_> = CALLS.iter().map(|(path, _)| short(path)).collect();
    assert_eq!(named, served);
    Ok(())
}

/// Makes every call with what each role shows, and as strangers do.
async fn walk(
    by_role: impl AsyncFn(Role) -> anyhow::Result<Link>,
    strangers: &[Link],
) -> anyhow::Result<()> {
    let told = told()?;
    for (path, _) in CALLS {
        let roles =
            told.get(short(path)).with_context(|| format!("{path} is not in the README"))?;
        for (number, stranger) in strangers.iter().enumerate() {
            let refused = verdict(call(stranger.clone(), path).await)?;
            let wanted = (Code::Unauthenticated, "UNAUTHENTICATED".to_owned());
            assert_eq!(refused, roles.as_ref().map(|_| wanted), "{path} by stranger {number}");
        }
        for role in Role::ALL {
            let may =
                roles.as_ref().is_none_or(|roles| roles.iter().any(|may| may == role.as_str()));
            let refused = verdict(call(by_role(role).await?, path).await)?;
            let wanted = (Code::PermissionDenied, "CALL_FORBIDDEN".to_owned());
            assert_eq!(refused, (!may).then_some(wanted), "{path} by {role}");
        }
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn every_method_is_open_to_its_roles_and_to_nobody_else() -> anyhow::Result<()> {
    let (_folder, node) = guarded().await?;
    let strangers = [link(&node, None)?, link(&node, Some("token-of-nobody"))?];
    walk(async |role| link(&node, Some(&token_of(role.as_str()))), &strangers).await?;
    node.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn over_tls_too_every_method_is_open_to_its_roles_and_to_nobody_else() -> anyhow::Result<()> {
    let pki = Pki::new()?;
    let setup = Setup::new(&pki.path("data"));
    let door = Door::open(&setup.disk, pki.door(&text_of_principals())?)?;
    let client = |name: &str, uri: &str| pki.client(&format!("{name}.pem"), &["--uri", uri]);
    let mut shown = BTreeMap::new();
    for role in Role::ALL {
        shown.insert(role.as_str(), client(role.as_str(), &uri_of(role.as_str()))?.read()?);
    }
    let credentials = shown.get("record").context("no recorder")?.clone();
    let node = Setup { door, credentials, ..setup }.start().await?;
    let nobody = [
        pki.nobody().read()?,
        pki.nobody().read()?.token("token-of-nobody")?,
        client("nobody", &uri_of("nobody"))?.read()?,
        client("other", "https://corp.example/audit")?.read()?,
    ];
    let strangers = nobody.iter().map(|nobody| nobody.link(&node.url));
    let strangers = strangers.collect::<Result<Vec<_>, _>>()?;
    let by_role = async |role: Role| {
        Ok(shown.get(role.as_str()).context("no certificate")?.link(&node.url)?)
    };
    walk(by_role, &strangers).await?;
    node.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_served_is_refused_whoever_asks() -> anyhow::Result<()> {
    let (_folder, node) = guarded().await?;
    for path in [
        "/access_ledger.v1.RecorderService/Erase",
        "/access_ledger.v1.RecorderService/append",
        "/access_ledger.v1.RecorderService/Append/",
        "/Append",
        "/checkpoint",
    ] {
        let refused = verdict(call(link(&node, Some("token-of-audit"))?, path).await)?;
        assert_eq!(refused, Some((Code::Unimplemented, "CALL_UNKNOWN".to_owned())), "{path}");
    }
    node.stop().await
}

/// The status of a page.
fn page(address: SocketAddr, head: &str, token: Option<&str>) -> anyhow::Result<u16> {
    let mut connection = TcpStream::connect(address)?;
    connection.set_read_timeout(Some(PATIENCE))?;
    let authorization =
        token.map_or_else(String::new, |token| format!("Authorization: Bearer {token}\r\n"));
    write!(
        connection,
        "{head} HTTP/1.1\r\nHost: ledger\r\nContent-Length: 0\r\nConnection: close\r\n{authorization}\r\n"
    )?;
    let mut answer = Vec::new();
    connection.read_to_end(&mut answer)?;
    let answer = String::from_utf8_lossy(&answer);
    let status = answer.split(' ').nth(1).with_context(|| answer.to_string())?;
    Ok(status.parse()?)
}

#[tokio::test(flavor = "multi_thread")]
async fn every_page_is_open_to_its_roles_and_to_nobody_else() -> anyhow::Result<()> {
    let (_folder, node) = guarded().await?;
    let told = told()?;
    let hex = "0f".repeat(32);
    // What a ledger does not serve, the door knows all the same: a custodian has the same.
    for (pattern, head) in [
        ("GET /checkpoint", "GET /checkpoint".to_owned()),
        ("GET /tile/...", "GET /tile/0/000.p/1".to_owned()),
        ("GET /<hex>/checkpoint", format!("GET /{hex}/checkpoint")),
        ("GET /<hex>/tile/...", format!("GET /{hex}/tile/0/000.p/1")),
        ("POST /add-checkpoint", "POST /add-checkpoint".to_owned()),
        ("GET /metrics", "GET /metrics".to_owned()),
    ] {
        let roles = told.get(pattern).with_context(|| format!("{pattern} is not in the README"))?;
        let roles = roles.as_ref().context("no page is open")?;
        let address = node.address;
        let get = async |token: Option<String>| {
            let head = head.clone();
            tokio::task::spawn_blocking(move || page(address, &head, token.as_deref())).await?
        };
        assert_eq!(get(None).await?, 401, "{head}");
        assert_eq!(get(Some("token-of-nobody".to_owned())).await?, 401, "{head}");
        for role in Role::ALL {
            let may = roles.iter().any(|may| may == role.as_str());
            let status = get(Some(token_of(role.as_str()))).await?;
            assert!(status != 401 && (status == 403) != may, "{head} by {role}: {status}");
        }
    }
    let address = node.address;
    let missing = move || page(address, "GET /other", Some("token-of-audit"));
    assert_eq!(tokio::task::spawn_blocking(missing).await??, 404);
    let asking = move || page(address, "OPTIONS /checkpoint", None);
    assert_eq!(tokio::task::spawn_blocking(asking).await??, 204);
    node.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn odd_requests_lead_nowhere() -> anyhow::Result<()> {
    let (_folder, node) = guarded().await?;
    let address = node.address;
    for (head, wanted) in [
        // Other spellings of what is served are other paths, whoever looks at them.
        ("GET /%63heckpoint", &[404][..]),
        ("GET //checkpoint", &[404]),
        ("GET /checkpoint/", &[404]),
        ("GET /tile/../metrics", &[400]),
        ("GET /tile/../../access_ledger.v1.AuditService/Query", &[400]),
        ("GET /tile/%2e%2e/checkpoint", &[400]),
        ("GET http://elsewhere.example/metrics", &[403]),
        ("GET http://elsewhere.example/other", &[404]),
        // Other methods than those of the pages.
        ("DELETE /checkpoint", &[405]),
        ("TRACE /checkpoint", &[405]),
        ("get /checkpoint", &[405]),
        ("CONNECT ledger:443", &[404]),
        ("OPTIONS *", &[404]),
        ("OPTIONS /metrics", &[404, 405]),
        // gRPC is spoken over HTTP/2 alone, and by nobody who says something else.
        ("POST /access_ledger.v1.AuditService/Query", &[404]),
        ("POST /grpc.health.v1.Health/Check", &[404]),
    ] {
        let ask = move || page(address, head, Some("token-of-audit"));
        let status = tokio::task::spawn_blocking(ask).await??;
        assert!(wanted.contains(&status), "{head}: {status}");
    }
    // Nobody is talked into another protocol.
    for upgrade in ["websocket", "h2c", "TLS/1.0"] {
        let head = format!(
            "GET /checkpoint HTTP/1.1\r\nUpgrade: {upgrade}\r\nConnection: Upgrade\r\n\
             HTTP2-Settings: AAMAAABkAAQCAAAAAAIAAAAA\r\nX-Rest:"
        );
        let ask = move || page(address, &head, Some("token-of-audit"));
        assert_eq!(tokio::task::spawn_blocking(ask).await??, 200, "{upgrade}");
    }
    node.stop().await
}

#[test]
fn metrics_are_for_who_operates() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let principals = principals(folder.path())?.principals.context("no file")?;
    let principals = principals.to_str().context("no text")?.to_owned();
    let ledger = Process::serve(&folder.path().join("data"), &["--principals", &principals])?;
    let status = |token: Option<&str>| page(ledger.metrics_address, "GET /metrics", token);
    assert_eq!(status(None)?, 401);
    assert_eq!(status(Some("token-of-audit"))?, 403);
    assert_eq!(status(Some("token-of-operate"))?, 200);
    for probe in ["GET /healthz", "GET /readyz"] {
        ensure!(told()?.get(probe) == Some(&None), "{probe} is open, in the README too");
        assert_eq!(page(ledger.metrics_address, probe, None)?, 200, "{probe}");
        assert_eq!(page(ledger.metrics_address, probe, Some("token-of-nobody"))?, 200, "{probe}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_is_asked_on_loopback_without_principals() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let node = Node::start(folder.path()).await?;
    for (path, _) in CALLS {
        assert_eq!(verdict(call(link(&node, None)?, path).await)?, None, "{path}");
        // Somebody who is used to showing a token is not turned away.
        let shown = link(&node, Some("token-of-nobody"))?;
        assert_eq!(verdict(call(shown, path).await)?, None, "{path}");
    }
    node.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bound_principal_speaks_for_its_own_sources_alone() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let setup = Setup::new(&folder.path().join("data"));
    let files = principals(folder.path())?;
    let path = files.principals.clone().context("no file")?;
    let bound = format!(
        "[[principal]]\nname = \"pods\"\nroles = [\"record\", \"authorize\"]\n\
         sources = [\"shop\", \"payments/*\"]\ntokens = [\"sha256:{}\"]\n",
        sha256(token_of("pods").as_bytes())
    );
    put(&path, (fs::read_to_string(&path)? + &bound).as_bytes())?;
    let door = Door::open(&setup.disk, files)?;
    let node = Setup { door, ..setup }.start().await?;
    let clients = |role: &str| -> anyhow::Result<Clients> {
        Ok(Clients::over(link(&node, Some(&token_of(role)))?))
    };
    let (pods, anyone) = (clients("pods")?, clients("record")?);

    let mut payments = anyone.enrolled("payments", 1, &node.vkey).await?;
    let foreign = payments.record(1)?;
    let forbidden = |status: Status| Refused::of(&status).reason;
    for refused in [
        pods.append(&foreign).await.err(),
        pods.last_seq("payments").await.err().and_then(|error| error.downcast().ok()),
        pods.recorder.clone().enroll(payments.enrolment()).await.err(),
    ] {
        assert_eq!(refused.map(forbidden).as_deref(), Some("SOURCE_FORBIDDEN"));
    }
    let intents = wire::AuthorizeRequest { batch: Some(foreign.batch.clone()) };
    let refused = pods.recorder.clone().authorize(intents).await.err();
    assert_eq!(refused.map(forbidden).as_deref(), Some("SOURCE_FORBIDDEN"));
    let stream = tokio_stream::iter([foreign.request()]);
    let mut answers = pods.recorder.clone().append_stream(stream).await?.into_inner();
    let refused = answers.message().await.err();
    assert_eq!(refused.map(forbidden).as_deref(), Some("SOURCE_FORBIDDEN"));

    // Its own it records, proves, and sees; of others it sees nothing.
    let mut shop = pods.enrolled("shop", 2, &node.vkey).await?;
    let place = pods.record(&shop.record(2)?).await?;
    let receipt = async |index| {
        use wire::get_receipt_request::Entry;
        let entry = Some(Entry::Index(index));
        pods.auditor.clone().get_receipt(wire::GetReceiptRequest { entry }).await
    };
    receipt(place.first_index).await?;
    receipt(0).await?;
    let refused = receipt(1).await.err().context("another's receipt")?;
    assert!(!refused.message().contains("payments"), "{}", refused.message());
    assert_eq!(forbidden(refused), "CALL_FORBIDDEN");
    // Nor whether there is such a source, or what it recorded.
    for (name, seq) in [("payments", 1), ("payments", 9), ("nobody", 1)] {
        let position = wire::SourcePosition { source: name.to_owned(), seq };
        let entry = Some(wire::get_receipt_request::Entry::Position(position));
        let refused = pods.auditor.clone().get_receipt(wire::GetReceiptRequest { entry }).await;
        assert_eq!(refused.err().map(forbidden).as_deref(), Some("SOURCE_FORBIDDEN"), "{name}");
    }
    let read = async |first_index, end_index| {
        let request = wire::ReadEntriesRequest { first_index, end_index, with_events: true };
        pods.auditor.clone().read_entries(request).await
    };
    read(0, 1).await?;
    for (first, end) in [(0, 0), (0, 2), (1, 2)] {
        let refused = read(first, end).await.err().map(forbidden);
        assert_eq!(refused.as_deref(), Some("CALL_FORBIDDEN"), "{first}..{end}");
    }
    node.stop().await
}
