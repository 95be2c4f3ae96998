//! What a plan would do, resource by resource, without doing it.

use hilum_fhir::{Resource, ResourceType};

use super::{Draft, Imaging, Plan, Planned};
use crate::{Effect, Foretold};

impl Plan {
    /// The content of each resource before and after; of what only writes rows of images, the study.
    pub(crate) fn foretold(&self) -> Vec<Foretold> {
        let mut told: Vec<Foretold> =
            self.drafts.iter().enumerate().map(|(at, draft)| self.of(at, draft)).collect();
        told.extend(self.imaging.iter().filter_map(of_rows));
        told
    }

    fn of(&self, at: usize, draft: &Draft) -> Foretold {
        let before = draft.base.as_ref().and_then(|base| base.resource.as_ref());
        let before = before.map(|resource| resource.clone().into_value());
        let after = draft.content.clone().map(Resource::into_value);
        let is_late = || {
            let mut of_draft = self.results.iter().filter_map(|planned| match planned {
                Planned::Draft(of, effect) if *of == at => Some(*effect),
                _ => None,
            });
            of_draft.any(|effect| effect == Effect::Late)
        };
        let exists = draft.base.as_ref().is_some_and(|base| !base.head.deleted);
        let effect = match (&draft.prepared, &after, exists) {
            (Some(_), _, true) => Effect::Updated,
            (Some(_), ..) => Effect::Created,
            (None, None, true) if draft.touched => Effect::Deleted,
            _ if is_late() => Effect::Late,
            _ => Effect::Unchanged,
        };
        // what was only looked up has no content here, and stays as it is
        let after =
            if draft.prepared.is_some() || effect == Effect::Deleted { after } else { before.clone() };
        Foretold { effect, resource_type: draft.resource_type, id: draft.id.clone(), before, after }
    }
}

fn of_rows(imaging: &Imaging) -> Option<Foretold> {
    let study = match imaging {
        Imaging::Study(study, _) => &**study,
        Imaging::Instance(instance, _) => &instance.study,
        Imaging::Step(step, _) => step.study.as_ref()?,
    };
    Some(Foretold {
        effect: Effect::Recorded,
        resource_type: ResourceType::from_name("ImagingStudy")?,
        id: study.uid.clone(),
        before: None,
        after: None,
    })
}
