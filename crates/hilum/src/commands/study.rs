//! `hilum study delete`: a study goes with everything of it.
//!
//! It looks beside a running edge, and writes: to files only while no edge runs, else the edge does it itself (`DELETE /admin/studies/UID`).

use std::io::Write;
use std::process::ExitCode;

use anyhow::Result;
use hilum_intake::store::StudyContents;
use hilum_intake::view;

use super::opened::{Instead, Opened};
use super::who;
use crate::cli::{StudyArgs, StudyCommand, StudyDelete};
use crate::config::Config;

/// Deletes.
pub(crate) fn run(config: &Config, arguments: &StudyArgs) -> Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let site = arguments.site.as_deref().unwrap_or(&config.site[0].id);
    match &arguments.command {
        StudyCommand::Delete(wanted) => runtime.block_on(delete(config, site, wanted)),
    }
}

#[expect(clippy::print_stdout, reason = "this is the command's output")]
async fn delete(config: &Config, site: &str, wanted: &StudyDelete) -> Result<ExitCode> {
    let beside = Opened::beside(config, site).await?;
    let found = beside.intake.store().study_contents(&beside.site, &wanted.uid).await?;
    beside.intake.store().close().await;
    let mut removed = StudyContents::default();
    if found.studies > 0 {
        if !wanted.yes && !is_confirmed(site, &found)? {
            println!("nothing was removed");
            return Ok(ExitCode::FAILURE);
        }
        let path = format!("/admin/studies/{}", wanted.uid);
        let instead =
            Instead { what: "removes studies", method: "DELETE", path: &path, scope: "admin/studies" };
        let opened = Opened::writing(config, site, &instead).await?;
        removed = opened.intake.store().delete_study(&opened.site, &wanted.uid, &who()).await?;
        opened.intake.store().close().await;
    }
    if wanted.json {
        println!("{:#}", view::study(&wanted.uid, &removed));
        return Ok(ExitCode::SUCCESS);
    }
    match removed.submission {
        Some(number) => println!("removed {}; submission {number} says so", amount(&removed)),
        None => println!("there is no study {} at the site {site}: nothing was removed", wanted.uid),
    }
    Ok(ExitCode::SUCCESS)
}

/// Asks whoever started the command.
#[expect(clippy::print_stderr, reason = "a question is no output of the command")]
fn is_confirmed(site: &str, found: &StudyContents) -> Result<bool> {
    eprint!(
        "{} of the site {site} will be removed for good, with the ImagingStudy and the performed steps. Type yes to go on: ",
        amount(found)
    );
    std::io::stderr().flush()?;
    let mut answer = String::new();
    std::io::stdin().read_line(&mut answer)?;
    Ok(answer.trim() == "yes")
}

/// Studies and images, for people.
fn amount(contents: &StudyContents) -> String {
    let count = |number: u64, one: &str, several: &str| {
        format!("{number} {}", if number == 1 { one } else { several })
    };
    let studies = count(u64::from(contents.studies), "study", "studies");
    format!("{studies} with {}", count(contents.images, "image", "images"))
}
