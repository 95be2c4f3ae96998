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
        Self { full_url: None, action, precondition: Precondition::default(), happened: None }
    }

    /// The same change under a full URL.
    #[must_use]
    pub fn with_full_url(mut self, full_url: impl Into<String>) -> Self {
        self.full_url = Some(full_url.into());
        self
    }
}

impl From<Match> for Target {
    fn from(value: Match) -> Self {
        Self::Match(value)
    }
}
