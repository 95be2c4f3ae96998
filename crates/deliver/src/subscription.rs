//! Subscriptions as the deliverer sees them, read as they stand.

use hilum_fhir::Resource;
use hilum_fhir::search::{Query, date_range};
use hilum_store::{DestinationState, Error, Site, Store, Version};
use serde_json::Value;

use crate::{criteria, subscription_type};

/// Subscriptions read together.
const PAGE: u32 = 500;

/// A rest-hook Subscription.
#[derive(Clone, Debug)]
pub(crate) struct Subscription {
    pub(crate) id: String,
    /// `Subscription/id`
    pub(crate) reference: String,
    /// The version this was read from.
    pub(crate) version: Version,
    pub(crate) status: DestinationState,
    /// `None` when it is no search that is known here.
    pub(crate) criteria: Option<Query>,
    pub(crate) endpoint: String,
    /// Whether the resource is sent, or an empty body.
    pub(crate) has_payload: bool,
    /// Header lines of the channel: secrets, never logged.
    pub(crate) headers: Vec<(String, String)>,
    /// Whether it shows an error.
    pub(crate) has_error: bool,
    pub(crate) end_ms: Option<i64>,
}

impl Subscription {
    pub(crate) fn is_active(&self) -> bool {
        self.status == DestinationState::Active
    }

    pub(crate) fn is_off(&self) -> bool {
        self.status == DestinationState::Off
    }

    pub(crate) fn has_ended(&self, now_ms: i64) -> bool {
        self.end_ms.is_some_and(|end| end <= now_ms)
    }

    /// Whether a delivery that was begun for one may go on for the other.
    pub(crate) fn sends_like(&self, other: &Self) -> bool {
        self.status == other.status
            && self.endpoint == other.endpoint
            && self.headers == other.headers
            && self.has_payload == other.has_payload
    }
}

/// All rest-hook Subscriptions of a site, however many there are.
pub(crate) async fn all(store: &Store, site: &Site) -> Result<Vec<Subscription>, Error> {
    let mut query = Query::all(subscription_type());
    query.count = Some(PAGE);
    query.total = hilum_fhir::search::Total::None;
    let (mut found, mut cursor) = (Vec::new(), None);
    loop {
        let page = store.search(site, &query, cursor.as_deref()).await?;
        found.extend(page.matches.iter().filter_map(|version| read(version, site)));
        match page.next {
            Some(next) => cursor = Some(next),
            None => return Ok(found),
        }
    }
}

/// A Subscription as it stands; `None` when it was deleted or is none that is delivered to.
pub(crate) async fn current(store: &Store, site: &Site, id: &str) -> Result<Option<Subscription>, Error> {
    let found = store.read(site, subscription_type(), id).await?;
    Ok(found.and_then(|version| read(&version, site)))
}

fn read(version: &Version, site: &Site) -> Option<Subscription> {
    let resource = Resource::from_value(serde_json::from_slice(&version.body).ok()?).ok()?;
    let channel = resource.get("channel")?.clone();
    let text = |value: &Value, member: &str| value.get(member).and_then(Value::as_str).map(str::to_owned);
    if text(&channel, "type")? != "rest-hook" {
        return None;
    }
    let own = |member: &str| resource.get(member).and_then(Value::as_str).map(str::to_owned);
    let headers =
        channel.get("header").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str);
    Some(Subscription {
        id: version.id.clone(),
        reference: format!("Subscription/{}", version.id),
        version: version.clone(),
        status: DestinationState::from_code(&own("status")?),
        criteria: criteria(&own("criteria")?, site),
        endpoint: text(&channel, "endpoint").unwrap_or_default(),
        has_payload: text(&channel, "payload").is_some(),
        headers: headers
            .filter_map(|h| h.split_once(':'))
            .map(|(n, v)| (n.trim().to_owned(), v.trim().to_owned()))
            .collect(),
        has_error: own("error").is_some(),
        end_ms: own("end").and_then(|end| date_range(&end, &jiff::tz::TimeZone::UTC)).map(|(low, _)| low),
    })
}
