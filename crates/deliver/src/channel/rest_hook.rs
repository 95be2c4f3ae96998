//! The rest-hook channel: one request a delivery. The address is checked before each, the connection goes to a checked address, nothing is followed, little
//! is read.

use std::net::SocketAddr;
use std::time::Duration;

use hilum_store::{Delivery, Site, Version};
use reqwest::redirect::Policy;
use reqwest::{Client, Method, Response, StatusCode};
use url::Url;

use super::{Outcome, address};
use crate::Options;
use crate::subscription::Subscription;

/// Time to read the rest of an answer whose status is known.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(5);

/// The way to one receiver. Keeps its connection between deliveries, as long as the receiver's addresses stay the same.
pub(crate) struct RestHook {
    options: Options,
    kept: Option<Kept>,
}

struct Kept {
    host: String,
    addresses: Vec<SocketAddr>,
    client: Client,
}

impl RestHook {
    pub(crate) fn new(options: Options) -> Self {
        Self { options, kept: None }
    }

    /// Closes a connection that is not used for a while.
    pub(crate) fn rest(&mut self) {
        self.kept = None;
    }

    /// Whether the receiver may be sent to at all.
    ///
    /// # Errors
    /// Why not.
    pub(crate) async fn check(&self, site: &Site, subscription: &Subscription) -> Result<(), &'static str> {
        address::check(&subscription.endpoint, &site.settings().outbound_allow).await.map(drop)
    }

    /// `PUT {endpoint}/{Type}/{id}` with the version, or an empty POST to the endpoint.
    pub(crate) async fn send(
        &mut self,
        site: &Site,
        subscription: &Subscription,
        delivery: &Delivery,
        version: &Version,
    ) -> Outcome {
        let addresses = match address::check(&subscription.endpoint, &site.settings().outbound_allow).await {
            Ok(addresses) => addresses,
            Err(reason) => return Outcome::Refused(reason),
        };
        let Ok(endpoint) = Url::parse(&subscription.endpoint) else {
            return Outcome::Refused("the endpoint is no url");
        };
        let Some(client) = self.client(&endpoint, addresses) else {
            return Outcome::Retry("the client cannot be built", None);
        };
        let mut request = if subscription.has_payload {
            let url = below(endpoint, version.resource_type.name(), &version.id);
            let etag = format!("W/\"{}\"", version.version);
            let request = client.request(Method::PUT, url);
            let request = request.header("content-type", "application/fhir+json").header("etag", etag);
            request.body(version.body.clone())
        } else {
            client.request(Method::POST, endpoint)
        };
        for (name, value) in &subscription.headers {
            request = request.header(name, value);
        }
        // the number begins anew with a Subscription that is made again, the position in the feed never does
        let event = format!("{}/{}", subscription.id, delivery.number);
        let key = format!("{event}@{}", delivery.position);
        request = request.header("x-hilum-event", &event).header("idempotency-key", &key);
        match request.send().await {
            Ok(response) => self.judged(response).await,
            Err(error) if error.is_timeout() => Outcome::Retry("the receiver did not answer in time", None),
            Err(error) if error.is_builder() => {
                Outcome::Refused("the request cannot be built from the channel")
            }
            Err(_) => Outcome::Retry("the receiver cannot be reached", None),
        }
    }

    /// The client of the receiver: the one kept, or a new one when the receiver moved.
    fn client(&mut self, endpoint: &Url, mut addresses: Vec<SocketAddr>) -> Option<Client> {
        addresses.sort_unstable();
        let host = endpoint.host_str()?;
        if let Some(kept) = self.kept.as_ref().filter(|kept| kept.host == host && kept.addresses == addresses)
        {
            return Some(kept.client.clone());
        }
        let client = Client::builder()
            .redirect(Policy::none())
            .no_proxy()
            .timeout(self.options.attempt_timeout)
            .connect_timeout(self.options.attempt_timeout)
            .pool_max_idle_per_host(1)
            .resolve_to_addrs(host, &addresses)
            .build()
            .ok()?;
        self.kept = Some(Kept { host: host.to_owned(), addresses, client: client.clone() });
        Some(client)
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
        let _ = tokio::time::timeout(DRAIN_TIMEOUT, drain).await;
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

/// The address of a resource below an endpoint, whose query stays: `https://h/hook?tenant=7` becomes `https://h/hook/Patient/1?tenant=7`.
fn below(mut endpoint: Url, of: &str, id: &str) -> Url {
    let path = format!("{}/{of}/{id}", endpoint.path().trim_end_matches('/'));
    endpoint.set_path(&path);
    endpoint
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_resource_is_put_below_the_path_and_the_query_stays() {
        for (endpoint, wanted) in [
            ("https://h.example/hook", "https://h.example/hook/Patient/1"),
            ("https://h.example/hook/", "https://h.example/hook/Patient/1"),
            ("https://h.example", "https://h.example/Patient/1"),
            ("https://h.example/a/b?tenant=7&x=%20", "https://h.example/a/b/Patient/1?tenant=7&x=%20"),
        ] {
            assert_eq!(below(Url::parse(endpoint).unwrap(), "Patient", "1").as_str(), wanted);
        }
    }
}
