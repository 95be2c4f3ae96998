//! Rules beyond the shape of a resource: Subscriptions and outbound headers.

use axum::http::StatusCode;
use hilum_fhir::search::Query;
use hilum_fhir::{Issue, IssueCode, Resource};
use hilum_intake::store::Right;
use serde_json::Value;

use crate::answer::Refusal;
use crate::ask::Ask;

/// Header names an outbound request sets itself.
const OWN_HEADERS: [&str; 6] = ["host", "content-length", "transfer-encoding", "connection", "upgrade", "te"];

/// What a client may not store although its shape is right.
pub(crate) fn check(ask: &Ask, resource: &Resource, is_update: bool) -> Result<(), Refusal> {
    let issues = match resource.resource_type().name() {
        "Subscription" => subscription(ask, resource, is_update)?,
        "Endpoint" => headers(resource.get("header"), "Endpoint.header"),
        _ => Vec::new(),
    };
    if issues.is_empty() { Ok(()) } else { Err(Refusal::with(StatusCode::UNPROCESSABLE_ENTITY, issues)) }
}

fn subscription(ask: &Ask, resource: &Resource, is_update: bool) -> Result<Vec<Issue>, Refusal> {
    let mut issues = Vec::new();
    let mut refuse = |code, place: &str, text: &str| {
        issues.push(Issue::error(code, text).at(format!("Subscription.{place}")))
    };
    let status = resource.get("status").and_then(Value::as_str).unwrap_or_default();
    if status != "requested" && status != "off" && !(is_update && status == "active") {
        refuse(
            IssueCode::BusinessRule,
            "status",
            "a client asks for requested or off; the server sets the rest",
        );
    }
    let channel = resource.get("channel").unwrap_or(&Value::Null);
    let member = |name: &str| channel.get(name).and_then(Value::as_str);
    match member("type") {
        Some("rest-hook") => {
            let endpoint = member("endpoint").unwrap_or_default();
            let url = url::Url::parse(endpoint).ok().filter(|u| matches!(u.scheme(), "http" | "https"));
            match url {
                None => {
                    refuse(IssueCode::Value, "channel.endpoint", "a rest-hook has an http or https address")
                }
                Some(url) if !url.username().is_empty() || url.password().is_some() => {
                    refuse(IssueCode::Value, "channel.endpoint", "an address carries no user or password");
                }
                Some(_) => {}
            }
        }
        Some(_) => {
            refuse(IssueCode::NotSupported, "channel.type", "this channel is not configured; rest-hook is")
        }
        None => {}
    }
    if member("payload").is_some_and(|p| !p.starts_with("application/fhir+json") && p != "application/json") {
        refuse(IssueCode::NotSupported, "channel.payload", "only application/fhir+json is sent");
    }
    issues.extend(headers(channel.get("header"), "Subscription.channel.header"));
    let criteria = resource.get("criteria").and_then(Value::as_str).unwrap_or_default();
    match Query::parse_criteria(criteria, &ask.context()?) {
        Err(wrong) => issues.extend(wrong.into_iter().map(|issue| issue.at("Subscription.criteria"))),
        // what it is told, its owner could read; to turn one off nothing is asked
        Ok(query) if status != "off" => {
            ask.may(query.resource_type, Right::Search)?;
            ask.may(query.resource_type, Right::Read)?;
        }
        Ok(_) => {}
    }
    Ok(issues)
}

fn headers(list: Option<&Value>, place: &str) -> Vec<Issue> {
    let mut issues = Vec::new();
    for (at, header) in list.and_then(Value::as_array).into_iter().flatten().enumerate() {
        let text = header.as_str().unwrap_or_default();
        let name = text.split(':').next().unwrap_or_default().trim().to_ascii_lowercase();
        let token = !name.is_empty()
            && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b));
        if !text.contains(':') || !token || text.contains(['\r', '\n', '\0']) {
            issues.push(
                Issue::error(IssueCode::Value, "is one header line: `Name: value`")
                    .at(format!("{place}[{at}]")),
            );
        } else if OWN_HEADERS.contains(&name.as_str()) || name.starts_with("proxy-") {
            issues.push(
                Issue::error(IssueCode::BusinessRule, "this header is set by the sender itself")
                    .at(format!("{place}[{at}]")),
            );
        }
    }
    issues
}
