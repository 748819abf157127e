//! The body of an answer. The call lasts as long as the server holds it, and no longer than its
//! principal may make it.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use hyper::HeaderMap;
use tonic::{Status, body::Body};

use super::activity::Underway;
use crate::{identity::Held, refusal::Refusal};

/// The body of an answer.
pub(super) struct Answer {
    inner: Body,
    state: State,
    is_grpc: bool,
    held: Option<Held>,
    _underway: Underway,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Whole,
    Begun,
    CutOff,
}

impl Answer {
    /// The answer to a call, which holds so much.
    pub(super) fn new(body: Body, held: Option<Held>, is_grpc: bool, underway: Underway) -> Self {
        let inner = match &held {
            Some(held) => held.passage.paced(body),
            None => body,
        };
        Self { inner, state: State::Whole, is_grpc, held, _underway: underway }
    }

    /// The end of an answer that may not go on.
    fn cut_off(&mut self, refusal: Refusal) -> Result<Frame<Bytes>, Status> {
        self.state = State::CutOff;
        let status = Status::from(refusal);
        if !self.is_grpc {
            return Err(status);
        }
        let mut trailers = HeaderMap::new();
        status.add_header(&mut trailers)?;
        Ok(Frame::trailers(trailers))
    }
}

impl HttpBody for Answer {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = &mut *self;
        if this.state == State::CutOff {
            return Poll::Ready(None);
        }
        this.state = State::Begun;
        let mut standing = this.held.as_mut().and_then(|held| held.standing.as_mut());
        if let Some(refusal) = standing.as_mut().and_then(|standing| standing.lost()) {
            return Poll::Ready(Some(this.cut_off(refusal)));
        }
        let frame = Pin::new(&mut this.inner).poll_frame(context);
        if frame.is_pending()
            && let Some(standing) = standing
            && let Poll::Ready(refusal) = standing.poll_lost(context)
        {
            return Poll::Ready(Some(this.cut_off(refusal)));
        }
        frame
    }

    /// A body that has begun is asked for its end, for which the caller must have taken what was
    /// before: so the call lasts as long as the server holds its answer.
    fn is_end_stream(&self) -> bool {
        self.state == State::Whole && self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
