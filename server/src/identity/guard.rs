//! The layer that every request passes: it finds out who calls, and whether they may.

use std::{
    convert::Infallible,
    future::{Ready, ready},
    sync::Arc,
    task::{Context, Poll},
};

use futures_util::future::{BoxFuture, Either};
use tonic::{
    Status,
    body::Body,
    codegen::{
        Service,
        http::{
            HeaderMap, Request, Response, StatusCode,
            header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue, WWW_AUTHENTICATE},
        },
    },
};
use tower::Layer;
use tracing::debug;

use super::{
    call::{self, Permission},
    caller::Caller,
    door::{Admission, Door},
    limits::Passage,
    link::Peer,
    principals::{Principal, Principals},
};
use crate::{http::is_grpc, refusal::Refusal};

/// Puts a guard before a service.
#[derive(Clone)]
pub(crate) struct GuardLayer {
    door: Arc<Door>,
}

/// A service behind a guard.
#[derive(Clone)]
pub(crate) struct Guard<S> {
    inner: S,
    door: Arc<Door>,
}

impl GuardLayer {
    pub(crate) const fn new(door: Arc<Door>) -> Self {
        Self { door }
    }
}

impl<S> Layer<S> for GuardLayer {
    type Service = Guard<S>;

    fn layer(&self, inner: S) -> Guard<S> {
        Guard { inner, door: self.door.clone() }
    }
}

impl<S> Service<Request<Body>> for Guard<S>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>,
    S::Future: Send + 'static,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Either<Ready<Answered>, Either<S::Future, BoxFuture<'static, Answered>>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        match admit(&self.door, &request) {
            Ok((caller, passage)) => {
                // Nobody further in needs the token, so nobody can log it.
                request.headers_mut().remove(AUTHORIZATION);
                if let Some(caller) = caller {
                    request.extensions_mut().insert(caller);
                }
                let Some(passage) = passage else {
                    return Either::Right(Either::Left(self.inner.call(request)));
                };
                let answered = self.inner.call(request.map(|body| passage.request(body)));
                let watched = async move { Ok(answered.await?.map(|body| passage.response(body))) };
                Either::Right(Either::Right(Box::pin(watched)))
            }
            Err(refusal) => {
                let path = request.uri().path();
                let peer = request.extensions().get::<Peer>().map(|peer| peer.address);
                debug!(path, ?peer, reason = refusal.reason(), "refused a call");
                Either::Left(ready(Ok(answer(refusal, is_grpc(&request)))))
            }
        }
    }
}

type Answered = Result<Response<Body>, Infallible>;

/// The caller, `None` for a call that is open to anybody, and what watches over the call.
fn admit(
    door: &Door,
    request: &Request<Body>,
) -> Result<(Option<Caller>, Option<Passage>), Refusal> {
    let path = request.uri().path();
    let permission = if is_grpc(request) {
        call::of_method(path)
    } else {
        call::of_page(request.method().as_str(), path)
    };
    let permission = permission.ok_or_else(|| Refusal::NoCall { path: path.to_owned() })?;
    let Permission::AnyOf(roles) = permission else { return Ok((None, None)) };
    let state = door.state();
    let principal = match &state.admission {
        Admission::Everybody(anybody) => anybody,
        Admission::Known(principals) => identify(principals, request)?,
    };
    if !roles.iter().any(|&role| principal.has(role)) {
        let (principal, wanted) = (principal.name.clone(), permission.roles());
        return Err(Refusal::CallForbidden { principal, wanted });
    }
    let passage = principal.limits.enter(&principal.name)?;
    Ok((Some(Caller(principal.clone())), passage))
}

/// Whoever shows a token is whom the token is for: it says so with every call, while a certificate
/// may be that of a machine in between.
fn identify<'a>(
    principals: &'a Principals,
    request: &Request<Body>,
) -> Result<&'a Arc<Principal>, Refusal> {
    let unknown = |problem: String| Refusal::Unauthenticated { problem };
    if let Some(token) = token(request.headers())? {
        return principals.of_token(token).ok_or_else(|| unknown("token is unknown".to_owned()));
    }
    let names = request.extensions().get::<Peer>().map(|peer| &*peer.names).unwrap_or_default();
    if names.is_empty() {
        return Err(unknown("no token, and no client certificate with a name".to_owned()));
    }
    match principals.of_names(names)[..] {
        [principal] => Ok(principal),
        [] => Err(unknown("names of the client certificate are unknown".to_owned())),
        _ => Err(unknown("client certificate has names of several principals".to_owned())),
    }
}

/// The bearer token, if one is shown (RFC 6750, section 2.1).
fn token(headers: &HeaderMap) -> Result<Option<&[u8]>, Refusal> {
    let mut shown = headers.get_all(AUTHORIZATION).iter();
    let Some(first) = shown.next() else { return Ok(None) };
    let token = match first.as_bytes().split_at_checked(BEARER.len()) {
        Some((scheme, token)) if scheme.eq_ignore_ascii_case(BEARER) => token.trim_ascii(),
        _ => &[],
    };
    if token.is_empty() || shown.next().is_some() {
        let problem = "authorization, wanted is one bearer token".to_owned();
        return Err(Refusal::Unauthenticated { problem });
    }
    Ok(Some(token))
}

/// The refusal as the caller understands it.
fn answer(refusal: Refusal, is_grpc: bool) -> Response<Body> {
    if is_grpc {
        return Status::from(refusal).into_http();
    }
    let status = match refusal {
        Refusal::Unauthenticated { .. } => StatusCode::UNAUTHORIZED,
        Refusal::NoCall { .. } => StatusCode::NOT_FOUND,
        Refusal::RateExceeded { .. } | Refusal::CallsExceeded { .. } => {
            StatusCode::TOO_MANY_REQUESTS
        }
        _ => StatusCode::FORBIDDEN,
    };
    let mut response = Response::new(Body::new(format!("{refusal}\n")));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    if status == StatusCode::UNAUTHORIZED {
        headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    }
    metrics::counter!("access_ledger_refused_total", "reason" => refusal.reason()).increment(1);
    response
}

const BEARER: &[u8] = b"bearer ";
