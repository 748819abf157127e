//! A ledger that was stopped is the same one when it runs again, whatever was lost of what can be
//! derived.

use std::{fs, path::Path};

use access_ledger_proto::wire;
use access_ledger_server::error::LedgerError;
use access_ledger_tests::{
    model::{Acknowledged, Audit},
    node::{Node, Setup},
    process::{Process, run_server},
    source::Sealed,
};
use anyhow::Context as _;

/// Everything that an auditor can see of the ledger, newest checkpoint included.
async fn seen(node: &Node, sent: &[Sealed]) -> anyhow::Result<Vec<String>> {
    let clients = node.clients();
    let mut auditor = clients.auditor.clone();
    let head = auditor.get_checkpoint(wire::GetCheckpointRequest::default()).await?.into_inner();
    let sources = auditor.list_sources(wire::ListSourcesRequest::default()).await?.into_inner();
    let findings = auditor.list_findings(wire::ListFindingsRequest::default()).await?.into_inner();
    let midnight = |day: i64| Some(prost_types::Timestamp { seconds: day * 86_400, nanos: 0 });
    let (from, to) = (midnight(20_000), midnight(40_000));
    let report = wire::GetReportRequest { name: "sources".into(), from, to, ..Default::default() };
    let report = auditor.get_report(report).await?.into_inner();
    let mut seen = vec![format!("{head:?}"), format!("{sources:?}")];
    seen.extend([format!("{findings:?}"), format!("{report:?}")]);
    for sealed in sent {
        seen.push(format!("{:?}", clients.append(sealed).await?));
    }
    let size = clients.size(&node.vkey).await?;
    for old_size in [1, 2, size / 2, size] {
        let request = wire::GetConsistencyProofRequest { old_size, new_size: size };
        seen.push(format!("{:?}", auditor.get_consistency_proof(request).await?.into_inner()));
    }
    Ok(seen)
}

/// Flips a byte in the middle of every file below a folder.
fn damage(folder: &Path) -> anyhow::Result<usize> {
    let mut damaged = 0;
    for file in fs::read_dir(folder)? {
        let path = file?.path();
        if path.is_dir() {
            damaged += damage(&path)?;
            continue;
        }
        let mut bytes = fs::read(&path)?;
        let middle = bytes.len() / 2;
        if let Some(byte) = bytes.get_mut(middle) {
            *byte ^= 0x55;
            damaged += 1;
            access_ledger_server::os::replace(&access_ledger_server::os::RealDisk, &path, &bytes)?;
        }
    }
    Ok(damaged)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_derived_can_be_lost_or_damaged_and_answers_stay_the_same() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let setup = {
        let mut setup = Setup::new(folder.path());
        // Several segments.
        setup.options.segment_bytes = 64 << 10;
        setup
    };
    let mut node = setup.start().await?;
    let mut sent = Vec::new();
    let mut source = node.clients().enrolled("payments", 1, &node.vkey).await?;
    for count in [1, 300, 7, 256, 1, 90, 40] {
        let sealed = source.record(count)?;
        node.clients().record(&sealed).await?;
        sent.push(sealed);
    }
    let before = seen(&node, &sent).await?;
    let losses = ["nothing", "index", "-index", "tree", "checkpoint", "-checkpoint", "all"];
    for loss in losses {
        node.stop().await?;
        let path = folder.path().join(loss);
        match loss {
            "nothing" => {}
            "-index" => assert!(damage(&folder.path().join("index"))? > 0),
            "-checkpoint" => fs::File::create(folder.path().join("checkpoint"))?.set_len(9)?,
            "checkpoint" => fs::remove_file(path)?,
            "all" => {
                fs::remove_dir_all(folder.path().join("index"))?;
                fs::remove_dir_all(folder.path().join("tree"))?;
                fs::remove_file(folder.path().join("checkpoint"))?;
            }
            _ => fs::remove_dir_all(path)?,
        }
        node = setup.start().await.with_context(|| format!("without {loss}"))?;
        assert_eq!(seen(&node, &sent).await?, before, "without {loss}");
    }
    let mut audit = Audit::new(&node.vkey);
    audit.pull(&node.clients()).await?;
    node.clients().record(&source.record(3)?).await?;
    audit.pull(&node.clients()).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_lost_acknowledged_entries_is_not_opened() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let node = Node::start(folder.path()).await?;
    let mut source = node.clients().enrolled("payments", 1, &node.vkey).await?;
    node.clients().record(&source.record(5)?).await?;
    node.stop().await?;
    let segment = folder.path().join("log/00000000000000000000.seg");
    let older = fs::read(&segment)?;
    let node = Node::start(folder.path()).await?;
    node.clients().record(&source.record(5)?).await?;
    node.stop().await?;
    fs::copy(&segment, folder.path().join("newer"))?;
    let disk = access_ledger_server::os::RealDisk;
    access_ledger_server::os::replace(&disk, &segment, &older)?;
    let refused = Setup::new(folder.path()).open().err().context("opened all the same")?;
    assert!(matches!(refused, LedgerError::Storage(_)), "{refused}");
    assert_eq!(fs::read(&segment)?, older, "refusing changed the log");
    // Nothing was made worse: with its log back, the ledger runs.
    fs::copy(folder.path().join("newer"), &segment)?;
    let node = Node::start(folder.path()).await?;
    assert_eq!(node.clients().last_seq("payments").await?, 10);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_is_open_in_one_process_only() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let data = folder.path().join("data");
    let process = Process::serve(&data, &[])?;
    let opened = Setup::new(&data).open();
    assert!(matches!(opened.err(), Some(LedgerError::Locked { .. })));
    for arguments in [&["check"][..], &["serve", "--listen", "127.0.0.1:0"]] {
        let second = run_server(arguments, &data)?;
        assert_eq!(second.status.code(), Some(2));
        let told = String::from_utf8_lossy(&second.stderr).into_owned();
        assert!(told.contains("is in use by another process"), "{told}");
    }
    process.kill()?;
    // The lock dies with its process.
    drop(Setup::new(&data).open()?);
    let mut again = run_server(&["init", "--origin", "other.example"], &data)?;
    assert_eq!(again.status.code(), Some(2));
    again.stderr.extend(again.stdout);
    let told = String::from_utf8_lossy(&again.stderr).into_owned();
    assert!(told.contains("holds the ledger"), "{told}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn stopping_and_starting_many_times_in_a_row_changes_nothing() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let mut node = Node::start(folder.path()).await?;
    let mut source = node.clients().enrolled("payments", 1, &node.vkey).await?;
    let mut acknowledged = Acknowledged::default();
    let mut audit = Audit::new(&node.vkey);
    for count in 1..=12 {
        // Calls that are open at the stop hold nothing back.
        let request = wire::WatchRequest { first_index: 0, with_events: true };
        let watch = node.clients().auditor.watch(request).await?;
        let sealed = source.record(count)?;
        acknowledged.note(&sealed, node.clients().record(&sealed).await?)?;
        node.stop().await?;
        drop(watch);
        node = Node::start(folder.path()).await?;
        audit.pull(&node.clients()).await?;
        acknowledged.check(&audit)?;
    }
    Ok(())
}
