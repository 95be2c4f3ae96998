//! Provenance rendered from submissions: who caused a version, through which door, from which original. Nothing is stored for it, and it
//! reads, searches by target and includes like any resource.

use bytes::Bytes;
use hilum_fhir::search::{Condition, Query, Reference};
use hilum_fhir::{ResourceType, Timestamp};
use hilum_intake::store::{Operation, OriginalKind, Page, SubmissionRow, Version};
use serde_json::json;

use crate::Door;
use crate::answer::Refusal;
use crate::ask::Ask;

const PREFIX: &str = "submission-";
const OF_ONE_MAX: u32 = 100;

/// A rendered Provenance by id.
pub(crate) async fn read(
    door: &Door,
    ask: &Ask,
    of: ResourceType,
    id: &str,
) -> Result<Option<(Timestamp, Bytes)>, Refusal> {
    let Some(number) =
        id.strip_prefix(PREFIX).filter(|_| of.name() == "Provenance").and_then(|n| n.parse().ok())
    else {
        return Ok(None);
    };
    let row = door.intake.store().submission(ask.site()?, number).await?;
    Ok(row.filter(|row| row.accepted).map(|row| (row.received, render(&row))))
}

/// Adds rendered Provenances to a page: matches of `Provenance?target=…` and `?_id=…`, and `_revinclude=Provenance:target`.
pub(crate) async fn add(
    door: &Door,
    ask: &Ask,
    query: &Query,
    pairs: &[(String, String)],
    page: &mut Page,
) -> Result<(), Refusal> {
    let site = ask.site()?;
    let store = door.intake.store();
    if query.resource_type.name() == "Provenance" && page.next.is_none() {
        let mut rows = Vec::new();
        for filter in &query.filters {
            match &filter.condition {
                Condition::Reference(wanted)
                    if filter.parameter.name == "target" || filter.parameter.name == "patient" =>
                {
                    for reference in wanted {
                        if let Reference::Local(of, id) = reference {
                            rows.extend(store.submissions_of(site, *of, id, OF_ONE_MAX).await?);
                        }
                    }
                }
                Condition::Id(ids) => {
                    for number in ids.iter().filter_map(|id| id.strip_prefix(PREFIX)?.parse().ok()) {
                        rows.extend(store.submission(site, number).await?.filter(|row| row.accepted));
                    }
                }
                _ => return Ok(()),
            }
        }
        if query.filters.len() == 1 {
            page.total = page.total.map(|total| total + rows.len() as u64);
            page.matches.extend(rows.iter().map(version));
        }
        return Ok(());
    }
    let wanted =
        |(name, value): &(String, String)| name.starts_with("_revinclude") && value.starts_with("Provenance");
    if pairs.iter().any(wanted) {
        let mut rows: Vec<SubmissionRow> = Vec::new();
        for found in &page.matches {
            for row in store.submissions_of(site, found.resource_type, &found.id, OF_ONE_MAX).await? {
                if !rows.iter().any(|known| known.sequence == row.sequence) {
                    rows.push(row);
                }
            }
        }
        page.includes.extend(rows.iter().map(version));
    }
    Ok(())
}

fn version(row: &SubmissionRow) -> Version {
    Version {
        resource_type: ResourceType::from_name("Provenance")
            .unwrap_or_else(|| unreachable!("a type of fhir r4")),
        id: format!("{PREFIX}{}", row.sequence),
        version: 1,
        last_updated: row.received,
        operation: Operation::Create,
        submission: Some(row.sequence),
        body: render(row),
    }
}

fn render(row: &SubmissionRow) -> Bytes {
    let mut targets: Vec<_> = row
        .targets
        .iter()
        .map(|(of, id, version)| json!({ "reference": format!("{of}/{id}/_history/{version}") }))
        .collect();
    if targets.is_empty() {
        targets.push(json!({ "display": "nothing was changed" }));
    }
    let sha256: String = row.sha256.iter().map(|b| format!("{b:02x}")).collect();
    let who = row.identity.clone().unwrap_or_else(|| "unauthenticated".into());
    let mut entity = json!({ "role": "source", "what": {
        "identifier": { "system": "urn:hilum:original-sha256", "value": sha256 }, "display": original(row.kind) } });
    if let Some(control) = &row.control_id {
        entity["what"]["display"] = format!("{} {control}", original(row.kind)).into();
    }
    let provenance = json!({
        "resourceType": "Provenance",
        "id": format!("{PREFIX}{}", row.sequence),
        "meta": { "versionId": "1", "lastUpdated": row.received.to_string() },
        "target": targets,
        "recorded": row.received.to_string(),
        "agent": [{
            "type": { "coding": [{ "system": "http://terminology.hl7.org/CodeSystem/provenance-participant-type", "code": "transmitter" }] },
            "who": { "display": who }, "onBehalfOf": { "display": row.listener },
        }],
        "entity": [entity],
    });
    provenance.to_string().into()
}

fn original(kind: OriginalKind) -> &'static str {
    match kind {
        OriginalKind::V2 => "HL7 v2 message",
        OriginalKind::V3 => "HL7 v3 interaction",
        OriginalKind::Mpps => "performed procedure step",
        OriginalKind::Dicom => "DICOM instance",
        OriginalKind::Fhir => "FHIR request",
        OriginalKind::Internal => "Hilum",
    }
}
