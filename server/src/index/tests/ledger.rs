//! A log on disk, with a model of where each entry of each source is.

use std::{collections::BTreeMap, path::Path, sync::Arc, time::Duration};

use access_ledger_proto::{
    chain::Link,
    entry::Seal,
    hash::{Digest, sha256},
    note::{KeyType, VerifierKey},
    position::{Index as Place, count_of},
    seal::{Batch, source_key_id},
    source::{Name, SourceName},
    tree::Frontier,
    wire::{self, SourcePhase, event::Body},
};
use ed25519_dalek::{SigningKey, VerifyingKey};
use prost::Message as _;
use tempfile::TempDir;

use crate::{
    index::{Index, Indexer, Options, open},
    os::{Disk, RealDisk},
    storage::{self, Log, LogReader, TreeFiles},
};

pub(super) const ORIGIN: &str = "ledger.example/test";

/// The one that registers; the other names record.
pub(super) const GOVERNANCE: &str = "governance";

pub(super) struct Ledger {
    pub(super) folder: TempDir,
    pub(super) reader: LogReader,
    log: Log,
    tree: TreeFiles,
    frontier: Frontier,
    link: Link,
    last: BTreeMap<String, u64>,
    /// Time of the next group, in nanoseconds.
    pub(super) now: u64,
    /// Source and number of each entry.
    pub(super) model: Vec<(String, u64)>,
}

impl Ledger {
    /// With a genesis that makes everybody in `sources` known.
    pub(super) fn new(sources: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let options = storage::Options {
            segment_bytes: 8_192,
            ..storage::Options::new(folder.path(), ORIGIN)
        };
        let opened = storage::open(Arc::new(RealDisk), &options, None).unwrap();
        let mut ledger = Self {
            folder,
            reader: opened.reader,
            log: opened.log,
            tree: opened.tree,
            frontier: opened.frontier,
            link: opened.link,
            last: BTreeMap::new(),
            now: 1,
            model: Vec::new(),
        };
        ledger.append(&[("ledger", &[genesis(sources)])]);
        ledger
    }

    /// Appends a group of batches.
    pub(super) fn append(&mut self, batches: &[(&str, &[Vec<u8>])]) {
        let mut group = self.log.group();
        for (source, events) in batches {
            let last = self.last.entry((*source).to_owned()).or_default();
            let digests: Vec<Digest> = events.iter().map(|event| sha256(event)).collect();
            let name = Name::parse(source.as_bytes()).unwrap();
            let batch = Batch { source: name, first_seq: *last + 1, digests: &digests };
            let key_id = source_key_id(name, &key(source));
            let count = batch.count().unwrap();
            let seal = Seal { count, key_id, signature: [0; 64] };
            let mut events = events.iter();
            let link = &mut self.link;
            link.extend(&batch, self.now, seal, |entry, leaf| {
                group.push(entry, events.next().unwrap());
                self.frontier.append(leaf);
            })
            .unwrap();
            for number in *last + 1..=*last + u64::from(count) {
                self.model.push(((*source).to_owned(), number));
            }
            *last += u64::from(count);
        }
        let durable = self.log.commit(group).unwrap();
        assert_eq!(durable.get().end, Place(count_of(self.model.len())));
        self.tree.append(&self.frontier).unwrap();
        self.frontier.forget();
    }

    /// Appends a batch of `count` events that change nothing.
    pub(super) fn record(&mut self, source: &str, count: usize) {
        self.append(&[(source, &vec![b"event".to_vec(); count])]);
    }

    /// Leaves out a number of a source.
    pub(super) fn skip_number(&mut self, source: &str) {
        *self.last.entry(source.to_owned()).or_default() += 1;
    }

    pub(super) fn options(&self, block_entries: u32) -> Options {
        Options { block_entries, ..Options::new(self.folder.path(), ORIGIN) }
    }

    pub(super) fn index(&self, block_entries: u32) -> (Index, Indexer) {
        self.index_on(Arc::new(RealDisk), block_entries).unwrap()
    }

    pub(super) fn index_on(
        &self,
        disk: Arc<dyn Disk>,
        block_entries: u32,
    ) -> Result<(Index, Indexer), crate::index::IndexError> {
        open(disk, &self.options(block_entries), self.reader.clone())
    }

    /// Checks all answers against the model, and the facts against a fold of their own.
    pub(super) fn assert_indexed(&self, index: &Index, indexer: &Indexer) {
        assert_eq!(index.indexed_size().0, count_of(self.model.len()));
        for (at, (source, number)) in self.model.iter().enumerate() {
            let found = index.position(name(source).as_name(), *number).unwrap();
            assert_eq!(found, Some(Place(count_of(at))), "{source} {number}");
        }
        for (source, last) in &self.last {
            let source = name(source);
            assert_eq!(indexer.sequences().last(source.as_name()), *last);
            for number in [0, last + 1, u64::MAX] {
                assert_eq!(index.position(source.as_name(), number).unwrap(), None);
            }
        }
        assert_eq!(index.position(name("unknown").as_name(), 1).unwrap(), None);
    }

    /// Names of the posting blocks' files.
    pub(super) fn block_files(&self) -> Vec<String> {
        let names = RealDisk.list(&self.index_folder().join("blocks")).unwrap();
        names.into_iter().map(|name| name.into_string().unwrap()).collect()
    }

    pub(super) fn index_folder(&self) -> Box<Path> {
        self.folder.path().join("index").into()
    }
}

/// The event that registers a source, or takes it out of service.
pub(super) fn status(phase: SourcePhase, source: &str) -> Vec<u8> {
    let body = Body::SourceStatus(wire::SourceStatus {
        phase: phase.into(),
        source: source.into(),
        public_key: key(source).as_bytes().to_vec().into(),
        roles: vec![wire::SourceRole::Record.into()],
        heartbeat_interval: Some(prost_types::Duration { seconds: 60, nanos: 7 }),
        ..Default::default()
    });
    wire::Event { body: Some(body), ..Default::default() }.encode_to_vec()
}

fn genesis(sources: &[&str]) -> Vec<u8> {
    let initial = |name: &str| wire::InitialSource {
        name: name.into(),
        public_key: key(name).as_bytes().to_vec().into(),
    };
    let content = wire::Genesis {
        origin: ORIGIN.into(),
        ledger_vkey: VerifierKey::new(ORIGIN, KeyType::Ed25519, key("checkpoints").as_bytes())
            .unwrap()
            .to_string(),
        ledger_source: Some(initial("ledger")),
        governance: sources.iter().chain([&GOVERNANCE]).map(|name| initial(name)).collect(),
        self_enrolment: false,
        policy: String::new(),
    };
    let change = wire::ControlChange {
        kind: wire::ControlKind::Genesis.into(),
        content: content.encode_to_vec().into(),
        ..Default::default()
    };
    wire::Event { body: Some(Body::ControlChange(change)), ..Default::default() }.encode_to_vec()
}

/// A key of its own for each name.
fn key(name: &str) -> VerifyingKey {
    SigningKey::from_bytes(sha256(name.as_bytes()).as_ref().try_into().unwrap()).verifying_key()
}

pub(super) fn name(text: &str) -> SourceName {
    SourceName::parse(text).unwrap()
}

/// Longer than anything here takes.
pub(super) const LONG: Duration = Duration::from_secs(60);
