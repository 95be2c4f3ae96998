//! TLS 1.2 and 1.3 by rustls, with certificates that can be reloaded while connections live (BCP 195, PS3.15 B.12).

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use arc_swap::ArcSwap;
use rustls::RootCertStore;
use rustls::ServerConfig;
use rustls::server::WebPkiClientVerifier;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::TlsAcceptor;

/// Where the certificate of a listener lies. All files are PEM.
#[derive(Clone, Debug)]
pub struct TlsFiles {
    /// Certificate chain, leaf first.
    pub cert: PathBuf,
    /// Private key of the leaf.
    pub key: PathBuf,
    /// Authorities of client certificates; when set, a client without one is refused.
    pub client_ca: Option<PathBuf>,
}

/// Why a certificate was not taken.
#[derive(Debug, thiserror::Error)]
#[error("{path}: {reason}")]
pub struct TlsError {
    /// The file.
    pub path: String,
    /// What is wrong with it, and what to do.
    pub reason: String,
}

/// The TLS side of a listener. Cheap to clone; [`TlsServer::reload`] acts on the next handshake.
#[derive(Clone)]
pub struct TlsServer {
    files: TlsFiles,
    alpn: &'static [&'static [u8]],
    config: Arc<ArcSwap<ServerConfig>>,
    /// Seconds since 1970; `i64::MAX` = unknown.
    expires: Arc<AtomicI64>,
}

impl TlsServer {
    /// Reads the files. `alpn` names the protocols offered, most wanted first.
    ///
    /// # Errors
    /// The file that could not be used, and why.
    pub fn load(files: TlsFiles, alpn: &'static [&'static [u8]]) -> Result<Self, TlsError> {
        let (config, expires) = server_config(&files, alpn)?;
        let config = Arc::new(ArcSwap::from_pointee(config));
        Ok(Self { files, alpn, config, expires: Arc::new(expires.into()) })
    }

    /// Reads the files again. On an error the old certificate stays in force.
    ///
    /// # Errors
    /// As [`TlsServer::load`].
    pub fn reload(&self) -> Result<(), TlsError> {
        let (config, expires) = server_config(&self.files, self.alpn)?;
        self.config.store(Arc::new(config));
        self.expires.store(expires, Ordering::Relaxed);
        Ok(())
    }

    /// When the first certificate of the chain expires, in seconds since 1970 (RFC 5280 section 4.1.2.5); `None` when none of them can
    /// be read.
    pub fn expires(&self) -> Option<i64> {
        Some(self.expires.load(Ordering::Relaxed)).filter(|expires| *expires != i64::MAX)
    }

    pub(crate) fn acceptor(&self) -> TlsAcceptor {
        TlsAcceptor::from(self.config.load_full())
    }
}

/// The configuration, and when its certificate expires.
fn server_config(files: &TlsFiles, alpn: &[&[u8]]) -> Result<(ServerConfig, i64), TlsError> {
    let chain = certificates(&files.cert)?;
    let expires = chain.iter().filter_map(expiry).min().unwrap_or(i64::MAX);
    let key = PrivateKeyDer::from_pem_file(&files.key)
        .map_err(|e| wrong(&files.key, &format!("no private key in it: {e}")))?;
    let builder =
        ServerConfig::builder_with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12]);
    let builder = match &files.client_ca {
        None => builder.with_no_client_auth(),
        Some(path) => {
            let mut roots = RootCertStore::empty();
            for certificate in certificates(path)? {
                roots.add(certificate).map_err(|e| wrong(path, &format!("not a usable authority: {e}")))?;
            }
            let verifier = WebPkiClientVerifier::builder(Arc::new(roots))
                .build()
                .map_err(|e| wrong(path, &format!("not usable for client certificates: {e}")))?;
            builder.with_client_cert_verifier(verifier)
        }
    };
    let mut config = builder
        .with_single_cert(chain, key)
        .map_err(|e| wrong(&files.cert, &format!("certificate and key do not fit: {e}")))?;
    config.alpn_protocols = alpn.iter().map(|p| p.to_vec()).collect();
    Ok((config, expires))
}

/// `notAfter` in seconds since 1970.
fn expiry(certificate: &CertificateDer<'_>) -> Option<i64> {
    let (_, certificate) = x509_parser::parse_x509_certificate(certificate).ok()?;
    Some(certificate.validity().not_after.timestamp())
}

fn certificates(path: &PathBuf) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    if !fs::exists(path).unwrap_or(false) {
        return Err(wrong(path, "no such file; `hilum dev-certs` makes one for development"));
    }
    let list: Result<Vec<_>, _> =
        CertificateDer::pem_file_iter(path).map_err(|e| wrong(path, &e.to_string()))?.collect();
    let list = list.map_err(|e| wrong(path, &format!("not pem: {e}")))?;
    if list.is_empty() { Err(wrong(path, "no certificate in it")) } else { Ok(list) }
}

fn wrong(path: &std::path::Path, reason: &str) -> TlsError {
    TlsError { path: path.display().to_string(), reason: reason.to_owned() }
}
