//! The search parameters of FHIR R4, and the extraction plans their expressions were compiled to.

use std::iter::Peekable;
use std::sync::{LazyLock, OnceLock};

use super::plan::{self, Node};
use crate::ResourceType;

/// The kind of a search parameter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names are the standard's codes")]
pub enum ParamType {
    Number,
    Date,
    String,
    Token,
    Reference,
    Composite,
    Quantity,
    Uri,
    Special,
}

/// One search parameter of one resource type.
#[derive(Debug)]
pub struct Parameter {
    /// `code`, such as `birthdate`.
    pub name: &'static str,
    /// The type it belongs to.
    pub resource_type: ResourceType,
    /// The kind.
    pub param_type: ParamType,
    /// Canonical URL of its definition.
    pub url: String,
    /// Types a reference parameter of this type can point to; empty = any.
    pub targets: Vec<ResourceType>,
    /// Position in [`parameters`] of its type. Not stable over releases: never stored.
    pub position: usize,
    /// Of a composite: positions of the parameters its components are.
    pub components: Vec<usize>,
    /// Positions of the parameters that offer every value this one does (`subject` all of `patient`, `name` all of `family`): an
    /// index need not keep those values twice.
    pub covered_by: Vec<usize>,
}

impl PartialEq for Parameter {
    fn eq(&self, other: &Self) -> bool {
        self.resource_type == other.resource_type && self.position == other.position
    }
}

/// All parameters of a type in order of name, `_id`, `_lastUpdated`, `_tag`, `_profile`, `_security`, `_source` included.
/// Parameters without an expression (`_text`, `_filter`, …) and `special` ones (`near`) are not among them.
pub fn parameters(resource_type: ResourceType) -> &'static [Parameter] {
    table(resource_type).map_or(&[], |table| &table.parameters)
}

/// The parameter of a type with this name.
pub fn parameter(resource_type: ResourceType, name: &str) -> Option<&'static Parameter> {
    let all = parameters(resource_type);
    all.binary_search_by(|p| p.name.cmp(name)).ok().map(|at| &all[at])
}

/// The parameters of a type and the plan that finds their values.
pub(super) struct Table {
    pub(super) parameters: Vec<Parameter>,
    pub(super) plan: Box<[Node]>,
    /// Position of the parameter that dates resources of the type.
    pub(super) clinical: Option<usize>,
}

const TEXT: &str = include_str!(concat!(env!("OUT_DIR"), "/search.tsv"));
const BASE: &str = "http://hl7.org/fhir/SearchParameter/";

/// The lines of a type and the table they make.
type Section = (&'static str, OnceLock<Option<Table>>);

/// One for each type, read when the type is first used: most sites use few.
static TABLES: LazyLock<Vec<Section>> = LazyLock::new(|| {
    let sections = TEXT.strip_prefix('=').unwrap_or_default().split("\n=");
    sections.map(|section| (section, OnceLock::new())).collect()
});

/// The table of a type. Sections are in the order of the types.
pub(super) fn table(resource_type: ResourceType) -> Option<&'static Table> {
    let (section, cell) = TABLES.get(usize::try_from(resource_type.number()).ok()?)?;
    cell.get_or_init(|| read(resource_type, section)).as_ref()
}

/// `None` when the section is not as `build/search.rs` writes it; a test reads them all.
fn read(resource_type: ResourceType, section: &'static str) -> Option<Table> {
    let mut lines = section.lines().peekable();
    if lines.next() != Some(resource_type.name()) {
        return None;
    }
    let parameters = read_parameters(resource_type, &mut lines)?;
    let plan = plan::nodes(&mut lines, 0)?;
    let clinical = clinical_parameter(resource_type)
        .and_then(|name| parameters.binary_search_by(|p| p.name.cmp(name)).ok());
    lines.next().is_none().then_some(Table { parameters, plan, clinical })
}

fn read_parameters(
    resource_type: ResourceType,
    lines: &mut Peekable<impl Iterator<Item = &'static str>>,
) -> Option<Vec<Parameter>> {
    let mut parameters = Vec::new();
    while let Some(line) = lines.next_if(|line| line.starts_with("P\t")) {
        let fields: Vec<&'static str> = line.split('\t').collect();
        let [_, name, kind, url, targets, components, covered] = fields.as_slice() else { return None };
        parameters.push(Parameter {
            name,
            resource_type,
            param_type: param_type(kind)?,
            url: url.strip_prefix('~').map_or_else(|| (*url).to_owned(), |rest| format!("{BASE}{rest}")),
            targets: items(targets).map(ResourceType::from_name).collect::<Option<_>>()?,
            position: parameters.len(),
            components: items(components).map(|at| at.parse().ok()).collect::<Option<_>>()?,
            covered_by: items(covered).map(|at| at.parse().ok()).collect::<Option<_>>()?,
        });
    }
    parameters.shrink_to_fit();
    Some(parameters)
}

fn items(list: &'static str) -> impl Iterator<Item = &'static str> {
    list.split(',').filter(|item| !item.is_empty())
}

fn param_type(code: &str) -> Option<ParamType> {
    Some(match code {
        "number" => ParamType::Number,
        "date" => ParamType::Date,
        "string" => ParamType::String,
        "token" => ParamType::Token,
        "reference" => ParamType::Reference,
        "composite" => ParamType::Composite,
        "quantity" => ParamType::Quantity,
        "uri" => ParamType::Uri,
        _ => return None,
    })
}

/// The parameter whose earliest value is the clinical date of a type.
const CLINICAL: [(&str, &str); 8] = [
    ("Appointment", "date"),
    ("DiagnosticReport", "date"),
    ("Encounter", "date"),
    ("ImagingStudy", "started"),
    ("Immunization", "date"),
    ("Observation", "date"),
    ("Procedure", "date"),
    ("ServiceRequest", "authored"),
];

/// The name of the parameter that dates resources of a type, when it has one: sorting by it is the order of the index.
pub fn clinical_parameter(resource_type: ResourceType) -> Option<&'static str> {
    CLINICAL.iter().find(|(name, _)| *name == resource_type.name()).map(|(_, parameter)| *parameter)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_type_has_its_table() {
        let mut count = 0;
        for of in ResourceType::all() {
            let table = table(of).unwrap_or_else(|| panic!("{of} cannot be read"));
            assert!(table.parameters.is_sorted_by_key(|p| p.name), "{of}");
            assert!(table.parameters.iter().enumerate().all(|(at, p)| p.position == at), "{of}");
            assert_eq!(table.clinical.is_some(), clinical_parameter(of).is_some(), "{of}");
            count += table.parameters.len();
        }
        // 1,397 definitions, 16 without expression, 1 special; common ones count for each type; 10 of our own
        assert_eq!(count, 2_591);
    }

    /// The build fails when an expression does not compile; this shows that each one that did leads somewhere.
    #[test]
    fn every_parameter_has_a_leaf_in_the_plan() {
        fn reached(nodes: &[Node], found: &mut Vec<usize>) {
            for node in nodes {
                found.extend(node.leaves.iter().map(|leaf| leaf.parameter));
                reached(&node.children, found);
            }
        }
        for of in ResourceType::all() {
            let table = table(of).unwrap();
            let mut found = Vec::new();
            reached(&table.plan, &mut found);
            for parameter in &table.parameters {
                let served = matches!(parameter.name, "_id" | "_lastUpdated");
                assert_eq!(found.contains(&parameter.position), !served, "{of} {}", parameter.name);
                assert_eq!(parameter.components.is_empty(), parameter.param_type != ParamType::Composite);
            }
        }
    }

    #[test]
    fn a_type_has_its_own_and_the_common_parameters() {
        let patient = ResourceType::from_name("Patient").unwrap();
        for name in ["_id", "_lastUpdated", "_tag", "_profile", "_security", "_source", "birthdate", "family"]
        {
            assert!(parameter(patient, name).is_some(), "{name}");
        }
        for name in ["code", "_text", "_content", "_filter", "age"] {
            assert!(parameter(patient, name).is_none(), "{name}");
        }
        let location = ResourceType::from_name("Location").unwrap();
        assert!(parameter(location, "near").is_none());
        let url = &parameter(patient, "family").unwrap().url;
        assert_eq!(url, "http://hl7.org/fhir/SearchParameter/individual-family");
    }

    #[test]
    fn a_parameter_knows_which_others_offer_all_its_values() {
        let covered = |of: &str, name: &str| {
            let of = ResourceType::from_name(of).unwrap();
            let by = parameter(of, name).unwrap().covered_by.iter().map(|at| parameters(of)[*at].name);
            by.filter(|name| !name.starts_with("combo-")).collect::<Vec<_>>()
        };
        for (of, name, by) in [
            ("Observation", "patient", vec!["subject"]),
            ("Observation", "subject", vec![]),
            ("Observation", "code", vec![]),
            ("Encounter", "practitioner", vec!["participant"]),
            ("Patient", "family", vec!["name", "phonetic"]),
            ("Patient", "name", vec![]),
            ("Patient", "phonetic", vec!["name"]),
            ("Patient", "address-city", vec!["address"]),
            ("Patient", "address-use", vec![]),
            ("Patient", "phone", vec!["telecom"]),
            ("AllergyIntolerance", "patient", vec![]),
            ("Appointment", "patient", vec!["actor"]),
        ] {
            assert_eq!(covered(of, name), by, "{of} {name}");
        }
    }

    #[test]
    fn shared_definitions_know_the_targets_of_each_type() {
        let targets = |of: &str, name: &str| {
            let of = ResourceType::from_name(of).unwrap();
            parameter(of, name).unwrap().targets.iter().map(|t| t.name()).collect::<Vec<_>>()
        };
        assert_eq!(targets("Observation", "patient"), ["Patient"]);
        assert_eq!(targets("Observation", "subject"), ["Device", "Group", "Location", "Patient"]);
        assert_eq!(targets("Observation", "encounter"), ["Encounter"]);
        assert!(targets("Observation", "focus").is_empty());
        assert_eq!(targets("Endpoint", "organization"), ["Organization"]);
    }
}
