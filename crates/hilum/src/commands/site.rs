//! `hilum site`

use std::process::ExitCode;

use anyhow::{Context, Result};
use hilum_intake::store::{Control, SiteSettings};

use crate::cli::{SiteArgs, SiteCommand};
use crate::config::Config;

/// Lists sites, or switches one off and on. A running edge sees the change on its next request.
#[expect(clippy::print_stdout, reason = "this is the command's output")]
pub(crate) fn run(config: &Config, arguments: &SiteArgs) -> Result<ExitCode> {
    let control = super::control(config)?;
    match &arguments.command {
        SiteCommand::List { json: true } => {
            let sites: Vec<SiteSettings> = control.sites()?.iter().map(|s| s.settings().clone()).collect();
            println!("{}", serde_json::to_string_pretty(&sites)?);
        }
        SiteCommand::List { json: false } => {
            for site in control.sites()? {
                let settings = site.settings();
                let state = if settings.disabled { "disabled" } else { "enabled" };
                println!(
                    "{:<24} {:<9} {:<20} {}",
                    settings.id,
                    state,
                    settings.timezone,
                    settings.ae_titles.join(" ")
                );
                for authority in &settings.authorities {
                    println!("  authority {}: {}", authority.names.join(", "), authority.system);
                }
            }
        }
        SiteCommand::Disable { id } => switch(&control, id, true)?,
        SiteCommand::Enable { id } => switch(&control, id, false)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn switch(control: &Control, id: &str, disabled: bool) -> Result<()> {
    let site = control.sites()?.into_iter().find(|s| s.id() == id);
    let site = site.with_context(|| format!("there is no site {id:?}; `hilum site list` shows them"))?;
    control.put_site(SiteSettings { disabled, ..site.settings().clone() })?;
    Ok(())
}
