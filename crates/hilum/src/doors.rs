//! From `[[listen]]` tables to open doors. Adding a protocol costs one arm here; forgetting it does not compile.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use axum::Router;
use hilum_intake::Intake;
use hilum_intake::store::Site;
use hilum_listen::http::{ALPN, HttpSession};
use hilum_listen::{
    Auth, Credentials, Limits, Listener, Session, Settings, TlsFiles, TlsServer, admin, documentation, health,
};
use metrics_exporter_prometheus::PrometheusHandle;
use serde::Serialize;
use utoipa::openapi::OpenApi;

use crate::config::{AuthMode, Config, Listen, Protocol, Surface};

/// Describes the API page of a listener that serves several surfaces.
const EVERYTHING: &str =
    "What this listener serves. `/fhir/metadata` lists FHIR types and search parameters.";

/// A door: an open socket, and what is spoken through it.
pub(crate) struct Door {
    /// The socket.
    pub(crate) listener: Listener,
    /// The protocol.
    pub(crate) session: Arc<dyn Session>,
    /// Its certificate, when it has one.
    pub(crate) tls: Option<TlsServer>,
    /// What is told of it.
    pub(crate) card: Card,
}

/// What is told of an open door: in the table at start and in the ready file.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Card {
    /// As in the configuration.
    pub(crate) protocol: &'static str,
    /// Address and port in use.
    pub(crate) address: String,
    /// What an HTTP door serves.
    pub(crate) surfaces: Vec<&'static str>,
    /// Whether a key is needed.
    #[serde(skip)]
    pub(crate) keys: bool,
}

/// What the doors of one edge have in common.
pub(crate) struct House<'a> {
    /// The configuration.
    pub(crate) config: &'a Config,
    /// The way in.
    pub(crate) intake: Intake,
    /// The metrics page.
    pub(crate) metrics: PrometheusHandle,
}

impl House<'_> {
    /// Opens the socket of a `[[listen]]` table. Nothing is accepted yet.
    pub(crate) fn open(&self, listen: &Listen) -> Result<Door> {
        let tls = tls(listen)?;
        let session: Arc<dyn Session> = match listen.protocol {
            Protocol::Http | Protocol::Https => Arc::new(self.http(listen)?),
            Protocol::Mllp | Protocol::Mllps => {
                let site = listen.site.as_deref().map(|id| self.site(id)).transpose()?;
                let mllp = hilum_listen_mllp::Mllp::new(self.intake.clone(), self.limits(), site);
                Arc::new(mllp.with_warnings(listen.ack_warnings.unwrap_or(true)))
            }
            Protocol::Dicom | Protocol::Dicoms => {
                Arc::new(hilum_listen_dicom::Dicom::new(self.intake.clone(), self.limits()))
            }
        };
        let listener = Listener::bind(listen.address, settings(listen, self.limits(), tls.clone()))?;
        let card = Card {
            protocol: listen.protocol.as_str(),
            address: listener.address().to_string(),
            surfaces: listen.surfaces.iter().map(|s| s.as_str()).collect(),
            keys: listen.protocol.is_http() && listen.auth == AuthMode::Keys,
        };
        Ok(Door { listener, session, tls, card })
    }

    fn limits(&self) -> &Limits {
        &self.config.limits
    }

    fn http(&self, listen: &Listen) -> Result<HttpSession> {
        let store = self.intake.store().clone();
        let mut router = health::router(store.clone());
        let mut pages: Option<OpenApi> = None;
        for surface in &listen.surfaces {
            let (routes, page) = self.surface(*surface, listen);
            router = router.merge(routes);
            match (&mut pages, page) {
                (Some(pages), Some(page)) => {
                    pages.merge(page);
                    pages.info.title = "Hilum".to_owned();
                    pages.info.description = Some(EVERYTHING.to_owned());
                }
                (None, page) => pages = page,
                (Some(_), None) => {}
            }
        }
        let auth = match listen.auth {
            AuthMode::Keys => Auth::Keys,
            AuthMode::None => {
                Auth::None(self.site(listen.site.as_deref().unwrap_or(&self.config.site[0].id))?)
            }
        };
        let limits = self.limits().http;
        let credentials = Credentials::new(store, auth, limits.auth_failures_per_minute_max);
        let session =
            HttpSession::new(router.merge(documentation(pages.unwrap_or_default())), credentials, limits);
        Ok(session.behind(listen.front()?).with_cors(listen.cors()?))
    }

    /// What URLs below this edge begin with, whichever listener is asked.
    fn roots(&self) -> Vec<String> {
        let serving = self.config.listen.iter().filter(|listen| listen.surfaces.contains(&Surface::Fhir));
        // the configuration was checked when it was read
        serving.flat_map(|listen| listen.front().unwrap_or_default().roots()).collect()
    }

    fn surface(&self, surface: Surface, listen: &Listen) -> (Router, Option<OpenApi>) {
        let intake = self.intake.clone();
        match surface {
            Surface::Fhir => {
                let fhir = &self.config.fhir;
                let settings = hilum_listen_fhir::Settings {
                    aliases: fhir.aliases.clone(),
                    roots: self.roots(),
                    cors: !listen.cors_origins.is_empty(),
                    deny_delete: fhir.deny_delete.clone(),
                    client_ids: fhir.client_ids,
                    limits: *self.limits(),
                };
                (hilum_listen_fhir::router(settings, intake), Some(hilum_listen_fhir::openapi()))
            }
            Surface::Hl7 => {
                let router =
                    hilum_listen_hl7::router(intake, self.limits(), listen.ack_warnings.unwrap_or(true));
                (router, Some(hilum_listen_hl7::openapi()))
            }
            Surface::Mpps => {
                (hilum_listen_mpps::router(intake, self.limits()), Some(hilum_listen_mpps::openapi()))
            }
            Surface::Metrics => (health::metrics(self.metrics.clone()), None),
            Surface::Admin => (admin::router(intake), Some(admin::openapi())),
        }
    }

    fn site(&self, id: &str) -> Result<Site> {
        let site = self.intake.store().control().site(id)?;
        site.with_context(|| format!("the site {id:?} is unknown or disabled; `hilum site list` shows them"))
    }
}

fn tls(listen: &Listen) -> Result<Option<TlsServer>> {
    let (Some(cert), Some(key)) = (&listen.cert, &listen.key) else { return Ok(None) };
    let files = TlsFiles { cert: cert.clone(), key: key.clone(), client_ca: listen.client_ca.clone() };
    let alpn = if listen.protocol.is_http() { ALPN } else { &[] };
    Ok(Some(TlsServer::load(files, alpn)?))
}

fn settings(listen: &Listen, limits: &Limits, tls: Option<TlsServer>) -> Settings {
    let Limits { http, mllp, dicom, .. } = limits;
    let (connections_max, per_peer_max, handshake_ms, drain_ms) = match listen.protocol {
        Protocol::Http | Protocol::Https => {
            (http.connections_max, http.per_peer_max, http.tls_handshake_timeout_ms, http.drain_timeout_ms)
        }
        Protocol::Mllp | Protocol::Mllps => {
            (mllp.connections_max, mllp.per_peer_max, mllp.tls_handshake_timeout_ms, mllp.drain_timeout_ms)
        }
        Protocol::Dicom | Protocol::Dicoms => (
            dicom.associations_max,
            dicom.per_peer_max,
            dicom.tls_handshake_timeout_ms,
            dicom.drain_timeout_ms,
        ),
    };
    Settings {
        name: format!("{}-{}", listen.protocol.as_str(), listen.address.port()).into(),
        connections_max,
        per_peer_max,
        tls_handshake_timeout: Duration::from_millis(handshake_ms),
        drain_timeout: Duration::from_millis(drain_ms),
        tls,
    }
}
