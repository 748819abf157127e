//! A custodian in this process, which follows whatever address it is given.

use std::{net::SocketAddr, path::Path, sync::Arc, time::Duration};

use access_ledger_client::{
    connect,
    pull::{Patience, Puller},
};
use access_ledger_proto::{checkpoint::VerifiedCheckpoint, note::VerifierKey, position::Size};
use access_ledger_server::{
    custodian::{
        Custodian, CustodianOptions,
        alarms::{AlarmKind, AlarmRecord, Alarms},
    },
    folder::Folder,
    health::Health,
    identity::Door,
    os::{Clock, Disk, Lock, RealDisk, SystemClock},
    serve::Serving,
};
use anyhow::Context as _;
use tokio::{sync::oneshot, task::JoinHandle, time::Instant};

/// How to start a custodian.
#[derive(Clone)]
pub struct Setup {
    /// Folder, ledger, limits.
    pub options: CustodianOptions,
    /// The disk, for everything but the index.
    pub disk: Arc<dyn Disk>,
    /// The clock.
    pub clock: Arc<dyn Clock>,
    /// Who may call.
    pub door: Arc<Door>,
}

/// A custodian that runs.
pub struct Keeper {
    /// Where it listens.
    pub address: SocketAddr,
    /// The ledger that it follows.
    pub ledger: VerifierKey,
    /// Its keys: witness, mirror.
    pub vkeys: [VerifierKey; 2],
    /// What it raised.
    pub alarms: Arc<Alarms>,
    /// How it does.
    pub health: Arc<Health>,
    /// The policy file that it wrote.
    pub policy: String,
    stop: oneshot::Sender<()>,
    run: JoinHandle<anyhow::Result<()>>,
}

impl Setup {
    /// A custodian on the real disk that cosigns soon when nobody asks.
    #[must_use]
    pub fn new(folder: &Path, ledger: &VerifierKey) -> Self {
        let options = CustodianOptions {
            cosign_idle: Duration::from_millis(50),
            ..CustodianOptions::new(folder, ledger.clone())
        };
        let (disk, clock) = (Arc::new(RealDisk), Arc::new(SystemClock));
        Self { options, disk, clock, door: Door::for_everybody() }
    }

    /// Opens the custodian and follows the ledger at an address.
    ///
    /// # Errors
    ///
    /// As [`Custodian::open`], and when no port can be bound.
    pub async fn start(&self, ledger: SocketAddr) -> anyhow::Result<Keeper> {
        let Self { options, disk, clock, door } = self.clone();
        let folder = options.folder.clone();
        let opened = tokio::task::spawn_blocking(move || {
            RealDisk.create_dir(&folder)?;
            let lock = Lock::acquire(&Folder::new(&folder).lock()).context("in use")?;
            Ok::<_, anyhow::Error>(Custodian::open(options, &disk, &clock, Some(lock))?)
        });
        let serving = Serving::bind(opened.await??, ([127, 0, 0, 1], 0).into()).await?;
        let serving = serving.behind(door);
        let (address, custodian) = (serving.address(), serving.custodian());
        let vkeys = custodian.vkeys().map(Clone::clone);
        let alarms = custodian.alarms().clone();
        let health = serving.health().clone();
        let policy = custodian.quorum_policy(&format!("http://{address}"));
        let (stop, stopped) = oneshot::channel();
        let run = tokio::spawn(async move {
            // Dropping the sender stops as well.
            let stop = async move { drop(stopped.await) };
            Ok(serving.run(&format!("http://{ledger}"), stop).await?)
        });
        let ledger = self.options.ledger.clone();
        Ok(Keeper { address, ledger, vkeys, alarms, health, policy, stop, run })
    }
}

impl Keeper {
    /// Starts a custodian in a folder, or the one that is there.
    ///
    /// # Errors
    ///
    /// As [`Setup::start`].
    pub async fn start(
        folder: &Path,
        vkey: &VerifierKey,
        ledger: SocketAddr,
    ) -> anyhow::Result<Self> {
        Setup::new(folder, vkey).start(ledger).await
    }

    /// Pulls from it with little patience.
    ///
    /// # Errors
    ///
    /// Never for an address of this kind.
    pub fn puller(&self) -> anyhow::Result<Puller> {
        let channel = connect::channel(&format!("http://{}", self.address))?;
        let patience =
            Patience { answer: Duration::from_secs(10), repeat: Duration::from_secs(10) };
        Ok(Puller::new(channel).with_patience(patience))
    }

    /// Its newest checkpoint, with its own cosignatures, once it covers so many entries.
    ///
    /// # Errors
    ///
    /// When it takes too long.
    pub async fn holds(&self, size: u64) -> anyhow::Result<VerifiedCheckpoint> {
        self.newest(&format!("size {size}"), |newest| newest.size() >= Size(size)).await
    }

    /// The same once both its keys have signed it, too.
    ///
    /// # Errors
    ///
    /// When it takes too long.
    pub async fn cosigns(&self, size: u64) -> anyhow::Result<VerifiedCheckpoint> {
        let signed = |newest: &VerifiedCheckpoint| {
            newest.size() >= Size(size) && newest.cosignatures().len() == self.vkeys.len()
        };
        self.newest(&format!("cosignatures of size {size}"), signed).await
    }

    async fn newest(
        &self,
        wanted: &str,
        is_it: impl Fn(&VerifiedCheckpoint) -> bool,
    ) -> anyhow::Result<VerifiedCheckpoint> {
        let puller = self.puller()?;
        let mut last = None;
        until(async || {
            let Ok(note) = puller.checkpoint().await else { return Ok(None) };
            let newest = VerifiedCheckpoint::open(&note, &self.ledger, &self.vkeys)?;
            last = Some(newest.size());
            Ok(is_it(&newest).then_some(newest))
        })
        .await
        .with_context(|| format!("waited for {wanted}, it holds {last:?}"))
    }

    /// The alarm of this kind, once it is raised.
    ///
    /// # Errors
    ///
    /// When that takes too long; what was raised instead.
    pub async fn raises(&self, kind: AlarmKind) -> anyhow::Result<AlarmRecord> {
        let raised =
            until(async || Ok(self.alarms.all().into_iter().find(|alarm| alarm.kind == kind)));
        raised.await.with_context(|| format!("waited for {kind}: {:?}", self.alarms.all()))
    }

    /// Stops in order, and waits until the folder is free again.
    ///
    /// # Errors
    ///
    /// When following or serving failed.
    pub async fn stop(self) -> anyhow::Result<()> {
        drop(self.stop);
        self.run.await?
    }
}

/// Looks again and again until there is something.
///
/// # Errors
///
/// When there is nothing for half a minute, or looking fails.
pub async fn until<T>(
    mut look: impl AsyncFnMut() -> anyhow::Result<Option<T>>,
) -> anyhow::Result<T> {
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        if let Some(found) = look().await? {
            return Ok(found);
        }
        anyhow::ensure!(Instant::now() < deadline, "not within 30 s");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
