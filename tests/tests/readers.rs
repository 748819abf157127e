//! Who reads is recorded: exactly what was sent, in few events, and searches before they are
//! answered.

use std::{path::Path, process::Command, sync::Arc};

use access_ledger_client::{
    audit::audit_observed,
    connect::Credentials,
    pull::Puller,
    reports::{Day, Options, Period, Recomputed, Report},
    view::View,
};
use access_ledger_proto::{
    event::Body,
    hash::sha256,
    note::{KeyType, Signer, VerifierKey},
    quorum::Quorum,
    wire::{self, ControlKind, Filter, ReadKind},
};
use access_ledger_server::identity::Door;
use access_ledger_tests::{
    custodian::{self, until},
    gate::GatedDisk,
    node::{Clients, Node, Setup},
    pages,
    parties::Governance,
    pki::{door_in_the_clear, token_of},
    process::{Process, binaries},
    source::{Refused, Source},
};
use anyhow::{Context as _, ensure};
use prost::Message as _;
use prost_types::Timestamp;
use tonic::Code;

const PRINCIPALS: [(&str, &str); 3] = [
    ("payments", r#""record", "authorize""#),
    ("auditor", r#""audit""#),
    ("custodian", r#""custody""#),
];

/// The services at a URL, as a principal sees them.
fn clients(url: &str, name: &str) -> anyhow::Result<Clients> {
    Ok(Clients::over(Credentials::default().token(&token_of(name))?.link(url)?))
}

/// A ledger that knows the principals, with 30 events in the entries 2 to 31.
async fn guarded(setup: &Setup, folder: &Path) -> anyhow::Result<Node> {
    let door = Door::open(&setup.disk, door_in_the_clear(folder, &PRINCIPALS)?)?;
    let node = Setup { door, ..setup.clone() }.start().await?;
    let payments = clients(&node.url, "payments")?;
    let mut source = payments.enrolled("payments", 1, &node.vkey).await?;
    for _ in 0..3 {
        payments.record(&source.record(10)?).await?;
    }
    Ok(node)
}

/// Reads entries to the end of the stream; how many came.
async fn read(clients: &Clients, request: wire::ReadEntriesRequest) -> anyhow::Result<u64> {
    let mut stream = clients.auditor.clone().read_entries(request).await?.into_inner();
    let mut count = 0;
    while let Some(message) = stream.message().await? {
        count += message.run.context("no run")?.entries.len();
    }
    Ok(count.try_into()?)
}

/// Follows the log from entry 0 until it has seen so many entries.
async fn watch(clients: &Clients, wanted: usize) -> anyhow::Result<()> {
    let request = wire::WatchRequest { first_index: 0, with_events: true };
    let mut stream = clients.auditor.clone().watch(request).await?.into_inner();
    let mut count = 0;
    while count < wanted {
        let message = stream.message().await?.context("the stream ended")?;
        count += message.run.context("no run")?.entries.len();
    }
    ensure!(count == wanted, "{count} entries, wanted {wanted}");
    Ok(())
}

/// Asks for everything that a source recorded, in pages of ten; the pages as they came.
async fn query(clients: &Clients, source: &str) -> anyhow::Result<Vec<wire::QueryResponse>> {
    let filter = Filter { sources: vec![source.to_owned()], ..Filter::default() };
    let mut request =
        wire::QueryRequest { filter: Some(filter), page_size: 10, ..wire::QueryRequest::default() };
    let mut pages = Vec::new();
    loop {
        let page = clients.auditor.clone().query(request.clone()).await?.into_inner();
        request.page_token = page.next_page_token.clone();
        pages.push(page);
        if request.page_token.is_empty() {
            return Ok(pages);
        }
    }
}

/// A report on all the time that a test may take.
fn report(name: &str) -> anyhow::Result<(wire::GetReportRequest, Options)> {
    let period = Period::new(Day(20_000), Day(40_000))?;
    let midnight = |day: i64| Some(Timestamp { seconds: day * 86_400, nanos: 0 });
    let request = wire::GetReportRequest {
        name: name.to_owned(),
        from: midnight(20_000),
        to: midnight(40_000),
        ..wire::GetReportRequest::default()
    };
    Ok((request, Options { period, subject: None, with_staff: false }))
}

/// The rows of the report `readers` from entries that were verified, without their times; the
/// server must say the same.
async fn readers(url: &str, vkey: &VerifierKey, folder: &Path) -> anyhow::Result<Vec<String>> {
    let (request, options) = report("readers")?;
    let clients = Clients::over(Credentials::default().link(url)?);
    let puller = Puller::new(clients.channel.clone());
    let mut view = View::open(&folder.join("view.json"), vkey)?;
    let recomputed = Recomputed::new(Report::Readers, options);
    let quiet = Arc::new(|_, _| ());
    let audited = audit_observed(&puller, &mut view, Quorum::default(), quiet, recomputed);
    let (audited, recomputed) = Box::pin(audited).await?;
    let told = clients.auditor.clone().get_report(request).await?.into_inner();
    assert_eq!(told.footer.context("no footer")?.size, audited.checkpoint.size().0);
    let table = recomputed.table()?;
    assert_eq!(told.table.as_ref(), Some(&table));
    let row = |row: wire::ReportRow| {
        let [told @ .., first, last] = &row.cells[..] else { anyhow::bail!("{row:?}") };
        ensure!(!first.is_empty() && first <= last, "{row:?}");
        Ok(told.join(" | "))
    };
    table.rows.into_iter().map(row).collect()
}

/// All records of reads.
async fn records(url: &str) -> anyhow::Result<Vec<wire::LedgerRead>> {
    let clients = Clients::over(Credentials::default().link(url)?);
    let filter = Filter { bodies: vec!["ledger_read".to_owned()], ..Filter::default() };
    let request = wire::QueryRequest {
        filter: Some(filter),
        page_size: 1_000,
        with_events: true,
        ..wire::QueryRequest::default()
    };
    let found = clients.auditor.clone().query(request).await?.into_inner();
    let read = |hit: wire::QueryHit| match wire::Event::decode(hit.event)?.body {
        Some(wire::event::Body::LedgerRead(read)) => Ok(read),
        other => anyhow::bail!("{other:?} is body {}", Body::LEDGER_READ),
    };
    found.hits.into_iter().map(read).collect()
}

#[tokio::test(flavor = "multi_thread")]
#[expect(clippy::too_many_lines, reason = "one table of what was read, and one of what is told")]
async fn the_report_tells_exactly_what_each_reader_was_sent() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let setup = Setup::new(&folder.path().join("data"));
    let node = guarded(&setup, folder.path()).await?;
    let auditor = clients(&node.url, "auditor")?;
    let mut audit = auditor.auditor.clone();

    let all = wire::ReadEntriesRequest { with_events: true, ..Default::default() };
    assert_eq!(read(&auditor, all).await?, 32);
    let some = wire::ReadEntriesRequest { first_index: 5, end_index: 15, ..Default::default() };
    assert_eq!(read(&auditor, some).await?, 10);
    for index in [3, 9] {
        let entry = Some(wire::get_receipt_request::Entry::Index(index));
        audit.get_receipt(wire::GetReceiptRequest { entry }).await?;
        let tree_size = 32;
        audit.get_inclusion_proof(wire::GetInclusionProofRequest { index, tree_size }).await?;
    }
    let sizes = wire::GetConsistencyProofRequest { old_size: 7, new_size: 32 };
    audit.get_consistency_proof(sizes).await?;
    audit.get_source(wire::GetSourceRequest { source: "payments".to_owned() }).await?;
    let sources = audit.list_sources(wire::ListSourcesRequest::default()).await?.into_inner();
    let bearer = format!("Bearer {}", token_of("auditor"));
    let shown = [("authorization", &*bearer)];
    for path in ["/tile/0/000.p/32", "/tile/entries/000.p/32"] {
        assert_eq!(pages::get(node.address, path, &shown).await?.status, 200, "{path}");
    }
    let pages = query(&auditor, "payments").await?;
    assert_eq!(pages.len(), 3);
    audit.list_findings(wire::ListFindingsRequest::default()).await?;
    audit.get_report(report("unapproved")?.0).await?;

    // Nobody was told anything by these.
    auditor.size(&node.vkey).await?;
    assert_eq!(pages::get(node.address, "/checkpoint", &shown).await?.status, 200);
    assert_eq!(pages::get(node.address, "/tile/0/009", &shown).await?.status, 404);
    let missing = wire::GetSourceRequest { source: "nobody".to_owned() };
    assert!(audit.get_source(missing).await.is_err());
    // A source proves what it recorded.
    let payments = clients(&node.url, "payments")?;
    let entry = Some(wire::get_receipt_request::Entry::Index(2));
    payments.auditor.clone().get_receipt(wire::GetReceiptRequest { entry }).await?;
    let genesis = wire::ReadEntriesRequest { end_index: 1, ..Default::default() };
    assert_eq!(read(&payments, genesis).await?, 1);

    // Five searches were recorded before they were answered; the rest is when the server stops.
    watch(&clients(&node.url, "custodian")?, 37).await?;
    node.stop().await?;
    let node = setup.start().await?;
    let rows = readers(&node.url, &node.vkey, folder.path()).await?;
    let span = "from 2024-10-04T00:00:00Z; to 2079-07-08T00:00:00Z";
    let rows_of = |kind| {
        let records = &rows;
        records.iter().filter(move |row| row.starts_with(kind)).count()
    };
    assert_eq!((rows_of("auditor"), rows_of("custodian"), rows.len()), (8, 1, 9));
    let findings = rows.iter().find(|row| row.contains("FINDINGS")).context("no findings")?;
    let unapproved = rows.iter().find(|row| row.contains("REPORT")).context("no report")?;
    assert!(findings.starts_with("auditor | ledger | FINDINGS | everything | 1 | "), "{findings}");
    let wanted = format!("auditor | ledger | REPORT | report \"unapproved\"; {span} | 1 | ");
    assert!(unapproved.starts_with(&wanted), "{unapproved}");
    let sources = 1 + sources.sources.len();
    for wanted in [
        // Ten entries and a bundle.
        "auditor | ledger | ENTRIES |  | 2 | 42 | 0 | 31 | 0".to_owned(),
        "auditor | ledger | EVENTS |  | 1 | 32 | 0 | 31 | 0".to_owned(),
        "auditor | ledger | QUERY | sources \"payments\" | 3 | 30 | 2 | 31 | 0".to_owned(),
        "auditor | ledger | RECEIPT |  | 2 | 2 | 3 | 9 | 0".to_owned(),
        // Three paths and a tile of hashes.
        "auditor | ledger | PROOF |  | 4 | 0 |  |  | 0".to_owned(),
        format!("auditor | ledger | SOURCES |  | 2 | {sources} |  |  | 0"),
        "custodian | ledger | EVENTS |  | 1 | 37 | 0 | 36 | 0".to_owned(),
    ] {
        assert!(rows.contains(&wanted), "{wanted} is not in {rows:#?}");
    }
    // Who says that it was sent something else can be shown what it was sent.
    let records = records(&node.url).await?;
    let queries = records.iter().filter(|read| read.kind() == ReadKind::Query);
    let digests: Vec<_> = queries.map(|read| read.result_digest.to_vec()).collect();
    let sent = pages.iter().map(|page| sha256(&page.encode_to_vec()).as_bytes().to_vec());
    assert_eq!(digests, sent.collect::<Vec<_>>());
    // 5 searches, and one sum for each of the other kinds.
    assert_eq!(records.len(), 5 + 5 + 1);
    node.stop().await
}

#[test]
fn a_search_that_was_answered_is_on_record_whatever_happens_next() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let data = folder.path().join("data");
    let principals = door_in_the_clear(folder.path(), &PRINCIPALS)?.principals.context("none")?;
    let principals = principals.display().to_string();
    let ledger = Process::serve(&data, &["--principals", &principals])?;
    let url = format!("http://{}", ledger.address);
    let runtime = tokio::runtime::Runtime::new()?;
    let token = vec![7_u8; 16];
    runtime.block_on(async {
        let filter = Filter { subject_tokens: vec![token.clone().into()], ..Filter::default() };
        let request = wire::QueryRequest { filter: Some(filter), ..Default::default() };
        let auditor = clients(&url, "auditor")?;
        auditor.auditor.clone().query(request).await?;
        anyhow::Ok(())
    })?;
    ledger.kill()?;

    // Whose data was looked for, finds who looked.
    let ledger = Process::serve(&data, &[])?;
    let run = |line: &str| -> anyhow::Result<String> {
        let mut command = Command::new(binaries()?.join("access-ledger"));
        command.args(line.split(' ')).current_dir(folder.path());
        command.env("ACCESS_LEDGER_SERVER", format!("http://{}", ledger.address));
        let output = command.output()?;
        ensure!(output.status.success(), "{line}: {output:?}");
        Ok(String::from_utf8(output.stdout)?)
    };
    let hex = "07".repeat(16);
    for filter in ["--actor auditor", &format!("--subject {hex}"), "--kind ledger-read"] {
        let vkey = &ledger.vkey;
        let found = run(&format!("query {filter} --format json --verified --ledger {vkey}"))?;
        let found: serde_json::Value = serde_json::from_str(&found)?;
        let read = &found["event"]["ledgerRead"];
        assert_eq!(read["reader"], "auditor", "{found}");
        assert_eq!(read["kind"], "READ_KIND_QUERY");
        assert_eq!(read["query"], format!("subject_tokens {hex}"));
    }
    let range = "--from 2024-01-01 --to 2079-01-01 --format csv";
    let table = run(&format!("report readers {range} --ledger {}", ledger.vkey))?;
    let wanted = format!("\r\nauditor,ledger,QUERY,subject_tokens {hex},1,0,,,1,");
    assert!(table.contains(&wanted) && table.lines().count() == 2, "{table}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn without_space_entries_are_read_and_searches_wait() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let disk = GatedDisk::default();
    let mut setup = Setup::new(&folder.path().join("data"));
    setup.disk = Arc::new(disk.clone());
    setup.options.reserve_bytes = 1 << 20;
    setup.reads_window = std::time::Duration::from_millis(20);
    let node = guarded(&setup, folder.path()).await?;
    let auditor = clients(&node.url, "auditor")?;
    disk.set_free_bytes(0);
    let refused = query(&auditor, "payments").await.err().context("answered")?;
    let refused = Refused::of(refused.downcast_ref().context("no status")?);
    assert_eq!(refused.kind(), (Code::Unavailable, "READ_UNRECORDED"));
    assert!(refused.retry_after.is_some());
    for _ in 0..50 {
        let some = wire::ReadEntriesRequest { end_index: 32, ..Default::default() };
        assert_eq!(read(&auditor, some).await?, 32);
        tokio::time::sleep(std::time::Duration::from_millis(1)).await;
    }
    assert_eq!(auditor.size(&node.vkey).await?, 32);

    disk.set_free_bytes(u64::MAX);
    until(async || Ok((auditor.size(&node.vkey).await? > 32).then_some(()))).await?;
    assert_eq!(query(&auditor, "payments").await?.len(), 3);
    node.stop().await?;
    let node = setup.start().await?;
    assert_eq!(
        readers(&node.url, &node.vkey, folder.path()).await?,
        [
            "auditor | ledger | ENTRIES |  | 50 | 1600 | 0 | 31 | 0",
            "auditor | ledger | QUERY | sources \"payments\" | 3 | 30 | 2 | 31 | 0",
        ]
    );
    node.stop().await
}

/// A custodian that records its readers as `read-room`, of a ledger with 30 entries of `payments`.
async fn read_room(folder: &Path, node: &Node) -> anyhow::Result<custodian::Setup> {
    let key = Signer::new("read-room", KeyType::Ed25519, [9; 32])?;
    let own = Source::with_key(key.clone(), &node.vkey)?;
    node.clients().recorder.enroll(own.enrolment()).await?;
    let mut source = node.clients().enrolled("payments", 1, &node.vkey).await?;
    node.clients().record(&source.record(30)?).await?;

    let mut setup = custodian::Setup::new(&folder.join("custodian"), &node.vkey);
    setup.options.reads_key = Some(key);
    setup.door = Door::open(&setup.disk, door_in_the_clear(folder, &PRINCIPALS)?)?;
    Ok(setup)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_custodian_records_its_readers_at_the_ledger() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let node = Node::start(&folder.path().join("ledger")).await?;
    let setup = read_room(folder.path(), &node).await?;
    let keeper = setup.start(node.address).await?;
    let auditor = clients(&format!("http://{}", keeper.address), "auditor")?;
    until(async || Ok(auditor.size(&node.vkey).await.ok().filter(|&size| size >= 33))).await?;
    let some = wire::ReadEntriesRequest { end_index: 33, ..Default::default() };
    assert_eq!(read(&auditor, some).await?, 33);
    // Until the custodian's source is known to go on from where it was, no search is answered.
    let pages = until(async || Ok(query(&auditor, "payments").await.ok())).await?;
    assert_eq!(pages.len(), 3);
    keeper.stop().await?;

    assert_eq!(
        readers(&node.url, &node.vkey, folder.path()).await?,
        [
            "auditor | read-room | ENTRIES |  | 1 | 33 | 0 | 32 | 0",
            "auditor | read-room | QUERY | sources \"payments\" | 3 | 30 | 3 | 32 | 0",
        ]
    );
    node.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_custodian_answers_searches_when_the_ledger_refuses_its_records() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let data = folder.path().join("ledger");
    let node = Node::start(&data).await?;
    let mut governance = Governance::of(&data, &node.vkey)?;
    let setup = read_room(folder.path(), &node).await?;
    let keeper = setup.start(node.address).await?;
    let auditor = clients(&format!("http://{}", keeper.address), "auditor")?;
    let search = || query(&auditor, "payments");
    until(async || Ok(search().await.ok())).await?;
    let recorded = async || {
        let state = wire::GetSourceStateRequest { source: "read-room".to_owned() };
        anyhow::Ok(node.clients().recorder.get_source_state(state).await?.into_inner().last_seq)
    };
    until(async || Ok((recorded().await? == 3).then_some(()))).await?;

    // Both parties give its key up: it may be lost.
    let change = governance.change(ControlKind::Key, "read-room", 1, Vec::new());
    let event = governance.company.event(wire::event::Body::ControlChange(change));
    node.clients().record(&governance.company.seal(vec![event])?).await?;
    // It refuses the records of the first of these while the others are searched.
    for _ in 0..100 {
        search().await?;
        tokio::time::sleep(std::time::Duration::from_millis(1)).await;
    }
    keeper.stop().await?;
    let keeper = setup.start(node.address).await?;
    let auditor = clients(&format!("http://{}", keeper.address), "auditor")?;
    until(async || Ok(query(&auditor, "payments").await.ok())).await?;
    assert_eq!(recorded().await?, 3);
    assert!(keeper.alarms.all().is_empty(), "a refusal is no lie");
    keeper.stop().await?;
    node.stop().await
}
