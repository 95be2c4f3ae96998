//! `hilum send dicom`

use std::time::Duration;

use anyhow::{Context, Result};
use hilum_deliver::peers::storage_scu::{Association, Object, Options, ScuError, Stored, parts};
use hilum_wire::dimse::status;
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::cli::Send;

/// C-STORE of each file, or C-ECHO without files. One line for each; false when one was not stored.
pub(super) async fn run(arguments: &Send) -> Result<bool> {
    let options = Options {
        called: arguments.called.clone(),
        calling: arguments.calling.clone(),
        timeout: Duration::from_secs(arguments.timeout),
    };
    if arguments.paths.is_empty() {
        return echo(arguments, &options).await;
    }
    let (mut objects, mut fine) = (Vec::new(), true);
    for path in super::map::files(&arguments.paths)? {
        match Object::open(&path).await {
            Ok(object) => objects.push(object),
            Err(error) => {
                fine = false;
                line(&path, &format!("not sent: {}", full(&error)));
            }
        }
    }
    for part in parts(objects) {
        fine &= store(arguments, &options, &part).await?;
    }
    Ok(fine)
}

async fn echo(arguments: &Send, options: &Options) -> Result<bool> {
    let mut association = Association::open(connect(arguments).await?, &[], options).await?;
    let answer = association.echo().await?;
    line(
        arguments.target.as_ref(),
        &format!("{:04X} {} (c-echo)", answer.status, status::meaning(answer.status)),
    );
    association.release().await?;
    Ok(answer.status == status::SUCCESS)
}

/// Sends in one association; after a break the rest goes in a new one.
async fn store(arguments: &Send, options: &Options, objects: &[Object]) -> Result<bool> {
    let (mut left, mut fine) = (objects, true);
    while !left.is_empty() {
        let mut association = Association::open(connect(arguments).await?, left, options).await?;
        while let Some((object, rest)) = left.split_first() {
            left = rest;
            match association.store(object).await {
                Ok(stored) => fine &= told(object, &stored),
                Err(error) => {
                    fine = false;
                    line(&object.path, &format!("not stored: {}", full(&error)));
                    break;
                }
            }
            if left.is_empty() {
                return association.release().await.map(|()| fine).context("the release was not answered");
            }
        }
    }
    Ok(fine)
}

async fn connect(arguments: &Send) -> Result<TcpStream> {
    let target = arguments.target.trim_start_matches("dicom://");
    let limit = Duration::from_secs(arguments.timeout);
    let stream = timeout(limit, TcpStream::connect(target))
        .await
        .with_context(|| format!("{target} does not answer in {limit:?}"))?
        .with_context(|| format!("nobody answers on {target}"))?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

fn told(object: &Object, stored: &Stored) -> bool {
    match stored {
        Stored::Answered(answer) => {
            let comment =
                if answer.comment.is_empty() { String::new() } else { format!(" ({})", answer.comment) };
            line(&object.path, &format!("{:04X} {}{comment}", answer.status, status::meaning(answer.status)));
            status::is_done(answer.status)
        }
        Stored::NoContext => {
            let text =
                format!("not sent: the peer takes no {} in {}", object.sop_class, object.transfer_syntax);
            line(&object.path, &text);
            false
        }
    }
}

fn full(error: &ScuError) -> String {
    match std::error::Error::source(error) {
        Some(cause) => format!("{error}: {cause}"),
        None => error.to_string(),
    }
}

#[expect(clippy::print_stdout, reason = "this is the command's output")]
fn line(name: &std::path::Path, text: &str) {
    println!("{}: {text}", name.display());
}
