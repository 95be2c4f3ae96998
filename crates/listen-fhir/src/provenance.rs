//! Provenance rendered from submissions: who caused a version, through which door, from which original. Nothing is stored for it, and it
//! reads, searches and includes like any resource.
//!
//! A search for a target, a patient or an id looks at the submissions of those; any other goes through all submissions, newest first, so many
//! at a time: a page that is not full then has a link to the next, and nothing is left out.

use std::collections::HashSet;

use axum::http::StatusCode;
use hilum_fhir::search::{Condition, Context, Include, Prefix, Query, Reference, Summary, Total, index};
use hilum_fhir::{Issue, IssueCode, Resource, ResourceType};
use hilum_intake::store::{Operation, OriginalKind, Page, SubmissionRow, Version};
use serde_json::{Value, json};

use crate::Door;
use crate::answer::Refusal;
use crate::ask::Ask;

const PREFIX: &str = "submission-";
/// Bytes of the Provenances that a page includes; one of 10,000 targets has about 1 MiB.
const INCLUDED_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Submissions read at a time; one of 10,000 targets has about 1 MiB.
const STEP: u32 = 50;
/// Submissions looked at for one page.
const PAGE_LOOKED_MAX: usize = 5_000;
/// Targets of the Provenances on one page, about 100 bytes each; a page that comes to them is shorter and has a next one.
const PAGE_TARGETS_MAX: usize = 100_000;
/// A clock may have been set back: submissions are in the order of their times but for so much.
const CLOCK_SLACK_MS: i64 = 2 * 86_400_000;

/// A rendered Provenance by id.
pub(crate) async fn read(
    door: &Door,
    ask: &Ask,
    of: ResourceType,
    id: &str,
) -> Result<Option<Version>, Refusal> {
    let Some(number) = id.strip_prefix(PREFIX).filter(|_| is_provenance(of)).and_then(|n| n.parse().ok())
    else {
        return Ok(None);
    };
    let row = door.intake.store().submission(ask.site()?, number).await?;
    Ok(row.filter(|row| row.accepted).map(|row| version(&row)))
}

/// Whether a type is the one rendered here.
pub(crate) fn is_provenance(of: ResourceType) -> bool {
    of.name() == "Provenance"
}

/// One page of a search of Provenances: those a client stored, then the rendered ones, newest first.
pub(crate) async fn search(
    door: &Door,
    ask: &Ask,
    query: &Query,
    cursor: Option<&str>,
) -> Result<Page, Refusal> {
    let limits = &door.settings.limits.search;
    let before = cursor.and_then(|cursor| cursor.strip_prefix(PREFIX)?.parse::<u64>().ok());
    let mut page = match before {
        None => door.intake.store().search(ask.site()?, query, cursor).await?,
        Some(_) => {
            let (matches, includes) = (Vec::new(), Vec::new());
            Page { matches, includes, includes_cut: false, total: None, next: None }
        }
    };
    let search = Search::new(door, ask, query).await?;
    let stored = page.total.take();
    let counts = query.summary == Summary::Count;
    if counts || (query.total == Total::Accurate && stored.is_some()) {
        page.total = Some(stored.unwrap_or(0) + search.count(limits.candidates_max as usize).await?);
    }
    if counts || page.next.is_some() {
        return Ok(page);
    }
    let room = query.count.unwrap_or(limits.count_default) as usize - page.matches.len();
    let found = search.page(before, room, PAGE_LOOKED_MAX).await?;
    if found.next.is_none() && query.total == Total::WhenCheap {
        page.total = stored.map(|stored| stored + found.rows.len() as u64);
    }
    page.next = found.next.map(|before| format!("{PREFIX}{before}"));
    page.matches.extend(found.rows.iter().map(version));
    include(door, ask, query, &found.rows, &mut page).await?;
    Ok(page)
}

/// Adds the rendered Provenances of the matches of another type: `_revinclude=Provenance:target`.
pub(crate) async fn revinclude(
    door: &Door,
    ask: &Ask,
    query: &Query,
    page: &mut Page,
) -> Result<(), Refusal> {
    let limit = door.settings.limits.search.includes_max;
    let room = (limit as usize).saturating_sub(page.includes.len());
    let (mut known, mut rendered) = (HashSet::new(), Vec::new());
    let mut bytes = 0;
    for found in &page.matches {
        let wanted = |include: &Include| {
            is_provenance(include.source)
                && has_targets(include)
                && include.target.is_none_or(|of| of == found.resource_type)
        };
        if !query.revincludes.iter().any(wanted) {
            continue;
        }
        let store = door.intake.store();
        let site = ask.site()?;
        for number in store.submission_numbers_of(site, found.resource_type, &found.id, limit).await? {
            if known.contains(&number) {
                continue;
            }
            if rendered.len() >= room || bytes >= INCLUDED_BYTES_MAX {
                page.includes_cut = true;
                page.includes.append(&mut rendered);
                return Ok(());
            }
            known.insert(number);
            let row = store.submission(site, number).await?;
            rendered.extend(row.map(|row| version(&row)));
            bytes += rendered.last().map_or(0, |version| version.body.len());
        }
    }
    page.includes.append(&mut rendered);
    Ok(())
}

/// Adds what rendered matches refer to: `_include=Provenance:target`.
async fn include(
    door: &Door,
    ask: &Ask,
    query: &Query,
    rows: &[SubmissionRow],
    page: &mut Page,
) -> Result<(), Refusal> {
    let limit = door.settings.limits.search.includes_max as usize;
    let known = page.matches.iter().chain(&page.includes);
    let mut known: HashSet<(ResourceType, String)> =
        known.map(|version| (version.resource_type, version.id.clone())).collect();
    for (of, id, _) in rows.iter().flat_map(|row| &row.targets) {
        let wanted = |include: &Include| {
            let only_patients = include.parameter.is_some_and(|parameter| parameter.name == "patient");
            is_provenance(include.source)
                && has_targets(include)
                && include.target.is_none_or(|wanted| wanted == *of)
                && (!only_patients || of.name() == "Patient")
        };
        if !query.includes.iter().any(wanted) || !known.insert((*of, id.clone())) {
            continue;
        }
        if page.includes.len() >= limit {
            page.includes_cut = true;
            return Ok(());
        }
        let found = door.intake.store().read(ask.site()?, *of, id).await?;
        page.includes.extend(found.filter(|version| !version.body.is_empty()));
    }
    Ok(())
}

/// Whether an include follows the only references a rendered Provenance has.
fn has_targets(include: &Include) -> bool {
    include.parameter.is_none_or(|parameter| matches!(parameter.name, "target" | "patient"))
}

/// A search among the submissions.
struct Search<'s> {
    door: &'s Door,
    ask: &'s Ask,
    query: &'s Query,
    context: Context,
    /// The only submissions that can match by their numbers, newest first; `None` = all.
    candidates: Option<Vec<u64>>,
    /// No submission received earlier can match, in milliseconds since 1970.
    earliest: i64,
}

/// Rendered matches of a page, and before which submission the next one begins.
struct Found {
    rows: Vec<SubmissionRow>,
    next: Option<u64>,
}

impl<'s> Search<'s> {
    async fn new(door: &'s Door, ask: &'s Ask, query: &'s Query) -> Result<Self, Refusal> {
        let candidates = candidates(door, ask, query).await?;
        Ok(Self { door, ask, query, context: ask.context()?, candidates, earliest: earliest(query) })
    }

    /// At most `count` matches before a submission, after looking at no more than `looked_max`; fewer when they are large.
    async fn page(&self, before: Option<u64>, count: usize, looked_max: usize) -> Result<Found, Refusal> {
        let (mut rows, mut targets) = (Vec::new(), 0);
        let mut take = |row: SubmissionRow| {
            targets += row.targets.len();
            if rows.len() == count || (targets > PAGE_TARGETS_MAX && !rows.is_empty()) {
                return false;
            }
            rows.push(row);
            true
        };
        let next = self.look(before, looked_max, &mut take).await?;
        Ok(Found { rows, next })
    }

    /// How many match in all.
    async fn count(&self, looked_max: usize) -> Result<u64, Refusal> {
        let mut count = 0;
        let mut take = |_| {
            count += 1;
            true
        };
        match self.look(None, looked_max, &mut take).await? {
            None => Ok(count),
            Some(_) => {
                let text = "there are too many submissions to count; narrow the search by target or recorded";
                Err(Refusal::new(
                    StatusCode::BAD_REQUEST,
                    Issue::error(IssueCode::TooCostly, text).at("http._total"),
                ))
            }
        }
    }

    /// Hands over what matches before a submission until one is not taken, or so many were looked at; before which submission that goes on.
    async fn look(
        &self,
        before: Option<u64>,
        looked_max: usize,
        take: &mut (dyn FnMut(SubmissionRow) -> bool + Send),
    ) -> Result<Option<u64>, Refusal> {
        let (mut next, mut looked) = (before, 0);
        loop {
            let rows = self.before(next).await?;
            if rows.is_empty() {
                return Ok(None);
            }
            for row in rows {
                if row.received.millis() < self.earliest {
                    return Ok(None);
                }
                if looked == looked_max {
                    return Ok(next);
                }
                looked += 1;
                let number = row.sequence;
                if self.matches(&row)? && !take(row) {
                    return Ok(Some(number + 1));
                }
                next = Some(number);
            }
            tokio::task::yield_now().await;
        }
    }

    async fn before(&self, before: Option<u64>) -> Result<Vec<SubmissionRow>, Refusal> {
        let (store, site) = (self.door.intake.store(), self.ask.site()?);
        let Some(numbers) = &self.candidates else {
            return Ok(store.submissions(site, before, STEP).await?);
        };
        let start = before.map_or(0, |before| numbers.partition_point(|number| *number >= before));
        // retention may have removed all of a step
        for some in numbers[start..].chunks(STEP as usize) {
            let rows = store.submissions_numbered(site, some.to_vec()).await?;
            if !rows.is_empty() {
                return Ok(rows);
            }
        }
        Ok(Vec::new())
    }

    fn matches(&self, row: &SubmissionRow) -> Result<bool, Refusal> {
        if !row.accepted {
            return Ok(false);
        }
        let resource = Resource::from_value(render(row))
            .map_err(|issue| Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, issue))?;
        Ok(self.query.matches(&index(&resource, &self.context), &id(row), row.received))
    }
}

/// The numbers of the submissions a search names by target, patient or id, newest first.
async fn candidates(door: &Door, ask: &Ask, query: &Query) -> Result<Option<Vec<u64>>, Refusal> {
    let (store, site) = (door.intake.store(), ask.site()?);
    let most = door.settings.limits.search.candidates_max;
    for filter in &query.filters {
        let mut numbers = Vec::new();
        match &filter.condition {
            Condition::Reference(wanted)
                if matches!(filter.parameter.name, "target" | "patient")
                    && wanted.iter().all(|reference| matches!(reference, Reference::Local(..))) =>
            {
                for reference in wanted {
                    if let Reference::Local(of, id) = reference {
                        numbers.extend(store.submission_numbers_of(site, *of, id, most).await?);
                    }
                }
            }
            Condition::Id(ids) => {
                numbers.extend(ids.iter().filter_map(|id| id.strip_prefix(PREFIX)?.parse::<u64>().ok()));
            }
            _ => continue,
        }
        numbers.sort_unstable_by_key(|number| std::cmp::Reverse(*number));
        numbers.dedup();
        return Ok(Some(numbers));
    }
    Ok(None)
}

/// The time before which nothing was recorded that a search asks for.
fn earliest(query: &Query) -> i64 {
    let bounds = query.filters.iter().filter(|filter| filter.parameter.name == "recorded").map(|filter| {
        let Condition::Date(ranges) = &filter.condition else { return i64::MIN };
        let lower = ranges.iter().map(|range| match range.prefix {
            Prefix::Eq | Prefix::Gt | Prefix::Ge | Prefix::Sa => range.low,
            Prefix::Ne | Prefix::Lt | Prefix::Le | Prefix::Eb | Prefix::Ap => i64::MIN,
        });
        lower.min().unwrap_or(i64::MIN)
    });
    bounds.max().unwrap_or(i64::MIN).saturating_sub(CLOCK_SLACK_MS)
}

fn id(row: &SubmissionRow) -> String {
    format!("{PREFIX}{}", row.sequence)
}

fn version(row: &SubmissionRow) -> Version {
    Version {
        resource_type: ResourceType::from_name("Provenance")
            .unwrap_or_else(|| unreachable!("a type of fhir r4")),
        id: id(row),
        version: 1,
        last_updated: row.received,
        operation: Operation::Create,
        submission: Some(row.sequence),
        body: render(row).to_string().into(),
    }
}

fn render(row: &SubmissionRow) -> Value {
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
    let mut entities = vec![entity];
    if let Some(replayed) = row.replays {
        let identifier = json!({ "system": "urn:hilum:submission", "value": replayed.to_string() });
        entities.push(json!({ "role": "derivation", "what": {
            "identifier": identifier, "display": format!("submission {replayed}, replayed") } }));
    }
    json!({
        "resourceType": "Provenance",
        "id": id(row),
        "meta": { "versionId": "1", "lastUpdated": row.received.to_string() },
        "target": targets,
        "recorded": row.received.to_string(),
        "agent": [{
            "type": { "coding": [{ "system": "http://terminology.hl7.org/CodeSystem/provenance-participant-type", "code": "transmitter" }] },
            "who": { "display": who }, "onBehalfOf": { "display": row.listener },
        }],
        "entity": entities,
    })
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
