//! DICOM C-ECHO and C-STORE SCP (PS3.4 annexes A and B).
//!
//! An association is negotiated by our own acceptor over the PDU types of `dicom-ul`; data sets are streamed to a blob while they are
//! scanned, byte for byte as received. 0000 is answered only after blob and rows are durable.

mod association;
mod classes;
mod pdu;
mod receive;
mod session;

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use hilum_intake::Intake;
use hilum_listen::limits::Dicom as Limits;
use hilum_listen::{Peer, Session, Stream};
use tokio::io::AsyncWriteExt;
use tokio_util::sync::CancellationToken;

/// The DICOM door.
pub struct Dicom {
    pub(crate) intake: Intake,
    pub(crate) limits: Limits,
}

impl Dicom {
    /// A door.
    pub fn new(intake: Intake, limits: &hilum_listen::Limits) -> Self {
        Self { intake, limits: limits.dicom }
    }
}

impl Session for Dicom {
    fn run(
        self: Arc<Self>,
        stream: Stream,
        peer: Peer,
        shutdown: CancellationToken,
    ) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        Box::pin(async move {
            let listener = peer.listener.clone();
            if let Err(end) = session::run(self, stream, peer, shutdown).await {
                tracing::debug!(%listener, reason = %end, "association ended");
            }
        })
    }

    fn refuse_busy(self: Arc<Self>, mut stream: Stream) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        Box::pin(async move {
            let _ = stream.write_all(&association::local_limit()).await;
        })
    }
}
