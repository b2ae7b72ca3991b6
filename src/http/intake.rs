//! Taking a request in: all that decides, before a bus is asked, whether a request is taken and what it becomes.
//! The gateway, `fpesa explain` and `fpesa test` go through here, so that none of them says what another would not do.

use std::{borrow::Cow, sync::Arc, time::Duration};

use axum::{
    body::{Body, Bytes},
    http::{HeaderMap, HeaderName, Method as HttpMethod, Response, Uri, header},
};
use time::OffsetDateTime;
use uuid::Uuid;

use super::{assets, head::expects_continue, problem::Problem};
use crate::route::{
    file::{Method, Payload},
    invalid::{FieldError, Part},
    map::{self, CheckedBody, Order, Reject},
    table::{self, Action, Match, Route, Table},
    validator::Budget,
};

/// What is read of a body where none is allowed, to say so.
const UNWANTED_BODY: u64 = 64 * 1024;

/// Values of a path's parameters by name, percent-encoded as sent.
pub type PathValues<'t, 'p> = Vec<(&'t str, &'p str)>;

/// What a method and path that are not the gateway's own lead to.
pub enum Target<'t, 'p> {
    /// A route of the table.
    Route(&'t Arc<Route>, PathValues<'t, 'p>),
    /// A file of the page.
    Page(Response<Body>),
}

/// The route of a request, or the page's file; 404 or 405 where there is neither.
pub fn find<'t, 'p>(
    table: &'t Table,
    method: &HttpMethod,
    path: &'p str,
    headers: &HeaderMap,
) -> Result<Target<'t, 'p>, Problem> {
    let Some(method) = known(method) else { return Err(not_here(&table.find_any(path), path, headers)) };
    match table.find(method, path) {
        Match::Found(route, values) => Ok(Target::Route(route, values)),
        found => match assets::asset(path, headers).filter(|_| method == Method::Get) {
            Some(file) => Ok(Target::Page(file)),
            None => Err(not_here(&found, path, headers)),
        },
    }
}

/// The table's word for a method; `HEAD` is answered as `GET` is.
pub fn known(method: &HttpMethod) -> Option<Method> {
    let name = if method == HttpMethod::HEAD { "GET" } else { method.as_str() };
    Method::ALL.iter().find(|(known, _)| *known == name).map(|(_, method)| *method)
}

/// 404 or 405; the gateway's own paths and the page's files take GET and HEAD alone.
fn not_here(found: &Match<'_, '_>, path: &str, headers: &HeaderMap) -> Problem {
    let mut allowed: Vec<&str> = match found {
        Match::WrongMethod(methods) => methods.iter().map(|method| method.name()).collect(),
        // Not of a method that is asked for without being found.
        Match::Found(route, _) => vec![route.method.name()],
        Match::Nothing if assets::asset(path, headers).is_some() => vec!["GET"],
        Match::Nothing => return Problem::not_found(),
    };
    if let Some(get) = allowed.iter().position(|method| *method == "GET") {
        allowed.insert(get + 1, "HEAD");
    }
    Problem::method_not_allowed(&allowed.join(", "))
}

/// What a route makes of a body, asked while it is read.
pub struct BodyCheck<'a> {
    wanted: Option<&'a table::Body>,
    /// Whether the body may be in a content coding: it goes on as it came, and the coding is told with it.
    any_coding: bool,
    headers: &'a HeaderMap,
}

impl<'a> BodyCheck<'a> {
    /// The check of a route's body.
    pub fn new(route: &'a Route, headers: &'a HeaderMap) -> Self {
        let wanted = route.body.as_ref();
        let untouched = matches!(&route.action, Action::Publish(publish) if publish.payload == Payload::Body);
        Self { wanted, any_coding: untouched && wanted.is_some_and(|body| !body.json), headers }
    }

    /// Most bytes that are read.
    pub fn limit(&self) -> u64 {
        self.wanted.map_or(UNWANTED_BODY, |body| body.max_size)
    }

    /// Refuses, before any of it is read, a body whose type is not the route's or that is too large by its announced size;
    /// `None` is a size that is not known yet.
    pub fn announced(&self, size: Option<u64>) -> Result<(), Problem> {
        let there = size.map_or_else(
            || self.headers.contains_key(header::CONTENT_TYPE) || expects_continue(self.headers),
            |size| size > 0,
        );
        if there {
            self.right_type()?;
        }
        match self.wanted {
            Some(body) if size.is_some_and(|size| size > body.max_size) => Err(Problem::body_too_large(body.max_size)),
            _ => Ok(()),
        }
    }

    /// The body as the mapping gets it; `None` stands for more than [`Self::limit`] bytes.
    pub fn read(&self, bytes: Option<Bytes>) -> Result<Bytes, Problem> {
        match (bytes, self.wanted) {
            (Some(bytes), _) if bytes.is_empty() => Ok(bytes),
            (Some(bytes), _) => self.right_type().map(|()| bytes),
            (None, Some(body)) => Err(Problem::body_too_large(body.max_size)),
            (None, None) => Ok(Self::unwanted()),
        }
    }

    /// What a body that no route wants is to the mapping, which refuses it whatever it says.
    pub fn unwanted() -> Bytes {
        Bytes::from_static(b"-")
    }

    /// Whether the route takes no body at all.
    pub fn wants_none(&self) -> bool {
        self.wanted.is_none()
    }

    /// All of it at once, for a body that is there already.
    pub fn whole(&self, bytes: Bytes) -> Result<Bytes, Problem> {
        let size = bytes.len() as u64;
        self.announced(Some(size))?;
        self.read((size <= self.limit()).then_some(bytes))
    }

    fn right_type(&self) -> Result<(), Problem> {
        let Some(wanted) = self.wanted else { return Ok(()) };
        let given = text(self.headers, &header::CONTENT_TYPE);
        if !given.is_some_and(|given| wanted.takes(&given)) {
            return Err(Problem::unsupported_media_type(&wanted.content_type));
        }
        let codings = self.headers.get_all(header::CONTENT_ENCODING);
        if !self.any_coding && codings.iter().any(|coding| !coding.as_bytes().eq_ignore_ascii_case(b"identity")) {
            return Err(Problem::unsupported_content_coding());
        }
        Ok(())
    }
}

/// The headers that are text. One that the route reads and that is none is refused: taken as absent it would be passed
/// over in silence.
pub fn texts<'h>(route: &Route, headers: &'h HeaderMap) -> Result<Vec<(&'h str, &'h str)>, Problem> {
    let reads = |name: &str| {
        let own = name == "idempotency-key" && matches!(route.action, Action::Publish(_));
        own || route.header_params.0.iter().any(|param| param.name == name)
    };
    let mut texts = Vec::with_capacity(headers.len());
    for (name, value) in headers {
        match std::str::from_utf8(value.as_bytes()) {
            Ok(text) => texts.push((name.as_str(), text)),
            Err(_) if reads(name.as_str()) => {
                let error = FieldError::named(Part::Header, name.as_str(), "format", "this is not UTF-8");
                return Err(Problem::rejected(&Reject::Invalid(error.into())));
            }
            Err(_) => {}
        }
    }
    Ok(texts)
}

/// A body, read and held against the route's schema.
pub fn check_body(route: &Route, body: Bytes, budget: &mut Budget) -> Result<CheckedBody, Problem> {
    map::check_body(route, body, budget).map_err(|reject| Problem::rejected(&reject))
}

/// A request as the mapping reads it: now, and with a new id.
pub fn request<'a>(
    uri: &'a Uri,
    path_values: &'a [(&'a str, &'a str)],
    headers: &'a [(&'a str, &'a str)],
    body: CheckedBody,
) -> map::Request<'a> {
    map::Request {
        path: uri.path(),
        path_values,
        query: uri.query(),
        headers,
        body,
        now: OffsetDateTime::now_utc(),
        new_id: Uuid::now_v7(),
    }
}

/// What a request becomes. A client's `Prefer: wait` shortens a deadline, and never lengthens it.
pub fn order<'r>(route: &'r Route, request: &map::Request<'_>, prefer: &Prefer) -> Result<Order<'r>, Problem> {
    let mut order = map::map(route, request).map_err(|reject| Problem::rejected(&reject))?;
    if let (Order::Call { timeout, .. }, Some(wait)) = (&mut order, prefer.wait) {
        *timeout = wait.min(*timeout);
    }
    Ok(order)
}

/// `Prefer` (RFC 7240): a list, in one header or several.
#[derive(Debug, Default)]
pub struct Prefer {
    /// `return=minimal`: no body in the answer.
    pub minimal: bool,
    /// `respond-async`: no wait for what takes time.
    pub respond_async: bool,
    wait: Option<Duration>,
}

impl Prefer {
    /// What a request prefers.
    pub fn of(headers: &HeaderMap) -> Self {
        let mut prefer = Self::default();
        let values = headers.get_all("prefer").iter().filter_map(|value| value.to_str().ok());
        for preference in values.flat_map(|value| value.split(',')) {
            let preference = preference.split(';').next().unwrap_or("");
            let (name, value) = preference.split_once('=').unwrap_or((preference, ""));
            let value = value.trim().trim_matches('"');
            match name.trim().to_ascii_lowercase().as_str() {
                "return" if value == "minimal" => prefer.minimal = true,
                "respond-async" => prefer.respond_async = true,
                "wait" => prefer.wait = value.parse().ok().map(Duration::from_secs),
                _ => {}
            }
        }
        prefer
    }
}

/// Whether an `Accept` header (RFC 9110 section 12.5.1) lets a media type through; without one everything is.
pub fn accepts(accept: Option<&str>, given: &str) -> bool {
    let Some(accept) = accept.map(str::trim).filter(|accept| !matches!(*accept, "" | "*/*")) else { return true };
    let given = given.split(';').next().unwrap_or("").trim().to_ascii_lowercase();
    let kind = given.split('/').next().unwrap_or("");
    // The most specific range that names the type decides.
    let mut best: Option<(u8, bool)> = None;
    for range in accept.split(',') {
        let mut parameters = range.split(';').map(str::trim);
        let range = parameters.next().unwrap_or("").to_ascii_lowercase();
        let rank = match range.split_once('/') {
            _ if range == given => 3,
            Some((of, "*")) if of == kind => 2,
            Some(("*", "*")) => 1,
            _ => continue,
        };
        let quality = parameters.find_map(|parameter| parameter.strip_prefix("q=")).and_then(|q| q.parse::<f32>().ok());
        if best.is_none_or(|(known, _)| rank > known) {
            best = Some((rank, quality != Some(0.0)));
        }
    }
    best.is_some_and(|(_, wanted)| wanted)
}

/// A header's values as one, the way a list is sent in several lines.
pub fn text<'h>(headers: &'h HeaderMap, name: &HeaderName) -> Option<Cow<'h, str>> {
    let mut values = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
    let first = values.next()?;
    Some(values.fold(first.into(), |joined, next| format!("{joined}, {next}").into()))
}

#[cfg(test)]
mod tests {
    use super::accepts;

    #[test]
    fn accept_headers() {
        for (accept, expected) in [
            (None, true),
            (Some(""), true),
            (Some("*/*"), true),
            (Some("application/*;q=0.5, text/html"), true),
            (Some("text/html"), false),
            (Some("*/*, application/json;q=0"), false),
            (Some("application/json; q=0.0, */*"), false),
            (Some("text/html, */*;q=0.1"), true),
        ] {
            assert_eq!(accepts(accept, "application/json; charset=utf-8"), expected, "{accept:?}");
        }
    }
}
