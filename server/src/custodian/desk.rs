//! The desk: where what was copied is laid out for those who read and sign.
//!
//! The follower lays out each checkpoint up to which everything is held; the cosigner replaces its
//! note by the one with cosignatures. Both go through one lock, so that the newest checkpoint never
//! goes back. The book opens with the first one: an index needs a genesis.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use access_ledger_proto::{
    checkpoint::VerifiedCheckpoint, error::CheckpointError, facts::sources::Sources,
    note::VerifierKey, position::Size,
};
use bytes::Bytes;
use tokio::sync::watch;

use super::{CustodianOptions, copy::Copy, error::CustodianError, lag::Lag};
use crate::{
    book::{Book, Opening, Published},
    erase::Eraser,
    error::LedgerError,
    folder::Folder,
    index::{self, Follower},
    os::{Clock, Disk},
    scrub::{Scrub, ScrubOptions, Scrubber},
    storage::Options,
};

/// What the tasks of a custodian share.
pub(crate) struct Desk {
    disk: Arc<dyn Disk>,
    clock: Arc<dyn Clock>,
    folder: Folder,
    ledger: VerifierKey,
    scrub: ScrubOptions,
    book: watch::Sender<Option<Arc<Book>>>,
    newest: watch::Sender<Option<Arc<VerifiedCheckpoint>>>,
    /// Held by who lays out.
    layout: Mutex<Layout>,
    /// How far the copy is behind.
    pub(crate) lag: Lag,
}

#[derive(Default)]
struct Layout {
    /// Erases what redactions in the log ask for.
    eraser: Option<Eraser>,
    /// Keeps the index behind the log.
    follower: Option<Follower>,
    /// Reads the copy again to find bit rot.
    scrub: Option<Scrub>,
}

impl Desk {
    pub(crate) fn new(
        disk: Arc<dyn Disk>,
        clock: Arc<dyn Clock>,
        options: &CustodianOptions,
    ) -> Self {
        Self {
            disk,
            clock,
            folder: Folder::new(&options.folder),
            ledger: options.ledger.clone(),
            scrub: options.scrub,
            book: watch::Sender::new(None),
            newest: watch::Sender::new(None),
            layout: Mutex::default(),
            lag: Lag::default(),
        }
    }

    /// The ledger that is followed.
    pub(crate) const fn ledger(&self) -> &VerifierKey {
        &self.ledger
    }

    /// The book, as soon as there is one.
    pub(crate) fn books(&self) -> watch::Receiver<Option<Arc<Book>>> {
        self.book.subscribe()
    }

    /// The newest checkpoint up to which everything is held, as soon as there is one.
    pub(crate) fn checkpoints(&self) -> watch::Receiver<Option<Arc<VerifiedCheckpoint>>> {
        self.newest.subscribe()
    }

    /// The newest checkpoint up to which everything is held.
    pub(crate) fn newest(&self) -> Option<Arc<VerifiedCheckpoint>> {
        self.newest.borrow().clone()
    }

    /// All keys that the ledger has told, the newest last; none before there is a book.
    pub(crate) fn ledger_keys(&self) -> Vec<VerifierKey> {
        let book = self.book.borrow();
        let sources = book.iter().map(|book| book.sources());
        sources
            .flat_map(|sources| sources.ledger_keys().values().cloned().collect::<Vec<_>>())
            .collect()
    }

    /// A checkpoint of the ledger. One that lacks the newest key that the copy tells is none.
    ///
    /// # Errors
    ///
    /// [`CheckpointError`].
    pub(crate) fn open_checkpoint(
        &self,
        note: &[u8],
    ) -> Result<VerifiedCheckpoint, CheckpointError> {
        let opened = VerifiedCheckpoint::open(note, &self.ledger, &[])?;
        opened.check_newest_key(&self.ledger, &self.ledger_keys())?;
        Ok(opened)
    }

    /// How many entries were looked at for what they ask to be erased, and that is erased here.
    pub(crate) fn erased(&self) -> Size {
        self.book.borrow().as_ref().map_or(Size::ZERO, |book| book.erased())
    }

    /// Lays out a checkpoint: `copy` holds all that it covers. Gives the registered sources, if
    /// they may be other ones than before. Blocks; the first time for as long as it takes to index
    /// the log.
    ///
    /// # Errors
    ///
    /// [`CustodianError::Folder`] when the index or the book cannot be opened.
    pub(crate) fn lay_out(
        &self,
        checkpoint: VerifiedCheckpoint,
        copy: &mut Copy,
    ) -> Result<Option<Sources>, CustodianError> {
        let mut layout = self.lock();
        let (sources, numbers) = copy.news();
        let published = published(&checkpoint);
        let size = checkpoint.size();
        let book = self.book.borrow().clone();
        match book {
            Some(book) => {
                if let Some(sources) = &sources {
                    book.renew(sources.clone());
                }
                book.note_durable(numbers.iter().map(|(source, &last)| (source, last)));
                book.publish(published);
            }
            None => {
                let (book, follower) = self.open_book(copy, published)?;
                let book = Arc::new(book);
                let root = self.folder.root().to_owned();
                let eraser = Eraser::spawn(book.clone(), self.disk.clone(), root, None)?;
                (layout.eraser, layout.follower) = (Some(eraser), Some(follower));
                layout.scrub = Some(self.scrub(copy, book.clone())?);
                self.book.send_replace(Some(book));
            }
        }
        self.newest.send_replace(Some(Arc::new(checkpoint)));
        drop(layout);
        self.lag.holds(size);
        Ok(sources)
    }

    fn scrub(&self, copy: &Copy, book: Arc<Book>) -> Result<Scrub, CustodianError> {
        let options = Options::new(self.folder.root(), self.ledger.name());
        let scrubber = Scrubber::new(self.disk.clone(), options, copy.tree().clone());
        // Nobody waits for a custodian as sources wait for a ledger.
        Ok(Scrub::start(scrubber, self.scrub, book, || false)?)
    }

    fn open_book(
        &self,
        copy: &Copy,
        published: Arc<Published>,
    ) -> Result<(Book, Follower), CustodianError> {
        let (reader, tree) = (copy.reader().clone(), copy.tree().clone());
        let options = index::Options::new(self.folder.root(), self.ledger.name());
        let opened = index::open(self.disk.clone(), &options, reader.clone());
        let (index, indexer) = opened.map_err(LedgerError::from)?;
        let sequences = copy.verifier().sequences().clone();
        let sources = match copy.verifier().sources() {
            Some(sources) => sources.clone(),
            None => indexer.authority().facts().sources().clone(),
        };
        let follower = Follower::spawn(indexer).map_err(LedgerError::from)?;
        let opening = Opening {
            vkey: self.ledger.clone(),
            sources,
            sequences,
            published,
            checkpoint: self.folder.checkpoint(),
            reader,
            tree,
            index,
            receipts_wait: false,
        };
        let book = Book::open(opening, self.disk.clone(), self.clock.clone())?;
        Ok((book, follower))
    }

    /// Serves the note of the newest checkpoint with these cosignatures, unless there is a newer
    /// one.
    pub(crate) fn attach(&self, note: &str) {
        let _layout = self.lock();
        let Some(book) = self.book.borrow().clone() else { return };
        let now = book.published();
        let same = VerifiedCheckpoint::open(note.as_bytes(), &self.ledger, &[])
            .is_ok_and(|cosigned| (cosigned.size(), cosigned.root()) == (now.size, now.root));
        if same && now.note != note.as_bytes() {
            let note = Bytes::copy_from_slice(note.as_bytes());
            book.cosign(&Arc::new(Published { size: now.size, root: now.root, note }), true);
        }
    }

    /// Lays out nothing more, and lets go of the book. Joins the threads over it; blocks.
    pub(crate) fn close(&self) {
        let Layout { eraser, follower, scrub } = std::mem::take(&mut *self.lock());
        drop(scrub);
        drop(eraser);
        drop(follower);
        self.book.send_replace(None);
    }

    /// The copy grows no more: its storage failed.
    pub(crate) fn fail(&self) {
        if let Some(book) = &*self.book.borrow() {
            book.fail();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Layout> {
        self.layout.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What is served of a checkpoint.
fn published(checkpoint: &VerifiedCheckpoint) -> Arc<Published> {
    let note = Bytes::copy_from_slice(checkpoint.note().as_bytes());
    Arc::new(Published { size: checkpoint.size(), root: checkpoint.root(), note })
}
