//! `hilum deliveries`: what waits for each Subscription, and passing over what a receiver refuses.
//!
//! It looks beside a running edge, and writes: to files only while no edge runs, else the edge does it itself (`POST /admin/deliveries/...`).

use std::process::ExitCode;

use anyhow::{Result, bail};
use hilum_intake::{PassedOver, pass_over, view};
use serde_json::Value;

use super::opened::{Instead, Opened};
use super::who;
use crate::cli::{DeliveriesArgs, DeliveriesCommand, PassOver};
use crate::config::Config;

/// Lists, or passes over.
pub(crate) fn run(config: &Config, arguments: &DeliveriesArgs) -> Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let site = arguments.site.as_deref().unwrap_or(&config.site[0].id);
    runtime.block_on(async {
        match &arguments.command {
            None | Some(DeliveriesCommand::List) => list(config, site, arguments.json).await,
            Some(DeliveriesCommand::PassOver(wanted)) => give_up(config, site, wanted, arguments.json).await,
        }
    })
}

#[expect(clippy::print_stdout, reason = "this is the command's output")]
async fn list(config: &Config, site: &str, json: bool) -> Result<ExitCode> {
    let opened = Opened::beside(config, site).await?;
    let queues = opened.intake.store().queues(&opened.site).await?;
    opened.intake.store().close().await;
    let told: Vec<Value> = queues.iter().map(view::queue).collect();
    if json {
        told.iter().for_each(|queue| println!("{queue}"));
        return Ok(ExitCode::SUCCESS);
    }
    if told.is_empty() {
        println!("there is no Subscription at the site {site}");
        return Ok(ExitCode::SUCCESS);
    }
    println!(
        "{:<44} {:<10} {:<10} {:>8} {:>7}  next",
        "subscription", "state", "owner", "numbered", "waiting"
    );
    told.iter().for_each(|queue| println!("{}", line(queue)));
    Ok(ExitCode::SUCCESS)
}

#[expect(clippy::print_stdout, reason = "this is the command's output")]
async fn give_up(config: &Config, site: &str, wanted: &PassOver, json: bool) -> Result<ExitCode> {
    let path = format!("/admin/deliveries/{}/{}/pass-over", wanted.subscription, wanted.number);
    let instead =
        Instead { what: "passes deliveries over", method: "POST", path: &path, scope: "admin/deliveries" };
    let opened = Opened::writing(config, site, &instead).await?;
    let done = pass_over(&opened.intake, &opened.site, &wanted.subscription, wanted.number, &who()).await?;
    opened.intake.store().close().await;
    let (id, number) = (&wanted.subscription, wanted.number);
    match done {
        PassedOver::Unknown => {
            bail!("there is no Subscription/{id} at the site {site}; `hilum deliveries` lists them")
        }
        PassedOver::NotNext => {
            bail!(
                "delivery {number} is not the one that Subscription/{id} sends next; `hilum deliveries` shows which is"
            )
        }
        PassedOver::Done(queue) if json => println!("{}", view::queue(&queue)),
        PassedOver::Done(queue) => {
            println!("passed over delivery {number} of Subscription/{id}; {} wait", queue.waiting)
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// One destination, for people.
fn line(queue: &Value) -> String {
    let text = |member: &str| queue.get(member).and_then(Value::as_str).unwrap_or("-").to_owned();
    let first = match queue.get("first") {
        None => String::new(),
        Some(first) => format!(
            "number {} after {} attempts{}",
            first["number"],
            first["attempts"],
            first["error"].as_str().map(|error| format!(": {error}")).unwrap_or_default()
        ),
    };
    let error =
        queue.get("error").and_then(Value::as_str).map(|error| format!(" [{error}]")).unwrap_or_default();
    format!(
        "{:<44} {:<10} {:<10} {:>8} {:>7}  {first}{error}",
        text("destination"),
        text("state"),
        text("owner"),
        queue["numbered"],
        queue["waiting"]
    )
}
