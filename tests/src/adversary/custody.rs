//! The custodian at an attack: it has followed the honest ledger, signed what it holds, and then
//! the operator plugs the cable elsewhere.

use std::{net::SocketAddr, path::Path, sync::Arc, time::Duration};

use access_ledger_proto::{
    checkpoint::VerifiedCheckpoint, note::VerifierKey, position::Size, witness::origin_hex,
};
use access_ledger_server::{
    custodian::{
        Custodian, CustodianOptions,
        alarms::{AlarmKind, AlarmRecord, Alarms, Place},
        halt::Halt,
        patrol::PatrolOptions,
    },
    os::{Disk, RealDisk},
    serve::Serving,
};
use anyhow::{Context as _, ensure};
use tempfile::TempDir;
use tokio::{
    sync::oneshot,
    task::JoinHandle,
    time::{Instant, sleep},
};

use super::{Attack, signed};
use crate::{
    clock::RunningClock,
    hostile::{Cable, Server},
    node::{Clients, ORIGIN},
    operator::{Crime, SECOND, newest_time},
};

/// A custodian that runs, with a clock that the test sets.
pub struct Watching {
    folder: TempDir,
    ledger: VerifierKey,
    /// Its own clock.
    pub clock: Arc<RunningClock>,
    /// Between it and the ledger.
    pub cable: Cable,
    /// Where it serves.
    pub address: SocketAddr,
    /// What it raised.
    pub alarms: Arc<Alarms>,
    keys: [VerifierKey; 2],
    stop: oneshot::Sender<()>,
    run: JoinHandle<anyhow::Result<()>>,
}

impl Watching {
    /// Follows a server that is honest so far, until it holds and has signed a size.
    ///
    /// # Errors
    ///
    /// When it cannot, in time.
    pub async fn begin(crime: &Crime, server: &Server) -> anyhow::Result<Self> {
        let folder = tempfile::tempdir()?;
        let clock = Arc::new(RunningClock::default());
        clock.set(newest_time(&crime.honest)? + SECOND);
        let cable = Cable::to(server).await?;
        let options = CustodianOptions {
            cosign_idle: Duration::from_millis(10),
            patrol: PatrolOptions {
                record_grace: GRACE,
                erasure_grace: GRACE,
                ..PatrolOptions::default()
            },
            ..CustodianOptions::new(folder.path(), crime.vkey.clone())
        };
        let disk: Arc<dyn Disk> = Arc::new(RealDisk);
        let own: Arc<dyn access_ledger_server::os::Clock> = clock.clone();
        let open = move || Custodian::open(options, &disk, &own, None);
        let custodian = tokio::task::spawn_blocking(open).await??;
        let (alarms, keys) = (custodian.alarms().clone(), custodian.vkeys().map(Clone::clone));
        let serving = Serving::bind(custodian, SocketAddr::from(([127, 0, 0, 1], 0))).await?;
        let (address, url) = (serving.address(), format!("http://{}", cable.address));
        let (stop, stopped) = oneshot::channel::<()>();
        let run = tokio::spawn(async move {
            let stop = async move { drop(stopped.await) };
            Ok(serving.run(&url, stop).await?)
        });
        let ledger = crime.vkey.clone();
        let watching = Self { folder, ledger, clock, cable, address, alarms, keys, stop, run };
        watching.signed(crime.size()).await.context("following the honest ledger")?;
        Ok(watching)
    }

    /// Waits until it has signed a size with both keys.
    ///
    /// # Errors
    ///
    /// When it has not, in time.
    pub async fn signed(&self, size: u64) -> anyhow::Result<VerifiedCheckpoint> {
        let signed = || self.newest().is_some_and(|newest| newest.size().0 >= size);
        wait(signed).await.with_context(|| format!("to sign size {size}: {:?}", self.raised()))?;
        let newest = self.newest().context("a checkpoint")?;
        ensure!(newest.size() == Size(size) && newest.cosignatures().len() == 2, "{newest:?}");
        Ok(newest)
    }

    /// What it signed last.
    #[must_use]
    pub fn newest(&self) -> Option<VerifiedCheckpoint> {
        let note = std::fs::read(self.folder.path().join("witness").join(origin_hex(ORIGIN)));
        VerifiedCheckpoint::open(&note.ok()?, &self.ledger, &self.keys).ok()
    }

    /// All that it ever raised.
    #[must_use]
    pub fn raised(&self) -> Vec<AlarmRecord> {
        self.alarms.all()
    }

    /// Why it signs nothing more.
    ///
    /// # Errors
    ///
    /// When the marker cannot be read.
    pub fn halted(&self) -> anyhow::Result<Option<Halt>> {
        Ok(Halt::read(&RealDisk, self.folder.path())?)
    }

    /// Its data folder.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Clients of its own services.
    ///
    /// # Errors
    ///
    /// When it does not listen.
    pub async fn clients(&self) -> anyhow::Result<Clients> {
        Clients::connect(self.address).await
    }

    /// Stops in order.
    ///
    /// # Errors
    ///
    /// When it ended otherwise.
    pub async fn end(self) -> anyhow::Result<()> {
        drop(self.stop);
        self.run.await?
    }
}

/// The custodian raises exactly what the attack says, and halts where that is proof of two
/// histories or of a bad log; at the honest twin it raises nothing and signs on.
pub(super) async fn custodian(
    crime: &Crime,
    attack: &Attack,
    server: &Server,
) -> anyhow::Result<()> {
    let honest = Server::start(signed(&crime.honest)?).await?;
    let watching = Watching::begin(crime, &honest).await?;
    ensure!(watching.raised().is_empty(), "{:?}", watching.raised());
    let before = watching.newest().context("a checkpoint")?;
    if attack.later > SECOND {
        // Time passes, and the ledger says again and again that there is nothing new.
        let (begin, steps) = (newest_time(&crime.honest)? + SECOND, attack.later.div_ceil(STEP));
        for step in 1..=steps.min(STEPS_MAX) {
            watching.clock.set(begin + attack.later * step / steps.min(STEPS_MAX));
            watching.asked(&honest).await?;
        }
    }
    watching.cable.plug(server);
    let all = || watching.raised().len() >= attack.alarms.len();
    wait(all).await.with_context(|| format!("to raise {:?}", attack.alarms))?;
    watching.asked_again(server).await?;
    let raised = watching.raised();
    ensure!(raised.len() == attack.alarms.len(), "raised {raised:?}, wanted {:?}", attack.alarms);
    for alarm in &attack.alarms {
        let is_raised = raised.iter().any(|raised| is(raised, alarm));
        ensure!(is_raised, "raised {raised:?}, wanted {alarm:?}");
    }
    let halts = attack.alarms.iter().any(|(kind, _)| kind.halts());
    let halted = watching.halted()?;
    ensure!(halted.is_some() == halts, "halted: {halted:?}");
    if halts {
        let signed = watching.newest().context("a checkpoint")?;
        ensure!(signed.root() == before.root() && signed.size() == before.size(), "{signed:?}");
    }
    watching.end().await
}

/// At the honest twin the custodian raises nothing, and signs on.
pub(super) async fn twin(crime: &Crime, attack: &Attack, twin: &Server) -> anyhow::Result<()> {
    let honest = Server::start(signed(&crime.honest)?).await?;
    let watching = Watching::begin(crime, &honest).await?;
    watching.cable.plug(twin);
    watching.clock.set(newest_time(&attack.twin)? + SECOND);
    watching.signed(crate::operator::end(&attack.twin)).await?;
    watching.asked_again(twin).await?;
    ensure!(watching.raised().is_empty(), "{:?}", watching.raised());
    ensure!(watching.halted()?.is_none());
    watching.end().await
}

impl Watching {
    /// Waits until the ledger was asked for its newest checkpoint once more.
    async fn asked(&self, server: &Server) -> anyhow::Result<()> {
        let before = server.asked.checkpoints();
        wait(|| server.asked.checkpoints() > before).await.context("to ask again")
    }

    /// Waits until whatever more it would find in what is served has been read.
    async fn asked_again(&self, server: &Server) -> anyhow::Result<()> {
        let before = server.asked.reads().len();
        let is_halted = || self.halted().is_ok_and(|halted| halted.is_some());
        // Once it is halted it looks for nothing more.
        let is_over = || is_halted() || server.asked.reads().len() > before + 1;
        wait(is_over).await.context("to read again")
    }
}

fn is(raised: &AlarmRecord, (kind, place): &(AlarmKind, Place)) -> bool {
    let is_there = match place {
        Place::Ledger => true,
        Place::Index(index) => raised.index == Some(index.0),
        Place::Size(size) => raised.size == size.0,
        Place::Party(party) => raised.party.as_deref() == Some(party),
    };
    raised.kind == *kind && is_there
}

/// Waits for a condition.
async fn wait(holds: impl Fn() -> bool) -> anyhow::Result<()> {
    let deadline = Instant::now() + DEADLINE;
    while !holds() {
        ensure!(Instant::now() < deadline, "not in {DEADLINE:?}");
        sleep(Duration::from_millis(5)).await;
    }
    Ok(())
}

/// Nanoseconds that pass between two answers, so that the ledger counts as one that answers; and
/// how often at most, for longer times need no such care.
const STEP: u64 = 20 * SECOND;
const STEPS_MAX: u64 = 6;

/// How long an event may be gone without a record, or be there in spite of one.
const GRACE: Duration = Duration::from_millis(100);

/// Far longer than anything here takes.
const DEADLINE: Duration = Duration::from_secs(8);
