//! Where in the message something is that the store found at an element: the sender knows fields, not elements.

use std::collections::HashMap;

use hilum_fhir::Issue;
use hilum_normalise::Lineage;

/// The issues with the places of their elements in the message, as far as a rule said which field filled them.
pub(crate) fn in_the_message(issues: impl IntoIterator<Item = Issue>, lineage: &[Lineage]) -> Vec<Issue> {
    let mut issues = issues.into_iter().peekable();
    if issues.peek().is_none() {
        return Vec::new();
    }
    let mut of_change: HashMap<usize, Vec<&Lineage>> = HashMap::new();
    for one in lineage {
        of_change.entry(one.change as usize).or_default().push(one);
    }
    issues.map(|issue| placed(issue, &of_change)).collect()
}

fn placed(issue: Issue, of_change: &HashMap<usize, Vec<&Lineage>>) -> Issue {
    let Some(change) = issue.change else { return issue };
    // what is about a change as a whole is about the field it begins with
    let element = issue.location.as_deref().unwrap_or_default();
    // `Patient.identifier`: within the Patient itself, or within what a study says of its patient
    let within = element.split_once('.').map_or("", |(_, path)| path);
    let is_of =
        |l: &&Lineage| l.path.starts_with(element) || !within.is_empty() && l.path.starts_with(within);
    match of_change.get(&change).into_iter().flatten().copied().find(is_of) {
        Some(found) => Issue { location: Some(found.source.clone()), ..issue },
        None => issue,
    }
}

#[cfg(test)]
mod tests {
    use hilum_fhir::IssueCode;

    use super::*;

    #[test]
    fn an_element_is_told_as_the_field_that_filled_it() {
        let of = |change, path: &str, source: &str| Lineage {
            change,
            path: path.into(),
            source: source.into(),
            bytes: None,
            rule: String::new(),
        };
        let lineage = [
            of(0, "name[0].family", "PID-5"),
            of(0, "identifier[0].value", "PID-3"),
            of(1, "identifier[0]", "OBR-3"),
            of(2, "Patient.identifier", "(0010,0020)"),
        ];
        let place = |change, element: &str| {
            let issue = Issue::error(IssueCode::Conflict, "x").at(element);
            let issue = Issue { change, ..issue };
            in_the_message([issue], &lineage).remove(0).location.unwrap()
        };
        assert_eq!(place(Some(0), "Patient.identifier"), "PID-3");
        assert_eq!(place(Some(1), "ServiceRequest.identifier"), "OBR-3");
        assert_eq!(place(Some(2), "Patient.identifier"), "(0010,0020)");
        assert_eq!(place(Some(1), "ServiceRequest.subject"), "ServiceRequest.subject");
        assert_eq!(place(None, "Patient.identifier"), "Patient.identifier");
        let of_all = Issue { change: Some(1), ..Issue::error(IssueCode::TooCostly, "x") };
        assert_eq!(in_the_message([of_all], &lineage)[0].location.as_deref(), Some("OBR-3"));
    }
}
