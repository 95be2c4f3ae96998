//! What stands in front of an HTTP listener: the URL its callers use, and the proxies that are believed when they say who called and where.
//!
//! A proxy says it in `Forwarded` (RFC 7239) or in `X-Forwarded-For`, `-Proto`, `-Host`, `-Port` and `-Prefix`. Both are lists to which each
//! proxy adds at the right end, so they are read from there: an entry counts when the one who added it is trusted, and the first address that is
//! not trusted is the caller. What stands left of it the caller may have written himself. From anybody else such headers say nothing, and what
//! is not understood is passed over: no header of this kind makes a request fail.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::{iter, mem};

use axum::http::uri::{Authority, Uri};
use axum::http::{HeaderMap, header, request};
use ipnet::IpNet;

use crate::Peer;

/// Entries of a list that are looked at; those before them are not.
const HOPS_MAX: usize = 32;
/// Bytes of a host with its port, and of a path prefix.
const TEXT_BYTES_MAX: usize = 255;

/// What stands in front of one HTTP listener.
#[derive(Clone, Debug, Default)]
pub struct Front {
    /// Scheme, host and path prefix, without a slash at the end.
    public_url: Option<String>,
    /// Where proxies are that are believed.
    trusted: Vec<IpNet>,
}

/// Why a value of the configuration was not taken; the sentence says what to write.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct NotUnderstood(pub(crate) String);

/// Who called, and at which address: an extension of each request.
#[derive(Clone, Debug)]
pub struct Called {
    /// What URLs of ours begin with: `https://fhir.hospital.example`, with the path a proxy put before.
    pub root: String,
    /// Other beginnings that mean this listener, where the request tells them.
    others: Vec<String>,
    /// The caller's address; port 0 when a proxy did not say it.
    pub caller: SocketAddr,
}

impl Called {
    /// The beginnings of URLs that mean this listener, as far as this request tells; in both schemes, for a proxy may have ended TLS.
    pub fn roots(&self) -> Vec<String> {
        let mut roots: Vec<String> =
            iter::once(&self.root).chain(&self.others).flat_map(|root| in_both_schemes(root)).collect();
        roots.sort_unstable();
        roots.dedup();
        roots
    }
}

impl Front {
    /// From the keys `public_url` and `trusted_proxies` (addresses and networks) of a listener.
    ///
    /// # Errors
    /// A value is not understood.
    pub fn new(public_url: Option<&str>, trusted_proxies: &[String]) -> Result<Self, NotUnderstood> {
        let public_url = public_url.map(read_public_url).transpose()?;
        let trusted = trusted_proxies.iter().map(|text| network(text)).collect::<Result<_, _>>()?;
        Ok(Self { public_url, trusted })
    }

    /// The beginnings of URLs that mean this listener whoever asks, in both schemes; empty without `public_url`.
    pub fn roots(&self) -> Vec<String> {
        self.public_url.iter().flat_map(|root| in_both_schemes(root)).collect()
    }

    /// Who sent a request, and where to.
    pub(crate) fn called(&self, parts: &request::Parts, peer: &Peer) -> Called {
        let host = host(parts).unwrap_or("localhost");
        let scheme = if peer.encrypted { "https" } else { "http" };
        let direct = Said { caller: peer.address, root: [scheme, "://", host].concat() };
        let mut others = Vec::new();
        let mut said = direct;
        if self.trusts(peer.address.ip()) {
            let believed = self.believed(&parts.headers, &said, scheme, host);
            others.push(mem::replace(&mut said, believed).root);
        }
        if let Some(public) = &self.public_url {
            others.push(mem::replace(&mut said.root, public.clone()));
        }
        Called { root: said.root, others, caller: said.caller }
    }

    fn trusts(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.trusted.iter().any(|network| network.contains(&address))
    }

    /// What a trusted proxy says. One that writes only one of the two kinds of header may pass the other on as the caller wrote it: where there
    /// are both, they have to say the same.
    fn believed(&self, headers: &HeaderMap, direct: &Said, scheme: &'static str, host: &str) -> Said {
        let said = |hops: Vec<Hop>| {
            let mut hop = self.outermost(&hops, direct.caller);
            hop.authority.get_or_insert_with(|| host.to_owned());
            let root = root(hop.scheme.unwrap_or(scheme), &hop, prefix(headers));
            Said { caller: hop.from.unwrap_or(direct.caller), root }
        };
        match (forwarded(headers).map(&said), x_forwarded(headers).map(&said)) {
            (Some(standard), Some(usual)) if standard != usual => direct.clone(),
            (Some(said), _) | (None, Some(said)) => said,
            (None, None) => direct.clone(),
        }
    }

    /// The entry of the outermost trusted proxy; what it leaves out is taken from the next one inwards.
    fn outermost(&self, hops: &[Hop], peer: SocketAddr) -> Hop {
        let mut told = Hop { from: Some(peer), ..Hop::default() };
        for hop in hops.iter().rev() {
            told.scheme = hop.scheme.or(told.scheme);
            told.port = hop.port.or(told.port);
            told.authority = hop.authority.clone().or(told.authority);
            let Some(from) = hop.from else { break };
            told.from = Some(from);
            if !self.trusts(from.ip()) {
                break;
            }
        }
        told
    }
}

/// What is believed of a request.
#[derive(Clone, Debug, PartialEq)]
struct Said {
    caller: SocketAddr,
    root: String,
}

/// What one proxy says of the request that it passed on.
#[derive(Clone, Debug, Default, PartialEq)]
struct Hop {
    /// Who sent it to that proxy.
    from: Option<SocketAddr>,
    scheme: Option<&'static str>,
    authority: Option<String>,
    port: Option<u16>,
}

/// The entries of `Forwarded`, RFC 7239 section 4; `None` without such a header. A line that is not understood counts as one entry that says
/// nothing.
fn forwarded(headers: &HeaderMap) -> Option<Vec<Hop>> {
    let lines = lines(headers, "forwarded")?;
    let hops = lines.iter().flat_map(|line| match split(line, ',') {
        Some(elements) => elements.into_iter().map(|element| hop(element).unwrap_or_default()).collect(),
        None => vec![Hop::default()],
    });
    Some(last(hops.collect()))
}

/// One entry: `for=192.0.2.60;proto=https;host=fhir.hospital.example`.
fn hop(element: &str) -> Option<Hop> {
    let mut hop = Hop::default();
    for pair in split(element, ';')?.into_iter().filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=')?;
        let value = unquoted(value)?;
        match name.to_ascii_lowercase().as_str() {
            "for" => hop.from = address(&value),
            "proto" => hop.scheme = scheme(&value),
            "host" => hop.authority = authority(&value),
            _ => {}
        }
    }
    Some(hop)
}

/// The entries of the `X-Forwarded` headers, whose lists are put together from the right; `None` when there is none of them.
fn x_forwarded(headers: &HeaderMap) -> Option<Vec<Hop>> {
    let list = |name| {
        let lines = lines(headers, name);
        let values =
            lines.map(|lines| lines.into_iter().flat_map(|line| line.split(',')).map(str::trim).collect());
        last(values.unwrap_or_default())
    };
    let names = ["x-forwarded-for", "x-forwarded-proto", "x-forwarded-host", "x-forwarded-port"];
    let [from, proto, host, port]: [Vec<&str>; 4] = names.map(list);
    if names.iter().chain(&["x-forwarded-prefix"]).all(|name| !headers.contains_key(*name)) {
        return None;
    }
    let from_right = |list: &[&str], at: usize| list.iter().rev().nth(at).map(|text| (*text).to_owned());
    let hop = |at: usize| Hop {
        from: from_right(&from, at).and_then(|text| address(&text)),
        scheme: from_right(&proto, at).and_then(|text| scheme(&text)),
        authority: from_right(&host, at).and_then(|text| authority(&text)),
        port: from_right(&port, at).and_then(|text| text.parse().ok()),
    };
    Some((0..from.len().max(1)).rev().map(hop).collect())
}

/// The path a proxy took away before it passed a request on, as `X-Forwarded-Prefix` says it; empty without.
fn prefix(headers: &HeaderMap) -> &str {
    let said = lines(headers, "x-forwarded-prefix").and_then(|lines| lines.last().copied());
    let said = said.and_then(|line| line.rsplit(',').next()).unwrap_or_default().trim();
    if is_prefix(said.trim_end_matches('/')) { said.trim_end_matches('/') } else { "" }
}

/// The beginning of a URL; a port that its scheme has by itself is not written.
fn root(scheme: &str, hop: &Hop, prefix: &str) -> String {
    let authority = hop.authority.as_deref().unwrap_or_default();
    let has_port = authority.parse::<Authority>().is_ok_and(|authority| authority.port().is_some());
    let usual = if scheme == "https" { 443 } else { 80 };
    match hop.port.filter(|port| !has_port && *port != usual) {
        Some(port) => format!("{scheme}://{authority}:{port}{prefix}"),
        None => format!("{scheme}://{authority}{prefix}"),
    }
}

/// The host called: the header of HTTP/1.1, the pseudo-header of HTTP/2.
pub(crate) fn host(parts: &request::Parts) -> Option<&str> {
    let named = parts.headers.get(header::HOST).and_then(|host| host.to_str().ok());
    named.or_else(|| parts.uri.authority().map(Authority::as_str))
}

fn in_both_schemes(root: &str) -> [String; 2] {
    let rest = root.split_once("://").map_or(root, |(_, rest)| rest);
    ["https", "http"].map(|scheme| format!("{scheme}://{rest}"))
}

fn read_public_url(text: &str) -> Result<String, NotUnderstood> {
    let url = text.parse::<Uri>().ok().filter(|_| !text.contains(['?', '#']) && text.len() <= TEXT_BYTES_MAX);
    let parts = url.as_ref().and_then(|url| {
        let (scheme, authority) = (scheme(url.scheme_str()?)?, authority(url.authority()?.as_str())?);
        let path = url.path().trim_end_matches('/');
        is_prefix(path).then(|| format!("{scheme}://{authority}{path}"))
    });
    parts.ok_or_else(|| {
        NotUnderstood(format!(
            "public_url {text:?} is not what callers put before /fhir: write \"https://fhir.hospital.example\", with a port or a path where \
             the proxy has one, and without a query"
        ))
    })
}

fn network(text: &str) -> Result<IpNet, NotUnderstood> {
    let network = text.parse::<IpAddr>().map(IpNet::from).or_else(|_| text.parse::<IpNet>());
    match network {
        Ok(network) if network.prefix_len() > 0 => Ok(network),
        Ok(_) => Err(NotUnderstood(format!(
            "trusted_proxies {text:?} would believe everybody: write the addresses or networks of your proxies, such as \"10.1.0.0/16\""
        ))),
        Err(_) => Err(NotUnderstood(format!(
            "trusted_proxies {text:?} is neither an address nor a network: write \"10.1.2.3\" or \"10.1.0.0/16\""
        ))),
    }
}

/// All lines of a header that are text; `None` when there is none.
fn lines<'h>(headers: &'h HeaderMap, name: &str) -> Option<Vec<&'h str>> {
    let lines: Vec<&str> =
        headers.get_all(name).iter().map(|line| line.to_str().unwrap_or_default()).collect();
    (!lines.is_empty()).then_some(lines)
}

/// The last [`HOPS_MAX`] of a list.
fn last<T>(mut list: Vec<T>) -> Vec<T> {
    list.split_off(list.len().saturating_sub(HOPS_MAX))
}

/// The parts between separators that stand outside of quotes; `None` when a quote does not end.
fn split(text: &str, separator: char) -> Option<Vec<&str>> {
    let (mut parts, mut begin, mut quoted, mut escaped) = (Vec::new(), 0, false, false);
    for (at, letter) in text.char_indices() {
        match letter {
            _ if escaped => escaped = false,
            '\\' if quoted => escaped = true,
            '"' => quoted = !quoted,
            _ if letter == separator && !quoted => {
                parts.push(text[begin..at].trim());
                begin = at + letter.len_utf8();
            }
            _ => {}
        }
    }
    parts.push(text[begin..].trim());
    (!quoted).then_some(parts)
}

/// A value without its quotes, RFC 9110 section 5.6.4; `None` when they are not around all of it.
fn unquoted(value: &str) -> Option<String> {
    let Some(rest) = value.strip_prefix('"') else { return (!value.contains('"')).then(|| value.to_owned()) };
    let inner = rest.strip_suffix('"')?;
    let mut letters = inner.chars();
    let mut plain = String::with_capacity(inner.len());
    while let Some(letter) = letters.next() {
        plain.push(if letter == '\\' { letters.next()? } else { letter });
    }
    Some(plain)
}

/// An address with or without a port, an IPv6 one also in brackets; `None` for `unknown` and what a proxy obscures.
fn address(text: &str) -> Option<SocketAddr> {
    let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    let (ip, port) = match (text.parse::<IpAddr>(), text.parse::<SocketAddr>()) {
        (Ok(ip), _) => (ip, 0),
        (_, Ok(socket)) => (socket.ip(), socket.port()),
        _ => (bare?.parse::<Ipv6Addr>().ok()?.into(), 0),
    };
    Some(SocketAddr::new(ip.to_canonical(), port))
}

/// One of the two schemes there are.
pub(crate) fn scheme(text: &str) -> Option<&'static str> {
    ["https", "http"].into_iter().find(|scheme| text.eq_ignore_ascii_case(scheme))
}

/// A host with or without a port, in lower case.
pub(crate) fn authority(text: &str) -> Option<String> {
    let read = text.parse::<Authority>().ok()?;
    if text.len() > TEXT_BYTES_MAX || read.host().is_empty() || text.contains('@') {
        return None;
    }
    let is_port = |port: &str| port.bytes().all(|b| b.is_ascii_digit()) && port.parse::<u16>().is_ok();
    let rest = text.strip_prefix(read.host())?;
    (rest.is_empty() || rest.strip_prefix(':').is_some_and(is_port)).then(|| text.to_ascii_lowercase())
}

/// Nothing, or segments of harmless characters that each begin with a slash.
fn is_prefix(text: &str) -> bool {
    let harmless = |segment: &str| {
        !["", ".", ".."].contains(&segment)
            && segment.bytes().all(|b| b.is_ascii_alphanumeric() || b"._~-".contains(&b))
    };
    let segments = text.strip_prefix('/').map(|rest| rest.split('/').all(harmless));
    text.len() <= TEXT_BYTES_MAX && (text.is_empty() || segments == Some(true))
}

#[cfg(test)]
mod tests {
    use axum::http::Request;

    use super::*;

    const PROXY: &str = "10.0.0.1";
    const STRANGER: &str = "198.51.100.9";

    fn front(public_url: Option<&str>) -> Front {
        Front::new(public_url, &["10.0.0.0/8".to_owned(), "fd00::1".to_owned()]).unwrap()
    }

    /// Root and caller of a request from an address to the host `edge:8080`.
    fn called(front: &Front, from: &str, headers: &[(&str, &str)]) -> (String, String) {
        let mut request = Request::builder().uri("/fhir/Patient").header("Host", "edge:8080");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let (parts, ()) = request.body(()).unwrap().into_parts();
        let address = SocketAddr::new(from.parse().unwrap(), 1234);
        let peer = Peer { address, local: address, listener: "http-0".into(), encrypted: false };
        let called = front.called(&parts, &peer);
        (called.root, called.caller.to_string())
    }

    fn pair(root: &str, caller: &str) -> (String, String) {
        (root.to_owned(), caller.to_owned())
    }

    #[test]
    fn what_a_trusted_proxy_says_is_believed() {
        for (headers, root, caller) in [
            (
                vec![("Forwarded", "for=192.0.2.60;proto=https;by=10.0.0.1;host=Fhir.Example")],
                "https://fhir.example",
                "192.0.2.60:0",
            ),
            (
                vec![("Forwarded", "For=\"[2001:db8::1]:4711\"; Proto=HTTPS ;host=\"fhir.example:8443\"")],
                "https://fhir.example:8443",
                "[2001:db8::1]:4711",
            ),
            (
                vec![
                    ("X-Forwarded-For", "192.0.2.60"),
                    ("X-Forwarded-Proto", "https"),
                    ("X-Forwarded-Host", "fhir.example"),
                    ("X-Forwarded-Port", "443"),
                    ("X-Forwarded-Prefix", "/edge/"),
                ],
                "https://fhir.example/edge",
                "192.0.2.60:0",
            ),
            (
                vec![("X-Forwarded-Proto", "https"), ("X-Forwarded-Port", "8443")],
                "https://edge:8080",
                "10.0.0.1:1234",
            ),
            (
                vec![("X-Forwarded-Host", "fhir.example"), ("X-Forwarded-Port", "8443")],
                "http://fhir.example:8443",
                "10.0.0.1:1234",
            ),
            (vec![("X-Forwarded-For", "::ffff:192.0.2.60")], "http://edge:8080", "192.0.2.60:0"),
        ] {
            assert_eq!(called(&front(None), PROXY, &headers), pair(root, caller), "{headers:?}");
            assert_eq!(
                called(&front(None), STRANGER, &headers),
                pair("http://edge:8080", "198.51.100.9:1234"),
                "from anybody else it says nothing: {headers:?}"
            );
        }
    }

    #[test]
    fn the_rightmost_address_that_is_not_trusted_is_the_caller() {
        for (headers, root, caller) in [
            // what the caller wrote himself stands left of what the proxies added
            (
                vec![("X-Forwarded-For", "127.0.0.1, 192.0.2.60, 10.0.0.2")],
                "http://edge:8080",
                "192.0.2.60:0",
            ),
            (
                vec![("X-Forwarded-For", "127.0.0.1"), ("X-Forwarded-For", "192.0.2.60")],
                "http://edge:8080",
                "192.0.2.60:0",
            ),
            (
                vec![(
                    "Forwarded",
                    "for=127.0.0.1;host=evil.example, for=192.0.2.60;host=fhir.example;proto=https, for=10.0.0.2;host=inner;proto=http",
                )],
                "https://fhir.example",
                "192.0.2.60:0",
            ),
            (
                vec![("X-Forwarded-For", "192.0.2.60"), ("X-Forwarded-Host", "evil.example, fhir.example")],
                "http://fhir.example",
                "192.0.2.60:0",
            ),
            // the inner proxy leaves out what the outer one said
            (
                vec![("X-Forwarded-For", "192.0.2.60, 10.0.0.2"), ("X-Forwarded-Proto", "https")],
                "https://edge:8080",
                "192.0.2.60:0",
            ),
            // a proxy that keeps its caller to itself: no guess beyond it
            (vec![("Forwarded", "for=192.0.2.60, for=_hidden")], "http://edge:8080", "10.0.0.1:1234"),
            (vec![("X-Forwarded-For", "192.0.2.60, unknown, 10.0.0.2")], "http://edge:8080", "10.0.0.2:0"),
        ] {
            assert_eq!(called(&front(None), PROXY, &headers), pair(root, caller), "{headers:?}");
        }
    }

    #[test]
    fn what_is_not_understood_is_passed_over() {
        let long = format!("fhir.{}.example", "x".repeat(300));
        for (name, value) in [
            ("Forwarded", "for=\"192.0.2.60"),
            ("Forwarded", "for"),
            ("Forwarded", "for=\"192.0.2.60\"x"),
            ("Forwarded", ""),
            ("Forwarded", "proto=gopher;host=\"user@evil.example\""),
            ("X-Forwarded-For", ",,,"),
            ("X-Forwarded-For", "192.0.2.60.1"),
            ("X-Forwarded-Proto", "javascript"),
            ("X-Forwarded-Host", "evil.example/path"),
            ("X-Forwarded-Host", "a b"),
            ("X-Forwarded-Host", "fhir.example:99999"),
            ("X-Forwarded-Host", &long),
            ("X-Forwarded-Port", "99999"),
            ("X-Forwarded-Prefix", "//evil.example"),
            ("X-Forwarded-Prefix", "/a/../b"),
        ] {
            let said = called(&front(None), PROXY, &[(name, value)]);
            assert_eq!(said, pair("http://edge:8080", "10.0.0.1:1234"), "{name}: {value}");
        }
        let many = vec!["10.0.0.2"; 1000].join(", ");
        let said = called(&front(None), PROXY, &[("X-Forwarded-For", &format!("192.0.2.60, {many}"))]);
        assert_eq!(said, pair("http://edge:8080", "10.0.0.2:0"), "the last {HOPS_MAX} entries are read");
    }

    #[test]
    fn two_kinds_of_headers_have_to_say_the_same() {
        let usual = [("X-Forwarded-For", "192.0.2.60"), ("X-Forwarded-Host", "fhir.example")];
        let same = ("Forwarded", "for=192.0.2.60;host=fhir.example");
        let own = ("Forwarded", "for=192.0.2.60;host=evil.example");
        let both = |standard| called(&front(None), PROXY, &[usual[0], usual[1], standard]);
        assert_eq!(both(same), pair("http://fhir.example", "192.0.2.60:0"));
        assert_eq!(
            both(own),
            pair("http://edge:8080", "10.0.0.1:1234"),
            "one of them may be the caller's own"
        );
    }

    #[test]
    fn the_public_url_is_what_links_begin_with() {
        let front = front(Some("HTTPS://Fhir.Hospital.example/edge/"));
        let headers = [("X-Forwarded-For", "192.0.2.60"), ("X-Forwarded-Host", "other.example")];
        assert_eq!(
            called(&front, PROXY, &headers),
            pair("https://fhir.hospital.example/edge", "192.0.2.60:0")
        );
        assert_eq!(called(&front, STRANGER, &[]).0, "https://fhir.hospital.example/edge");
        assert_eq!(
            front.roots(),
            ["https://fhir.hospital.example/edge", "http://fhir.hospital.example/edge"]
        );
    }

    #[test]
    fn what_cannot_be_meant_is_refused_with_what_to_write() {
        for url in [
            "fhir.example",
            "ftp://fhir.example",
            "https://",
            "https://a/b?c",
            "https://u@a",
            "https://a/../b c",
        ] {
            let error = Front::new(Some(url), &[]).unwrap_err().to_string();
            assert!(
                error.contains("public_url") && error.contains("https://fhir.hospital.example"),
                "{error}"
            );
        }
        for proxy in ["proxy.example", "10.0.0.0/33", "0.0.0.0/0", ""] {
            let error = Front::new(None, &[proxy.to_owned()]).unwrap_err().to_string();
            assert!(error.contains("trusted_proxies") && error.contains("10.1.0.0/16"), "{error}");
        }
    }
}
