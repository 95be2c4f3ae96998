//! One entry of the transaction a submission turns into. The store applies changes; rendered for people, a list of them is a
//! FHIR transaction Bundle.

use crate::imaging::{Instance, PerformedStep, Study};
use crate::search::Query;
use crate::{Resource, ResourceType, Timestamp};

/// One entry of a submission's transaction.
///
/// Links between the changes of one submission are references to the `full_url` (`urn:uuid:…`) of another change; the store
/// replaces them by `Type/id` inside its transaction, wherever a JSON string under a member named `reference` equals one.
/// A reference of the form `Type?identifier=system|value` is resolved there as well: exactly one match gives `Type/id`;
/// none drops the `reference` member when a sibling `identifier` keeps the logical reference, else fails the change with
/// `Precondition` (conditional references of FHIR transactions).
#[derive(Clone, Debug)]
pub struct Change {
    /// `urn:uuid:…` by which other changes of the same submission refer to this one's resource.
    pub full_url: Option<String>,
    /// What to do.
    pub action: Action,
    /// What must hold of the current version for it to be done.
    pub precondition: Precondition,
    /// When the peer says the change happened (EVN-2, else MSH-7). A [`Action::Merge`] older than the last one applied to the same
    /// resource is not applied and reported as late.
    pub happened: Option<Timestamp>,
    /// The message speaks of something else and names this in passing (a result its order, without ORC): what it says may be late, and makes
    /// nothing that comes after it late.
    pub in_passing: bool,
    /// Members that a [`Action::Merge`] sets only when it creates the resource, because the message says nothing of them (`status`, `intent`).
    pub defaults: serde_json::Map<String, serde_json::Value>,
}

/// What a change does.
#[derive(Clone, Debug)]
pub enum Action {
    /// Store a new resource under a new id.
    Create(Resource),
    /// Create if the target is absent, else leave it alone (FHIR conditional create; a Patient named by an image).
    Ensure(Target, Resource),
    /// Members of the resource overwrite, absent members stay, the listed top-level elements or dotted paths are removed
    /// first (HL7 v2 updates: value sets, empty leaves, `""` deletes). Creates when the target is absent.
    /// `identifier` lists are united by system and value. See [`crate::merge`].
    Merge(Target, Resource, Vec<String>),
    /// The resource takes the place of the target's content; creates when absent (FHIR update, conditional update; a snapshot).
    /// With [`Target::Id`] and an absent target it creates under that id.
    Replace(Target, Resource),
    /// Remove the target; absent is success.
    Delete(Target),
    /// The prior Patient is replaced by the survivor (HL7 v2 A40): prior `active=false` with `link` replaced-by, survivor with
    /// `link` replaces. Missing ones are created. Chains resolve to the last survivor; a cycle or self-merge is refused.
    ///
    /// Comes before the change that writes the survivor. All numbers of the prior are looked up as they are (a replaced Patient is not
    /// followed) and every Patient found goes; numbers nobody has become identifiers of one prior. A number that both name is the prior's.
    Supersede {
        /// The Patient that stays, and what to create when it is absent.
        survivor: Box<(Target, Resource)>,
        /// The Patient that goes, and what to create when it is absent.
        prior: Box<(Target, Resource)>,
    },
    /// A study announced by an order or a performed procedure step: upserts the study row; ImagingStudy `registered`.
    Study(Box<Study>),
    /// A DICOM instance whose blob is already durable: study, series and instance rows. ImagingStudy is drawn from them.
    Instance(Box<Instance>),
    /// The target, which is another patient's, becomes this patient's (HL7 v2 A43 to A45): the one change by which a message moves
    /// anything. The second is the full URL of the Patient's change in this submission. An absent target is refused as `NotFound`.
    Move(Target, String),
    /// A step of an MPPS: compare-and-set of its state row. Refused as `Conflict` when the stored state is final.
    Step(Box<PerformedStep>),
}

/// Which resource a change is about.
#[derive(Clone, Debug)]
pub enum Target {
    /// The resource with this id.
    Id(ResourceType, String),
    /// The resource with this business identifier.
    Match(Match),
    /// The Patient that these numbers lead to.
    Patient(Box<PatientNumbers>),
    /// The resource that one of several keys names.
    Keys(Box<Keys>),
    /// The one match of a strict FHIR search. More than one is refused as `Precondition` with code multiple-matches.
    Query(Box<Query>),
}

/// A business identifier: resource type, identifier system and value.
///
/// A Patient that was superseded is never the result: the match follows `link` replaced-by to the last survivor.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Match {
    /// The type looked for.
    pub resource_type: ResourceType,
    /// `Identifier.system`; `None` matches identifiers without a system.
    pub system: Option<String>,
    /// `Identifier.value`.
    pub value: String,
}

/// The numbers by which a message names a patient. A number alone names nobody: all of them are looked up, and they must agree.
///
/// None is known: a new Patient with all of them. All known ones lead to one Patient (a replaced one leads to its survivor): that one.
/// They lead to two, or two active Patients bear one of them: nothing is guessed, and [`Disagreement`] says what happens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PatientNumbers {
    /// System and value of each number, in the order of the message, none twice. Those in `domain` have no assigning authority.
    pub numbers: Vec<(String, String)>,
    /// The same numbers under the URIs that their authorities had before a system was named for them: looked up, all of them, where no Patient has
    /// one of `numbers`.
    pub former: Vec<(String, String)>,
    /// Identifier system of the site's own domain: of patients without an assigning authority.
    pub domain: String,
    /// Whether a number without an authority may be joined with the same value of a Patient known under another system:
    /// by what else the message names (`clues`), else by birth date and family name. `[[site]] join_unqualified`.
    pub join: bool,
    /// Orders, steps and studies the message names.
    pub clues: Vec<Clue>,
    /// What happens when the numbers disagree.
    pub disagreement: Disagreement,
}

/// Something whose patient is known, and who is the patient of a message that names it too.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Clue {
    /// A resource with a `subject` and this identifier: an order by its accession, placer or filler number, a Procedure by its step.
    Resource(Match),
    /// A study by its Study Instance UID.
    Study(String),
}

/// What happens when the numbers of a message lead to more than one Patient.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Disagreement {
    /// The submission is refused as a conflict (HL7 205, 409) and kept.
    Refuse,
    /// The Patient of this submission is a new one that is marked for attention: an image is never turned away.
    KeepApart,
}

/// The keys of a resource in order of trust: the first that names one decides, and the resource learns the others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Keys {
    /// The type looked for.
    pub resource_type: ResourceType,
    /// Full URL of the Patient's change in this submission. A number without an authority names only what is this patient's.
    pub patient: Option<String>,
    /// The keys, the most trusted first.
    pub keys: Vec<Key>,
    /// Whether a number met again with another service code (`code` of the resource) names another resource: one filler or placer number
    /// may stand for several panels.
    pub by_code: bool,
}

/// One key of a resource.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Key {
    /// A number with its assigning authority, and the code of its type (`FILL`, `PLAC`, `VN`), when it has one. Where no resource has it, one of
    /// the same patient that has the same value and type without an authority is meant: it gets the authority.
    Number(Match, Option<String>),
    /// The number before it, under a URI that its authority had before a system was named for it.
    Former(Match),
    /// A number without an authority, and the code of its type: one of the same patient, whatever its authority, from the same sender or
    /// with the same service code.
    Bare(String, Option<String>),
    /// An identifier composed under another resource: its value is the id of the resource with the full URL `parent`, `|` and `value`. The
    /// store adds it to the resource.
    Under {
        /// Full URL of a change of the same submission that stands before this one.
        parent: String,
        /// `Identifier.system`.
        system: String,
        /// What follows the parent's id and `|`.
        value: String,
        /// The identifier that the first version of the store composed for it, looked for when the parent is not new.
        former: Option<Match>,
    },
}

/// Conditions on the target's current version (RFC 9110 section 13).
#[derive(Clone, Debug, Default)]
pub struct Precondition {
    /// `If-Match`: the current version must be one of these; an absent target fails.
    pub if_match: Option<Vec<u64>>,
    /// `If-None-Match: *`: the target must not exist.
    pub must_not_exist: bool,
}

impl Change {
    /// A change without a full URL or conditions.
    pub fn new(action: Action) -> Self {
        Self {
            full_url: None,
            action,
            precondition: Precondition::default(),
            happened: None,
            in_passing: false,
            defaults: serde_json::Map::new(),
        }
    }

    /// The same change under a full URL.
    #[must_use]
    pub fn with_full_url(mut self, full_url: impl Into<String>) -> Self {
        self.full_url = Some(full_url.into());
        self
    }
}

impl Target {
    /// The type of what is looked for.
    pub fn resource_type(&self) -> ResourceType {
        match self {
            Self::Id(of, _) => *of,
            Self::Match(wanted) => wanted.resource_type,
            Self::Patient(_) => {
                ResourceType::from_name("Patient").unwrap_or_else(|| unreachable!("a type of fhir r4"))
            }
            Self::Keys(keys) => keys.resource_type,
            Self::Query(query) => query.resource_type,
        }
    }
}

impl From<Match> for Target {
    fn from(value: Match) -> Self {
        Self::Match(value)
    }
}
