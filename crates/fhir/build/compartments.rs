//! CompartmentDefinitions as lines (tab separated): `=type` of the compartment, then `type parameters`, comma separated, for each type that
//! can be in it.

use std::error::Error;
use std::fmt::Write;
use std::path::Path;

use serde_json::Value;

use crate::{list, text};

/// What the URL of an example in the package ends with: its type is that of a true one.
const EXAMPLE: &str = "/example";
/// Stands for the resource itself where a definition has it among the parameters.
const SELF: &str = "{def}";

pub(crate) fn compile(definitions: &[Value], out: &Path) -> Result<(), Box<dyn Error>> {
    let mut lines = String::new();
    for definition in definitions.iter().filter(|definition| !text(definition, "url").ends_with(EXAMPLE)) {
        writeln!(lines, "={}", text(definition, "code"))?;
        for resource in list(definition, "resource") {
            let parameters: Vec<&str> =
                list(resource, "param").filter_map(Value::as_str).filter(|name| *name != SELF).collect();
            if !parameters.is_empty() {
                writeln!(lines, "{}\t{}", text(resource, "code"), parameters.join(","))?;
            }
        }
    }
    std::fs::write(out, lines)?;
    Ok(())
}
