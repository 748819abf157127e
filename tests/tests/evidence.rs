//! A file of evidence in the hands of somebody who has nothing else: the command line says with
//! its exit code whether it proves anything, and the custodian writes such files for a fork at any
//! two sizes.

use std::{
    fs,
    io::Write as _,
    path::Path,
    process::{Command, Output},
};

use access_ledger_client::evidence::{Caught, Misdeed, Verdict, compare_held};
use access_ledger_proto::{
    checkpoint::{Checkpoint, VerifiedCheckpoint},
    hash::{leaf_hash, sha256},
    note::{KeyType, Signer, VerifierKey},
    position::Size,
};
use access_ledger_server::{folder::real_disk, storage};
use access_ledger_tests::{
    node::ORIGIN,
    operator::{Crime, SIZE, own_key},
    process::binaries,
};
use anyhow::{Context as _, ensure};

/// A signed checkpoint, cosigned.
fn signed(
    ledger: &Signer,
    size: u64,
    root: access_ledger_proto::hash::Digest,
    witnesses: &[&Signer],
) -> anyhow::Result<VerifiedCheckpoint> {
    let note = Checkpoint::new(ORIGIN, Size(size), root)?.sign(ledger)?;
    let bare = VerifiedCheckpoint::open(note.as_bytes(), ledger.verifier(), &[])?;
    let mut note = note;
    for witness in witnesses {
        note.push_str(&bare.cosign(witness, 1_790_000_000)?);
    }
    let keys: Vec<VerifierKey> =
        witnesses.iter().map(|witness| witness.verifier().clone()).collect();
    Ok(VerifiedCheckpoint::open(note.as_bytes(), ledger.verifier(), &keys)?)
}

fn check(file: &Path, flags: &[&str]) -> anyhow::Result<(Option<i32>, String)> {
    let program = binaries()?.join("access-ledger");
    let ended = Command::new(program).arg("check-evidence").arg(file).args(flags).output()?;
    let Output { status, stdout, stderr } = ended;
    Ok((status.code(), String::from_utf8(stdout)? + &String::from_utf8(stderr)?))
}

#[tokio::test]
async fn the_exit_code_says_what_a_file_proves() -> anyhow::Result<()> {
    let crime = Crime::scene().await?;
    let (folder, ledger) = (tempfile::tempdir()?, &crime.honest.key);
    let witness = Signer::new("witness.example", KeyType::CosignatureV1, [7; 32])?;
    let at = |size, root: &[u8]| -> anyhow::Result<Box<VerifiedCheckpoint>> {
        Ok(Box::new(signed(ledger, size, sha256(root), &[&witness])?))
    };
    let (mine, stranger) = (ledger.verifier().to_string(), own_key(ORIGIN)?);
    let fork = Caught::Fork { pinned: at(9, b"one")?, served: at(9, b"two")? };
    let fork = fork.keep(folder.path(), ledger.verifier())?;
    let (code, told) = check(&fork, &["--ledger", &mine])?;
    ensure!(code == Some(1), "{told}");
    let proven: Vec<&str> = told.lines().filter(|line| line.starts_with("PROVEN")).collect();
    ensure!(proven.len() == 2 && proven[0].contains(&mine), "{told}");
    ensure!(proven[1].contains("witness.example") && proven[1].contains("make sure"), "{told}");
    // Whose key it is, is not for the file to say.
    let (code, told) = check(&fork, &[])?;
    ensure!(code == Some(1) && told.matches("make sure whose it is").count() == 3, "{told}");
    let (code, told) = check(&fork, &["--ledger", &stranger.verifier().to_string()])?;
    ensure!(code == Some(2) && told.contains("evidence is against"), "{told}");

    let back = Caught::Rollback { pinned: at(9, b"one")?, served: at(5, b"two")? };
    let back = back.keep(folder.path(), ledger.verifier())?;
    let (code, told) = check(&back, &["--ledger", &mine])?;
    ensure!(code == Some(3) && told.contains("NOT PROVEN"), "{told}");

    let text = fs::read_to_string(&fork)?;
    let broken = folder.path().join("broken");
    fs::File::create(&broken)?.write_all(&text.as_bytes()[..text.len() - 1])?;
    for file in [&broken, &folder.path().join("none")] {
        let (code, told) = check(file, &[])?;
        ensure!(code == Some(2), "{told}");
    }
    Ok(())
}

#[tokio::test]
async fn who_holds_the_tree_proves_a_fork_at_every_size() -> anyhow::Result<()> {
    let crime = Crime::scene().await?;
    let folder = tempfile::tempdir()?;
    // The folder of the ledger itself, as a custodian holds it.
    let options = storage::Options::new(crime.folder().join("ledger"), ORIGIN);
    let opened = storage::open(real_disk(), &options, None)?;
    let ledger = &crime.honest.key;
    let leaves: Vec<_> =
        crime.honest.records.iter().map(|record| leaf_hash(&record.entry)).collect();
    let root = |size: u64| -> anyhow::Result<_> {
        let size = usize::try_from(size)?;
        Ok(access_ledger_proto::tree::root_of(leaves.get(..size).context("a size")?))
    };
    let held = signed(ledger, SIZE, root(SIZE)?, &[])?;
    for size in 1..=SIZE {
        let honest = signed(ledger, size, root(size)?, &[])?;
        ensure!(compare_held(&held, &honest, &opened.tree)?.is_none(), "{size}");
        let other = signed(ledger, size, sha256(b"other"), &[])?;
        let caught = compare_held(&held, &other, &opened.tree)?.context("a fork")?;
        let file = fs::read(caught.keep(folder.path(), ledger.verifier())?)?;
        let evidence = access_ledger_client::evidence::Evidence::parse(&file)?;
        let Verdict::Proven(convictions) = evidence.judge(&[])? else {
            anyhow::bail!("{size}: not proven");
        };
        let [conviction] = &convictions[..] else { anyhow::bail!("{convictions:?}") };
        ensure!(conviction.key == *ledger.verifier());
        let fits = match &conviction.misdeed {
            Misdeed::TwoRoots { .. } => size == SIZE,
            Misdeed::Diverged { smaller, larger, .. } => {
                (smaller.0, larger.0) == (size, SIZE) && size < SIZE
            }
            _ => false,
        };
        ensure!(fits, "{size}: {}", conviction.misdeed);
    }
    Ok(())
}
