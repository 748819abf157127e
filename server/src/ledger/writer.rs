//! The one thread that decides order, and the only one that writes the log.
//!
//! It takes everything that waits (natural group commit: while one sync runs the next group
//! gathers; no timer), places each batch in the chain, appends the group with exactly one data
//! sync, grows the tree, publishes a signed checkpoint, and only then answers. Time comes with the
//! batches, not from a clock of its own, so that every node that applies the same batches makes the
//! same chain. What the ledger itself records gets its number and seal here too, verdicts on
//! intents (authorize.rs) among it.
//!
//! A batch whose numbers were used before leaves the line here: `repeat.rs` finds its place again.
//! After a failed write or sync nothing more is taken until the ledger is opened again.

use std::{ops::Range, sync::Arc, thread, time::Duration};

use access_ledger_proto::{
    authority::Authority,
    chain::Link,
    error::{SealError, SequenceGap},
    facts::sequences::Sequences,
    hash::Digest,
    position::{Index, Size, count_of},
    source::SourceName,
    tree::Frontier,
    wire,
};
use bytes::Bytes;
use tokio::time::Instant;
use tracing::{debug, error, info};

use super::{
    Published, Shared,
    append::{Admitted, log_bytes},
    authorize::{Intent, PlacedVerdict},
    own::{OwnEvent, OwnEvents, OwnSource},
    publish::Publisher,
    queue::{Answer, Lane, Waiting, Work},
    space::Space,
};
use crate::{
    book::bytes_of,
    error::LedgerError,
    refusal::Refusal,
    storage::{Durable, GroupFrames, Log, TreeFiles},
    trace::Step,
};

/// Most bytes of one group: what one sync writes, and what waiting costs the first of the group.
pub(crate) const GROUP_BYTES_MAX: usize = 8 << 20;

/// How long the writer waits for the index, which is rarely a second behind, to take the facts from
/// it; else it tries again with the next group.
const REFRESH_WAIT: Duration = Duration::from_secs(1);

/// What the writer is given to write.
pub(crate) enum ToWrite {
    /// What a source sealed.
    Batch(Admitted),
    /// What the ledger itself records: numbered and sealed when its turn comes.
    Own(Box<OwnEvent>),
}

impl Work for ToWrite {
    fn bytes(&self) -> usize {
        match self {
            Self::Batch(batch) => batch.bytes(),
            Self::Own(own) => log_bytes(own.len(), 1),
        }
    }

    fn lane(&self) -> Lane {
        match self {
            Self::Batch(batch) => batch.lane(),
            Self::Own(_) => Lane::OWN,
        }
    }
}

/// Everything that grows with a commit.
pub(crate) struct Writer {
    pub(crate) shared: Arc<Shared>,
    pub(crate) log: Log,
    pub(crate) space: Space,
    pub(crate) tree: TreeFiles,
    pub(crate) frontier: Frontier,
    pub(crate) link: Link,
    pub(crate) sequences: Sequences,
    pub(crate) publisher: Publisher,
    pub(crate) own: OwnSource,
    /// Facts and policy behind the last entry that was placed. Rows that are not in memory lie in
    /// the index's state, which is behind.
    pub(crate) authority: Authority,
    /// How often the index had forgotten events when the facts were taken from it.
    pub(crate) generation: u64,
    /// As far as the state went when rows were last given up to it.
    pub(crate) settled: Size,
}

/// The group that is being made.
pub(crate) struct Group {
    frames: GroupFrames,
    leaves: Vec<Digest>,
    /// With who waits for them: for verdicts by themselves nobody does.
    pub(crate) placed: Vec<(Placed, Option<Answer>)>,
    repeated: Vec<Waiting<Admitted>>,
    /// Intents among the placed batches, in order.
    pub(crate) intents: Vec<Intent>,
    /// What the verdicts on them take of the group, from above.
    pub(crate) verdict_bytes: usize,
}

impl Group {
    /// Whether a batch fits in with what the verdicts on its intents may take. A change of the
    /// rules does not where intents wait: they came before it.
    fn has_room(&self, batch: &Admitted, verdict_bytes: usize) -> bool {
        if batch.is_control() && !self.intents.is_empty() {
            return false;
        }
        let verdicts = self.verdict_bytes + verdict_bytes;
        self.frames.bytes() + batch.frame_bytes() + verdicts <= GroupFrames::LEN_MAX
    }
}

/// Where a batch stands in the log.
pub(crate) struct Placed {
    pub(crate) source: SourceName,
    pub(crate) last_seq: u64,
    /// Index of the batch's last entry.
    pub(crate) last: Index,
    pub(crate) first: Index,
    pub(crate) recorded_at: u64,
    pub(crate) prev: Digest,
    /// On the intents in the batch, in order.
    pub(crate) verdicts: Vec<PlacedVerdict>,
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
        // What is prepared is space, too.
        while self.space.check().is_ok() && self.shared.queue.is_empty() && self.log.prepare()? {}
        Ok(())
    }

    fn commit(&mut self, waiting: Vec<Waiting<ToWrite>>) -> Result<(), LedgerError> {
        self.refresh_facts();
        self.settle_facts();
        self.space.look();
        let mut group = self.group();
        for Waiting { work, mut answer } in waiting {
            answer.step(Step::Place);
            let (mut batch, is_own) = match work {
                ToWrite::Batch(batch) => (batch, false),
                ToWrite::Own(own) => {
                    let (events, now) = own.into_parts();
                    (self.seal(events, now)?, true)
                }
            };
            let verdict_bytes = self.verdict_bytes(&batch);
            if !group.has_room(&batch, verdict_bytes) {
                self.finish(group)?;
                self.space.look();
                group = self.group();
                if is_own {
                    // The verdicts of the other group have taken its number.
                    let now = batch.admitted_at();
                    batch = self.seal(batch.into_events(), now)?;
                }
            }
            match self.place(&batch, verdict_bytes, &mut group) {
                Decision::Placed(placed) => {
                    group.verdict_bytes += verdict_bytes;
                    self.note(&placed, batch.into_noteworthy(), &mut group);
                    group.placed.push((placed, Some(answer)));
                }
                Decision::Repeated => group.repeated.push(Waiting { work: batch, answer }),
                Decision::Refused(refusal) => answer.send(Err(refusal)),
            }
        }
        self.finish(group)
    }

    /// Judges the intents of a group and writes it.
    fn finish(&mut self, mut group: Group) -> Result<(), LedgerError> {
        self.answer_intents(&mut group)?;
        // Nothing leaves that was decided by facts which could not be read.
        self.shared.book.index.check_facts()?;
        self.write(group)
    }

    /// Takes the facts from the index again after events were erased: verdicts must follow from
    /// what the log still says, as auditors will read it.
    fn refresh_facts(&mut self) {
        let (index, size) = (&self.shared.book.index, self.link.size);
        let generation = index.generation();
        if generation == self.generation || index.wait_for(size, REFRESH_WAIT).is_err() {
            return;
        }
        if let Some(authority) = index.authority_at(size) {
            (self.authority, self.generation) = (authority, generation);
            self.settled = Size::ZERO;
        }
    }

    /// Lets go of facts that the index has saved.
    fn settle_facts(&mut self) {
        let saved = self.shared.book.index.saved_size();
        if let Some(last) = saved.last_index().filter(|_| saved > self.settled) {
            self.authority.facts_mut().settle(last);
            self.settled = saved;
        }
    }

    fn group(&mut self) -> Group {
        Group {
            frames: self.log.group(),
            leaves: Vec::new(),
            placed: Vec::new(),
            repeated: Vec::new(),
            intents: Vec::new(),
            verdict_bytes: 0,
        }
    }

    /// Seals events of the ledger's own under the next numbers, which are used only if the batch is
    /// then placed.
    pub(crate) fn seal(&self, events: OwnEvents, now: u64) -> Result<Admitted, LedgerError> {
        let seq = self.sequences.last(self.own.name().as_name()).saturating_add(1);
        let sealed = self.own.seal(&self.shared.book.sources(), seq, events, now);
        sealed.map_err(|error| LedgerError::Own { problem: error.to_string() })
    }

    /// Gives a batch its place at the end of the group, unless its numbers or the sources say no.
    fn place(&mut self, batch: &Admitted, verdict_bytes: usize, group: &mut Group) -> Decision {
        let sealed = batch.sealed();
        let expected = self.sequences.last(sealed.source).saturating_add(1);
        if sealed.first_seq < expected {
            return Decision::Repeated;
        }
        if sealed.first_seq > expected {
            let (name, found) = (sealed.source.to_owned(), sealed.first_seq);
            return Decision::Refused(SequenceGap { name, found, expected }.into());
        }
        if let Err(refusal) = self.space.check() {
            return Decision::Refused(refusal);
        }
        if !group.has_room(batch, verdict_bytes) {
            let problem = format!(
                "the verdicts on its intents may take {verdict_bytes} bytes: send fewer at once"
            );
            return Decision::Refused(Refusal::Request { field: "batch.events", problem });
        }
        let first = self.link.size.next_index();
        let change = match self.shared.judge_sources(batch, first) {
            Ok(change) => change,
            Err(error) => return Decision::Refused(error.into()),
        };
        if let Err(refusal) = self.admit_control(batch, first) {
            return Decision::Refused(refusal);
        }
        let placed = match self.append(batch, group, |_| {}) {
            Ok(placed) => placed,
            Err(error) => return Decision::Refused(error.into()),
        };
        if let Some(change) = change {
            self.shared.book.apply(change);
        }
        Decision::Placed(placed)
    }

    /// Puts a batch whose turn it is behind the last one; `each` gets the bytes of its entries.
    pub(crate) fn append(
        &mut self,
        batch: &Admitted,
        group: &mut Group,
        mut each: impl FnMut(&[u8]),
    ) -> Result<Placed, SealError> {
        let sealed = batch.sealed();
        let (first, prev) = (self.link.size.next_index(), self.link.last_leaf);
        let mut events = batch.events().iter();
        self.link.extend(&sealed, batch.admitted_at(), batch.seal(), |entry, leaf| {
            group.frames.push(entry, events.next().map_or(&[], |event| event));
            group.leaves.push(leaf);
            each(entry);
        })?;
        self.sequences.restore(sealed.source, sealed.last_seq());
        Ok(Placed {
            source: sealed.source.to_owned(),
            last_seq: sealed.last_seq(),
            last: first.plus(count_of(sealed.digests.len()) - 1),
            first,
            recorded_at: self.link.recorded_at,
            prev,
            verdicts: Vec::new(),
        })
    }

    fn write(&mut self, group: Group) -> Result<(), LedgerError> {
        let Group { frames, leaves, mut placed, repeated, .. } = group;
        if !frames.is_empty() {
            let started = Instant::now();
            let bytes = frames.bytes();
            step(&mut placed, Step::Write);
            let durable = self.log.commit_telling(frames, || step(&mut placed, Step::Sync))?;
            step(&mut placed, Step::Publish);
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
        placed: Vec<(Placed, Option<Answer>)>,
    ) -> Result<(), LedgerError> {
        let entries = leaves.len();
        leaves.into_iter().for_each(|leaf| self.frontier.append(leaf));
        self.tree.append(&self.frontier)?;
        let paths = self.frontier.paths();
        let size = Size(durable.get().end.0);
        let published = self.sign(size, paths.root())?;
        self.shared
            .book
            .note_durable(placed.iter().map(|(placed, _)| (&placed.source, placed.last_seq)));
        self.shared.book.publish(published.clone());
        metrics::counter!("access_ledger_appended_entries_total").increment(count_of(entries));
        metrics::histogram!("access_ledger_group_batches")
            .record(f64::from(u32::try_from(placed.len()).unwrap_or(u32::MAX)));
        for (placed, answer) in placed {
            let Some(mut answer) = answer else { continue };
            answer.step(Step::Receipt);
            match &self.shared.release {
                Some(release) => release.wait(placed, answer),
                // Every batch of the group was appended to the frontier since it last forgot.
                None => answer.send(placed.answer(&published, |index| {
                    let path = paths.path(index).ok_or(Refusal::StorageFailed)?;
                    Ok(path.iter().map(bytes_of).collect())
                })),
            }
        }
        self.frontier.forget();
        Ok(())
    }

    /// Signs the tree with the keys that the log names up to there, and takes up new ones.
    fn sign(&self, size: Size, root: Digest) -> Result<Arc<Published>, LedgerError> {
        let sources = self.shared.book.sources();
        let keys = sources.ledger_keys();
        let published = self.publisher.sign(keys, size, root)?;
        let before = self.shared.book.published().size;
        if keys.changed_at().is_some_and(|changed| !before.contains(changed)) {
            self.publisher.settle(keys);
            info!(key = %keys.now(), "changed the ledger's key");
        }
        let own = sources.get(self.own.name().as_name());
        let changed = own.and_then(|own| own.keys.changed_at());
        if changed.is_some_and(|changed| !before.contains(changed)) {
            self.own.settle(&sources);
            info!("changed the key of the ledger's own source");
        }
        Ok(published)
    }

    /// Ends all appending; whoever waits is told.
    fn fail(self, failure: &LedgerError) {
        error!(%failure, size = self.link.size.0, "poisoned the writer");
        self.shared.fail();
    }
}

/// Says what the batches of a group are at.
fn step(placed: &mut [(Placed, Option<Answer>)], step: Step) {
    placed.iter_mut().filter_map(|(_, answer)| answer.as_mut()).for_each(|one| one.step(step));
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
    /// Index of the last entry that the answer is about: of the batch, or of a verdict.
    pub(crate) fn reaches(&self) -> Index {
        self.verdicts.last().map_or(self.last, |verdict| verdict.index)
    }

    /// The answer under a checkpoint that covers it; `path` gives inclusion paths in its tree.
    ///
    /// # Errors
    ///
    /// Those of `path`.
    pub(crate) fn answer(
        &self,
        published: &Published,
        path: impl Fn(Index) -> Result<Vec<Bytes>, Refusal>,
    ) -> Result<wire::AppendResponse, Refusal> {
        let receipt = wire::Receipt {
            first_index: self.first.0,
            recorded_at: self.recorded_at,
            prev: bytes_of(&self.prev),
            inclusion_path: path(self.last)?,
            checkpoint: published.note.clone(),
        };
        let verdicts = self.verdicts.iter().map(|verdict| {
            Ok(wire::RecordedVerdict {
                index: verdict.index.0,
                event: verdict.event.clone(),
                entry: verdict.entry.clone(),
                inclusion_path: path(verdict.index)?,
            })
        });
        let verdicts = verdicts.collect::<Result<_, Refusal>>()?;
        Ok(wire::AppendResponse { receipt: Some(receipt), verdicts })
    }
}
