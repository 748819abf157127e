//! Disks that run full or do not give back what was written, and clocks that jump: each gets the
//! promised answer, and nothing that was acknowledged is lost. The same on real disks: `real_disk`.

use std::{path::Path, sync::Arc, time::SystemTime};

use access_ledger_proto::wire;
use access_ledger_server::{check, folder::real_disk};
use access_ledger_tests::{
    clock::SetClock,
    gate::{GatedDisk, Mode, Opener},
    model::{Acknowledged, Audit},
    node::{Clients, Node, Setup},
    parties,
    source::{Refused, Sealed, Source},
};
use anyhow::{Context as _, ensure};
use tonic::Code;

const RESERVE_BYTES: u64 = 100 << 20;

/// A ledger on a gated disk, with a source and a batch that was acknowledged.
struct Bench {
    disk: GatedDisk,
    _opener: Opener,
    node: Node,
    clients: Clients,
    source: Source,
    acknowledged: Acknowledged,
}

impl Bench {
    async fn new(folder: &Path) -> anyhow::Result<Self> {
        let disk = GatedDisk::default();
        let mut setup = Setup { disk: Arc::new(disk.clone()), ..Setup::new(folder) };
        setup.options.reserve_bytes = RESERVE_BYTES;
        let node = setup.start().await?;
        let clients = node.clients();
        let source = clients.enrolled("payments", 1, &node.vkey).await?;
        let (acknowledged, _opener) = (Acknowledged::default(), disk.opener());
        let mut bench = Self { disk, _opener, node, clients, source, acknowledged };
        bench.record(3).await?;
        Ok(bench)
    }

    async fn record(&mut self, count: usize) -> anyhow::Result<Sealed> {
        let sealed = self.source.record(count)?;
        self.acknowledged.note(&sealed, self.clients.record(&sealed).await?)?;
        Ok(sealed)
    }

    async fn refused(&self, sealed: &Sealed) -> anyhow::Result<Refused> {
        let refused = self.clients.append(sealed).await.err().context("was acknowledged")?;
        Ok(Refused::of(&refused))
    }

    /// Compares all that an auditor reads with what was acknowledged.
    async fn audit(&self, clients: &Clients) -> anyhow::Result<()> {
        let mut audit = Audit::new(&self.node.vkey);
        audit.pull(clients).await?;
        self.acknowledged.check(&audit)
    }

    /// Stops, verifies all that is stored, opens again without any trouble and compares again.
    async fn restart(self, folder: &Path) -> anyhow::Result<()> {
        let Self { node, source, acknowledged, .. } = self;
        let vkey = node.vkey.clone();
        node.stop().await?;
        let code = tokio::task::spawn_blocking({
            let folder = folder.to_owned();
            move || check::run(&real_disk(), &folder)
        });
        ensure!(code.await?? == std::process::ExitCode::SUCCESS, "check found damage");
        let node = Node::start(folder).await?;
        let mut audit = Audit::new(&vkey);
        audit.pull(&node.clients()).await?;
        acknowledged.check(&audit)?;
        assert_eq!(audit.last_seq("payments") + 1, source.next_seq);
        node.stop().await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn appends_end_while_there_is_space_and_go_on_when_there_is_more() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let mut bench = Bench::new(folder.path()).await?;
    let recorded = bench.record(2).await?;
    bench.disk.set_free_bytes(RESERVE_BYTES - 1);
    let waiting = bench.source.record(4)?;
    for _ in 0..2 {
        let refused = bench.refused(&waiting).await?;
        assert_eq!(refused.kind(), (Code::Unavailable, "DISK_FULL"));
        assert!(refused.retry_after.is_some_and(|delay| !delay.is_zero()));
    }
    // A source that does not know it yet still hears that its batch is recorded.
    bench.acknowledged.note(&recorded, bench.clients.record(&recorded).await?)?;
    let late = Source::new("late", 7, &bench.node.vkey)?;
    let enrolled = bench.clients.recorder.clone().enroll(late.enrolment()).await;
    let refused = Refused::of(&enrolled.err().context("enrolled all the same")?);
    assert_eq!(refused.kind(), (Code::Unavailable, "DISK_FULL"));
    bench.audit(&bench.clients).await?;

    bench.disk.set_free_bytes(RESERVE_BYTES);
    bench.acknowledged.note(&waiting, bench.clients.record(&waiting).await?)?;
    bench.record(1).await?;
    bench.restart(folder.path()).await
}

#[tokio::test(flavor = "multi_thread")]
async fn reads_that_fail_are_told_and_appends_go_on() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let mut bench = Bench::new(folder.path()).await?;
    bench.disk.set(Mode::FailedReads);
    let read = wire::ReadEntriesRequest { end_index: 3, ..Default::default() };
    let answer = bench.clients.auditor.clone().read_entries(read).await;
    let status = match answer {
        Ok(stream) => stream.into_inner().message().await.err().context("was read")?,
        Err(status) => status,
    };
    let refused = Refused::of(&status);
    assert_eq!(refused.kind(), (Code::DataLoss, "STORAGE_DAMAGED"));
    bench.record(5).await?;
    bench.disk.set(Mode::Open);
    bench.audit(&bench.clients).await?;
    bench.record(2).await?;
    bench.restart(folder.path()).await
}

const YEAR_S: u64 = 365 * 24 * 3600;

#[tokio::test(flavor = "multi_thread")]
async fn a_clock_that_jumps_by_a_year_bends_no_order_and_loses_nothing() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let now_s = SystemTime::UNIX_EPOCH.elapsed()?.as_secs();
    let clock = Arc::new(SetClock::at_s(now_s));
    let setup = Setup { clock: clock.clone(), ..Setup::new(folder.path()) };
    let node = setup.start().await?;
    let clients = node.clients();
    let mut source = clients.enrolled("payments", 1, &node.vkey).await?;
    let mut acknowledged = Acknowledged::default();
    let mut times = Vec::new();
    // Forward, back to the right time, and forward beyond it.
    for clock_s in [now_s, now_s + YEAR_S, now_s, now_s + 1, now_s + 2 * YEAR_S, now_s] {
        clock.set_s(clock_s);
        let sealed = source.record(2)?;
        let place = clients.record(&sealed).await?;
        times.push(place.recorded_at);
        acknowledged.note(&sealed, place)?;
    }
    assert!(times.is_sorted(), "{times:?}");
    // A clock that is a year late takes the right time for the far future, and says so.
    clock.set_s(now_s - YEAR_S);
    let event = source.now(parties::access("accounts", "", wire::Outcome::Allowed));
    let early = source.seal(vec![event])?;
    let refused = Refused::of(&clients.append(&early).await.err().context("was taken")?);
    assert_eq!(refused.kind(), (Code::InvalidArgument, "EVENT_INVALID"));
    clock.set_s(now_s);
    acknowledged.note(&early, clients.record(&early).await?)?;

    let mut audit = Audit::new(&node.vkey);
    audit.pull(&clients).await?;
    acknowledged.check(&audit)?;
    drop(clients);
    node.stop().await?;
    // Opened by a clock that is late again.
    clock.set_s(now_s - YEAR_S);
    let node = setup.start().await?;
    audit.pull(&node.clients()).await?;
    acknowledged.check(&audit)?;
    clock.set_s(now_s + 1);
    let sealed = source.record(1)?;
    let place = node.clients().record(&sealed).await?;
    assert!(times.last().is_some_and(|last| place.recorded_at >= *last));
    node.stop().await
}
