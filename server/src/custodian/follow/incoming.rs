//! What a watched ledger sends, gathered up to its checkpoints.

use access_ledger_client::{
    pull::{PullError, Puller, RUNS_AHEAD, Run, Watched},
    verify::Record,
};
use access_ledger_proto::position::Index;
use bytes::Bytes;
use tokio::{runtime::Handle, sync::mpsc, task::JoinHandle};

/// Runs on their way, pulled ahead by a task. Dropping it stops the task.
pub(super) struct Incoming {
    received: mpsc::Receiver<Result<Watched, PullError>>,
    pump: JoinHandle<()>,
    /// Runs that no checkpoint covers yet.
    open: Vec<Run>,
    open_bytes: usize,
    is_silent: bool,
}

/// Runs, and the note that covers them.
pub(super) type Noted = (Vec<Run>, Bytes);

impl Incoming {
    /// Watches from `first` on.
    pub(super) fn start(runtime: &Handle, puller: &Puller, first: Index) -> Self {
        let (sender, received) = mpsc::channel(RUNS_AHEAD);
        let mut watch = puller.watch(first);
        let pump = runtime.spawn(async move {
            loop {
                let watched = watch.next().await;
                let is_over = watched.is_err();
                if sender.send(watched).await.is_err() || is_over {
                    return;
                }
            }
        });
        Self { received, pump, open: Vec::new(), open_bytes: 0, is_silent: false }
    }

    /// Waits for more; all groups that are complete then, and why no more will come.
    pub(super) async fn receive(&mut self) -> (Vec<Noted>, Option<PullError>) {
        let mut some = Vec::new();
        if self.received.recv_many(&mut some, RUNS_AHEAD).await == 0 {
            let problem = "the stream ended".to_owned();
            return (Vec::new(), Some(PullError::Answer { problem }));
        }
        self.is_silent = false;
        let mut groups = Vec::new();
        for watched in some {
            match watched {
                Ok(Watched { run, checkpoint }) => {
                    self.open_bytes += bytes(&run.1);
                    self.open.push(run);
                    if !checkpoint.is_empty() {
                        self.open_bytes = 0;
                        groups.push((std::mem::take(&mut self.open), checkpoint));
                    }
                }
                Err(error) => return (groups, Some(error)),
            }
        }
        (groups, None)
    }

    /// Notes whether the stream lacks what the ledger has signed; whether that was so the last time
    /// as well, with nothing received since.
    pub(super) fn counts_silence(&mut self, is_silent: bool) -> bool {
        is_silent && std::mem::replace(&mut self.is_silent, is_silent)
    }

    /// Whether so much came without a checkpoint that no group can be that large: the ledger grows
    /// faster than the stream, which is never at its end.
    pub(super) const fn is_outrun(&self) -> bool {
        self.open_bytes > OPEN_BYTES_MAX
    }
}

impl Drop for Incoming {
    fn drop(&mut self) {
        self.pump.abort();
    }
}

/// What records take in memory. Empty ones take some, too: a stream of nothing has an end.
fn bytes(records: &[Record]) -> usize {
    let length =
        |record: &Record| record.entry.len() + record.event.as_ref().map_or(0, |event| event.len());
    size_of_val(records) + records.iter().map(length).sum::<usize>()
}

/// Several groups of the ledger.
const OPEN_BYTES_MAX: usize = 32 << 20;
