//! The certificates of all listeners: read again on SIGHUP, and an early word before one expires.

use std::sync::Arc;
use std::time::Duration;

use hilum_intake::now;
use hilum_listen::TlsServer;
use tokio_util::sync::CancellationToken;

const DAY: Duration = Duration::from_secs(86_400);
const WARN_SECONDS: i64 = 30 * 86_400;

/// The certificates in force, each with the name of its listener.
#[derive(Clone)]
pub(crate) struct Certificates(Vec<(Arc<str>, TlsServer)>);

impl Certificates {
    /// Tells of them at once.
    pub(crate) fn new(of_listeners: Vec<(Arc<str>, TlsServer)>) -> Self {
        let certificates = Self(of_listeners);
        certificates.tell();
        certificates
    }

    /// Reads the files again. What cannot be used leaves the old one in force.
    pub(crate) fn reload(&self) {
        for (listener, certificate) in &self.0 {
            if let Err(error) = certificate.reload() {
                tracing::error!(%listener, %error, "certificate not reloaded, the old one stays in force");
            }
        }
        tracing::info!(certificates = self.0.len(), "reloaded");
        self.tell();
    }

    /// Tells of them once a day until `stop`.
    pub(crate) async fn watch(self, stop: CancellationToken) {
        while !self.0.is_empty() {
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(DAY) => self.tell(),
            }
        }
    }

    /// When each expires, in seconds since 1970, and a warning 30 days ahead.
    fn tell(&self) {
        let now = now().millis() / 1000;
        for (listener, certificate) in &self.0 {
            let Some(expires) = certificate.expires() else {
                tracing::warn!(%listener, "the certificate does not say when it expires");
                continue;
            };
            #[expect(clippy::cast_precision_loss, reason = "seconds since 1970 fit a float")]
            metrics::gauge!("hilum_certificate_expires_seconds", "listener" => listener.to_string())
                .set(expires as f64);
            let days = (expires - now).div_euclid(86_400);
            if expires <= now {
                tracing::error!(%listener, "the certificate has expired: peers will refuse it");
            } else if expires - now < WARN_SECONDS {
                tracing::warn!(%listener, days, "the certificate expires soon: replace its files and send SIGHUP");
            }
        }
    }
}
