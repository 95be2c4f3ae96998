//! The one way in: a [`Submission`] becomes a [`Receipt`].
//!
//! Whatever the protocol, bytes become a submission, a submission becomes changes, and the changes are committed in one durable
//! transaction with the original bytes. Only then is there a receipt. No listener can skip a step: there is no other function.

mod authorities;
pub mod batch;
mod deliveries;
pub mod exchange;
pub mod interaction;
mod place;
pub mod replay;
mod submission;
mod told;
mod upkeep;
pub mod view;

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use hilum_fhir::{Issue, IssueCode, Timestamp};
use hilum_normalise::{Context, Lineage, Normalised, Payload, Rules};
use hilum_store::{About, Answer, Commit, Render, Site, Store, Unidentified};
use tokio_util::sync::CancellationToken;

pub use deliveries::{PassedOver, pass_over};
pub use hilum_normalise as normalise;
pub use hilum_store as store;
pub use submission::{Source, Submission, sha256};
pub use upkeep::publish_loop;

use crate::authorities::Authorities;
use crate::told::{Ending, tell};

/// Larger messages are mapped where they hold nobody up.
const MAPPED_INLINE_BYTES_MAX: usize = 128 * 1024;

/// Our answer to a submission, the same three-way for every protocol.
#[must_use = "every submission is answered"]
#[derive(Debug)]
pub enum Receipt {
    /// Durable.
    Accepted(Accepted),
    /// Our trouble: nothing was kept, the sender sends again.
    Deferred(store::Error),
    /// Theirs: must not be repeated unchanged. The original is kept.
    Rejected(Vec<Issue>),
}

/// An accepted submission.
#[derive(Debug)]
pub struct Accepted {
    /// What was committed.
    pub commit: Commit,
    /// Remarks that blocked nothing.
    pub issues: Vec<Issue>,
}

/// The verdict an answer is rendered from, before the commit: the answer is stored with the submission.
#[derive(Debug)]
pub enum Verdict<'a> {
    /// It will be accepted, with these remarks.
    Accepted(&'a [Issue]),
    /// It is rejected for these.
    Rejected(&'a [Issue]),
}

/// The rules by which submissions are mapped: those of all sites, and others for sites with overlays of their own.
#[derive(Debug)]
pub struct SiteRules {
    common: Arc<Rules>,
    own: HashMap<String, Arc<Rules>>,
}

impl SiteRules {
    /// The rules of a site.
    pub fn of(&self, site: &str) -> &Arc<Rules> {
        self.own.get(site).unwrap_or(&self.common)
    }

    /// With rules that hold for one site alone, in place of those of all.
    #[must_use]
    pub fn with(mut self, site: &str, rules: Arc<Rules>) -> Self {
        self.own.insert(site.to_owned(), rules);
        self
    }
}

impl From<Rules> for SiteRules {
    fn from(common: Rules) -> Self {
        Self { common: Arc::new(common), own: HashMap::new() }
    }
}

/// The way in. Cheap to clone.
#[derive(Clone)]
pub struct Intake {
    store: Store,
    rules: Arc<SiteRules>,
    authorities: Arc<Authorities>,
}

impl Intake {
    /// An intake that writes to `store` and maps by `rules`.
    pub fn new(store: Store, rules: impl Into<SiteRules>) -> Self {
        Self { store, rules: Arc::new(rules.into()), authorities: Arc::default() }
    }

    /// The store, for sites, credentials and reads.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// Accepts a submission: maps it, commits it with its original, and only then says so.
    ///
    /// A panic while mapping is a bug of ours: it is counted and answered `Deferred`.
    pub async fn accept(&self, mut submission: Submission) -> Receipt {
        let about = submission.about();
        if let Err(error) = self.store.accepting(&submission.site) {
            return deferred(&submission, &about, error);
        }
        let mapped = match &mut submission.payload {
            // what a request says is what it changes: it is handed on and not copied
            Payload::Fhir(changes) => {
                Ok(Normalised { changes: std::mem::take(changes), ..Normalised::default() })
            }
            _ => self.normalise(&submission, submission.received).await,
        };
        match mapped {
            Ok(normalised) if normalised.rejected() => self.keep(submission, about, normalised.issues).await,
            Ok(normalised) => self.commit(submission, about, normalised).await,
            Err(error) => deferred(&submission, &about, error),
        }
    }

    /// What a submission means as of a time; a large one off the async threads.
    ///
    /// # Errors
    /// `Unavailable` when the naming systems cannot be read, or mapping panicked.
    async fn normalise(
        &self,
        submission: &Submission,
        received: Timestamp,
    ) -> Result<Normalised, store::Error> {
        let rules = self.rules.of(submission.site.id()).clone();
        let context = self.context(&submission.site, received).await?;
        let is_large =
            submission.original.as_ref().is_some_and(|bytes| bytes.len() > MAPPED_INLINE_BYTES_MAX);
        let mapped = if is_large {
            let payload = submission.payload.clone();
            let work = move || hilum_normalise::normalise(&payload, &rules, &context);
            tokio::task::spawn_blocking(work).await.ok()
        } else {
            let work = || hilum_normalise::normalise(&submission.payload, &rules, &context);
            std::panic::catch_unwind(std::panic::AssertUnwindSafe(work)).ok()
        };
        mapped.ok_or_else(|| {
            metrics::counter!("hilum_panics_total", "place" => "normalise").increment(1);
            tracing::error!(listener = %submission.source.listener, "mapping panicked, submission deferred");
            store::Error::unavailable("internal error while mapping")
        })
    }

    /// What the meaning of a site's submissions depends on: its settings, and the NamingSystem resources committed so far.
    ///
    /// # Errors
    /// `Unavailable`.
    pub async fn context(&self, site: &Site, received: Timestamp) -> Result<Context, store::Error> {
        let naming_systems = self.authorities.of(&self.store, site).await?;
        Ok(Context { naming_systems, ..context_of(site.settings(), received) })
    }

    /// Keeps a submission that a door itself had to refuse (too large, unreadable, not admitted), with its issues.
    pub async fn reject(&self, submission: Submission, issues: Vec<Issue>) -> Receipt {
        let about = submission.about();
        self.keep(submission, about, issues).await
    }

    async fn keep(&self, submission: Submission, about: About, issues: Vec<Issue>) -> Receipt {
        let answer = submission.answer(&Verdict::Rejected(&issues));
        let original = submission.original(about.clone(), None);
        match self.store.quarantine(&submission.site, original, &issues, answer).await {
            Ok(number) => {
                tell(&submission, &about, Ending::Rejected(number, &issues));
                Receipt::Rejected(issues)
            }
            Err(error) => deferred(&submission, &about, error),
        }
    }

    async fn commit(&self, submission: Submission, about: About, mut normalised: Normalised) -> Receipt {
        let original = submission.original(about.clone(), report(&submission.payload, &normalised));
        let lineage: Arc<[Lineage]> = std::mem::take(&mut normalised.lineage).into();
        let answer = answer(&submission, &normalised.issues, &lineage);
        let changes = std::mem::take(&mut normalised.changes);
        match self.store.commit(&submission.site, original, changes, answer).await {
            Ok(commit) if commit.duplicate => {
                tell(&submission, &about, Ending::Duplicate(commit.submission));
                Receipt::Accepted(Accepted { commit, issues: normalised.issues })
            }
            Ok(commit) => {
                self.authorities.committed(&commit);
                let mut issues = normalised.issues;
                let remarks = commit.remarks.iter().map(|remark| remark.issue.clone());
                issues.extend(place::in_the_message(remarks, &lineage));
                tell(&submission, &about, Ending::Accepted(&commit, &issues));
                Receipt::Accepted(Accepted { commit, issues })
            }
            Err(error) if error.kind.is_ours() => deferred(&submission, &about, error),
            Err(error) => {
                let issues = place::in_the_message(refusals(error), &lineage);
                self.keep(submission, about, issues).await
            }
        }
    }

    /// Writes the ImagingStudy versions that are due: of one study (an association that touched it was released, a read of it
    /// waits), or of all that have been quiet long enough.
    ///
    /// # Errors
    /// `Full`, `Unavailable`.
    pub async fn publish_studies(&self, site: &Site, uid: Option<&str>) -> Result<u32, store::Error> {
        self.store.publish_studies(site, uid).await
    }

    /// Runs until `stop`: publishes quiet studies once a second, bounds the quarantine once a minute.
    pub async fn run(self, stop: CancellationToken) {
        tokio::join!(publish_loop(self.clone(), stop.clone()), upkeep::forget_loop(self, stop));
    }
}

/// Now.
pub fn now() -> Timestamp {
    jiff::Timestamp::now().into()
}

/// What the meaning of a site's submissions depends on, from its settings alone: for a dry run beside the store.
pub fn context_of(settings: &store::SiteSettings, received: Timestamp) -> Context {
    let zone = jiff::tz::TimeZone::get(&settings.timezone).unwrap_or(jiff::tz::TimeZone::UTC);
    Context {
        site: settings.id.clone(),
        zone,
        patient_identifier_system: settings.identifier_system(),
        naming_systems: authorities::configured(settings).collect(),
        join_unqualified: settings.join_unqualified,
        keep_unidentified: settings.unidentified == Unidentified::Keep,
        received,
        seed: uuid::Uuid::now_v7().as_u128(),
    }
}

fn report(payload: &Payload, normalised: &Normalised) -> Option<Bytes> {
    (!matches!(payload, Payload::Fhir(_))).then(|| normalised.report())
}

/// The answer to what will be accepted: with what mapping remarked, and what the commit will.
fn answer(submission: &Submission, issues: &[Issue], lineage: &Arc<[Lineage]>) -> Answer {
    let plain = submission.answer(&Verdict::Accepted(issues));
    let with_remarks = submission.reply.clone().map(|reply| {
        let (issues, lineage) = (issues.to_vec(), lineage.clone());
        let render: Render = Arc::new(move |remarks: &[Issue]| {
            let remarks = place::in_the_message(remarks.to_vec(), &lineage);
            reply(&Verdict::Accepted(&[&issues[..], &remarks].concat()))
        });
        render
    });
    Answer { plain, with_remarks }
}

fn refusals(error: store::Error) -> Vec<Issue> {
    if error.issues.is_empty() {
        vec![Issue::error(IssueCode::Conflict, error.message)]
    } else {
        error.issues
    }
}

fn deferred(submission: &Submission, about: &About, error: store::Error) -> Receipt {
    tell(submission, about, Ending::Deferred(&error));
    Receipt::Deferred(error)
}
