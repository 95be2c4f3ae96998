//! What senders and clients do, as data, and the changes it becomes: small sets of numbers, names and times, so that everything meets everything.

use hilum_fhir::imaging::{Instance, PerformedStep, Series, StepStatus, Study};
use hilum_fhir::{
    Action, Change, Clue, Disagreement, Key, Keys, Match, PatientNumbers, Resource, ResourceType, Target,
    Timestamp,
};
use serde_json::{Map, Value, json};

/// System of numbers without an assigning authority.
pub(crate) const DOMAIN: &str = "urn:model:domain";
/// Systems of patients' numbers: the site's own domain, an authority, and one whose numbers no modality repeats.
pub(crate) const SYSTEMS: [(&str, Option<&str>); 3] =
    [(DOMAIN, None), ("urn:model:hospital", Some("MR")), ("urn:model:insurance", Some("SS"))];
pub(crate) const BIRTH_DATES: [Option<&str>; 3] = [Some("1961-01-01"), Some("1962-02-02"), None];
pub(crate) const FAMILIES: [Option<&str>; 3] = [Some("Doe"), Some("Roe"), None];
const ACCESSIONS: &str = "urn:model:accession";
const VISITS: &str = "urn:model:visit";
const FILLERS: &str = "urn:model:filler";
const PLACERS: &str = "urn:model:placer";
const OBSERVATIONS: &str = "urn:model:observation";
/// When everything is received: all times of senders lie before or just behind it.
const RECEIVED_MS: i64 = 1_700_000_000_000;

/// A number of a patient: index of its system, and its value.
pub(crate) type Number = (usize, u8);

/// A patient as a message names it.
#[derive(Clone, Debug)]
pub(crate) struct Person {
    pub(crate) numbers: Vec<Number>,
    pub(crate) birth: usize,
    pub(crate) family: usize,
}

impl Person {
    /// The birth date that the message says.
    pub(crate) fn birth_date(&self) -> Option<&'static str> {
        BIRTH_DATES[self.birth]
    }

    /// The family name that the message says.
    pub(crate) fn family(&self) -> Option<&'static str> {
        FAMILIES[self.family]
    }
}

/// Who says it and when.
#[derive(Clone, Debug)]
pub(crate) struct Said {
    pub(crate) sender: u8,
    /// Minutes since a moment; `None` = the message does not say.
    pub(crate) minute: Option<i64>,
}

/// The numbers of an order: with an authority or without.
#[derive(Clone, Debug)]
pub(crate) struct OrderNumbers {
    pub(crate) filler: Option<(bool, u8)>,
    pub(crate) placer: Option<(bool, u8)>,
    pub(crate) accession: Option<u8>,
    pub(crate) code: Option<u8>,
    pub(crate) by_code: bool,
}

/// The DICOM UIDs and the accession number of an image or a step.
#[derive(Clone, Debug)]
pub(crate) struct Uids {
    pub(crate) study: u8,
    pub(crate) series: u8,
    pub(crate) own: u8,
    pub(crate) accession: Option<u8>,
}

/// One thing that happens.
#[derive(Clone, Debug)]
pub(crate) enum Step {
    Patient {
        said: Said,
        person: Person,
        ensure: bool,
    },
    Supersede {
        said: Said,
        survivor: Person,
        priors: Vec<Number>,
    },
    Order {
        said: Said,
        person: Person,
        numbers: OrderNumbers,
        status: Option<u8>,
        study: Option<u8>,
    },
    /// The order is named in passing too, as by a result without ORC. What was measured is part of a performed step, if one is named.
    Result {
        said: Said,
        person: Person,
        numbers: OrderNumbers,
        value: u8,
        names_order: bool,
        step: Option<u8>,
    },
    /// Named by its number alone when it is `plain`: nothing but the guard sees that it is another patient's.
    Visit {
        said: Said,
        person: Person,
        number: (bool, u8),
        status: u8,
        plain: bool,
    },
    Move {
        said: Said,
        from: Person,
        to: Person,
        order: Option<OrderNumbers>,
        visit: (bool, u8),
    },
    Image {
        person: Person,
        uids: Uids,
        content: u8,
    },
    Perform {
        person: Person,
        uids: Uids,
        status: u8,
        names_study: bool,
    },
    /// REST: another text in the nth resource of a type; a deleted one is made again.
    Edit {
        of: &'static str,
        nth: usize,
        text: u8,
    },
    /// REST: the nth Patient is replaced by another, or by nobody.
    Link {
        nth: usize,
        to: Option<usize>,
    },
    /// REST: the nth resource of a type is another patient's.
    Give {
        of: &'static str,
        nth: usize,
        to: usize,
    },
    /// REST: the nth resource of a type is deleted.
    Erase {
        of: &'static str,
        nth: usize,
    },
    /// The accepted message before, sent again.
    Repeat {
        back: usize,
    },
    Restart,
    Publish,
}

/// Types of what REST clients write.
pub(crate) const TYPES: [&str; 7] = [
    "Patient",
    "ServiceRequest",
    "DiagnosticReport",
    "Observation",
    "Encounter",
    "Procedure",
    "ImagingStudy",
];

impl Step {
    /// Whether it is something a sender sends, and the changes it becomes: `(sender, changes)`.
    pub(crate) fn message(&self) -> Option<(u8, Vec<Change>)> {
        match self {
            Self::Patient { said, person, ensure } => Some((said.sender, patient(said, person, *ensure))),
            Self::Supersede { said, survivor, priors } => {
                Some((said.sender, supersede(said, survivor, priors)))
            }
            Self::Order { said, person, numbers, status, study } => {
                Some((said.sender, ordered(said, person, numbers, *status, *study)))
            }
            Self::Result { said, person, numbers, value, names_order, step } => {
                let mut changes = result(said, person, numbers, *value, *step);
                if *names_order {
                    let order = ordered(said, person, numbers, None, None).swap_remove(1);
                    changes.push(Change { in_passing: true, ..order });
                }
                Some((said.sender, changes))
            }
            Self::Visit { said, person, number, status, plain } => {
                let mut changes = visit(said, person, *number, *status);
                if *plain {
                    by_number_alone(&mut changes[1]);
                }
                Some((said.sender, changes))
            }
            Self::Move { said, from, to, order, visit } => {
                Some((said.sender, moved(said, (from, to), order.as_ref(), *visit)))
            }
            Self::Image { person, uids, content } => Some((2, image(person, uids, *content))),
            Self::Perform { person, uids, status, names_study } => {
                Some((3, performed(person, uids, *status, *names_study)))
            }
            _ => None,
        }
    }

    /// Whether it is a correction by a client, after which the strict rules of messages do not hold.
    pub(crate) fn is_correction(&self) -> bool {
        matches!(self, Self::Link { .. } | Self::Give { .. } | Self::Erase { .. } | Self::Edit { .. })
    }
}

/// When a message is received.
pub(crate) fn received() -> Timestamp {
    Timestamp::from_micros(RECEIVED_MS * 1000)
}

/// When a minute is, ms since 1970. The last is too far ahead of the edge's clock to order anything.
pub(crate) fn happened_ms(minute: i64) -> i64 {
    let minutes = if minute == 11 { 60 } else { minute - 20 };
    RECEIVED_MS + minutes * 60_000
}

/// Whether the time of a message orders it.
pub(crate) fn clock(said: &Said) -> Option<i64> {
    said.minute.filter(|minute| *minute != 11).map(happened_ms)
}

pub(crate) fn kind(name: &str) -> ResourceType {
    ResourceType::from_name(name).unwrap()
}

/// System and value of a patient's number.
pub(crate) fn pair((system, value): Number) -> (String, String) {
    (SYSTEMS[system].0.to_owned(), format!("N{value}"))
}

/// A study's UID.
pub(crate) fn study_uid(study: u8) -> String {
    format!("1.2.{study}")
}

/// A series' UID: the same in both studies.
pub(crate) fn series_uid(series: u8) -> String {
    format!("1.3.{series}")
}

/// An image's UID.
pub(crate) fn sop_uid(own: u8) -> String {
    format!("1.4.{own}")
}

fn numbers(person: &Person, clues: Vec<Clue>, disagreement: Disagreement) -> PatientNumbers {
    let numbers = person.numbers.iter().map(|number| pair(*number)).collect();
    PatientNumbers { numbers, domain: DOMAIN.to_owned(), former: Vec::new(), join: true, clues, disagreement }
}

fn patient_resource(numbers: &[Number], birth: Option<&str>, family: Option<&str>) -> Resource {
    let identifier = |number: &Number| {
        let (system, value) = pair(*number);
        match SYSTEMS[number.0].1 {
            Some(code) => {
                json!({ "type": { "coding": [{ "code": code }] }, "system": system, "value": value })
            }
            None => json!({ "system": system, "value": value }),
        }
    };
    let identifiers: Vec<Value> = numbers.iter().map(identifier).collect();
    let mut patient = Resource::new(kind("Patient"));
    patient.set("identifier", identifiers.into());
    if let Some(birth) = birth {
        patient.set("birthDate", birth.into());
    }
    if let Some(family) = family {
        patient.set("name", json!([{ "family": family }]));
    }
    patient
}

fn of_person(person: &Person) -> Resource {
    patient_resource(&person.numbers, BIRTH_DATES[person.birth], FAMILIES[person.family])
}

fn by_numbers(person: &Person) -> Target {
    Target::Patient(Box::new(numbers(person, Vec::new(), Disagreement::Refuse)))
}

fn change(said: &Said, url: &str, action: Action) -> Change {
    let happened = said.minute.map(|minute| Timestamp::from_micros(happened_ms(minute) * 1000));
    Change { happened, ..Change::new(action).with_full_url(url) }
}

fn patient(said: &Said, person: &Person, ensure: bool) -> Vec<Change> {
    let action = match ensure {
        true => Action::Ensure(by_numbers(person), of_person(person)),
        false => Action::Merge(by_numbers(person), of_person(person), Vec::new()),
    };
    vec![change(said, "urn:uuid:p", action)]
}

fn supersede(said: &Said, survivor: &Person, priors: &[Number]) -> Vec<Change> {
    let left = Person { numbers: priors.to_vec(), ..survivor.clone() };
    let action = Action::Supersede {
        survivor: Box::new((by_numbers(survivor), of_person(survivor))),
        prior: Box::new((by_numbers(&left), patient_resource(priors, None, None))),
    };
    // as the mapper of A40 does: then the survivor is written, without the numbers of the prior
    let kept: Vec<Number> = survivor.numbers.iter().filter(|n| !priors.contains(n)).copied().collect();
    let mut changes = vec![change(said, "urn:uuid:s", action)];
    if !kept.is_empty() {
        changes.extend(patient(said, &Person { numbers: kept, ..survivor.clone() }, false));
    }
    changes
}

fn key(system: &str, (qualified, value): (bool, u8), code: &str) -> Key {
    let value = format!("K{value}");
    let of = kind("ServiceRequest");
    match qualified {
        true => {
            Key::Number(Match { resource_type: of, system: Some(system.into()), value }, Some(code.into()))
        }
        false => Key::Bare(value, Some(code.into())),
    }
}

fn identifier(system: &str, (qualified, value): (bool, u8), code: &str) -> Value {
    let mut identifier = json!({ "type": { "coding": [{ "code": code }] } });
    if qualified {
        identifier["system"] = system.into();
    }
    identifier["value"] = format!("K{value}").into();
    identifier
}

fn keys(of: &str, numbers: &OrderNumbers) -> Keys {
    let filler = numbers.filler.map(|number| key(FILLERS, number, "FILL"));
    let placer = numbers.placer.map(|number| key(PLACERS, number, "PLAC"));
    let of = kind(of);
    let mut keys: Vec<Key> = filler.into_iter().chain(placer).collect();
    for key in &mut keys {
        if let Key::Number(wanted, _) = key {
            wanted.resource_type = of;
        }
    }
    Keys { resource_type: of, patient: Some("urn:uuid:p".into()), keys, by_code: numbers.by_code }
}

fn identifiers(numbers: &OrderNumbers) -> Value {
    let filler = numbers.filler.map(|number| identifier(FILLERS, number, "FILL"));
    let placer = numbers.placer.map(|number| identifier(PLACERS, number, "PLAC"));
    filler.into_iter().chain(placer).collect()
}

fn code(code: Option<u8>) -> Option<Value> {
    code.map(|code| json!({ "coding": [{ "system": "urn:model:service", "code": format!("S{code}") }] }))
}

fn subject() -> Value {
    json!({ "reference": "urn:uuid:p" })
}

fn ordered(
    said: &Said,
    person: &Person,
    numbers: &OrderNumbers,
    status: Option<u8>,
    study: Option<u8>,
) -> Vec<Change> {
    let mut order = Resource::new(kind("ServiceRequest"));
    let mut list = identifiers(numbers);
    if let (Some(accession), Some(list)) = (numbers.accession, list.as_array_mut()) {
        list.push(json!({ "type": { "coding": [{ "code": "ACSN" }] }, "system": ACCESSIONS, "value": format!("A{accession}") }));
    }
    order.set("identifier", list);
    order.set("subject", subject());
    if let Some(code) = code(numbers.code) {
        order.set("code", code);
    }
    if let Some(status) = status {
        order.set("status", ["active", "revoked"][usize::from(status)].into());
    }
    let target = Target::Keys(Box::new(keys("ServiceRequest", numbers)));
    let mut change = change(said, "urn:uuid:o", Action::Merge(target, order, Vec::new()));
    change.defaults.insert("status".into(), "active".into());
    change.defaults.insert("intent".into(), "order".into());
    let mut changes = patient(said, person, false);
    changes.push(change);
    if let Some(study) = study {
        let uids = Uids { study, series: 0, own: 0, accession: numbers.accession };
        changes.push(Change::new(Action::Study(Box::new(study_of(person, &uids, Disagreement::Refuse)))));
    }
    changes
}

/// The condition by which a mapper refers to an order.
fn condition(numbers: &OrderNumbers) -> Option<Value> {
    let pair = |system: &str, (qualified, value): (bool, u8)| {
        format!("{}%7CK{value}", if qualified { system } else { "" })
    };
    let filler = numbers.filler.map(|number| (FILLERS, number, "FILL"));
    let first = filler.or(numbers.placer.map(|number| (PLACERS, number, "PLAC")))?;
    let all = numbers.filler.map(|number| pair(FILLERS, number));
    let all: Vec<String> =
        all.into_iter().chain(numbers.placer.map(|number| pair(PLACERS, number))).collect();
    Some(
        json!({ "reference": format!("ServiceRequest?identifier={}", all.join(",")), "type": "ServiceRequest",
        "identifier": identifier(first.0, first.1, first.2) }),
    )
}

fn result(said: &Said, person: &Person, numbers: &OrderNumbers, value: u8, step: Option<u8>) -> Vec<Change> {
    let mut report = Resource::new(kind("DiagnosticReport"));
    report.set("identifier", identifiers(numbers));
    report.set("subject", subject());
    report.set("code", code(numbers.code).unwrap_or_else(|| json!({ "text": "?" })));
    report.set("status", ["preliminary", "final"][usize::from(value % 2)].into());
    if let Some(order) = condition(numbers) {
        report.set("basedOn", json!([order]));
    }
    let target = Target::Keys(Box::new(keys("DiagnosticReport", numbers)));
    let mut observation = Resource::new(kind("Observation"));
    observation.set("status", "final".into());
    observation.set("code", json!({ "text": "measured" }));
    observation.set("subject", subject());
    match value {
        0 | 1 => observation.set("valueString", format!("text {value}").into()),
        _ => observation.set("valueQuantity", json!({ "value": value })),
    }
    if let Some(step) = step {
        let (system, value) = step_number(step);
        observation.set(
            "partOf",
            json!([{ "reference": format!("Procedure?identifier={system}%7C{value}"), "type": "Procedure",
                "identifier": { "system": system, "value": value } }]),
        );
    }
    let under = Key::Under {
        parent: "urn:uuid:r".into(),
        system: OBSERVATIONS.into(),
        value: format!("{}", value % 2),
        former: None,
    };
    let keys = Keys {
        resource_type: kind("Observation"),
        patient: Some("urn:uuid:p".into()),
        keys: vec![under],
        by_code: false,
    };
    let mut changes = patient(said, person, false);
    changes.push(change(said, "urn:uuid:r", Action::Merge(target, report, Vec::new())));
    let target = Target::Keys(Box::new(keys));
    changes.push(change(said, "urn:uuid:v", Action::Merge(target, observation, Vec::new())));
    changes
}

fn visit_keys(number: (bool, u8), patient: &str) -> Keys {
    let mut key = key(VISITS, number, "VN");
    if let Key::Number(wanted, _) = &mut key {
        wanted.resource_type = kind("Encounter");
    }
    Keys { resource_type: kind("Encounter"), patient: Some(patient.into()), keys: vec![key], by_code: false }
}

fn visit(said: &Said, person: &Person, number: (bool, u8), status: u8) -> Vec<Change> {
    let mut visit = Resource::new(kind("Encounter"));
    visit.set("identifier", json!([identifier(VISITS, number, "VN")]));
    visit.set("subject", subject());
    visit.set("status", ["in-progress", "finished"][usize::from(status)].into());
    visit.set("class", json!({ "code": "IMP" }));
    let target = Target::Keys(Box::new(visit_keys(number, "urn:uuid:p")));
    let mut changes = patient(said, person, false);
    changes.push(change(said, "urn:uuid:e", Action::Merge(target, visit, Vec::new())));
    changes
}

/// The change is about whatever has its number.
fn by_number_alone(change: &mut Change) {
    if let Action::Merge(target, ..) = &mut change.action
        && let Target::Keys(keys) = target
        && let Some(Key::Number(wanted, _)) = keys.keys.first()
    {
        *target = Target::Match(wanted.clone());
    }
}

fn moved(
    said: &Said,
    (from, to): (&Person, &Person),
    order: Option<&OrderNumbers>,
    visit: (bool, u8),
) -> Vec<Change> {
    let keys = match order {
        Some(numbers) => Keys { patient: Some("urn:uuid:q".into()), ..keys("ServiceRequest", numbers) },
        None => visit_keys(visit, "urn:uuid:q"),
    };
    let mut changes = patient(said, to, true);
    changes.push(change(said, "urn:uuid:q", Action::Ensure(by_numbers(from), of_person(from))));
    let target = Target::Keys(Box::new(keys));
    changes.push(change(said, "urn:uuid:m", Action::Move(target, "urn:uuid:p".into())));
    changes
}

fn accession(uids: &Uids) -> Option<Match> {
    let accession = uids.accession?;
    let value = format!("A{accession}");
    Some(Match { resource_type: kind("ServiceRequest"), system: Some(ACCESSIONS.into()), value })
}

fn study_of(person: &Person, uids: &Uids, disagreement: Disagreement) -> Study {
    let order = accession(uids);
    let clues = order.clone().map(Clue::Resource);
    let clues = clues.into_iter().chain([Clue::Study(study_uid(uids.study))]).collect();
    let is_named = !person.numbers.is_empty();
    Study {
        uid: study_uid(uids.study),
        patient: is_named.then(|| (numbers(person, clues, disagreement), of_person(person))),
        accession: order.clone().and_then(|order| Some((order.system?, order.value))),
        orders: order.map(|order| vec![order]).into_iter().collect(),
        elements: object(json!({ "description": format!("study {}", uids.study) })),
    }
}

fn object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(object) => object,
        _ => Map::new(),
    }
}

fn series(uids: &Uids) -> Series {
    let elements = object(json!({ "number": uids.series, "modality": { "code": "CT" } }));
    Series { uid: series_uid(uids.series), elements }
}

fn image(person: &Person, uids: &Uids, content: u8) -> Vec<Change> {
    // another patient or number in the header is another file
    let sha256 = hilum_store::sha256(format!("{person:?} {uids:?} {content}").as_bytes());
    let instance = Instance {
        uid: sop_uid(uids.own),
        sop_class: "1.2.840.10008.5.1.4.1.1.2".into(),
        transfer_syntax: "1.2.840.10008.1.2.1".into(),
        elements: object(json!({ "number": uids.own })),
        dataset_bytes: 1,
        dataset_sha256: sha256,
        blob: sha256,
        blob_bytes: 1,
        series: series(uids),
        study: study_of(person, uids, Disagreement::KeepApart),
    };
    vec![Change::new(Action::Instance(Box::new(instance)))]
}

/// System and value of the number of a performed step.
fn step_number(own: u8) -> (&'static str, String) {
    ("urn:dicom:uid", format!("urn:oid:1.5.{own}"))
}

fn performed(person: &Person, uids: &Uids, status: u8, names_study: bool) -> Vec<Change> {
    let uid = format!("1.5.{}", uids.own);
    let (system, value) = step_number(uids.own);
    let procedure = Match { resource_type: kind("Procedure"), system: Some(system.into()), value };
    let status =
        [StepStatus::InProgress, StepStatus::Completed, StepStatus::Discontinued][usize::from(status)];
    let identifier = json!([{ "system": system, "value": procedure.value }]);
    let (mut changes, mut clear) = (Vec::new(), Vec::new());
    let mut resource = Resource::new(procedure.resource_type);
    resource.set("identifier", identifier.clone());
    let mut study = study_of(person, uids, Disagreement::Refuse);
    if let Some((numbers, made)) = &mut study.patient {
        numbers.clues.insert(0, Clue::Resource(procedure.clone()));
        let target = Target::Patient(Box::new(numbers.clone()));
        changes.push(Change::new(Action::Ensure(target, made.clone())).with_full_url("urn:uuid:p"));
        clear.push("subject".to_owned());
        resource.set("subject", subject());
    } else {
        let mut placeholder = resource.clone();
        placeholder.set("status", "unknown".into());
        placeholder.set("subject", json!({ "display": "unknown patient" }));
        changes.push(Change::new(Action::Ensure(procedure.clone().into(), placeholder)));
    }
    let word = match status {
        StepStatus::InProgress => "in-progress",
        StepStatus::Completed => "completed",
        StepStatus::Discontinued => "stopped",
    };
    resource.set("status", word.into());
    if let Some(order) = accession(uids) {
        resource.set(
            "basedOn",
            json!([{ "reference": format!("ServiceRequest?identifier={ACCESSIONS}%7C{}", order.value),
            "type": "ServiceRequest", "identifier": { "system": ACCESSIONS, "value": order.value } }]),
        );
    }
    changes.push(Change::new(Action::Merge(procedure.clone().into(), resource, clear)));
    changes.push(Change::new(Action::Step(Box::new(PerformedStep {
        uid,
        study: names_study.then_some(study),
        status,
        attributes: object(json!({ "status": status.as_str() })),
        series: vec![(series(uids), Some(1))],
        procedure,
    }))));
    changes
}
