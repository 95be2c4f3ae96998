//! A Modality Performed Procedure Step as JSON (PS3.4 F.7): the short form or the DICOM JSON model, as a Procedure, the study it
//! announces and the state of the step.
//!
//! Both forms are read into one data set ([`form`]); the rule tables in `maps/mpps` say which element fills which FHIR element. The
//! state machine (final states are final) is the store's, inside its transaction.

mod convert;
mod dataset;
mod form;
mod run;
mod table;
mod time;

use bytes::Bytes;
use hilum_fhir::imaging::{PerformedStep, Series, StepStatus, Study};
use hilum_fhir::{Action, Change, Clue, Disagreement, Issue, IssueCode, Match, PatientNumbers, Resource};
use serde_json::{Map, Value, json};
use uuid::Uuid;

use self::dataset::{element, is_valued, items, text};
use self::form::Form;
use self::run::Run;
use self::table::{TABLES, Tables};
use crate::identity::{self, NUMBERS_MAX, Unnamed};
use crate::{Context, Normalised};

/// (0008,0018)
const SOP_INSTANCE: &str = "00080018";
/// (0010,1002) Other Patient IDs Sequence
const OTHER_PATIENT_IDS: &str = "00101002";
/// (0020,000D)
const STUDY: &str = "0020000D";
/// (0040,0252)
const STATUS: &str = "00400252";
/// (0040,0270) Scheduled Step Attributes Sequence
const SCHEDULED: &str = "00400270";
/// (0040,0340) Performed Series Sequence
const PERFORMED_SERIES: &str = "00400340";
/// (0020,000E)
const SERIES: &str = "0020000E";
/// (0040,0250) Performed Procedure Step End Date
const END_DATE: &str = "00400250";

const UID_CHARS_MAX: usize = 64;
const SERIES_MAX: usize = 1_000;
/// Scheduled steps of one performed step: their orders are looked for.
const ITEMS_MAX: usize = 100;
const UNMAPPED_MAX: usize = 1_000;
/// Bytes of the attributes kept with a step; a reference to an image takes about 180.
const ATTRIBUTES_BYTES_MAX: usize = 1 << 20;

pub(crate) fn normalise(bytes: &Bytes, context: &Context) -> Normalised {
    let tables = match TABLES.as_ref() {
        Ok(tables) => tables,
        Err(errors) => {
            let issues = errors.iter().map(|error| Issue::error(IssueCode::Exception, error.to_string()));
            return Normalised { issues: issues.collect(), ..Normalised::default() };
        }
    };
    let mut form = form::read(bytes, &tables.short_form, context);
    let step = required(&mut form).filter(|_| !form.issues.iter().any(Issue::rejects));
    let Some(step) = step else {
        return Normalised { issues: form.issues, ..Normalised::default() };
    };
    changes(&step, &form, tables, context)
}

/// What no step can be without.
struct Required {
    uid: String,
    /// `None` = it is known by the step's UID.
    study: Option<String>,
    status: StepStatus,
}

/// Reads what must be there and checks what would make a step unusable; every fault becomes an issue.
fn required(form: &mut Form) -> Option<Required> {
    if form.issues.iter().any(|issue| issue.code == IssueCode::Structure && issue.location.is_none()) {
        return None;
    }
    let uid = uid(form, SOP_INSTANCE);
    let study = study_uid(form);
    let status = status(form);
    scheduled_checks(form);
    series_checks(form);
    if form.data.len() + form.unknown.len() > 0 && kept(form).is_none() {
        let text = format!("more than {ATTRIBUTES_BYTES_MAX} bytes of attributes");
        form.issues.push(Issue::error(IssueCode::TooLong, text));
    }
    Some(Required { uid: uid?, study: study?, status: status? })
}

fn uid(form: &mut Form, path: &str) -> Option<String> {
    let Some(uid) = text(&form.data, path) else {
        form.error(IssueCode::Required, path, "is required");
        return None;
    };
    if !is_uid(&uid) {
        form.error(IssueCode::Value, path, "must be a uid: 1 to 64 digits and dots");
        return None;
    }
    Some(uid)
}

/// The Study Instance UID: of the scheduled steps, else beside them. An N-SET has none (PS3.4 table F.7.2-1): the step is known by its
/// own UID. The short form is no N-SET and must name it. The outer `None` = wrong.
fn study_uid(form: &mut Form) -> Option<Option<String>> {
    let scheduled: Vec<String> = items(&form.data, SCHEDULED).filter_map(|item| text(item, STUDY)).collect();
    let Some(first) = scheduled.first() else {
        if !form.is_short && !is_valued(&form.data, STUDY) {
            return Some(None);
        }
        return uid(form, STUDY).map(Some);
    };
    let path = format!("{SCHEDULED}>{STUDY}");
    if scheduled.iter().any(|other| other != first) {
        form.warning(&path, "differs between scheduled steps; the first one is taken");
    }
    if !is_uid(first) {
        form.error(IssueCode::Value, &path, "must be a uid: 1 to 64 digits and dots");
        return None;
    }
    Some(Some(first.clone()))
}

/// The state asked for, written back as the standard has it.
fn status(form: &mut Form) -> Option<StepStatus> {
    let Some(sent) = text(&form.data, STATUS) else {
        form.error(IssueCode::Required, STATUS, "is required");
        return None;
    };
    let Some(status) = StepStatus::parse(&sent) else {
        form.error(IssueCode::CodeInvalid, STATUS, "must be one of IN PROGRESS, COMPLETED, DISCONTINUED");
        return None;
    };
    form.data.insert(STATUS.into(), element("CS", vec![status.as_str().into()]));
    if status.is_final() && !form.is_short {
        if !is_valued(&form.data, END_DATE) {
            form.warning(END_DATE, "is missing in a final step");
        }
        if status == StepStatus::Completed && !is_valued(&form.data, PERFORMED_SERIES) {
            form.warning(PERFORMED_SERIES, "has no item in a completed step");
        }
    }
    Some(status)
}

fn scheduled_checks(form: &mut Form) {
    if items(&form.data, SCHEDULED).count() > ITEMS_MAX {
        form.error(IssueCode::TooLong, SCHEDULED, &format!("has more than {ITEMS_MAX} items"));
    }
}

fn series_checks(form: &mut Form) {
    let uids: Vec<Option<String>> =
        items(&form.data, PERFORMED_SERIES).map(|item| text(item, SERIES)).collect();
    if uids.len() > SERIES_MAX {
        form.error(IssueCode::TooLong, PERFORMED_SERIES, &format!("has more than {SERIES_MAX} items"));
        return;
    }
    for (n, uid) in uids.iter().enumerate() {
        let path = format!("{PERFORMED_SERIES}[{n}]>{SERIES}");
        match uid {
            None => form.error(IssueCode::Required, &path, "is required"),
            Some(uid) if !is_uid(uid) => {
                form.error(IssueCode::Value, &path, "must be a uid: 1 to 64 digits and dots");
            }
            Some(_) => {}
        }
    }
}

/// `[0-9.]{1,64}` with something between the dots. Leading zeros occur and are let through.
fn is_uid(text: &str) -> bool {
    text.len() <= UID_CHARS_MAX
        && text.split('.').all(|part| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit()))
}

/// Everything sent, to be kept with the step; `None` when it is too large.
fn kept(form: &Form) -> Option<Map<String, Value>> {
    let mut kept = form.data.clone();
    kept.extend(form.unknown.clone());
    let bytes = serde_json::to_vec(&kept).ok()?.len();
    (bytes <= ATTRIBUTES_BYTES_MAX).then_some(kept)
}

fn changes(step: &Required, form: &Form, tables: &Tables, context: &Context) -> Normalised {
    let mut run = Run::new(context, tables, form);
    let mut changes = Vec::with_capacity(3);
    let orders = orders(context, form);
    let procedure_key = Match {
        resource_type: identity::kind("Procedure"),
        system: Some("urn:dicom:uid".into()),
        value: format!("urn:oid:{}", step.uid),
    };
    let patient = patient(&mut run, &mut changes, clues(step, &procedure_key, &orders));
    procedure(&mut run, &mut changes, &procedure_key, patient.is_some());
    let at = u32::try_from(changes.len()).unwrap_or(u32::MAX);
    let study = step.study.as_ref().map(|uid| Study {
        uid: uid.clone(),
        patient,
        accession: study_accession(context, form),
        orders,
        elements: run.elements(&tables.study, at, ""),
    });
    let series = series(&mut run, at);
    changes.push(Change::new(Action::Step(Box::new(PerformedStep {
        uid: step.uid.clone(),
        study,
        status: step.status,
        attributes: kept(form).unwrap_or_default(),
        series,
        procedure: procedure_key,
    }))));
    let unmapped = run.unmapped(UNMAPPED_MAX);
    let issues = form.issues.iter().cloned().chain(run.issues).collect();
    Normalised { changes, issues, unmapped, lineage: run.lineage }
}

/// The orders of all scheduled steps; without such an item what stands beside them (short form).
fn orders(context: &Context, form: &Form) -> Vec<Vec<Match>> {
    let mut orders: Vec<Vec<Match>> = Vec::new();
    let scheduled = items(&form.data, SCHEDULED);
    for order in scheduled.map(|item| convert::order_identifiers(context, item)) {
        if !order.is_empty() && !orders.contains(&order) {
            orders.push(order);
        }
    }
    if orders.is_empty() {
        orders.push(convert::order_identifiers(context, &form.data));
        orders.retain(|order| !order.is_empty());
    }
    orders
}

/// What else names the patient: the step's Procedure, the study, and orders whose numbers have an authority.
fn clues(step: &Required, procedure: &Match, orders: &[Vec<Match>]) -> Vec<Clue> {
    let orders = orders.iter().flatten().cloned();
    let orders = orders.filter_map(|order| identity::order_clue(order.system, order.value));
    let study = step.study.clone().map(Clue::Study);
    [Clue::Resource(procedure.clone())].into_iter().chain(study).chain(orders).collect()
}

/// The Patient named by the step: created when unknown, never altered.
fn patient(
    run: &mut Run<'_>,
    changes: &mut Vec<Change>,
    clues: Vec<Clue>,
) -> Option<(PatientNumbers, Resource)> {
    let made = run.elements(&run.tables.patient, 0, "");
    let Some(own) = convert::patient_id(run.context, &run.form.data) else {
        run.lineage.clear();
        return None;
    };
    let others = convert::other_patient_ids(run.context, &run.form.data);
    let numbers = std::iter::once(own).chain(others);
    let numbers = match identity::named_by(run.context, numbers, clues, Disagreement::Refuse) {
        Ok(numbers) => numbers,
        Err(Unnamed::Nobody) => return None,
        Err(Unnamed::TooMany) => {
            let text = format!("the patient has more than {NUMBERS_MAX} identifiers");
            run.issues.push(Issue::error(IssueCode::TooLong, text).at(dataset::place(OTHER_PATIENT_IDS)));
            return None;
        }
    };
    let mut patient = Resource::new(identity::kind("Patient"));
    patient.object_mut().extend(made);
    let identifiers = numbers.numbers.iter();
    patient.set(
        "identifier",
        identifiers.map(|(system, value)| json!({ "system": system, "value": value })).collect(),
    );
    let ensure = Action::Ensure(identity::patient(numbers.clone()), patient.clone());
    changes.push(Change::new(ensure).with_full_url(full_url(run.context, "patient")));
    Some((numbers, patient))
}

/// The Procedure: what is said now merges into what was said before.
fn procedure(run: &mut Run<'_>, changes: &mut Vec<Change>, key: &Match, has_patient: bool) {
    let mut clear = Vec::new();
    let mut procedure = Resource::new(key.resource_type);
    if has_patient {
        clear.push("subject".to_owned());
        procedure.set("subject", json!({ "reference": full_url(run.context, "patient") }));
    } else {
        // a Procedure has a subject; a message without one must not take the place of a known one
        let mut placeholder = Resource::new(key.resource_type);
        placeholder.set("identifier", json!([{ "system": key.system, "value": key.value }]));
        placeholder.set("status", "unknown".into());
        placeholder.set("subject", json!({ "display": "unknown patient" }));
        changes.push(Change::new(Action::Ensure(key.clone().into(), placeholder)));
    }
    let at = u32::try_from(changes.len()).unwrap_or(u32::MAX);
    procedure.object_mut().extend(run.elements(&run.tables.procedure, at, ""));
    let merge = Action::Merge(key.clone().into(), procedure, clear);
    changes.push(Change::new(merge).with_full_url(full_url(run.context, "procedure")));
}

/// The accession number of the study, when the scheduled steps agree on one.
fn study_accession(context: &Context, form: &Form) -> Option<(String, String)> {
    let mut scheduled = items(&form.data, SCHEDULED).filter_map(|item| convert::accession(context, item));
    let first = scheduled.next();
    if scheduled.any(|other| Some(&other) != first.as_ref()) {
        return None;
    }
    first.or_else(|| convert::accession(context, &form.data))
}

/// Series the step performed, each with the number of images to expect.
fn series(run: &mut Run<'_>, change: u32) -> Vec<(Series, Option<u32>)> {
    let mut list = Vec::new();
    for (n, item) in items(&run.form.data, PERFORMED_SERIES).enumerate() {
        let Some(uid) = text(item, SERIES) else { continue };
        let path = format!("{PERFORMED_SERIES}[{n}]");
        let elements = run.item(&run.tables.series, item, &path, change, &format!("series[{n}]."));
        list.push((Series { uid, elements }, convert::expected_images(item)));
    }
    list
}

/// The full URL of a resource of this submission.
fn full_url(context: &Context, of: &str) -> String {
    format!("urn:uuid:{}", Uuid::new_v5(&Uuid::from_u128(context.seed), of.as_bytes()))
}
