//! The demonstration shows what it says: the honest half-year is verified, its story is found and
//! nothing else, and every tampering is caught at the entry that was tampered with.

use std::{collections::BTreeMap, path::Path, sync::Arc};

use access_ledger_client::{
    audit::{AuditOptions, Audited, audit},
    pull::Puller,
    verify::Scope,
    view::View,
};
use access_ledger_proto::{
    position::{Index, Size},
    quorum::Quorum,
    wire::{Event, Outcome, event::Body},
};
use access_ledger_server::{
    config::DemoArgs,
    demo::{self, Told, recording::Counts},
};
use access_ledger_tests::node::{Node, Setup};
use prost::Message as _;

const ACCESSES: u64 = 3_000;

async fn play(folder: &Path) -> anyhow::Result<(Told, String)> {
    let args = DemoArgs { accesses: ACCESSES, seed: 7, keep: None };
    let mut out = Vec::new();
    let told = demo::play(&args, folder, &mut out).await?;
    Ok((told, String::from_utf8(out)?))
}

/// What was recorded, from the log.
async fn counted(puller: &Puller, end: Size) -> anyhow::Result<Counts> {
    let mut counts = Counts::default();
    let mut records = puller.records(Index::GENESIS, end, Scope::Events);
    while let Some(run) = records.next().await {
        for record in run?.1 {
            match Event::decode(record.event.unwrap_or_default())?.body {
                Some(Body::Access(access)) if access.outcome() != Outcome::Requested => {
                    counts.accesses += 1;
                }
                Some(Body::AccessRequest(_)) => counts.requests += 1,
                Some(Body::Decision(_)) => counts.decisions += 1,
                _ => {}
            }
        }
    }
    Ok(counts)
}

/// What an auditor with the demonstration's own pinned view says of the ledger that it left behind.
async fn audited(node: &Node, view: &Path, puller: &Puller) -> anyhow::Result<Audited> {
    let mut view = View::open(view, &node.vkey)?;
    let options = AuditOptions { scope: Scope::Events, full: true, quorum: Quorum::default() };
    Ok(audit(puller, &mut view, &options, Arc::new(|_, _| ())).await?)
}

/// That the story is found, all of it.
fn check_story(told: &Told, text: &str) {
    let mut rules: BTreeMap<&str, u32> = BTreeMap::new();
    for finding in &told.findings {
        *rules.entry(finding.rule.as_str()).or_default() += 1;
    }
    for (rule, count) in [
        ("ACCESS_AFTER_ERASURE", 1),
        ("APPROVALS_MISSING", 1),
        ("APPROVER_NOT_AUTHORIZED", 1),
        ("BREAK_GLASS_UNREVIEWED", 1),
        ("DISCLOSURE_WITHOUT_PROCESS", 1),
        ("GRANT_EXHAUSTED", 1),
        ("GRANT_REVOKED", 1),
        ("SELF_APPROVED", 1),
    ] {
        assert_eq!(rules.get(rule), Some(&count), "{rule}: {rules:?}");
    }
    let count = |rule| rules.get(rule).copied().unwrap_or_default();
    // The tool that data leaves through, and two backups that went abroad by an old schedule.
    assert_eq!(count("COPY_OUTSIDE_CUSTODY"), count("TOOL_NOT_APPROVED") + 2, "{rules:?}");
    assert!(count("TOOL_NOT_APPROVED") > 250 && count("PRIVILEGED_ACCESS") > 50, "{rules:?}");
    let known = [
        "CLASSIFICATION_MISMATCH",
        "COPY_OUTSIDE_CUSTODY",
        "CROSS_REGION",
        "GRANT_SCOPE",
        "LOCATION_UNVERIFIED",
        "NO_GRANT",
        "PRIVILEGED_ACCESS",
        "TOOL_NOT_APPROVED",
    ];
    assert_eq!(rules.keys().filter(|rule| !known.contains(rule)).count(), 8, "{rules:?}");

    let row = |begin: &str| {
        let row = text.lines().find(|line| line.trim_start().starts_with(begin));
        row.unwrap_or_default().split_whitespace().collect::<Vec<_>>().join(" ")
    };
    assert!(row("2025 H2").ends_with(" 89 11 100 107 82"), "{}", row("2025 H2"));
    assert!(row("moderation-tool").contains(" no "), "{}", row("moderation-tool"));
    assert!(row("p-platform-admin").ends_with(" 0.0"), "{}", row("p-platform-admin"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_tampering_is_caught_and_the_honest_ledger_is_verified() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let (told, text) = play(folder.path()).await?;
    check_story(&told, &text);

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

    let counts = counted(&puller, size).await?;
    let Counts { accesses, requests, decisions, legal_requests, .. } = told.counts;
    let wanted = Counts { accesses, requests, decisions, ..Counts::default() };
    assert_eq!(counts, wanted);
    assert!(accesses > ACCESSES && legal_requests == 100, "{:?}", told.counts);
    node.stop().await
}
