//! The one thread that decides order, and the only one that writes the log.
//!
//! It takes everything that waits (natural group commit: while one sync runs the next group
//! gathers; no timer), places each batch in the chain, appends the group with exactly one data
//! sync, grows the tree, publishes a signed checkpoint, and only then answers. Time comes with the
//! batches, not from a clock of its own, so that every node that applies the same batches makes the
//! same chain. What the ledger itself records gets its number and seal here too.
//!
//! A batch whose numbers were used before leaves the line here: `repeat.rs` finds its place again.
//! After a failed write or sync nothing more is taken until the ledger is opened again.

use std::{ops::Range, sync::Arc, thread};

use access_ledger_proto::{
    chain::Link,
    error::SequenceGap,
    facts::sequences::Sequences,
    hash::Digest,
    position::{Index, Size, count_of},
    source::SourceName,
    tree::{Frontier, Paths},
    wire,
};
use tokio::time::Instant;
use tracing::{debug, error, info};

use super::{
    Shared,
    append::{Admitted, log_bytes},
    own::{OwnEvent, OwnSource},
    publish::{Published, Publisher},
    queue::{Answer, Waiting, Work},
    receipt,
};
use crate::{
    error::LedgerError,
    refusal::Refusal,
    storage::{Durable, GroupFrames, Log, TreeFiles},
};

/// Most bytes of one group: what one sync writes, and what waiting costs the first of the group.
pub(crate) const GROUP_BYTES_MAX: usize = 8 << 20;

/// What the writer is given to write.
pub(crate) enum ToWrite {
    /// What a source sealed.
    Batch(Admitted),
    /// What the ledger itself records: numbered and sealed when its turn comes.
    Own(OwnEvent),
}

impl Work for ToWrite {
    fn bytes(&self) -> usize {
        match self {
            Self::Batch(batch) => batch.bytes(),
            Self::Own(own) => log_bytes(own.len(), 1),
        }
    }
}

/// Everything that grows with a commit.
pub(crate) struct Writer {
    pub(crate) shared: Arc<Shared>,
    pub(crate) log: Log,
    pub(crate) tree: TreeFiles,
    pub(crate) frontier: Frontier,
    pub(crate) link: Link,
    pub(crate) sequences: Sequences,
    pub(crate) publisher: Publisher,
    pub(crate) own: OwnSource,
}

/// The group that is being made.
struct Group {
    frames: GroupFrames,
    leaves: Vec<Digest>,
    placed: Vec<(Placed, Answer)>,
    repeated: Vec<Waiting<Admitted>>,
}

/// Where a batch stands in the log.
struct Placed {
    source: SourceName,
    last_seq: u64,
    /// Index of the batch's last entry.
    last: Index,
    first: Index,
    recorded_at: u64,
    prev: Digest,
}

/// What the writer decides about a batch.
enum Decision {
    Placed(Placed),
    /// Its first number was used before.
    Repeated,
    Refused(Refusal),
}

impl Writer {
    /// Writes until the queue is closed and empty, or a write fails.
    pub(crate) fn run(mut self) {
        let _watch = PanicWatch(self.shared.clone());
        metrics::gauge!("access_ledger_writer_poisoned").set(0.0);
        loop {
            if let Err(failure) = self.prepare() {
                return self.fail(&failure);
            }
            let Some(waiting) = self.shared.queue.take(GROUP_BYTES_MAX) else {
                self.shared.repeats.close(Refusal::Stopping);
                return info!(size = self.link.size.0, "stopped writing");
            };
            if let Err(failure) = self.commit(waiting) {
                return self.fail(&failure);
            }
        }
    }

    /// Uses idle time to prepare space, so that a later commit need not change the file's size.
    fn prepare(&mut self) -> Result<(), LedgerError> {
        while self.shared.queue.is_empty() && self.log.prepare()? {}
        Ok(())
    }

    fn commit(&mut self, waiting: Vec<Waiting<ToWrite>>) -> Result<(), LedgerError> {
        let mut group = self.group();
        for Waiting { work, answer } in waiting {
            let batch = match work {
                ToWrite::Batch(batch) => batch,
                ToWrite::Own(own) => self.seal(own)?,
            };
            match self.place(&batch, &mut group) {
                Decision::Placed(placed) => group.placed.push((placed, answer)),
                Decision::Repeated => group.repeated.push(Waiting { work: batch, answer }),
                Decision::Refused(refusal) => answer.send(Err(refusal)),
            }
        }
        self.write(group)
    }

    fn group(&mut self) -> Group {
        Group {
            frames: self.log.group(),
            leaves: Vec::new(),
            placed: Vec::new(),
            repeated: Vec::new(),
        }
    }

    /// Gives an event of the ledger's own the next number, which is used only if the event is then
    /// placed.
    fn seal(&self, own: OwnEvent) -> Result<Admitted, LedgerError> {
        let (event, now) = own.into_parts();
        let seq = self.sequences.last(self.own.name().as_name()).saturating_add(1);
        let sealed = self.own.seal(seq, vec![event], now);
        sealed.map_err(|error| LedgerError::Own { problem: error.to_string() })
    }

    /// Gives a batch its place at the end of the group, unless its numbers or the sources say no.
    fn place(&mut self, batch: &Admitted, group: &mut Group) -> Decision {
        let sealed = batch.sealed();
        let expected = self.sequences.last(sealed.source).saturating_add(1);
        if sealed.first_seq < expected {
            return Decision::Repeated;
        }
        if sealed.first_seq > expected {
            let (name, found) = (sealed.source.to_owned(), sealed.first_seq);
            return Decision::Refused(SequenceGap { name, found, expected }.into());
        }
        let (first, prev) = (self.link.size.next_index(), self.link.last_leaf);
        if let Err(error) = self.shared.change_sources(batch, first) {
            return Decision::Refused(error.into());
        }
        let mut events = batch.events().iter();
        let extended =
            self.link.extend(&sealed, batch.admitted_at(), batch.seal(), |entry, leaf| {
                group.frames.push(entry, events.next().map_or(&[], |event| event));
                group.leaves.push(leaf);
            });
        if let Err(error) = extended {
            return Decision::Refused(error.into());
        }
        self.sequences.restore(sealed.source, sealed.last_seq());
        let last = first.plus(count_of(sealed.digests.len()) - 1);
        Decision::Placed(Placed {
            source: sealed.source.to_owned(),
            last_seq: sealed.last_seq(),
            last,
            first,
            recorded_at: self.link.recorded_at,
            prev,
        })
    }

    fn write(&mut self, group: Group) -> Result<(), LedgerError> {
        let Group { frames, leaves, placed, repeated } = group;
        if !frames.is_empty() {
            let started = Instant::now();
            let bytes = frames.bytes();
            let durable = self.log.commit(frames)?;
            metrics::histogram!("access_ledger_commit_seconds").record(started.elapsed());
            debug!(entries = leaves.len(), batches = placed.len(), bytes, "committed group");
            self.publish(&durable, leaves, placed)?;
        }
        repeated.into_iter().for_each(|waiting| self.shared.repeats.hand_over(waiting));
        Ok(())
    }

    /// Makes a durable group part of the tree, signs the new checkpoint and answers the batches.
    fn publish(
        &mut self,
        durable: &Durable<Range<Index>>,
        leaves: Vec<Digest>,
        placed: Vec<(Placed, Answer)>,
    ) -> Result<(), LedgerError> {
        let entries = leaves.len();
        leaves.into_iter().for_each(|leaf| self.frontier.append(leaf));
        self.tree.append(&self.frontier)?;
        let paths = self.frontier.paths();
        let size = Size(durable.get().end.0);
        let published = self.publisher.sign(size, paths.root())?;
        self.shared
            .note_durable(placed.iter().map(|(placed, _)| (&placed.source, placed.last_seq)));
        self.shared.publish(published.clone());
        metrics::counter!("access_ledger_appended_entries_total").increment(count_of(entries));
        metrics::histogram!("access_ledger_group_batches")
            .record(f64::from(u32::try_from(placed.len()).unwrap_or(u32::MAX)));
        for (placed, answer) in placed {
            answer.send(placed.answer(&paths, &published));
        }
        self.frontier.forget();
        Ok(())
    }

    /// Ends all appending; whoever waits is told.
    fn fail(self, failure: &LedgerError) {
        error!(%failure, size = self.link.size.0, "poisoned the writer");
        self.shared.fail();
    }
}

/// Ends all appending when the writer panics: nobody may wait for an answer that never comes.
struct PanicWatch(Arc<Shared>);

impl Drop for PanicWatch {
    fn drop(&mut self) {
        if thread::panicking() {
            self.0.fail();
        }
    }
}

impl Placed {
    fn answer(
        &self,
        paths: &Paths<'_>,
        published: &Published,
    ) -> Result<wire::AppendResponse, Refusal> {
        // Every batch of the group was appended to the frontier since it last forgot.
        let path = paths.path(self.last).ok_or(Refusal::StorageFailed)?;
        let receipt = wire::Receipt {
            first_index: self.first.0,
            recorded_at: self.recorded_at,
            prev: receipt::bytes_of(&self.prev),
            inclusion_path: path.iter().map(receipt::bytes_of).collect(),
            checkpoint: published.note.clone(),
        };
        Ok(wire::AppendResponse { receipt: Some(receipt), verdicts: Vec::new() })
    }
}
