//! One port, two kinds of callers.
//!
//! A call is gRPC when it comes over HTTP/2 and says so; all else goes to the pages. So a web page,
//! which can make a browser send what it likes to an address that only the browser reaches, cannot
//! append: browsers speak no HTTP/2 without TLS, and send that type only to who allows it.

use std::{
    convert::Infallible,
    task::{Context, Poll},
};

use tonic::{
    body::Body,
    codegen::{
        Service,
        http::{Request, Response, Version, header::CONTENT_TYPE},
    },
    service::Routes,
};

/// gRPC services and pages behind one port. Cloning is cheap.
#[derive(Clone)]
pub(crate) struct Split {
    grpc: Routes,
    pages: Routes,
}

impl Split {
    /// Both kinds, ready for many connections.
    pub(crate) fn new(grpc: Routes, pages: axum::Router) -> Self {
        Self { grpc: grpc.prepare(), pages: Routes::from(pages).prepare() }
    }
}

impl Service<Request<Body>> for Split {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = <Routes as Service<Request<Body>>>::Future;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        // Routes are always ready.
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        if is_grpc(&request) { self.grpc.call(request) } else { self.pages.call(request) }
    }
}

/// Whether a request is for the gRPC services.
pub(crate) fn is_grpc<B>(request: &Request<B>) -> bool {
    let content_type = request.headers().get(CONTENT_TYPE);
    request.version() == Version::HTTP_2
        && content_type.is_some_and(|value| value.as_bytes().starts_with(b"application/grpc"))
}
