//! What becomes due with time: quiet studies become ImagingStudy versions, what is kept long enough goes.

use std::time::Duration;

use hilum_store::{Removed, Site};
use tokio_util::sync::CancellationToken;

use crate::{Intake, now};

const PUBLISH_EVERY: Duration = Duration::from_secs(1);
const FORGET_EVERY: Duration = Duration::from_secs(60);

/// Publishes the studies of all sites that are due, until `stop`.
pub async fn publish_loop(intake: Intake, stop: CancellationToken) {
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(PUBLISH_EVERY) => {}
        }
        let Ok(sites) = intake.store().control().sites() else { continue };
        for site in sites {
            if let Err(error) = intake.publish_studies(&site, None).await {
                tracing::warn!(site = site.id(), %error, "studies not published, tried again");
            }
        }
    }
}

/// Bounds what is kept of rejected submissions, and removes what is older than a site keeps it, at the start and once a minute, until `stop`.
pub(crate) async fn forget_loop(intake: Intake, stop: CancellationToken) {
    loop {
        for site in intake.store().control().sites().unwrap_or_default() {
            forget(&intake, &site).await;
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(FORGET_EVERY) => {}
        }
    }
}

async fn forget(intake: &Intake, site: &Site) {
    match intake.store().retain(site, now()).await {
        Ok(removed) if removed == Removed::default() => {}
        Ok(Removed { originals, submissions, versions, blobs }) => {
            let site = site.id();
            tracing::info!(site, originals, submissions, versions, blobs, "kept long enough, removed");
        }
        Err(error) => tracing::warn!(site = site.id(), %error, "what is old was not removed, tried again"),
    }
    match intake.store().forget_rejected(site).await {
        Ok(0) => {}
        Ok(removed) => tracing::info!(site = site.id(), removed, "originals of rejected submissions removed"),
        Err(error) => tracing::warn!(site = site.id(), %error, "quarantine not bounded, tried again"),
    }
}
