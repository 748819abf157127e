//! Callers that keep the server waiting, at times that suit a test.

use std::{
    convert::Infallible,
    future::pending,
    io::ErrorKind,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use bytes::Bytes;
use futures_util::stream;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    sync::oneshot,
    task::JoinHandle,
};
use tower::service_fn;

use super::*;

/// Long enough for whoever is not to be given up.
const LONG: Duration = Duration::from_secs(300);

/// How long a test waits for what must happen.
const PATIENCE: Duration = Duration::from_secs(60);

const SOON: Duration = Duration::from_millis(100);

/// Nobody is given up.
const PATIENT: Times = Times {
    stranger: LONG,
    idle: LONG,
    head: LONG,
    ping: LONG,
    pong: LONG,
    stall: LONG,
    call: LONG,
    farewell: LONG,
    drain: LONG,
};

struct Bench {
    address: SocketAddr,
    /// Calls that the service was asked.
    calls: Arc<AtomicUsize>,
    stop: oneshot::Sender<()>,
    served: JoinHandle<()>,
}

impl Bench {
    /// A server whose pages are: `/checkpoint`, an answer; `/tile/never`, none; `/tile/endless`,
    /// one without end.
    async fn start(times: Times) -> Self {
        Self::at_most(LINKS_MAX, times).await
    }

    /// The same with no more connections at once than that.
    async fn at_most(links_max: usize, times: Times) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let calls = Arc::new(AtomicUsize::new(0));
        let counted = calls.clone();
        let service = service_fn(move |request: Request<Body>| {
            counted.fetch_add(1, Ordering::SeqCst);
            async move { Ok::<_, Infallible>(page(request.uri().path()).await) }
        });
        let transport = Transport { times, ..Transport::new(listener, &Door::for_everybody()) };
        let transport = transport.at_most(links_max);
        let (stop, stopped) = oneshot::channel();
        let served =
            tokio::spawn(
                async move { transport.serve(service, async { drop(stopped.await) }).await },
            );
        Self { address, calls, stop, served }
    }

    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }
}

async fn page(path: &str) -> Response<Body> {
    match path {
        "/tile/never" => pending().await,
        "/tile/endless" => {
            let part = Ok::<_, Infallible>(Bytes::from_static(&[7; 64 << 10]));
            let parts = axum::body::Body::from_stream(stream::repeat(part));
            Response::new(Body::new(parts))
        }
        _ => Response::new(Body::new("here\n".to_owned())),
    }
}

/// What comes until the server ends the connection.
async fn rest(stream: &mut TcpStream) -> String {
    let mut bytes = Vec::new();
    match timeout(PATIENCE, stream.read_to_end(&mut bytes)).await.expect("still connected") {
        Ok(_) => {}
        Err(error) => assert_eq!(error.kind(), ErrorKind::ConnectionReset, "{error}"),
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

async fn ask(stream: &mut TcpStream, path: &str) {
    let head = format!("GET {path} HTTP/1.1\r\nhost: ledger\r\n\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
}

/// What comes up to this.
async fn until(stream: &mut TcpStream, end: &str) -> String {
    let mut bytes = Vec::new();
    while !bytes.ends_with(end.as_bytes()) {
        let byte = timeout(PATIENCE, stream.read_u8()).await.expect("no answer");
        bytes.push(byte.unwrap());
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[tokio::test]
async fn strangers_leave_whatever_they_do() {
    let bench = Bench::start(Times { stranger: SOON, ..PATIENT }).await;
    // One that says nothing, one that began to speak HTTP/2, one that only asks what is open.
    let mut silent = bench.connect().await;
    let mut begun = bench.connect().await;
    begun.write_all(b"PRI * HTTP/2.0\r\n\r\nSM").await.unwrap();
    let mut open = bench.connect().await;
    open.write_all(b"OPTIONS /checkpoint HTTP/1.1\r\nhost: l\r\n\r\n").await.unwrap();
    // Whoever is known stays.
    let mut known = bench.connect().await;
    ask(&mut known, "/checkpoint").await;
    until(&mut known, "here\n").await;
    assert_eq!(rest(&mut silent).await, "");
    assert_eq!(rest(&mut begun).await, "");
    assert!(rest(&mut open).await.starts_with("HTTP/1.1 200"));
    ask(&mut known, "/checkpoint").await;
    until(&mut known, "here\n").await;
    assert_eq!(bench.calls.load(Ordering::SeqCst), 3);
}

/// Asks as a stranger over HTTP/2, and lets no byte of the answer's body come.
async fn ask_deafly(bench: &Bench) -> TcpStream {
    let mut stream = bench.connect().await;
    let settings: &[u8] = &[0, 0, 6, 4, 0, 0, 0, 0, 0, 0, 4, 0, 0, 0, 0];
    let headers = b"\x00\x00\x0c\x01\x05\x00\x00\x00\x01\x82\x86\x04\x05/nope\x01\x01l";
    let asked = [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", settings, headers].concat();
    stream.write_all(&asked).await.unwrap();
    stream
}

/// Reads up to the frame that begins the answer: HEADERS of stream 1.
async fn answered(stream: &mut TcpStream) {
    loop {
        let mut head = [0; 9];
        timeout(PATIENCE, stream.read_exact(&mut head)).await.expect("no answer").unwrap();
        let [a, b, c, kind, _, id @ ..] = head;
        let mut payload = vec![0; u32::from_be_bytes([0, a, b, c]) as usize];
        stream.read_exact(&mut payload).await.unwrap();
        if (kind, id) == (1, [0, 0, 0, 1]) {
            return;
        }
    }
}

#[tokio::test]
async fn a_stranger_that_takes_no_answer_is_not_waited_for() {
    let bench = Bench::start(Times { stranger: SOON, farewell: SOON, ..PATIENT }).await;
    let mut deaf = ask_deafly(&bench).await;
    answered(&mut deaf).await;
    rest(&mut deaf).await;
    // Nor when the server stops.
    let bench = Bench::start(Times { farewell: SOON, ..PATIENT }).await;
    let mut deaf = ask_deafly(&bench).await;
    answered(&mut deaf).await;
    drop(bench.stop);
    timeout(PATIENCE, bench.served).await.unwrap().unwrap();
    // One that is known has the time that calls have, and no more.
    let bench = Bench::start(Times { drain: SOON, ..PATIENT }).await;
    let mut busy = bench.connect().await;
    ask(&mut busy, "/tile/never").await;
    while bench.calls.load(Ordering::SeqCst) == 0 {
        tokio::task::yield_now().await;
    }
    drop(bench.stop);
    timeout(PATIENCE, bench.served).await.unwrap().unwrap();
}

#[tokio::test]
async fn whoever_calls_nothing_any_more_leaves_and_a_call_under_way_stays() {
    let bench = Bench::start(Times { idle: SOON, farewell: SOON, ..PATIENT }).await;
    let mut idle = bench.connect().await;
    ask(&mut idle, "/checkpoint").await;
    let mut busy = bench.connect().await;
    ask(&mut busy, "/tile/never").await;
    assert!(rest(&mut idle).await.starts_with("HTTP/1.1 200"));
    // A second of many more than the idle time.
    let closed = timeout(10 * SOON, busy.read(&mut [0])).await;
    assert!(closed.is_err(), "{closed:?}");
}

#[tokio::test]
async fn heads_and_calls_without_end_are_given_up() {
    let bench = Bench::start(Times { head: SOON, ..PATIENT }).await;
    let mut slow = bench.connect().await;
    slow.write_all(b"GET /checkpoint HTTP/1.1\r\nhost:").await.unwrap();
    assert!(!rest(&mut slow).await.contains("200"));

    let bench = Bench::start(Times { call: SOON, ..PATIENT }).await;
    let mut slow = bench.connect().await;
    ask(&mut slow, "/tile/never").await;
    until(&mut slow, "HTTP/1.1 408 Request Timeout").await;
}

#[tokio::test]
async fn long_heads_are_refused() {
    let bench = Bench::start(PATIENT).await;
    let mut long = bench.connect().await;
    let head = format!("GET /checkpoint HTTP/1.1\r\nx: {}", "x".repeat(HEAD_BYTES_MAX));
    long.write_all(head.as_bytes()).await.unwrap();
    until(&mut long, "HTTP/1.1 431 Request Header Fields Too Large").await;
    assert_eq!(bench.calls.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn whoever_takes_nothing_is_given_up() {
    let bench = Bench::start(Times { stall: SOON, ..PATIENT }).await;
    let mut deaf = bench.connect().await;
    ask(&mut deaf, "/tile/endless").await;
    // The server's end is seen in what can no longer be written.
    let gone = async {
        while deaf.write_all(b"x").await.is_ok() {
            tokio::task::yield_now().await;
        }
    };
    timeout(PATIENCE, gone).await.expect("still connected");
}

#[tokio::test]
async fn whoever_comes_when_all_places_are_taken_waits_until_somebody_leaves() {
    let bench = Bench::at_most(2, PATIENT).await;
    let (mut first, mut second) = (bench.connect().await, bench.connect().await);
    for known in [&mut first, &mut second] {
        ask(known, "/checkpoint").await;
        until(known, "here\n").await;
    }
    // The system takes it in, the server does not.
    let mut third = bench.connect().await;
    ask(&mut third, "/checkpoint").await;
    let answered = timeout(5 * SOON, third.read_u8()).await;
    assert!(answered.is_err(), "{answered:?}");
    assert_eq!(bench.calls.load(Ordering::SeqCst), 2);
    // Whoever has a place is served as ever.
    ask(&mut second, "/checkpoint").await;
    until(&mut second, "here\n").await;
    drop(first);
    until(&mut third, "here\n").await;
    assert_eq!(bench.calls.load(Ordering::SeqCst), 4);
}

#[tokio::test]
async fn a_stop_lets_calls_end_and_ends_the_rest() {
    let bench = Bench::start(Times { call: 5 * SOON, ..PATIENT }).await;
    let (mut silent, mut busy) = (bench.connect().await, bench.connect().await);
    ask(&mut busy, "/tile/never").await;
    while bench.calls.load(Ordering::SeqCst) == 0 {
        tokio::task::yield_now().await;
    }
    drop(bench.stop);
    assert_eq!(rest(&mut silent).await, "");
    assert!(rest(&mut busy).await.starts_with("HTTP/1.1 408"));
    timeout(PATIENCE, bench.served).await.unwrap().unwrap();
    TcpStream::connect(bench.address).await.unwrap_err();
}

#[test]
fn deadlines_of_callers_are_understood_or_ignored() {
    let told = |text: &str| {
        let mut headers = HeaderMap::new();
        headers.insert("grpc-timeout", text.parse().unwrap());
        deadline_of(&headers)
    };
    assert_eq!(told("2S"), Some(Duration::from_secs(2)));
    assert_eq!(told("99999999m"), Some(Duration::from_millis(99_999_999)));
    assert_eq!(told("1H"), Some(Duration::from_secs(3_600)));
    assert_eq!(told("5u"), Some(Duration::from_micros(5)));
    for nonsense in ["", "S", "1", "-1S", "100000000S", "1s", "1.5S", "S1", "1 S"] {
        assert_eq!(told(nonsense), None, "{nonsense:?}");
    }
    assert_eq!(deadline_of(&HeaderMap::new()), None);
}
