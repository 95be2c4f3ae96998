//! `hilum migrate`

use std::process::ExitCode;

use anyhow::Result;
use hilum_intake::store::Store;

use crate::config::Config;

/// Opens every database, which brings it to this version's schema; a newer schema is refused.
#[expect(clippy::print_stdout, reason = "this is the command's output")]
pub(crate) fn run(config: &Config) -> Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let sites = super::control(config)?.sites()?;
        let store = Store::open(crate::serve::store_config(config)).await?;
        for site in &sites {
            let newest = store.feed(site, 0, 1).await?.len();
            println!("site {}: current{}", site.id(), if newest == 0 { ", empty" } else { "" });
        }
        store.close().await;
        Ok(ExitCode::SUCCESS)
    })
}
