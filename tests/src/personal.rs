//! Personal data that must be gone after an erasure, and whoever looks for it.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use access_ledger_client::{audit::audit_observed, fold::FindingsList, pull::Puller, view::View};
use access_ledger_proto::{
    note::VerifierKey,
    quorum::Quorum,
    wire::{self, event::Body},
};
use access_ledger_server::{check, os::RealDisk, storage};
use anyhow::bail;
use bytes::Bytes;

use crate::{node::ORIGIN, parties::Governance, source::Source};

/// What must not be left anywhere: who did it, and whose data it was.
pub const PERSONAL: [&[u8]; 3] = [b"p-erase-me", b"subject-erase-me", b"because of erase-me"];

/// An access that tells all of [`PERSONAL`].
pub fn personal(source: &mut Source) -> Bytes {
    let [actor, subject, reason] = PERSONAL.map(|text| String::from_utf8_lossy(text).into_owned());
    let data = wire::Data {
        dataset: "users".to_owned(),
        subject_tokens: vec![subject.into()],
        ..Default::default()
    };
    let access = wire::Access {
        action: wire::Action::Read.into(),
        data: vec![data],
        justification: reason,
        outcome: wire::Outcome::Allowed.into(),
        ..Default::default()
    };
    let actor = wire::Principal { id: actor, ..Default::default() };
    let body = Some(Body::Access(access));
    source.now(wire::Event { actor: Some(actor), body, ..Default::default() })
}

/// The files below a folder that hold any of [`PERSONAL`].
///
/// # Errors
///
/// When a folder cannot be listed.
pub fn holding(folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for file in fs::read_dir(folder)? {
        let path = file?.path();
        if path.is_dir() {
            found.extend(holding(&path)?);
        } else if let Ok(bytes) = fs::read(&path) {
            let holds = |needle: &&[u8]| bytes.windows(needle.len()).any(|some| some == *needle);
            found.extend(PERSONAL.iter().any(holds).then_some(path));
        }
    }
    Ok(found)
}

/// Waits until no file holds personal data any more.
///
/// # Errors
///
/// When that takes a minute.
pub async fn until_gone(folder: &Path) -> anyhow::Result<()> {
    for _ in 0..3_000 {
        // A file may vanish while it is looked for.
        if holding(folder).is_ok_and(|found| found.is_empty()) {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    bail!("still there: {:?}", holding(folder)?)
}

/// What both parties want erased, for the company to seal.
#[must_use]
pub fn redaction(governance: &Governance, first_index: u64, last_index: u64) -> wire::Redaction {
    let legal_basis = "request of a data subject".to_owned();
    let mut redaction =
        wire::Redaction { first_index, last_index, legal_basis, ..Default::default() };
    governance.sign(&mut redaction);
    redaction
}

/// Rules that a fresh auditor finds broken, who never saw what was erased.
///
/// # Errors
///
/// When the log is not in order, or cannot be read.
pub async fn found(puller: &Puller, ledger: &VerifierKey) -> anyhow::Result<Vec<String>> {
    let folder = tempfile::tempdir()?;
    let mut view = View::open(&folder.path().join("view.json"), ledger)?;
    let (quorum, list) = (Quorum::default(), FindingsList::default());
    let progress = Arc::new(|_, _| ());
    let (_, list) = audit_observed(puller, &mut view, quorum, progress, list).await?;
    Ok(list.conclude()?.into_iter().map(|finding| finding.rule).collect())
}

/// How many events are erased from a folder of which all holds, offline.
///
/// # Errors
///
/// What does not.
pub fn checked(folder: &Path, ledger: &VerifierKey) -> anyhow::Result<u64> {
    let options = storage::Options::new(folder, ORIGIN);
    let report = check::check(&(Arc::new(RealDisk) as _), &options, ledger, None, &|_| {})?;
    match report.problem {
        None => Ok(report.erased_events),
        Some(problem) => bail!("check: {problem}"),
    }
}
