//! Where in the message something is that the store found at an element: the sender knows fields, not elements.

use hilum_fhir::Issue;
use hilum_normalise::Lineage;

/// The issues with the places of their elements in the message, as far as a rule said which field filled them.
pub(crate) fn in_the_message(issues: impl IntoIterator<Item = Issue>, lineage: &[Lineage]) -> Vec<Issue> {
    issues.into_iter().map(|issue| placed(issue, lineage)).collect()
}

fn placed(issue: Issue, lineage: &[Lineage]) -> Issue {
    let (Some(change), Some(element)) = (issue.change, &issue.location) else { return issue };
    // `Patient.identifier`: within the Patient itself, or within what a study says of its patient
    let within = element.split_once('.').map_or("", |(_, path)| path);
    let is_of = |l: &&Lineage| {
        l.change as usize == change
            && (l.path.starts_with(element.as_str()) || !within.is_empty() && l.path.starts_with(within))
    };
    match lineage.iter().find(is_of) {
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
    }
}
