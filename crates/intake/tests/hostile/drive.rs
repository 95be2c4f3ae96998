//! Sends a body through the way in, as its door would.

use std::path::Path;

use bytes::Bytes;
use hilum_fhir::validate::validate;
use hilum_fhir::{Action, Change, Resource, ResourceType, Target, json};
use hilum_intake::normalise::{Payload, Rules};
use hilum_intake::store::{Config, Site, Store};
use hilum_intake::{Intake, Receipt, Source, Submission, now, sha256};
use hilum_wire::v3::{Limits, Message, Refusal};
use serde_json::Value;

use super::shapes::Door;

/// A store with one site.
pub(crate) struct Bench {
    pub(crate) intake: Intake,
    pub(crate) site: Site,
}

impl Bench {
    /// A new store in a folder.
    pub(crate) async fn open(dir: &Path) -> Self {
        let config = Config { free_bytes_min: 0, blobs_free_bytes_min: 0, ..Config::new(dir.to_owned()) };
        let store = Store::open(config).await.unwrap();
        store.control().put_site(serde_json::from_value(serde_json::json!({ "id": "a" })).unwrap()).unwrap();
        let site = store.control().site("a").unwrap().unwrap();
        Self { intake: Intake::new(store, Rules::compile(&[]).unwrap()), site }
    }

    /// Sends a body; what was answered in one line, without values.
    pub(crate) async fn send(&self, door: Door, body: &str, control: &str) -> String {
        let source = Source { listener: "test".into(), ack_warnings: true, ..Source::default() };
        match door {
            Door::V2 => {
                let body = body.replacen("|C1|", &format!("|{control}|"), 1);
                let answer = self.intake.exchange(&self.site, source, body.into()).await;
                let frame = answer.frames.first().map(|frame| String::from_utf8_lossy(frame).into_owned());
                frame.unwrap_or_default().split('\r').skip(1).take(2).collect::<Vec<_>>().join(" ")
            }
            Door::V3 => self.interact(source, body, control).await,
            Door::Mpps => self.accept(source, Payload::Mpps(Bytes::copy_from_slice(body.as_bytes()))).await,
            Door::Fhir => match changes(body) {
                Ok(changes) => self.accept(source, Payload::Fhir(changes)).await,
                Err(refused) => refused,
            },
        }
    }

    async fn interact(&self, source: Source, body: &str, control: &str) -> String {
        let body = body.replacen("extension=\"1\"", &format!("extension=\"{control}\""), 1);
        let body = Bytes::from(body);
        let message = match Message::read(&body, &Limits::default()) {
            Ok(message) => message,
            Err(Refusal::Xml(fault)) => return format!("400 {} {}", fault.place.len(), fault.text),
            Err(Refusal::Soap(..)) => return "soap".to_owned(),
        };
        let reply = self.intake.interact(&self.site, source, body, message).await;
        let document = reply.document.unwrap_or_default();
        let part = |start: &str, end: &str| {
            let rest = document.split_once(start).map_or("", |(_, rest)| rest);
            rest.split(end).next().unwrap_or_default().to_owned()
        };
        format!("{} {} {}", reply.http_status, part("<typeCode code=\"", "\""), part("<text>", "</text>"))
    }

    async fn accept(&self, source: Source, payload: Payload) -> String {
        let original = match &payload {
            Payload::Mpps(bytes) => Some(bytes.clone()),
            _ => None,
        };
        let submission = Submission {
            site: self.site.clone(),
            source,
            payload,
            received: now(),
            sha256: sha256(original.as_deref().unwrap_or_default()),
            original,
            content_type: "application/json",
            control: None,
            reply: None,
        };
        match self.intake.accept(submission).await {
            Receipt::Accepted(_) => "accepted".to_owned(),
            Receipt::Deferred(error) => format!("deferred {error}"),
            Receipt::Rejected(issues) => {
                format!("rejected {:?} {}", issues[0].location, issues[0].diagnostics)
            }
        }
    }
}

/// The changes of a resource or transaction, as the FHIR door makes them.
fn changes(body: &str) -> Result<Vec<Change>, String> {
    let limits = json::Limits::default();
    let value = json::parse(body.as_bytes(), &limits).map_err(|issue| issue.diagnostics)?;
    let resource = |value: &Value| {
        let resource = Resource::from_value(value.clone()).map_err(|issue| issue.diagnostics)?;
        match validate(&resource).first() {
            None => Ok(resource),
            Some(issue) => Err(format!("422 {}", issue.diagnostics)),
        }
    };
    if value["resourceType"] != "Bundle" {
        let resource = resource(&value)?;
        let id = resource.id().unwrap_or("x").to_owned();
        let of: ResourceType = resource.resource_type();
        return Ok(vec![Change::new(Action::Replace(Target::Id(of, id), resource))]);
    }
    let entries = value["entry"].as_array().map_or(&[][..], Vec::as_slice);
    if entries.len() > 5_000 {
        return Err("413 too many entries".to_owned());
    }
    let change = |entry: &Value| {
        let created = Change::new(Action::Create(resource(&entry["resource"])?));
        Ok(created.with_full_url(entry["fullUrl"].as_str().unwrap_or_default()))
    };
    entries.iter().map(change).collect()
}
