//! `hilum map`

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context, Result};
use bytes::Bytes;
use hilum_fhir::{Issue, IssueCode};
use hilum_intake::normalise::{Normalised, Payload, Rules, bundle, normalise};
use hilum_wire::er7::{self, split_batch, unframed};
use hilum_wire::v3;
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
    let batch = split_batch(unframed(bytes), &er7::Limits::default());
    let kind = Kind::of(bytes);
    let messages = if kind == Kind::Er7 { batch.messages.clone() } else { vec![bytes] };
    let mut fine = true;
    for (number, message) in messages.iter().enumerate() {
        let mapped = match kind.payload(message) {
            Ok(payload) => normalise(&payload, rules, context),
            Err(issue) => Normalised { issues: vec![issue], ..Normalised::default() },
        };
        fine &= !mapped.rejected();
        let name = format!(
            "{}{}",
            path.display(),
            if messages.len() > 1 { format!("#{}", number + 1) } else { String::new() }
        );
        if arguments.summary {
            println!("{}", summary(&name, message, kind, &mapped));
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

/// What a file holds, told by its first byte.
#[derive(Clone, Copy, PartialEq)]
enum Kind {
    /// A performed procedure step.
    Json,
    /// An HL7 v3 interaction.
    Xml,
    /// HL7 v2, and all else.
    Er7,
}

impl Kind {
    fn of(bytes: &[u8]) -> Self {
        // past a byte order mark, and what utf-16 puts before a letter
        let first = bytes
            .iter()
            .find(|b| !b.is_ascii_whitespace() && !matches!(b, 0 | 0xEF | 0xBB | 0xBF | 0xFE | 0xFF));
        match first {
            Some(b'{') => Self::Json,
            Some(b'<') => Self::Xml,
            _ => Self::Er7,
        }
    }

    fn payload(self, message: &[u8]) -> Result<Payload, Issue> {
        let bytes = Bytes::copy_from_slice(message);
        match self {
            Self::Json => Ok(Payload::Mpps(bytes)),
            Self::Er7 => Ok(Payload::V2(bytes)),
            Self::Xml => match v3::Message::read(message, &v3::Limits::default()) {
                Ok(message) => Ok(Payload::V3(Arc::new(message))),
                Err(v3::Refusal::Xml(fault)) => {
                    Err(Issue::error(IssueCode::Structure, fault.text).at(fault.place))
                }
                Err(v3::Refusal::Soap(_, trouble)) => {
                    Err(Issue::error(IssueCode::Structure, trouble.reason()))
                }
            },
        }
    }
}

/// One line: what was made, and that every byte is accounted for.
fn summary(name: &str, message: &[u8], kind: Kind, mapped: &Normalised) -> String {
    let read = er7::Message::read(message, &er7::Limits::default()).filter(|_| kind == Kind::Er7);
    let bytes = read.map_or(message.len(), |read| {
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
