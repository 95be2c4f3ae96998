//! What an overlay may be: a file for a table that there is, with that table's columns. Everything else would do nothing, and is an error.

use std::collections::HashSet;

/// Folders whose tables take overlays, each with the columns of its files.
const FOLDERS: [(&str, &str); 5] = [
    ("segments", RULES),
    ("datatypes", RULES),
    ("v3", RULES),
    ("tables", "code,system,target,display"),
    ("messages", "type,event,kind,encounter status,comment,encounter clears"),
];
const RULES: &str = "source,condition,target,datatype map,vocabulary map,comment,slice";
/// The table of HL7 v3 that is no list of rules.
const INTERACTIONS: (&str, &str) = ("v3/Interactions", "interaction,kind,comment");
/// Columns of a file of rules that say something each; those behind may be left out.
const COLUMNS_MIN: usize = 3;

/// The table that an overlay is for, `folder/name`, by its path. `built_in` are the tables that there are.
///
/// # Errors
/// What is wrong with the path.
pub(crate) fn table_of(path: &str, built_in: &HashSet<&str>) -> Result<String, String> {
    let mut parts = path.rsplit(['/', '\\']);
    let name = parts.next().unwrap_or_default().trim_end_matches(".csv");
    let folder = parts.next().unwrap_or_default();
    if !FOLDERS.iter().any(|(known, _)| *known == folder) {
        let known = FOLDERS.map(|(known, _)| known).join(", ");
        return Err(format!(
            "an overlay lies in a folder that says what it is for: {known}; {folder:?} is none"
        ));
    }
    let table = format!("{folder}/{name}");
    // data types, code tables and elements of v3 may be new, when a rule names them
    if matches!(folder, "segments" | "messages") && !built_in.contains(table.as_str()) {
        let of_folder = built_in.iter().filter_map(|known| known.strip_prefix(folder)?.strip_prefix('/'));
        let mut known: Vec<&str> = of_folder.collect();
        known.sort_unstable();
        return Err(format!("nothing runs {table}; in {folder} there are {}", known.join(", ")));
    }
    Ok(table)
}

/// Checks the first line of an overlay.
///
/// # Errors
/// What it should be.
pub(crate) fn check_columns(table: &str, header: &csv::StringRecord) -> Result<(), String> {
    let folder = table.split('/').next().unwrap_or_default();
    let of_folder = FOLDERS.iter().find(|(known, _)| *known == folder).map_or(RULES, |(_, columns)| columns);
    let wanted = if table == INTERACTIONS.0 { INTERACTIONS.1 } else { of_folder };
    let columns: Vec<&str> = wanted.split(',').collect();
    let is_right = header.len() >= COLUMNS_MIN.min(columns.len())
        && header.len() <= columns.len()
        && header.iter().zip(&columns).all(|(one, other)| one.trim() == *other);
    if is_right { Ok(()) } else { Err(format!("the first line has the columns: {wanted}")) }
}

#[cfg(test)]
mod tests {
    use crate::rules::Tables;

    const HEADER: &str = "source,condition,target,datatype map,vocabulary map,comment\n";

    fn errors(path: &str, text: &str) -> String {
        match Tables::compile(&[(path.to_owned(), text.to_owned())]) {
            Ok(_) => String::new(),
            Err(errors) => errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"),
        }
    }

    #[test]
    fn what_would_never_act_is_an_error_with_file_and_line() {
        for (path, text, says) in [
            ("site/segment/PID[Patient].csv", format!("{HEADER}26,,gender,,,\n"), "segments, datatypes"),
            ("PID[Patient].csv", format!("{HEADER}26,,gender,,,\n"), "segments, datatypes"),
            ("mpps/Patient.csv", format!("{HEADER}26,,gender,,,\n"), "segments, datatypes"),
            (
                "segments/ZXX[Patient].csv",
                format!("{HEADER}1,,gender,,,\n"),
                "nothing runs segments/ZXX[Patient]",
            ),
            ("messages/more.csv", "type,event,kind\nADT,A99,adt\n".to_owned(), "there are messages"),
            (
                "segments/PID[Patient].csv",
                "8,,gender,,,\n9,,gender,,,\n".to_owned(),
                "the first line has the columns",
            ),
            (
                "segments/PID[Patient].csv",
                "source,target,condition\n8,gender,\n".to_owned(),
                "the first line has the columns",
            ),
            (
                "segments/PID[Patient].csv",
                format!("{HEADER}26,,gender,,,,,,\n"),
                ":2: the line has 9 columns",
            ),
            ("segments/PID[Patient].csv", format!("{HEADER}-99,,,,,\n"), ":2: there is no row to remove"),
            ("v3/Patient.csv", format!("{HEADER}-nothing/here,,,,,\n"), "there is no row to remove"),
            (
                "tables/NewCodes.csv",
                "code,system,target,display\nQ,,other,\n".to_owned(),
                "no rule names tables/NewCodes",
            ),
            (
                "datatypes/ZZ[Address].csv",
                format!("{HEADER}1,,city,,,\n"),
                "no rule names datatypes/ZZ[Address]",
            ),
            (
                "messages/messages.csv",
                "type,event,kind\nADT,A99,admission\n".to_owned(),
                ":2: \"admission\" is no kind",
            ),
        ] {
            let said = errors(path, &text);
            assert!(said.contains(says) && said.contains(path), "{path}: {said:?}");
        }
    }

    #[test]
    fn a_new_table_acts_when_a_rule_names_it() {
        let codes = ("tables/NewCodes.csv".to_owned(), "code,system,target,display\nQ,,other,\n".to_owned());
        let row = ("segments/PID[Patient].csv".to_owned(), format!("{HEADER}8,,gender,,NewCodes,\n"));
        Tables::compile(&[codes, row]).unwrap();
        assert_eq!(errors("messages/messages.csv", "type,event,kind\nADT,A99,adt\n"), "");
        assert_eq!(errors("x/tables/AdministrativeSex.csv", "code,system,target,display\nQ,,other,\n"), "");
    }
}
