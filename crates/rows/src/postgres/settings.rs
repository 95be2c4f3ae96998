//! How the server is reached: the URL, its password, TLS.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use rustls_platform_verifier::BuilderVerifierExt;
use tokio_postgres::config::{Host, SslMode};
use tokio_postgres_rustls::MakeRustlsConnect;

use crate::Error;

/// A server that does not answer for so long is taken for lost.
pub(super) const PATIENCE: Duration = Duration::from_secs(35);
/// Time to connect.
pub(super) const CONNECT_PATIENCE: Duration = Duration::from_secs(3);
/// A connection on which nothing comes for so long is looked after; as the server does with its side (`connection.rs`).
const KEEPALIVES_IDLE: Duration = Duration::from_secs(10);
const KEEPALIVES_INTERVAL: Duration = Duration::from_secs(5);
const KEEPALIVES_COUNT: u32 = 3;

/// A PostgreSQL server, version 15 or newer.
#[derive(Clone, PartialEq, Eq)]
pub struct PostgresConfig {
    /// `postgresql://user:password@host:port/database`, or `postgresql:///database?host=/folder/of/the/socket`. `sslmode` is
    /// `disable`, `prefer` or `require`; whenever TLS is used the certificate and its name are checked (`verify-full` means the same).
    /// Without it TLS is required, except by a socket or from this machine.
    pub url: String,
    /// The authorities of the server's certificate (PEM); without them those the platform trusts.
    pub ca: Option<PathBuf>,
    /// The password, when it is not in the URL.
    pub password: Option<String>,
    /// Connections that read, at most.
    pub readers_max: usize,
    /// Connections that write, each for another site.
    pub committers: usize,
}

impl PostgresConfig {
    /// A server with the default limits.
    pub fn new(url: String) -> Self {
        Self { url, ca: None, password: None, readers_max: 8, committers: 2 }
    }

    /// The URL without its password and parameters.
    pub fn shown(&self) -> String {
        let rest = self.url.split_once("://").map_or("", |(_, rest)| rest);
        // a password may hold what should have been escaped: all up to the last @ is who connects
        let (user, place) = match rest.rsplit_once('@') {
            Some((user, place)) => (user.split([':', '/', '?']).next().unwrap_or_default(), place),
            None => ("", rest),
        };
        let (place, parameters) = place.split_once('?').unwrap_or((place, ""));
        let host = parameters.split('&').find(|parameter| parameter.starts_with("host="));
        let at = if user.is_empty() { "" } else { "@" };
        let host = host.map(|host| format!("?{host}")).unwrap_or_default();
        format!("postgresql://{user}{at}{place}{host}")
    }

    /// Checks it without connecting.
    ///
    /// # Errors
    /// `Unavailable` with what is wrong, without the password.
    pub fn check(&self) -> Result<(), Error> {
        Target::new(self).map(drop)
    }
}

impl fmt::Debug for PostgresConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PostgresConfig")
            .field("url", &self.shown())
            .field("ca", &self.ca)
            .finish_non_exhaustive()
    }
}

/// Where connections go.
pub(super) struct Target {
    pub(super) config: tokio_postgres::Config,
    pub(super) tls: MakeRustlsConnect,
    pub(super) shown: String,
}

impl Target {
    pub(super) fn new(settings: &PostgresConfig) -> Result<Self, Error> {
        let shown = settings.shown();
        let wrong = |what: String| Error::unavailable(format!("the store url {shown}: {what}"));
        let (url, verify) = without_verify(&settings.url);
        let mut config: tokio_postgres::Config =
            url.parse().map_err(|_| wrong("it is not understood".to_owned()))?;
        if !url.contains("sslmode=") {
            let near = config.get_hosts().iter().all(is_near);
            config.ssl_mode(if near { SslMode::Disable } else { SslMode::Require });
        }
        if verify {
            config.ssl_mode(SslMode::Require);
        }
        if let Some(password) = &settings.password {
            config.password(password);
        }
        if config.get_dbname().is_none() {
            return Err(wrong("it names no database".to_owned()));
        }
        config.application_name("hilum").connect_timeout(CONNECT_PATIENCE);
        config.tcp_user_timeout(PATIENCE).keepalives_idle(KEEPALIVES_IDLE);
        config.keepalives_interval(KEEPALIVES_INTERVAL).keepalives_retries(KEEPALIVES_COUNT);
        let tls = tls(settings).map_err(|error| wrong(error.to_string()))?;
        Ok(Self { config, tls: MakeRustlsConnect::new(tls), shown })
    }
}

/// `sslmode=verify-full` and `verify-ca` are not words of the library; it always verifies here.
fn without_verify(url: &str) -> (String, bool) {
    let plain =
        url.replace("sslmode=verify-full", "sslmode=require").replace("sslmode=verify-ca", "sslmode=require");
    let verify = plain != url;
    (plain, verify)
}

fn is_near(host: &Host) -> bool {
    match host {
        Host::Unix(_) => true,
        Host::Tcp(name) => {
            name == "localhost" || name.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
        }
    }
}

fn tls(settings: &PostgresConfig) -> Result<ClientConfig, Box<dyn std::error::Error + Send + Sync>> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    let Some(path) = &settings.ca else {
        return Ok(builder.with_platform_verifier()?.with_no_client_auth());
    };
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(path)? {
        roots.add(certificate?)?;
    }
    if roots.is_empty() {
        return Err("the file of authorities holds no certificate".into());
    }
    Ok(builder.with_root_certificates(roots).with_no_client_auth())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_never_shown() {
        let settings =
            PostgresConfig::new("postgresql://edge:secret@db.example/hilum?sslmode=verify-full".into());
        assert_eq!(settings.shown(), "postgresql://edge@db.example/hilum");
        assert!(!format!("{settings:?}").contains("secret"));
        for (url, shown) in [
            (
                "postgresql://edge@/hilum?host=/run/postgresql",
                "postgresql://edge@/hilum?host=/run/postgresql",
            ),
            ("postgresql://edge:se/c?r@et@db/hilum", "postgresql://edge@db/hilum"),
            ("postgres://db/hilum?user=edge&password=secret", "postgresql://db/hilum"),
            ("host=db password=secret", "postgresql://"),
        ] {
            assert_eq!(PostgresConfig::new(url.into()).shown(), shown);
        }
        let broken = PostgresConfig::new("postgresql://edge:secret@db.example:x/hilum".into());
        assert!(!broken.check().unwrap_err().message.contains("secret"));
    }

    #[test]
    fn tls_is_required_beyond_this_machine() {
        for (url, mode) in [
            ("postgresql:///hilum?host=/run/postgresql", SslMode::Disable),
            ("postgresql://edge@localhost/hilum", SslMode::Disable),
            ("postgresql://edge@db.example/hilum", SslMode::Require),
            ("postgresql://edge@db.example/hilum?sslmode=prefer", SslMode::Prefer),
            ("postgresql://edge@db.example/hilum?sslmode=verify-full", SslMode::Require),
        ] {
            let target = Target::new(&PostgresConfig::new(url.into())).unwrap();
            assert_eq!(target.config.get_ssl_mode(), mode, "{url}");
        }
        assert!(PostgresConfig::new("postgresql://edge@localhost".into()).check().is_err(), "no database");
    }
}
