//! HTTP on the port of the gRPC services, over HTTP/1.1 and HTTP/2: the log as static files (C2SP
//! tlog-tiles), and the calls of a witness (C2SP tlog-witness).
//!
//! | path | of |
//! |---|---|
//! | `/checkpoint`, `/tile/<L>/<N>[.p/<W>]`, `/tile/entries/<N>[.p/<W>]` | ledger, custodian |
//! | `/add-checkpoint` (POST), `/<hex>/checkpoint` | custodian |
//! | `/<hex>/tile/...` | custodian, of the log that it follows |
//!
//! Everything read lies under the newest checkpoint, so a verifier can check all of it. Any page
//! may read. The disk is read off the network's threads, by a bounded number of readers at once.

mod add;
mod answer;
mod path;
mod split;
mod tiles;

use std::{sync::Arc, time::Duration};

use access_ledger_proto::witness::origin_hex;
use axum::{
    Extension, Router,
    body::Body,
    extract::{Path, State},
    http::{HeaderMap, HeaderValue, Response, StatusCode, Uri, header},
    routing::{MethodRouter, get, post},
};
use bytes::Bytes;
use tower::util::MapResponseLayer;
use tracing::error;

use self::answer::{Wishes, refuse, response};
pub(crate) use self::split::{Split, is_grpc};
use crate::{book::Book, identity::Caller, reads::Reads, witness::Witness, works::Works};

/// What the pages are made from.
struct Site {
    book: Arc<Book>,
    /// [`origin_hex`] of the book.
    origin_hex: String,
    /// Notes who reads.
    reads: Reads,
    /// For what reads the disk, and for what is added.
    reading: Works,
    adding: Works,
}

/// The pages of a book, and of a witness where there is one.
pub(crate) fn pages(book: Arc<Book>, witness: Option<Arc<Witness>>, reads: Reads) -> Router {
    let origin_hex = origin_hex(book.vkey.name());
    let (reading, adding) = (Works::new(READS_MAX), Works::new(ADDS_MAX));
    let site = Arc::new(Site { book, origin_hex, reads, reading, adding });
    let mut reads = Router::new()
        .route("/checkpoint", readable(get(newest_checkpoint)))
        .route("/tile/{*tile}", readable(get(tile)));
    let mut adds = Router::new();
    if let Some(witness) = witness {
        let cosigned = get(cosigned_checkpoint).with_state(witness.clone());
        reads = reads
            .route("/{origin}/checkpoint", readable(cosigned))
            .route("/{origin}/tile/{*tile}", readable(get(mirrored_tile)));
        let add = post(add_checkpoint).with_state((site.clone(), witness));
        adds = adds.route("/add-checkpoint", add);
    }
    reads
        .with_state(site)
        .layer(MapResponseLayer::new(open_to_pages))
        .merge(adds)
        .fallback(async || refuse(StatusCode::NOT_FOUND, "nothing is here"))
        .layer(MapResponseLayer::new(count))
}

impl Site {
    /// Runs `work` on a thread that may block, as one of so many at once.
    async fn blocking(
        &self,
        works: &Works,
        work: impl FnOnce() -> Response<Body> + Send + 'static,
    ) -> Response<Body> {
        let place = tokio::time::timeout(PLACE_TIME, works.place()).await;
        let Ok(Ok(place)) = place else {
            return refuse(StatusCode::SERVICE_UNAVAILABLE, "too many are served already");
        };
        place.run(work).await.unwrap_or_else(|failure| {
            error!(%failure, "serving a page failed");
            refuse(StatusCode::INTERNAL_SERVER_ERROR, "this failed")
        })
    }

    async fn tile(&self, caller: &Caller, uri: &Uri, wishes: Wishes) -> Response<Body> {
        // As it was sent: what is percent-encoded is another path.
        let path = uri.path().split_once("/tile/").map(|(_, tile)| tile.to_owned());
        let book = self.book.clone();
        let reader = self.reads.reader(caller);
        let read = move || tiles::tile(&book, &path.unwrap_or_default(), &wishes, &reader);
        self.blocking(&self.reading, read).await
    }
}

async fn newest_checkpoint(State(site): State<Arc<Site>>, headers: HeaderMap) -> Response<Body> {
    tiles::checkpoint(site.book.published().note.clone(), &Wishes::of(&headers))
}

async fn tile(
    State(site): State<Arc<Site>>,
    Extension(caller): Extension<Caller>,
    uri: Uri,
    headers: HeaderMap,
) -> Response<Body> {
    site.tile(&caller, &uri, Wishes::of(&headers)).await
}

async fn mirrored_tile(
    State(site): State<Arc<Site>>,
    Path((origin, _)): Path<(String, String)>,
    Extension(caller): Extension<Caller>,
    uri: Uri,
    headers: HeaderMap,
) -> Response<Body> {
    if origin == site.origin_hex {
        site.tile(&caller, &uri, Wishes::of(&headers)).await
    } else {
        refuse(StatusCode::NOT_FOUND, "no entries of this log are held")
    }
}

async fn cosigned_checkpoint(
    State(witness): State<Arc<Witness>>,
    Path(origin): Path<String>,
    headers: HeaderMap,
) -> Response<Body> {
    match witness.newest(&origin) {
        Some(note) => {
            let note = Bytes::copy_from_slice(note.as_bytes());
            tiles::checkpoint(note, &Wishes::of(&headers))
        }
        None => refuse(StatusCode::NOT_FOUND, "no checkpoint of this log was cosigned"),
    }
}

async fn add_checkpoint(
    State((site, witness)): State<(Arc<Site>, Arc<Witness>)>,
    body: Body,
) -> Response<Body> {
    match add::read_body(body, add::BODY_TIME).await {
        Ok(body) => {
            let add = move || add::add_checkpoint(&witness, &body);
            site.blocking(&site.adding, add).await
        }
        Err(error) => error.refusal(),
    }
}

/// A page that scripts of other sites may ask whether they may read.
fn readable<S: Clone + Send + Sync + 'static>(method: MethodRouter<S>) -> MethodRouter<S> {
    method.options(async || {
        let headers = [
            (header::ACCESS_CONTROL_ALLOW_METHODS, "GET, HEAD"),
            (header::ACCESS_CONTROL_ALLOW_HEADERS, "*"),
            (header::ACCESS_CONTROL_MAX_AGE, "86400"),
        ];
        response(StatusCode::NO_CONTENT, &headers, Bytes::new())
    })
}

/// A page in a browser may read the answer and verify it.
fn open_to_pages(mut answer: Response<Body>) -> Response<Body> {
    let headers = answer.headers_mut();
    let star = HeaderValue::from_static("*");
    headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, star);
    headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static("etag"));
    // Entries hold what sources wrote; no browser is to guess a script in them.
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    answer
}

fn count(answer: Response<Body>) -> Response<Body> {
    let status = answer.status().as_u16().to_string();
    metrics::counter!("access_ledger_http_requests_total", "status" => status).increment(1);
    answer
}

#[cfg(test)]
mod tests;

/// Tiles that are read from the disk at once: more only wait for each other there.
const READS_MAX: usize = 16;

/// Checkpoints that are looked at at once. Each may wait until its entries have arrived, and only
/// a log's own signature gets it so far.
const ADDS_MAX: usize = 32;

/// How long a call waits for its turn.
const PLACE_TIME: Duration = Duration::from_secs(10);
