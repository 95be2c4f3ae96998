//! Quiet studies become ImagingStudy versions.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::Intake;

/// Publishes the studies of all sites that are due, once a second, until `stop`.
pub async fn publish_loop(intake: Intake, stop: CancellationToken) {
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(Duration::from_secs(1)) => {}
        }
        let Ok(sites) = intake.store().control().sites() else { continue };
        for site in sites {
            if let Err(error) = intake.publish_studies(&site, None).await {
                tracing::warn!(site = site.id(), %error, "studies not published, tried again");
            }
        }
    }
}
