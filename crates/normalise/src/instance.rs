//! A DICOM instance as rows of instance, series and study, and a patient to ensure. Which attribute fills which element is said by
//! `maps/dicom/instance.csv`.

use hilum_fhir::imaging::{Instance, Series, Study};
use hilum_fhir::{Action, Change, Clue, Disagreement, Issue, IssueCode, Match, PatientNumbers, Resource};
use hilum_wire::scan::{self, Header, Tag};
use jiff::civil;
use jiff::tz::TimeZone;
use serde_json::{Map, Value, json};

use crate::identity::{self, Authority, Kind, NUMBERS_MAX};
use crate::{Context, Lineage, Normalised};

/// The rule of what no row decides.
const FIXED: &str = "dicom/instance";
const ROWS: &str = include_str!("../maps/dicom/instance.csv");
const SOP_CLASS: Tag = Tag::new(0x0008, 0x0016);
const SOP_INSTANCE: Tag = Tag::new(0x0008, 0x0018);
const PATIENT_ID: Tag = Tag::new(0x0010, 0x0020);
const ISSUER: Tag = Tag::new(0x0010, 0x0021);
const ACCESSION: Tag = Tag::new(0x0008, 0x0050);
const STUDY_UID: Tag = Tag::new(0x0020, 0x000D);
const SERIES_UID: Tag = Tag::new(0x0020, 0x000E);
const STUDY_DATE: Tag = Tag::new(0x0008, 0x0020);
const STUDY_TIME: Tag = Tag::new(0x0008, 0x0030);
const SERIES_DATE: Tag = Tag::new(0x0008, 0x0021);
const SERIES_TIME: Tag = Tag::new(0x0008, 0x0031);
const OFFSET: Tag = Tag::new(0x0008, 0x0201);
/// Issuer of Patient ID Qualifiers, Other Patient IDs, Issuer of Accession Number, Request Attributes: sequences.
const ISSUER_QUALIFIERS: Tag = Tag::new(0x0010, 0x0024);
const OTHER_PATIENT_IDS: Tag = Tag::new(0x0010, 0x1002);
const ACCESSION_ISSUER: Tag = Tag::new(0x0008, 0x0051);
const REQUEST_ATTRIBUTES: Tag = Tag::new(0x0040, 0x0275);
const PLACER: Tag = Tag::new(0x0040, 0x2016);
const FILLER: Tag = Tag::new(0x0040, 0x2017);
/// The Hierarchic Designator macro, PS3.3 table 10-17.
const NAMESPACE: Tag = Tag::new(0x0040, 0x0031);
const UNIVERSAL: Tag = Tag::new(0x0040, 0x0032);
const UNIVERSAL_KIND: Tag = Tag::new(0x0040, 0x0033);
/// Items of one sequence that are read.
const ITEMS_MAX: usize = 100;
/// Elements of items that are read here.
const NESTED: [(Tag, &[Tag]); 4] = [
    (ISSUER_QUALIFIERS, &[NAMESPACE, UNIVERSAL, UNIVERSAL_KIND]),
    (ACCESSION_ISSUER, &[NAMESPACE, UNIVERSAL, UNIVERSAL_KIND]),
    (OTHER_PATIENT_IDS, &[PATIENT_ID, ISSUER]),
    (REQUEST_ATTRIBUTES, &[ACCESSION, PLACER, FILLER]),
];
/// Consumed by others: encoding, issuer, times.
const OTHER: [Tag; 5] = [CHARSET, ISSUER, STUDY_TIME, SERIES_TIME, OFFSET];
const CHARSET: Tag = Tag::new(0x0008, 0x0005);

/// What is known of a received instance once its file is durable.
#[derive(Clone, Debug)]
pub struct InstanceHeader {
    /// SOP Class UID of the command.
    pub sop_class: String,
    /// SOP Instance UID of the command.
    pub sop_instance: String,
    /// Transfer Syntax UID of its presentation context.
    pub transfer_syntax: String,
    /// Bytes of the data set.
    pub dataset_bytes: u64,
    /// SHA-256 of the data set.
    pub dataset_sha256: [u8; 32],
    /// Content address of the Part 10 file.
    pub blob: [u8; 32],
    /// Size of the Part 10 file in bytes.
    pub blob_bytes: u64,
    /// The wanted elements of the data set and what the scanner found odd.
    pub header: scan::Header,
}

/// One compiled row.
#[derive(Debug)]
pub(crate) struct Row {
    level: Level,
    tag: Tag,
    path: String,
    convert: Convert,
    rule: String,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Level {
    Patient,
    Study,
    Series,
    Instance,
}

impl Level {
    /// Where its elements stand.
    const fn place(self) -> &'static str {
        match self {
            Self::Patient => "Patient.",
            Self::Study => "ImagingStudy.",
            Self::Series => "ImagingStudy.series.",
            Self::Instance => "ImagingStudy.series.instance.",
        }
    }
}

#[derive(Clone, Copy, Debug)]
enum Convert {
    Text,
    Integer,
    Date,
    Names,
    Sex,
    Display,
    Displays,
    Concepts,
    Identifier,
    Modality,
    BodySite,
    Laterality,
}

/// Compiles the rows; a row that is not understood is named.
pub(crate) fn compile() -> Result<Vec<Row>, String> {
    ROWS.lines()
        .enumerate()
        .skip(1)
        .map(|(at, line)| row(at + 1, line).ok_or_else(|| format!("{line:?}")))
        .collect()
}

fn row(line: usize, text: &str) -> Option<Row> {
    let mut cells = text.split(',');
    let level = match cells.next()? {
        "patient" => Level::Patient,
        "study" => Level::Study,
        "series" => Level::Series,
        "instance" => Level::Instance,
        _ => return None,
    };
    let (tag, path) = (Tag::parse(cells.next()?)?, cells.next()?.to_owned());
    let convert = match cells.next()? {
        "text" => Convert::Text,
        "integer" => Convert::Integer,
        "date" => Convert::Date,
        "names" => Convert::Names,
        "sex" => Convert::Sex,
        "display" => Convert::Display,
        "displays" => Convert::Displays,
        "concepts" => Convert::Concepts,
        "identifier" => Convert::Identifier,
        "modality" => Convert::Modality,
        "bodysite" => Convert::BodySite,
        "laterality" => Convert::Laterality,
        _ => return None,
    };
    Some(Row { level, tag, path, convert, rule: format!("dicom/instance:{line}") })
}

/// Maps one instance.
pub(crate) fn normalise(instance: &InstanceHeader, rows: &[Row], context: &Context) -> Normalised {
    let header = &instance.header;
    let mut mapping = Mapping { header, context, lineage: Vec::new() };
    let (Some(study_uid), Some(series_uid)) = (header.uid(STUDY_UID), header.uid(SERIES_UID)) else {
        let issue = Issue::error(IssueCode::Required, "the study or series instance uid is missing or wrong")
            .at(STUDY_UID.to_string());
        return Normalised { issues: vec![issue], ..Normalised::default() };
    };
    let mut issues: Vec<Issue> =
        header.issues.iter().map(|text| Issue::warning(IssueCode::Structure, *text)).collect();
    mapping.note_fixed();
    let accession = mapping.accession(header);
    let orders = mapping.orders(accession.as_ref());
    let patient = mapping.patient(rows, clues(&study_uid, &orders), &mut issues);
    let mut study = mapping.elements(rows, Level::Study);
    if let Some(started) = mapping.time(STUDY_DATE, STUDY_TIME) {
        study.insert("started".into(), started.into());
        mapping.note(Level::Study, "started", STUDY_DATE, FIXED.to_owned());
    }
    let mut series = mapping.elements(rows, Level::Series);
    if let Some(started) = mapping.time(SERIES_DATE, SERIES_TIME) {
        series.insert("started".into(), started.into());
        mapping.note(Level::Series, "started", SERIES_DATE, FIXED.to_owned());
    }
    let row = Instance {
        uid: instance.sop_instance.clone(),
        sop_class: instance.sop_class.clone(),
        transfer_syntax: instance.transfer_syntax.clone(),
        elements: mapping.elements(rows, Level::Instance),
        dataset_bytes: instance.dataset_bytes,
        dataset_sha256: instance.dataset_sha256,
        blob: instance.blob,
        blob_bytes: instance.blob_bytes,
        series: Series { uid: series_uid, elements: series },
        study: Study { uid: study_uid, patient, accession, orders, elements: study },
    };
    Normalised {
        unmapped: unmapped(header, &mapping.lineage),
        changes: vec![Change::new(Action::Instance(Box::new(row)))],
        issues,
        lineage: mapping.lineage,
    }
}

/// What has a value and fills nothing: copied elements, and of a listing the others. One within a sequence is named by its own tag.
fn unmapped(header: &Header, lineage: &[Lineage]) -> Vec<String> {
    let used = |name: &String| lineage.iter().any(|l| l.source == *name);
    let is_read = |parent: (Tag, u16), tag: Tag| {
        usize::from(parent.1) < ITEMS_MAX
            && NESTED.iter().any(|(sequence, tags)| *sequence == parent.0 && tags.contains(&tag))
    };
    let mut unmapped: Vec<String> = Vec::new();
    let mut add = |name: String| {
        if !unmapped.contains(&name) {
            unmapped.push(name);
        }
    };
    for element in &header.elements {
        let name = element.tag.to_string();
        match element.parent {
            Some(parent) if !is_read(parent, element.tag) => add(name),
            None if !OTHER.contains(&element.tag) && !used(&name) => add(name),
            _ => {}
        }
    }
    for tag in &header.listing {
        let name = tag.to_string();
        let is_read = OTHER.contains(tag) || NESTED.iter().any(|(sequence, _)| sequence == tag);
        if !is_read && !used(&name) {
            add(name);
        }
    }
    unmapped
}

/// What else names the patient: the study, and orders whose numbers have an authority.
fn clues(study_uid: &str, orders: &[Vec<Match>]) -> Vec<Clue> {
    let orders = orders.iter().flatten().cloned();
    let orders = orders.filter_map(|order| identity::order_clue(order.system, order.value));
    std::iter::once(Clue::Study(study_uid.to_owned())).chain(orders).collect()
}

struct Mapping<'h> {
    header: &'h Header,
    context: &'h Context,
    lineage: Vec<Lineage>,
}

impl Mapping<'_> {
    /// The numbers of the patient and the Patient to create when it is unknown; none without a Patient ID (type 2, it may be empty).
    fn patient(
        &mut self,
        rows: &[Row],
        clues: Vec<Clue>,
        issues: &mut Vec<Issue>,
    ) -> Option<(PatientNumbers, Resource)> {
        let Some(id) = self.header.text(PATIENT_ID) else {
            let text = "the patient id is empty: the study is nobody's until an image or an order names one";
            issues.push(Issue::information(IssueCode::Informational, text).at(PATIENT_ID.to_string()));
            return None;
        };
        let qualifiers = self.items(ISSUER_QUALIFIERS).into_iter().next();
        let issuer = self.header.text(ISSUER);
        let own = (self.authority(Kind::Patient, issuer.as_deref(), qualifiers.as_ref()), id);
        let others = self.items(OTHER_PATIENT_IDS).into_iter().filter_map(|item| {
            // without an issuer it may be anybody's of the site
            let issuer = item.text(ISSUER)?;
            let system = self.authority(Kind::Other, Some(&issuer), None);
            Some((system, item.text(PATIENT_ID)?))
        });
        let others = others.take(NUMBERS_MAX - 1);
        let numbers = std::iter::once(own).chain(others).filter_map(|(system, value)| Some((system?, value)));
        let numbers = identity::named_by(self.context, numbers, clues, Disagreement::KeepApart).ok()?;
        let mut patient = Resource::new(identity::kind("Patient"));
        let identifiers = numbers.numbers.iter();
        patient.set(
            "identifier",
            identifiers.map(|(system, value)| json!({ "system": system, "value": value })).collect(),
        );
        for (name, value) in self.elements(rows, Level::Patient) {
            patient.set(&name, value);
        }
        Some((numbers, patient))
    }

    /// The system of a number by an issuer's name and an item of the Hierarchic Designator macro.
    fn authority(&self, kind: Kind, name: Option<&str>, item: Option<&Header>) -> Option<String> {
        let part = |tag| item.and_then(|item| item.text(tag));
        let (namespace, universal, of) = (part(NAMESPACE), part(UNIVERSAL), part(UNIVERSAL_KIND));
        let sent = Authority {
            namespace: name.or(namespace.as_deref()),
            universal: universal.as_deref(),
            kind: of.as_deref(),
        };
        identity::system(self.context, kind, &sent)
    }

    /// The accession number of the data set or of an item, and its system: (0008,0050) with (0008,0051) of the data set.
    fn accession(&self, item: &Header) -> Option<(String, String)> {
        let value = item.text(ACCESSION)?;
        let issuer = self.items(ACCESSION_ISSUER).into_iter().next();
        Some((self.authority(Kind::Accession, None, issuer.as_ref())?, value))
    }

    /// The orders the image says it belongs to: of each item of Request Attributes filler, placer and accession number, else the
    /// accession number of the study. Issuers within the items are not read: a filler or placer number there has no system.
    fn orders(&self, study: Option<&(String, String)>) -> Vec<Vec<Match>> {
        let order = |system: Option<String>, value: String| Match {
            resource_type: identity::kind("ServiceRequest"),
            system,
            value,
        };
        let of_study = study.map(|(system, value)| order(Some(system.clone()), value.clone()));
        let mut orders: Vec<Vec<Match>> = Vec::new();
        for item in self.items(REQUEST_ATTRIBUTES) {
            let numbers = [FILLER, PLACER].into_iter().filter_map(|tag| Some(order(None, item.text(tag)?)));
            let own = self.accession(&item).map(|(system, value)| order(Some(system), value));
            let numbers: Vec<Match> = numbers.chain(own.or_else(|| of_study.clone())).collect();
            if !numbers.is_empty() && !orders.contains(&numbers) {
                orders.push(numbers);
            }
        }
        if orders.is_empty() {
            orders.extend(of_study.map(|accession| vec![accession]));
        }
        orders
    }

    /// The items of a sequence, each as a header of its own.
    fn items(&self, sequence: Tag) -> Vec<Header> {
        let mut items: Vec<(u16, Header)> = Vec::new();
        let charset = self.header.elements.iter().find(|e| e.tag == CHARSET && e.parent.is_none());
        for element in &self.header.elements {
            let Some((_, number)) = element.parent.filter(|(tag, _)| *tag == sequence) else { continue };
            if items.last().is_none_or(|(known, _)| *known != number) {
                if items.len() >= ITEMS_MAX {
                    break;
                }
                let elements = charset.cloned().into_iter().collect();
                items.push((number, Header { elements, ..Header::default() }));
            }
            if let Some((_, item)) = items.last_mut() {
                item.elements.push(scan::Element { parent: None, ..element.clone() });
            }
        }
        items.into_iter().map(|(_, item)| item).collect()
    }

    fn elements(&mut self, rows: &[Row], level: Level) -> Map<String, Value> {
        let mut elements = Map::new();
        for row in rows.iter().filter(|row| row.level == level) {
            if elements.contains_key(&row.path) {
                continue;
            }
            if let Some(value) = self.convert(row) {
                elements.insert(row.path.clone(), value);
                self.note(level, &row.path, row.tag, row.rule.clone());
            }
        }
        elements
    }

    fn note(&mut self, level: Level, path: &str, tag: Tag, rule: String) {
        let path = format!("{}{path}", level.place());
        self.lineage.push(Lineage { change: 0, path, source: tag.to_string(), bytes: None, rule });
    }

    /// Identity, which no row decides.
    fn note_fixed(&mut self) {
        let fixed = [
            (Level::Patient, "identifier", PATIENT_ID),
            (Level::Study, "identifier", STUDY_UID),
            (Level::Study, "identifier", ACCESSION),
            (Level::Series, "uid", SERIES_UID),
            (Level::Instance, "uid", SOP_INSTANCE),
            (Level::Instance, "sopClass", SOP_CLASS),
        ];
        for (level, path, tag) in fixed {
            if self.header.text(tag).is_some() {
                self.note(level, path, tag, FIXED.to_owned());
            }
        }
    }

    fn convert(&self, row: &Row) -> Option<Value> {
        let text = self.header.text(row.tag)?;
        Some(match row.convert {
            Convert::Text => text.into(),
            Convert::Integer => text.parse::<u32>().ok()?.into(),
            Convert::Date => date(&text)?.into(),
            Convert::Names => Value::Array(names(&text)),
            Convert::Sex => match text.as_str() {
                "M" => "male".into(),
                "F" => "female".into(),
                "O" => "other".into(),
                _ => return None,
            },
            Convert::Display => json!({ "display": display(&text) }),
            Convert::Displays => json!([{ "display": display(&text) }]),
            Convert::Concepts => json!([{ "text": text }]),
            Convert::Identifier => json!([{ "value": text, "use": "secondary" }]),
            Convert::Modality => {
                json!({ "system": "http://dicom.nema.org/resources/ontology/DCM", "code": text })
            }
            Convert::BodySite => json!({ "display": text }),
            Convert::Laterality => match text.as_str() {
                "L" => json!({ "system": "http://snomed.info/sct", "code": "7771000", "display": "Left" }),
                "R" => json!({ "system": "http://snomed.info/sct", "code": "24028007", "display": "Right" }),
                _ => return None,
            },
        })
    }

    /// Date and time with the zone of the data set, else the site's; without a time a date.
    fn time(&self, date_tag: Tag, time_tag: Tag) -> Option<String> {
        let day = date(&self.header.text(date_tag)?)?;
        let Some(time) = self.header.text(time_tag).and_then(|text| clock(&text)) else { return Some(day) };
        let at = civil::DateTime::from_parts(day.parse().ok()?, time);
        let declared = self.header.text(OFFSET).and_then(|text| offset(&text)).map(TimeZone::fixed);
        let zone = declared.unwrap_or_else(|| self.context.zone.clone());
        let zoned = zone.to_zoned(at).ok()?;
        Some(zoned.strftime("%Y-%m-%dT%H:%M:%S%:z").to_string())
    }
}

/// `YYYYMMDD`, also with dots (ACR-NEMA).
fn date(text: &str) -> Option<String> {
    let digits: String = text.chars().filter(|c| *c != '.').collect();
    let number = |from: usize, to: usize| digits.get(from..to)?.parse().ok();
    let (month, day): (i16, i16) = (number(4, 6)?, number(6, 8)?);
    let date = civil::Date::new(number(0, 4)?, i8::try_from(month).ok()?, i8::try_from(day).ok()?).ok()?;
    (digits.len() == 8).then(|| date.to_string())
}

/// `HHMMSS.FFFFFF`, minutes and seconds may lack; the fraction is dropped.
fn clock(text: &str) -> Option<civil::Time> {
    let digits: String = text.chars().filter(|c| *c != ':').take_while(char::is_ascii_digit).collect();
    let number = |from: usize| digits.get(from..from + 2).map_or(Some(0), |part| part.parse::<i8>().ok());
    if digits.len() < 2 {
        return None;
    }
    civil::Time::new(number(0)?, number(2)?, number(4)?.min(59), 0).ok()
}

fn offset(text: &str) -> Option<jiff::tz::Offset> {
    let (sign, digits) = text.strip_prefix('-').map_or((1, text.trim_start_matches('+')), |rest| (-1, rest));
    let minutes = digits.get(..2)?.parse::<i32>().ok()? * 60 + digits.get(2..4)?.parse::<i32>().ok()?;
    jiff::tz::Offset::from_seconds(sign * minutes * 60).ok()
}

/// PN: alphabetic, ideographic and phonetic groups, each `family^given^middle^prefix^suffix`.
fn names(text: &str) -> Vec<Value> {
    let groups = text.split('=').zip([None, Some("IDE"), Some("SYL")]);
    let names = groups.filter_map(|(group, representation)| {
        let parts: Vec<&str> = group.split('^').map(str::trim).collect();
        let part = |at: usize| parts.get(at).copied().filter(|p| !p.is_empty());
        let mut name = Map::new();
        if let Some(family) = part(0) {
            name.insert("family".into(), family.into());
        }
        let given: Vec<&str> = [part(1), part(2)].into_iter().flatten().collect();
        if !given.is_empty() {
            name.insert("given".into(), json!(given));
        }
        for (member, at) in [("prefix", 3), ("suffix", 4)] {
            if let Some(text) = part(at) {
                name.insert(member.into(), json!([text]));
            }
        }
        if name.is_empty() {
            return None;
        }
        if let Some(code) = representation {
            let url = "http://hl7.org/fhir/StructureDefinition/iso21090-EN-representation";
            name.insert("extension".into(), json!([{ "url": url, "valueCode": code }]));
        }
        Some(Value::Object(name))
    });
    names.collect()
}

fn display(name: &str) -> String {
    let first = name.split('=').next().unwrap_or(name);
    let mut parts = first.split('^').map(str::trim).filter(|p| !p.is_empty());
    let family = parts.next().unwrap_or_default().to_owned();
    let rest: Vec<&str> = parts.collect();
    if rest.is_empty() { family } else { format!("{} {family}", rest.join(" ")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn element(tag: u32, text: &str) -> scan::Element {
        scan::Element { tag: Tag(tag), parent: None, value: text.as_bytes().to_vec(), big_endian: false }
    }

    fn map(elements: Vec<scan::Element>) -> Normalised {
        let context = Context {
            site: "s".into(),
            zone: TimeZone::get("Europe/Berlin").unwrap(),
            patient_identifier_system: "urn:mrn".into(),
            naming_systems: [].into(),
            join_unqualified: true,
            keep_unidentified: false,
            received: hilum_fhir::Timestamp::from_micros(0),
            seed: 0,
        };
        let header = InstanceHeader {
            sop_class: "1.2".into(),
            sop_instance: "1.2.3".into(),
            transfer_syntax: "1.2.840.10008.1.2.1".into(),
            dataset_bytes: 1,
            dataset_sha256: [0; 32],
            blob: [0; 32],
            blob_bytes: 1,
            header: Header { elements, ..Header::default() },
        };
        normalise(&header, &compile().unwrap(), &context)
    }

    #[test]
    fn attributes_fill_rows_and_patient_as_the_table_says() {
        let mapped = map(vec![
            element(0x0008_0020, "20240301"),
            element(0x0008_0030, "120000.123"),
            element(0x0008_0050, "A1 "),
            element(0x0008_0060, "CT"),
            element(0x0008_1030, "Chest"),
            element(0x0008_0080, "Hospital"),
            element(0x0010_0010, "Doe^Jane^M^Dr=山田^花子"),
            element(0x0010_0020, "P1"),
            element(0x0010_0030, "19800229"),
            element(0x0010_0040, "F"),
            element(0x0020_000D, "1.2.840.1\0"),
            element(0x0020_000E, "1.2.840.2"),
            element(0x0020_0013, " 7"),
        ]);
        assert_eq!(mapped.unmapped, ["(0008,0080)"]);
        let Action::Instance(instance) = &mapped.changes[0].action else { panic!("an instance") };
        assert_eq!(instance.elements["number"], 7);
        assert_eq!(instance.study.uid, "1.2.840.1");
        assert_eq!(instance.study.elements["started"], "2024-03-01T12:00:00+01:00");
        assert_eq!(instance.study.accession, Some(("urn:hilum:site:s:accession".into(), "A1".into())));
        assert_eq!(instance.series.elements["modality"]["code"], "CT");
        let (numbers, patient) = instance.study.patient.as_ref().unwrap();
        assert_eq!(numbers.numbers, [("urn:mrn".to_owned(), "P1".to_owned())]);
        assert_eq!(patient.get("name").unwrap()[0]["given"], json!(["Jane", "M"]));
        assert_eq!(patient.get("name").unwrap()[1]["extension"][0]["valueCode"], "IDE");
        assert!(hilum_fhir::validate::validate(patient).is_empty());
    }

    #[test]
    fn without_patient_id_the_study_is_nobodys_and_without_study_nothing_is_taken() {
        let mapped = map(vec![element(0x0020_000D, "1.2"), element(0x0020_000E, "1.3")]);
        assert_eq!(mapped.issues[0].severity, hilum_fhir::Severity::Information);
        let Action::Instance(instance) = &mapped.changes[0].action else { panic!("an instance") };
        assert_eq!(instance.study.patient, None);
        assert!(map(vec![element(0x0020_000E, "1.3")]).rejected());
    }

    #[test]
    fn each_request_attributes_item_is_an_order_and_its_accession_comes_last() {
        let item = |number, tag, text: &str| scan::Element {
            parent: Some((REQUEST_ATTRIBUTES, number)),
            ..element(tag, text)
        };
        let study = |more: Vec<scan::Element>| {
            let mut elements = vec![element(0x0008_0050, "A1"), element(0x0010_0020, "P1")];
            elements.extend(more);
            elements.extend([element(0x0020_000D, "1.2"), element(0x0020_000E, "1.3")]);
            let mapped = map(elements);
            let Action::Instance(instance) = &mapped.changes[0].action else { panic!("an instance") };
            instance.study.clone()
        };
        let orders = |study: &Study| -> Vec<Vec<String>> {
            study
                .orders
                .iter()
                .map(|order| order.iter().map(|number| number.value.clone()).collect())
                .collect()
        };
        let of_items = study(vec![
            item(0, 0x0040_2017, "F1"),
            item(0, 0x0040_2016, "L1"),
            item(1, 0x0008_0050, "A2"),
            item(1, 0x0040_2017, "F2"),
        ]);
        assert_eq!(orders(&of_items), [vec!["F1", "L1", "A1"], vec!["F2", "A2"]]);
        let plain = study(Vec::new());
        assert_eq!(orders(&plain), [vec!["A1"]]);
        let accession = plain.orders[0][0].clone();
        let (numbers, _) = plain.patient.unwrap();
        assert_eq!(numbers.clues, [Clue::Study("1.2".into()), Clue::Resource(accession)]);
        assert_eq!(numbers.disagreement, Disagreement::KeepApart);
    }
}
