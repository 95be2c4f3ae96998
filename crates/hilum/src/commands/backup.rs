//! `hilum backup` and `hilum restore`

use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, Result};
use hilum_intake::store::{self, Manifest};

use crate::config::Config;

/// Copies databases and blobs; works beside a running edge.
pub(crate) fn backup(config: &Config, out: &Path) -> Result<ExitCode> {
    let data = &config.node.data;
    let manifest = store::backup(&crate::serve::store_config(config), out, &mut progress)
        .with_context(|| format!("backup of {} to {}", data.display(), out.display()))?;
    summary("backed up", &manifest);
    Ok(ExitCode::SUCCESS)
}

/// Puts a backup into the configured data folder, which must be empty.
pub(crate) fn restore(config: &Config, from: &Path) -> Result<ExitCode> {
    let data = &config.node.data;
    let manifest = store::restore(&crate::serve::store_config(config), from, &mut progress)
        .with_context(|| format!("restore of {} to {}", from.display(), data.display()))?;
    summary("restored", &manifest);
    Ok(ExitCode::SUCCESS)
}

#[expect(clippy::print_stderr, reason = "progress is for the person who started it")]
fn progress(step: String) {
    eprintln!("{step}");
}

#[expect(clippy::print_stdout, reason = "this is the command's output")]
fn summary(done: &str, manifest: &Manifest) {
    for site in &manifest.sites {
        println!(
            "{done} site {}: up to feed position {}, {} blobs of {} bytes",
            site.id, site.newest, site.blobs, site.blob_bytes
        );
    }
    println!("{done} everything acknowledged before {}", manifest.begun);
}
