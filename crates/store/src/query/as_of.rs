//! The pages of a search show what matched when the first one was made (R4 http.html, "Paging").
//!
//! The walk over the index sees what is current. What changed since the first page stands elsewhere in the index now, or nowhere, so a page would
//! show it twice or never. A cursor therefore carries the feed position of the first page; resources that have a newer version are left out of the
//! walk, and come as they were then, where they stood then. What was created since is left out; what was deleted since is not shown any more.
//! What a chain or `_has` asks of other resources is asked of them as they are now.

use std::collections::HashSet;

use hilum_fhir::Resource;
use hilum_fhir::search::index;
use hilum_rows::row::{Candidate, Changed, Position};
use hilum_rows::stored;

use super::stream::{Checked, Ground, Sought};
use crate::{Error, Version};

/// Versions written since the first page that are looked through, the oldest first. Beyond, a page shows what is current.
const VERSIONS_MAX: u32 = 10_000;
/// Bodies read together.
const AT_ONCE: usize = 64;

/// What changed since the first page of a search.
#[derive(Default)]
pub(super) struct AsOf {
    changed: HashSet<i64>,
    /// What matched at the first page and changed since, as it was and where it stood.
    pub(super) earlier: Vec<Earlier>,
}

/// A resource as it was at the first page.
pub(super) struct Earlier {
    pub(super) candidate: Candidate,
    pub(super) version: Version,
    pub(super) resource: Resource,
}

impl AsOf {
    /// Looks through what was written after the feed position `first_page`.
    pub(super) fn read(ground: &Ground<'_>, asked: &dyn Sought, first_page: u64) -> Result<Self, Error> {
        let (rows, patience, context) = (ground.rows, ground.patience, &ground.context());
        let changed = rows.changed_since(asked.query().resource_type, first_page, VERSIONS_MAX)?;
        let candidates = earlier_ones(&changed);
        if candidates.len() > AT_ONCE {
            patience.long()?;
        }
        let mut earlier = Vec::new();
        for some in candidates.chunks(AT_ONCE) {
            patience.step()?;
            for (candidate, version) in rows.versions_of(some, &[])? {
                if version.body.is_empty() {
                    continue;
                }
                let resource = stored::parse(&version.body)?;
                let entries = index(&resource, context);
                let checked = Checked { entries: &entries, rid: candidate.rid, version: &version };
                if asked.matches(ground, &checked)? {
                    let ord = entries.clinical_date.unwrap_or(candidate.ord);
                    earlier.push(Earlier { candidate: Candidate { ord, ..candidate }, version, resource });
                }
            }
        }
        Ok(Self { changed: changed.iter().map(|row| row.rid).collect(), earlier })
    }

    /// Whether the walk leaves a resource out.
    pub(super) fn is_changed(&self, rid: i64) -> bool {
        self.changed.contains(&rid)
    }
}

impl Earlier {
    /// Where it stood.
    pub(super) fn position(&self) -> Position {
        Position { ord: self.candidate.ord, rid: self.candidate.rid }
    }
}

/// The versions of the first page of what is not deleted by now.
fn earlier_ones(changed: &[Changed]) -> Vec<Candidate> {
    let there = changed.iter().filter(|row| !row.deleted);
    there.filter_map(|row| Some(Candidate { ord: row.ord, rid: row.rid, vid: row.earlier? })).collect()
}
