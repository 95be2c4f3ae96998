//! `hilum map`

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context, Result};
use bytes::Bytes;
use hilum_fhir::{Issue, IssueCode};
use hilum_intake::normalise::{InstanceHeader, Normalised, Payload, Rules, bundle, normalise, rows};
use hilum_listen::Limits;
use hilum_wire::er7::{self, split_batch, unframed};
use hilum_wire::part10::Head;
use hilum_wire::scan::{self, Scanner, Tag};
use hilum_wire::v3;
use serde_json::json;

use crate::cli::Map;
use crate::config::Config;

/// Elements of a data set that are named when nothing maps them.
const TAGS_LISTED_MAX: usize = 1_000;

/// Shows what files mean. Nothing is stored.
pub(crate) fn run(config: &Config, arguments: &Map) -> Result<ExitCode> {
    let rules = super::rules(config)?;
    let rules = rules.of(&arguments.site);
    let site = config.sites()?.into_iter().find(|s| s.id == arguments.site);
    let site = site.with_context(|| format!("there is no site {:?} in the configuration", arguments.site))?;
    let mut all_fine = true;
    for path in files(&arguments.paths)? {
        let bytes = std::fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let mut context = hilum_intake::context_of(&site, hilum_intake::now());
        // the same file shows the same full URLs each time
        context.seed = 0;
        let messages = messages(&path, &bytes, &config.limits);
        all_fine &= show(&path, &messages, rules, &context, arguments);
    }
    Ok(if all_fine { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

#[expect(clippy::print_stdout, reason = "this is the command's output")]
fn show(
    path: &Path,
    messages: &[Submitted],
    rules: &Rules,
    context: &hilum_intake::normalise::Context,
    arguments: &Map,
) -> bool {
    let mut fine = true;
    for (number, (message, payload)) in messages.iter().enumerate() {
        let mapped = match payload {
            Ok(payload) => normalise(payload, rules, context),
            Err(issue) => Normalised { issues: vec![issue.clone()], ..Normalised::default() },
        };
        fine &= !mapped.rejected();
        let name = format!(
            "{}{}",
            path.display(),
            if messages.len() > 1 { format!("#{}", number + 1) } else { String::new() }
        );
        if arguments.summary {
            println!("{}", summary(&name, message, payload.as_ref().ok(), &mapped));
        } else if arguments.json {
            let issues: Vec<_> =
                mapped.issues.iter().map(|i| (i.severity.as_str(), &i.location, &i.diagnostics)).collect();
            println!(
                "{}",
                json!({ "file": name, "bundle": bundle(&mapped), "rows": rows(&mapped), "issues": issues, "unmapped": mapped.unmapped, "lineage": mapped.lineage })
            );
        } else {
            println!("{:#}", bundle(&mapped));
            for row in rows(&mapped) {
                println!("{row}");
            }
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

/// Bytes of a submission and what they hold; or why a listener would not take them.
type Submitted = (Bytes, Result<Payload, Issue>);

/// The submissions in a file: a DICOM object, a performed procedure step as JSON, an HL7 v3 interaction, else HL7 v2.
fn messages(path: &Path, bytes: &[u8], limits: &Limits) -> Vec<Submitted> {
    let bytes = Bytes::copy_from_slice(bytes);
    if is_dicom(path, &bytes) {
        return vec![(bytes.clone(), instance(&bytes))];
    }
    // past a byte order mark, and what utf-16 puts before a letter
    let mark = |b: &&u8| b.is_ascii_whitespace() || matches!(b, 0 | 0xEF | 0xBB | 0xBF | 0xFE | 0xFF);
    match bytes.iter().find(|b| !mark(b)) {
        Some(b'{') => vec![(bytes.clone(), Ok(Payload::Mpps(bytes)))],
        Some(b'<') => vec![(bytes.clone(), interaction(&bytes, limits))],
        _ => {
            let batch = split_batch(unframed(&bytes), &limits.er7.reader());
            let messages = batch.messages.iter().map(|message| Bytes::copy_from_slice(message));
            messages.map(|message| (message.clone(), Ok(Payload::V2(message)))).collect()
        }
    }
}

fn interaction(bytes: &[u8], limits: &Limits) -> Result<Payload, Issue> {
    match v3::Message::read(bytes, &limits.xml.reader()) {
        Ok(message) => Ok(Payload::V3(Arc::new(message))),
        Err(v3::Refusal::Xml(fault)) => Err(Issue::error(IssueCode::Structure, fault.text).at(fault.place)),
        Err(v3::Refusal::Soap(_, trouble)) => Err(Issue::error(IssueCode::Structure, trouble.reason())),
    }
}

fn is_dicom(path: &Path, bytes: &[u8]) -> bool {
    let named = path.extension().is_some_and(|e| e.eq_ignore_ascii_case("dcm"));
    named || bytes.get(128..132) == Some(b"DICM")
}

/// The instance in a file, as if it had been received: of a data set the listener would refuse, why.
fn instance(bytes: &Bytes) -> Result<Payload, Issue> {
    let wrong = |text: String| Issue::error(IssueCode::Structure, text);
    let head = Head::read(bytes).ok_or_else(|| wrong("no dicom data set begins here".to_owned()))?;
    let data_set = &bytes[head.data_set_at..];
    let mut scanner = Scanner::new(&head.transfer_syntax, scan::Limits::default()).listing(TAGS_LISTED_MAX);
    scanner.feed(data_set);
    let header = scanner.finish().map_err(|malformed| wrong(malformed.to_string()))?;
    let uid = |tag| header.uid(tag).ok_or_else(|| wrong(format!("{tag} is missing or no uid")));
    Ok(Payload::Instance(Box::new(InstanceHeader {
        sop_class: uid(Tag::new(0x0008, 0x0016))?,
        sop_instance: uid(Tag::new(0x0008, 0x0018))?,
        transfer_syntax: head.transfer_syntax,
        dataset_bytes: data_set.len() as u64,
        dataset_sha256: hilum_intake::sha256(data_set),
        blob: [0; 32],
        blob_bytes: bytes.len() as u64,
        header,
    })))
}

/// One line: what was made, and that every byte is accounted for.
fn summary(name: &str, message: &[u8], payload: Option<&Payload>, mapped: &Normalised) -> String {
    let Some(Payload::V2(_)) = payload else {
        return counts(name, message.len(), message.len(), mapped);
    };
    let read = er7::Message::read(message, &er7::Limits::default());
    let bytes = read.map_or(message.len(), |read| {
        let text: usize = read.segments.iter().map(|s| s.range.len()).sum::<usize>() + read.other_bytes;
        if text == read.text.len() { message.len() } else { text }
    });
    counts(name, bytes, message.len(), mapped)
}

fn counts(name: &str, bytes: usize, of: usize, mapped: &Normalised) -> String {
    let verdict = if mapped.rejected() { "rejected" } else { "mapped" };
    let first = mapped.issues.iter().find(|i| i.rejects()).map(|i| i.diagnostics.clone()).unwrap_or_default();
    format!(
        "{verdict:<9} bytes {bytes}/{of} changes {} unmapped {} issues {} {name} {first}",
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
