//! `record`: records events from JSON lines.

use std::{
    collections::VecDeque,
    fs::{self, File, OpenOptions},
    io::{BufRead, BufReader, Write as _},
    path::{Path, PathBuf},
};

use access_ledger_proto::{note::VerifierKey, position::Index, receipt::TlogProof};
use anyhow::{Context as _, bail};
use bytes::Bytes;
use clap::Args;
use prost::Message as _;

use super::{
    Failure, Server,
    json::parse_event,
    keys::{beside, ledger_key, read_key},
    prove::pull_proof,
    say,
};
use crate::{
    connect,
    pull::Puller,
    recorder::{Recorded, Recorder, Ticket},
};

/// Records events, one JSON object a line (protobuf JSON mapping of `Event`)
///
/// Absent `eventId` and `occurredAt` are filled in. Events are kept in a spool until their receipt is
/// verified; what a run that was cut off left there is recorded by the next one.
#[derive(Debug, Args)]
pub(super) struct Record {
    #[command(flatten)]
    server: Server,
    /// The source's key file
    #[arg(long, value_name = "FILE")]
    key: PathBuf,
    /// Verifier key of the ledger; else the one pinned beside the key file, else the server's word
    #[arg(long, value_name = "VKEY")]
    ledger: Option<VerifierKey>,
    /// The folder that keeps events until they are recorded; default: the key file's name + `.spool`
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
    waiting: VecDeque<(Ticket, Bytes)>,
    receipts: Option<Receipts<'a>>,
    tally: Tally,
}

struct Receipts<'a> {
    folder: &'a Path,
    puller: &'a Puller,
    ledger: &'a VerifierKey,
}

/// What was recorded, for the summary.
#[derive(Default)]
struct Tally {
    events: u64,
    /// First and last index of every batch, the first few only.
    batches: Vec<(Index, Index)>,
    batch_count: u64,
    last: Option<Index>,
}

impl Record {
    pub(super) async fn run(self) -> Result<(), Failure> {
        let key = read_key(&self.key)?;
        let lines = open(&self.file)?;
        let channel = connect::channel(&self.server.url)?;
        let puller = Puller::new(channel.clone());
        let ledger = ledger_key(self.ledger.as_ref(), &self.key, &puller).await?;
        if let Some(folder) = &self.receipts {
            fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
        }
        let spool = self.spool.clone().unwrap_or_else(|| beside(&self.key, ".spool"));
        let recorder = Recorder::builder(channel, key, ledger.clone())
            .spool(&spool, SPOOL_BYTES_MAX)
            .start()
            .await
            .map_err(|error| Failure::of_recorder(error, &ledger))?;
        let receipts = self.receipts.as_deref();
        let receipts = receipts.map(|folder| Receipts { folder, puller: &puller, ledger: &ledger });
        let mut progress = Progress { waiting: VecDeque::new(), receipts, tally: Tally::default() };
        // What was accepted is seen through, whatever comes behind it.
        let read = self.record_lines(lines, &recorder, &mut progress, &ledger).await;
        let settled = progress.settle(0, &ledger).await;
        let closed = recorder.close().await.map_err(|error| Failure::of_recorder(error, &ledger));
        progress.tally.tell()?;
        settled?;
        let unsent = closed?.unsent;
        read?;
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
        for (line, number) in lines.lines().zip(1_u64..) {
            let at = || format!("{}, line {number}", self.file.display());
            let line = line.with_context(at)?;
            if line.trim().is_empty() {
                continue;
            }
            let event = complete(parse_event(&line).with_context(at)?).with_context(at)?;
            let kept = if progress.receipts.is_some() { event.clone() } else { Bytes::new() };
            let ticket = match recorder.record_encoded(event).await {
                Err(error @ crate::error::RecorderError::Event(_)) => {
                    return Err(anyhow::Error::from(error).context(at()).into());
                }
                accepted => accepted.map_err(|error| Failure::of_recorder(error, ledger))?,
            };
            progress.waiting.push_back((ticket, kept));
            progress.settle(WAITING_MAX, ledger).await?;
        }
        Ok(())
    }
}

impl Progress<'_> {
    /// Waits until at most `most` events wait for their receipt.
    async fn settle(&mut self, most: usize, ledger: &VerifierKey) -> Result<(), Failure> {
        while self.waiting.len() > most
            && let Some((ticket, event)) = self.waiting.pop_front()
        {
            let recorded =
                ticket.receipt().await.map_err(|error| Failure::of_recorder(error, ledger))?;
            self.tally.count(&recorded);
            if let Some(receipts) = &self.receipts {
                receipts.keep(&recorded, &event).await?;
            }
        }
        Ok(())
    }
}

impl Receipts<'_> {
    async fn keep(&self, recorded: &Recorded, event: &Bytes) -> Result<(), Failure> {
        let index = recorded.index();
        let proof = if recorded.proof().index == index {
            recorded.proof().clone()
        } else {
            let (proof, _) = pull_proof(self.puller, index, self.ledger, &[]).await?;
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
    fn count(&mut self, recorded: &Recorded) {
        let (index, batch_end) = (recorded.index(), recorded.proof().index);
        self.events += 1;
        self.last = Some(index);
        match self.batches.last_mut() {
            Some((_, last)) if *last == batch_end => {}
            _ => {
                self.batch_count += 1;
                if self.batches.len() <= BATCHES_TOLD_MAX {
                    self.batches.push((index, batch_end));
                } else if let Some((_, last)) = self.batches.last_mut() {
                    *last = batch_end;
                }
            }
        }
    }

    /// One line a batch, or one for all of them.
    fn tell(&self) -> std::io::Result<()> {
        let (Some((first, _)), Some(last)) = (self.batches.first(), self.last) else {
            return say(format_args!("nothing to record"));
        };
        if self.batches.len() > BATCHES_TOLD_MAX {
            let (events, batches) = (self.events, self.batch_count);
            return say(format_args!(
                "recorded {events} events in {batches} batches, index {first} to {last}"
            ));
        }
        self.batches
            .iter()
            .try_for_each(|(first, last)| say(format_args!("recorded index {first} to {last}")))
    }
}

/// Fills in what a line may leave out, so that the bytes are known before they are recorded.
fn complete(mut event: access_ledger_proto::wire::Event) -> anyhow::Result<Bytes> {
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
const SPOOL_BYTES_MAX: u64 = 1 << 30;

/// Most events that wait for a receipt in memory.
const WAITING_MAX: usize = 16_384;

/// More batches than these are summed up.
const BATCHES_TOLD_MAX: usize = 16;
