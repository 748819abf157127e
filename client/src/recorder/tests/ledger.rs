//! A small ledger in memory: real chain, tree, seals and signatures, exactly once as the real one;
//! and able to fail and to lie.

use std::{
    collections::BTreeMap,
    convert::Infallible,
    sync::{Arc, Mutex, MutexGuard},
};

use access_ledger_proto::{
    chain::Link,
    checkpoint::{Checkpoint, VerifiedCheckpoint},
    entry::Entry,
    hash::{Digest, sha256},
    note::{KeyId, KeyType, Signer, VerifierKey, parse_public_key},
    position::{Index, Size},
    proof::{NodeSource, inclusion_path, root_at},
    seal,
    source::Name,
    tree::{Node, root_of},
    wire::{
        self,
        audit_service_server::AuditServiceServer,
        recorder_service_server::{RecorderService, RecorderServiceServer},
    },
};
use bytes::Bytes;
use futures_util::stream;
use prost::Message as _;
use tokio::{sync::mpsc, time::Instant};
use tonic::{
    Code, Request, Response, Status, Streaming,
    transport::{Channel, Server, server::TcpIncoming},
};
use tonic_types::{ErrorDetails, StatusExt as _};

use crate::connect;

mod audit;
mod beating;
mod verdicts;

pub(super) use self::verdicts::VerdictLie;

/// Shared by the test and the server; the log outlives servers.
#[derive(Clone, Debug)]
pub(super) struct FakeLedger(Arc<Mutex<Log>>);

#[derive(Debug)]
pub(super) struct Log {
    key: Signer,
    /// The ledger's own source.
    own: Signer,
    /// Another one, that the ledger knows the key of.
    other: Signer,
    link: Link,
    entries: Vec<Vec<u8>>,
    leaves: Vec<Digest>,
    sources: BTreeMap<String, Source>,
    /// Whether the next receipt bears the cosignature of [`witness`].
    is_cosigned: bool,
    /// Where the log's time begins; without it, every batch takes a nanosecond.
    began: Option<Instant>,
    /// Indexes of verdicts, by those of the intents.
    verdicts: BTreeMap<u64, u64>,
    pub(super) faults: Faults,
}

#[derive(Debug)]
struct Source {
    key: VerifierKey,
    events: Vec<Bytes>,
    batches: Vec<Appended>,
    heartbeat: Option<prost_types::Duration>,
}

#[derive(Clone, Copy, Debug)]
struct Appended {
    first_seq: u64,
    count: usize,
    first_index: u64,
    recorded_at: u64,
    prev: Digest,
}

/// What goes wrong.
#[derive(Debug, Default)]
pub(super) struct Faults {
    /// Chances of 256 that a batch is lost on the way, that its answer is lost, that the ledger is
    /// busy.
    pub(super) lost: u8,
    pub(super) unanswered: u8,
    pub(super) busy: u8,
    /// As before, that a batch is recorded and its receipt waits, that a receipt bears no
    /// cosignature.
    pub(super) pending: u8,
    pub(super) uncosigned: u8,
    /// Every call is refused.
    pub(super) down: bool,
    /// Batches are neither recorded nor answered.
    pub(super) silent: bool,
    /// Every batch is refused with this code.
    pub(super) refuse: Option<Code>,
    /// What the next receipts say.
    pub(super) lie: Option<Lie>,
    /// What the next verdicts say.
    pub(super) verdict_lie: Option<VerdictLie>,
    pub(super) seed: u64,
}

/// A way to give a wrong receipt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lie {
    Index,
    Time,
    Prev,
    Path,
    Absent,
    ForeignKey,
    /// Under a checkpoint that does not reach so far.
    Beyond,
}

/// Cosigns every checkpoint of the ledger.
pub(super) fn witness() -> Signer {
    Signer::new("witness.example", KeyType::CosignatureV1, [6; 32]).unwrap()
}

impl FakeLedger {
    pub(super) fn new() -> Self {
        let key = Signer::new("ledger.example/test", KeyType::Ed25519, [1; 32]).unwrap();
        let own = Signer::new("ledger", KeyType::Ed25519, [2; 32]).unwrap();
        let other = Signer::new("other", KeyType::Ed25519, [3; 32]).unwrap();
        let genesis = genesis(&key, &own, &other);
        let mut log = Log {
            key,
            own: own.clone(),
            other: other.clone(),
            link: Link::GENESIS,
            entries: Vec::new(),
            leaves: Vec::new(),
            sources: BTreeMap::new(),
            began: None,
            verdicts: BTreeMap::new(),
            faults: Faults::default(),
            is_cosigned: true,
        };
        log.register(own.verifier().clone());
        let own = log.own.clone();
        log.register(other.verifier().clone());
        log.append_own(&own, genesis);
        Self(Arc::new(Mutex::new(log)))
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Log> {
        self.0.lock().unwrap()
    }

    /// As [`FakeLedger::lock`], unless the ledger is down.
    fn lock_up(&self) -> Result<MutexGuard<'_, Log>, Status> {
        let log = self.lock();
        if log.faults.down { Err(Status::unavailable("down")) } else { Ok(log) }
    }

    pub(super) fn key(&self) -> VerifierKey {
        self.lock().key.verifier().clone()
    }

    /// Serves on a free port until the runtime ends.
    pub(super) fn serve(&self) -> Channel {
        let incoming = TcpIncoming::bind(([127, 0, 0, 1], 0).into()).unwrap();
        let address = incoming.local_addr().unwrap();
        let server = Server::builder()
            .add_service(RecorderServiceServer::new(self.clone()))
            .add_service(AuditServiceServer::new(self.clone()))
            .serve_with_incoming(incoming.with_nodelay(Some(true)));
        tokio::spawn(server);
        connect::channel(&format!("http://{address}")).unwrap()
    }
}

impl Log {
    pub(super) fn register(&mut self, key: VerifierKey) {
        let source =
            Source { key: key.clone(), events: Vec::new(), batches: Vec::new(), heartbeat: None };
        self.sources.insert(key.name().to_owned(), source);
    }

    /// The events of a source in the order of their numbers.
    pub(super) fn events(&self, source: &str) -> Vec<Bytes> {
        self.sources.get(source).map(|source| source.events.clone()).unwrap_or_default()
    }

    /// The event digest and the number of the entry at an index.
    pub(super) fn entry(&self, index: Index) -> (Digest, u64) {
        let entry = Entry::parse(&self.entries[usize::try_from(index.0).unwrap()]).unwrap();
        (entry.event_digest, entry.source_seq)
    }

    /// Forgets the last events of a source, as a restored backup does.
    pub(super) fn forget(&mut self, source: &str, events: usize) {
        let source = self.sources.get_mut(source).unwrap();
        source.events.truncate(source.events.len() - events);
    }

    fn chance(&mut self) -> u8 {
        let seed = &mut self.faults.seed;
        *seed =
            seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (*seed >> 56).to_be_bytes()[7]
    }

    /// One batch; `None`: the stream breaks without an answer.
    fn answer(
        &mut self,
        batch: &wire::SealedBatch,
    ) -> Option<Result<wire::AppendResponse, Status>> {
        if self.faults.down || self.chance() < self.faults.lost {
            return None;
        }
        if self.chance() < self.faults.busy {
            let details = ErrorDetails::with_retry_info(Some(std::time::Duration::from_millis(2)));
            let status = Status::with_error_details(Code::ResourceExhausted, "full", details);
            return Some(Err(status));
        }
        if let Some(code) = self.faults.refuse {
            return Some(Err(Status::new(code, "refused")));
        }
        let is_pending = self.chance() < self.faults.pending;
        let uncosigned = self.faults.uncosigned;
        self.is_cosigned = self.chance() >= uncosigned && uncosigned < u8::MAX;
        let answer = self.append(batch).map(|place| {
            self.judge(place.first_index, &batch.events);
            wire::AppendResponse {
                receipt: Some(self.receipt(place)),
                verdicts: self.verdicts_on(place.first_index, place.count),
            }
        });
        if is_pending && answer.is_ok() {
            let status = Status::unavailable("the receipt waits for cosignatures");
            return Some(Err(status));
        }
        if self.chance() < self.faults.unanswered { None } else { Some(answer) }
    }

    fn append(&mut self, batch: &wire::SealedBatch) -> Result<Appended, Status> {
        let source = self
            .sources
            .get_mut(&batch.source)
            .ok_or_else(|| Status::permission_denied("unknown source"))?;
        let digests: Vec<_> = batch.events.iter().map(|event| sha256(event)).collect();
        let last = source.events.len() as u64;
        let expected = last + 1;
        let sequence = |reason| {
            let expected = [("expected_seq".to_owned(), expected.to_string())];
            let details = ErrorDetails::with_error_info(reason, "access-ledger", expected);
            Status::with_error_details(Code::FailedPrecondition, reason, details)
        };
        let sealed = seal::Batch {
            source: Name::parse(batch.source.as_bytes()).unwrap(),
            first_seq: batch.first_seq,
            digests: &digests,
        };
        let seal = access_ledger_proto::entry::Seal {
            count: sealed.count().unwrap(),
            key_id: KeyId(batch.key_id.as_ref().try_into().unwrap()),
            signature: batch.signature.as_ref().try_into().unwrap(),
        };
        sealed
            .verify(self.key.name(), &seal, source.key.public_key())
            .map_err(|error| Status::permission_denied(error.to_string()))?;
        if batch.first_seq > expected {
            return Err(sequence("SEQUENCE_GAP"));
        }
        if batch.first_seq < expected {
            let at = usize::try_from(batch.first_seq).unwrap() - 1;
            let held = source.events[at..].iter().zip(&batch.events);
            if held.clone().any(|(held, event)| held != event) {
                return Err(Status::aborted("number used twice"));
            }
            let same = |held: &&Appended| {
                held.first_seq == batch.first_seq && held.count == batch.events.len()
            };
            let place = source.batches.iter().find(same).copied();
            return place.ok_or_else(|| sequence("BATCH_RECUT"));
        }
        let elapsed = self.began.map_or(0, |began| began.elapsed().as_nanos());
        let recorded_at = u64::try_from(elapsed).unwrap().max(self.link.recorded_at + 1);
        let place = Appended {
            first_seq: batch.first_seq,
            count: digests.len(),
            first_index: self.link.size.0,
            recorded_at,
            prev: self.link.last_leaf,
        };
        let (entries, leaves) = (&mut self.entries, &mut self.leaves);
        let extended = self.link.extend(&sealed, recorded_at, seal, |entry, leaf| {
            entries.push(entry.to_vec());
            leaves.push(leaf);
        });
        extended.unwrap();
        source.events.extend(batch.events.iter().cloned());
        source.batches.push(place);
        Ok(place)
    }

    /// Records an event of the ledger's own.
    fn append_own(&mut self, own: &Signer, event: Bytes) -> wire::Receipt {
        let first_seq = self.events(own.name()).len() as u64 + 1;
        let digests = [sha256(&event)];
        let source = Name::parse(own.name().as_bytes()).unwrap();
        let sealed = seal::Batch { source, first_seq, digests: &digests };
        let seal = sealed.seal(self.key.name(), own).unwrap();
        let batch = wire::SealedBatch {
            source: own.name().to_owned(),
            first_seq,
            events: vec![event],
            key_id: seal.key_id.0.to_vec().into(),
            signature: seal.signature.to_vec().into(),
        };
        let place = self.append(&batch).unwrap();
        self.receipt(place)
    }

    fn receipt(&self, place: Appended) -> wire::Receipt {
        let last = Index(place.first_index + place.count as u64 - 1);
        let lie = self.faults.lie;
        let size = match lie {
            Some(Lie::Beyond) => Size(last.0.max(1)),
            _ => self.link.size,
        };
        let path = inclusion_path(&Leaves(&self.leaves), last, self.link.size).unwrap();
        let mut receipt = wire::Receipt {
            first_index: place.first_index,
            recorded_at: place.recorded_at,
            prev: Bytes::copy_from_slice(place.prev.as_ref()),
            inclusion_path: path.iter().map(|hash| hash.as_ref().to_vec().into()).collect(),
            checkpoint: self.checkpoint(size, &self.key),
        };
        match lie {
            None | Some(Lie::Beyond) => {}
            Some(Lie::Index) => receipt.first_index += 1,
            Some(Lie::Time) => receipt.recorded_at += 1,
            Some(Lie::Prev) => receipt.prev = vec![7; 32].into(),
            Some(Lie::Path) => receipt.inclusion_path.push(vec![7; 32].into()),
            Some(Lie::Absent) => receipt = wire::Receipt::default(),
            Some(Lie::ForeignKey) => {
                let foreign = Signer::new(self.key.name(), KeyType::Ed25519, [9; 32]).unwrap();
                receipt.checkpoint = self.checkpoint(size, &foreign);
            }
        }
        receipt
    }

    fn checkpoint(&self, size: Size, key: &Signer) -> Bytes {
        let note = signed(size, root_at(&Leaves(&self.leaves), size).unwrap(), key);
        if !self.is_cosigned {
            return note;
        }
        let opened = VerifiedCheckpoint::open(&note, key.verifier(), &[]).unwrap();
        [note, opened.cosign(&witness(), 1_790_000_000).unwrap().into()].concat().into()
    }

    fn found(&self, index: u64) -> Result<wire::GetReceiptResponse, Status> {
        let bytes = self.entries.get(usize::try_from(index).unwrap());
        let bytes = bytes.ok_or_else(|| Status::not_found("no such entry"))?;
        let entry = Entry::parse(bytes).unwrap();
        let batches = &self.sources[entry.source.as_str()].batches;
        let lies = |batch: &&Appended| {
            (batch.first_index..batch.first_index + batch.count as u64).contains(&index)
        };
        let place = *batches.iter().find(lies).unwrap();
        let path = inclusion_path(&Leaves(&self.leaves), Index(index), self.link.size).unwrap();
        Ok(wire::GetReceiptResponse {
            index,
            entry: bytes.clone().into(),
            inclusion_path: path.iter().map(|hash| hash.as_ref().to_vec().into()).collect(),
            receipt: Some(self.receipt(place)),
            first_seq: place.first_seq,
            count: u32::try_from(place.count).unwrap(),
        })
    }
}

fn genesis(ledger: &Signer, own: &Signer, other: &Signer) -> Bytes {
    let initial = |signer: &Signer| wire::InitialSource {
        name: signer.name().to_owned(),
        public_key: Bytes::copy_from_slice(signer.verifier().public_key().as_bytes()),
    };
    let genesis = wire::Genesis {
        origin: ledger.name().to_owned(),
        ledger_vkey: ledger.verifier().to_string(),
        ledger_source: Some(initial(own)),
        governance: vec![initial(other)],
        ..Default::default()
    };
    let change = wire::ControlChange {
        kind: wire::ControlKind::Genesis.into(),
        content: genesis.encode_to_vec().into(),
        ..Default::default()
    };
    let body = Some(wire::event::Body::ControlChange(change));
    wire::Event { event_id: vec![0; 16].into(), body, ..Default::default() }.encode_to_vec().into()
}

fn signed(size: Size, root: Digest, key: &Signer) -> Bytes {
    Checkpoint::new(key.name(), size, root).unwrap().sign(key).unwrap().into()
}

struct Leaves<'a>(&'a [Digest]);

impl NodeSource for Leaves<'_> {
    type Error = Infallible;

    fn node(&self, node: Node) -> Result<Digest, Infallible> {
        let at = |index: u64| usize::try_from(index << node.level).unwrap();
        Ok(root_of(&self.0[at(node.index)..at(node.index + 1)]))
    }
}

#[tonic::async_trait]
impl RecorderService for FakeLedger {
    async fn append(
        &self,
        request: Request<wire::AppendRequest>,
    ) -> Result<Response<wire::AppendResponse>, Status> {
        let answer = self.lock().answer(&request.into_inner().batch.unwrap_or_default());
        answer.unwrap_or_else(|| Err(Status::unavailable("lost"))).map(Response::new)
    }

    async fn append_stream(
        &self,
        request: Request<Streaming<wire::AppendRequest>>,
    ) -> Result<Response<tonic::codegen::BoxStream<wire::AppendResponse>>, Status> {
        let mut requests = request.into_inner();
        let (answers, mut answered) = mpsc::channel(4);
        let ledger = self.clone();
        tokio::spawn(async move {
            while let Ok(Some(request)) = requests.message().await {
                if ledger.lock().faults.silent {
                    continue;
                }
                let answer = ledger.lock().answer(&request.batch.unwrap_or_default());
                let Some(answer) = answer else { return };
                let failed = answer.is_err();
                if answers.send(answer).await.is_err() || failed {
                    return;
                }
            }
        });
        Ok(Response::new(Box::pin(stream::poll_fn(move |context| answered.poll_recv(context)))))
    }

    async fn enroll(
        &self,
        request: Request<wire::EnrollRequest>,
    ) -> Result<Response<wire::EnrollResponse>, Status> {
        let asked = request.into_inner();
        let mut log = self.lock();
        let key = parse_public_key(&asked.public_key).unwrap();
        let key = VerifierKey::new(&asked.source, KeyType::Ed25519, key.as_bytes()).unwrap();
        let mut status = wire::SourceStatus {
            phase: wire::SourcePhase::Registered.into(),
            source: asked.source,
            public_key: asked.public_key,
            roles: asked.roles,
            enrolment: asked.enrolment,
            heartbeat_interval: asked.heartbeat_interval,
            ..wire::SourceStatus::default()
        };
        if log.faults.lie == Some(Lie::Index) {
            status.roles.push(wire::SourceRole::Govern.into());
        }
        log.register(key);
        let body = Some(wire::event::Body::SourceStatus(status));
        let event = wire::Event { event_id: vec![1; 16].into(), body, ..wire::Event::default() };
        let event = Bytes::from(event.encode_to_vec());
        let own = log.own.clone();
        let receipt = Some(log.append_own(&own, event.clone()));
        let index = log.link.size.0 - 1;
        let entry = log.entries.last().unwrap().clone().into();
        Ok(Response::new(wire::EnrollResponse { index, event, entry, receipt }))
    }

    async fn get_source_state(
        &self,
        request: Request<wire::GetSourceStateRequest>,
    ) -> Result<Response<wire::GetSourceStateResponse>, Status> {
        let log = self.lock_up()?;
        let source = log.sources.get(&request.into_inner().source);
        let source = source.ok_or_else(|| Status::not_found("unknown source"))?;
        Ok(Response::new(wire::GetSourceStateResponse {
            last_seq: source.events.len() as u64,
            key_id: source.key.id().0.to_vec().into(),
            origin: log.key.name().to_owned(),
            ledger_vkey: log.key.verifier().to_string(),
            heartbeat_interval: source.heartbeat,
        }))
    }
}
