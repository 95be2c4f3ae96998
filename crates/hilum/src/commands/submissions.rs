//! `hilum submissions`: what came in, what was answered and why, and doing it again.
//!
//! Listing and showing only read, beside a running edge too. A replay that is committed writes: of files only while no edge runs, else the edge does
//! it itself (`/admin/submissions`).

use std::io::Write;
use std::process::ExitCode;

use anyhow::{Context, Result};
use hilum_intake::replay::{NoReplay, Replay};
use hilum_intake::store::{Effect, Site, SubmissionFilter, SubmissionRow};
use hilum_intake::{Receipt, context_of, now, view};
use serde_json::Value;
use tokio::io::AsyncReadExt;

use super::opened::{Instead, Opened};
use crate::cli::{SubmissionsArgs, SubmissionsCommand, SubmissionsList, SubmissionsReplay, SubmissionsShow};
use crate::config::Config;

/// Submissions asked for at a time.
const PAGE: u32 = 200;
/// Bytes of an original printed at a time.
const PIECE_BYTES: usize = 128 * 1024;
/// Letters of a value shown of an element that a replay would change.
const VALUE_LETTERS_MAX: usize = 60;

/// Lists, shows or replays.
pub(crate) fn run(config: &Config, arguments: &SubmissionsArgs) -> Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let site = arguments.site.as_deref().unwrap_or(&config.site[0].id);
    runtime.block_on(async {
        match &arguments.command {
            None => list(&Opened::beside(config, site).await?, &arguments.list).await,
            Some(SubmissionsCommand::List(wanted)) => {
                list(&Opened::beside(config, site).await?, wanted).await
            }
            Some(SubmissionsCommand::Show(wanted)) => {
                show(&Opened::beside(config, site).await?, wanted).await
            }
            Some(SubmissionsCommand::Replay(wanted)) => replay(config, site, wanted).await,
        }
    })
}

#[expect(clippy::print_stdout, reason = "this is the command's output")]
async fn list(opened: &Opened, wanted: &SubmissionsList) -> Result<ExitCode> {
    let mut filter = filter(&opened.site, wanted)?;
    let mut left = wanted.count;
    if !wanted.json {
        println!(
            "{:>9}  {:<20} {:<9} {:<18} {:<24} {:<24} {:>7}  why",
            "number", "received", "receipt", "kind", "control", "sender", "changes"
        );
    }
    while left > 0 {
        filter.count = left.min(PAGE);
        let page = opened.intake.store().list_submissions(&opened.site, filter.clone()).await?;
        for row in &page.rows {
            println!("{}", if wanted.json { view::line(row).to_string() } else { line(row) });
        }
        left -= u32::try_from(page.rows.len()).unwrap_or(left).min(left);
        let Some(next) = page.next else { break };
        filter.before = Some(next);
    }
    Ok(ExitCode::SUCCESS)
}

fn filter(site: &Site, wanted: &SubmissionsList) -> Result<SubmissionFilter> {
    let zone = context_of(site.settings(), now()).zone;
    let since = wanted.since.as_deref().map(|text| {
        let hint =
            "--since: give 90m, 12h, 3d, a date (2024-01-31) or a time of the site's zone (2024-01-31T08:00)";
        view::since(text, &zone, now()).context(hint)
    });
    let mut filter = SubmissionFilter {
        before: wanted.before,
        since: since.transpose()?,
        accepted: wanted.rejected.then_some(false),
        attention: wanted.attention,
        control: wanted.control.clone(),
        peer: wanted.peer.clone(),
        listener: wanted.listener.clone(),
        ..SubmissionFilter::default()
    };
    if let Some(kind) = &wanted.kind {
        view::set_kind(&mut filter, kind);
    }
    Ok(filter)
}

/// One line of the list.
fn line(row: &SubmissionRow) -> String {
    let mut why = Vec::new();
    why.extend(row.attention.iter().map(|mark| format!("[{mark}]")));
    if let Some(issue) = row.issues.iter().find(|issue| issue.rejects()) {
        let place = issue.location.as_deref().unwrap_or("-");
        why.push(format!("{place} {}: {}", issue.code.as_str(), issue.diagnostics));
    }
    why.extend(row.replays.map(|number| format!("replays {number}")));
    let received = row.received.to_jiff().strftime("%Y-%m-%d %H:%M:%SZ").to_string();
    let or = |text: &Option<String>| printable(text.as_deref().unwrap_or("-"));
    let kind = row.message.clone().unwrap_or_else(|| view::protocol(row.kind).to_owned());
    format!(
        "{:>9}  {received:<20} {:<9} {kind:<18} {:<24} {:<24} {:>7}  {}",
        row.sequence,
        view::receipt(row),
        or(&row.control_id),
        or(&row.identity),
        row.versions,
        why.join(" ")
    )
    .trim_end()
    .to_owned()
}

#[expect(clippy::print_stdout, reason = "this is the command's output")]
async fn show(opened: &Opened, wanted: &SubmissionsShow) -> Result<ExitCode> {
    let number = wanted.submission;
    let row = opened.intake.store().submission(&opened.site, number).await?;
    let row = row.ok_or(NoReplay::Unknown(number))?;
    if wanted.original {
        return original(opened, &row).await.map(|()| ExitCode::SUCCESS);
    }
    let told = opened.intake.show(&opened.site, number).await?.ok_or(NoReplay::Unknown(number))?;
    if wanted.json {
        println!("{told:#}");
    } else {
        println!("{}", whole(&told));
    }
    Ok(ExitCode::SUCCESS)
}

/// Everything `show` tells, for people.
fn whole(told: &Value) -> String {
    let text = |member: &str| match told.get(member) {
        Some(Value::String(text)) => printable(text),
        Some(value) => value.to_string(),
        None => "-".to_owned(),
    };
    let mut lines = vec![format!("submission {} {}", text("submission"), text("receipt"))];
    let members = [
        "received",
        "listener",
        "peer",
        "sender",
        "called",
        "kind",
        "control",
        "sha256",
        "attention",
        "replays",
    ];
    for member in members.into_iter().filter(|member| told.get(*member).is_some()) {
        lines.push(format!("  {member:<10} {}", text(member)));
    }
    lines.push(match told.get("originalBytes") {
        Some(bytes) => format!("  {:<10} {bytes} bytes; --original prints them", "original"),
        None => format!("  {:<10} not kept", "original"),
    });
    let list = |member: &str| told.get(member).and_then(Value::as_array).cloned().unwrap_or_default();
    let of =
        |value: &Value, member: &str| value.get(member).and_then(Value::as_str).unwrap_or("-").to_owned();
    let mut section = |name: &str, entries: Vec<String>| {
        lines.push(format!("{name}:{}", if entries.is_empty() { " none" } else { "" }));
        lines.extend(entries.into_iter().map(|entry| format!("  {entry}")));
    };
    section(
        "changes",
        list("changes").iter().map(|c| format!("{} version {}", of(c, "resource"), c["version"])).collect(),
    );
    let issue = |i: &Value| {
        format!("{:<8} {:<16} {}: {}", of(i, "severity"), of(i, "place"), of(i, "code"), of(i, "text"))
    };
    section("issues", list("issues").iter().map(issue).collect());
    section("unmapped", list("unmapped").iter().filter_map(|u| u.as_str().map(printable)).collect());
    section("answer", text_lines(told.get("answer")));
    let delivery = |d: &Value| {
        format!(
            "{} number {} {} after {} attempts",
            of(d, "destination"),
            d["number"],
            of(d, "state"),
            d["attempts"]
        )
    };
    section("deliveries", list("deliveries").iter().map(delivery).collect());
    lines.join("\n")
}

fn text_lines(text: Option<&Value>) -> Vec<String> {
    let text = text.and_then(Value::as_str).unwrap_or_default();
    text.split(['\r', '\n']).filter(|line| !line.is_empty()).map(printable).collect()
}

/// Without what a terminal would act on.
fn printable(text: &str) -> String {
    text.chars().map(|letter| if letter.is_control() { '\u{FFFD}' } else { letter }).collect()
}

/// Prints the bytes as they came in.
async fn original(opened: &Opened, row: &SubmissionRow) -> Result<()> {
    let mut out = std::io::stdout().lock();
    if let Some(bytes) = &row.bytes {
        return Ok(out.write_all(bytes)?);
    }
    let blob = match &row.blob {
        Some(blob) => opened.intake.store().blob(&opened.site, blob).await?,
        None => None,
    };
    let mut blob = blob.ok_or_else(|| NoReplay::gone(row.kind))?;
    let mut piece = vec![0; PIECE_BYTES];
    loop {
        let read = blob.reader.read(&mut piece).await?;
        if read == 0 {
            return Ok(());
        }
        out.write_all(&piece[..read])?;
    }
}

#[expect(clippy::print_stdout, reason = "this is the command's output")]
async fn replay(config: &Config, site: &str, wanted: &SubmissionsReplay) -> Result<ExitCode> {
    let beside = Opened::beside(config, site).await?;
    let mut told = beside.intake.foretell(&beside.site, wanted.submission).await?;
    beside.intake.store().close().await;
    let mut committed = None;
    if wanted.commit && !told.is_rejected() {
        let path = format!("/admin/submissions/{}/replay?commit=true", wanted.submission);
        let instead = Instead { what: "replays", method: "POST", path: &path, scope: "admin/submissions" };
        let opened = Opened::writing(config, site, &instead).await?;
        let (replay, receipt) = opened.intake.replay(&opened.site, wanted.submission).await?;
        opened.intake.store().close().await;
        told = replay;
        match receipt {
            Some(Receipt::Accepted(accepted)) => committed = Some(accepted.commit.submission),
            Some(Receipt::Rejected(issues)) => told.issues.extend(issues),
            Some(Receipt::Deferred(error)) => return Err(error.into()),
            None => {}
        }
    }
    if wanted.json {
        println!("{:#}", view::replay(&told, committed));
    } else {
        println!("{}", replayed(&told, committed));
    }
    Ok(if told.is_rejected() { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// What a replay would do, or did, for people.
fn replayed(replay: &Replay, committed: Option<u64>) -> String {
    let verdict = if replay.is_rejected() { "rejected" } else { "accepted" };
    let mut lines = vec![format!("submission {} would be {verdict} by today's rules", replay.submission)];
    for issue in &replay.issues {
        let place = issue.location.as_deref().unwrap_or("-");
        lines.push(format!(
            "  {:<8} {place} {}: {}",
            issue.severity.as_str(),
            issue.code.as_str(),
            issue.diagnostics
        ));
    }
    if !replay.unmapped.is_empty() {
        lines.push(format!("  no rule consumes {}", replay.unmapped.join(" ")));
    }
    for one in &replay.effects {
        let name = match one.effect {
            Effect::Created => one.resource_type.to_string(),
            _ => format!("{}/{}", one.resource_type, one.id),
        };
        lines.push(format!("{} {name}", view::effect(one.effect)));
        for (path, before, after) in view::differences(one.before.as_ref(), one.after.as_ref()) {
            lines.push(match (before, after) {
                (Some(before), Some(after)) => format!("  ~ {path}: {} -> {}", value(&before), value(&after)),
                (Some(before), None) => format!("  - {path}: {}", value(&before)),
                (None, after) => format!("  + {path}: {}", after.as_ref().map(value).unwrap_or_default()),
            });
        }
    }
    lines.push(match committed {
        Some(number) => format!("committed as submission {number}"),
        None if replay.is_rejected() => "nothing was committed: mend the cause first".to_owned(),
        None => "nothing was committed; --commit does it".to_owned(),
    });
    lines.join("\n")
}

fn value(value: &Value) -> String {
    let text = printable(&value.to_string());
    match text.char_indices().nth(VALUE_LETTERS_MAX) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}
