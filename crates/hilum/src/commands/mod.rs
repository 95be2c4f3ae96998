//! What the commands do.

pub(crate) mod backup;
pub(crate) mod check;
pub(crate) mod deliveries;
pub(crate) mod dev_certs;
pub(crate) mod fsck;
pub(crate) mod health;
pub(crate) mod key;
pub(crate) mod map;
pub(crate) mod migrate;
mod opened;
pub(crate) mod send;
mod send_dicom;
pub(crate) mod site;
pub(crate) mod study;
pub(crate) mod submissions;

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, Result};
use hilum_intake::SiteRules;
use hilum_intake::normalise::Rules;
use hilum_intake::store::Control;

use crate::config::Config;

/// The control database of the configured store, with the configured sites in it. Works beside a running edge.
pub(crate) fn control(config: &Config) -> Result<Control> {
    std::fs::create_dir_all(&config.node.data)
        .with_context(|| format!("cannot make {}", config.node.data.display()))?;
    let control = Control::open_for(&crate::serve::store_config(config))?;
    for site in config.sites()? {
        let known = control.sites()?.into_iter().find(|s| s.id() == site.id);
        let disabled = known.is_some_and(|s| s.settings().disabled);
        control.put_site(hilum_intake::store::SiteSettings { disabled, ..site })?;
    }
    Ok(control)
}

/// The rule tables of all sites, with the configured overlays. Sites with the same list of their own share what is compiled of it.
pub(crate) fn rules(config: &Config) -> Result<SiteRules> {
    let common = &config.mapping.overlays;
    let mut rules = SiteRules::from(compiled(config, common)?);
    let mut known: HashMap<&[PathBuf], Arc<Rules>> = HashMap::new();
    for site in config.site.iter().filter(|site| !site.overlays.is_empty()) {
        let own = match known.get(site.overlays.as_slice()) {
            Some(own) => own.clone(),
            None => {
                let all: Vec<PathBuf> = common.iter().chain(&site.overlays).cloned().collect();
                Arc::new(compiled(config, &all).with_context(|| format!("overlays of the site {}", site.id))?)
            }
        };
        rules = rules.with(&site.id, own.clone());
        known.insert(&site.overlays, own);
    }
    Ok(rules)
}

fn compiled(config: &Config, paths: &[PathBuf]) -> Result<Rules> {
    let mut overlays = Vec::with_capacity(paths.len());
    for path in paths {
        let text = std::fs::read_to_string(path)
            .with_context(|| format!("cannot read the overlay {}", path.display()))?;
        overlays.push((path.display().to_string(), text));
    }
    let rules = Rules::compile(&overlays).map_err(|errors| {
        let lines: Vec<String> = errors.iter().map(ToString::to_string).collect();
        anyhow::anyhow!("{} rule rows were not understood:\n{}", errors.len(), lines.join("\n"))
    })?;
    Ok(rules.reading(config.limits.er7.reader()))
}

/// In whose name a command writes: the user of this machine.
fn who() -> String {
    let named = |name: &&str| std::env::var(name).is_ok_and(|user| !user.is_empty());
    let user = ["SUDO_USER", "USER", "LOGNAME"].into_iter().find(named);
    let user = user.and_then(|name| std::env::var(name).ok()).unwrap_or_else(|| "unknown".to_owned());
    format!("command of the user {user}")
}
