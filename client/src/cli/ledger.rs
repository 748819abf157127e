//! What the log of a ledger says of its rules, read and verified.

use std::path::{Path, PathBuf};

use access_ledger_proto::{
    entry::Entry,
    facts::{Facts, Noted, sources::Sources},
    hash::sha256,
    note::VerifierKey,
    position::{Index, Size},
    quorum::Quorum,
    wire,
};
use anyhow::{Context as _, anyhow};
use clap::Args;
use prost::Message as _;

use super::{
    Failure, Server,
    cosigners::{read_quorum, wanted},
    credentials::CredentialArgs,
    prove::pull_proof,
    verify::{default_view, progress},
};
use crate::{
    audit::{Audited, Observer, audit_copy, audit_observed},
    evidence::Caught,
    folder::Folder,
    pull::Puller,
    verify::{Record, Scope},
    view::View,
};

/// The ledger to read, and the key that it must have.
// clap leaves a group empty, and so takes it for absent, when another is within it; `findings` has
// to know whether a ledger was named, which no ledger is without its key.
#[derive(Debug, Args)]
#[group(args = ["ledger"])]
pub(super) struct LedgerArgs {
    /// Address of the ledger or a custodian, as in http://127.0.0.1:7070
    #[arg(
        long = "server",
        value_name = "URL",
        env = "ACCESS_LEDGER_SERVER",
        required_unless_present = "data"
    )]
    url: Option<String>,
    #[command(flatten)]
    credentials: CredentialArgs,
    /// A copy of the ledger's data folder, to read instead of asking a server
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Verifier key of the ledger, from somebody you trust
    #[arg(long, value_name = "VKEY", env = "ACCESS_LEDGER_KEY")]
    ledger: VerifierKey,
    /// The view file; default: the ledger's name, `/` replaced by `_`, + `.view.json`, in the
    /// current directory
    #[arg(long, value_name = "FILE")]
    view: Option<PathBuf>,
    /// Verifier key of a cosigner whose signature on the checkpoint is reported; repeat for more
    #[arg(long = "witness", value_name = "VKEY", conflicts_with = "quorum")]
    witnesses: Vec<VerifierKey>,
    /// Trust policy (C2SP tlog-policy): nothing is believed that its witnesses have not cosigned
    #[arg(long, value_name = "FILE", value_parser = read_quorum)]
    quorum: Option<Quorum>,
}

impl LedgerArgs {
    pub(super) fn new(server: Server, ledger: VerifierKey, view: Option<PathBuf>) -> Self {
        let (Server { url, credentials }, witnesses, quorum) = (server, Vec::new(), None);
        Self { url: Some(url), credentials, data: None, ledger, view, witnesses, quorum }
    }

    /// The server, whose word is believed.
    pub(super) async fn puller(&self) -> Result<Puller, Failure> {
        let url =
            self.url.as_deref().context("a copy of a folder answers no questions: --server")?;
        Ok(Puller::new(self.credentials.reach(url).await?))
    }

    /// Verifies the whole log, and gives what `observer` computed from it.
    pub(super) async fn observe<O: Observer>(&self, observer: O) -> Result<(Audited, O), Failure> {
        let path = self.view.clone().unwrap_or_else(|| default_view(&self.ledger));
        let mut view = View::open(&path, &self.ledger)?;
        let (bar, progress) = progress()?;
        let quorum = wanted(self.quorum.as_ref(), &self.witnesses, &self.ledger)?;
        let audited = match &self.data {
            Some(data) => {
                let folder = Folder::new(data, &self.ledger);
                let audit = move || audit_copy(&folder, &mut view, &quorum, &progress, observer);
                tokio::task::spawn_blocking(audit).await?
            }
            None => {
                let puller = self.puller().await?;
                audit_observed(&puller, &mut view, quorum, progress, observer).await
            }
        };
        bar.finish_and_clear();
        audited.map_err(|error| Failure::of_audit(error, &self.ledger))
    }

    /// Verifies the whole log, and gives the facts that follow from it.
    pub(super) async fn facts(&self) -> Result<Facts, Failure> {
        let (_, rules) = self.observe(Rules::default()).await?;
        rules.0.ok_or_else(|| anyhow!("the ledger has no genesis").into())
    }
}

/// The facts of the records so far; `None` before entry 0.
#[derive(Default)]
pub(super) struct Rules(pub(super) Option<Facts>);

impl Observer for Rules {
    fn take(&mut self, _: Index, records: &[Record]) {
        for Record { entry, event } in records {
            let Some(event) = event else { continue };
            let Some(facts) = &mut self.0 else {
                // The audit ends with what is wrong with a genesis.
                self.0 = Facts::from_genesis(event).ok();
                continue;
            };
            let concerns = access_ledger_proto::event::body(event).is_some_and(Facts::concerns);
            if let (true, Ok(entry), Ok(event)) =
                (concerns, Entry::parse(entry), wire::Event::decode(event.clone()))
            {
                let (index, recorded_at, source) = (entry.index, entry.recorded_at, entry.source);
                let noted = Noted { index, recorded_at, source, event: &event };
                let _objections = facts.apply(&noted);
            }
        }
    }
}

/// The sources as the whole log has them, verified; the view lies at `path`.
pub(super) async fn all_sources(
    puller: &Puller,
    ledger: &VerifierKey,
    path: &Path,
) -> Result<Sources, Failure> {
    let mut view = View::open(path, ledger)?;
    let quorum = Quorum::default();
    let (bar, progress) = progress()?;
    let audited = audit_observed(puller, &mut view, quorum, progress, Rules::default()).await;
    bar.finish_and_clear();
    let (_, rules) = audited.map_err(|error| Failure::of_audit(error, ledger))?;
    let facts = rules.0.ok_or_else(|| anyhow!("the ledger has no genesis"))?;
    Ok(facts.sources().clone())
}

/// The sources of the genesis, among them who governs: entry 0, proven to be the ledger's.
pub(super) async fn founders(puller: &Puller, ledger: &VerifierKey) -> Result<Sources, Failure> {
    let (proof, _) = pull_proof(puller, Index::GENESIS, ledger, &Quorum::default()).await?;
    let mut records = puller.records(Index::GENESIS, Size(1), Scope::Events);
    let run = records.next().await.ok_or_else(|| anyhow!("the ledger has no genesis"))??;
    let event = run.1.into_iter().next().and_then(|record| record.event).unwrap_or_default();
    if sha256(&event) != Entry::parse(&proof.entry)?.event_digest {
        let problem = "the genesis is not the one recorded".to_owned();
        let caught = Caught::Answer { problem, bytes: event };
        return Err(Failure::Caught(Box::new(caught), Box::new(ledger.clone())));
    }
    Ok(Sources::from_genesis(&event).context("genesis")?)
}
