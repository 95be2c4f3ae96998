//! Subscriptions as the deliverer sees them.

use hilum_fhir::search::{Query, date_range};
use hilum_fhir::{Action, Change, Resource, Target};
use hilum_store::{DestinationState, Error, Original, OriginalKind, Site, Store, sha256};
use serde_json::{Value, json};

use crate::{criteria, subscription_type};

/// Subscriptions of a site that are looked at.
const SUBSCRIPTIONS_MAX: u32 = 1_000;

/// A rest-hook Subscription.
pub(crate) struct Subscription {
    pub(crate) id: String,
    /// `Subscription/id`
    pub(crate) reference: String,
    pub(crate) status: String,
    pub(crate) criteria: Option<Query>,
    pub(crate) endpoint: String,
    /// Whether the resource is sent, or an empty body.
    pub(crate) has_payload: bool,
    /// Header lines of the channel: secrets, never logged.
    pub(crate) headers: Vec<(String, String)>,
    /// Whether it shows an error.
    pub(crate) has_error: bool,
    end_ms: Option<i64>,
    resource: Resource,
}

impl Subscription {
    pub(crate) fn is_active(&self) -> bool {
        self.status == "active"
    }

    pub(crate) fn ended(&self, now_ms: i64) -> bool {
        self.end_ms.is_some_and(|end| end <= now_ms)
    }

    pub(crate) fn state(&self) -> DestinationState {
        match self.status.as_str() {
            "requested" => DestinationState::Requested,
            "active" => DestinationState::Active,
            "error" => DestinationState::Error,
            _ => DestinationState::Off,
        }
    }
}

/// All rest-hook Subscriptions of a site.
pub(crate) async fn all(store: &Store, site: &Site) -> Result<Vec<Subscription>, Error> {
    let mut query = Query::all(subscription_type());
    query.count = Some(SUBSCRIPTIONS_MAX);
    let page = store.search(site, &query, None).await?;
    Ok(page.matches.iter().filter_map(|version| read(&version.id, &version.body, site)).collect())
}

fn read(id: &str, body: &[u8], site: &Site) -> Option<Subscription> {
    let resource = Resource::from_value(serde_json::from_slice(body).ok()?).ok()?;
    let channel = resource.get("channel")?.clone();
    let text = |value: &Value, member: &str| value.get(member).and_then(Value::as_str).map(str::to_owned);
    if text(&channel, "type")? != "rest-hook" {
        return None;
    }
    let own = |member: &str| resource.get(member).and_then(Value::as_str).map(str::to_owned);
    let headers =
        channel.get("header").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str);
    Some(Subscription {
        id: id.to_owned(),
        reference: format!("Subscription/{id}"),
        status: own("status")?,
        criteria: criteria(&own("criteria")?, site),
        endpoint: text(&channel, "endpoint").unwrap_or_default(),
        has_payload: text(&channel, "payload").is_some(),
        headers: headers
            .filter_map(|h| h.split_once(':'))
            .map(|(n, v)| (n.trim().to_owned(), v.trim().to_owned()))
            .collect(),
        has_error: own("error").is_some(),
        end_ms: own("end").and_then(|end| date_range(&end, &jiff::tz::TimeZone::UTC)).map(|(low, _)| low),
        resource,
    })
}

/// Writes the status as a new version; the error names the cause and no secret.
pub(crate) async fn set_status(
    store: &Store,
    site: &Site,
    subscription: &Subscription,
    state: DestinationState,
    error: Option<&str>,
) -> Result<(), Error> {
    let status = match state {
        DestinationState::Requested => "requested",
        DestinationState::Active => "active",
        DestinationState::Error => "error",
        DestinationState::Off => "off",
    };
    let mut resource = subscription.resource.clone();
    resource.set("status", json!(status));
    match error {
        Some(error) => resource.set("error", json!(error)),
        None => drop(resource.object_mut().shift_remove("error")),
    }
    let target = Target::Id(subscription_type(), subscription.id.clone());
    let change = Change::new(Action::Replace(target, resource));
    let original = Original {
        kind: OriginalKind::Internal,
        listener: "deliver".into(),
        peer: None,
        identity: None,
        control: None,
        sha256: sha256(subscription.id.as_bytes()),
        blob: None,
        bytes: None,
        content_type: "application/fhir+json",
        received: jiff::Timestamp::now().into(),
        report: None,
        about: Default::default(),
    };
    store.commit(site, original, vec![change], None).await.map(drop)
}
