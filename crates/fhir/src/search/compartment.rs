//! Compartments: what belongs to a patient, an encounter, a practitioner, a related person or a device
//! (<https://hl7.org/fhir/R4/compartmentdefinition.html>).

use std::sync::LazyLock;

use super::{Parameter, parameter};
use crate::ResourceType;

/// The reference parameters by which a resource belongs to the compartment of a resource of type `of`, in order of the type that has them; empty when
/// there is no such compartment. The resource itself, which is in its own compartment, is not among them.
pub fn compartment(of: ResourceType) -> &'static [&'static Parameter] {
    TABLE.iter().find(|(compartment, _)| *compartment == of).map_or(&[], |(_, parameters)| parameters)
}

static TABLE: LazyLock<Vec<(ResourceType, Vec<&'static Parameter>)>> =
    LazyLock::new(|| read(include_str!(concat!(env!("OUT_DIR"), "/compartments.tsv"))));

fn read(lines: &str) -> Vec<(ResourceType, Vec<&'static Parameter>)> {
    let mut table: Vec<(ResourceType, Vec<&'static Parameter>)> = Vec::new();
    for line in lines.lines() {
        if let Some(of) = line.strip_prefix('=') {
            table.extend(ResourceType::from_name(of).map(|of| (of, Vec::new())));
        } else if let (Some((_, parameters)), Some((name, names))) = (table.last_mut(), line.split_once('\t'))
        {
            let of = ResourceType::from_name(name);
            parameters.extend(names.split(',').filter_map(|name| parameter(of?, name)));
        }
    }
    table
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::search::ParamType;

    #[test]
    fn what_belongs_to_a_patient_is_found_by_references() {
        let patient = compartment(ResourceType::from_name("Patient").unwrap());
        let names: BTreeSet<String> =
            patient.iter().map(|p| format!("{}.{}", p.resource_type.name(), p.name)).collect();
        for name in [
            "Observation.subject",
            "Observation.performer",
            "Encounter.patient",
            "ImagingStudy.patient",
            "Patient.link",
        ] {
            assert!(names.contains(name), "{name}: {names:?}");
        }
        assert!(!names.iter().any(|name| name.starts_with("Organization.")));
        assert!(
            patient.iter().all(|p| p.param_type == ParamType::Reference),
            "each can be searched by an id"
        );
    }

    #[test]
    fn every_name_of_the_definitions_is_a_parameter() {
        let lines = include_str!(concat!(env!("OUT_DIR"), "/compartments.tsv"));
        let table: Vec<&str> = lines.lines().filter_map(|line| line.strip_prefix('=')).collect();
        assert_eq!(table, ["Device", "Encounter", "Patient", "Practitioner", "RelatedPerson"]);
        let named = lines.lines().filter_map(|line| line.split_once('\t'));
        let named = named.flat_map(|(of, names)| names.split(',').map(move |name| format!("{of}.{name}")));
        let known = |name: &String| {
            let (of, name) = name.split_once('.').unwrap();
            parameter(ResourceType::from_name(of).unwrap(), name).is_some()
        };
        let missing: Vec<String> = named.filter(|name| !known(name)).collect();
        assert_eq!(missing, Vec::<String>::new());
    }
}
