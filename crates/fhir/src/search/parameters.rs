//! The search parameters of FHIR R4, and the extraction plans their expressions are compiled to.

use std::collections::HashMap;
use std::sync::LazyLock;

use super::path::{Choices, Expression};
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
    pub url: &'static str,
    /// Target types of a reference parameter; empty = any.
    pub targets: Vec<ResourceType>,
    /// Position in [`parameters`] of its type. Not stable over releases: never stored.
    pub position: usize,
    pub(super) expression: Expression,
    pub(super) components: Vec<Component>,
}

/// One component of a composite parameter.
#[derive(Debug)]
pub(super) struct Component {
    /// The kind of its values.
    pub(super) param_type: ParamType,
    /// Its path from the composite's base.
    pub(super) expression: Expression,
}

impl PartialEq for Parameter {
    fn eq(&self, other: &Self) -> bool {
        self.resource_type == other.resource_type && self.name == other.name
    }
}

/// All parameters of a type in order of name, `_id`, `_lastUpdated`, `_tag`, `_profile`, `_security`, `_source` included.
pub fn parameters(resource_type: ResourceType) -> &'static [Parameter] {
    usize::try_from(resource_type.number()).ok().and_then(|n| TABLES.get(n)).map_or(&[], Vec::as_slice)
}

/// The parameter of a type with this name.
pub fn parameter(resource_type: ResourceType, name: &str) -> Option<&'static Parameter> {
    let all = parameters(resource_type);
    all.binary_search_by(|p| p.name.cmp(name)).ok().map(|at| &all[at])
}

const LINES: &str = include_str!(concat!(env!("OUT_DIR"), "/search.tsv"));

static TABLES: LazyLock<Vec<Vec<Parameter>>> = LazyLock::new(|| {
    let rows: Vec<Vec<&'static str>> = LINES.lines().map(|line| line.split('\t').collect()).collect();
    let mut choices = Choices::default();
    let mut kinds: HashMap<&str, ParamType> = HashMap::new();
    let mut components: HashMap<&str, Vec<(&str, &str)>> = HashMap::new();
    for row in &rows {
        match row.as_slice() {
            ["X", path, types] => choices.add(path, types),
            ["P", _, _, kind, url, ..] => {
                kinds.insert(url, param_type(kind));
            }
            ["C", url, definition, expression] => {
                let list = components.entry(url).or_default();
                if !list.contains(&(definition, expression)) {
                    list.push((definition, expression));
                }
            }
            _ => {}
        }
    }
    let mut tables: Vec<Vec<Parameter>> = ResourceType::all().map(|_| Vec::new()).collect();
    for row in &rows {
        let ["P", of, name, kind, url, targets, text] = row.as_slice() else { continue };
        let Some(resource_type) = ResourceType::from_name(of) else { continue };
        let Some(expression) = Expression::compile(text, of, &choices) else { continue };
        let components = components.get(url).into_iter().flatten().filter_map(|(definition, text)| {
            let expression = Expression::compile_relative(text, &expression, of, &choices)?;
            Some(Component { param_type: *kinds.get(definition)?, expression })
        });
        let parameter = Parameter {
            name,
            resource_type,
            param_type: param_type(kind),
            url,
            targets: targets.split(',').filter_map(ResourceType::from_name).collect(),
            position: 0,
            components: components.collect(),
            expression,
        };
        tables[usize::try_from(resource_type.number()).unwrap_or_default()].push(parameter);
    }
    for table in &mut tables {
        table.sort_by_key(|p| p.name);
        table.dedup_by_key(|p| p.name);
        for (position, parameter) in table.iter_mut().enumerate() {
            parameter.position = position;
        }
        table.shrink_to_fit();
    }
    tables
});

fn param_type(code: &str) -> ParamType {
    match code {
        "number" => ParamType::Number,
        "date" => ParamType::Date,
        "string" => ParamType::String,
        "token" => ParamType::Token,
        "reference" => ParamType::Reference,
        "composite" => ParamType::Composite,
        "quantity" => ParamType::Quantity,
        "uri" => ParamType::Uri,
        _ => ParamType::Special,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_expression_of_r4_compiles() {
        let mut choices = Choices::default();
        for line in LINES.lines() {
            if let ["X", path, types] = line.split('\t').collect::<Vec<_>>().as_slice() {
                choices.add(path, types);
            }
        }
        let mut count = 0;
        for line in LINES.lines() {
            if let ["P", of, name, .., text] = line.split('\t').collect::<Vec<_>>().as_slice() {
                assert!(Expression::compile(text, of, &choices).is_some(), "{of} {name}: {text}");
                count += 1;
            }
        }
        assert!(count > 2_000, "{count} parameters");
    }

    #[test]
    fn a_type_has_its_own_and_the_common_parameters() {
        let patient = ResourceType::from_name("Patient").unwrap();
        for name in [
            "_id",
            "_lastUpdated",
            "_tag",
            "birthdate",
            "family",
            "identifier",
            "name",
            "general-practitioner",
        ] {
            assert!(parameter(patient, name).is_some(), "{name}");
        }
        assert!(parameter(patient, "code").is_none());
        let observation = ResourceType::from_name("Observation").unwrap();
        assert_eq!(parameter(observation, "code-value-quantity").unwrap().components.len(), 2);
        assert!(!parameter(observation, "patient").unwrap().targets.is_empty());
    }
}
