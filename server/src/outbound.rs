//! The calls that the server itself makes over HTTP: to witnesses, custodians and webhooks.
//!
//! Whoever is at the other end may be down, slow, or hostile: every call has a deadline, an answer
//! has a greatest length, and nobody is redirected elsewhere.

use std::time::Duration;

use access_ledger_client::connect::Credentials;
use bytes::Bytes;
use reqwest::{
    Certificate, Client, Identity, RequestBuilder, Url, header::CONTENT_TYPE, redirect::Policy,
};
use thiserror::Error;
use tonic::codegen::http;
use zeroize::Zeroizing;

/// A call had no answer.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum OutboundError {
    /// The system's certificates, or those of the credentials, cannot be used.
    #[error("cannot make calls over HTTP: {problem}")]
    Setup {
        /// What is wrong.
        problem: String,
    },
    /// Nobody answered in time, or not in HTTP.
    #[error("no answer from {origin}: {problem}")]
    Unanswered {
        /// Who was called.
        origin: String,
        /// What the network said.
        problem: String,
    },
    /// More bytes than any lawful answer has.
    #[error("answer from {origin} is longer than {most} bytes")]
    TooLong {
        /// Who was called.
        origin: String,
        /// What is read at most.
        most: usize,
    },
}

/// An answer, of any status.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    /// HTTP status.
    pub(crate) status: u16,
    /// At most [`ANSWER_BYTES_MAX`].
    pub(crate) body: Bytes,
}

/// Makes calls. Connections are kept, and shared between clones.
#[derive(Clone, Debug)]
pub(crate) struct Outbound {
    client: Client,
}

impl Outbound {
    /// For addresses that begin with `https`: with the authorities that the system trusts and those
    /// of the credentials, showing the certificate of these, but not the token, which whoever is
    /// called could use elsewhere.
    ///
    /// # Errors
    ///
    /// [`OutboundError::Setup`].
    pub(crate) fn new(credentials: &Credentials) -> Result<Self, OutboundError> {
        let setup = |error: reqwest::Error| OutboundError::Setup { problem: told(&error) };
        // Another part of the process may have chosen already: either choice is good.
        let _chosen = rustls::crypto::ring::default_provider().install_default();
        let mut client = Client::builder()
            .timeout(CALL_TIMEOUT)
            .connect_timeout(CONNECT_TIMEOUT)
            .redirect(Policy::none())
            // The operator's flags say whom to call; no environment variable does.
            .no_proxy()
            .user_agent(concat!("access-ledger-server/", env!("CARGO_PKG_VERSION")));
        if let Some(pem) = credentials.ca_pem() {
            client = client.tls_certs_merge(Certificate::from_pem_bundle(pem).map_err(setup)?);
        }
        if let Some((certificate, key)) = credentials.identity_pem() {
            let both = Zeroizing::new([key, b"\n", certificate].concat());
            client = client.identity(Identity::from_pem(&both).map_err(setup)?);
        }
        Ok(Self { client: client.build().map_err(setup)? })
    }

    /// Reads what is at `url`.
    ///
    /// # Errors
    ///
    /// [`OutboundError::Unanswered`], [`OutboundError::TooLong`].
    pub(crate) async fn get(&self, url: &str) -> Result<Answer, OutboundError> {
        call(url, self.client.get(url)).await
    }

    /// Sends `body` to `url`.
    ///
    /// # Errors
    ///
    /// As [`Outbound::get`].
    pub(crate) async fn post(
        &self,
        url: &str,
        content_type: &str,
        body: impl Into<Bytes>,
    ) -> Result<Answer, OutboundError> {
        let request = self.client.post(url).header(CONTENT_TYPE, content_type);
        call(url, request.body(body.into())).await
    }

    /// Makes a call that another library has put together.
    ///
    /// # Errors
    ///
    /// As [`Outbound::get`].
    pub(crate) async fn send(
        &self,
        request: http::Request<Bytes>,
    ) -> Result<Answer, OutboundError> {
        let url = request.uri().to_string();
        let request = reqwest::Request::try_from(request)
            .map_err(|error| OutboundError::Setup { problem: told(&error) })?;
        call(&url, RequestBuilder::from_parts(self.client.clone(), request)).await
    }
}

async fn call(url: &str, request: RequestBuilder) -> Result<Answer, OutboundError> {
    let unanswered = |error: reqwest::Error| OutboundError::Unanswered {
        origin: origin(url),
        problem: told(&error.without_url()),
    };
    let mut response = request.send().await.map_err(unanswered)?;
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(unanswered)? {
        if body.len() + chunk.len() > ANSWER_BYTES_MAX {
            return Err(OutboundError::TooLong { origin: origin(url), most: ANSWER_BYTES_MAX });
        }
        body.extend_from_slice(&chunk);
    }
    Ok(Answer { status: response.status().as_u16(), body: body.into() })
}

/// Scheme, host and port: the rest of an address may be a secret, as those of many webhooks are.
fn origin(url: &str) -> String {
    Url::parse(url)
        .map_or_else(|_| "no address".to_owned(), |url| url.origin().ascii_serialization())
}

/// An error with its causes, in one line.
fn told(error: &dyn std::error::Error) -> String {
    let mut told = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        told = format!("{told}: {error}");
        cause = error.source();
    }
    told
}

/// A note with as many signatures as are read has a tenth of it.
pub(crate) const ANSWER_BYTES_MAX: usize = 64 << 10;

/// A custodian answers once it holds what it is asked about: up to 10 s.
const CALL_TIMEOUT: Duration = Duration::from_secs(15);

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
