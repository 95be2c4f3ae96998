//! A way to the server that can be made to swallow everything: both ends stay connected, and neither hears of the other.

use std::path::Path;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, UnixStream};
use tokio::sync::watch;

/// A proxy of a socket of a server. It ends with the runtime of the test.
pub(crate) struct Proxy {
    /// Where it listens, on this machine.
    pub(crate) port: u16,
    is_silent: watch::Sender<bool>,
}

impl Proxy {
    /// Forwards what comes to a port of its own to the socket in a folder.
    pub(crate) async fn start(folder: &Path) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (is_silent, silence) = watch::channel(false);
        let socket = folder.join(".s.PGSQL.5432");
        tokio::spawn(async move {
            loop {
                let (client, _) = listener.accept().await.unwrap();
                let Ok(server) = UnixStream::connect(&socket).await else { continue };
                let (from_client, to_client) = client.into_split();
                let (from_server, to_server) = server.into_split();
                tokio::spawn(forward(from_client, to_server, silence.clone()));
                tokio::spawn(forward(from_server, to_client, silence.clone()));
            }
        });
        Self { port, is_silent }
    }

    /// From now on nothing is forwarded (`false`: again, with what came meanwhile).
    pub(crate) fn be_silent(&self, is_silent: bool) {
        self.is_silent.send_replace(is_silent);
    }
}

async fn forward(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    mut silence: watch::Receiver<bool>,
) {
    let mut bytes = vec![0; 8192];
    loop {
        let read = from.read(&mut bytes).await.unwrap_or(0);
        if silence.wait_for(|is_silent| !is_silent).await.is_err()
            || read == 0
            || to.write_all(&bytes[..read]).await.is_err()
        {
            let _ = to.shutdown().await;
            return;
        }
    }
}
