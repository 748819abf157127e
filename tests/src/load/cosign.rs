//! Appends to a ledger that has its checkpoints cosigned, beside the same to one that has not.
//!
//! Both are processes of their own and measured in turn, by their own processor time: what the
//! custodian computes is its own affair, what it asks of the ledger is not. But it must keep up on
//! a core of its own: its time for an entry, at the rate that the ledger has alone, is told too. A
//! round is over when all that was appended in it is cosigned, so the ledger pays for that in its
//! own round. The indexes of all three come after it: the next round waits for them, and the time
//! of an entry is told without and with the index of its ledger. The patrol goes on all the time.

use std::{
    path::Path,
    sync::{Arc, Mutex},
    time::Duration,
};

use access_ledger_client::connect::Link;
use access_ledger_proto::{
    checkpoint::VerifiedCheckpoint,
    note::Note,
    receipt::ReceiptVerifier,
    wire::{
        self, audit_service_client::AuditServiceClient,
        recorder_service_client::RecorderServiceClient,
    },
};
use anyhow::ensure;
use bytes::Bytes;
use tokio::time::{Instant, sleep};

use super::{
    args::Plan,
    child::{Child, PATIENCE},
    report::{Ratio, Sample, Section, Wanted},
    source::{self, BATCH_EVENTS, Source},
    stream::{BATCHES, Recorder},
    unary::{self, Verifier},
};

/// Calls of the one caller whose latency is measured, in one round.
const CALLS: usize = 500;

/// Measures (k): appends with and without a custodian.
pub(super) fn measure(plan: &Plan) -> anyhow::Result<Vec<Section>> {
    let events = source::events(BATCHES * BATCH_EVENTS)?;
    let folders = tempfile::tempdir_in(&plan.dir)?;
    let alone = Child::ledger(plan, &folders.path().join("alone"))?;
    let (ledger, custodian) = followed(plan, folders.path())?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let samples = runtime.block_on(async {
        let sides = [Side::new(&alone, false).await?, Side::new(&ledger, true).await?];
        rounds(plan, &events, sides, Some(&custodian)).await
    })?;
    // The custodian goes first: it would miss its ledger.
    drop((custodian, ledger));
    let [[stream_alone, unary_alone], [stream, unary]] =
        samples.map(|rounds| rounds.map(|samples| Sample::median(&samples)));
    Ok(vec![Section {
        id: "cosign",
        title: format!(
            "(k) a custodian that cosigns, streams of {BATCH_EVENTS} a batch and one caller; \
             processor time of the ledger without its index; with it, an entry of a stream takes \
             {:.2} us alone and {:.2} us cosigned",
            stream_alone.whole_cpu_us, stream.whole_cpu_us,
        ),
        columns: Sample::columns(),
        rows: vec![
            stream_alone.row("stream, nobody cosigns"),
            stream.row("stream, cosigned"),
            unary_alone.row("1 caller, nobody cosigns"),
            unary.row("1 caller, cosigned"),
        ],
        ratios: vec![
            Ratio::new(
                "processor time of an entry, cosigned : not",
                stream.cpu_us / stream_alone.cpu_us,
                Wanted::AtMost(1.15),
            ),
            Ratio::new(
                "the same until it is indexed",
                stream.whole_cpu_us / stream_alone.whole_cpu_us,
                Wanted::AtMost(1.15),
            ),
            Ratio::new(
                "cores of a custodian that follows the rate of nobody cosigns",
                1e-6 * stream.custodian_cpu_us * stream_alone.per_second,
                Wanted::AtMost(1.0),
            ),
            Ratio::new(
                "p50 of 1 caller, cosigned : not",
                unary.p50_ms / unary_alone.p50_ms,
                Wanted::AtMost(1.10),
            ),
        ],
    }])
}

/// A ledger that asks the custodian that follows it.
fn followed(plan: &Plan, folders: &Path) -> anyhow::Result<(Child, Child)> {
    let data = folders.join("ledger");
    let unwitnessed = Child::ledger(plan, &data)?;
    let custodian = Child::custodian(plan, &folders.join("custodian"), &unwitnessed)?;
    let address = unwitnessed.said(0)?.to_owned();
    drop(unwitnessed);
    let policy = custodian.said(1)?;
    let ledger = Child::witnessed_ledger(plan, &data, &address, Path::new(policy))?;
    Ok((ledger, custodian))
}

/// One side of a comparison.
pub(super) struct Side<'a> {
    child: &'a Child,
    client: RecorderServiceClient<Link>,
    auditor: AuditServiceClient<Link>,
    recorder: Recorder,
    caller: Option<Source>,
    verifier: Verifier,
    is_cosigned: bool,
}

/// The rounds of each side: streams, and calls.
pub(super) type Rounds = [Vec<Sample>; 2];

/// Measures both sides in turn; a custodian comes to rest with its ledger.
pub(super) async fn rounds(
    plan: &Plan,
    events: &[Bytes],
    mut sides: [Side<'_>; 2],
    custodian: Option<&Child>,
) -> anyhow::Result<[Rounds; 2]> {
    let mut samples: [Rounds; 2] = Default::default();
    for round in 0..plan.rounds {
        let mut turns: Vec<_> = sides.iter_mut().zip(&mut samples).collect();
        if round % 2 == 1 {
            turns.reverse();
        }
        for (side, [streams, calls]) in turns {
            let cpu = side.child.whole_cpu_seconds()?;
            let custodian_cpu = own_cpu_seconds(custodian)?;
            let (sample, appended) = side.stream(events, plan.stream_time).await?;
            let custodian_cpu = own_cpu_seconds(custodian)? - custodian_cpu;
            let sample = sample.with_custodian_cpu(appended, custodian_cpu);
            rest(side.child, custodian).await?;
            let seconds = side.child.whole_cpu_seconds()? - cpu;
            streams.push(sample.with_whole_cpu(appended, seconds));
            calls.push(side.call(events).await?);
            rest(side.child, custodian).await?;
        }
    }
    Ok(samples)
}

/// The processor time of a custodian without its index; 0 where there is none.
fn own_cpu_seconds(custodian: Option<&Child>) -> anyhow::Result<f64> {
    custodian.map_or(Ok(0.0), Child::own_cpu_seconds)
}

/// Waits until nobody is busy with what was appended.
async fn rest(ledger: &Child, custodian: Option<&Child>) -> anyhow::Result<()> {
    ledger.rest().await?;
    match custodian {
        Some(custodian) => custodian.rest().await,
        None => Ok(()),
    }
}

impl<'a> Side<'a> {
    /// Appends to this ledger; a round is over when all of it is cosigned, if anything is.
    pub(super) async fn new(child: &'a Child, is_cosigned: bool) -> anyhow::Result<Self> {
        let channel = child.connect().await?;
        let mut client = RecorderServiceClient::new(channel.clone());
        let vkey = child.vkey()?;
        let source = Source::enroll(&mut client, "stream", &vkey).await?;
        let caller = Some(Source::enroll(&mut client, "caller", &vkey).await?);
        let verifier = || ReceiptVerifier::new(vkey.clone(), Vec::new());
        let recorder = Recorder { source, verifier: verifier() };
        let verifier = Arc::new(Mutex::new(verifier()));
        let auditor = AuditServiceClient::new(channel);
        Ok(Self { child, client, auditor, recorder, caller, verifier, is_cosigned })
    }

    /// What a round of the stream took, and of how many events.
    async fn stream(&mut self, events: &[Bytes], time: Duration) -> anyhow::Result<(Sample, f64)> {
        let cpu = self.child.own_cpu_seconds()?;
        let (sample, events) = self.recorder.round(&mut self.client, events, time).await?;
        self.settle().await?;
        Ok((sample.with_cpu(events, self.child.own_cpu_seconds()? - cpu), events))
    }

    async fn call(&mut self, events: &[Bytes]) -> anyhow::Result<Sample> {
        let source = self.caller.take().into_iter();
        let callers = source.map(|source| unary::seal(source, events, CALLS));
        let callers = callers.collect::<Result<Vec<_>, _>>()?;
        let cpu = self.child.own_cpu_seconds()?;
        let (sample, back) = unary::run(&self.client, &self.verifier, callers).await?;
        self.settle().await?;
        self.caller = back.into_iter().next();
        Ok(sample.with_cpu(CALLS as f64, self.child.own_cpu_seconds()? - cpu))
    }

    /// Waits until all that was appended is cosigned.
    async fn settle(&mut self) -> anyhow::Result<()> {
        let limit = Instant::now() + PATIENCE;
        while self.is_cosigned && !self.is_settled().await? {
            ensure!(Instant::now() < limit, "the custodian does not cosign");
            sleep(POLL).await;
        }
        Ok(())
    }

    /// Whether the newest checkpoint is the newest that both keys have cosigned.
    async fn is_settled(&mut self) -> anyhow::Result<bool> {
        let (newest, cosigned) = (self.newest(false).await?, self.newest(true).await?);
        let signatures = Note::parse(cosigned.note().as_bytes())?.signatures().len();
        Ok(newest.size() == cosigned.size() && signatures == 3)
    }

    /// The newest checkpoint, or the newest that has its quorum, if any has.
    async fn newest(&mut self, cosigned: bool) -> anyhow::Result<VerifiedCheckpoint> {
        let request = wire::GetCheckpointRequest { cosigned };
        let note = self.auditor.get_checkpoint(request).await?.into_inner().checkpoint;
        Ok(VerifiedCheckpoint::open(&note, &self.child.vkey()?, &[])?)
    }
}

/// Seldom: who asks takes the time that is measured.
const POLL: Duration = Duration::from_millis(100);
