//! The guard finds out who calls, and whether they may.

use access_ledger_proto::hash::sha256;
use tonic::{
    Status,
    body::Body,
    codegen::http::{
        HeaderMap, Request, Response, StatusCode,
        header::{
            AUTHORIZATION, CACHE_CONTROL, CONTENT_TYPE, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE,
        },
    },
};
use tracing::debug;

use super::{
    call::{self, Permission},
    caller::Caller,
    door::{Admission, Door},
    intake::Intake,
    limits::Passage,
    link::Peer,
    standing::{Credential, Standing},
};
use crate::{http::is_grpc, refusal::Refusal};

/// A call that was let in.
pub(crate) struct Admitted {
    /// With the [`Caller`], unless the call is open to anybody, and without the token.
    pub(crate) request: Request<Body>,
    /// `None` for a call that is open to anybody.
    pub(crate) held: Option<Held>,
}

/// What the call of a principal has to its end.
pub(crate) struct Held {
    /// What counts against the limits of the principal.
    pub(crate) passage: Passage,
    /// `None` where everybody may call.
    pub(crate) standing: Option<Standing>,
}

/// Lets a call in.
///
/// # Errors
///
/// [`Refusal::NoCall`], [`Refusal::Unauthenticated`], [`Refusal::CallForbidden`],
/// [`Refusal::RateExceeded`], [`Refusal::CallsExceeded`]: [`refuse`] tells the caller.
pub(crate) fn admit(
    door: &Door,
    peer: &Peer,
    mut request: Request<Body>,
) -> Result<Admitted, Refusal> {
    let entered = enter(door, peer, &request).inspect_err(|refusal| {
        let (path, address) = (request.uri().path(), peer.address);
        debug!(path, %address, reason = refusal.reason(), "refused a call");
    })?;
    // Nobody further in needs the token, so nobody can log it.
    request.headers_mut().remove(AUTHORIZATION);
    let Some((caller, held)) = entered else { return Ok(Admitted { request, held: None }) };
    let intake = caller.0.limits.intake.clone();
    let is_grpc = is_grpc(&request);
    let mut request = request.map(|body| held.passage.paced(body));
    if is_grpc {
        let standing = held.standing.as_ref().map(Standing::again);
        request = request.map(|body| Body::new(Intake::new(body, intake, standing)));
    }
    request.extensions_mut().insert(caller);
    Ok(Admitted { request, held: Some(held) })
}

/// The caller, and what it holds; `None` for a call that is open to anybody.
fn enter(
    door: &Door,
    peer: &Peer,
    request: &Request<Body>,
) -> Result<Option<(Caller, Held)>, Refusal> {
    let path = request.uri().path();
    let permission = if is_grpc(request) {
        call::of_method(path)
    } else {
        call::of_page(request.method().as_str(), path)
    };
    let permission = permission.ok_or_else(|| Refusal::NoCall { path: path.to_owned() })?;
    let Permission::AnyOf(roles) = permission else { return Ok(None) };
    // Followed from before it is looked at, so no change is missed.
    let states = door.states();
    let state = states.borrow().clone();
    let (principal, standing) = match &state.admission {
        Admission::Everybody(anybody) => (anybody, None),
        Admission::Known(principals) => {
            let credential = credential(peer, request.headers())?;
            let principal = credential.principal(principals)?;
            (principal, Some(Standing::new(credential, principal.clone(), roles, states)))
        }
    };
    if !roles.iter().any(|&role| principal.has(role)) {
        let (principal, wanted) = (principal.name.clone(), permission.roles());
        return Err(Refusal::CallForbidden { principal, wanted });
    }
    let passage = principal.limits.enter(&principal.name, call::holds(path), &door.places)?;
    Ok(Some((Caller(principal.clone()), Held { passage, standing })))
}

/// Whoever shows a token is whom the token is for: it says so with every call, while a certificate
/// may be that of a machine in between.
fn credential(peer: &Peer, headers: &HeaderMap) -> Result<Credential, Refusal> {
    if let Some(token) = token(headers)? {
        return Ok(Credential::Token(sha256(token)));
    }
    if peer.names.is_empty() {
        let problem = "no token, and no client certificate with a name".to_owned();
        return Err(Refusal::Unauthenticated { problem });
    }
    Ok(Credential::Names(peer.names.clone()))
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
        let problem = "authorization, wanted one bearer token".to_owned();
        return Err(Refusal::Unauthenticated { problem });
    }
    Ok(Some(token))
}

/// The refusal as the caller understands it.
pub(crate) fn refuse(refusal: Refusal, is_grpc: bool) -> Response<Body> {
    if is_grpc {
        return Status::from(refusal).into_http();
    }
    let status = match refusal {
        Refusal::Unauthenticated { .. } => StatusCode::UNAUTHORIZED,
        Refusal::NoCall { .. } => StatusCode::NOT_FOUND,
        Refusal::Deadline { .. } => StatusCode::REQUEST_TIMEOUT,
        Refusal::RateExceeded { .. } | Refusal::CallsExceeded { .. } => {
            StatusCode::TOO_MANY_REQUESTS
        }
        _ => StatusCode::FORBIDDEN,
    };
    let retry_after = refusal.retry_after();
    let mut response = Response::new(Body::new(format!("{refusal}\n")));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    if status == StatusCode::UNAUTHORIZED {
        headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    }
    if let Some(delay) = retry_after {
        // In whole seconds, and never too early.
        headers.insert(RETRY_AFTER, delay.as_secs().saturating_add(1).into());
    }
    metrics::counter!("access_ledger_refused_total", "reason" => refusal.reason()).increment(1);
    response
}

const BEARER: &[u8] = b"bearer ";
