//! The demonstration shows what it says: the honest day is verified, what it tells of the day is
//! what the log holds, and every tampering is caught at the entry that was tampered with.

use std::{collections::BTreeMap, path::Path, sync::Arc};

use access_ledger_client::{
    audit::{AuditOptions, Audited, audit},
    pull::Puller,
    verify::Scope,
    view::View,
};
use access_ledger_proto::{
    position::{Index, Size},
    wire::{Event, Outcome, event::Body},
};
use access_ledger_server::{
    config::DemoArgs,
    demo::{self, Told},
};
use access_ledger_tests::node::{Node, Setup};
use prost::Message as _;

const ACCESSES: u64 = 3_000;

/// Accesses, denied, unapproved, records of one office.
type Row = [u64; 4];

async fn play(folder: &Path) -> anyhow::Result<(Told, String)> {
    let args = DemoArgs { accesses: ACCESSES, seed: 7, keep: None };
    let mut out = Vec::new();
    let told = demo::play(&args, folder, &mut out).await?;
    Ok((told, String::from_utf8(out)?))
}

/// The table of the offices as it was told.
fn table(text: &str) -> anyhow::Result<BTreeMap<String, Row>> {
    let lines = text.lines().skip_while(|line| !line.trim_start().starts_with("office "));
    let rows = lines.skip(1).take_while(|line| !line.is_empty());
    rows.map(|line| {
        let words: Vec<_> = line.split_whitespace().collect();
        let [office, numbers @ ..] = words.as_slice() else { anyhow::bail!("a row is empty") };
        let numbers = numbers.iter().map(|number| number.parse()).collect::<Result<Vec<_>, _>>()?;
        let row = Row::try_from(numbers).map_err(|row| anyhow::anyhow!("the row {row:?}"))?;
        Ok(((*office).to_owned(), row))
    })
    .collect()
}

/// The same, from the log.
async fn counted(puller: &Puller, end: Size) -> anyhow::Result<BTreeMap<String, Row>> {
    let mut table = BTreeMap::<_, Row>::new();
    let mut records = puller.records(Index::GENESIS, end, Scope::Events);
    while let Some(run) = records.next().await {
        for record in run?.1 {
            let event = Event::decode(record.event.unwrap_or_default())?;
            let Some(Body::Access(access)) = event.body else { continue };
            let office = event.actor.unwrap_or_default().office_country;
            let office = if office.is_empty() { "(service)".to_owned() } else { office };
            let [accesses, denied, unapproved, records] = table.entry(office).or_default();
            *accesses += 1;
            *denied += u64::from(access.outcome() == Outcome::Denied);
            *unapproved += u64::from(access.outcome() == Outcome::AllowedUnapproved);
            *records += access.records;
        }
    }
    Ok(table)
}

/// What an auditor with the demonstration's own pinned view says of the ledger that it left behind.
async fn audited(node: &Node, view: &Path, puller: &Puller) -> anyhow::Result<Audited> {
    let mut view = View::open(view, &node.vkey)?;
    let options = AuditOptions { scope: Scope::Events, full: true, witnesses: Vec::new() };
    Ok(audit(puller, &mut view, &options, Arc::new(|_, _| ())).await?)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_tampering_is_caught_and_the_honest_ledger_is_verified() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let (told, text) = play(folder.path()).await?;
    let target = told.target;
    let caught: Vec<_> = told.caught.iter().map(|act| act.as_deref().unwrap_or_default()).collect();
    let [on_disk, flipped, dropped, rolled_back] = caught[..] else { panic!("{caught:?}") };
    assert!(on_disk.contains(&format!("entry {target}: checksum of the event")), "{on_disk}");
    assert!(flipped.contains(&format!("at index {target}, the event's digest is")), "{flipped}");
    assert!(dropped.contains(&format!("at index {target}, source")), "{dropped}");
    assert!(text.contains("4 of 4 caught."), "{text}");

    // The ledger that the copies were made of.
    let node = Setup::new(&folder.path().join("ledger")).start().await?;
    assert_eq!(node.vkey, told.vkey);
    let puller = Puller::new(node.clients().channel);
    let honest = audited(&node, &folder.path().join("auditor.view.json"), &puller).await?;
    let size = honest.checkpoint.size();
    assert!(rolled_back.contains(&format!("pinned is size {size}")), "{rolled_back}");

    let table = table(&text)?;
    assert_eq!(table, counted(&puller, size).await?);
    assert_eq!(table.values().map(|[accesses, ..]| accesses).sum::<u64>(), ACCESSES);
    assert!(table.values().all(|[accesses, denied, ..]| accesses > denied), "{table:?}");
    node.stop().await
}
