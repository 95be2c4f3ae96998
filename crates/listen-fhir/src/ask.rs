//! A request, read: who asks, for what, in which form, and how the answer should look.

use std::borrow::Cow;

use axum::body::{Body, to_bytes};
use axum::extract::Request;
use axum::http::{HeaderMap, HeaderName, Method, StatusCode, header};
use bytes::Bytes;
use hilum_fhir::search::{Context, Query, decode_pairs};
use hilum_fhir::{Issue, IssueCode, Resource, ResourceType, json};
use hilum_intake::store::{Access, Right, Site, Thing, Version};
use hilum_listen::{Called, Caller, missing_scope};

use crate::Door;
use crate::answer::Refusal;
use crate::format::Format;

/// R4 http, section 3.1.0.1.10.
pub(crate) const PREFER: HeaderName = HeaderName::from_static("prefer");
/// R4 http, section 3.1.0.8.1.
pub(crate) const IF_NONE_EXIST: HeaderName = HeaderName::from_static("if-none-exist");
/// What the writer of a request wants back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Return {
    Minimal,
    #[default]
    Representation,
    Outcome,
}

impl Return {
    /// What the header `Prefer` says.
    fn of(prefer: &str) -> Self {
        match prefer {
            _ if prefer.contains("return=minimal") => Self::Minimal,
            _ if prefer.contains("return=OperationOutcome") => Self::Outcome,
            _ => Self::Representation,
        }
    }
}

/// A request.
pub(crate) struct Ask {
    pub(crate) method: Method,
    /// Path below the base.
    pub(crate) segments: Vec<String>,
    /// Decoded query.
    pub(crate) query: Vec<(String, String)>,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
    /// Absolute base called, such as `http://localhost:8080/fhir`.
    pub(crate) base: String,
    /// The addresses by which this listener can be meant.
    called: Called,
    pub(crate) caller: Option<Caller>,
    /// Whether what a search asks for and is not served is refused: left out, a filter would show what it should hide. `handling=lenient` asks for that.
    pub(crate) strict: bool,
    pub(crate) returns: Return,
    pub(crate) pretty: bool,
    /// The form of the answer.
    pub(crate) format: Format,
}

impl Ask {
    pub(crate) async fn read(door: &Door, request: Request<Body>) -> Result<Self, Refusal> {
        let (mut parts, body) = request.into_parts();
        let body =
            to_bytes(body, door.settings.limits.http.body_inflated_bytes_max).await.unwrap_or_default();
        let (prefix, rest) = split_base(parts.uri.path());
        let called = parts.extensions.remove::<Called>().ok_or_else(|| {
            let issue = Issue::error(IssueCode::Exception, "the request came through no listener");
            Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, issue)
        })?;
        let prefer = lines(&parts.headers, PREFER).unwrap_or_default();
        let (strict, returns) = (!prefer.contains("handling=lenient"), Return::of(&prefer));
        let ask = Self {
            segments: rest.split('/').filter(|s| !s.is_empty()).map(str::to_owned).collect(),
            query: decode_pairs(parts.uri.query().unwrap_or_default()),
            base: [&called.root, prefix].concat(),
            called,
            caller: parts.extensions.remove::<Caller>(),
            strict,
            returns,
            pretty: false,
            format: Format::default(),
            method: parts.method,
            headers: parts.headers,
            body,
        };
        ask.negotiated()
    }

    /// The request that an entry of a bundle stands for: a read at `url`, which is relative to the base or below an own one.
    pub(crate) fn of_entry(&self, door: &Door, method: Method, url: &str) -> Result<Self, Refusal> {
        let below = self.below_base(door, url)?;
        let (path, query) = below.split_once('?').unwrap_or((below, ""));
        Ok(Self {
            method,
            segments: path.split('/').map(str::to_owned).collect(),
            query: decode_pairs(query),
            headers: HeaderMap::new(),
            body: Bytes::new(),
            base: self.base.clone(),
            called: self.called.clone(),
            caller: self.caller.clone(),
            strict: self.strict,
            returns: Return::default(),
            pretty: false,
            format: Format::default(),
        })
    }

    /// What an address names below the base: it is relative to the base, or below an own one.
    pub(crate) fn below_base<'u>(&self, door: &Door, url: &'u str) -> Result<&'u str, Refusal> {
        let bases = self.own_bases(door)?;
        let below = bases.iter().find_map(|base| url.strip_prefix(base.as_str())?.strip_prefix('/'));
        Ok(below.unwrap_or(url.strip_prefix('/').unwrap_or(url)))
    }

    /// `_format` counts before `Accept`.
    fn negotiated(mut self) -> Result<Self, Refusal> {
        self.pretty = is_pretty(&self.query);
        let wanted = named(&self.query, "_format").map(Cow::Borrowed).or_else(|| self.header(header::ACCEPT));
        self.format = Format::asked(&wanted.unwrap_or_default())?;
        Ok(self)
    }

    /// What a URL below the base has as the target of a request, in bytes: what `limits.http.uri_bytes_max` is about.
    pub(crate) fn target_bytes(&self, url: &str) -> usize {
        url.len().saturating_sub(self.called.root.len())
    }

    /// A header; several lines of it are one list (RFC 9110 section 5.3).
    pub(crate) fn header(&self, name: HeaderName) -> Option<Cow<'_, str>> {
        lines(&self.headers, name)
    }

    /// The caller; everything but metadata needs one.
    pub(crate) fn caller(&self) -> Result<&Caller, Refusal> {
        self.caller.as_ref().ok_or_else(|| {
            Refusal::new(
                StatusCode::UNAUTHORIZED,
                Issue::error(IssueCode::Login, "send an api key in the X-API-Key header"),
            )
        })
    }

    pub(crate) fn site(&self) -> Result<&Site, Refusal> {
        Ok(&self.caller()?.site)
    }

    /// The bases under which the caller's site is served, at the address called and at every public one: what a URL below one of them names is
    /// here.
    pub(crate) fn own_bases(&self, door: &Door) -> Result<Vec<String>, Refusal> {
        let of_site = format!("/site/{}/fhir", self.site()?.id());
        let called = self.called.roots();
        let paths = ["/fhir", &of_site].into_iter().chain(door.settings.aliases.iter().map(String::as_str));
        let roots = || called.iter().chain(&door.settings.roots);
        Ok(paths.flat_map(|path| roots().map(move |root| format!("{root}{path}"))).collect())
    }

    /// What the caller may do.
    pub(crate) fn access(&self) -> Result<&Access, Refusal> {
        Ok(&self.caller()?.access)
    }

    /// Refuses early what the caller may do with no resource of a type. Whether it may with this one is asked of [`Ask::covers`], where the resource is.
    pub(crate) fn may(&self, of: ResourceType, right: Right) -> Result<(), Refusal> {
        if self.access()?.may(of, right) { Ok(()) } else { Err(lacking(of, right)) }
    }

    /// Whether the caller may do this with a version as it is; never with a deletion, which says nothing of what was there.
    pub(crate) fn covers(&self, right: Right, version: &Version) -> Result<bool, Refusal> {
        let access = self.access()?;
        if access.is_whole(version.resource_type, right) {
            return Ok(true);
        }
        let parsed =
            serde_json::from_slice(&version.body).ok().and_then(|value| Resource::from_value(value).ok());
        let Some(content) = parsed else { return Ok(false) };
        let thing = Thing { content: &content, id: &version.id, last_updated: version.last_updated };
        Ok(access.covers(right, thing, &self.context()?))
    }

    /// Restricts a search to what the caller may search, on every type that its chains lead to.
    ///
    /// # Errors
    /// 403 when that is nothing of one of these types.
    pub(crate) fn restrict(&self, query: &mut Query) -> Result<(), Refusal> {
        self.access()?.restrict(query).map_err(|of| lacking(of, Right::Search))
    }

    /// What dates and prefixes need to know.
    pub(crate) fn context(&self) -> Result<Context, Refusal> {
        let now = hilum_intake::now();
        Ok(Context { zone: hilum_intake::context_of(self.site()?.settings(), now).zone, now })
    }

    /// The body as a resource.
    pub(crate) fn resource(&self, limits: &json::Limits) -> Result<Resource, Refusal> {
        let content_type = self.header(header::CONTENT_TYPE).unwrap_or_default();
        let Some(format) = Format::sent(&content_type) else {
            let issue =
                Issue::error(IssueCode::NotSupported, "send application/fhir+json or application/fhir+xml");
            return Err(Refusal::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, issue));
        };
        format.parse(&self.body, limits).map_err(|issue| Refusal::new(StatusCode::BAD_REQUEST, issue))
    }
}

/// The refusal of what no scope of the caller grants.
pub(crate) fn lacking(of: ResourceType, right: Right) -> Refusal {
    let scope = format!("system/{of}.{}", right.letter());
    Refusal::new(StatusCode::FORBIDDEN, missing_scope(&scope))
}

fn lines(headers: &HeaderMap, name: HeaderName) -> Option<Cow<'_, str>> {
    let mut lines = headers.get_all(name).iter().filter_map(|line| line.to_str().ok());
    let mut list = Cow::Borrowed(lines.next()?);
    for line in lines {
        let list = list.to_mut();
        list.push_str(", ");
        list.push_str(line);
    }
    Some(list)
}

/// The value of a parameter.
pub(crate) fn named<'p>(pairs: &'p [(String, String)], wanted: &str) -> Option<&'p str> {
    pairs.iter().find(|(name, _)| name == wanted).map(|(_, value)| value.as_str())
}

/// Whether an answer is to be read by people.
pub(crate) fn is_pretty(pairs: &[(String, String)]) -> bool {
    pairs.iter().any(|(name, value)| name == "_pretty" && value == "true")
}

/// A media type without its parameters, in lower case.
pub(crate) fn essence(media_type: &str) -> String {
    media_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
}

/// The base and what is below it: `/site/{id}/fhir` has three segments, every other base one.
fn split_base(path: &str) -> (&str, &str) {
    let segments = if path.starts_with("/site/") { 3 } else { 1 };
    let end = path.match_indices('/').nth(segments).map_or(path.len(), |(at, _)| at);
    path.split_at(end)
}

/// Ids are 1 to 64 of `A-Z a-z 0-9 - .`.
pub(crate) fn check_id(id: &str) -> Result<(), Refusal> {
    let harmless = !id.is_empty()
        && id.len() <= 64
        && id.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'.');
    if harmless {
        return Ok(());
    }
    let issue = Issue::error(IssueCode::Value, "an id is 1 to 64 of A-Z, a-z, 0-9, - and .");
    Err(Refusal::new(StatusCode::BAD_REQUEST, issue))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bases_are_split_from_what_is_below() {
        assert_eq!(split_base("/fhir/Patient/1"), ("/fhir", "/Patient/1"));
        assert_eq!(split_base("/baseR4"), ("/baseR4", ""));
        assert_eq!(split_base("/site/7/fhir/Patient"), ("/site/7/fhir", "/Patient"));
    }
}
