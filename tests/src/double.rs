//! A double of a witness: over HTTP like a real one, with a memory of its own, and with manners that
//! a real one should not have.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use access_ledger_proto::{
    checkpoint::{Checkpoint, VerifiedCheckpoint},
    hash::Digest,
    note::{KeyType, Signer, VerifierKey},
    position::Size,
    proof::verify_consistency,
    witness::{AddCheckpoint, SIZE_TYPE, origin_hex},
};
use anyhow::ensure;
use axum::{
    Router,
    body::Bytes,
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use tokio::{
    net::TcpListener,
    sync::watch,
    task::JoinHandle,
    time::{Instant, sleep},
};

/// How a double answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Manner {
    /// As the specification asks.
    Honest,
    /// Not at all, until it changes.
    Mute,
    /// With this status.
    Refusing(u16),
    /// With bytes that are no signature.
    Garbage,
    /// With more bytes than any answer has.
    Endless,
    /// With a cosignature of which one digit is another.
    Forging,
    /// With a cosignature on another checkpoint.
    Misplacing,
    /// With the cosignature of a key that nobody knows.
    Unknown,
    /// With a conflict whose size never fits.
    Conflicting,
}

/// A witness of one ledger, served on loopback until it is dropped.
pub struct Double {
    /// Where it is.
    pub address: SocketAddr,
    memory: Arc<Memory>,
    serving: JoinHandle<()>,
}

struct Memory {
    ledger: VerifierKey,
    keys: Vec<Signer>,
    manner: watch::Sender<Manner>,
    seen: Mutex<Seen>,
}

#[derive(Default)]
struct Seen {
    newest: Option<VerifiedCheckpoint>,
    /// The note with the cosignatures.
    cosigned: Option<String>,
    calls: u64,
}

impl Double {
    /// A double with these keys for the ledger of this key, with honest manners.
    ///
    /// # Errors
    ///
    /// When no port is free.
    pub async fn start(ledger: &VerifierKey, keys: Vec<Signer>) -> anyhow::Result<Self> {
        let listener = TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0))).await?;
        let address = listener.local_addr()?;
        let manner = watch::Sender::new(Manner::Honest);
        let memory = Memory { ledger: ledger.clone(), keys, manner, seen: Mutex::default() };
        let memory = Arc::new(memory);
        let app = Router::new()
            .route("/add-checkpoint", post(add_checkpoint))
            .route(&format!("/{}/checkpoint", origin_hex(ledger.name())), get(newest))
            .with_state(memory.clone());
        let serving = tokio::spawn(async move {
            // It ends with the test.
            drop(axum::serve(listener, app).await);
        });
        Ok(Self { address, memory, serving })
    }

    /// Changes how it answers, also those who wait.
    pub fn set(&self, manner: Manner) {
        self.memory.manner.send_replace(manner);
    }

    /// How often it was asked to cosign.
    #[must_use]
    pub fn calls(&self) -> u64 {
        self.memory.seen().calls
    }

    /// The size that it has cosigned last; 0 for none.
    #[must_use]
    pub fn size(&self) -> Size {
        self.memory.seen().newest.as_ref().map_or(Size::ZERO, VerifiedCheckpoint::size)
    }

    /// Waits until it has cosigned this size, or a larger one.
    ///
    /// # Errors
    ///
    /// When it takes longer than any test waits.
    pub async fn reaches(&self, size: Size) -> anyhow::Result<()> {
        let what = format!("cosigned {}, wanted {size}", self.size());
        until(&what, async || Ok(self.size() >= size)).await
    }

    /// Cosigns a note of its own accord.
    ///
    /// # Errors
    ///
    /// When the ledger has not signed it.
    pub fn cosign(&self, note: &[u8]) -> anyhow::Result<()> {
        let checkpoint = VerifiedCheckpoint::open(note, &self.memory.ledger, &[])?;
        self.memory.cosign(checkpoint)?;
        Ok(())
    }

    /// The lines of a policy that name its keys at its address: `<name>1`, `<name>2` and so on.
    #[must_use]
    pub fn policy_lines(&self, name: &str) -> String {
        let line = |(key, at): (&Signer, u32)| {
            format!("witness {name}{at} {} http://{}/\n", key.verifier(), self.address)
        };
        self.memory.keys.iter().zip(1..).map(line).collect()
    }
}

impl Drop for Double {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

/// Waits for a condition, which is looked at again and again.
///
/// # Errors
///
/// When it takes longer than any test waits.
pub async fn until(
    what: &str,
    holds: impl AsyncFn() -> anyhow::Result<bool>,
) -> anyhow::Result<()> {
    let limit = Instant::now() + PATIENCE;
    while !holds().await? {
        ensure!(Instant::now() < limit, "waited in vain: {what}");
        sleep(POLL).await;
    }
    Ok(())
}

/// A key that cosigns.
///
/// # Errors
///
/// For a name that no key has.
pub fn cosigner(name: &str, seed: u8) -> anyhow::Result<Signer> {
    Ok(Signer::new(name, KeyType::CosignatureV1, [seed; 32])?)
}

impl Memory {
    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The lines of all keys, which are kept with the checkpoint.
    fn cosign(&self, checkpoint: VerifiedCheckpoint) -> anyhow::Result<String> {
        let lines = self.keys.iter().map(|key| checkpoint.cosign(key, TIME_S));
        let lines = lines.collect::<Result<String, _>>()?;
        let mut seen = self.seen();
        seen.cosigned = Some(format!("{}{lines}", checkpoint.note()));
        seen.newest = Some(checkpoint);
        Ok(lines)
    }

    /// What the specification asks for.
    fn judge(&self, body: &[u8]) -> anyhow::Result<Response> {
        let Ok(add) = AddCheckpoint::parse(body) else {
            return Ok(StatusCode::BAD_REQUEST.into_response());
        };
        let Ok(checkpoint) = VerifiedCheckpoint::open(add.note, &self.ledger, &[]) else {
            return Ok(StatusCode::FORBIDDEN.into_response());
        };
        let newest = self.seen().newest.clone();
        let held = newest.as_ref().map_or(Size::ZERO, VerifiedCheckpoint::size);
        if add.old > checkpoint.size() {
            return Ok(StatusCode::BAD_REQUEST.into_response());
        }
        if add.old != held {
            return Ok(conflict(held.0));
        }
        let is_consistent = newest.is_none_or(|newest| {
            let (old, new) = (newest.size(), checkpoint.size());
            verify_consistency(old, new, newest.root(), checkpoint.root(), &add.proof).is_ok()
        });
        if !is_consistent {
            return Ok(StatusCode::UNPROCESSABLE_ENTITY.into_response());
        }
        Ok(self.cosign(checkpoint)?.into_response())
    }

    /// What a double of such manners answers.
    fn misbehave(&self, manner: Manner, body: &[u8]) -> anyhow::Result<Response> {
        let cosign = |signer: &Signer, note: &[u8]| -> anyhow::Result<String> {
            let checkpoint = VerifiedCheckpoint::open(note, &self.ledger, &[])?;
            Ok(checkpoint.cosign(signer, TIME_S)?)
        };
        let note = AddCheckpoint::parse(body)?.note;
        Ok(match manner {
            Manner::Honest | Manner::Mute => return self.judge(body),
            Manner::Refusing(status) => StatusCode::from_u16(status)?.into_response(),
            Manner::Garbage => "\u{2014} no signature\n\n\u{2014} at all".into_response(),
            Manner::Endless => vec![b'x'; 1 << 20].into_response(),
            Manner::Unknown => cosign(&cosigner("stranger", 99)?, note)?.into_response(),
            Manner::Conflicting => conflict(u64::MAX),
            Manner::Misplacing => {
                let other = Signer::new(self.ledger.name(), KeyType::Ed25519, [77; 32])?;
                let text = Checkpoint::new(self.ledger.name(), Size(1 << 40), Digest::ZERO)?;
                let elsewhere = text.sign(&other)?;
                let elsewhere =
                    VerifiedCheckpoint::open(elsewhere.as_bytes(), other.verifier(), &[])?;
                let lines = self.keys.iter().map(|key| elsewhere.cosign(key, TIME_S));
                lines.collect::<Result<String, _>>()?.into_response()
            }
            Manner::Forging => {
                let lines = self.keys.iter().map(|key| {
                    let line = cosign(key, note)?;
                    // Before the last digits, so that the base64 stays canonical.
                    let at = line.len() - 6;
                    let other = if line.as_bytes().get(at) == Some(&b'A') { "B" } else { "A" };
                    let (before, after) = (line.get(..at), line.get(at + 1..));
                    Ok([before.unwrap_or_default(), other, after.unwrap_or_default()].concat())
                });
                lines.collect::<anyhow::Result<String>>()?.into_response()
            }
        })
    }
}

fn conflict(size: u64) -> Response {
    let size_type = [(header::CONTENT_TYPE, SIZE_TYPE)];
    (StatusCode::CONFLICT, size_type, format!("{size}\n")).into_response()
}

async fn add_checkpoint(State(memory): State<Arc<Memory>>, body: Bytes) -> Response {
    memory.seen().calls += 1;
    let mut manner = memory.manner.subscribe();
    let manner = match manner.wait_for(|manner| *manner != Manner::Mute).await {
        Ok(manner) => *manner,
        Err(_) => return StatusCode::SERVICE_UNAVAILABLE.into_response(),
    };
    let answer = memory.misbehave(manner, &body);
    answer.unwrap_or_else(|_| StatusCode::INTERNAL_SERVER_ERROR.into_response())
}

async fn newest(State(memory): State<Arc<Memory>>) -> Response {
    match memory.seen().cosigned.clone() {
        Some(note) => note.into_response(),
        None => StatusCode::NOT_FOUND.into_response(),
    }
}

/// When a double cosigns: seconds since the Unix epoch.
const TIME_S: u64 = 1_790_000_000;

/// Far more than anything takes that is waited for.
const PATIENCE: Duration = Duration::from_secs(60);

const POLL: Duration = Duration::from_millis(5);
