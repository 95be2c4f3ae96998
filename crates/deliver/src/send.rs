//! One attempt: the address is checked again, the connection goes to a checked address, nothing is followed, little is read.

use std::time::Duration;

use hilum_store::{Delivery, Site, Version};
use reqwest::redirect::Policy;
use reqwest::{Client, Method, Response, StatusCode};

use crate::subscription::Subscription;
use crate::{Options, address};

/// What came of an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Delivered,
    /// Later, perhaps after so many milliseconds.
    Retry(&'static str, Option<i64>),
    /// The receiver says it will not take it.
    Refused(&'static str),
    /// The receiver is gone for good.
    Gone,
    Dead(&'static str),
}

impl Outcome {
    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::Delivered => "delivered",
            Self::Retry(..) => "retry",
            Self::Refused(_) => "refused",
            Self::Gone => "gone",
            Self::Dead(_) => "dead",
        }
    }
}

pub(crate) struct Sender {
    options: Options,
}

impl Sender {
    pub(crate) fn new(options: Options) -> Self {
        Self { options }
    }

    /// `PUT {endpoint}/{Type}/{id}` with the version, or an empty POST.
    pub(crate) async fn send(
        &self,
        site: &Site,
        subscription: &Subscription,
        delivery: &Delivery,
        version: &Version,
    ) -> Outcome {
        let addresses = match address::check(&subscription.endpoint, &site.settings().outbound_allow).await {
            Ok(addresses) => addresses,
            Err(reason) => return Outcome::Refused(reason),
        };
        let host = url::Url::parse(&subscription.endpoint)
            .ok()
            .and_then(|u| u.host_str().map(str::to_owned))
            .unwrap_or_default();
        let client = Client::builder()
            .redirect(Policy::none())
            .no_proxy()
            .timeout(self.options.attempt_timeout)
            .connect_timeout(self.options.attempt_timeout)
            .resolve_to_addrs(&host, &addresses)
            .build();
        let Ok(client) = client else { return Outcome::Retry("the client cannot be built", None) };
        let base = subscription.endpoint.trim_end_matches('/');
        let mut request = if subscription.has_payload {
            let url = format!("{base}/{}/{}", version.resource_type, version.id);
            let etag = format!("W/\"{}\"", version.version);
            let request = client
                .request(Method::PUT, url)
                .header("content-type", "application/fhir+json")
                .header("etag", etag);
            request.body(version.body.clone())
        } else {
            client.request(Method::POST, base)
        };
        for (name, value) in &subscription.headers {
            request = request.header(name, value);
        }
        let event = format!("{}/{}", subscription.id, delivery.number);
        request = request.header("x-hilum-event", &event).header("idempotency-key", &event);
        match request.send().await {
            Ok(response) => self.judged(response).await,
            Err(error) if error.is_timeout() => Outcome::Retry("the receiver did not answer in time", None),
            Err(error) if error.is_builder() => {
                Outcome::Refused("the request cannot be built from the channel")
            }
            Err(_) => Outcome::Retry("the receiver cannot be reached", None),
        }
    }

    async fn judged(&self, mut response: Response) -> Outcome {
        let status = response.status();
        let after = response
            .headers()
            .get("retry-after")
            .and_then(|v| v.to_str().ok())
            .and_then(|v| v.parse::<i64>().ok());
        let after = after.map(|seconds| seconds.clamp(0, 3600) * 1000);
        let mut read = 0;
        let drain = async {
            while let Ok(Some(chunk)) = response.chunk().await {
                read += chunk.len();
                if read > self.options.response_bytes_max {
                    break;
                }
            }
        };
        let _ = tokio::time::timeout(Duration::from_secs(5), drain).await;
        match status {
            status if status.is_success() => Outcome::Delivered,
            StatusCode::GONE => Outcome::Gone,
            StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_EARLY | StatusCode::TOO_MANY_REQUESTS => {
                Outcome::Retry("the receiver asks to send later", after)
            }
            status if status.is_server_error() => {
                Outcome::Retry("the receiver has trouble of its own", after)
            }
            status if status.is_redirection() => {
                Outcome::Refused("the receiver redirects, which is not followed")
            }
            _ => Outcome::Refused("the receiver refuses the notification"),
        }
    }
}
