//! Passing over a delivery that its receiver refuses, so that those behind it go on.

use hilum_fhir::ResourceType;
use hilum_store::{Error, Queue, Site};

use crate::Intake;

/// What came of passing over a delivery.
#[derive(Clone, Debug)]
pub enum PassedOver {
    /// It is given up; the destination as it is now.
    Done(Box<Queue>),
    /// There is no such Subscription.
    Unknown,
    /// Another delivery is sent next: nothing was given up.
    NotNext,
}

/// Gives up the delivery that the Subscription with this id sends next, in the name of `who`.
///
/// # Errors
/// `Unavailable`, `Full`.
pub async fn pass_over(
    intake: &Intake,
    site: &Site,
    id: &str,
    number: u64,
    who: &str,
) -> Result<PassedOver, Error> {
    let store = intake.store();
    let of = ResourceType::from_name("Subscription").unwrap_or_else(|| unreachable!("a type of fhir r4"));
    let Some(subscription) = store.read(site, of, id).await?.filter(|version| !version.body.is_empty())
    else {
        return Ok(PassedOver::Unknown);
    };
    if !store.pass_over(site, &subscription, number, who).await? {
        return Ok(PassedOver::NotNext);
    }
    let reference = format!("Subscription/{id}");
    let queue = store.queues(site).await?.into_iter().find(|queue| queue.destination.reference == reference);
    Ok(queue.map_or(PassedOver::Unknown, |queue| PassedOver::Done(Box::new(queue))))
}
