//! A socket and everything around a conversation: admission, limits, TLS, panics, drain.

use std::collections::HashMap;
use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use parking_lot::Mutex;
use socket2::TcpKeepalive;
use tokio::net::{TcpListener, TcpSocket};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::{Peer, Session, Stream, Tcp, TlsServer};

const BACKLOG: u32 = 1024;
const ACCEPT_BACK_OFF: Duration = Duration::from_millis(100);
const REFUSAL_TIMEOUT: Duration = Duration::from_secs(2);
const KEEP_ALIVE: Duration = Duration::from_secs(60);

/// How a socket is guarded.
#[derive(Clone)]
pub struct Settings {
    /// Name in logs and metrics, such as `mllp-3000`.
    pub name: Arc<str>,
    /// Connections in all.
    pub connections_max: usize,
    /// Connections of one peer address.
    pub per_peer_max: usize,
    /// Time for the TLS handshake.
    pub tls_handshake_timeout: Duration,
    /// Time for work in flight after shutdown.
    pub drain_timeout: Duration,
    /// TLS, when the listener has it.
    pub tls: Option<TlsServer>,
}

/// An open socket, not yet accepting.
pub struct Listener {
    socket: TcpListener,
    address: SocketAddr,
    settings: Settings,
}

/// Why a socket could not be opened.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address}: {reason}")]
pub struct BindError {
    address: SocketAddr,
    reason: io::Error,
}

impl Listener {
    /// Opens the socket. Port 0 takes a free one.
    ///
    /// # Errors
    /// The address is in use, not ours, or needs rights we lack.
    pub fn bind(address: SocketAddr, settings: Settings) -> Result<Self, BindError> {
        let open = || -> io::Result<TcpListener> {
            let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
            socket.set_reuseaddr(true)?;
            socket.bind(address)?;
            socket.listen(BACKLOG)
        };
        let socket = open().map_err(|reason| BindError { address, reason })?;
        let address = socket.local_addr().map_err(|reason| BindError { address, reason })?;
        Ok(Self { socket, address, settings })
    }

    /// The address in use.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its name.
    pub fn name(&self) -> &Arc<str> {
        &self.settings.name
    }

    /// Accepts connections until `shutdown`, then closes the socket and waits for the work in flight, at most the drain timeout.
    pub async fn serve(self, session: Arc<dyn Session>, shutdown: CancellationToken) {
        let slots = Arc::new(Slots::new(self.settings.connections_max, self.settings.per_peer_max));
        let tasks = TaskTracker::new();
        let name = self.settings.name.clone();
        loop {
            let accepted = tokio::select! {
                biased;
                () = shutdown.cancelled() => break,
                accepted = self.socket.accept() => accepted,
            };
            match accepted {
                Ok((stream, address)) => {
                    let peer = Peer {
                        address,
                        local: self.address,
                        listener: name.clone(),
                        encrypted: self.settings.tls.is_some(),
                    };
                    self.admit(&session, &slots, &tasks, Tcp::new(stream), peer, &shutdown);
                }
                // EMFILE and the like pass: one bad accept must not end the listener
                Err(error) => {
                    metrics::counter!("hilum_accept_errors_total", "listener" => name.to_string())
                        .increment(1);
                    tracing::warn!(listener = %name, %error, "accept failed, tried again");
                    tokio::time::sleep(ACCEPT_BACK_OFF).await;
                }
            }
        }
        drop(self.socket);
        tasks.close();
        if tokio::time::timeout(self.settings.drain_timeout, tasks.wait()).await.is_err() {
            tracing::warn!(listener = %name, open = tasks.len(), "drain timeout, connections cut");
        }
    }

    fn admit(
        &self,
        session: &Arc<dyn Session>,
        slots: &Arc<Slots>,
        tasks: &TaskTracker,
        stream: Tcp,
        peer: Peer,
        shutdown: &CancellationToken,
    ) {
        if !session.admits(&peer) {
            metrics::counter!("hilum_connections_refused_total", "listener" => peer.listener.to_string(), "reason" => "address").increment(1);
            return;
        }
        tune(&stream);
        let session = session.clone();
        let Some(slot) = Slots::take(slots, peer.address.ip()) else {
            metrics::counter!("hilum_connections_refused_total", "listener" => peer.listener.to_string(), "reason" => "limit").increment(1);
            if self.settings.tls.is_none() {
                tasks.spawn(async move {
                    let _ = tokio::time::timeout(REFUSAL_TIMEOUT, session.refuse_busy(Stream::Plain(stream)))
                        .await;
                });
            }
            return;
        };
        let tls = self.settings.tls.clone().map(|tls| (tls, self.settings.tls_handshake_timeout));
        let listener = peer.listener.clone();
        let shutdown = shutdown.clone();
        let conversation = async move {
            let _slot = slot;
            if let Some(stream) = handshake(stream, tls, &shutdown).await {
                session.run(stream, peer, shutdown).await;
            }
        };
        tasks.spawn(guarded(listener, conversation));
    }
}

async fn handshake(
    stream: Tcp,
    tls: Option<(TlsServer, Duration)>,
    shutdown: &CancellationToken,
) -> Option<Stream> {
    let Some((tls, timeout)) = tls else { return Some(Stream::Plain(stream)) };
    tokio::select! {
        () = shutdown.cancelled() => None,
        done = tokio::time::timeout(timeout, tls.acceptor().accept(stream)) => match done {
            Ok(Ok(stream)) => Some(Stream::Tls(Box::new(stream))),
            Ok(Err(error)) => {
                tracing::debug!(%error, "tls handshake failed");
                None
            }
            Err(_) => None,
        },
    }
}

/// A panic ends its connection and nothing else; it is counted.
async fn guarded(listener: Arc<str>, conversation: impl Future<Output = ()>) {
    if AssertUnwindSafe(conversation).catch_unwind().await.is_err() {
        metrics::counter!("hilum_panics_total", "place" => listener.to_string()).increment(1);
        tracing::error!(%listener, "a connection panicked and was closed");
    }
}

fn tune(stream: &Tcp) {
    let socket = stream.socket();
    let _ = socket.set_tcp_nodelay(true);
    let _ = socket.set_tcp_keepalive(&TcpKeepalive::new().with_time(KEEP_ALIVE));
}

/// Places for connections, in all and for each peer address.
struct Slots {
    max: usize,
    per_peer_max: usize,
    taken: Mutex<(usize, HashMap<IpAddr, usize>)>,
}

struct Slot {
    slots: Arc<Slots>,
    peer: IpAddr,
}

impl Slots {
    fn new(max: usize, per_peer_max: usize) -> Self {
        Self { max, per_peer_max, taken: Mutex::new((0, HashMap::new())) }
    }

    fn take(slots: &Arc<Self>, peer: IpAddr) -> Option<Slot> {
        let mut taken = slots.taken.lock();
        let of_peer = taken.1.get(&peer).copied().unwrap_or(0);
        if taken.0 >= slots.max || of_peer >= slots.per_peer_max {
            return None;
        }
        taken.0 += 1;
        taken.1.insert(peer, of_peer + 1);
        Some(Slot { slots: slots.clone(), peer })
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut taken = self.slots.taken.lock();
        taken.0 -= 1;
        if let Some(count) = taken.1.get_mut(&self.peer) {
            *count -= 1;
            if *count == 0 {
                taken.1.remove(&self.peer);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_given_back_on_every_way_out() {
        let slots = Arc::new(Slots::new(3, 2));
        let (a, b) = (IpAddr::from([127, 0, 0, 1]), IpAddr::from([127, 0, 0, 2]));
        let first = Slots::take(&slots, a);
        let second = Slots::take(&slots, a);
        assert!(first.is_some() && second.is_some());
        assert!(Slots::take(&slots, a).is_none(), "two are the peer's limit");
        let third = Slots::take(&slots, b);
        assert!(third.is_some() && Slots::take(&slots, b).is_none(), "three are the listener's limit");
        drop((first, second, third));
        assert_eq!(slots.taken.lock().0, 0);
        assert!(slots.taken.lock().1.is_empty());
    }
}
