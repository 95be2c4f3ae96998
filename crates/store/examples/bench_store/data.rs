//! Made-up resources: the same ones on every run, found again by their number.

use bytes::Bytes;
use hilum_fhir::{Resource, ResourceType, Target, Timestamp};
use hilum_store::{Original, OriginalKind, sha256};
use serde_json::{Value, json};

const FAMILIES: [&str; 24] = [
    "Abel",
    "Becker",
    "Conti",
    "Dumont",
    "Eriksen",
    "Fischer",
    "Garcia",
    "Hansen",
    "Ivanov",
    "Jansen",
    "Keller",
    "Lindqvist",
    "Moreau",
    "Novak",
    "Olsen",
    "Peeters",
    "Quint",
    "Rossi",
    "Santos",
    "Takala",
    "Urban",
    "Vidal",
    "Weber",
    "Zeman",
];
const GIVEN: [&str; 12] =
    ["Ada", "Bo", "Carla", "David", "Elsa", "Farid", "Greta", "Hugo", "Ines", "Jonas", "Kim", "Lea"];
const CODES: [(&str, &str, &str); 10] = [
    ("718-7", "Hemoglobin [Mass/volume] in Blood", "g/dL"),
    ("2345-7", "Glucose [Mass/volume] in Serum or Plasma", "mg/dL"),
    ("2160-0", "Creatinine [Mass/volume] in Serum or Plasma", "mg/dL"),
    ("2951-2", "Sodium [Moles/volume] in Serum or Plasma", "mmol/L"),
    ("2823-3", "Potassium [Moles/volume] in Serum or Plasma", "mmol/L"),
    ("6690-2", "Leukocytes [#/volume] in Blood", "10*3/uL"),
    ("777-3", "Platelets [#/volume] in Blood", "10*3/uL"),
    ("8867-4", "Heart rate", "/min"),
    ("8310-5", "Body temperature", "Cel"),
    ("1988-5", "C reactive protein [Mass/volume] in Serum or Plasma", "mg/L"),
];

/// Numbers that look random and are the same on every run (splitmix64).
pub(crate) struct Dice(u64);

impl Dice {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.next() % end.max(1)
    }

    fn one<'v, T>(&mut self, of: &'v [T]) -> &'v T {
        &of[usize::try_from(self.below(of.len() as u64)).unwrap()]
    }
}

/// Every fourth resource is a Patient.
fn is_patient(number: u64) -> bool {
    number.is_multiple_of(4)
}

/// Type and id of a resource. Ids begin with the number, so that they grow as those of version 7 do.
pub(crate) fn name(number: u64) -> (ResourceType, String) {
    let name = if is_patient(number) { "Patient" } else { "Observation" };
    let random = Dice::new(number).next();
    let id = format!(
        "{:08x}-{:04x}-7{:03x}-8{:03x}-{:012x}",
        number >> 16,
        number & 0xffff,
        random & 0xfff,
        (random >> 12) & 0xfff,
        random >> 16
    );
    (ResourceType::from_name(name).unwrap(), id)
}

pub(crate) fn target(number: u64) -> Target {
    let (of, id) = name(number);
    Target::Id(of, id)
}

/// The patient a number leads to.
pub(crate) fn patient_of(number: u64) -> u64 {
    number - number % 4
}

/// A patient with about 60 observations: those of a block of 80 resources belong to its first patient.
fn subject(number: u64) -> u64 {
    number - number % 80
}

/// Reference to a patient with about 60 observations.
pub(crate) fn busy(number: u64) -> String {
    format!("Patient/{}", name(subject(number)).1)
}

pub(crate) fn mrn(number: u64) -> String {
    format!("{:08}", number.wrapping_mul(7919) % 100_000_000)
}

pub(crate) fn family(number: u64) -> String {
    let mut dice = Dice::new(patient_of(number));
    format!("{}{}", dice.one(&FAMILIES), dice.below(1000))
}

pub(crate) fn code(number: u64) -> &'static str {
    Dice::new(number).one(&CODES).0
}

pub(crate) fn resource(number: u64) -> Resource {
    let value = if is_patient(number) { patient(number) } else { observation(number) };
    Resource::from_value(value).unwrap()
}

fn patient(number: u64) -> Value {
    let family = family(number);
    let mut dice = Dice::new(number ^ 0xfeed);
    let given = [*dice.one(&GIVEN), *dice.one(&GIVEN)];
    let gender = *dice.one(&["female", "male"]);
    let phone = format!("+41 31 {:03} {:04}", dice.below(1000), dice.below(10_000));
    json!({
        "resourceType": "Patient",
        "meta": { "source": "urn:hilum:mllp:bench", "profile": ["http://hl7.org/fhir/StructureDefinition/Patient"] },
        "identifier": [
            { "use": "usual", "type": { "coding": [{ "system": "http://terminology.hl7.org/CodeSystem/v2-0203", "code": "MR",
                "display": "Medical record number" }] }, "system": "urn:mrn", "value": mrn(number),
                "assigner": { "display": "General Hospital" } },
            { "use": "official", "type": { "coding": [{ "system": "http://terminology.hl7.org/CodeSystem/v2-0203", "code": "SS" }] },
                "system": "urn:oid:2.16.756.5.32", "value": format!("756{:010}", dice.below(10_000_000_000)) },
        ],
        "active": true,
        "name": [{ "use": "official", "text": format!("{} {family}", given[0]), "family": family, "given": given }],
        "telecom": [
            { "system": "phone", "value": phone, "use": "home" },
            { "system": "email", "value": format!("{}.{}@example.org", given[0].to_lowercase(), family.to_lowercase()) },
        ],
        "gender": gender,
        "birthDate": format!("{}-{:02}-{:02}", 1925 + dice.below(98), 1 + dice.below(12), 1 + dice.below(28)),
        "deceasedBoolean": false,
        "address": [{ "use": "home", "type": "physical", "line": [format!("{} Long Lane {}", dice.one(&FAMILIES), dice.below(200))],
            "city": "Bern", "state": "BE", "postalCode": format!("{}", 3000 + dice.below(100)), "country": "CH" }],
        "maritalStatus": { "coding": [{ "system": "http://terminology.hl7.org/CodeSystem/v3-MaritalStatus", "code": "M", "display": "Married" }] },
        "communication": [{ "language": { "coding": [{ "system": "urn:ietf:bcp:47", "code": "de-CH" }] }, "preferred": true }],
        "managingOrganization": { "reference": "Organization/general-hospital", "display": "General Hospital" },
    })
}

fn observation(number: u64) -> Value {
    let (code, display, unit) = *Dice::new(number).one(&CODES);
    let mut dice = Dice::new(number ^ 0xbeef);
    let value = dice.below(20_000);
    let at = format!(
        "20{:02}-{:02}-{:02}T{:02}:{:02}:00+01:00",
        15 + dice.below(10),
        1 + dice.below(12),
        1 + dice.below(28),
        dice.below(24),
        dice.below(60)
    );
    json!({
        "resourceType": "Observation",
        "meta": { "source": "urn:hilum:mllp:bench" },
        "identifier": [{ "system": "urn:lab:result", "value": format!("R{number:010}") }],
        "status": "final",
        "category": [{ "coding": [{ "system": "http://terminology.hl7.org/CodeSystem/observation-category", "code": "laboratory",
            "display": "Laboratory" }] }],
        "code": { "coding": [{ "system": "http://loinc.org", "code": code, "display": display }], "text": display },
        "subject": { "reference": busy(number), "display": family(subject(number)) },
        "effectiveDateTime": at,
        "issued": at.replace(":00+", ":30+"),
        "performer": [{ "reference": format!("Practitioner/p{}", dice.below(200)), "display": format!("Dr {}", dice.one(&FAMILIES)) }],
        "valueQuantity": { "value": value / 10, "unit": unit, "system": "http://unitsofmeasure.org", "code": unit },
        "interpretation": [{ "coding": [{ "system": "http://terminology.hl7.org/CodeSystem/v3-ObservationInterpretation", "code": "N",
            "display": "Normal" }] }],
        "referenceRange": [{ "low": { "value": 3, "unit": unit }, "high": { "value": 1900, "unit": unit }, "text": "adults" }],
    })
}

/// What came in with a resource, and its answer.
pub(crate) fn original(number: u64, v2: bool) -> (Original, Option<Bytes>) {
    let control = format!("MSG{number:012}");
    let bytes = v2.then(|| message(number, &control));
    let answer = v2.then(|| {
        let text = format!("MSH|^~\\&|HILUM|EDGE|LAB|HOSPITAL|20240501120000||ACK^R01^ACK|{number}|P|2.5.1\rMSA|AA|{control}\r");
        Bytes::from(text)
    });
    let original = Original {
        kind: if v2 { OriginalKind::V2 } else { OriginalKind::Fhir },
        listener: "bench".into(),
        peer: Some(([10, 0, 0, 7], 40_000).into()),
        identity: Some("LAB|HOSPITAL".into()),
        control: v2.then(|| ("LAB|HOSPITAL".into(), control)),
        sha256: sha256(bytes.as_deref().unwrap_or(&number.to_le_bytes())),
        blob: None,
        bytes,
        content_type: if v2 { "application/hl7-v2" } else { "application/fhir+json" },
        received: Timestamp::from_micros(1_700_000_000_000_000 + i64::try_from(number).unwrap()),
        report: None,
        about: Default::default(),
    };
    (original, answer)
}

fn message(number: u64, control: &str) -> Bytes {
    let (mrn, family, (code, display, unit)) =
        (mrn(subject(number)), family(subject(number)), *Dice::new(number).one(&CODES));
    let value = Dice::new(number ^ 0xbeef).below(20_000) / 10;
    let text = format!(
        "MSH|^~\\&|LAB|HOSPITAL|HILUM|EDGE|20240501120000+0100||ORU^R01^ORU_R01|{control}|P|2.5.1|||AL|NE||UNICODE UTF-8\r\
         PID|1||{mrn}^^^HOSPITAL^MR||{family}^Ada^^^^^L||19700101|F|||Long Lane 7^^Bern^BE^3000^CH^H||+41 31 000 0000\r\
         PV1|1|O|LAB^01^02^HOSPITAL||||1234^Keller^Lea^^^Dr|||||||||||V{number}|||||||||||||||||||||||||20240501113000+0100\r\
         ORC|RE|O{number}|F{number}||CM||||20240501113000+0100|||1234^Keller^Lea^^^Dr\r\
         OBR|1|O{number}|F{number}|{code}^{display}^LN|||20240501110000+0100|||||||||1234^Keller^Lea^^^Dr||||||20240501120000+0100||LAB|F\r\
         OBX|1|NM|{code}^{display}^LN||{value}|{unit}|3-1900|N|||F|||20240501110000+0100||1234^Keller^Lea^^^Dr\r"
    );
    text.into()
}
