//! The calls of a witness as they look on the wire: status, type and body of each.

use std::{path::Path, sync::Arc};

use access_ledger_proto::{
    checkpoint::Checkpoint,
    hash::Digest,
    note::{KeyType, Signer},
    position::Size,
    witness::{AddCheckpoint, SIZE_TYPE, origin_hex},
};
use axum::http::Request;
use futures_util::stream;
use tempfile::TempDir;
use tower::ServiceExt as _;

use super::*;
use crate::{
    folder::{Genesis, real_disk},
    ledger::{Ledger, LedgerOptions},
    os::{Clock, SystemClock},
    witness::{Keys, WitnessedLog},
};

/// The pages of a ledger that is a witness as well: it witnesses itself, and another log.
struct Bench {
    pages: Router,
    ledger: Ledger,
    other: Signer,
    _folder: TempDir,
}

const ORIGIN: &str = "ledger.example/pages";

impl Bench {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (disk, clock): (_, Arc<dyn Clock>) = (real_disk(), Arc::new(SystemClock));
        let options = LedgerOptions::new(folder.path().join("ledger"));
        let key = Ledger::init(&options, &disk, &clock, &Genesis::new(ORIGIN)).unwrap();
        let ledger = Ledger::open(&options, &disk, &clock, None).unwrap();
        let book = ledger.shared().book.clone();
        let other = Signer::new("other.example", KeyType::Ed25519, [1; 32]).unwrap();
        let holding =
            Some(Arc::new(crate::witness::Holding::new(book.reader.clone(), book.tree.clone())));
        let logs = vec![
            WitnessedLog { key, told: Vec::new(), holding },
            WitnessedLog::other(other.verifier().clone()),
        ];
        let cosigner = |name, seed| Signer::new(name, KeyType::CosignatureV1, [seed; 32]).unwrap();
        let keys = Keys { witness: cosigner("w.example", 2), mirror: cosigner("m.example", 3) };
        let place: &Path = &folder.path().join("witness");
        let witness = Witness::open(disk, clock, place, keys, logs).unwrap();
        let pages = pages(book, Some(Arc::new(witness)), Reads::off());
        Self { pages, ledger, other, _folder: folder }
    }

    async fn call(&self, method: &str, path: &str, body: impl Into<Body>) -> Told {
        let mut request = Request::builder().method(method).uri(path).body(body.into()).unwrap();
        // As the guard puts it there.
        request.extensions_mut().insert(Caller::with_roles("monitor", &["audit", "custody"]));
        let answer = self.pages.clone().oneshot(request).await.unwrap();
        let header = |name| {
            let value: Option<&HeaderValue> = answer.headers().get(name);
            value.map(|value| value.to_str().unwrap().to_owned()).unwrap_or_default()
        };
        let (status, content_type) = (answer.status().as_u16(), header(header::CONTENT_TYPE));
        let is_open = !header(header::ACCESS_CONTROL_ALLOW_ORIGIN).is_empty();
        let body = axum::body::to_bytes(answer.into_body(), usize::MAX).await.unwrap();
        Told { status, content_type, is_open, body: String::from_utf8_lossy(&body).into() }
    }

    async fn add(&self, old: u64, proof: Vec<Digest>, note: &str) -> Told {
        let add = AddCheckpoint { old: Size(old), proof, note: note.as_bytes() };
        self.call("POST", "/add-checkpoint", add.to_bytes()).await
    }

    /// A checkpoint of the other log, of one leaf.
    fn note(&self, size: u64, leaf: u8) -> String {
        let root = Digest::from_bytes([leaf; 32]);
        Checkpoint::new("other.example", Size(size), root).unwrap().sign(&self.other).unwrap()
    }
}

#[derive(Debug)]
struct Told {
    status: u16,
    content_type: String,
    is_open: bool,
    body: String,
}

#[tokio::test]
async fn each_answer_of_add_checkpoint_has_its_status_type_and_body() {
    let bench = Bench::new();
    let good = bench.add(0, Vec::new(), &bench.note(1, 7)).await;
    assert_eq!((good.status, good.content_type.as_str()), (200, answer::TEXT));
    assert!(good.body.starts_with("\u{2014} w.example ") && good.body.ends_with('\n'));
    assert_eq!(good.body.lines().count(), 1);

    let conflict = bench.add(0, Vec::new(), &bench.note(5, 7)).await;
    assert_eq!((conflict.status, conflict.content_type.as_str()), (409, SIZE_TYPE));
    assert_eq!(conflict.body, "1\n");
    let forged = bench.note(5, 7).replace("\n5\n", "\n6\n");
    let unknown = bench.note(5, 7).replace("other.example", "third.example");
    for (old, proof, note, status) in [
        (1, vec![Digest::ZERO; 64], bench.note(5, 7), 400),
        (1, Vec::new(), "no note".to_owned(), 400),
        (6, Vec::new(), bench.note(5, 7), 400),
        (1, Vec::new(), forged, 403),
        (1, Vec::new(), unknown, 404),
        (1, Vec::new(), bench.note(5, 7), 422),
        (1, Vec::new(), bench.note(1, 8), 422),
    ] {
        let refused = bench.add(old, proof, &note).await;
        assert_eq!((refused.status, refused.content_type.as_str()), (status, answer::TEXT));
        assert!(refused.body.len() > 10 && refused.body.ends_with('\n'), "{refused:?}");
        // Another site's page may not send checkpoints.
        assert!(!refused.is_open);
    }
    assert_eq!(bench.call("GET", "/add-checkpoint", "").await.status, 405);
    let again = bench.add(1, Vec::new(), &bench.note(1, 7)).await;
    assert_eq!(again.status, 200);
}

#[tokio::test]
async fn a_monitor_reads_what_was_cosigned_last_of_each_log() {
    let bench = Bench::new();
    let other = format!("/{}/checkpoint", origin_hex("other.example"));
    for path in [other.as_str(), "/0/checkpoint", "/checkpoint/checkpoint"] {
        assert_eq!(bench.call("GET", path, "").await.status, 404, "{path}");
    }
    let lines = bench.add(0, Vec::new(), &bench.note(1, 7)).await.body;
    let read = bench.call("GET", &other, "").await;
    assert_eq!((read.status, read.content_type.as_str()), (200, answer::TEXT));
    assert_eq!(read.body, bench.note(1, 7) + &lines);
    assert!(read.is_open);
    let upper = format!("/{}/checkpoint", origin_hex("other.example").to_uppercase());
    assert_eq!(bench.call("GET", &upper, "").await.status, 404);
}

#[tokio::test]
async fn the_log_that_is_followed_is_mirrored_below_its_own_name() {
    let bench = Bench::new();
    let published = bench.ledger.shared().book.published();
    let note = String::from_utf8(published.note.to_vec()).unwrap();
    let lines = bench.add(0, Vec::new(), &note).await.body;
    assert_eq!(lines.lines().count(), 2);
    let below = format!("/{}", origin_hex(ORIGIN));
    let read = bench.call("GET", &format!("{below}/checkpoint"), "").await;
    assert_eq!(read.body, note + &lines);
    for tile in ["/tile/0/000.p/1", "/tile/entries/000.p/1"] {
        let (own, mirrored) = (
            bench.call("GET", tile, "").await,
            bench.call("GET", &format!("{below}{tile}"), "").await,
        );
        assert_eq!((own.status, mirrored.status), (200, 200));
        assert_eq!(own.body, mirrored.body);
        let foreign = format!("/{}{tile}", origin_hex("other.example"));
        assert_eq!(bench.call("GET", &foreign, "").await.status, 404);
    }
}

#[tokio::test]
async fn bodies_are_bounded_in_length_and_time() {
    let bench = Bench::new();
    let long = vec![b'x'; AddCheckpoint::LEN_MAX + 1];
    assert_eq!(bench.call("POST", "/add-checkpoint", long).await.status, 413);
    let most = vec![b'x'; AddCheckpoint::LEN_MAX];
    assert_eq!(bench.call("POST", "/add-checkpoint", most).await.status, 400);
    // Without an end: nobody knows the length before.
    let endless = Body::from_stream(stream::repeat_with(|| {
        std::io::Result::Ok(Bytes::from_static(&[b'x'; 1_024]))
    }));
    assert_eq!(bench.call("POST", "/add-checkpoint", endless).await.status, 413);
    let broken = Body::from_stream(stream::iter([Err::<Bytes, _>(std::io::Error::other("cut"))]));
    assert_eq!(bench.call("POST", "/add-checkpoint", broken).await.status, 400);
    let silent = Body::from_stream(stream::pending::<std::io::Result<Bytes>>());
    let refused = add::read_body(silent, Duration::from_millis(1)).await.unwrap_err();
    assert_eq!(refused.refusal().status(), 408);
}
