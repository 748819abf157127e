//! Connections: plain or over TLS, each with what it says of who is at the other end.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use futures_util::{Stream, StreamExt as _, stream};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
    task::JoinSet,
    time::timeout,
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tonic::transport::server::TcpIncoming;
use tracing::{debug, warn};

use super::{door::Door, patient::Patient, principals::CertificateName, tls};
use crate::os;

/// One connection.
pub(crate) struct Link {
    socket: Socket,
    peer: Peer,
    /// Of those that the listener has; given back when the connection ends.
    _place: OwnedSemaphorePermit,
}

enum Socket {
    Plain(Patient),
    Encrypted(Box<TlsStream<Patient>>),
}

/// Who is at the other end.
#[derive(Clone, Debug)]
pub(crate) struct Peer {
    pub(super) address: SocketAddr,
    /// Names of the client certificate, which was verified.
    pub(super) names: Arc<[CertificateName]>,
}

/// The connections of a listener, each behind its handshake. Handshakes run side by side, so a slow
/// one holds nobody up.
///
/// When all `links_max` places are taken, or as many as this process may have files open, whoever
/// comes next waits in the listener's queue. A peer that takes nothing for `stall` is given up.
pub(crate) fn links(
    listener: TcpListener,
    door: Arc<Door>,
    links_max: usize,
    stall: Duration,
) -> impl Stream<Item = Link> + use<> {
    // An answer does not wait until the caller has acknowledged the one before: that costs 40 ms.
    let incoming =
        TcpIncoming::from(listener).with_nodelay(Some(true)).with_keepalive(Some(TCP_KEEPALIVE));
    let files = os::open_files_max().saturating_sub(FILES_RESERVED);
    let places = Arc::new(Semaphore::new(links_max.min(files).max(1)));
    let handshakes = JoinSet::new();
    let accepting = Accepting { incoming, door, places, stall, handshakes };
    stream::unfold(accepting, |mut accepting| async {
        let link = accepting.next().await?;
        Some((link, accepting))
    })
}

struct Accepting {
    incoming: TcpIncoming,
    door: Arc<Door>,
    places: Arc<Semaphore>,
    stall: Duration,
    handshakes: JoinSet<Option<Link>>,
}

impl Accepting {
    /// The next connection that is ready to serve.
    async fn next(&mut self) -> Option<Link> {
        loop {
            tokio::select! {
                accepted = accept(&mut self.incoming, &self.places) => {
                    let (stream, place) = accepted?;
                    let peer = address_of(&stream);
                    let stream = Patient::new(stream, self.stall);
                    match self.door.state().tls.clone() {
                        None => return Some(Link::plain(stream, peer, place)),
                        Some(tls) => {
                            let acceptor = TlsAcceptor::from(tls);
                            self.handshakes.spawn(shake_hands(acceptor, stream, peer, place));
                        }
                    }
                }
                Some(shaken) = self.handshakes.join_next() => {
                    if let Ok(Some(link)) = shaken {
                        return Some(link);
                    }
                }
            }
        }
    }
}

/// Takes a place first: a connection is only accepted when it can be served.
async fn accept(
    incoming: &mut TcpIncoming,
    places: &Arc<Semaphore>,
) -> Option<(TcpStream, OwnedSemaphorePermit)> {
    let place = places.clone().acquire_owned().await.ok()?;
    loop {
        match incoming.next().await? {
            Ok(stream) => return Some((stream, place)),
            Err(failure) => {
                // Too many open files, for one: at once it would fail again.
                warn!(%failure, "could not accept a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn shake_hands(
    acceptor: TlsAcceptor,
    stream: Patient,
    address: SocketAddr,
    place: OwnedSemaphorePermit,
) -> Option<Link> {
    match timeout(HANDSHAKE_TIME, acceptor.accept(stream)).await {
        Ok(Ok(stream)) => Some(Link::encrypted(stream, address, place)),
        Ok(Err(failure)) => {
            debug!(%address, %failure, "handshake failed");
            metrics::counter!("access_ledger_handshakes_failed_total").increment(1);
            None
        }
        Err(_) => {
            debug!(%address, "handshake took too long");
            metrics::counter!("access_ledger_handshakes_failed_total").increment(1);
            None
        }
    }
}

impl Link {
    fn plain(stream: Patient, address: SocketAddr, place: OwnedSemaphorePermit) -> Self {
        let peer = Peer { address, names: Arc::new([]) };
        Self { socket: Socket::Plain(stream), peer, _place: place }
    }

    fn encrypted(
        stream: TlsStream<Patient>,
        address: SocketAddr,
        place: OwnedSemaphorePermit,
    ) -> Self {
        let certificates = stream.get_ref().1.peer_certificates();
        let certificate = certificates.and_then(|chain| chain.first());
        let names = certificate.map(tls::names_of).unwrap_or_default().into();
        let socket = Socket::Encrypted(Box::new(stream));
        Self { socket, peer: Peer { address, names }, _place: place }
    }

    /// Who is at the other end.
    pub(crate) const fn peer(&self) -> &Peer {
        &self.peer
    }
}

impl Peer {
    /// Where it is.
    pub(crate) const fn address(&self) -> SocketAddr {
        self.address
    }
}

/// A peer that is gone has no address any more; its connection ends at the first read.
fn address_of(stream: &TcpStream) -> SocketAddr {
    stream.peer_addr().unwrap_or_else(|_| SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)))
}

impl AsyncRead for Link {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match &mut self.get_mut().socket {
            Socket::Plain(stream) => Pin::new(stream).poll_read(context, buffer),
            Socket::Encrypted(stream) => Pin::new(stream).poll_read(context, buffer),
        }
    }
}

impl AsyncWrite for Link {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match &mut self.get_mut().socket {
            Socket::Plain(stream) => Pin::new(stream).poll_write(context, bytes),
            Socket::Encrypted(stream) => Pin::new(stream).poll_write(context, bytes),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match &mut self.get_mut().socket {
            Socket::Plain(stream) => Pin::new(stream).poll_write_vectored(context, parts),
            Socket::Encrypted(stream) => Pin::new(stream).poll_write_vectored(context, parts),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match &self.socket {
            Socket::Plain(stream) => stream.is_write_vectored(),
            Socket::Encrypted(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().socket {
            Socket::Plain(stream) => Pin::new(stream).poll_flush(context),
            Socket::Encrypted(stream) => Pin::new(stream).poll_flush(context),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().socket {
            Socket::Plain(stream) => Pin::new(stream).poll_shutdown(context),
            Socket::Encrypted(stream) => Pin::new(stream).poll_shutdown(context),
        }
    }
}

/// Files that are not connections: segments, trees, the index, calls of its own.
const FILES_RESERVED: usize = 512;

const TCP_KEEPALIVE: Duration = Duration::from_secs(60);

/// How long a handshake may take: two round trips and a signature.
const HANDSHAKE_TIME: Duration = Duration::from_secs(10);

const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
