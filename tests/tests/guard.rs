//! A ledger that was put back to an older state, or to another one, does not start: those who
//! cosigned it know.

use std::{fs, path::Path, time::Duration};

use access_ledger_proto::{note::VerifierKey, position::Size, quorum::Quorum};
use access_ledger_server::{error::LedgerError, folder::Folder, guard, ledger::Cosigning};
use access_ledger_tests::{
    double::{Double, Manner, cosigner},
    folders,
    node::{Node, Setup},
    source::Source,
};
use anyhow::{Context as _, ensure};

/// How long the guard asks those who do not answer.
const PATIENCE: Duration = Duration::from_millis(600);

async fn guarded(folder: &Path, double: &Double) -> anyhow::Result<Setup> {
    let mut setup = Setup::new(folder);
    let policy = format!("{}quorum c1\n", double.policy_lines("c"));
    let witnesses = Some(Quorum::parse(policy)?);
    setup.options.cosigning = Cosigning { witnesses, ..Cosigning::default() };
    Ok(setup)
}

/// What `serve` does before it opens the ledger.
async fn asked(setup: &Setup, vkey: &VerifierKey) -> Result<Setup, LedgerError> {
    let mut setup = setup.clone();
    setup.options.seen = guard::ask(&setup.options.cosigning, vkey, PATIENCE).await?;
    Ok(setup)
}

/// A ledger with some entries, its source, and its key.
async fn begun(folder: &Path) -> anyhow::Result<(VerifierKey, Source)> {
    let node = Node::start(folder).await?;
    let vkey = node.vkey.clone();
    let mut source = node.clients().enrolled("shop", 1, &vkey).await?;
    node.clients().record(&source.record(5)?).await?;
    node.stop().await?;
    Ok((vkey, source))
}

/// Appends, and waits until the witness has cosigned it all; the size.
async fn append(setup: &Setup, source: &mut Source, double: &Double) -> anyhow::Result<Size> {
    let node = setup.start().await?;
    node.clients().record(&source.record(7)?).await?;
    let size = Size(node.clients().size(&node.vkey).await?);
    double.reaches(size).await?;
    node.stop().await?;
    Ok(size)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_that_was_put_back_does_not_start() -> anyhow::Result<()> {
    let (root, backup) = (tempfile::tempdir()?, tempfile::tempdir()?);
    let folder = root.path().join("data");
    let (vkey, mut source) = begun(&folder).await?;
    let double = Double::start(&vkey, vec![cosigner("custodian", 1)?]).await?;
    let setup = guarded(&folder, &double).await?;
    folders::copy(&folder, &backup.path().join("data"))?;
    let before = Node::start(&folder).await?;
    let held = Size(before.clients().size(&vkey).await?);
    before.stop().await?;
    let size = append(&asked(&setup, &vkey).await?, &mut source, &double).await?;

    // The honest twin: what was cosigned is there, and a little more does not matter.
    let node = asked(&setup, &vkey).await?.start().await?;
    node.clients().record(&source.record(1)?).await?;
    node.stop().await?;
    asked(&setup, &vkey).await?.start().await?.stop().await?;

    let cosigned = double.size();
    ensure!(cosigned >= size, "cosigned {cosigned}, appended {size}");
    fs::remove_dir_all(&folder)?;
    folders::copy(&backup.path().join("data"), &folder)?;
    let log = fs::read(Folder::new(&folder).root().join("log/00000000000000000000.seg"))?;
    let refused = asked(&setup, &vkey).await?.open().err().context("it started")?;
    let LedgerError::RolledBack { local, cosigned: found, by } = &refused else {
        anyhow::bail!("refused otherwise: {refused}");
    };
    assert_eq!((*local, *found), (held, cosigned));
    assert_eq!(*by, format!("http://{}", double.address));
    assert!(refused.to_string().contains("access-ledger-server restore --from http://"));
    // Nothing was written, so whatever restores begins with what was there.
    let now = fs::read(Folder::new(&folder).root().join("log/00000000000000000000.seg"))?;
    assert_eq!(log, now);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn another_history_than_the_cosigned_one_does_not_start() -> anyhow::Result<()> {
    let (root, backup) = (tempfile::tempdir()?, tempfile::tempdir()?);
    let folder = root.path().join("data");
    let (vkey, mut source) = begun(&folder).await?;
    let double = Double::start(&vkey, vec![cosigner("custodian", 1)?]).await?;
    let setup = guarded(&folder, &double).await?;
    folders::copy(&folder, &backup.path().join("data"))?;
    let size = append(&asked(&setup, &vkey).await?, &mut source, &double).await?;
    fs::remove_dir_all(&folder)?;
    folders::copy(&backup.path().join("data"), &folder)?;
    // Started without its witnesses, the ledger signs a second history that is longer.
    double.set(Manner::Mute);
    let node = Node::start(&folder).await?;
    let mut other = Source::with_key(source.key().clone(), &vkey)?;
    other.next_seq = 6;
    for _ in 0..2 {
        node.clients().record(&other.record(9)?).await?;
    }
    ensure!(node.clients().size(&vkey).await? > size.0, "not longer");
    node.stop().await?;
    let refused = asked(&setup, &vkey).await?.open().err().context("it started")?;
    let is_told = matches!(&refused, LedgerError::OtherHistory { size: at, found, wanted, .. }
        if *at == double.size() && found != wanted);
    assert!(is_told, "{refused}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_witness_that_does_not_tell_holds_up_the_start() -> anyhow::Result<()> {
    let root = tempfile::tempdir()?;
    let folder = root.path().join("data");
    let (vkey, _) = begun(&folder).await?;
    let double = Double::start(&vkey, vec![cosigner("custodian", 1)?]).await?;
    let setup = guarded(&folder, &double).await?;
    // One that has seen nothing has nothing to say against it.
    assert!(asked(&setup, &vkey).await?.options.seen.is_empty());
    // One that shows a checkpoint that this ledger has not signed does not tell.
    double.cosign(&fs::read(Folder::new(&folder).checkpoint())?)?;
    assert_eq!(asked(&setup, &vkey).await?.options.seen.len(), 1);
    let other_root = tempfile::tempdir()?;
    let (other, _) = begun(&other_root.path().join("data")).await?;
    let unguarded = asked(&setup, &other).await;
    assert!(matches!(unguarded, Err(LedgerError::Unguarded { .. })));
    let address = double.address;
    drop(double);
    let refused = asked(&setup, &vkey).await.err().context("it was content")?;
    let LedgerError::Unguarded { by, .. } = &refused else {
        anyhow::bail!("refused otherwise: {refused}");
    };
    assert_eq!(*by, format!("http://{address}"));
    assert!(refused.to_string().contains("--danger-skip-guard"), "{refused}");
    Ok(())
}
