//! Submissions as JSON for those who run the edge: the same over `/admin/submissions` and from `hilum submissions --json`.

use hilum_fhir::{Issue, Timestamp};
use hilum_store::{
    Delivery, DeliveryState, Effect, Foretold, OriginalKind, Queue, StudyContents, SubmissionFilter,
    SubmissionPage, SubmissionRow,
};
use jiff::tz::TimeZone;
use serde_json::{Map, Value, json};

use crate::replay::Replay;

/// Deliveries told of one submission.
pub const DELIVERIES_MAX: u32 = 200;
/// Elements told of one resource that a replay would change.
const ELEMENTS_MAX: usize = 500;

/// A page of the list.
pub fn page(page: &SubmissionPage) -> Value {
    json!({ "submissions": page.rows.iter().map(line).collect::<Vec<_>>(), "next": page.next })
}

/// A submission as a line of the list. Members without a value are left out.
pub fn line(row: &SubmissionRow) -> Value {
    let first = row.issues.iter().find(|issue| issue.rejects());
    without_nulls(json!({
        "submission": row.sequence,
        "received": row.received.to_string(),
        "receipt": receipt(row),
        "listener": row.listener,
        "peer": row.peer,
        "sender": row.identity,
        "called": row.called,
        "protocol": protocol(row.kind),
        "kind": row.message,
        "control": row.control_id,
        "changes": row.versions,
        "reason": first.map(|issue| issue.code.as_str()),
        "place": first.and_then(|issue| issue.location.as_deref()),
        "text": first.map(|issue| issue.diagnostics.as_str()),
        "attention": row.attention,
        "replays": row.replays,
    }))
}

/// A submission with everything that is known of it, but its original.
pub fn whole(row: &SubmissionRow, deliveries: &[Delivery], original_bytes: Option<u64>) -> Value {
    let report: Value = row.report.as_ref().and_then(|r| serde_json::from_slice(r).ok()).unwrap_or_default();
    let mut told = line(row);
    let changes = row
        .targets
        .iter()
        .map(|(of, id, version)| json!({ "resource": format!("{of}/{id}"), "version": version }));
    // what mapping said, and what became known in the commit
    let mut issues: Vec<Value> = if row.accepted { reported(&report) } else { Vec::new() };
    issues.extend(row.issues.iter().map(issue));
    let more = json!({
        "sha256": row.sha256.iter().map(|b| format!("{b:02x}")).collect::<String>(),
        "contentType": row.content_type,
        "originalBytes": original_bytes,
        "changes": changes.collect::<Vec<_>>(),
        "issues": issues,
        "unmapped": report.get("unmapped").cloned().unwrap_or_else(|| json!([])),
        "answer": row.answer.as_ref().map(|answer| String::from_utf8_lossy(answer).into_owned()),
        "deliveries": deliveries.iter().map(delivery).collect::<Vec<_>>(),
    });
    if let (Some(told), Value::Object(more)) = (told.as_object_mut(), without_nulls(more)) {
        told.extend(more);
    }
    told
}

/// What a replay would do, or did under a new number.
pub fn replay(replay: &Replay, committed: Option<u64>) -> Value {
    without_nulls(json!({
        "replays": replay.submission,
        "wouldBe": if replay.is_rejected() { "rejected" } else { "accepted" },
        "committed": committed,
        "issues": replay.issues.iter().map(issue).collect::<Vec<_>>(),
        "unmapped": replay.unmapped,
        "changes": replay.effects.iter().map(foretold).collect::<Vec<_>>(),
    }))
}

/// What there is under a Study Instance UID, or what was removed.
pub fn study(uid: &str, contents: &StudyContents) -> Value {
    without_nulls(json!({
        "study": uid,
        "studies": contents.studies,
        "images": contents.images,
        "submission": contents.submission,
    }))
}

/// A destination with what waits for it: no address, no secret.
pub fn queue(queue: &Queue) -> Value {
    let Queue { destination, waiting, first } = queue;
    let first = first.as_ref().map(|first| {
        without_nulls(json!({
            "number": first.number,
            "attempts": first.attempts,
            "nextAttempt": first.next_at.map(|at| Timestamp::from_micros(at * 1000).to_string()),
            "error": first.error,
        }))
    });
    without_nulls(json!({
        "destination": destination.reference,
        "state": destination.state.code(),
        "owner": destination.owner,
        "error": destination.error,
        "numbered": destination.next_number - 1,
        "waiting": waiting,
        "first": first,
    }))
}

/// `accepted` or `rejected`.
pub fn receipt(row: &SubmissionRow) -> &'static str {
    if row.accepted { "accepted" } else { "rejected" }
}

/// A protocol as it is written in filters and answers.
pub fn protocol(kind: OriginalKind) -> &'static str {
    match kind {
        OriginalKind::V2 => "v2",
        OriginalKind::V3 => "v3",
        OriginalKind::Mpps => "mpps",
        OriginalKind::Dicom => "dicom",
        OriginalKind::Fhir => "fhir",
        OriginalKind::Internal => "internal",
    }
}

/// Sets what kind a filter asks for: a protocol (`v2`), or a kind in the protocol's own words (`ADT^A08`, `ADT`, `C-STORE CT`).
pub fn set_kind(filter: &mut SubmissionFilter, kind: &str) {
    let all = [
        OriginalKind::V2,
        OriginalKind::V3,
        OriginalKind::Mpps,
        OriginalKind::Dicom,
        OriginalKind::Fhir,
        OriginalKind::Internal,
    ];
    match all.into_iter().find(|of| protocol(*of) == kind) {
        Some(of) => filter.kind = Some(of),
        None => filter.message = Some(kind.to_owned()),
    }
}

/// A time as people give it: `90m`, `12h`, `3d` before now, a date or a local time of the zone, or a time with its offset. `None` = not understood.
pub fn since(text: &str, zone: &TimeZone, now: Timestamp) -> Option<Timestamp> {
    let split = text.len().checked_sub(1).filter(|at| text.is_char_boundary(*at));
    if let Some((number, unit)) = split.map(|at| text.split_at(at))
        && let Ok(number) = number.parse::<u32>()
    {
        let seconds = match unit {
            "m" => 60,
            "h" => 3_600,
            "d" => 86_400,
            _ => return None,
        };
        return Some(Timestamp::from_micros(now.micros() - i64::from(number) * seconds * 1_000_000));
    }
    if let Ok(at) = text.parse::<jiff::Timestamp>() {
        return Some(at.into());
    }
    let local = text.parse::<jiff::civil::DateTime>().or_else(|_| {
        text.parse::<jiff::civil::Date>().map(|date| date.to_datetime(jiff::civil::Time::midnight()))
    });
    Some(local.ok()?.to_zoned(zone.clone()).ok()?.timestamp().into())
}

/// The elements that differ between two contents, each with what it was and would be.
pub fn differences(
    before: Option<&Value>,
    after: Option<&Value>,
) -> Vec<(String, Option<Value>, Option<Value>)> {
    let (old, new) = (leaves(before), leaves(after));
    let mut found = Vec::new();
    for (path, value) in &old {
        let now = new.get(path);
        if now != Some(value) {
            found.push((path.clone(), Some(value.clone()), now.cloned()));
        }
    }
    for (path, value) in new.iter().filter(|(path, _)| !old.contains_key(*path)) {
        found.push((path.clone(), None, Some(value.clone())));
    }
    found
}

/// The leaves of a content by their path (`name[0].family`), without what the store itself sets.
fn leaves(content: Option<&Value>) -> Map<String, Value> {
    let mut found = Map::new();
    let mut waiting: Vec<(String, &Value)> =
        content.map(|content| (String::new(), content)).into_iter().collect();
    while let Some((path, value)) = waiting.pop() {
        match value {
            Value::Object(members) => waiting.extend(members.iter().rev().map(|(name, member)| {
                (if path.is_empty() { name.clone() } else { format!("{path}.{name}") }, member)
            })),
            Value::Array(entries) => {
                waiting.extend(
                    entries.iter().enumerate().rev().map(|(n, entry)| (format!("{path}[{n}]"), entry)),
                );
            }
            leaf if !matches!(path.as_str(), "id" | "meta.versionId" | "meta.lastUpdated") => {
                found.insert(path, leaf.clone());
            }
            _ => {}
        }
    }
    found
}

fn foretold(one: &Foretold) -> Value {
    let all = differences(one.before.as_ref(), one.after.as_ref());
    let told = all.iter().take(ELEMENTS_MAX).map(|(path, before, after)| {
        without_nulls(json!({ "element": path, "before": before, "after": after }))
    });
    let elements: Vec<Value> = told.collect();
    let more = Some(all.len() - elements.len()).filter(|more| *more > 0);
    let resource = match one.effect {
        Effect::Created => one.resource_type.to_string(),
        _ => format!("{}/{}", one.resource_type, one.id),
    };
    without_nulls(
        json!({ "effect": effect(one.effect), "resource": resource, "elements": elements, "moreElements": more }),
    )
}

/// An effect in a word.
pub fn effect(effect: Effect) -> &'static str {
    match effect {
        Effect::Created => "create",
        Effect::Updated => "update",
        Effect::Unchanged => "unchanged",
        Effect::Deleted => "delete",
        Effect::Late => "late",
        Effect::Recorded => "images",
    }
}

fn issue(issue: &Issue) -> Value {
    without_nulls(json!({
        "severity": issue.severity.as_str(),
        "code": issue.code.as_str(),
        "hl7": issue.hl7_code,
        "place": issue.location,
        "text": issue.diagnostics,
    }))
}

/// The issues of a report: severity, code, place, text.
fn reported(report: &Value) -> Vec<Value> {
    let issues = report.get("issues").and_then(Value::as_array);
    let told = issues.into_iter().flatten().map(|issue| {
        without_nulls(json!({ "severity": issue[0], "code": issue[1], "place": issue[2], "text": issue[3] }))
    });
    told.collect()
}

fn delivery(delivery: &Delivery) -> Value {
    let state = match delivery.state {
        DeliveryState::Queued => "queued",
        DeliveryState::InFlight => "in-flight",
        DeliveryState::Ambiguous => "ambiguous",
        DeliveryState::Delivered => "delivered",
        DeliveryState::Dead => "given up",
    };
    without_nulls(json!({
        "destination": delivery.destination,
        "number": delivery.number,
        "state": state,
        "attempts": delivery.attempts,
        "error": delivery.error,
    }))
}

fn without_nulls(mut object: Value) -> Value {
    if let Some(members) = object.as_object_mut() {
        members.retain(|_, value| !value.is_null());
    }
    object
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn differences_name_the_elements_and_nothing_that_stayed() {
        let before = json!({ "id": "1", "meta": { "versionId": "3" }, "gender": "male", "name": [{ "family": "A", "given": ["X", "Y"] }] });
        let after = json!({ "id": "1", "meta": { "versionId": "4" }, "birthDate": "1980-01-01", "name": [{ "family": "B", "given": ["X"] }] });
        let found = differences(Some(&before), Some(&after));
        let told = |path: &str, before: Option<&str>, after: Option<&str>| {
            (path.to_owned(), before.map(Value::from), after.map(Value::from))
        };
        assert_eq!(
            found,
            [
                told("gender", Some("male"), None),
                told("name[0].family", Some("A"), Some("B")),
                told("name[0].given[1]", Some("Y"), None),
                told("birthDate", None, Some("1980-01-01")),
            ]
        );
        assert!(differences(Some(&before), Some(&before)).is_empty());
    }

    #[test]
    fn times_are_given_as_people_give_them() {
        let zone = TimeZone::fixed(jiff::tz::offset(2));
        let now: Timestamp = "2024-03-02T12:00:00Z".parse::<jiff::Timestamp>().unwrap().into();
        for (text, expected) in [
            ("90m", Some("2024-03-02T10:30:00Z")),
            ("2h", Some("2024-03-02T10:00:00Z")),
            ("3d", Some("2024-02-28T12:00:00Z")),
            ("2024-03-01", Some("2024-02-29T22:00:00Z")),
            ("2024-03-01T08:00", Some("2024-03-01T06:00:00Z")),
            ("2024-03-01T08:00:00Z", Some("2024-03-01T08:00:00Z")),
            ("yesterday", None),
            ("5x", None),
            ("", None),
        ] {
            let expected = expected.map(|text| text.parse::<jiff::Timestamp>().unwrap().into());
            assert_eq!(since(text, &zone, now), expected, "{text}");
        }
    }
}
