//! `verify`: audits a ledger.

use std::{path::PathBuf, sync::Arc};

use access_ledger_proto::{facts::sources::Sources, note::VerifierKey, position::Size};
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};

use super::{Failure, Server, cosigners::Cosigners, say, time};
use crate::{
    audit::{AuditOptions, Audited, Progress, audit},
    pull::Puller,
    verify::Scope,
    view::View,
};

/// Verifies the whole log: chain, events, seals, numbers, time, tree, checkpoint, and that nothing
/// of what was verified before has changed
///
/// Goes on from the pinned view. When the ledger is caught, the finding is one sentence, the
/// evidence is written into the current directory, and the exit code is 1. With --witness or
/// --quorum the newest checkpoint that has such signatures is asked for.
#[derive(Debug, Args)]
pub(super) struct Verify {
    #[command(flatten)]
    server: Server,
    /// Verifier key of the ledger, from somebody you trust
    #[arg(long, value_name = "VKEY", env = "ACCESS_LEDGER_KEY")]
    ledger: VerifierKey,
    /// The view file; default: the ledger's name, `/` replaced by `_`, + `.view.json`, in the
    /// current directory
    #[arg(long, value_name = "FILE")]
    view: Option<PathBuf>,
    /// Begin at entry 0 and compare with the pinned view
    #[arg(long)]
    full: bool,
    /// Leave the events aside: seals and who may record cannot be checked
    #[arg(long)]
    entries_only: bool,
    #[command(flatten)]
    cosigners: Cosigners,
}

impl Verify {
    pub(super) async fn run(self) -> Result<(), Failure> {
        let path = self.view.unwrap_or_else(|| default_view(&self.ledger));
        let mut view = View::open(&path, &self.ledger)?;
        let puller = Puller::new(self.server.reach().await?);
        let scope = if self.entries_only { Scope::EntriesOnly } else { Scope::Events };
        let quorum = self.cosigners.quorum(&self.ledger)?;
        let options = AuditOptions { scope, full: self.full, quorum };
        let (bar, progress) = progress()?;
        let audited = audit(&puller, &mut view, &options, progress).await;
        bar.finish_and_clear();
        let audited = audited.map_err(|error| Failure::of_audit(error, &self.ledger))?;
        tell(&audited)?;
        say(format_args!("view      {}", view.path().display()))?;
        Ok(())
    }
}

fn tell(audited: &Audited) -> std::io::Result<()> {
    let (checkpoint, verifier) = (&audited.checkpoint, &audited.verifier);
    let totals = verifier.totals();
    let (origin, size, known) = (checkpoint.origin(), checkpoint.size(), audited.known);
    say(format_args!("verified  {origin}, {size} entries, {known} of them before"))?;
    say(format_args!("root      {}", checkpoint.root()))?;
    let (from, to) = (time(totals.first_recorded_at), time(verifier.recorded_at()));
    say(format_args!("time      {from} to {to}"))?;
    let recording = verifier.sequences().iter().count();
    match verifier.sources() {
        Some(sources) => {
            let registered = sources.iter().count();
            let unvetted = sources.iter().filter(|source| source.self_enrolled).count();
            say(format_args!(
                "sources   {registered} registered, {recording} recorded, {unvetted} enrolled themselves"
            ))?;
            let (batches, seals) = (totals.batches, totals.seals_checked);
            say(format_args!("batches   {batches}, {seals} seals verified"))?;
        }
        None => {
            say(format_args!("sources   {recording} recorded"))?;
            say(format_args!("batches   {}, seals NOT verified (entries only)", totals.batches))?;
        }
    }
    if let Some(keys) = verifier.sources().map(Sources::ledger_keys)
        && let Some(since) = keys.changed_at()
    {
        say(format_args!("key       {} since index {since}", keys.now()))?;
    }
    say(format_args!("erased    {} events, each with its record", totals.events_erased))?;
    for cosignature in checkpoint.cosignatures() {
        let at = time(cosignature.timestamp_s.saturating_mul(1_000_000_000));
        say(format_args!("cosigned  by {} at {at}", cosignature.key.name()))?;
    }
    if audited.newest > size {
        let newest = audited.newest;
        say(format_args!("newest    {newest} entries, NOT verified: not cosigned yet"))?;
    }
    Ok(())
}

/// In the current directory, named like the ledger.
pub(super) fn default_view(ledger: &VerifierKey) -> PathBuf {
    PathBuf::from(format!("{}.view.json", ledger.name().replace('/', "_")))
}

/// A bar that shows on a terminal only, and what moves it.
pub(super) fn progress() -> anyhow::Result<(ProgressBar, Progress)> {
    let style = "{bar:40} {pos}/{len} entries, {per_sec}, {eta} left";
    let bar = ProgressBar::new(0).with_style(ProgressStyle::with_template(style)?);
    let shown = bar.clone();
    let progress = Arc::new(move |done: Size, total: Size| {
        shown.set_length(total.0);
        shown.set_position(done.0);
    });
    Ok((bar, progress))
}
