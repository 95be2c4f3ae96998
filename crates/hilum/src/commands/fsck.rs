//! `hilum fsck`

use std::process::ExitCode;

use anyhow::Result;
use hilum_intake::store::{self, Checks};

use crate::cli::Fsck;
use crate::config::Config;

/// Checks every site; exit code 1 when something is wrong.
#[expect(clippy::print_stdout, reason = "this is the command's output")]
pub(crate) fn run(config: &Config, arguments: &Fsck) -> Result<ExitCode> {
    let checks = Checks { deep: arguments.deep, rebuild: arguments.rebuild };
    let all = store::fsck(&crate::serve::store_config(config), checks)?;
    for found in &all {
        let verdict = if found.faults.is_empty() { "clean" } else { "DAMAGED" };
        println!(
            "site {}: {verdict}; {} resources, {} versions, {} blobs",
            found.site, found.resources, found.versions, found.blobs
        );
        for fault in &found.faults {
            println!("  {fault}");
        }
        if found.more > 0 {
            println!("  and {} more", found.more);
        }
    }
    let clean = all.iter().all(|found| found.faults.is_empty());
    Ok(if clean { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
