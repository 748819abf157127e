//! The running custodian: its listener, its tasks, and an orderly stop.
//!
//! ```text
//! follow (thread) -> desk -> book -> AuditService, HTTP (serve.rs of the crate)
//!                        \-> cosign, lag, vigil, patrol, webhook (tasks)
//! ```
//!
//! Until the first checkpoint is held there is nothing to read. Until then callers are told so, and
//! a ledger that asks at its start what was cosigned gets an answer.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    thread,
    time::Duration,
};

use access_ledger_client::{connect::Link, evidence::Caught, pull::Puller};
use axum::{
    Router,
    extract::{Path, State as With},
    http::StatusCode,
    routing::get,
};
use tokio::{
    net::TcpListener,
    runtime::Handle,
    sync::{oneshot, watch},
};
use tonic::service::Routes;
use tracing::{info, warn};

use super::{
    Custodian,
    accounts::Accounts,
    cosign::Cosigner,
    desk::Desk,
    error::CustodianError,
    follow::{Follow, State},
    lag::watch_lag,
    patrol::{Beat, patrol},
    reads::AtLedger,
    ready,
    rot::watch_copy,
    vigil::Vigil,
    webhook,
};
use crate::{
    book::Book,
    error::{LedgerError, ServeError},
    folder::Folder,
    health::Health,
    identity::Door,
    os::Lock,
    outbound::Outbound,
    reads::Reads,
    serve::{Offer, Serving, serve},
    transport::Transport,
    witness::Witness,
};

impl Serving<Custodian> {
    /// The custodian that is served.
    #[must_use]
    pub const fn custodian(&self) -> &Custodian {
        &self.served
    }

    /// Follows the ledger at `url` and serves what is held, until `stop` resolves; then stops in
    /// order: calls end, what was verified is stored, the memory is written.
    ///
    /// A custodian that is halted follows nothing and serves what it holds.
    ///
    /// # Errors
    ///
    /// [`CustodianError::Connect`] for a URL that is none; [`CustodianError::Serve`] when the
    /// services cannot be started; whatever ended the following, if that came before there was
    /// anything to serve.
    pub async fn run(
        self,
        url: &str,
        stop: impl Future<Output = ()> + Send + 'static,
    ) -> Result<(), CustodianError> {
        let Self { served: custodian, listener, address, door, health, reads_window } = self;
        let link = custodian.credentials.link(url)?;
        let puller = Puller::new(link.clone());
        let (stopping, is_stopping) = watch::channel(false);
        let (told, stops) = (stopping.clone(), health.clone());
        tokio::spawn(async move {
            stop.await;
            stops.stop();
            told.send_replace(true);
        });
        let register = door.has_principals().then(|| custodian.register(link)).flatten();
        let (reads, keeper) = match &register {
            None => (Reads::off(), None),
            Some(register) => {
                spawn(&is_stopping, register.clone().connect());
                let clock = custodian.clock.clone();
                let (reads, keeper) = Reads::start(register.clone(), clock, reads_window);
                (reads, Some(keeper))
            }
        };
        let (desk, witness) = (custodian.desk.clone(), custodian.witness.clone());
        health.judge_by(ready::judge(&desk, &witness, custodian.options.behind_after));
        let (mut has_followed, lock) = custodian.start(&puller, &is_stopping)?;

        info!(%address, "serving");
        let offered = (&*desk, witness, health, reads);
        let served = serve_all((listener, &door), offered, is_stopping, &mut has_followed).await;
        stopping.send_replace(true);
        // Behind the last answer.
        if let (Some(keeper), Some(register)) = (keeper, &register) {
            keeper.close().await;
            register.close().await;
        }
        let followed = match served {
            Ok(Some(followed)) => followed,
            Ok(None) => has_followed.await.unwrap_or(Err(CustodianError::CutOff("following"))),
            Err(error) => {
                let _either_way = has_followed.await;
                return Err(error);
            }
        };
        let close = move || {
            desk.close();
            drop(lock);
        };
        if tokio::task::spawn_blocking(close).await.is_err() {
            warn!("closing the custodian panicked");
        }
        info!("stopped");
        followed
    }
}

impl Custodian {
    /// Where it is recorded who reads here.
    fn register(&self, link: Link) -> Option<Arc<AtLedger>> {
        let Some(key) = self.options.reads_key.clone() else {
            warn!("who reads here is not recorded: there is no --reads-key");
            return None;
        };
        let spool = Folder::new(&self.options.folder).reads_spool();
        let (ledger, alarms) = (self.ledger.clone(), self.alarms.clone());
        Some(AtLedger::new(link, key, ledger, spool, alarms))
    }

    /// Starts the thread that follows, and the tasks that sign and watch; a custodian that is
    /// halted signs nothing and watches nothing.
    fn start(
        self,
        puller: &Puller,
        stopping: &watch::Receiver<bool>,
    ) -> Result<(Followed, Option<Lock>), CustodianError> {
        let (options, copy, desk) = (self.options, self.copy, self.desk);
        let held = (self.ledger.name(), copy.holding().size());
        let (disk, alarms, clock) = (&self.disk, &self.alarms, &self.clock);
        let mut vigil = Vigil::open(disk, &options.folder, alarms, clock, held, options.times);
        if let Some(sources) = copy.verifier().sources() {
            vigil.expect(sources);
        }
        let vigil = Arc::new(Mutex::new(vigil));
        // A halt is an alarm that somebody must hear of, too.
        if let Some(url) = options.webhook {
            let outbound = Outbound::new(&self.credentials).map_err(ServeError::from)?;
            spawn(stopping, webhook::run(alarms.clone(), outbound, url));
        }
        if self.halt.is_none() {
            let (witness, holding) = (self.witness.clone(), copy.holding().clone());
            let idle = options.cosign_idle;
            let cosigner = Cosigner { desk: desk.clone(), witness, holding, idle };
            spawn(stopping, cosigner.run());
            spawn(stopping, watch_lag(desk.clone(), alarms.clone(), options.behind_after));
            spawn(stopping, watch_copy(desk.clone(), copy.holding().clone(), alarms.clone()));
            spawn(stopping, tick(vigil.clone()));
            let (court, witness, origin) =
                (self.court, self.witness.clone(), self.ledger.name().to_owned());
            let convict = move |caught: Caught| {
                witness.halt(&origin);
                court.convicted(&caught);
            };
            let accounts = Accounts::new(vigil.clone(), desk.clone());
            let opener = desk.clone();
            let beat = Beat {
                open: Arc::new(move |note| opener.open_checkpoint(note)),
                convict: Arc::new(convict),
                accounted: Arc::new(move || accounts.until()),
                puller: puller.clone(),
                ledger: self.ledger.clone(),
                reader: copy.reader().clone(),
                tree: copy.tree().clone(),
                signed: desk.checkpoints(),
                alarms: alarms.clone(),
                clock: clock.clone(),
            };
            spawn(stopping, patrol(beat, options.patrol));
        }
        let follow = Follow {
            runtime: Handle::current(),
            puller: puller.clone(),
            ledger: self.ledger,
            disk: self.disk,
            data: options.folder,
            desk,
            witness: self.witness,
            alarms: self.alarms,
            vigil,
            stopping: stopping.clone(),
            state: State::new(copy, self.memory),
        };
        let (followed, has_followed) = oneshot::channel();
        let is_halted = self.halt.is_some();
        let run = move || drop(followed.send(follow.run(is_halted)));
        let thread = thread::Builder::new().name("follow".into()).spawn(run);
        thread.map_err(|source| LedgerError::Thread { source })?;
        Ok((has_followed, self.lock))
    }
}

/// Looks at the clock.
async fn tick(vigil: Arc<Mutex<Vigil>>) {
    let mut ticks = tokio::time::interval(TICK_INTERVAL);
    loop {
        ticks.tick().await;
        let vigil = vigil.clone();
        let tick = move || vigil.lock().unwrap_or_else(PoisonError::into_inner).tick();
        if tokio::task::spawn_blocking(tick).await.is_err() {
            warn!("the vigil panicked");
        }
    }
}

/// The end of the following, told once.
type Followed = oneshot::Receiver<Result<(), CustodianError>>;

/// Serves, first what can be said without a book, then everything. What ended the following, if
/// that came before the book.
async fn serve_all(
    (listener, door): (TcpListener, &Arc<Door>),
    (desk, witness, health, reads): (&Desk, Arc<Witness>, Arc<Health>, Reads),
    stopping: watch::Receiver<bool>,
    has_followed: &mut Followed,
) -> Result<Option<Result<(), CustodianError>>, CustodianError> {
    let mut books = desk.books();
    let (listener, again) = twice(listener)?;
    let waiting = tokio::spawn(wait_room(
        (again, door.clone()),
        witness.clone(),
        books.clone(),
        stopping.clone(),
    ));
    let book: Option<Arc<Book>> = tokio::select! {
        biased;
        book = books.wait_for(Option::is_some) => book.ok().and_then(|book| book.clone()),
        followed = &mut *has_followed => {
            return Ok(Some(followed.unwrap_or(Err(CustodianError::CutOff("following")))));
        }
    };
    if waiting.await.is_err() {
        warn!("answering callers too early panicked");
    }
    if let Some(book) = book {
        let offer = Offer { book, recorder: None, witness: Some(witness), health, reads };
        serve(listener, door, offer, is(stopping)).await?;
    }
    Ok(None)
}

/// Two handles of one listener: connections come to whoever accepts.
fn twice(listener: TcpListener) -> Result<(TcpListener, TcpListener), ServeError> {
    let address = listener.local_addr();
    let address = address.unwrap_or_else(|_| SocketAddr::from(([0, 0, 0, 0], 0)));
    let bind = |source| ServeError::Bind { address, source };
    let listener = listener.into_std().map_err(bind)?;
    let again = listener.try_clone().map_err(bind)?;
    Ok((
        TcpListener::from_std(listener).map_err(bind)?,
        TcpListener::from_std(again).map_err(bind)?,
    ))
}

/// Answers callers until there is a book: what was cosigned before, and that there is no more.
async fn wait_room(
    (listener, door): (TcpListener, Arc<Door>),
    witness: Arc<Witness>,
    mut books: watch::Receiver<Option<Arc<Book>>>,
    stopping: watch::Receiver<bool>,
) {
    let too_early = || (StatusCode::SERVICE_UNAVAILABLE, "nothing of the ledger is held yet\n");
    let cosigned = async |With(witness): With<Arc<Witness>>, Path(hex): Path<String>| {
        let note = witness.newest(&hex).map(|note| note.to_string());
        note.ok_or((StatusCode::NOT_FOUND, "no checkpoint of this log was cosigned\n"))
    };
    let pages = Router::new()
        .route("/{origin}/checkpoint", get(cosigned))
        .fallback(async move || too_early())
        .with_state(witness);
    let over = async move {
        tokio::select! {
            _ = books.wait_for(Option::is_some) => {}
            () = is(stopping) => {}
        }
    };
    Transport::new(listener, &door).serve(Routes::from(pages).prepare(), over).await;
}

/// Runs a task until it is to stop.
fn spawn(stopping: &watch::Receiver<bool>, work: impl Future<Output = ()> + Send + 'static) {
    let stopping = stopping.clone();
    tokio::spawn(async move {
        tokio::select! {
            () = work => {}
            () = is(stopping) => {}
        }
    });
}

/// Resolves when it turns true.
async fn is(mut told: watch::Receiver<bool>) {
    // A sender that is gone says nothing else.
    let _told_or_gone = told.wait_for(|&told| told).await;
}

const TICK_INTERVAL: Duration = Duration::from_secs(1);
