//! Whether a server lives, and whether it can do its work: one judgement for `/healthz`, `/readyz`
//! and the health service of gRPC.
//!
//! Judging looks at what the parts say of themselves (the book, the index, the copy); nothing has
//! to remember to report. It may wait for a lock that is held over a disk, so it belongs on a
//! thread that may block.

use std::{
    sync::{Arc, Mutex, PoisonError, RwLock},
    time::Duration,
};

use access_ledger_proto::position::Size;
use axum::{
    Router,
    http::{StatusCode, header},
    response::IntoResponse,
    routing::get,
};
use serde_json::{Value, json};
use thiserror::Error;
use tokio::time::Instant;

use crate::book::Book;

/// Why a server is not ready.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum Unready {
    /// What is stored is being read, or witnesses are asked what they have seen.
    #[error("is being opened")]
    Opening,
    /// It was told to stop.
    #[error("is stopping")]
    Stopping,
    /// A write or sync failed: nothing more is recorded, or copied, until a restart.
    #[error("the storage failed: takes nothing more until it is started again")]
    StorageFailed,
    /// Queries, and batches that are sent again, are refused until a restart.
    #[error("the index stopped")]
    IndexStopped,
    /// Queries, and batches that are sent again, wait or are refused.
    #[error("the index is behind by {entries} entries, and has been for long")]
    IndexBehind {
        /// Entries that it does not cover.
        entries: u64,
    },
    /// A custodian caught its ledger, or is a copy that was not resumed, and signs nothing.
    #[error("halted: signs nothing until a human clears the alarm, or resumes the copy")]
    Halted,
    /// A custodian has no checkpoint to serve yet.
    #[error("nothing of the ledger is held yet")]
    NothingHeld,
    /// A custodian does not reach its ledger.
    #[error("the ledger does not answer")]
    LedgerUnheard,
    /// A custodian lacks entries that were signed.
    #[error("the copy is behind by {entries} entries, for {seconds} s")]
    CopyBehind {
        /// Entries that it lacks.
        entries: u64,
        /// For how long the first of them has been signed.
        seconds: u64,
    },
}

impl Unready {
    /// The word for it, which stays.
    #[must_use]
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::Opening => "OPENING",
            Self::Stopping => "STOPPING",
            Self::StorageFailed => "STORAGE_FAILED",
            Self::IndexStopped => "INDEX_STOPPED",
            Self::IndexBehind { .. } => "INDEX_BEHIND",
            Self::Halted => "HALTED",
            Self::NothingHeld => "NOTHING_HELD",
            Self::LedgerUnheard => "LEDGER_UNHEARD",
            Self::CopyBehind { .. } => "COPY_BEHIND",
        }
    }

    /// Whether nothing can be recorded meanwhile.
    pub(crate) const fn hinders_recording(&self) -> bool {
        matches!(self, Self::Opening | Self::Stopping | Self::StorageFailed)
    }
}

/// How a server does.
pub struct Health(RwLock<Phase>);

enum Phase {
    Opening,
    Open(Judge),
    Stopping,
}

/// Says what keeps a server from its work. It must not keep alive what it judges.
pub(crate) type Judge = Arc<dyn Fn() -> Vec<Unready> + Send + Sync>;

impl Health {
    /// Of a server that is being opened.
    #[must_use]
    pub fn new() -> Arc<Self> {
        Arc::new(Self(RwLock::new(Phase::Opening)))
    }

    /// The server is open, and this says how it does.
    pub(crate) fn judge_by(&self, judge: Judge) {
        self.enter(Phase::Open(judge));
    }

    /// The server was told to stop.
    pub(crate) fn stop(&self) {
        self.enter(Phase::Stopping);
    }

    fn enter(&self, phase: Phase) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = phase;
    }

    /// What keeps the server from its work; empty: it is ready. May block for a moment.
    #[must_use]
    pub fn hindrances(&self) -> Vec<Unready> {
        let judge = match &*self.0.read().unwrap_or_else(PoisonError::into_inner) {
            Phase::Opening => return vec![Unready::Opening],
            Phase::Stopping => return vec![Unready::Stopping],
            Phase::Open(judge) => judge.clone(),
        };
        judge()
    }

    /// The same off the network's threads.
    pub(crate) async fn look(self: &Arc<Self>) -> Vec<Unready> {
        let health = self.clone();
        let looked = tokio::task::spawn_blocking(move || health.hindrances()).await;
        // It panicked, or the runtime ends.
        looked.unwrap_or_else(|_| vec![Unready::Stopping])
    }
}

/// `/healthz`: 200 while the process can answer at all. `/readyz`: 200 while it can do its work,
/// else 503; the body says what is in the way. JSON.
pub(crate) fn pages(health: Arc<Health>) -> Router {
    let ready = async move || {
        let hindrances = health.look().await;
        let status = match hindrances[..] {
            [] => StatusCode::OK,
            _ => StatusCode::SERVICE_UNAVAILABLE,
        };
        let told: Vec<_> = hindrances
            .iter()
            .map(|why| json!({ "reason": why.reason(), "problem": why.to_string() }))
            .collect();
        page(status, &json!({ "ready": told.is_empty(), "hindrances": told }))
    };
    Router::new()
        .route("/healthz", get(async || page(StatusCode::OK, &json!({ "alive": true }))))
        .route("/readyz", get(ready))
}

fn page(status: StatusCode, body: &Value) -> impl IntoResponse + use<> {
    let headers = [(header::CONTENT_TYPE, "application/json"), (header::CACHE_CONTROL, "no-store")];
    (status, headers, format!("{body}\n"))
}

/// Judges a book: its storage and its index.
pub(crate) fn of_book(book: &Arc<Book>) -> Judge {
    let (book, waiting) = (Arc::downgrade(book), IndexWatch::default());
    Arc::new(move || {
        let Some(book) = book.upgrade() else { return vec![Unready::Stopping] };
        let mut hindrances = Vec::new();
        if *book.failed().borrow() {
            hindrances.push(Unready::StorageFailed);
        }
        let (indexed, published) = (book.index.indexed_size(), book.published().size);
        if book.index.is_stopped() {
            hindrances.push(Unready::IndexStopped);
        } else if waiting.is_behind(indexed, published) {
            let entries = published.0.saturating_sub(indexed.0);
            hindrances.push(Unready::IndexBehind { entries });
        }
        hindrances
    })
}

/// For how long the index has not come to what was published.
#[derive(Default)]
struct IndexWatch(Mutex<Option<(Size, Instant)>>);

impl IndexWatch {
    /// Whether the index still lacks what was published some time ago. It is always a little behind
    /// a busy log, so entries alone say nothing.
    fn is_behind(&self, indexed: Size, published: Size) -> bool {
        let mut awaited = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if awaited.is_some_and(|(size, _)| indexed >= size) {
            *awaited = None;
        }
        if indexed >= published {
            return false;
        }
        let (_, since) = *awaited.get_or_insert_with(|| (published, Instant::now()));
        since.elapsed() >= INDEX_PATIENCE
    }
}

/// Reads wait for the index for 10 s; who is further behind answers none that needs it.
const INDEX_PATIENCE: Duration = Duration::from_secs(30);

#[cfg(test)]
mod tests {
    use axum::{body::Body, http::Request};
    use tower::ServiceExt as _;

    use super::*;

    async fn ask(health: &Arc<Health>, path: &str) -> (StatusCode, Value) {
        let request = Request::get(path).body(Body::empty()).unwrap();
        let answer = pages(health.clone()).oneshot(request).await.unwrap();
        let status = answer.status();
        assert_eq!(answer.headers()["content-type"], "application/json");
        let body = axum::body::to_bytes(answer.into_body(), 1 << 10).await.unwrap();
        (status, serde_json::from_slice(&body).unwrap())
    }

    #[tokio::test]
    async fn the_pages_say_how_the_server_does_in_every_phase() {
        let health = Health::new();
        let reasons = async || {
            let (status, body) = ask(&health, "/readyz").await;
            let listed = body["hindrances"].as_array().unwrap();
            let told = listed.iter().map(|why| why["reason"].as_str().unwrap().to_owned());
            let told: Vec<_> = told.collect();
            assert_eq!(body["ready"], told.is_empty());
            assert_eq!(status == StatusCode::OK, told.is_empty());
            assert_eq!(ask(&health, "/healthz").await.0, StatusCode::OK);
            told
        };
        assert_eq!(reasons().await, ["OPENING"]);
        health.judge_by(Arc::new(Vec::new));
        assert!(reasons().await.is_empty());
        let behind = || vec![Unready::StorageFailed, Unready::IndexBehind { entries: 7 }];
        health.judge_by(Arc::new(behind));
        assert_eq!(reasons().await, ["STORAGE_FAILED", "INDEX_BEHIND"]);
        health.stop();
        assert_eq!(reasons().await, ["STOPPING"]);
    }

    #[tokio::test(start_paused = true)]
    async fn an_index_is_behind_when_it_lacks_for_long_what_was_published() {
        let watch = IndexWatch::default();
        let after = async |s| tokio::time::advance(Duration::from_secs(s)).await;
        assert!(!watch.is_behind(Size(5), Size(9)));
        after(29).await;
        assert!(!watch.is_behind(Size(8), Size(20)));
        after(1).await;
        assert!(watch.is_behind(Size(8), Size(20)), "9 were there 30 s ago");
        assert!(!watch.is_behind(Size(9), Size(40)), "it moves on, however far behind");
        after(30).await;
        assert!(watch.is_behind(Size(39), Size(90)));
        assert!(!watch.is_behind(Size(90), Size(90)));
    }
}
