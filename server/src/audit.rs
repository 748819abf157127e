//! `AuditService` over gRPC: everything an auditor needs to believe nothing.

use std::sync::Arc;

use access_ledger_proto::{
    entry::Entry,
    facts::sources::Source,
    position::{Index, Size, count_of},
    source::Name,
    wire::{self, ReadKind, audit_service_server::AuditService},
};
use bytes::Bytes;
use futures_util::stream;
use tokio::sync::watch;
use tonic::{Request, Response, Status};

use crate::{
    book::{
        Book, INDEX_WAIT, Published, StoredBatch, consistency_path, inclusion_path, unreadable,
    },
    identity::Caller,
    index::IndexError,
    reads::{Question, Reads, Sent},
    refusal::Refusal,
    works::Works,
};

mod findings;
mod query;
mod report;
mod runs;

use self::runs::{Cursor, Following};

/// The service. Cloning is cheap.
#[derive(Clone)]
pub(crate) struct Auditor {
    pub(crate) book: Arc<Book>,
    /// Turns true when the server is about to stop: streams end then.
    pub(crate) stopping: watch::Receiver<bool>,
    /// Notes who reads.
    pub(crate) reads: Reads,
    /// Where the disk is asked.
    pub(crate) works: Works,
}

impl Auditor {
    /// Off the network's threads: proofs and receipts read the disk.
    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Book, &Published) -> Result<T, Refusal> + Send + 'static,
    ) -> Result<Response<T>, Status> {
        let book = self.book.clone();
        let work = move || work(&book, &book.published());
        Ok(Response::new(self.works.run(work).await?))
    }

    /// A source as the tree of this size shows it; the writer knows of more. `None` when its
    /// registration is not in it.
    fn source(&self, source: &Source, size: Size) -> Option<wire::Source> {
        if !size.contains(source.registered_at) {
            return None;
        }
        let end = size.next_index();
        let keys = source.keys.before(end);
        let key = keys.now().as_ref();
        Some(wire::Source {
            name: source.name.as_str().to_owned(),
            public_key: key.map(|key| Bytes::copy_from_slice(key.as_bytes())).unwrap_or_default(),
            roles: source.roles.before(end).now().values(),
            registered_index: source.registered_at.0,
            self_enrolled: source.self_enrolled,
            decommissioned: source.decommissioned_at.is_some_and(|at| size.contains(at)),
            last_seq: self.book.durable_last(source.name.as_name()),
            key_index: keys.changed_at().map_or(0, |index| index.0),
        })
    }
}

#[tonic::async_trait]
impl AuditService for Auditor {
    async fn get_checkpoint(
        &self,
        request: Request<wire::GetCheckpointRequest>,
    ) -> Result<Response<wire::GetCheckpointResponse>, Status> {
        let cosigned = request.into_inner().cosigned.then(|| self.book.cosigned()).flatten();
        let checkpoint = cosigned.unwrap_or_else(|| self.book.published()).note.clone();
        Ok(Response::new(wire::GetCheckpointResponse { checkpoint }))
    }

    async fn read_entries(
        &self,
        request: Request<wire::ReadEntriesRequest>,
    ) -> Result<Response<tonic::codegen::BoxStream<wire::ReadEntriesResponse>>, Status> {
        let caller = Caller::of(&request)?;
        let request = request.into_inner();
        // Whoever records has to know the ledger's own source, and no more than that.
        if !caller.is_reader() && (request.first_index, request.end_index) != (0, 1) {
            return Err(caller.forbidden("audit or custody, for more than entry 0").into());
        }
        let newest = self.book.published().size;
        let end = size_or_newest(request.end_index, newest)?;
        let next = Index(request.first_index);
        if next.0 > newest.0 {
            let (what, found) = ("index", next.0);
            return Err(Refusal::BeyondTree { what, found, size: newest }.into());
        }
        if next.0 > end.0 {
            let problem = format!("{}, below the first index {}", end.0, next.0);
            return Err(Refusal::Request { field: "end_index", problem }.into());
        }
        let reader = self.reads.reader(&caller);
        let cursor = Cursor::begin(&self.book, next, request.with_events, reader);
        let stopping = self.stopping.clone();
        let runs = stream::unfold(Some(cursor), move |cursor| {
            let is_stopping = *stopping.borrow();
            async move {
                let mut cursor = cursor.filter(|cursor| cursor.is_before(end))?;
                if is_stopping {
                    return Some((Err(Refusal::Stopping.into()), None));
                }
                let run = cursor.next(end).await;
                let rest = run.is_ok().then_some(cursor);
                let run = run.map(|run| wire::ReadEntriesResponse { run: Some(run) });
                Some((run.map_err(Status::from), rest))
            }
        });
        Ok(Response::new(Box::pin(runs)))
    }

    async fn get_inclusion_proof(
        &self,
        request: Request<wire::GetInclusionProofRequest>,
    ) -> Result<Response<wire::GetInclusionProofResponse>, Status> {
        let reader = self.reads.reader(&Caller::of(&request)?);
        let request = request.into_inner();
        let proof = self.blocking(move |book, published| {
            let size = size_or_newest(request.tree_size, published.size)?;
            let path = inclusion_path(&book.tree, Index(request.index), size)?;
            Ok(wire::GetInclusionProofResponse { path, tree_size: size.0 })
        });
        let proof = proof.await?;
        reader.answered(ReadKind::Proof, Sent::default());
        Ok(proof)
    }

    async fn get_consistency_proof(
        &self,
        request: Request<wire::GetConsistencyProofRequest>,
    ) -> Result<Response<wire::GetConsistencyProofResponse>, Status> {
        let reader = self.reads.reader(&Caller::of(&request)?);
        let request = request.into_inner();
        let proof = self.blocking(move |book, published| {
            let new = size_or_newest(request.new_size, published.size)?;
            // A view that is ahead of the tree is the sign of a rollback, not of a malformed
            // request.
            let old = request.old_size;
            if old > published.size.0 {
                let (what, size) = ("size", published.size);
                return Err(Refusal::BeyondTree { what, found: old, size });
            }
            let path = consistency_path(&book.tree, Size(old), new)?;
            Ok(wire::GetConsistencyProofResponse { path, new_size: new.0 })
        });
        let proof = proof.await?;
        reader.answered(ReadKind::Proof, Sent::default());
        Ok(proof)
    }

    async fn get_receipt(
        &self,
        request: Request<wire::GetReceiptRequest>,
    ) -> Result<Response<wire::GetReceiptResponse>, Status> {
        use wire::get_receipt_request::Entry::{Index as AtIndex, Position};
        let caller = Caller::of(&request)?;
        let reader = self.reads.reader(&caller);
        let wanted = request.into_inner().entry.ok_or_else(|| Refusal::Request {
            field: "entry",
            problem: "missing, wanted an index or a position".to_owned(),
        })?;
        let receipt = self.blocking(move |book, _| {
            let index = match &wanted {
                AtIndex(index) => Index(*index),
                Position(position) => {
                    caller.expect_sight_of(&position.source)?;
                    let unknown = || Refusal::NoSource { name: position.source.clone() };
                    let name = Name::parse(position.source.as_bytes()).map_err(|_| unknown())?;
                    book.sources().get(name).ok_or_else(unknown)?;
                    book.position(name, position.seq)?
                }
            };
            let response = receipt_response(book, index)?;
            // Whoever records sees what its sources recorded, and the genesis.
            if index != Index::GENESIS {
                let entry = Entry::parse(&response.entry).map_err(unreadable)?;
                // Whose it is instead is not told.
                caller.expect_sight_of(entry.source.as_str()).map_err(|_| {
                    caller.forbidden("audit or custody, for an entry of another source")
                })?;
            }
            Ok(response)
        });
        let receipt = receipt.await?;
        reader.answered(ReadKind::Receipt, Sent::run(receipt.get_ref().index, 1));
        Ok(receipt)
    }

    async fn watch(
        &self,
        request: Request<wire::WatchRequest>,
    ) -> Result<Response<tonic::codegen::BoxStream<wire::WatchResponse>>, Status> {
        let reader = self.reads.reader(&Caller::of(&request)?);
        let request = request.into_inner();
        let size = self.book.published().size;
        if request.first_index > size.0 {
            let (what, found) = ("index", request.first_index);
            return Err(Refusal::BeyondTree { what, found, size }.into());
        }
        let next = Index(request.first_index);
        let cursor = Cursor::begin(&self.book, next, request.with_events, reader);
        let watch = (Following::begin(cursor), self.stopping.clone());
        let runs = stream::unfold(Some(watch), |watch| async {
            let (mut following, mut stopping) = watch?;
            let run = tokio::select! {
                run = following.next() => run,
                _ = stopping.wait_for(|&stopping| stopping) => Err(Refusal::Stopping),
            };
            let rest = run.is_ok().then_some((following, stopping));
            Some((run.map_err(Status::from), rest))
        });
        Ok(Response::new(Box::pin(runs)))
    }

    async fn get_source(
        &self,
        request: Request<wire::GetSourceRequest>,
    ) -> Result<Response<wire::GetSourceResponse>, Status> {
        let reader = self.reads.reader(&Caller::of(&request)?);
        let name = request.into_inner().source;
        let sources = self.book.sources();
        let size = self.book.published().size;
        let found = Name::parse(name.as_bytes()).ok().and_then(|name| sources.get(name));
        match found.and_then(|source| self.source(source, size)) {
            Some(source) => {
                reader.answered(ReadKind::Sources, Sent::rows(1));
                Ok(Response::new(wire::GetSourceResponse { source: Some(source) }))
            }
            None => Err(Refusal::NoSource { name }.into()),
        }
    }

    async fn query(
        &self,
        request: Request<wire::QueryRequest>,
    ) -> Result<Response<wire::QueryResponse>, Status> {
        let reader = self.reads.reader(&Caller::of(&request)?);
        let request = request.into_inner();
        let question = Question::of_query(&request);
        let found = self.blocking(move |book, published| query::query(book, published, &request));
        let found = found.await?;
        let hits = Sent::hits(found.get_ref().hits.iter().map(|hit| hit.index));
        reader.searched(question, found.get_ref(), hits).await?;
        Ok(found)
    }

    async fn list_findings(
        &self,
        request: Request<wire::ListFindingsRequest>,
    ) -> Result<Response<wire::ListFindingsResponse>, Status> {
        let reader = self.reads.reader(&Caller::of(&request)?);
        let request = request.into_inner();
        let question = Question::of_findings(&request);
        let found =
            self.blocking(move |book, published| findings::list(book, published.size, request));
        let found = found.await?;
        let findings = Sent::hits(found.get_ref().findings.iter().map(|finding| finding.index));
        reader.searched(question, found.get_ref(), findings).await?;
        Ok(found)
    }

    async fn get_report(
        &self,
        request: Request<wire::GetReportRequest>,
    ) -> Result<Response<wire::GetReportResponse>, Status> {
        let reader = self.reads.reader(&Caller::of(&request)?);
        let request = request.into_inner();
        let question = Question::of_report(&request);
        let computed = self
            .blocking(move |book, published| report::compute(book, published.size, &request))
            .await?;
        let mut response = computed.into_inner();
        let mut footer = response.footer.take().unwrap_or_default();
        if let Some(last) = Size(footer.size).last_index() {
            self.book.covers(last).await?;
        }
        let report = self.blocking(move |book, _| {
            report::add_root(book, &mut footer)?;
            Ok(wire::GetReportResponse { footer: Some(footer), ..response })
        });
        let report = report.await?;
        let rows = report.get_ref().table.as_ref().map_or(0, |table| count_of(table.rows.len()));
        reader.searched(question, report.get_ref(), Sent::rows(rows)).await?;
        Ok(report)
    }

    async fn list_sources(
        &self,
        request: Request<wire::ListSourcesRequest>,
    ) -> Result<Response<wire::ListSourcesResponse>, Status> {
        let reader = self.reads.reader(&Caller::of(&request)?);
        let request = request.into_inner();
        let page_size = match usize::try_from(request.page_size).unwrap_or(usize::MAX) {
            0 => PAGE_SIZE_MAX,
            size => size.min(PAGE_SIZE_MAX),
        };
        let registered = self.book.sources();
        let size = self.book.published().size;
        let after = registered.iter_after(&request.page_token);
        let mut rest = after.filter_map(|source| self.source(source, size));
        let sources: Vec<_> = rest.by_ref().take(page_size).collect();
        let has_more = rest.next().is_some();
        let next_page_token = sources
            .last()
            .filter(|_| has_more)
            .map(|source| source.name.clone())
            .unwrap_or_default();
        reader.answered(ReadKind::Sources, Sent::rows(count_of(sources.len())));
        Ok(Response::new(wire::ListSourcesResponse { sources, next_page_token }))
    }
}

fn receipt_response(book: &Book, index: Index) -> Result<wire::GetReceiptResponse, Refusal> {
    let published = book.proves(index)?;
    let stored = StoredBatch::around(&book.reader, index)?;
    let entry = book.reader.read_entries(index, 1, 1).map_err(unreadable)?.into_iter().next();
    Ok(wire::GetReceiptResponse {
        index: index.0,
        entry: entry.ok_or_else(|| unreadable(format!("no entry at index {index}")))?,
        inclusion_path: inclusion_path(&book.tree, index, published.size)?,
        receipt: Some(stored.receipt(&book.tree, &published)?),
        first_seq: stored.first_seq,
        count: u32::try_from(stored.digests.len()).unwrap_or(u32::MAX),
    })
}

/// How much of the tree can be searched: all of it, if the index gets there in time.
fn indexed(book: &Book, wanted: Size) -> Size {
    match book.index.wait_for(wanted, INDEX_WAIT) {
        Ok(()) => wanted,
        // The answer says how far it reaches; that the index stays behind is in the log and in the
        // metrics.
        Err(_) => book.index.indexed_size().min(wanted),
    }
}

fn refuse_index(error: IndexError) -> Refusal {
    match error {
        IndexError::Damaged { .. } | IndexError::Rebuilding { .. } => {
            Refusal::Indexing { problem: error.to_string() }
        }
        error => unreadable(error),
    }
}

/// A size that a request names: 0 means the newest.
fn size_or_newest(asked: u64, newest: Size) -> Result<Size, Refusal> {
    match asked {
        0 => Ok(newest),
        size if size <= newest.0 => Ok(Size(size)),
        found => Err(Refusal::BeyondTree { what: "size", found, size: newest }),
    }
}

/// Most sources in one page.
const PAGE_SIZE_MAX: usize = 1_000;
