//! How calls come in: HTTP/2 and HTTP/1.1 over the connections of a listener, each call through the
//! door, and an end to all that a caller could let the server wait for or hold.
//!
//! | a caller that | loses its connection after |
//! |---|---|
//! | does not shake hands | 10 s (identity/link.rs) |
//! | is not known by a call | `Times::stranger` |
//! | is known, and has no call under way | `Times::idle` |
//! | does not end the head of a request (HTTP/1.1) | `Times::head` |
//! | answers no ping (HTTP/2) | `Times::ping` and `Times::pong` |
//! | takes nothing of what is written to it | `Times::stall` |
//!
//! A call has `Times::call` for its request and until its answer begins, or less if the caller
//! says so (`grpc-timeout`). What a connection may hold is bounded by the constants at the end.

use std::{
    convert::Infallible, future::ready, net::SocketAddr, pin::pin, sync::Arc, time::Duration,
};

use futures_util::{StreamExt as _, future::BoxFuture};
use hyper::{HeaderMap, Request, Response, body::Incoming, service::Service as HyperService};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto::Builder,
};
use tokio::{
    net::TcpListener,
    sync::watch,
    time::{Instant, sleep_until, timeout},
};
use tonic::{body::Body, codegen::Service};
use tower::ServiceExt as _;
use tracing::debug;

use self::{
    activity::{Activity, Underway},
    answer::Answer,
};
use crate::{
    http::is_grpc,
    identity::{Admitted, Door, Link, Peer, admit, links, refuse},
    refusal::Refusal,
};

mod activity;
mod answer;

/// A listener, the door before it, and how long callers are waited for.
pub struct Transport {
    listener: TcpListener,
    door: Arc<Door>,
    links_max: usize,
    times: Times,
}

/// How long callers are waited for.
#[derive(Clone, Copy, Debug)]
struct Times {
    stranger: Duration,
    idle: Duration,
    head: Duration,
    ping: Duration,
    pong: Duration,
    stall: Duration,
    call: Duration,
    /// What a caller that is told to go has for saying goodbye.
    farewell: Duration,
    /// What calls that are under way have to end when the server stops.
    drain: Duration,
}

impl Default for Times {
    fn default() -> Self {
        Self {
            stranger: Duration::from_secs(30),
            idle: Duration::from_secs(900),
            head: Duration::from_secs(30),
            ping: Duration::from_secs(30),
            pong: Duration::from_secs(20),
            stall: Duration::from_secs(30),
            call: Duration::from_secs(60),
            farewell: Duration::from_secs(5),
            drain: Duration::from_secs(20),
        }
    }
}

impl Transport {
    /// What comes to `listener`, as far as `door` lets it in.
    #[must_use]
    pub fn new(listener: TcpListener, door: &Arc<Door>) -> Self {
        let (door, times) = (door.clone(), Times::default());
        Self { listener, door, links_max: LINKS_MAX, times }
    }

    /// Takes no more connections than that.
    #[must_use]
    pub(crate) fn at_most(self, links_max: usize) -> Self {
        Self { links_max, ..self }
    }

    /// Serves calls until `stop` resolves. Then nobody is let in any more, connections end with the
    /// calls that are under way, or after 20 s, and this returns when all have ended.
    pub async fn serve<S>(self, service: S, stop: impl Future<Output = ()>)
    where
        S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>
            + Clone
            + Send
            + 'static,
        S::Future: Send + 'static,
    {
        let Self { listener, door, links_max, times } = self;
        let protocol = Arc::new(protocol(&times));
        let (stopping, is_stopping) = watch::channel(false);
        {
            let mut links = Box::pin(links(listener, door.clone(), links_max, times.stall));
            let mut stop = pin!(stop);
            loop {
                let link = tokio::select! {
                    () = &mut stop => break,
                    link = links.next() => link,
                };
                let Some(link) = link else { break };
                let (peer, activity) = (link.peer().clone(), Arc::new(Activity::begin()));
                let (door, service) = (door.clone(), service.clone());
                let served = Served { service, door, peer, activity, times };
                tokio::spawn(serve_link(protocol.clone(), link, served, is_stopping.clone()));
            }
        }
        drop(is_stopping);
        stopping.send_replace(true);
        stopping.closed().await;
    }
}

/// What connections speak, and within which bounds.
fn protocol(times: &Times) -> Builder<TokioExecutor> {
    let mut builder = Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(times.head)
        .max_buf_size(HEAD_BYTES_MAX);
    builder
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(times.ping)
        .keep_alive_timeout(times.pong)
        .max_concurrent_streams(STREAMS_MAX)
        .max_header_list_size(HEADER_BYTES_MAX)
        .initial_stream_window_size(WINDOW_BYTES)
        .initial_connection_window_size(WINDOW_BYTES)
        .max_send_buf_size(SEND_BYTES_MAX)
        .max_pending_accept_reset_streams(RESETS_MAX)
        .max_local_error_reset_streams(RESETS_MAX);
    builder
}

/// Serves one connection to its end.
async fn serve_link<S>(
    protocol: Arc<Builder<TokioExecutor>>,
    link: Link,
    served: Served<S>,
    mut stopping: watch::Receiver<bool>,
) where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>
        + Clone
        + Send
        + 'static,
    S::Future: Send + 'static,
{
    let (activity, times) = (served.activity.clone(), served.times);
    let address = served.peer.address();
    let connection = protocol.serve_connection(TokioIo::new(link), served);
    let mut connection = pin!(connection);
    let is_forsaken = tokio::select! {
        ended = &mut connection => return tell(address, ended),
        () = forsaken(&activity, &times) => true,
        // A listener that is gone has no use for its connections either.
        _ = stopping.wait_for(|&stopping| stopping) => false,
    };
    connection.as_mut().graceful_shutdown();
    // A stranger that takes no answer is not waited for: the places are for those who are known.
    let patience = match activity.is_known() {
        true if is_forsaken => times.call,
        true => times.drain,
        false => times.farewell,
    };
    match timeout(patience, connection).await {
        Ok(ended) => tell(address, ended),
        Err(_) => debug!(%address, is_forsaken, "gave up on a caller"),
    }
}

fn tell(address: SocketAddr, ended: Result<(), BoxError>) {
    if let Err(problem) = ended {
        debug!(%address, problem, "connection broke");
    }
}

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Resolves when nobody has used the connection for long enough.
async fn forsaken(activity: &Activity, times: &Times) {
    loop {
        let until = activity.expected_until(times.stranger, times.idle);
        if until <= Instant::now() {
            return;
        }
        // The other of the two may count meanwhile.
        sleep_until(until.min(Instant::now() + times.idle)).await;
    }
}

/// The calls of one connection.
struct Served<S> {
    service: S,
    door: Arc<Door>,
    peer: Peer,
    activity: Arc<Activity>,
    times: Times,
}

type Called = BoxFuture<'static, Result<Response<Answer>, Infallible>>;

impl<S> HyperService<Request<Incoming>> for Served<S>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>
        + Clone
        + Send
        + 'static,
    S::Future: Send + 'static,
{
    type Response = Response<Answer>;
    type Error = Infallible;
    type Future = Called;

    fn call(&self, request: Request<Incoming>) -> Called {
        let underway = Underway::begin(&self.activity);
        let request = request.map(Body::new);
        let is_grpc = is_grpc(&request);
        let Admitted { request, held } = match admit(&self.door, &self.peer, request) {
            Ok(admitted) => admitted,
            Err(refusal) => {
                let refused = refuse(refusal, is_grpc);
                let refused = refused.map(|body| Answer::new(body, None, is_grpc, underway));
                return Box::pin(ready(Ok(refused)));
            }
        };
        if held.is_some() {
            self.activity.know();
        }
        let limit = deadline_of(request.headers())
            .map_or(self.times.call, |wanted| wanted.min(self.times.call));
        let answered = self.service.clone().oneshot(request);
        Box::pin(async move {
            let answered = match timeout(limit, answered).await {
                Ok(Ok(answered)) => answered,
                Err(_) => refuse(Refusal::Deadline { limit }, is_grpc),
            };
            Ok(answered.map(|body| Answer::new(body, held, is_grpc, underway)))
        })
    }
}

/// How long the caller waits, by the header of gRPC for that; `None` without a valid one.
fn deadline_of(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get("grpc-timeout")?.to_str().ok()?;
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if digits.is_empty() || digits.len() > 8 || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let amount: u64 = digits.parse().ok()?;
    Some(match unit {
        "H" => Duration::from_secs(3_600 * amount),
        "M" => Duration::from_secs(60 * amount),
        "S" => Duration::from_secs(amount),
        "m" => Duration::from_millis(amount),
        "u" => Duration::from_micros(amount),
        "n" => Duration::from_nanos(amount),
        _ => return None,
    })
}

/// Connections of one listener. Each may hold some tens of kilobytes.
const LINKS_MAX: usize = 16_384;

/// The head of a request of HTTP/1.1, and what of a body is read or written at once.
const HEAD_BYTES_MAX: usize = 16 << 10;

/// Headers of one call of HTTP/2: a token, a deadline, and what proxies add.
const HEADER_BYTES_MAX: u32 = 16 << 10;

/// Calls at once over one connection of HTTP/2.
const STREAMS_MAX: u32 = 1_024;

/// What a caller may send ahead of being read, over one connection and of one call: what a stream
/// of batches needs over a distance of 10 ms at a gigabit a second.
const WINDOW_BYTES: u32 = 1 << 20;

/// What of an answer waits for a caller that does not read it, besides one message.
const SEND_BYTES_MAX: usize = 256 << 10;

/// Streams that a caller opened and took back while nobody had looked at them yet, or had the
/// server take back by sending nonsense (CVE-2023-44487, CVE-2025-8671): who goes on like that
/// loses the connection. Clients that cancel calls stay below.
const RESETS_MAX: usize = 64;

#[cfg(test)]
mod tests;
