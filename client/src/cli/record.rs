//! `record`: records events from JSON lines.

use std::{
    collections::VecDeque,
    fs::{self, File, OpenOptions},
    io::{BufRead, BufReader, Write as _},
    path::{Path, PathBuf},
};

use access_ledger_proto::{
    note::VerifierKey,
    position::Index,
    quorum::Quorum,
    receipt::TlogProof,
    source::SourceName,
    wire::{self, SourcePhase, event::Body},
};
use anyhow::{Context as _, bail};
use bytes::Bytes;
use clap::Args;
use prost::Message as _;

use super::{
    Failure,
    caller::{Called, Caller},
    complain,
    json::parse_event,
    keys::beside,
    prove::pull_proof,
    say,
};
use crate::{
    error::RecorderError,
    pull::Puller,
    recorder::{Recorded, Recorder, Ticket},
};

/// Records events, one JSON object a line (protobuf JSON mapping of `Event`)
///
/// Absent `eventId` and `occurredAt` are filled in. Events are kept in a spool until their receipt
/// is verified; what a run that was cut off left there is recorded by the next one.
#[derive(Debug, Args)]
pub(super) struct Record {
    #[command(flatten)]
    caller: Caller,
    /// The folder that keeps events until they are recorded; default: the key file's name +
    /// `.spool`
    #[arg(long, value_name = "DIR")]
    spool: Option<PathBuf>,
    /// Writes `<index>.tlog-proof` and `<index>.event` for every event into this folder
    #[arg(long, value_name = "DIR")]
    receipts: Option<PathBuf>,
    /// The file to read; `-` is the standard input
    #[arg(value_name = "FILE", default_value = "-")]
    file: PathBuf,
}

/// Events that wait for their receipt, oldest first, and what became of the others.
struct Progress<'a> {
    waiting: VecDeque<Waiting>,
    receipts: Option<Receipts<'a>>,
    tally: Tally,
}

/// An accepted event.
struct Waiting {
    ticket: Ticket,
    /// Its bytes, where they are wanted later.
    event: Bytes,
    /// The line it came from.
    line: u64,
}

struct Receipts<'a> {
    folder: &'a Path,
    puller: &'a Puller,
    ledger: &'a VerifierKey,
    quorum: &'a Quorum,
}

/// What was recorded, for the summary.
#[derive(Default)]
struct Tally {
    events: u64,
    /// First and last index of each run without a gap, in order; the first few only.
    runs: Vec<(Index, Index)>,
    last: Option<Index>,
}

impl Record {
    pub(super) async fn run(self) -> Result<(), Failure> {
        let lines = open(&self.file)?;
        let called = self.caller.call().await?;
        let puller = called.puller();
        let Called { link, key, ledger, quorum } = called;
        if let Some(folder) = &self.receipts {
            fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
        }
        let spool = self.spool.clone().unwrap_or_else(|| beside(&self.caller.key, ".spool"));
        let recorder = Recorder::builder(link, key, ledger.clone())
            .spool(&spool, SPOOL_BYTES_MAX)
            .quorum(quorum.clone())
            .start()
            .await
            .map_err(|error| Failure::of_recorder(error, &ledger))?;
        if recorder.left() > 0 {
            let (left, spool) = (recorder.left(), spool.display());
            complain(format_args!("recording {left} events too that wait in the spool {spool}"));
        }
        let receipts = self.receipts.as_deref();
        let receipts = receipts.map(|folder| Receipts {
            folder,
            puller: &puller,
            ledger: &ledger,
            quorum: &quorum,
        });
        let mut progress = Progress { waiting: VecDeque::new(), receipts, tally: Tally::default() };
        // What was accepted is seen through, whatever comes behind it.
        let read = self.record_lines(lines, &recorder, &mut progress, &ledger).await;
        let settled = self.settle(&mut progress, 0, &ledger).await;
        let closed = recorder.close().await;
        progress.tally.tell()?;
        if matches!(closed, Err(RecorderError::Refused(_))) {
            complain(format_args!(
                "the spool {} keeps what was refused; deleting that folder gives it up, and the next run \
                 declares the gap",
                spool.display()
            ));
        }
        settled?;
        read?;
        let unsent = closed.map_err(|error| Failure::of_recorder(error, &ledger))?.unsent;
        if unsent > 0 {
            let spool = spool.display();
            return Err(anyhow::anyhow!(
                "{unsent} events wait in the spool {spool}; record again to send them"
            )
            .into());
        }
        Ok(())
    }

    async fn record_lines(
        &self,
        lines: Box<dyn BufRead + Send>,
        recorder: &Recorder,
        progress: &mut Progress<'_>,
        ledger: &VerifierKey,
    ) -> Result<(), Failure> {
        for (text, line) in lines.lines().zip(1_u64..) {
            let event = text.map_err(anyhow::Error::from).and_then(|text| {
                let is_empty = text.trim().is_empty();
                if is_empty { Ok(None) } else { complete(parse_event(&text)?, recorder).map(Some) }
            });
            let Some(event) = event.with_context(|| self.at(line))? else { continue };
            let kept = if progress.receipts.is_some() { event.clone() } else { Bytes::new() };
            let ticket = match recorder.record_encoded(event).await {
                Err(error @ RecorderError::Event(_)) => {
                    return Err(anyhow::Error::from(error).context(self.at(line)).into());
                }
                accepted => accepted.map_err(|error| Failure::of_recorder(error, ledger))?,
            };
            progress.waiting.push_back(Waiting { ticket, event: kept, line });
            self.settle(progress, WAITING_MAX, ledger).await?;
        }
        Ok(())
    }

    /// Waits until at most `most` events wait for their receipt.
    async fn settle(
        &self,
        progress: &mut Progress<'_>,
        most: usize,
        ledger: &VerifierKey,
    ) -> Result<(), Failure> {
        while progress.waiting.len() > most
            && let Some(Waiting { ticket, event, line }) = progress.waiting.pop_front()
        {
            let recorded = match ticket.receipt().await {
                Err(error @ RecorderError::Refused(_)) => {
                    progress.waiting.clear();
                    let from = format!("{}, from line {line} on", self.file.display());
                    return Err(anyhow::Error::from(error).context(from).into());
                }
                outcome => outcome.map_err(|error| Failure::of_recorder(error, ledger))?,
            };
            progress.tally.count(recorded.index());
            if let Some(receipts) = &progress.receipts {
                receipts.keep(&recorded, &event).await?;
            }
        }
        Ok(())
    }

    /// Where the reading stopped. Said to whoever corrects the file and must not record lines
    /// twice.
    fn at(&self, line: u64) -> String {
        let before = if line > 1 { " (the lines before it are recorded)" } else { "" };
        format!("{}, line {line}{before}", self.file.display())
    }
}

impl Receipts<'_> {
    async fn keep(&self, recorded: &Recorded, event: &Bytes) -> Result<(), Failure> {
        let index = recorded.index();
        let proof = if recorded.proof().index == index {
            recorded.proof().clone()
        } else {
            let (proof, _) = pull_proof(self.puller, index, self.ledger, self.quorum).await?;
            proof
        };
        self.write(&proof, event)?;
        Ok(())
    }

    fn write(&self, proof: &TlogProof, event: &Bytes) -> anyhow::Result<()> {
        let path = |ending: &str| self.folder.join(format!("{}.{ending}", proof.index));
        write_synced(&path("tlog-proof"), proof.encode().as_bytes())?;
        write_synced(&path("event"), event)
    }
}

impl Tally {
    /// Counts an event; they come in the order of their indexes.
    fn count(&mut self, index: Index) {
        self.events += 1;
        let wanted = self.last.replace(index).map(|before| before.plus(1));
        if let Some((_, last)) = self.runs.last_mut().filter(|_| wanted == Some(index)) {
            *last = index;
        } else if self.runs.len() <= RUNS_TOLD_MAX {
            self.runs.push((index, index));
        }
    }

    /// Where all of them lie, in one line.
    fn tell(&self) -> std::io::Result<()> {
        let (Some((first, _)), Some(last)) = (self.runs.first(), self.last) else {
            return say(format_args!("recorded 0 events"));
        };
        let events = self.events;
        if self.runs.len() > RUNS_TOLD_MAX {
            return say(format_args!(
                "recorded {events} events between index {first} and {last}, others between them"
            ));
        }
        let run = |(first, last): &(Index, Index)| match first == last {
            true => first.to_string(),
            false => format!("{first} to {last}"),
        };
        let runs: Vec<_> = self.runs.iter().map(run).collect();
        let plural = if events == 1 { "" } else { "s" };
        say(format_args!("recorded {events} event{plural} at index {}", runs.join(", ")))
    }
}

/// Fills in what a line may leave out, so that the bytes are known before they are recorded.
fn complete(mut event: wire::Event, recorder: &Recorder) -> anyhow::Result<Bytes> {
    expect_recordable(&event, recorder.source())?;
    if event.event_id.is_empty() {
        let mut id = [0; 16];
        if let Err(error) = getrandom::fill(&mut id) {
            bail!("no random bytes: {error}");
        }
        event.event_id = Bytes::copy_from_slice(&id);
    }
    if event.occurred_at.is_none() {
        let now = jiff::Timestamp::now();
        let (seconds, nanos) = (now.as_second(), now.subsec_nanosecond());
        event.occurred_at = Some(prost_types::Timestamp { seconds, nanos });
    }
    Ok(event.encode_to_vec().into())
}

/// Keeps out of the spool what the ledger refuses for good: an event that changes the rules beside
/// others, or one that speaks for another source. It would be refused again with every later run.
fn expect_recordable(event: &wire::Event, source: &SourceName) -> anyhow::Result<()> {
    match &event.body {
        Some(Body::ControlChange(_)) => {
            bail!("controlChange changes the rules: no event to record")
        }
        Some(Body::SourceStatus(status)) => match status.phase() {
            SourcePhase::Registered | SourcePhase::Decommissioned => {
                bail!("sourceStatus changes who may record: see `access-ledger source`")
            }
            _ if status.source != source.as_str() => {
                let found = &status.source;
                bail!("sourceStatus.source: {found:?}, recorded as {source} it must be {source}")
            }
            _ => Ok(()),
        },
        _ => Ok(()),
    }
}

fn open(path: &Path) -> anyhow::Result<Box<dyn BufRead + Send>> {
    if path == Path::new("-") {
        return Ok(Box::new(BufReader::new(std::io::stdin())));
    }
    let file = File::open(path).with_context(|| path.display().to_string())?;
    Ok(Box::new(BufReader::new(file)))
}

/// Writes a file of proof or event; one that exists is replaced.
pub(super) fn write_synced(path: &Path, content: &[u8]) -> anyhow::Result<()> {
    let write = || {
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).open(path)?;
        file.write_all(content)?;
        file.sync_all()
    };
    write().with_context(|| path.display().to_string())
}

/// Most bytes of a spool's files.
pub(super) const SPOOL_BYTES_MAX: u64 = 1 << 30;

/// Most events that wait for a receipt in memory.
const WAITING_MAX: usize = 16_384;

/// More runs of indexes than these are summed up.
const RUNS_TOLD_MAX: usize = 8;
