//! What an auditor gets who asks a ledger for entries: the same on the server's word, proven, and
//! from the verified log; and that a server which answers with something else is found out.

use std::sync::Arc;

use access_ledger_client::{
    audit::audit_observed,
    connect::Link,
    evidence::Caught,
    pull::Puller,
    query::{Hit, Selection, proven_hits},
    view::View,
};
use access_ledger_proto::{
    note::VerifierKey,
    quorum::Quorum,
    terms::Criteria,
    wire::{
        self, Filter, QueryRequest, QueryResponse,
        audit_service_client::AuditServiceClient,
        audit_service_server::{AuditService, AuditServiceServer},
        event::Body,
    },
};
use access_ledger_tests::{
    node::{Clients, Node},
    process::binaries,
    source::{Refused, Source},
};
use anyhow::{Context as _, ensure};
use bytes::Bytes;
use prost::Message as _;
use tempfile::TempDir;
use tokio::{net::TcpListener, process::Command};
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{
    Code, Request, Response, Status,
    codegen::BoxStream,
    transport::{Channel, Server},
};

/// A ledger with some hundred events of two sources.
struct Scene {
    folder: TempDir,
    node: Node,
}

impl Scene {
    async fn open() -> anyhow::Result<Self> {
        let folder = tempfile::tempdir()?;
        let node = Node::start(&folder.path().join("ledger")).await?;
        let (clients, vkey) = (node.clients(), node.vkey.clone());
        let mut payments = clients.enrolled("payments", 1, &vkey).await?;
        let mut support = clients.enrolled("support", 2, &vkey).await?;
        for batch in 0..30_u16 {
            let source = if batch.is_multiple_of(3) { &mut support } else { &mut payments };
            record(&clients, source, (batch * 10..batch * 10 + 10).map(event).collect()).await?;
        }
        Ok(Self { folder, node })
    }

    fn url(&self) -> String {
        format!("http://{}", self.node.address)
    }

    fn vkey(&self) -> &VerifierKey {
        &self.node.vkey
    }

    /// What the verified log says, from whoever serves it.
    async fn verified(
        &self,
        url: &str,
        filter: &Filter,
        newest_first: bool,
    ) -> anyhow::Result<Vec<Hit>> {
        let puller = Puller::new(Channel::from_shared(url.to_owned())?.connect().await?);
        let mut view = View::open(&self.folder.path().join("view.json"), self.vkey())?;
        let selection = Selection::new(Criteria::parse(filter)?, newest_first, usize::MAX);
        let quiet = Arc::new(|_, _| ());
        let audited = audit_observed(&puller, &mut view, Quorum::default(), quiet, selection);
        let (audited, selection) = Box::pin(audited).await?;
        let selected = selection.conclude(&puller, &audited, self.vkey()).await?;
        ensure!(selected.count == Some(u64::try_from(selected.hits.len())?));
        Ok(selected.hits)
    }

    /// What the server says, page by page, each hit proven.
    async fn proven(
        &self,
        url: &str,
        filter: &Filter,
        (newest_first, page_size): (bool, u32),
    ) -> anyhow::Result<Vec<Hit>> {
        let criteria = Criteria::parse(filter)?;
        let puller = Puller::new(Channel::from_shared(url.to_owned())?.connect().await?);
        let mut request = QueryRequest { newest_first, page_size, ..with_proofs(filter.clone()) };
        let mut hits = Vec::new();
        loop {
            let page = puller.query(&request).await?;
            ensure!(page.hits.len() <= usize::try_from(page_size)?);
            hits.extend(proven_hits(&page, &criteria, self.vkey())?);
            if page.next_page_token.is_empty() {
                return Ok(hits);
            }
            request.page_token = page.next_page_token;
        }
    }
}

async fn record(clients: &Clients, source: &mut Source, events: Vec<Bytes>) -> anyhow::Result<()> {
    clients.record(&source.seal(events)?).await?;
    Ok(())
}

/// One of 300, told apart by its number.
fn event(number: u16) -> Bytes {
    let [high, low] = number.to_be_bytes();
    let data = wire::Data {
        dataset: format!("users.{}", number % 7),
        boundary: wire::Boundary::Protected.into(),
        subject_jurisdiction: if number.is_multiple_of(5) { "US" } else { "IE" }.into(),
        subject_tokens: vec![vec![low; 16].into()],
        records: 1,
        ..Default::default()
    };
    let place = |site: &str, country: &str| {
        Some(wire::Place { site: site.into(), country: country.into(), ..Default::default() })
    };
    let body = if number % 10 == 9 {
        Body::Transfer(wire::Transfer {
            from: place("home", "US"),
            to: place("abroad", "SG"),
            mode: wire::TransferMode::Copy.into(),
            data: vec![data],
            ..Default::default()
        })
    } else {
        Body::Access(wire::Access {
            // From a newer client.
            purpose: if number == 123 { 4_711 } else { i32::from(number % 4) },
            action: if number.is_multiple_of(2) {
                wire::Action::Read
            } else {
                wire::Action::Export
            }
            .into(),
            outcome: wire::Outcome::Allowed.into(),
            data: vec![data],
            ..Default::default()
        })
    };
    let actor = wire::Principal {
        id: format!("u-{}", number % 11),
        physical_country: if number.is_multiple_of(3) { "SG" } else { "US" }.into(),
        ..Default::default()
    };
    wire::Event {
        event_id: vec![7, 7, 7, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, high, low].into(),
        occurred_at: Some(prost_types::Timestamp { seconds: 1_760_000_000, nanos: 0 }),
        actor: Some(actor),
        body: Some(body),
        ..Default::default()
    }
    .encode_to_vec()
    .into()
}

fn with_proofs(filter: Filter) -> QueryRequest {
    QueryRequest {
        filter: Some(filter),
        with_events: true,
        with_proofs: true,
        ..Default::default()
    }
}

/// Filters, each with how many of the 300 events meet it; `None` where that is for the verified log
/// to say.
fn filters() -> Vec<(Filter, Option<usize>)> {
    let one = |text: &str| vec![text.to_owned()];
    vec![
        (Filter { actors: one("u-3"), ..Default::default() }, Some(27)),
        (
            Filter {
                actors: one("u-3"),
                physical_countries: one("SG"),
                actions: vec![wire::Action::Export.into()],
                ..Default::default()
            },
            None,
        ),
        (Filter { purposes: vec![4_711], ..Default::default() }, Some(1)),
        (
            Filter { place_countries: one("SG"), bodies: one("transfer"), ..Default::default() },
            Some(30),
        ),
        (Filter { sources: one("support"), jurisdictions: one("US"), ..Default::default() }, None),
        (Filter { subject_tokens: vec![vec![4; 16].into()], ..Default::default() }, Some(2)),
        (
            Filter {
                event_ids: [17, 250, 999].map(|number: u16| id_of(number)).to_vec(),
                ..Default::default()
            },
            Some(2),
        ),
        (Filter { rules: one("NO_GRANT"), actors: one("u-3"), ..Default::default() }, None),
        (Filter { tools: one("none"), ..Default::default() }, Some(0)),
        (Filter::default(), None),
    ]
}

fn id_of(number: u16) -> Bytes {
    wire::Event::decode(event(number)).map(|event| event.event_id).unwrap_or_default()
}

#[tokio::test]
async fn the_servers_answer_is_that_of_the_verified_log() -> anyhow::Result<()> {
    let scene = Scene::open().await?;
    for (filter, count) in filters() {
        for newest_first in [false, true] {
            let verified = scene.verified(&scene.url(), &filter, newest_first).await?;
            for page_size in [7, 1_000] {
                let order = (newest_first, page_size);
                let proven = scene.proven(&scene.url(), &filter, order).await?;
                ensure!(proven == verified, "{filter:?}: {} hits", proven.len());
            }
            ensure!(count.is_none_or(|count| count == verified.len()), "{filter:?}");
        }
    }
    let by_rule = Filter { rules: vec!["NO_GRANT".to_owned()], ..Default::default() };
    ensure!(!scene.verified(&scene.url(), &by_rule, false).await?.is_empty());
    scene.node.stop().await
}

#[tokio::test]
async fn a_time_range_finds_what_was_recorded_in_it() -> anyhow::Result<()> {
    let scene = Scene::open().await?;
    let all = scene.verified(&scene.url(), &Filter::default(), false).await?;
    let recorded_at = |hit: &Hit| -> anyhow::Result<u64> {
        Ok(access_ledger_proto::entry::Entry::parse(&hit.record.entry)?.recorded_at)
    };
    let (from, to) = (recorded_at(&all[40])?, recorded_at(&all[200])?);
    let time = |nanos: u64| -> anyhow::Result<_> {
        let (seconds, nanos) = (i64::try_from(nanos / 1_000_000_000)?, nanos % 1_000_000_000);
        Ok(Some(prost_types::Timestamp { seconds, nanos: i32::try_from(nanos)? }))
    };
    let filter = Filter { from: time(from)?, to: time(to)?, ..Default::default() };
    let mut wanted = Vec::new();
    for hit in all {
        if (from..to).contains(&recorded_at(&hit)?) {
            wanted.push(hit);
        }
    }
    ensure!(!wanted.is_empty());
    ensure!(scene.proven(&scene.url(), &filter, (false, 50)).await? == wanted);
    scene.node.stop().await
}

#[tokio::test]
async fn malformed_filters_and_tokens_are_refused_by_field() -> anyhow::Result<()> {
    let scene = Scene::open().await?;
    let mut auditor = scene.node.clients().auditor;
    let country = Filter { office_countries: vec!["us".to_owned()], ..Default::default() };
    let many = Filter { actors: vec!["u".to_owned(); 101], ..Default::default() };
    let kind = Filter { bodies: vec!["accesses".to_owned()], ..Default::default() };
    for (filter, field) in
        [(country, "filter.office_countries"), (many, "filter.actors"), (kind, "filter.bodies")]
    {
        refused(&mut auditor, with_proofs(filter), field).await?;
    }
    let filter = Filter { actors: vec!["u-3".to_owned()], ..Default::default() };
    let first = QueryRequest { page_size: 2, ..with_proofs(filter) };
    let token = auditor.query(first.clone()).await?.into_inner().next_page_token;
    ensure!(!token.is_empty());
    let next = QueryRequest { page_token: token.clone(), ..first.clone() };
    auditor.query(next.clone()).await?;
    let other = Filter { actors: vec!["u-4".to_owned()], ..Default::default() };
    for request in [
        QueryRequest { filter: Some(other), ..next.clone() },
        QueryRequest { newest_first: true, ..next.clone() },
        QueryRequest { page_token: token.replace(['0', '1'], "2"), ..first.clone() },
        QueryRequest { page_token: token[1..].to_owned(), ..first.clone() },
        QueryRequest { page_token: "\u{e9}".repeat(16), ..first.clone() },
    ] {
        refused(&mut auditor, request, "page_token").await?;
    }
    scene.node.stop().await
}

async fn refused(
    auditor: &mut AuditServiceClient<Link>,
    request: QueryRequest,
    field: &str,
) -> anyhow::Result<()> {
    let status = auditor.query(request).await.err().context("the ledger answered")?;
    let refused = Refused::of(&status);
    ensure!(refused.kind() == (Code::InvalidArgument, "REQUEST_INVALID"), "{refused:?}");
    ensure!(refused.field.as_deref() == Some(field), "{refused:?}");
    Ok(())
}

#[tokio::test]
async fn long_events_end_a_page_early() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let node = Node::start(&folder.path().join("ledger")).await?;
    let (clients, vkey) = (node.clients(), node.vkey.clone());
    let mut source = clients.enrolled("payments", 1, &vkey).await?;
    let long = |number: u16| -> anyhow::Result<Bytes> {
        let mut event = wire::Event::decode(event(number))?;
        if let Some(Body::Access(access)) = &mut event.body {
            access.justification = "x".repeat(4_096);
        }
        Ok(event.encode_to_vec().into())
    };
    for batch in 0..4_u16 {
        let events = (batch * 100..batch * 100 + 100).map(long).collect::<Result<_, _>>()?;
        record(&clients, &mut source, events).await?;
    }
    let filter = Filter { bodies: vec!["access".to_owned()], ..Default::default() };
    let mut request = QueryRequest { page_size: 1_000, ..with_proofs(filter) };
    let mut pages = Vec::new();
    loop {
        let page = clients.auditor.clone().query(request.clone()).await?.into_inner();
        ensure!(page.encoded_len() < 1 << 20);
        pages.push(page.hits.len());
        if page.next_page_token.is_empty() {
            break;
        }
        request.page_token = page.next_page_token;
    }
    ensure!(pages.len() > 2 && pages.iter().sum::<usize>() == 360, "{pages:?}");
    drop(clients);
    node.stop().await
}

#[tokio::test]
async fn a_hit_that_is_left_out_is_unmasked_by_the_verified_log() -> anyhow::Result<()> {
    let scene = Scene::open().await?;
    let between = Between::start(scene.node.clients().auditor, |mut page| {
        page.hits.remove(page.hits.len() / 2);
        page
    })
    .await?;
    let filter = Filter { actors: vec!["u-3".to_owned()], ..Default::default() };
    let told = scene.proven(&between.url, &filter, (false, 1_000)).await?;
    let verified = scene.verified(&between.url, &filter, false).await?;
    // What is there is proven, so nothing but the log shows what is not.
    let missing: Vec<_> = verified.iter().filter(|hit| !told.contains(hit)).collect();
    ensure!(told.len() == 26 && missing.len() == 1);
    let word = ask(&scene, &between.url, &["--proofs"]).await?;
    let whole = ask(&scene, &between.url, &["--verified"]).await?;
    ensure!(word.len() == 26 && whole.len() == 27);
    ensure!(whole.iter().filter(|line| !word.contains(line)).count() == 1);
    scene.node.stop().await
}

/// What the command line prints for actor u-3, as lines of JSON.
async fn ask(scene: &Scene, url: &str, flags: &[&str]) -> anyhow::Result<Vec<String>> {
    let vkey = scene.vkey().to_string();
    let output = Command::new(binaries()?.join("access-ledger"))
        .args(["query", "--actor", "u-3", "--ledger", &vkey, "--format", "json", "--limit", "0"])
        .args(flags)
        .args(["--server", url])
        .current_dir(scene.folder.path())
        .output()
        .await?;
    ensure!(output.status.success(), "{output:?}");
    Ok(String::from_utf8(output.stdout)?.lines().map(str::to_owned).collect())
}

#[tokio::test]
async fn a_hit_that_is_not_what_the_ledger_signed_convicts_the_server() -> anyhow::Result<()> {
    type Change = fn(&mut QueryResponse);
    let scene = Scene::open().await?;
    let filter = Filter { actors: vec!["u-3".to_owned()], ..Default::default() };
    let changes: [(&str, Change); 6] = [
        ("another event", |page| page.hits[3].event = event(5)),
        ("another entry", |page| page.hits[3].entry = page.hits[4].entry.clone()),
        ("another place", |page| page.hits[3].index += 1),
        ("a cut path", |page| drop(page.hits[3].inclusion_path.pop())),
        ("a hash that is none", |page| page.hits[3].inclusion_path[0] = Bytes::from_static(b"x")),
        ("another note", |page| page.checkpoint = Bytes::from_static(b"note")),
    ];
    let honest = QueryRequest { page_size: 10, ..with_proofs(filter.clone()) };
    let honest = scene.node.clients().auditor.query(honest).await?.into_inner();
    let criteria = Criteria::parse(&filter)?;
    ensure!(proven_hits(&honest, &criteria, scene.vkey())?.len() == 10);
    for (what, change) in changes {
        let mut page = honest.clone();
        change(&mut page);
        let caught = proven_hits(&page, &criteria, scene.vkey()).err();
        ensure!(caught.is_some(), "{what}");
    }
    let other = Criteria::parse(&Filter { actors: vec!["u-4".to_owned()], ..Default::default() })?;
    let caught = proven_hits(&honest, &other, scene.vkey()).err();
    ensure!(matches!(caught, Some(Caught::Answer { .. })), "{caught:?}");
    scene.node.stop().await
}

type Change = Box<dyn Fn(QueryResponse) -> QueryResponse + Send + Sync>;

/// Stands between an auditor and a ledger, and changes the answers to queries.
struct Between {
    ledger: AuditServiceClient<Link>,
    change: Change,
}

struct Listening {
    url: String,
    run: tokio::task::JoinHandle<()>,
}

impl Drop for Listening {
    fn drop(&mut self) {
        self.run.abort();
    }
}

impl Between {
    async fn start(
        ledger: AuditServiceClient<Link>,
        change: impl Fn(QueryResponse) -> QueryResponse + Send + Sync + 'static,
    ) -> anyhow::Result<Listening> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let url = format!("http://{}", listener.local_addr()?);
        let service = AuditServiceServer::new(Self { ledger, change: Box::new(change) });
        let run = tokio::spawn(async move {
            let server = Server::builder().add_service(service);
            // The test sees that nobody answers.
            drop(server.serve_with_incoming(TcpListenerStream::new(listener)).await);
        });
        Ok(Listening { url, run })
    }
}

#[tonic::async_trait]
impl AuditService for Between {
    async fn query(
        &self,
        request: Request<QueryRequest>,
    ) -> Result<Response<QueryResponse>, Status> {
        let answer = self.ledger.clone().query(request).await?;
        Ok(answer.map(&self.change))
    }

    async fn get_checkpoint(
        &self,
        request: Request<wire::GetCheckpointRequest>,
    ) -> Result<Response<wire::GetCheckpointResponse>, Status> {
        self.ledger.clone().get_checkpoint(request).await
    }

    async fn read_entries(
        &self,
        request: Request<wire::ReadEntriesRequest>,
    ) -> Result<Response<BoxStream<wire::ReadEntriesResponse>>, Status> {
        let runs = self.ledger.clone().read_entries(request).await?;
        Ok(runs.map(|runs| Box::pin(runs) as BoxStream<_>))
    }

    async fn get_consistency_proof(
        &self,
        request: Request<wire::GetConsistencyProofRequest>,
    ) -> Result<Response<wire::GetConsistencyProofResponse>, Status> {
        self.ledger.clone().get_consistency_proof(request).await
    }
}
