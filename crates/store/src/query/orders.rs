//! The orders a study names, as its row keeps them: for each order the identifiers that name it, the most trusted first.

use hilum_fhir::{Match, ResourceType};
use hilum_rows::row::StudyRow;

/// Whether a study names an order by a number.
pub(crate) fn names_order(row: &StudyRow, number: &Match) -> bool {
    let orders = row.orders.as_deref().map(from_text).unwrap_or_default();
    orders.iter().flatten().any(|known| known == number)
}

/// The text of a row; `None` for no orders.
pub(crate) fn to_text(orders: &[Vec<Match>]) -> Option<String> {
    let pair = |number: &Match| (number.system.clone(), number.value.clone());
    let list: Vec<Vec<(Option<String>, String)>> =
        orders.iter().map(|order| order.iter().map(pair).collect()).collect();
    if list.is_empty() { None } else { serde_json::to_string(&list).ok() }
}

/// The orders of the text of a row.
pub(crate) fn from_text(text: &str) -> Vec<Vec<Match>> {
    let Some(of) = ResourceType::from_name("ServiceRequest") else { return Vec::new() };
    let list: Vec<Vec<(Option<String>, String)>> = serde_json::from_str(text).unwrap_or_default();
    let number = |(system, value)| Match { resource_type: of, system, value };
    list.into_iter().map(|order| order.into_iter().map(number).collect()).collect()
}
