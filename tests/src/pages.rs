//! HTTP/1.1 as it lies on the wire: enough of a client to see every header and byte, and to send
//! what no client would.

use std::net::SocketAddr;

use access_ledger_proto::{
    checkpoint::VerifiedCheckpoint,
    entry::Entry,
    hash::{Digest, leaf_hash},
    note::VerifierKey,
    position::count_of,
    tree::root_of,
};
use anyhow::{Context as _, ensure};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

/// What came back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The status code.
    pub status: u16,
    /// Names in lower case, in the order in which they came.
    pub headers: Vec<(String, String)>,
    /// All that follows the headers.
    pub body: Vec<u8>,
}

impl Answer {
    /// The value of a header.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(found, _)| found == name);
        found.map(|(_, value)| value.as_str())
    }

    /// The body as text.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    fn parse(bytes: &[u8]) -> anyhow::Result<Self> {
        let end = bytes.windows(4).position(|window| window == b"\r\n\r\n");
        let (head, body) = bytes.split_at(end.context("no whole head")?);
        let head = std::str::from_utf8(head)?;
        let mut lines = head.split("\r\n");
        let status = lines.next().and_then(|line| line.split(' ').nth(1)).context("no status")?;
        let header = |line: &str| {
            let (name, value) = line.split_once(':').context("no header")?;
            anyhow::Ok((name.to_ascii_lowercase(), value.trim().to_owned()))
        };
        let headers = lines.map(header).collect::<Result<_, _>>()?;
        let body = body.get(4..).unwrap_or_default().to_vec();
        Ok(Self { status: status.parse()?, headers, body })
    }
}

/// Reads a page with these headers.
///
/// # Errors
///
/// When the connection breaks, or what comes back is no HTTP.
pub async fn get(
    address: SocketAddr,
    path: &str,
    headers: &[(&str, &str)],
) -> anyhow::Result<Answer> {
    call(address, "GET", path, headers, b"").await
}

/// Sends a body.
///
/// # Errors
///
/// As [`get`].
pub async fn post(address: SocketAddr, path: &str, body: &[u8]) -> anyhow::Result<Answer> {
    let length = body.len().to_string();
    call(address, "POST", path, &[("content-length", &length)], body).await
}

/// Makes one call on a connection of its own.
///
/// # Errors
///
/// As [`get`]; when the body is shorter than it says.
pub async fn call(
    address: SocketAddr,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> anyhow::Result<Answer> {
    let mut head = format!("{method} {path} HTTP/1.1\r\nhost: ledger\r\nconnection: close\r\n");
    for (name, value) in headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    let sent = [head.as_bytes(), b"\r\n", body].concat();
    let answer = Answer::parse(&exchange(address, &sent).await?)?;
    if method != "HEAD"
        && let Some(length) = answer.header("content-length")
    {
        ensure!(length.parse() == Ok(answer.body.len()), "the body is not {length} bytes long");
    }
    Ok(answer)
}

/// Sends bytes as they are; gives all that comes back until the server closes the connection.
///
/// # Errors
///
/// When the connection breaks.
pub async fn exchange(address: SocketAddr, bytes: &[u8]) -> anyhow::Result<Vec<u8>> {
    let mut connection = TcpStream::connect(address).await?;
    connection.write_all(bytes).await?;
    let mut answer = Vec::new();
    connection.read_to_end(&mut answer).await?;
    Ok(answer)
}

/// The path of a tile (`kind` is its level) or of an entry bundle, whole at a width of 256. For
/// numbers below 1,000,000.
#[must_use]
pub fn tile_path(kind: &str, number: usize, width: usize) -> String {
    let number = match number {
        0..1_000 => format!("{number:03}"),
        _ => format!("x{:03}/{:03}", number / 1_000, number % 1_000),
    };
    let partial = if width == 256 { String::new() } else { format!(".p/{width}") };
    format!("/tile/{kind}/{number}{partial}")
}

/// Reads a log with nothing but HTTP, below `prefix`, and verifies it as far as that goes: chain,
/// tiles, and the root that the ledger signed. Its entries.
///
/// # Errors
///
/// When something does not hold.
pub async fn read_log(
    address: SocketAddr,
    prefix: &str,
    vkey: &VerifierKey,
) -> anyhow::Result<Vec<Vec<u8>>> {
    let page = async |path: &str| {
        let answer = get(address, &format!("{prefix}{path}"), &[]).await?;
        ensure!(answer.status == 200, "{path}: {} {}", answer.status, answer.text());
        anyhow::Ok(answer.body)
    };
    let checkpoint = VerifiedCheckpoint::open(&page("/checkpoint").await?, vkey, &[])?;
    let size = usize::try_from(checkpoint.size().0)?;
    let (mut entries, mut leaves) = (Vec::new(), Vec::new());
    for number in 0..size.div_ceil(256) {
        let width = (size - number * 256).min(256);
        for entry in unbundle(&page(&tile_path("entries", number, width)).await?)? {
            let parsed = Entry::parse(&entry)?;
            let prev = leaves.last().copied().unwrap_or(Digest::ZERO);
            ensure!(parsed.index.0 == count_of(entries.len()) && parsed.prev == prev, "no chain");
            leaves.push(leaf_hash(&entry));
            entries.push(entry);
        }
        let hashes = leaves.get(number * 256..).unwrap_or_default();
        let tile = page(&tile_path("0", number, width)).await?;
        ensure!(
            tile == hashes.iter().flat_map(|leaf| *leaf.as_bytes()).collect::<Vec<_>>(),
            "tile"
        );
    }
    ensure!(entries.len() == size && root_of(&leaves) == checkpoint.root(), "another root");
    Ok(entries)
}

/// The entries of a bundle.
fn unbundle(mut bundle: &[u8]) -> anyhow::Result<Vec<Vec<u8>>> {
    let mut entries = Vec::new();
    while let Some((length, rest)) = bundle.split_first_chunk() {
        let length = u16::from_be_bytes(*length).into();
        let (entry, rest) = rest.split_at_checked(length).context("a torn bundle")?;
        entries.push(entry.to_vec());
        bundle = rest;
    }
    ensure!(bundle.is_empty(), "a torn length");
    Ok(entries)
}
