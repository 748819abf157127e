//! The ledger: one folder, one chain, one writer.
//!
//! ```text
//! gRPC -> append (judge) -> queue -> writer (order, chain) -> storage (1 fdatasync)
//!      -> tree -> publish (sign) -> receipt -> gRPC
//!                     |               \-> release (waits for cosignatures) -> receipt
//!                     |-> cosigners (asked beside all that)
//!                     \-> index (behind the log) -> repeat, reads
//! ```

mod append;
mod authorize;
mod cosigners;
mod enroll;
mod heartbeat;
mod keyring;
mod own;
mod publish;
mod queue;
mod release;
mod repeat;
mod service;
mod space;
mod writer;

use std::{
    path::PathBuf,
    sync::Arc,
    thread::{self, JoinHandle},
    time::Duration,
};

use access_ledger_proto::{
    checkpoint::VerifiedCheckpoint,
    error::SourceError,
    facts::sources::{SourceChange, Sources},
    note::{Signer, VerifierKey},
    position::{Index, Size},
    source::SourceName,
};
use tokio::{sync::watch, task::JoinSet};
use tracing::{info, warn};

pub use self::cosigners::Cosigning;
pub(crate) use self::service::{Recorder, message_too_large};
use self::{
    append::Admitted,
    cosigners::Cosigners,
    keyring::Keyring,
    own::OwnSource,
    publish::Publisher,
    queue::Queue,
    release::Release,
    repeat::{REPEAT_BYTES_MAX, Repeats},
    space::Space,
    writer::{ToWrite, Writer},
};
pub use crate::book::Published;
use crate::{
    book::{Book, Opening},
    erase::Eraser,
    error::{LedgerError, ServeError},
    folder::{self, Folder, Genesis, Keys},
    guard::{self, Seen},
    index::{self, Follower},
    os::{Clock, Disk, Lock},
    refusal::Refusal,
    scrub::{Scrub, ScrubOptions, Scrubber},
    storage::{self, Opened, Options, TreeFiles},
};

/// How a ledger is opened.
#[derive(Clone, Debug)]
pub struct LedgerOptions {
    /// The data folder.
    pub folder: PathBuf,
    /// Length of a segment in bytes.
    pub segment_bytes: u64,
    /// Most bytes that wait to be written.
    pub queue_bytes_max: usize,
    /// Appends are refused while less than this is free on the disk: the rest is for the index, the
    /// checkpoint and whoever makes space.
    pub reserve_bytes: u64,
    /// How the scrub behaves; none: stored bytes are not read again.
    pub scrub: Option<ScrubOptions>,
    /// Whom to ask to cosign, and what receipts wait for.
    pub cosigning: Cosigning,
    /// What witnesses have seen of the ledger: it is not opened with less.
    pub seen: Vec<Seen>,
}

impl LedgerOptions {
    /// The defaults for a folder.
    #[must_use]
    pub fn new(folder: impl Into<PathBuf>) -> Self {
        Self {
            folder: folder.into(),
            segment_bytes: Options::SEGMENT_BYTES,
            queue_bytes_max: QUEUE_BYTES_MAX,
            reserve_bytes: RESERVE_BYTES,
            scrub: Some(ScrubOptions::default()),
            cosigning: Cosigning::default(),
            seen: Vec::new(),
        }
    }
}

/// An open ledger. Closing it (or dropping it) writes what waits and joins its threads.
pub struct Ledger {
    shared: Arc<Shared>,
    /// That signed the checkpoints when it was opened.
    vkey: VerifierKey,
    eraser: Option<Eraser>,
    /// The writer, and who answers repeats.
    threads: Vec<JoinHandle<()>>,
    /// Who gives receipts that wait; ends after the others.
    release: Option<JoinHandle<()>>,
    heartbeat: Duration,
    /// These stop when dropped, after the threads were joined.
    _follower: Follower,
    _scrub: Option<Scrub>,
}

/// What all parts of an open ledger see.
pub(crate) struct Shared {
    pub(crate) book: Arc<Book>,
    pub(crate) queue: Queue<ToWrite>,
    /// Batches whose numbers were used before.
    repeats: Queue<Admitted>,
    /// Where receipts wait for cosignatures, if they do.
    release: Option<Arc<Release>>,
    /// Who gathers cosignatures, if there are witnesses.
    cosigners: Option<Arc<Cosigners>>,
    /// Dropped last: only then may another process open the folder.
    _lock: Option<Lock>,
}

impl Ledger {
    /// Makes a new ledger in an empty folder, up to its genesis entry. Taken up again where an
    /// earlier attempt stopped.
    ///
    /// # Errors
    ///
    /// [`LedgerError::Initialised`] when there is one already; [`LedgerError::Origin`] for a name
    /// that no ledger can have; [`LedgerError::GovernanceAlone`]; else as [`Ledger::open`].
    pub fn init(
        options: &LedgerOptions,
        disk: &Arc<dyn Disk>,
        clock: &Arc<dyn Clock>,
        genesis: &Genesis,
    ) -> Result<VerifierKey, LedgerError> {
        let folder = Folder::new(&options.folder);
        folder::check_genesis(genesis)?;
        if let Some(origin) = folder.origin(&**disk)? {
            return Err(LedgerError::Initialised { folder: options.folder.clone(), origin });
        }
        disk.create_dir(folder.root()).map_err(|source| LedgerError::io(folder.root(), source))?;
        let keys = folder.make_keys(&**disk, &genesis.origin)?;
        let vkey = keys.ledger.verifier().clone();
        let opened = storage::open(disk.clone(), &storage_options(options, &vkey), None)?;
        if opened.link.size == Size::ZERO {
            let event = folder.genesis_event(&**disk, &**clock, &keys, genesis)?;
            begin(opened, event, clock.now_nanos(), &keys)?;
        }
        folder.write_meta(&**disk, vkey.name())?;
        info!(origin = vkey.name(), "initialised ledger");
        Ok(vkey)
    }

    /// Opens the ledger in a folder that was initialised. It keeps `lock`, which its owner took on
    /// the folder, until nothing of it runs any more.
    ///
    /// # Errors
    ///
    /// [`LedgerError::Uninitialised`]; [`LedgerError::Storage`] and [`LedgerError::Index`] when
    /// what is stored is damaged; [`LedgerError::File`] for keys; [`LedgerError::RolledBack`] and
    /// [`LedgerError::OtherHistory`] when a witness has seen more, or something else;
    /// [`LedgerError::OtherLog`], [`LedgerError::Unasked`] for trust policies that do not fit.
    pub fn open(
        options: &LedgerOptions,
        disk: &Arc<dyn Disk>,
        clock: &Arc<dyn Clock>,
        lock: Option<Lock>,
    ) -> Result<Self, LedgerError> {
        let folder = Folder::new(&options.folder);
        let Some(origin) = folder.origin(&**disk)? else {
            return Err(folder.uninitialised());
        };
        folder.clear_mending(&**disk)?;
        let keys = folder.open_keys(&**disk)?;
        if keys.ledger.name() != origin {
            let (key, origin) = (keys.ledger.name().to_owned(), origin);
            return Err(LedgerError::ForeignKey { key, origin });
        }
        let vkey = keys.ledger.verifier();
        let signers: Vec<_> = keys.of_ledger().map(Signer::verifier).collect();
        options.cosigning.check(&signers)?;
        let stored = folder.read_checkpoint(&**disk, &folder.known_keys(&**disk, None)?);
        let signed = stored.as_ref().map(|checkpoint| (checkpoint.size(), checkpoint.root()));
        let opened = storage::open(disk.clone(), &storage_options(options, vkey), signed)?;
        info!(size = opened.link.size.0, recovery = ?opened.recovery, "opened log");
        guard::compare(&options.seen, opened.link.size, &opened.tree)?;
        let ledger = Start { folder, options, disk, clock, keys, stored, opened, lock }.start()?;
        // It may have been a copy, which somebody gave its keys.
        Folder::new(&options.folder).name_key(&**disk, None)?;
        Ok(ledger)
    }

    /// What the services need.
    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// Asks the witnesses, and records heartbeats for them, for as long as the returned tasks are
    /// kept; `None` without any. Inside a runtime.
    ///
    /// # Errors
    ///
    /// [`ServeError::Outbound`] when no calls can be made.
    pub(crate) fn ask_cosigners(&self) -> Result<Option<JoinSet<()>>, ServeError> {
        let Some(cosigners) = &self.shared.cosigners else {
            return Ok(None);
        };
        let mut tasks = cosigners.spawn()?;
        tasks.spawn(heartbeat::beat(self.shared.clone(), self.heartbeat));
        Ok(Some(tasks))
    }

    /// The ledger's verifier key, as it was in force when the ledger was opened; its name is the
    /// origin.
    #[must_use]
    pub const fn vkey(&self) -> &VerifierKey {
        &self.vkey
    }

    /// Whether a source may enrol itself.
    #[must_use]
    pub fn allows_self_enrolment(&self) -> bool {
        self.shared.book.sources().genesis().self_enrolment
    }

    /// The newest checkpoint, and every later one.
    #[must_use]
    pub fn checkpoints(&self) -> watch::Receiver<Arc<Published>> {
        self.shared.book.checkpoints()
    }

    /// Takes no more batches; what waits is still written and answered.
    pub fn stop_appending(&self) {
        self.shared.queue.close(Refusal::Stopping);
    }

    /// Writes what waits, then ends the threads.
    pub fn close(self) {
        drop(self);
    }
}

impl Drop for Ledger {
    fn drop(&mut self) {
        // It may wait for a run of the retention that it records.
        drop(self.eraser.take());
        self.stop_appending();
        for thread in self.threads.drain(..) {
            if thread.join().is_err() {
                warn!("a thread of the ledger panicked");
            }
        }
        // Behind those that hand batches to it.
        if let Some(release) = &self.shared.release {
            release.close();
        }
        if let Some(thread) = self.release.take()
            && thread.join().is_err()
        {
            warn!("the thread that gives receipts panicked");
        }
    }
}

/// What a ledger is started from.
struct Start<'a> {
    folder: Folder,
    options: &'a LedgerOptions,
    disk: &'a Arc<dyn Disk>,
    clock: &'a Arc<dyn Clock>,
    keys: Keys,
    /// The checkpoint in the file, which may carry cosignatures.
    stored: Option<VerifiedCheckpoint>,
    opened: Opened,
    lock: Option<Lock>,
}

impl Start<'_> {
    fn start(self) -> Result<Ledger, LedgerError> {
        let Opened { log, reader, tree, frontier, link, recovery: _ } = self.opened;
        let (disk, clock) = (self.disk, self.clock);
        let vkey = self.keys.ledger.verifier().clone();
        let [ledger_keys, source_keys] = Keyring::of(self.keys, &self.folder, disk);
        let cosigning = &self.options.cosigning;
        let publisher = Publisher::new(ledger_keys);
        let index_options = index::Options::new(self.folder.root(), vkey.name());
        let (index, indexer) = index::open(disk.clone(), &index_options, reader.clone())?;
        let (authority, sequences) = (indexer.authority(), indexer.sequences());
        let sources = authority.facts().sources();
        let own = OwnSource::new(source_keys, sources)?;
        let keys = sources.ledger_keys();
        let published = publisher.sign(keys, link.size, frontier.root())?;
        publisher.settle(keys);
        let newest_key = keys.now().clone();
        let follower = Follower::spawn(indexer)?;
        let opening = Opening {
            vkey,
            sources: sources.clone(),
            sequences: sequences.clone(),
            published,
            checkpoint: self.folder.checkpoint(),
            reader,
            tree: tree.clone(),
            index,
            receipts_wait: cosigning.receipts.is_some(),
        };
        let book = Arc::new(Book::open(opening, disk.clone(), clock.clone())?);
        let shared = Arc::new(Shared::new(book, self.options, self.stored.as_ref(), self.lock));
        let scrub = start_scrub(self.options, &shared, disk, &tree)?;
        let folder = self.folder.root().to_owned();
        let space = Space::new(disk.clone(), folder, self.options.reserve_bytes);
        let writer = Writer {
            shared: shared.clone(),
            log,
            space,
            tree,
            frontier,
            link,
            sequences,
            publisher,
            own,
            generation: shared.book.index.generation(),
            authority,
            settled: Size::ZERO,
        };
        let evidence = self.folder.evidence();
        let repeats = Repeats { shared: shared.clone(), disk: disk.clone(), evidence };
        let threads =
            vec![spawn("writer", move || writer.run())?, spawn("repeat", move || repeats.run())?];
        let runs = shared.clone();
        let eraser = Eraser::spawn(
            shared.book.clone(),
            disk.clone(),
            self.folder.root().to_owned(),
            Some(Box::new(move |redaction| runs.record_run(redaction))),
        )?;
        let release = shared.release.clone();
        let release = release.map(|release| spawn("release", move || release.run())).transpose()?;
        Ok(Ledger {
            shared,
            vkey: newest_key,
            eraser: Some(eraser),
            threads,
            release,
            heartbeat: cosigning.heartbeat,
            _follower: follower,
            _scrub: scrub,
        })
    }
}

impl Shared {
    /// `stored` is the checkpoint that the file had, with the cosignatures on it.
    fn new(
        book: Arc<Book>,
        options: &LedgerOptions,
        stored: Option<&VerifiedCheckpoint>,
        lock: Option<Lock>,
    ) -> Self {
        let cosigning = &options.cosigning;
        let release = || Arc::new(Release::new(book.clone(), cosigning.receipts_wait));
        let release = cosigning.receipts.is_some().then(release);
        let cosigners = || Arc::new(Cosigners::new(book.clone(), cosigning, release.clone()));
        let cosigners = (!cosigning.is_empty()).then(cosigners);
        if let (Some(cosigners), Some(stored)) = (&cosigners, stored)
            && let Err(problem) = cosigners.take_note(stored.note().as_bytes())
        {
            warn!(%problem, "left the cosignatures of the checkpoint file aside");
        }
        Self {
            book,
            queue: Queue::new(options.queue_bytes_max, "access_ledger_queue_bytes"),
            repeats: Queue::new(REPEAT_BYTES_MAX, "access_ledger_repeat_bytes"),
            release,
            cosigners,
            _lock: lock,
        }
    }

    /// Judges what depends on the order: that the source is still active, with this key and a role
    /// for this, and what the batch changes of the sources, for the book to apply. For the writer.
    fn judge_sources(
        &self,
        batch: &Admitted,
        first: Index,
    ) -> Result<Option<SourceChange>, SourceError> {
        let sources = self.book.sources();
        let (sealer, _) = sources.sealer(batch.sealed().source, batch.seal().key_id)?;
        if sealer.roles.changed_at().is_some()
            && let Some(body) = batch.ordinary_body()
        {
            // It may have been admitted under other roles.
            drop(sources.judge(sealer, first, body, false)?);
        }
        let mut last = None;
        for (body, alone) in batch.control_bodies() {
            last = Some(sources.judge(sealer, first, body, alone)?);
        }
        Ok(last)
    }

    /// Ends all appending until the ledger is opened again. For the writer.
    fn fail(&self) {
        metrics::gauge!("access_ledger_writer_poisoned").set(1.0);
        // First of all: whoever is told of the failure finds the ledger not ready.
        self.book.fail();
        self.queue.fail();
        // What was recorded before still gets its place.
        self.repeats.close(Refusal::StorageFailed);
    }
}

/// Reads what is stored again, beside the writer, if it is asked for.
fn start_scrub(
    options: &LedgerOptions,
    shared: &Arc<Shared>,
    disk: &Arc<dyn Disk>,
    tree: &TreeFiles,
) -> Result<Option<Scrub>, LedgerError> {
    let Some(scrub) = options.scrub else { return Ok(None) };
    let stored = storage_options(options, &shared.book.vkey);
    let scrubber = Scrubber::new(disk.clone(), stored, tree.clone());
    let busy = shared.clone();
    Ok(Some(Scrub::start(scrubber, scrub, shared.book.clone(), move || !busy.queue.is_empty())?))
}

/// Writes the genesis entry into an empty log.
fn begin(opened: Opened, event: Vec<u8>, now: u64, keys: &Keys) -> Result<(), LedgerError> {
    let genesis = |problem: String| LedgerError::Genesis { problem };
    let _sources = Sources::from_genesis(&event).map_err(|error| genesis(error.to_string()))?;
    let (origin, key) = (keys.ledger.name(), &keys.source);
    let source = SourceName::parse(key.name()).map_err(|error| genesis(error.to_string()))?;
    let events = (vec![event.into()], Vec::new());
    let batch = Admitted::seal_own(source, 1, events, now, |batch| batch.seal(origin, key))
        .map_err(|error| genesis(error.to_string()))?;
    let Opened { mut log, mut link, .. } = opened;
    let mut group = log.group();
    let mut events = batch.events().iter();
    link.extend(&batch.sealed(), batch.admitted_at(), batch.seal(), |entry, _| {
        group.push(entry, events.next().map_or(&[], |event| event));
    })
    .map_err(|error| genesis(error.to_string()))?;
    // The tree is derived: opening catches it up.
    let _durable = log.commit(group)?;
    Ok(())
}

fn storage_options(options: &LedgerOptions, vkey: &VerifierKey) -> Options {
    let segment_bytes = options.segment_bytes;
    Options { segment_bytes, ..Options::new(&options.folder, vkey.name()) }
}

fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>, LedgerError> {
    thread::Builder::new()
        .name(name.to_owned())
        .spawn(work)
        .map_err(|source| LedgerError::Thread { source })
}

/// A second or so of appends at full speed.
const QUEUE_BYTES_MAX: usize = 64 << 20;

/// Some minutes of appends at full speed, and what index and checkpoint grow by meanwhile.
pub(crate) const RESERVE_BYTES: u64 = 256 << 20;
