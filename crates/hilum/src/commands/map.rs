//! `hilum map`

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result};
use bytes::Bytes;
use hilum_intake::normalise::{Normalised, Payload, Rules, bundle, normalise};
use hilum_wire::er7::{self, split_batch, unframed};
use serde_json::json;

use crate::cli::Map;
use crate::config::Config;

/// Shows what files mean. Nothing is stored.
pub(crate) fn run(config: &Config, arguments: &Map) -> Result<ExitCode> {
    let rules = super::rules(config)?;
    let site = config.sites()?.into_iter().find(|s| s.id == arguments.site);
    let site = site.with_context(|| format!("there is no site {:?} in the configuration", arguments.site))?;
    let mut all_fine = true;
    for path in files(&arguments.paths)? {
        let bytes = std::fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let mut context = hilum_intake::context_of(&site, hilum_intake::now());
        // the same file shows the same full URLs each time
        context.seed = 0;
        all_fine &= show(&path, &bytes, &rules, &context, arguments);
    }
    Ok(if all_fine { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

#[expect(clippy::print_stdout, reason = "this is the command's output")]
fn show(
    path: &Path,
    bytes: &[u8],
    rules: &Rules,
    context: &hilum_intake::normalise::Context,
    arguments: &Map,
) -> bool {
    // JSON is a performed procedure step, everything else HL7 v2
    let is_json = bytes.iter().find(|b| !b.is_ascii_whitespace()) == Some(&b'{');
    let batch = split_batch(unframed(bytes), &er7::Limits::default());
    let messages = if is_json { vec![bytes] } else { batch.messages.clone() };
    let mut fine = true;
    for (number, message) in messages.iter().enumerate() {
        let message_bytes = Bytes::copy_from_slice(message);
        let payload = if is_json { Payload::Mpps(message_bytes) } else { Payload::V2(message_bytes) };
        let mapped = normalise(&payload, rules, context);
        fine &= !mapped.rejected();
        let name = format!(
            "{}{}",
            path.display(),
            if messages.len() > 1 { format!("#{}", number + 1) } else { String::new() }
        );
        if arguments.summary {
            println!("{}", summary(&name, message, &mapped));
        } else if arguments.json {
            let issues: Vec<_> =
                mapped.issues.iter().map(|i| (i.severity.as_str(), &i.location, &i.diagnostics)).collect();
            println!(
                "{}",
                json!({ "file": name, "bundle": bundle(&mapped), "issues": issues, "unmapped": mapped.unmapped, "lineage": mapped.lineage })
            );
        } else {
            println!("{:#}", bundle(&mapped));
            println!("\nissues of {name}:");
            for issue in &mapped.issues {
                println!(
                    "  {:<12} {:<16} {}",
                    issue.severity.as_str(),
                    issue.location.as_deref().unwrap_or("-"),
                    issue.diagnostics
                );
            }
            println!("\nlineage (element <- source, by rule):");
            for l in &mapped.lineage {
                println!("  [{}] {:<40} <- {:<12} {}", l.change, l.path, l.source, l.rule);
            }
            println!(
                "\nunmapped: {}",
                if mapped.unmapped.is_empty() { "nothing".to_owned() } else { mapped.unmapped.join(" ") }
            );
        }
    }
    fine
}

/// One line: what was made, and that every byte is accounted for.
fn summary(name: &str, message: &[u8], mapped: &Normalised) -> String {
    let read = er7::Message::read(message, &er7::Limits::default());
    let bytes = read.map_or(0, |read| {
        let text: usize = read.segments.iter().map(|s| s.range.len()).sum::<usize>() + read.other_bytes;
        if text == read.text.len() { message.len() } else { text }
    });
    let verdict = if mapped.rejected() { "rejected" } else { "mapped" };
    let first = mapped.issues.iter().find(|i| i.rejects()).map(|i| i.diagnostics.clone()).unwrap_or_default();
    format!(
        "{verdict:<9} bytes {bytes}/{} changes {} unmapped {} issues {} {name} {first}",
        message.len(),
        mapped.changes.len(),
        mapped.unmapped.len(),
        mapped.issues.len()
    )
}

/// Files, and those in folders, in order of name.
pub(super) fn files(paths: &[PathBuf]) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut waiting: Vec<PathBuf> = paths.iter().rev().cloned().collect();
    while let Some(path) = waiting.pop() {
        if path.is_dir() {
            let mut inside: Vec<PathBuf> = std::fs::read_dir(&path)?.flatten().map(|e| e.path()).collect();
            inside.sort();
            waiting.extend(inside.into_iter().rev());
        } else {
            found.push(path);
        }
    }
    Ok(found)
}
