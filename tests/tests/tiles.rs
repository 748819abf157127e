//! The log over HTTP is the log: tiles and bundles of any width at any size are what pure code
//! computes from the entries, and whoever reads nothing else can verify the checkpoint.

use std::{collections::BTreeMap, io::Read as _, net::SocketAddr};

use access_ledger_proto::{
    hash::{Digest, leaf_hash},
    position::count_of,
    tree::root_of,
    wire,
};
use access_ledger_tests::{
    node::{Clients, Node},
    pages::{self, Answer, tile_path},
};
use anyhow::Context as _;
use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use tonic::codegen::{Service as _, http};

/// What a log of these entries serves, by path, at each level: the hashes, or the entries behind
/// their lengths.
struct Expected {
    levels: BTreeMap<String, Vec<Vec<u8>>>,
}

impl Expected {
    fn of(entries: &[Vec<u8>]) -> Self {
        let framed = |entry: &Vec<u8>| {
            let [.., high, low] = count_of(entry.len()).to_be_bytes();
            [&[high, low], &entry[..]].concat()
        };
        let mut levels =
            BTreeMap::from([("entries".to_owned(), entries.iter().map(framed).collect())]);
        let mut hashes: Vec<Digest> = entries.iter().map(|entry| leaf_hash(entry)).collect();
        for level in 0.. {
            let bytes = hashes.iter().map(|hash| hash.as_bytes().to_vec()).collect();
            levels.insert(level.to_string(), bytes);
            if hashes.is_empty() {
                break;
            }
            hashes = hashes.chunks_exact(256).map(root_of).collect();
        }
        Self { levels }
    }

    /// The first `width` parts of a tile; `None` if there are fewer.
    fn tile(&self, level: &str, number: usize, width: usize) -> Option<Vec<u8>> {
        let first = number * 256;
        Some(self.levels.get(level)?.get(first..first + width)?.concat())
    }
}

/// All entries, over gRPC.
async fn entries(clients: &Clients) -> anyhow::Result<Vec<Vec<u8>>> {
    let request = wire::ReadEntriesRequest::default();
    let mut runs = clients.auditor.clone().read_entries(request).await?.into_inner();
    let mut entries = Vec::new();
    while let Some(answer) = runs.message().await? {
        entries.extend(answer.run.into_iter().flat_map(|run| run.entries).map(Vec::from));
    }
    Ok(entries)
}

fn unzipped(answer: &Answer) -> anyhow::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    flate2::read::GzDecoder::new(&answer.body[..]).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Compares every tile of every level, at some widths, with what is expected.
async fn compare(
    address: SocketAddr,
    expected: &Expected,
    random: &mut ChaCha8Rng,
) -> anyhow::Result<()> {
    for (level, parts) in &expected.levels {
        for number in 0..=parts.len() / 256 {
            let rest = parts.len() - number * 256;
            let widths = [256, rest.min(255), rest + 1, random.random_range(1..256)];
            for width in widths.into_iter().filter(|width| (1..=256).contains(width)) {
                let path = tile_path(level, number, width);
                let zip = if random.random_bool(0.5) { "gzip" } else { "br" };
                let answer = pages::get(address, &path, &[("accept-encoding", zip)]).await?;
                match expected.tile(level, number, width) {
                    Some(bytes) => {
                        let zipped = level == "entries" && zip == "gzip";
                        let encoding = answer.header("content-encoding");
                        assert_eq!(answer.status, 200, "{path}");
                        assert_eq!(encoding, zipped.then_some("gzip"), "{path}");
                        let body = if zipped { unzipped(&answer)? } else { answer.body };
                        assert!(body == bytes, "{path}");
                    }
                    None => assert_eq!(answer.status, 404, "{path}"),
                }
            }
        }
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn every_tile_and_bundle_at_any_size_is_what_the_entries_give() -> anyhow::Result<()> {
    let mut random = ChaCha8Rng::seed_from_u64(SEED);
    let folder = tempfile::tempdir()?;
    let node = Node::start(folder.path()).await?;
    let clients = node.clients();
    let mut source = clients.enrolled("payments", 1, &node.vkey).await?;
    for _ in 0..8 {
        let entries = entries(&clients).await?;
        compare(node.address, &Expected::of(&entries), &mut random).await?;
        // Now and then exactly up to the end of a tile.
        let to_full = 256 - entries.len() % 256;
        let count = if random.random_bool(0.3) { to_full } else { random.random_range(1..300) };
        clients.record(&source.record(count)?).await?;
    }
    node.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_of_three_levels_is_rebuilt_from_http_alone() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let node = Node::start(folder.path()).await?;
    let clients = node.clients();
    let mut source = clients.enrolled("payments", 1, &node.vkey).await?;
    for _ in 0..17 {
        clients.record(&source.record(4_096)?).await?;
    }
    let entries = pages::read_log(node.address, "", &node.vkey).await?;
    assert_eq!(entries.len(), 2 + 17 * 4_096);
    let expected = Expected::of(&entries);
    for (level, number, width) in [("2", 0, 1), ("1", 0, 256), ("1", 1, 16), ("0", 271, 256)] {
        let answer = pages::get(node.address, &tile_path(level, number, width), &[]).await?;
        assert_eq!(Some(answer.body), expected.tile(level, number, width), "{level}/{number}");
    }
    for beyond in ["/tile/2/000", "/tile/2/000.p/2", "/tile/3/000.p/1", "/tile/63/000.p/1"] {
        assert_eq!(pages::get(node.address, beyond, &[]).await?.status, 404, "{beyond}");
    }
    node.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_byte_on_disk_does_not_verify_over_http() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let node = Node::start(folder.path()).await?;
    let clients = node.clients();
    let mut source = clients.enrolled("payments", 1, &node.vkey).await?;
    clients.record(&source.record(300)?).await?;
    pages::read_log(node.address, "", &node.vkey).await?;
    let tree = folder.path().join("tree/0");
    let mut hashes = std::fs::read(&tree)?;
    hashes[7 * 32] ^= 1;
    #[expect(clippy::disallowed_methods, reason = "the operator does not care for syncs")]
    std::fs::write(&tree, hashes)?;
    assert!(pages::read_log(node.address, "", &node.vkey).await.is_err());
    node.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn each_page_has_its_type_and_cache_headers() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let node = Node::start(folder.path()).await?;
    let clients = node.clients();
    let mut source = clients.enrolled("payments", 1, &node.vkey).await?;
    clients.record(&source.record(300)?).await?;
    let get = async |path: &str| pages::get(node.address, path, &[]).await;

    for (path, content_type, cache) in [
        ("/checkpoint", "text/plain; charset=utf-8", "no-cache"),
        ("/tile/0/000", "application/octet-stream", IMMUTABLE),
        ("/tile/0/001.p/46", "application/octet-stream", IMMUTABLE),
        ("/tile/entries/001.p/3", "application/octet-stream", IMMUTABLE),
    ] {
        let answer = get(path).await?;
        assert_eq!(answer.status, 200, "{path}");
        assert_eq!(answer.header("content-type"), Some(content_type), "{path}");
        assert_eq!(answer.header("cache-control"), Some(cache), "{path}");
        assert_eq!(answer.header("access-control-allow-origin"), Some("*"), "{path}");
        assert_eq!(answer.header("x-content-type-options"), Some("nosniff"), "{path}");
        let head = pages::call(node.address, "HEAD", path, &[], b"").await?;
        assert_eq!((head.status, head.body.len()), (200, 0), "{path}");
        let length = answer.body.len().to_string();
        assert_eq!(head.header("content-length"), Some(length.as_str()), "{path}");

        let tag = answer.header("etag").context("no tag")?;
        assert_eq!(head.header("etag"), Some(tag), "{path}");
        let known = pages::get(node.address, path, &[("if-none-match", tag)]).await?;
        assert_eq!((known.status, known.body.len()), (304, 0), "{path}");
        assert_eq!(known.header("cache-control"), Some(cache), "{path}");
        let other = pages::get(node.address, path, &[("if-none-match", "\"x\"")]).await?;
        assert_eq!(other.body, answer.body, "{path}");
        let asked = pages::call(node.address, "OPTIONS", path, &[], b"").await?;
        assert_eq!(asked.status, 204, "{path}");
        assert_eq!(asked.header("access-control-allow-methods"), Some("GET, HEAD"), "{path}");
    }
    // The tag of the checkpoint is another one as soon as the checkpoint is.
    let before = get("/checkpoint").await?;
    clients.record(&source.record(1)?).await?;
    let tag = before.header("etag").context("no tag")?;
    let after = pages::get(node.address, "/checkpoint", &[("if-none-match", tag)]).await?;
    assert_eq!(after.status, 200);
    assert_eq!(
        clients
            .auditor
            .clone()
            .get_checkpoint(wire::GetCheckpointRequest::default())
            .await?
            .into_inner()
            .checkpoint,
        after.body
    );
    node.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_there_is_refused_and_not_cached() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let node = Node::start(folder.path()).await?;
    for (path, status) in [
        ("/tile/0/000", 404),
        ("/tile/0/000.p/2", 404),
        ("/tile/9/000.p/1", 404),
        ("/tile/entries/x999/999.p/255", 404),
        ("/tile/64/000", 400),
        ("/tile/0/0", 400),
        ("/tile/0/x000/000", 400),
        ("/tile/0/000.p/0", 400),
        ("/tile/0/000.p/256", 400),
        ("/tile/0/000%2ep/1", 400),
        ("/tile/0/..%2f..%2fmeta.toml", 400),
        ("/tile/0/../../meta.toml", 400),
        ("/tile/", 404),
        ("/", 404),
        ("/checkpoint/", 404),
        ("/keys/ledger.key", 404),
        // A ledger is no witness.
        (&format!("/{}/checkpoint", "0".repeat(64)), 404),
        // A browser cannot append: gRPC is HTTP/2.
        ("/access_ledger.v1.AuditService/GetCheckpoint", 404),
    ] {
        let answer = pages::get(node.address, path, &[]).await?;
        assert_eq!(answer.status, status, "{path}: {}", answer.text());
        assert_eq!(answer.header("cache-control"), Some("no-cache"), "{path}");
    }
    for (path, status) in [("/checkpoint", 405), ("/tile/0/000", 405), ("/add-checkpoint", 404)] {
        assert_eq!(pages::post(node.address, path, b"x").await?.status, status, "{path}");
    }
    let grpc = [("content-type", "application/grpc"), ("te", "trailers"), ("content-length", "5")];
    let path = "/access_ledger.v1.AuditService/GetCheckpoint";
    let answer = pages::call(node.address, "POST", path, &grpc, &[0; 5]).await?;
    assert_eq!(answer.status, 404);
    node.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_and_calls_share_a_connection_over_http_2() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let node = Node::start(folder.path()).await?;
    let clients = node.clients();
    let note =
        clients.auditor.clone().get_checkpoint(wire::GetCheckpointRequest::default()).await?;
    let mut channel = clients.channel.clone();
    std::future::poll_fn(|context| channel.poll_ready(context)).await?;
    let request = http::Request::get("/checkpoint").body(tonic::body::Body::empty())?;
    let answer = channel.call(request).await?;
    assert_eq!((answer.status().as_u16(), answer.version()), (200, http::Version::HTTP_2));
    assert_eq!(answer.headers()["content-length"], note.into_inner().checkpoint.len().to_string());
    drop((channel, clients));
    node.stop().await
}

/// Another one gives other sizes and widths.
const SEED: u64 = 1;

const IMMUTABLE: &str = "public, max-age=31536000, immutable";
