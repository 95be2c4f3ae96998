//! What the holder of a key may do: its scopes, read once and asked in one place by every door and by the deliverer.
//!
//! A scope about resources is one of SMART App Launch 2 (`system/Observation.rs?category=laboratory`) or 1 (`system/Patient.read`); the others are names
//! that are compared as a whole (`ingest/hl7v2`). A scope that is not understood grants nothing, and no key is made with one.
//!
//! A scope with a filter is a part of a type. It is never asked as "may this be done", only as a [`Query`] that is restricted or a resource that is
//! looked at, so what the filter leaves out cannot come into an answer.

use hilum_fhir::search::{Condition, Context, Entries, Filter, Query, Reference, index, parameter};
use hilum_fhir::{Resource, ResourceType, Timestamp};

/// The scope that grants everything.
const ALL: &str = "admin/all";
/// Parameters that say whose a resource is; the first that a type has is asked.
const OF_PATIENT: [&str; 2] = ["patient", "subject"];

/// What may be done with resources of a type: the letters of SMART App Launch 2, "Scopes for requesting FHIR Resources".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names are the standard's")]
pub enum Right {
    Create,
    Read,
    Update,
    Delete,
    Search,
}

impl Right {
    /// Its letter in a scope.
    pub fn letter(self) -> char {
        match self {
            Self::Create => 'c',
            Self::Read => 'r',
            Self::Update => 'u',
            Self::Delete => 'd',
            Self::Search => 's',
        }
    }
}

/// A scope that is compared as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Sending HL7 v2 messages.
    IngestHl7v2,
    /// Sending HL7 v3 interactions.
    IngestHl7v3,
    /// Sending performed procedure steps.
    IngestMpps,
    /// Seeing the secrets of outbound headers.
    RevealEndpoint,
    /// Reading metrics.
    Metrics,
    /// Seeing and replaying what was sent.
    Submissions,
    /// Removing studies.
    Studies,
    /// Seeing and passing over deliveries.
    Deliveries,
    /// Changing the site over HTTP, and sending routes again: granted to nobody's use yet, but keys may have them.
    Site,
    /// See [`Scope::Site`].
    ReplayRoute,
}

impl Scope {
    /// All of them.
    pub const ALL: [Self; 10] = [
        Self::IngestHl7v2,
        Self::IngestHl7v3,
        Self::IngestMpps,
        Self::RevealEndpoint,
        Self::Metrics,
        Self::Submissions,
        Self::Studies,
        Self::Deliveries,
        Self::Site,
        Self::ReplayRoute,
    ];

    /// As a key has it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::IngestHl7v2 => "ingest/hl7v2",
            Self::IngestHl7v3 => "ingest/hl7v3",
            Self::IngestMpps => "ingest/mpps",
            Self::RevealEndpoint => "endpoint.reveal",
            Self::Metrics => "admin/metrics",
            Self::Submissions => "admin/submissions",
            Self::Studies => "admin/studies",
            Self::Deliveries => "admin/deliveries",
            Self::Site => "admin/site",
            Self::ReplayRoute => "route.replay",
        }
    }

    fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|scope| scope.name() == name)
    }
}

/// The policy of a caller.
#[derive(Clone, Debug, Default)]
pub struct Access {
    everything: bool,
    named: Vec<Scope>,
    grants: Vec<Grant>,
}

/// What one scope grants.
#[derive(Clone, Debug)]
struct Grant {
    /// `None` = every type.
    of: Option<ResourceType>,
    /// Letters of the rights.
    rights: String,
    /// Only what this finds.
    filter: Option<Query>,
    /// Only what is of this patient.
    patient: Option<String>,
}

/// A resource that access is asked to.
#[derive(Clone, Copy)]
pub struct Thing<'t> {
    /// Its content.
    pub content: &'t Resource,
    /// Its id; empty before it has one.
    pub id: &'t str,
    /// When its version was written.
    pub last_updated: Timestamp,
}

impl Access {
    /// Everything: who asks where no key is needed.
    pub fn everything() -> Self {
        Self { everything: true, ..Self::default() }
    }

    /// What scopes grant together. `patient` is the id of the patient that scopes of the form `patient/…` are about; without one they grant nothing.
    pub fn of(scopes: &[String], patient: Option<&str>, context: &Context) -> Self {
        let is_all = scopes.iter().any(|scope| scope == ALL);
        let grants = scopes.iter().filter_map(|scope| Grant::read(scope, patient, context).ok());
        Self {
            everything: is_all,
            grants: grants.collect(),
            named: scopes.iter().filter_map(|scope| Scope::from_name(scope)).collect(),
        }
    }

    /// Whether all scopes are understood.
    ///
    /// # Errors
    /// The first that is not, and what would be.
    pub fn check(scopes: &[String], context: &Context) -> Result<(), String> {
        let is_name = |scope: &&String| *scope == ALL || Scope::from_name(scope).is_some();
        for scope in scopes.iter().filter(|scope| !is_name(scope)) {
            Grant::read(scope, None, context).map_err(|why| format!("the scope {scope}: {why}"))?;
        }
        Ok(())
    }

    /// Whether it holds a scope that is compared as a whole.
    pub fn holds(&self, scope: Scope) -> bool {
        self.everything || self.named.contains(&scope)
    }

    /// Whether it may do this with a resource of the type, be it only with some of them.
    pub fn may(&self, of: ResourceType, right: Right) -> bool {
        self.everything || self.grants_of(of, right).next().is_some()
    }

    /// Restricts a search to what may be searched, and the searches that its chains and `_has` make on other types as well: what may not be seen
    /// decides on nothing either. The store refuses a chain that was not restricted.
    ///
    /// # Errors
    /// The type of which nothing may be searched.
    pub fn restrict(&self, query: &mut Query) -> Result<(), ResourceType> {
        let of = query.resource_type;
        if !self.is_whole(of, Right::Search) {
            query.within = self.grants_of(of, Right::Search).filter_map(|grant| grant.part(of)).collect();
            if query.within.is_empty() {
                return Err(of);
            }
        }
        // as deep as a chain may be
        for filter in &mut query.filters {
            if let Condition::Linked(linked) = &mut filter.condition {
                linked.searches.iter_mut().try_for_each(|search| self.restrict(search))?;
                linked.allowed = true;
            }
        }
        Ok(())
    }

    /// Whether it may do this with one resource as it is.
    pub fn covers(&self, right: Right, thing: Thing<'_>, context: &Context) -> bool {
        let of = thing.content.resource_type();
        if self.is_whole(of, right) {
            return true;
        }
        let mut entries: Option<Entries> = None;
        self.grants_of(of, right).filter_map(|grant| grant.part(of)).any(|part| {
            let entries = entries.get_or_insert_with(|| index(thing.content, context));
            part.matches(entries, thing.id, thing.last_updated)
        })
    }

    /// Whether it may do this with every resource of a type.
    pub fn is_whole(&self, of: ResourceType, right: Right) -> bool {
        self.everything
            || self.grants_of(of, right).any(|grant| grant.filter.is_none() && grant.patient.is_none())
    }

    fn grants_of(&self, of: ResourceType, right: Right) -> impl Iterator<Item = &Grant> {
        let fits = move |grant: &&Grant| {
            grant.of.is_none_or(|granted| granted == of) && grant.rights.contains(right.letter())
        };
        self.grants.iter().filter(fits)
    }
}

impl Grant {
    fn read(scope: &str, patient: Option<&str>, context: &Context) -> Result<Self, &'static str> {
        const FORM: &str = "write system/TYPE.RIGHTS with a type of FHIR R4 or * and rights of c r u d s, as in system/Patient.rs";
        let (scope, filter) =
            scope.split_once('?').map_or((scope, None), |(scope, text)| (scope, Some(text)));
        let (level, rest) = scope.split_once('/').ok_or(FORM)?;
        let patient = match (level, patient) {
            ("system", _) => None,
            ("patient", Some(patient)) => Some(patient.to_owned()),
            ("patient", None) => return Err("a key is of no patient; write system/ in place of patient/"),
            _ => return Err(FORM),
        };
        let (name, rights) = rest.rsplit_once('.').ok_or(FORM)?;
        let of = match name {
            "*" => None,
            name => Some(ResourceType::from_name(name).ok_or(FORM)?),
        };
        let filter = match (filter, of) {
            (None, _) => None,
            (Some(""), _) => return Err("its filter is empty"),
            (Some(_), None) => return Err("a filter needs a type before it"),
            (Some(text), Some(of)) => Some(
                Query::parse_criteria(&format!("{of}?{text}"), context)
                    .map_err(|_| "its filter is no search of that type that is known here")?,
            ),
        };
        Ok(Self { of, rights: letters(rights).ok_or(FORM)?.to_owned(), filter, patient })
    }

    /// The search for what it is about among resources of a type; `None` = nothing of it is.
    fn part(&self, of: ResourceType) -> Option<Query> {
        let mut part = self.filter.clone().unwrap_or_else(|| Query::all(of));
        if let Some(patient) = &self.patient {
            part.filters.push(of_patient(of, patient)?);
        }
        Some(part)
    }
}

/// What says that a resource is of a patient. A type that has no such parameter is of nobody.
fn of_patient(of: ResourceType, patient: &str) -> Option<Filter> {
    if of.name() == "Patient" {
        return Some(Filter {
            parameter: parameter(of, "_id")?,
            condition: Condition::Id(vec![patient.to_owned()]),
        });
    }
    let parameter = OF_PATIENT.iter().find_map(|name| parameter(of, name))?;
    let wanted = Reference::Local(ResourceType::from_name("Patient")?, patient.to_owned());
    Some(Filter { parameter, condition: Condition::Reference(vec![wanted]) })
}

/// The letters of rights as they are written in a scope; `None` when they are none.
fn letters(rights: &str) -> Option<&str> {
    match rights {
        "read" => Some("rs"),
        "write" => Some("cud"),
        "*" => Some("cruds"),
        letters => {
            let is_once =
                |(at, letter): (usize, char)| "cruds".contains(letter) && letters.find(letter) == Some(at);
            (!letters.is_empty() && letters.char_indices().all(is_once)).then_some(letters)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn context() -> Context {
        Context { zone: jiff::tz::TimeZone::UTC, now: Timestamp::from_micros(0) }
    }

    fn access(scopes: &str, patient: Option<&str>) -> Access {
        let scopes: Vec<String> = scopes.split_whitespace().map(str::to_owned).collect();
        Access::of(&scopes, patient, &context())
    }

    fn kind(name: &str) -> ResourceType {
        ResourceType::from_name(name).unwrap()
    }

    #[test]
    fn scopes_of_both_versions_grant_what_they_say_and_nothing_else() {
        for (scope, of, granted) in [
            ("system/*.cruds", "Patient", "cruds"),
            ("system/Patient.rs", "Patient", "rs"),
            ("system/Patient.rs", "Observation", ""),
            ("system/Endpoint.read", "Endpoint", "rs"),
            ("system/Endpoint.write", "Endpoint", "cud"),
            ("system/Endpoint.*", "Endpoint", "cruds"),
            ("ingest/hl7v2", "Patient", ""),
            ("admin/all", "Patient", "cruds"),
            // what is not understood grants nothing: the words of a filter have letters too
            ("system/Patient.rs?unknown-parameter=cud", "Patient", ""),
            ("system/Patient.rs?", "Patient", ""),
            ("system/Patient.reads", "Patient", ""),
            ("system/Patient.rr", "Patient", ""),
            ("system/Patient.", "Patient", ""),
            ("system/Patients.rs", "Patient", ""),
            ("system/*.rs?gender=female", "Patient", ""),
            ("patient/Patient.rs", "Patient", ""),
            ("user/Patient.rs", "Patient", ""),
            ("launch", "Patient", ""),
        ] {
            let access = access(scope, None);
            let rights = [Right::Create, Right::Read, Right::Update, Right::Delete, Right::Search];
            let may: String =
                rights.into_iter().filter(|right| access.may(kind(of), *right)).map(Right::letter).collect();
            assert_eq!(may, granted, "{scope} {of}");
        }
    }

    #[test]
    fn a_scope_that_is_not_understood_is_named_with_what_would_be() {
        let refused = |scope: &str| Access::check(&[scope.to_owned()], &context()).unwrap_err();
        assert!(refused("system/Patient.reads").contains("system/Patient.rs"));
        assert!(refused("patient/Patient.rs").contains("of no patient"));
        assert!(refused("system/Patient.rs?shoe-size=7").contains("filter"));
        assert!(refused("admin/everything").contains("admin/everything"));
        Access::check(&["system/Patient.rs?gender=female".into(), "admin/metrics".into()], &context())
            .unwrap();
    }

    fn observation(category: &str, patient: &str) -> Resource {
        Resource::from_value(
            json!({ "resourceType": "Observation", "status": "final", "code": { "text": "x" },
            "category": [{ "coding": [{ "system": "urn:c", "code": category }] }],
            "subject": { "reference": format!("Patient/{patient}") } }),
        )
        .unwrap()
    }

    #[test]
    fn a_filter_covers_a_part_and_filters_of_several_scopes_add_up() {
        let access = access("system/Observation.rs?category=lab system/Observation.r?category=vital", None);
        let covers = |right, category| {
            let content = observation(category, "1");
            let thing = Thing { content: &content, id: "o", last_updated: Timestamp::from_micros(0) };
            access.covers(right, thing, &context())
        };
        assert!(access.may(kind("Observation"), Right::Search));
        assert!(!access.is_whole(kind("Observation"), Right::Search));
        assert!(covers(Right::Read, "lab") && covers(Right::Read, "vital") && !covers(Right::Read, "other"));
        assert!(covers(Right::Search, "lab") && !covers(Right::Search, "vital"));
        let mut query = Query::all(kind("Observation"));
        assert!(access.restrict(&mut query).is_ok());
        assert_eq!(query.within.len(), 1);
        assert_eq!(access.restrict(&mut Query::all(kind("Patient"))), Err(kind("Patient")));
    }

    #[test]
    fn a_scope_of_a_patient_covers_that_patient_and_what_is_of_it() {
        let access = access("patient/*.rs", Some("1"));
        let covers = |content: &Resource, id: &str| {
            let thing = Thing { content, id, last_updated: Timestamp::from_micros(0) };
            access.covers(Right::Read, thing, &context())
        };
        let patient = Resource::from_value(json!({ "resourceType": "Patient" })).unwrap();
        let device = Resource::from_value(json!({ "resourceType": "Organization" })).unwrap();
        assert!(covers(&patient, "1") && !covers(&patient, "2"));
        assert!(covers(&observation("lab", "1"), "o") && !covers(&observation("lab", "2"), "o"));
        assert!(!covers(&device, "1"));
    }
}
