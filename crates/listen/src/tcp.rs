//! A TCP connection that acknowledges at once what was read from it.
//!
//! A peer with Nagle's algorithm on (RFC 896) that sends a message in several writes holds the second one back until the first is
//! acknowledged. Linux delays that acknowledgement by 40 ms in the hope of an answer to send it with, and there is none before the message is
//! complete: such a peer gets 25 messages a second through a connection. So each read asks for the acknowledgement (`TCP_QUICKACK`).

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

/// An accepted connection. Every door reads through it, below TLS.
#[derive(Debug)]
pub struct Tcp(TcpStream);

impl Tcp {
    pub(crate) fn new(stream: TcpStream) -> Self {
        Self(stream)
    }

    /// Its options.
    pub(crate) fn socket(&self) -> SockRef<'_> {
        SockRef::from(&self.0)
    }

    /// Sends the acknowledgement of what was read. The kernel leaves this mode by itself, so it is asked for after each read that gave bytes;
    /// one that gave none has nothing to acknowledge. A kernel that does not know the option acknowledges when it likes.
    #[cfg(target_os = "linux")]
    fn acknowledge(&self) {
        let _ = self.socket().set_tcp_quickack(true);
    }

    /// Other systems have no such option.
    #[cfg(not(target_os = "linux"))]
    fn acknowledge(&self) {}
}

impl AsyncRead for Tcp {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let tcp = self.get_mut();
        let before = buf.filled().len();
        let polled = Pin::new(&mut tcp.0).poll_read(cx, buf);
        if buf.filled().len() > before {
            tcp.acknowledge();
        }
        polled
    }
}

impl AsyncWrite for Tcp {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().0).poll_write(cx, buf)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().0).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().0).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().0).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.0.is_write_vectored()
    }
}

#[cfg(test)]
#[cfg(target_os = "linux")]
mod tests {
    use std::future::Future;
    use std::net::SocketAddr;
    use std::path::Path;
    use std::sync::Arc;
    use std::time::Duration;

    use rustls::RootCertStore;
    use rustls_pki_types::pem::PemObject;
    use rustls_pki_types::{CertificateDer, ServerName};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio_util::sync::CancellationToken;

    use super::*;
    use crate::{Listener, Peer, Session, Settings, Stream, TlsFiles, TlsServer};

    const READS: usize = 3;

    /// Takes the socket out of the mode, asks for a byte, and notes in which mode reading it left the socket; then sends its notes.
    struct Noting;

    impl Session for Noting {
        fn run(
            self: Arc<Self>,
            mut stream: Stream,
            _peer: Peer,
            _shutdown: CancellationToken,
        ) -> Pin<Box<dyn Future<Output = ()> + Send>> {
            Box::pin(async move {
                let mut notes = Vec::new();
                for _ in 0..READS {
                    tcp(&stream).socket().set_tcp_quickack(false).unwrap();
                    stream.write_all(b"?").await.unwrap();
                    stream.flush().await.unwrap();
                    stream.read_u8().await.unwrap();
                    notes.push(u8::from(tcp(&stream).socket().tcp_quickack().unwrap()));
                }
                stream.write_all(&notes).await.unwrap();
                stream.flush().await.unwrap();
            })
        }
    }

    fn tcp(stream: &Stream) -> &Tcp {
        match stream {
            Stream::Plain(tcp) => tcp,
            Stream::Tls(tls) => tls.get_ref().0,
        }
    }

    fn listening(tls: Option<TlsServer>) -> SocketAddr {
        let settings = Settings {
            name: "noting".into(),
            connections_max: 1,
            per_peer_max: 1,
            tls_handshake_timeout: Duration::from_secs(20),
            drain_timeout: Duration::from_secs(20),
            tls,
        };
        let listener = Listener::bind(([127, 0, 0, 1], 0).into(), settings).unwrap();
        let address = listener.address();
        tokio::spawn(listener.serve(Arc::new(Noting), CancellationToken::new()));
        address
    }

    /// Sends a byte whenever it is asked for one, and gives what was noted.
    async fn notes(mut stream: impl AsyncRead + AsyncWrite + Unpin) -> [u8; READS] {
        for _ in 0..READS {
            stream.read_u8().await.unwrap();
            stream.write_all(b"!").await.unwrap();
            stream.flush().await.unwrap();
        }
        let mut notes = [0; READS];
        stream.read_exact(&mut notes).await.unwrap();
        notes
    }

    /// A server and its client that trusts it.
    fn encrypted(dir: &Path) -> (TlsServer, tokio_rustls::TlsConnector) {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let files = TlsFiles { cert: dir.join("cert.pem"), key: dir.join("key.pem"), client_ca: None };
        std::fs::write(&files.cert, made.cert.pem()).unwrap();
        std::fs::write(&files.key, made.signing_key.serialize_pem()).unwrap();
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(&files.cert).unwrap()).unwrap();
        let client = rustls::ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
        (TlsServer::load(files, &[]).unwrap(), Arc::new(client).into())
    }

    #[tokio::test]
    async fn each_read_is_acknowledged_at_once() {
        let plain = TcpStream::connect(listening(None)).await.unwrap();
        assert_eq!(notes(plain).await, [1; READS]);

        let dir = tempfile::tempdir().unwrap();
        let (server, client) = encrypted(dir.path());
        let below = TcpStream::connect(listening(Some(server))).await.unwrap();
        let tls = client.connect(ServerName::try_from("localhost").unwrap(), below).await.unwrap();
        assert_eq!(notes(tls).await, [1; READS], "below TLS too");
    }
}
