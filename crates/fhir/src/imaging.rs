//! Imaging as rows, and the ImagingStudy drawn from them.
//!
//! Study, series and instance rows are the truth; an ImagingStudy is a rendering of them, written as a version now and then. Which
//! DICOM attribute fills which FHIR element is decided by the rule tables of `hilum-normalise`: the rows carry
//! finished FHIR elements, so that this crate and the store know no DICOM.

use serde_json::{Map, Value, json};

use crate::{Match, PatientNumbers, Resource, ResourceType};

/// What an order, a performed step or an image says of a study. First value wins on the stored row; differences are conflicts.
#[derive(Clone, Debug, PartialEq)]
pub struct Study {
    /// Study Instance UID, `[0-9.]{1,64}`.
    pub uid: String,
    /// How the patient is found, and the Patient to create when it is unknown; `None` = nobody is named. What is known already of the
    /// study's patient is never altered.
    pub patient: Option<(PatientNumbers, Resource)>,
    /// Accession number: identifier system (issuer or site default) and value.
    pub accession: Option<(String, String)>,
    /// Identifiers of the orders this belongs to, each list those of one order, the most trusted first (filler, placer, accession).
    /// `ImagingStudy.basedOn` is every ServiceRequest of the study's patient that they name, now or later.
    pub orders: Vec<Vec<Match>>,
    /// Elements of ImagingStudy at study level: `started`, `description`, `referrer`, `procedureCode`, `reasonCode`, `identifier`
    /// (further ones than UID and accession), `location`, `note`.
    pub elements: Map<String, Value>,
}

/// One series row.
#[derive(Clone, Debug, PartialEq)]
pub struct Series {
    /// Series Instance UID.
    pub uid: String,
    /// Elements of `ImagingStudy.series`: `number`, `modality`, `description`, `bodySite`, `laterality`, `started`, `performer`, `specimen`.
    pub elements: Map<String, Value>,
}

/// One instance with the rows above it. Its blob is durable before this value exists.
#[derive(Clone, Debug, PartialEq)]
pub struct Instance {
    /// SOP Instance UID.
    pub uid: String,
    /// SOP Class UID.
    pub sop_class: String,
    /// Transfer Syntax UID it was received in.
    pub transfer_syntax: String,
    /// Elements of `ImagingStudy.series.instance` beyond uid and sopClass: `number`, `title`.
    pub elements: Map<String, Value>,
    /// Bytes of the data set, without file meta information.
    pub dataset_bytes: u64,
    /// SHA-256 of the data set as received: the fidelity and duplicate key.
    pub dataset_sha256: [u8; 32],
    /// Content address of the stored Part 10 file.
    pub blob: [u8; 32],
    /// Size of the stored Part 10 file in bytes.
    pub blob_bytes: u64,
    /// Its series.
    pub series: Series,
    /// Its study.
    pub study: Study,
}

/// State of a Modality Performed Procedure Step, PS3.4 F.7.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StepStatus {
    /// `IN PROGRESS`
    InProgress,
    /// `COMPLETED`, final
    Completed,
    /// `DISCONTINUED`, final
    Discontinued,
}

/// One message about a performed procedure step.
#[derive(Clone, Debug, PartialEq)]
pub struct PerformedStep {
    /// SOP Instance UID of the MPPS.
    pub uid: String,
    /// The study it belongs to; `None` = it is known already by the step's UID (an N-SET names no study, PS3.4 table F.7.2-1).
    pub study: Option<Study>,
    /// The state it asks for.
    pub status: StepStatus,
    /// The attributes sent, as a JSON object; kept merged with what was sent before.
    pub attributes: Map<String, Value>,
    /// Series the step performed: UID, elements as in [`Series`], expected number of images.
    pub series: Vec<(Series, Option<u32>)>,
    /// The Procedure's business identifier; the Procedure itself is a [`crate::Action::Merge`] of the same submission.
    /// `ImagingStudy.procedureReference` points at it.
    pub procedure: Match,
}

impl StepStatus {
    /// The DICOM value (0040,0252).
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::InProgress => "IN PROGRESS",
            Self::Completed => "COMPLETED",
            Self::Discontinued => "DISCONTINUED",
        }
    }

    /// From the DICOM value; surrounding blanks and case are forgiven, `_` stands for a blank.
    pub fn parse(text: &str) -> Option<Self> {
        match text.trim().to_ascii_uppercase().replace('_', " ").as_str() {
            "IN PROGRESS" => Some(Self::InProgress),
            "COMPLETED" => Some(Self::Completed),
            "DISCONTINUED" => Some(Self::Discontinued),
            _ => None,
        }
    }

    /// Whether the step may no longer change.
    pub const fn is_final(self) -> bool {
        matches!(self, Self::Completed | Self::Discontinued)
    }
}

/// A study with everything stored of it, from which its ImagingStudy is drawn.
#[derive(Clone, Debug)]
pub struct StudyRows {
    /// Study Instance UID.
    pub uid: String,
    /// Accession number: identifier system and value.
    pub accession: Option<(String, String)>,
    /// Study-level elements.
    pub elements: Map<String, Value>,
    /// `Patient/id`, when known.
    pub patient: Option<String>,
    /// `ServiceRequest/id`s of the orders it belongs to.
    pub based_on: Vec<String>,
    /// `Procedure/id` of the first performed step that was not discontinued.
    pub procedure: Option<String>,
    /// Whether it has performed steps, and all of them were discontinued.
    pub discontinued: bool,
    /// Whether somebody has to look at it: images of it were said to be of another patient, or stand in another study too.
    pub attention: bool,
    /// The series in order of number, then UID, each with its instances in order of number, then UID.
    pub series: Vec<(Series, Vec<InstanceRow>)>,
}

/// What an ImagingStudy says of one instance.
#[derive(Clone, Debug)]
pub struct InstanceRow {
    /// SOP Instance UID.
    pub uid: String,
    /// SOP Class UID.
    pub sop_class: String,
    /// `number`, `title`.
    pub elements: Map<String, Value>,
}

/// System and code of the tag of a resource that somebody has to look at because senders disagree whose it is.
pub const ATTENTION: (&str, &str) = ("urn:hilum:attention", "identity-conflict");

/// Members of an ImagingStudy that come from rows always; what else the rows say (`description`, `started` …) comes from them too.
const DRAWN: [&str; 8] = [
    "status",
    "modality",
    "subject",
    "basedOn",
    "procedureReference",
    "numberOfSeries",
    "numberOfInstances",
    "series",
];

/// The stored ImagingStudy with everything its rows say as they say it now; what clients added besides stays.
pub fn redraw(stored: &Resource, drawn: &Resource) -> Resource {
    let mut study = stored.clone();
    for member in DRAWN {
        study.object_mut().shift_remove(member);
    }
    for (name, value) in drawn.object() {
        match (name.as_str(), study.get(name), value) {
            ("resourceType" | "id" | "meta", ..) => {}
            ("identifier", Some(Value::Array(known)), Value::Array(own)) => {
                let others = known.iter().filter(|known| !own.iter().any(|own| is_same_number(own, known)));
                let all = own.iter().chain(others).cloned().collect();
                study.set("identifier", all);
            }
            _ => study.set(name, value.clone()),
        }
    }
    let is_marked = |study: &Resource| tags(study).iter().any(is_attention);
    if is_marked(&study) != is_marked(drawn) {
        set_attention(&mut study, is_marked(drawn));
    }
    study
}

/// Members of a sent ImagingStudy that say something else than the rows it is drawn from.
pub fn contradictions(sent: &Resource, drawn: &Resource) -> Vec<String> {
    let right = redraw(sent, drawn);
    let names = right.object().keys().chain(sent.object().keys().filter(|name| right.get(name).is_none()));
    names
        .filter(|name| !matches!(name.as_str(), "meta" | "identifier") && right.get(name) != sent.get(name))
        .chain(lacks_identifier(sent, drawn).then_some(&"identifier".to_owned()))
        .cloned()
        .collect()
}

fn lacks_identifier(sent: &Resource, drawn: &Resource) -> bool {
    let list =
        |study: &Resource| study.get("identifier").and_then(Value::as_array).cloned().unwrap_or_default();
    let sent = list(sent);
    list(drawn).iter().any(|own| !sent.iter().any(|sent| is_same_number(own, sent)))
}

fn is_same_number(one: &Value, other: &Value) -> bool {
    one.get("system") == other.get("system") && one.get("value") == other.get("value")
}

fn tags(resource: &Resource) -> Vec<Value> {
    resource.get("meta").and_then(|meta| meta["tag"].as_array()).cloned().unwrap_or_default()
}

fn is_attention(tag: &Value) -> bool {
    (tag["system"].as_str(), tag["code"].as_str()) == (Some(ATTENTION.0), Some(ATTENTION.1))
}

/// Sets or removes the tag of what somebody has to look at.
pub fn set_attention(resource: &mut Resource, is_wanted: bool) {
    let mut tags = tags(resource);
    tags.retain(|tag| !is_attention(tag));
    if is_wanted {
        tags.push(json!({ "system": ATTENTION.0, "code": ATTENTION.1 }));
    }
    let mut meta = resource.get("meta").and_then(Value::as_object).cloned().unwrap_or_default();
    meta.shift_remove("tag");
    if !tags.is_empty() {
        meta.insert("tag".into(), Value::Array(tags));
    }
    resource.object_mut().shift_remove("meta");
    if !meta.is_empty() {
        resource.set("meta", Value::Object(meta));
    }
}

/// Draws the ImagingStudy of a study from its rows. The store sets `id` and `meta`. DICOM PS3.3 C.7 to FHIR R4 ImagingStudy.
pub fn imaging_study(rows: &StudyRows) -> Resource {
    let mut study = Resource::new(imaging_study_type());
    let mut elements = rows.elements.clone();
    study.set("identifier", Value::Array(identifiers(rows, elements.shift_remove("identifier"))));
    study.set("status", status(rows).into());
    let modalities = modalities(rows);
    if !modalities.is_empty() {
        study.set("modality", Value::Array(modalities));
    }
    let unknown_patient = || json!({ "display": "unknown patient" });
    study.set(
        "subject",
        rows.patient.as_ref().map_or_else(unknown_patient, |reference| json!({ "reference": reference })),
    );
    for (name, value) in elements {
        study.set(&name, value);
    }
    if !rows.based_on.is_empty() {
        study.set(
            "basedOn",
            rows.based_on.iter().map(|reference| json!({ "reference": reference })).collect(),
        );
    }
    if let Some(procedure) = &rows.procedure {
        study.set("procedureReference", json!({ "reference": procedure }));
    }
    let instances: usize = rows.series.iter().map(|(_, instances)| instances.len()).sum();
    study.set("numberOfSeries", rows.series.len().into());
    study.set("numberOfInstances", instances.into());
    if !rows.series.is_empty() {
        study.set("series", rows.series.iter().map(|(row, instances)| series(row, instances)).collect());
    }
    if rows.attention {
        set_attention(&mut study, true);
    }
    study
}

fn imaging_study_type() -> ResourceType {
    ResourceType::from_name("ImagingStudy").unwrap_or_else(|| unreachable!("a type of fhir r4"))
}

fn status(rows: &StudyRows) -> &'static str {
    match (rows.series.iter().any(|(_, instances)| !instances.is_empty()), rows.discontinued) {
        (true, _) => "available",
        (false, true) => "cancelled",
        (false, false) => "registered",
    }
}

fn identifiers(rows: &StudyRows, further: Option<Value>) -> Vec<Value> {
    let mut list = vec![
        json!({ "use": "official", "system": "urn:dicom:uid", "value": format!("urn:oid:{}", rows.uid) }),
    ];
    if let Some((system, value)) = &rows.accession {
        list.push(json!({
            "type": { "coding": [{ "system": "http://terminology.hl7.org/CodeSystem/v2-0203", "code": "ACSN" }] },
            "system": system, "value": value,
        }));
    }
    if let Some(Value::Array(further)) = further {
        list.extend(further);
    }
    list
}

/// The distinct modalities of the series, in order of appearance.
fn modalities(rows: &StudyRows) -> Vec<Value> {
    let mut list: Vec<Value> = Vec::new();
    for (series, _) in &rows.series {
        if let Some(modality) = series.elements.get("modality").filter(|m| !list.contains(m)) {
            list.push(modality.clone());
        }
    }
    list
}

fn series(row: &Series, instances: &[InstanceRow]) -> Value {
    let mut series = Map::new();
    series.insert("uid".into(), row.uid.clone().into());
    series.extend(row.elements.clone());
    if !series.contains_key("modality") {
        series.insert(
            "modality".into(),
            json!({ "system": "http://dicom.nema.org/resources/ontology/DCM", "code": "OT" }),
        );
    }
    series.insert("numberOfInstances".into(), instances.len().into());
    if !instances.is_empty() {
        series.insert("instance".into(), instances.iter().map(instance).collect());
    }
    Value::Object(series)
}

fn instance(row: &InstanceRow) -> Value {
    let mut instance = Map::new();
    instance.insert("uid".into(), row.uid.clone().into());
    instance.insert(
        "sopClass".into(),
        json!({ "system": "urn:ietf:rfc:3986", "code": format!("urn:oid:{}", row.sop_class) }),
    );
    instance.extend(row.elements.clone());
    Value::Object(instance)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(value: Value) -> Map<String, Value> {
        value.as_object().unwrap().clone()
    }

    #[test]
    fn a_redraw_keeps_what_clients_added_and_rows_win_over_the_rest() {
        let of = |value: Value| Resource::from_value(value).unwrap();
        let drawn = of(
            json!({ "resourceType": "ImagingStudy", "identifier": [{ "system": "urn:dicom:uid", "value": "urn:oid:1" }],
            "status": "available", "subject": { "reference": "Patient/2" }, "numberOfInstances": 2, "description": "CT" }),
        );
        let stored = of(json!({ "resourceType": "ImagingStudy", "id": "s", "identifier": [
                { "system": "urn:dicom:uid", "value": "urn:oid:1" }, { "value": "teaching file 7" }],
            "status": "registered", "subject": { "reference": "Patient/1" }, "basedOn": [{ "reference": "ServiceRequest/old" }],
            "note": [{ "text": "second reading wanted" }] }));
        let redrawn = redraw(&stored, &drawn);
        assert_eq!(
            redrawn.to_value(),
            json!({ "resourceType": "ImagingStudy", "id": "s", "identifier": [
                { "system": "urn:dicom:uid", "value": "urn:oid:1" }, { "value": "teaching file 7" }],
            "note": [{ "text": "second reading wanted" }], "status": "available", "subject": { "reference": "Patient/2" },
            "numberOfInstances": 2, "description": "CT" })
        );
        assert_eq!(contradictions(&redrawn, &drawn), Vec::<String>::new());
        let mut wrong = redrawn;
        wrong.set("numberOfInstances", 3.into());
        wrong.set("basedOn", json!([{ "reference": "ServiceRequest/x" }]));
        wrong.set("identifier", json!([{ "value": "teaching file 7" }]));
        assert_eq!(contradictions(&wrong, &drawn), ["numberOfInstances", "basedOn", "identifier"]);
    }

    #[test]
    fn counts_come_from_rows_and_status_from_what_exists() {
        let mut rows = StudyRows {
            uid: "1.2.3".into(),
            accession: Some(("urn:a".into(), "A1".into())),
            elements: object(json!({ "description": "CT chest", "identifier": [{ "value": "S1" }] })),
            patient: Some("Patient/p".into()),
            based_on: vec!["ServiceRequest/s".into()],
            procedure: None,
            discontinued: false,
            attention: false,
            series: Vec::new(),
        };
        assert_eq!(imaging_study(&rows).get("status"), Some(&json!("registered")));
        let ct = Series {
            uid: "1.2.3.1".into(),
            elements: object(json!({ "number": 1, "modality": { "code": "CT" } })),
        };
        let row = InstanceRow {
            uid: "1.2.3.1.1".into(),
            sop_class: "1.2.840.10008.5.1.4.1.1.2".into(),
            elements: Map::new(),
        };
        rows.series = vec![(ct.clone(), vec![row.clone(), row]), (ct, Vec::new())];
        let study = imaging_study(&rows).into_value();
        assert_eq!(study["status"], "available");
        assert_eq!(study["numberOfSeries"], 2);
        assert_eq!(study["numberOfInstances"], 2);
        assert_eq!(study["modality"], json!([{ "code": "CT" }]));
        assert_eq!(study["identifier"][0]["value"], "urn:oid:1.2.3");
        assert_eq!(study["identifier"][2]["value"], "S1");
        assert_eq!(
            study["series"][0]["instance"][0]["sopClass"]["code"],
            "urn:oid:1.2.840.10008.5.1.4.1.1.2"
        );
    }
}
