//! Two sites with the same ids and identifiers under random requests: no site sees a byte of the other.

use std::collections::HashMap;
use std::hash::{BuildHasher, Hasher, RandomState};

use bytes::Bytes;
use hilum_fhir::search::{Context, Options, Query, decode_pairs};
use hilum_fhir::{Action, Change, Resource, ResourceType, Target, Timestamp};
use hilum_store::{Destination, DestinationState, Original, OriginalKind, Site, Store, Version, sha256};
use serde_json::json;

use crate::engine::config;

const REQUESTS: usize = 600;
const SEARCHES: [&str; 6] =
    ["", "identifier=urn:mrn|1", "name=mark", "gender=female", "_id=p1,p2", "birthdate=gt1950"];

/// SplitMix64.
struct Dice(u64);

impl Dice {
    fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (z ^ (z >> 31)) % n
    }
}

struct Tenant {
    site: Site,
    mark: &'static str,
    other: &'static str,
    /// What was written last, and the number of versions.
    known: HashMap<String, (Option<String>, u64)>,
    submissions: u64,
}

fn patients() -> ResourceType {
    ResourceType::from_name("Patient").unwrap()
}

fn query(text: &str) -> Query {
    let options = Options {
        strict: true,
        condition: false,
        bases: &[],
        count_max: 1000,
        parameters_max: 64,
        or_values_max: 500,
        chain_depth_max: 4,
    };
    let context = Context { zone: jiff::tz::TimeZone::UTC, now: Timestamp::from_micros(0) };
    Query::parse(patients(), &decode_pairs(text), &options, &context).unwrap().0
}

impl Tenant {
    fn original(&self, bytes: String) -> Original {
        Original {
            kind: OriginalKind::V2,
            listener: "test".into(),
            peer: None,
            identity: Some(self.mark.into()),
            control: Some(("RIS".into(), format!("C{}", self.submissions))),
            sha256: sha256(bytes.as_bytes()),
            blob: None,
            bytes: Some(Bytes::from(bytes)),
            content_type: "x",
            received: Timestamp::from_micros(1),
            report: None,
            about: Default::default(),
        }
    }

    async fn write(&mut self, store: &Store, dice: &mut Dice) {
        let id = format!("p{}", dice.below(6));
        let family = format!("{}-{}", self.mark, dice.below(1000));
        let target = Target::Id(patients(), id.clone());
        let exists = self.known.get(&id).is_some_and(|(family, _)| family.is_some());
        let deletes = exists && dice.below(4) == 0;
        let action = if deletes {
            Action::Delete(target)
        } else {
            let value = json!({ "resourceType": "Patient", "id": id, "gender": "female", "birthDate": "1960-01-01",
                "identifier": [{ "system": "urn:mrn", "value": &id[1..] }], "name": [{ "family": family }] });
            Action::Replace(target, Resource::from_value(value).unwrap())
        };
        let same =
            self.known.get(&id).is_some_and(|(known, _)| !deletes && known.as_deref() == Some(&family));
        let (original, answer) =
            (self.original(family.clone()), Bytes::from(format!("answer {}", self.mark)));
        let commit =
            store.commit(&self.site, original, vec![Change::new(action)], Some(answer)).await.unwrap();
        assert!(!commit.duplicate, "a control id of the other site is not ours");
        self.submissions += 1;
        let known = self.known.entry(id).or_default();
        *known = ((!deletes).then_some(family), known.1 + u64::from(!same));
    }

    fn is_own(&self, version: &Version) {
        let text = String::from_utf8_lossy(&version.body);
        assert!(version.body.is_empty() || text.contains(self.mark), "{text}");
        assert!(!text.contains(self.other), "{text}");
    }

    async fn read(&self, store: &Store, dice: &mut Dice) {
        let id = format!("p{}", dice.below(6));
        let known = self.known.get(&id);
        match dice.below(6) {
            0 => {
                let found = store.read(&self.site, patients(), &id).await.unwrap();
                assert_eq!(found.as_ref().map(|v| v.version), known.map(|(_, versions)| *versions));
                let wanted = known.and_then(|(family, _)| family.as_deref()).unwrap_or_default();
                let body = found.map(|v| v.body).unwrap_or_default();
                assert!(String::from_utf8_lossy(&body).contains(wanted));
            }
            1 => {
                let all = store.history(&self.site, patients(), &id, None, 1000).await.unwrap();
                assert_eq!(all.len() as u64, known.map_or(0, |(_, versions)| *versions));
                all.iter().for_each(|version| self.is_own(version));
                let number = 1 + dice.below(20);
                let one = store.vread(&self.site, patients(), &id, number).await.unwrap();
                one.iter().for_each(|version| self.is_own(version));
            }
            2 => {
                let text = SEARCHES[usize::try_from(dice.below(6)).unwrap()];
                let page = store.search(&self.site, &query(text), None).await.unwrap();
                page.matches.iter().for_each(|version| self.is_own(version));
            }
            3 => {
                let feed = store.feed(&self.site, dice.below(100), 1000).await.unwrap();
                feed.iter().for_each(|entry| self.is_own(&entry.version));
            }
            4 => {
                let rows = store.submissions(&self.site, None, 1000).await.unwrap();
                assert_eq!(rows.len() as u64, self.submissions);
                for row in rows {
                    assert_eq!(row.identity.as_deref(), Some(self.mark));
                    assert!(row.bytes.unwrap().starts_with(self.mark.as_bytes()));
                    assert_eq!(row.answer.unwrap(), format!("answer {}", self.mark));
                }
            }
            _ => {
                let of = store.submissions_of(&self.site, patients(), &id, 1000).await.unwrap();
                assert!(of.iter().all(|row| row.identity.as_deref() == Some(self.mark)));
                let destinations = store.destinations(&self.site).await.unwrap();
                assert!(destinations.iter().all(|d| d.error.as_deref() == Some(self.mark)));
                let next = store.next_delivery(&self.site, "Subscription/s").await.unwrap();
                assert_eq!(next.map(|delivery| delivery.position), (self.mark == "MarkA").then_some(7));
            }
        }
    }
}

#[tokio::test]
async fn a_site_never_sees_a_byte_of_another() {
    let seed = RandomState::new().build_hasher().finish();
    println!("seed {seed}");
    let mut dice = Dice(seed);
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(config(dir.path())).await.unwrap();
    let mut tenants = Vec::new();
    for (id, mark, other) in [("a", "MarkA", "MarkB"), ("b", "MarkB", "MarkA")] {
        store.control().put_site(serde_json::from_value(json!({ "id": id })).unwrap()).unwrap();
        let site = store.control().site(id).unwrap().unwrap();
        let destination = Destination {
            reference: "Subscription/s".into(),
            cursor: 0,
            next_number: 1,
            state: DestinationState::Active,
            next_at: None,
            error: Some(mark.into()),
            owner: None,
        };
        store.put_destination(&site, destination).await.unwrap();
        tenants.push(Tenant { site, mark, other, known: HashMap::new(), submissions: 0 });
    }
    let a = &tenants[0].site;
    store.matched(a, vec![("Subscription/s".into(), 7)], vec![("Subscription/s".into(), 7)]).await.unwrap();
    for _ in 0..REQUESTS {
        let tenant = &mut tenants[usize::try_from(dice.below(2)).unwrap()];
        if dice.below(2) == 0 {
            tenant.write(&store, &mut dice).await;
        } else {
            tenant.read(&store, &mut dice).await;
        }
    }
}
