//! The half-year is recorded: each service, each approver and both governance parties with a key of
//! their own, while a clock runs from its first day to its last.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    sync::atomic::{AtomicU64, Ordering},
};

use access_ledger_client::{
    connect,
    governance::proposal::{Change, Proposal},
    pull::Puller,
    recorder::Recorder,
    verify::Scope,
};
use access_ledger_proto::{
    facts::sources::Sources,
    note::{KeyType, Signer, VerifierKey},
    position::{Index, Size},
    wire::{self, Event, Outcome, SourcePhase, SourceRole, event::Body},
};
use anyhow::Context as _;
use bytes::Bytes;
use futures_util::future::try_join_all;
use tonic::transport::Channel;

use super::half_year::{self, HOUR_NANOS, HalfYear, Happening, What};
use crate::{folder::Folder, os::Clock};

/// A clock that shows what it is told, and never goes back.
#[derive(Debug)]
pub struct StoryClock(AtomicU64);

/// Shows the time at which the half-year begins.
impl Default for StoryClock {
    fn default() -> Self {
        Self(AtomicU64::new(half_year::START))
    }
}

impl StoryClock {
    /// Goes on to this time, in nanoseconds since the Unix epoch, unless it is past already.
    pub fn go_on(&self, time: u64) {
        self.0.fetch_max(time, Ordering::Relaxed);
    }
}

impl Clock for StoryClock {
    fn now_nanos(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// How much of each kind was recorded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Accesses, allowed or not.
    pub accesses: u64,
    /// Requests for access.
    pub requests: u64,
    /// Answers to them.
    pub decisions: u64,
    /// Requests of authorities.
    pub legal_requests: u64,
    /// Everything else.
    pub others: u64,
}

/// Everybody who records.
struct Company<'a> {
    recorders: BTreeMap<&'static str, Recorder>,
    /// Those who have recorded since all was settled.
    busy: BTreeSet<&'static str>,
    /// When all was settled the last time.
    settled_at: u64,
    /// Seals what governance changes.
    company: Recorder,
    /// Signs it.
    custodian: Signer,
    sources: Sources,
    clock: &'a StoryClock,
    counts: Counts,
}

/// Records the half-year in the ledger that is served at `url` from the folder `data`.
///
/// # Errors
///
/// When anything is refused or the network fails.
pub(super) async fn record(
    half_year: HalfYear,
    (url, data): (&str, &Path),
    ledger: &VerifierKey,
    clock: &StoryClock,
) -> anyhow::Result<Counts> {
    let channel = connect::channel(url)?;
    let mut company = Company::found(&channel, data, ledger, clock).await?;
    for day in half_year {
        for happening in day.happenings {
            company.live(happening).await?;
        }
        company.settle().await?;
        clock.go_on(half_year::START + (day.number + 1) * half_year::DAY_NANOS);
    }
    company.close().await
}

impl<'a> Company<'a> {
    /// Registers everybody, by both parties of the governance.
    async fn found(
        channel: &Channel,
        data: &Path,
        ledger: &VerifierKey,
        clock: &'a StoryClock,
    ) -> anyhow::Result<Self> {
        let [company, custodian] = Folder::new(data).governance_keys();
        let read = |path: &Path| -> anyhow::Result<Signer> {
            let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
            Ok(Signer::parse(text.trim_end())?)
        };
        let (company, custodian) = (read(&company)?, read(&custodian)?);
        let mut founded = Self {
            recorders: BTreeMap::new(),
            busy: BTreeSet::new(),
            settled_at: half_year::START,
            company: start(channel, company, ledger, 1).await?,
            custodian,
            sources: sources(channel, ledger).await?,
            clock,
            counts: Counts::default(),
        };
        let services = half_year::SOURCES.map(|name| (name, SourceRole::Record, ""));
        let approvers =
            half_year::APPROVERS.map(|(name, person)| (name, SourceRole::Approve, person));
        for (name, role, principal) in services.into_iter().chain(approvers) {
            let mut seed = [0; 32];
            getrandom::fill(&mut seed)?;
            let key = Signer::new(name, KeyType::Ed25519, seed)?;
            founded.change(registration(&key, role, principal)).await?;
            let recorder = start(channel, key, ledger, BATCH_EVENTS).await?;
            founded.recorders.insert(name, recorder);
        }
        Ok(founded)
    }

    /// Records what happens, at its time.
    async fn live(&mut self, happening: Happening) -> anyhow::Result<()> {
        let Happening { time, rests, what } = happening;
        // Nothing waits for its record much longer than it does in a company.
        if rests || time > self.settled_at + UNSETTLED_NANOS {
            self.settle().await?;
            self.settled_at = time;
        }
        self.clock.go_on(time);
        match what {
            What::Rule(change) => self.change(Change::Control(change)).await,
            What::Event(source, event) => {
                self.counts.count(&event);
                let recorder = self.recorders.get(source).context("an unknown source")?;
                // The receipts of all are waited for together.
                let _ticket = recorder.record(*event).await?;
                self.busy.insert(source);
                Ok(())
            }
        }
    }

    /// Waits for the receipts of all that was recorded.
    async fn settle(&mut self) -> anyhow::Result<()> {
        let busy = std::mem::take(&mut self.busy);
        let recorders = busy.iter().filter_map(|source| self.recorders.get(source));
        // Together, so that their batches share a sync.
        try_join_all(recorders.map(Recorder::flush)).await?;
        Ok(())
    }

    /// Changes a rule, by both parties.
    async fn change(&self, change: Change) -> anyhow::Result<()> {
        let mut proposal = Proposal::new(&self.sources.genesis().origin, change)?;
        proposal.sign(&self.custodian, &self.sources)?;
        let mut event = proposal.event();
        event.occurred_at = Some(half_year::timestamp(self.clock.now_nanos()));
        self.company.record(event).await?.receipt().await?;
        Ok(())
    }

    async fn close(self) -> anyhow::Result<Counts> {
        for (source, recorder) in self.recorders {
            let closed = recorder.close().await?;
            anyhow::ensure!(closed.unsent == 0, "{source} could not record {}", closed.unsent);
        }
        self.company.close().await?;
        Ok(self.counts)
    }
}

impl Counts {
    fn count(&mut self, event: &Event) {
        let kind = match &event.body {
            Some(Body::Access(access)) if access.outcome() != Outcome::Requested => {
                &mut self.accesses
            }
            Some(Body::AccessRequest(_)) => &mut self.requests,
            Some(Body::Decision(_)) => &mut self.decisions,
            Some(Body::LegalRequest(request))
                if request.phase() == wire::LegalRequestPhase::Received =>
            {
                &mut self.legal_requests
            }
            _ => &mut self.others,
        };
        *kind += 1;
    }
}

fn registration(key: &Signer, role: SourceRole, principal: &str) -> Change {
    Change::Source(wire::SourceStatus {
        phase: SourcePhase::Registered.into(),
        source: key.name().to_owned(),
        public_key: Bytes::copy_from_slice(key.verifier().public_key().as_bytes()),
        roles: vec![role.into()],
        principal: principal.to_owned(),
        ..wire::SourceStatus::default()
    })
}

async fn start(
    channel: &Channel,
    key: Signer,
    ledger: &VerifierKey,
    batch_events: usize,
) -> anyhow::Result<Recorder> {
    let builder = Recorder::builder(channel.clone(), key, ledger.clone());
    Ok(builder.batch_events_max(batch_events).start().await?)
}

/// The sources of the genesis, as the ledger tells it: the demonstration runs it itself.
async fn sources(channel: &Channel, ledger: &VerifierKey) -> anyhow::Result<Sources> {
    let mut records = Puller::new(channel.clone()).records(Index::GENESIS, Size(1), Scope::Events);
    let run = records.next().await.context("no genesis")??.1;
    let genesis = run.into_iter().next().and_then(|record| record.event).unwrap_or_default();
    let sources = Sources::from_genesis(&genesis)?;
    anyhow::ensure!(sources.genesis().ledger_vkey == ledger.to_string(), "another ledger");
    Ok(sources)
}

/// How long records may wait to be settled: three hours of the story.
const UNSETTLED_NANOS: u64 = 3 * HOUR_NANOS;

/// Events of a batch, where many come at once.
const BATCH_EVENTS: usize = 256;
