//! Fills a ledger through its storage, as the writer does but without the network: sealed batches,
//! groups of some megabytes with one sync each.

use std::path::{Path, PathBuf};

use access_ledger_proto::{
    chain::Link, hash::Digest, position::Size, wire::recorder_service_client::RecorderServiceClient,
};
use access_ledger_server::{
    demo::half_year::ACCESS_LEN,
    folder::real_disk,
    os::{Clock as _, SystemClock},
    storage::{self, Options},
};
use bytes::Bytes;

use super::{
    args::Plan,
    child::{Child, ORIGIN},
    source::{self, BATCH_EVENTS, Source},
};

/// Different events that are recorded over and over.
const EVENTS: usize = 64 * BATCH_EVENTS;

/// Batches of a group: some megabytes, as at full load.
const GROUP_BATCHES: u64 = 32;

/// A ledger folder that grows.
pub(super) struct Filler {
    folder: PathBuf,
    source: Source,
    events: Vec<Bytes>,
    size: Size,
}

impl Filler {
    /// Makes a ledger with one source in an empty folder.
    pub(super) fn begin(plan: &Plan, folder: &Path) -> anyhow::Result<Self> {
        let child = Child::ledger(plan, folder)?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let source = runtime.block_on(async {
            let mut client = RecorderServiceClient::new(child.connect().await?);
            Source::enroll(&mut client, "filler", &child.vkey()?).await
        })?;
        drop(child);
        let (folder, events) = (folder.to_owned(), source::events(EVENTS)?);
        Ok(Self { folder, source, events, size: Size::ZERO })
    }

    /// Adds whole groups until there are at least `size` entries.
    pub(super) fn grow(&mut self, size: u64) -> anyhow::Result<()> {
        let opened = storage::open(real_disk(), &Options::new(&self.folder, ORIGIN), None)?;
        let (mut log, tree) = (opened.log, opened.tree);
        let (mut frontier, mut link): (_, Link) = (opened.frontier, opened.link);
        let mut batches = self.events.chunks(BATCH_EVENTS).cycle();
        while link.size.0 < size {
            let now = SystemClock.now_nanos();
            let mut group = log.group();
            for events in batches.by_ref().take(usize::try_from(GROUP_BATCHES)?) {
                let sealed = self.source.seal(events)?;
                let mut each = events.iter();
                let batch = sealed.claim.batch(self.source.name());
                link.extend(&batch, now, sealed.claim.seal(), |entry, leaf: Digest| {
                    group.push(entry, each.next().map_or(&[], |event| event));
                    frontier.append(leaf);
                })?;
            }
            let _durable = log.commit(group)?;
            tree.append(&frontier)?;
            frontier.forget();
        }
        self.size = link.size;
        Ok(())
    }

    /// Entries.
    pub(super) const fn size(&self) -> Size {
        self.size
    }

    /// Bytes that the entries' events have.
    pub(super) const fn event_bytes(&self) -> u64 {
        self.size.0 * ACCESS_LEN as u64
    }
}
