//! Where may be sent to: the parsed host and every address it resolves to are checked, and the connection goes to a checked address.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use ipnet::IpNet;
use url::{Host, Url};

/// Checks a target and returns the addresses it may be reached at.
///
/// # Errors
/// Why not, without the target's text.
pub(crate) async fn check(endpoint: &str, allow: &[String]) -> Result<Vec<SocketAddr>, &'static str> {
    let url = Url::parse(endpoint).map_err(|_| "the endpoint is no url")?;
    if !url.username().is_empty() || url.password().is_some() {
        return Err("the endpoint carries a user or password");
    }
    let host = url.host().ok_or("the endpoint has no host")?;
    let port = url.port_or_known_default().ok_or("the endpoint has no port")?;
    let named = allow.iter().any(|entry| entry.eq_ignore_ascii_case(&host.to_string()));
    let addresses: Vec<IpAddr> = match host {
        Host::Ipv4(address) => vec![address.into()],
        Host::Ipv6(address) => vec![address.into()],
        Host::Domain(name) => {
            let found = tokio::net::lookup_host((name, port))
                .await
                .map_err(|_| "the endpoint's host is not found")?;
            found.map(|socket| socket.ip()).collect()
        }
    };
    if addresses.is_empty() {
        return Err("the endpoint's host is not found");
    }
    let networks: Vec<IpNet> = allow.iter().filter_map(|entry| entry.parse().ok()).collect();
    let is_listed =
        |address: &IpAddr| named || networks.iter().any(|network| network.contains(&address.to_canonical()));
    if url.scheme() != "https" && !(url.scheme() == "http" && addresses.iter().all(is_listed)) {
        return Err("only https is sent to, or http to hosts on the site's list");
    }
    if addresses.iter().any(|address| !is_listed(address) && !is_public(*address)) {
        return Err("the endpoint's address is private or reserved, and not on the site's list");
    }
    Ok(addresses.into_iter().map(|address| SocketAddr::new(address, port)).collect())
}

/// Whether an address is of the public internet.
fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => is_public_v4(address),
        IpAddr::V6(address) => is_public_v6(address),
    }
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    let [a, b, c, _] = address.octets();
    !(address.is_loopback()
        || address.is_private()
        || address.is_link_local()
        || address.is_broadcast()
        || address.is_multicast()
        || address.is_documentation()
        || a == 0
        || a >= 240
        || (a == 100 && (64..128).contains(&b))
        || (a == 192 && b == 0 && c == 0)
        || (a == 198 && (b == 18 || b == 19)))
}

fn is_public_v6(address: Ipv6Addr) -> bool {
    let segments = address.segments();
    let embedded = match segments {
        [0, 0, 0, 0, 0, 0xFFFF | 0, high, low] | [0x64, 0xFF9B, 0, 0, 0, 0, high, low] => Some((high, low)),
        [0x2002, high, low, ..] => Some((high, low)),
        _ => None,
    };
    if let Some((high, low)) = embedded {
        let [a, b] = high.to_be_bytes();
        let [c, d] = low.to_be_bytes();
        return is_public_v4(Ipv4Addr::new(a, b, c, d)) && segments[0] != 0;
    }
    !(address.is_loopback()
        || address.is_unspecified()
        || address.is_multicast()
        || (segments[0] & 0xFE00) == 0xFC00
        || (segments[0] & 0xFFC0) == 0xFE80
        || (segments[0] & 0xFFC0) == 0xFEC0
        || (segments[0] == 0x2001 && segments[1] == 0x0DB8))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn private_and_disguised_targets_are_refused() {
        for url in [
            "https://127.0.0.1/x",
            "https://2130706433/",
            "https://0x7f.1/",
            "https://0177.0.0.1/",
            "https://[::1]/",
            "https://[::ffff:127.0.0.1]/",
            "https://[::127.0.0.1]/",
            "https://[64:ff9b::7f00:1]/",
            "https://[2002:7f00:1::]/",
            "https://[fc00::1]/",
            "https://[fe80::1]/",
            "https://10.0.0.1/",
            "https://172.16.5.5/",
            "https://192.168.1.1/",
            "https://169.254.169.254/latest/meta-data",
            "https://100.64.0.1/",
            "https://0.0.0.0/",
            "https://224.0.0.1/",
            "https://255.255.255.255/",
            "https://localhost/",
            "http://93.184.216.34/",
            "ftp://93.184.216.34/",
            "https://user:pass@93.184.216.34/",
            "mailto:x@example.org",
            "nonsense",
        ] {
            assert!(check(url, &[]).await.is_err(), "{url}");
        }
        assert!(check("https://93.184.216.34/hook", &[]).await.is_ok());
    }

    #[tokio::test]
    async fn the_sites_list_admits_hosts_and_networks() {
        let allow = ["127.0.0.0/8".to_owned(), "localhost".to_owned()];
        assert!(check("http://127.0.0.1:9/x", &allow).await.is_ok());
        assert!(check("http://localhost:9/x", &allow).await.is_ok());
        assert!(check("http://10.0.0.1/x", &allow).await.is_err());
    }
}
