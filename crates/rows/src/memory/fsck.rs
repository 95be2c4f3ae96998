//! What is checked of memory; see [`crate::check`].

use std::collections::BTreeSet;

use jiff::tz::TimeZone;

use super::held::Memory;
use super::tables::Tables;
use crate::check::{Checks, Findings, Shelf};
use crate::control::zone_of;
use crate::row::Content;
use crate::stored::indexed;
use crate::{BlobId, Error};

pub(crate) fn fsck(memory: &Memory, checks: Checks, shelf: &dyn Shelf) -> Result<Vec<Findings>, Error> {
    let settings = memory.shared.control.lock().kept.sites.clone();
    let zone = |id: &str| settings.iter().filter_map(|text| zone_of(text)).find(|(known, _)| known == id);
    let mut all = Vec::new();
    for (id, site) in &*memory.shared.sites.lock() {
        let zone = zone(id).map_or(TimeZone::UTC, |(_, zone)| zone);
        let mut findings = Findings::of(id.clone());
        let due = due(&site.tables.lock(), &zone, &mut findings);
        if checks.rebuild {
            let mut tables = site.tables.lock();
            (tables.keys, tables.strings, tables.ranges) =
                (due.keys.clone(), due.strings.clone(), due.ranges.clone());
        }
        let tables = site.tables.lock().clone();
        findings.versions = tables.versions.len() as u64;
        compare("keys", &tables.keys, &due.keys, &mut findings);
        compare("strings", &tables.strings, &due.strings, &mut findings);
        compare("ranges", &tables.ranges, &due.ranges, &mut findings);
        shelf.check(&referred(&tables), checks.deep, &mut findings)?;
        all.push(findings);
    }
    Ok(all)
}

/// The index that the current bodies give.
fn due(tables: &Tables, zone: &TimeZone, findings: &mut Findings) -> Tables {
    let (mut keys, mut strings, mut ranges) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
    for (rid, named) in tables.heads.iter().filter(|(_, named)| !named.head.deleted) {
        findings.resources += 1;
        let Some(row) = tables.versions.get(&named.head.vid) else {
            findings.wrong(format!("resource {rid}: a version vanished"));
            continue;
        };
        let content =
            Content { last_updated: row.last_updated, encoding: row.encoding, body: row.body.clone() };
        match indexed(&content, zone) {
            Ok(Some((_, rows))) => {
                keys.extend(rows.keys.into_iter().map(|key| (key, named.head.ord, *rid)));
                strings.extend(rows.strings.into_iter().map(|(key, text)| (key, text, *rid)));
                ranges.extend(rows.ranges.into_iter().map(|(key, low, high)| (key, low, high, *rid)));
            }
            Ok(None) => findings.wrong(format!("resource {rid}: its current version has no body")),
            Err(error) => findings.wrong(format!("resource {rid}: {}", error.message)),
        }
    }
    Tables { keys: keys.into(), strings: strings.into(), ranges: ranges.into(), ..Tables::default() }
}

fn compare<T: Ord>(name: &str, table: &BTreeSet<T>, due: &BTreeSet<T>, findings: &mut Findings) {
    let count = |left: &BTreeSet<T>, right: &BTreeSet<T>| {
        i64::try_from(left.difference(right).count()).unwrap_or(i64::MAX)
    };
    findings.index(name, count(table, due), count(due, table));
}

fn referred(tables: &Tables) -> Vec<(BlobId, [u8; 32])> {
    let originals = tables.submissions.values().filter_map(|row| Some((row.blob?, row.sha256)));
    let images = tables.instances.values().map(|row| (row.file.blob.0, row.file.dataset_sha256));
    let all: BTreeSet<([u8; 32], [u8; 32])> = originals.chain(images).collect();
    all.into_iter().map(|(blob, sha256)| (BlobId(blob), sha256)).collect()
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use hilum_fhir::ResourceType;

    use super::super::Session;
    use super::*;
    use crate::Operation;
    use crate::face::WriteResources;
    use crate::row::{HeadRow, VersionRow};

    struct Full;

    impl Shelf for Full {
        fn check(&self, _: &[(BlobId, [u8; 32])], _: bool, _: &mut Findings) -> Result<(), Error> {
            Ok(())
        }
    }

    #[test]
    fn an_index_that_lacks_rows_is_found_and_made_again() {
        let body =
            br#"{"resourceType":"Patient","id":"p","meta":{},"gender":"other","name":[{"family":"Doe"}]}"#;
        let session = Session { tables: RefCell::default() };
        let (rid, version, vid) = (1, 1, 1);
        let (last_updated, operation) = (0, Operation::Create);
        session
            .add_version(&VersionRow {
                vid,
                rid,
                version,
                last_updated,
                operation,
                submission: None,
                body: Some((0, body)),
            })
            .unwrap();
        let resource_type = ResourceType::from_name("Patient").unwrap();
        let head = HeadRow { rid, resource_type, id: "p", version, vid, ord: 7, applied: None };
        session.add_head(&head).unwrap();
        assert!(session.add_head(&head).is_err(), "a name is given once");
        let memory = Memory::new();
        *memory.site("a").unwrap().tables.lock() = session.tables.into_inner();
        let check = |rebuild| fsck(&memory, Checks { deep: false, rebuild }, &Full).unwrap().remove(0);
        let found = check(false);
        assert_eq!((found.resources, found.versions), (1, 1));
        assert_eq!(found.faults.len(), 2, "gender and family: {:?}", found.faults);
        assert_eq!(check(true).faults, [""; 0]);
        assert_eq!(check(false).faults, [""; 0]);
    }
}
