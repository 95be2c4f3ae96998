//! The store of an edge, opened by a command: to be read beside it, or to be written.

use std::path::Path;

use anyhow::{Context, Result, anyhow, bail};
use hilum_intake::Intake;
use hilum_intake::store::{Config as StoreConfig, Site, Store};

use crate::config::Config;

/// The store of an edge, and one of its sites.
pub(super) struct Opened {
    pub(super) intake: Intake,
    pub(super) site: Site,
}

/// The request that makes a running edge do what a command cannot do beside it.
pub(super) struct Instead<'t> {
    /// What the edge does itself.
    pub(super) what: &'t str,
    pub(super) method: &'t str,
    pub(super) path: &'t str,
    pub(super) scope: &'t str,
}

impl Opened {
    /// To be read, whether an edge runs or not. Nothing is created.
    pub(super) async fn beside(config: &Config, site: &str) -> Result<Self> {
        Self::open(config, site, false).await
    }

    /// To be written: a database of files belongs to the edge that runs; on a server any may write.
    pub(super) async fn writing(config: &Config, site: &str, instead: &Instead<'_>) -> Result<Self> {
        let on_server = config.store.server()?.is_some();
        let Instead { what, method, path, scope } = instead;
        let busy = |error: anyhow::Error| {
            anyhow!(
                "{error}\nwhile an edge runs it {what} itself: give an http listener the surface \"admin\", make a key (`hilum key add --name NAME \
                 --scope {scope}`), then\n  curl -X {method} -H 'X-API-Key: KEY' 'http://ADDRESS{path}'"
            )
        };
        if !on_server && !Path::new(&config.node.data).exists() {
            bail!("there is no store in {}", config.node.data.display());
        }
        Self::open(config, site, !on_server).await.map_err(busy)
    }

    async fn open(config: &Config, site: &str, exclusive: bool) -> Result<Self> {
        let store = Store::open(StoreConfig { exclusive, ..crate::serve::store_config(config) }).await?;
        let known = store.control().sites()?.into_iter().find(|known| known.id() == site);
        let site =
            known.with_context(|| format!("there is no site {site:?}; `hilum site list` shows them"))?;
        Ok(Self { intake: Intake::new(store, super::rules(config)?), site })
    }
}
