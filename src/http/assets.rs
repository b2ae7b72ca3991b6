//! The web app: files that are embedded in the executable, served with caching and a strict security policy.

use std::sync::LazyLock;

use axum::{
    body::Body,
    http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode, header},
};
use rust_embed::RustEmbed;

/// What `frontend/` builds.
#[derive(RustEmbed)]
#[folder = "frontend/dist"]
struct Dist;

/// Nothing from elsewhere, no inline code, no evaluation; WebSockets for the feed, which may be on another host; a worker
/// of the page's own making, whose timers go on while the tab is in the background.
const POLICY: &str = "default-src 'self'; connect-src 'self' ws: wss:; img-src 'self' data:; style-src 'self'; \
                      worker-src 'self' blob:; base-uri 'none'; frame-ancestors 'none'; form-action 'self'";

static SECURITY: LazyLock<[(HeaderName, HeaderValue); 3]> = LazyLock::new(|| {
    [
        (header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY)),
        (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
        (header::REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
    ]
});

/// The file of a path (`/` is the page), or `None` where there is none.
pub fn asset(path: &str, headers: &HeaderMap) -> Option<Response<Body>> {
    let name = if path == "/" { "index.html" } else { path.strip_prefix('/')? };
    let file = Dist::get(name)?;
    let hash: String = file.metadata.sha256_hash().iter().take(16).map(|byte| format!("{byte:02x}")).collect();
    let tag = format!("\"{hash}\"");
    let unchanged = is_known(headers, &tag);
    let mut response = Response::new(if unchanged { Body::empty() } else { Body::from(file.data) });
    if unchanged {
        *response.status_mut() = StatusCode::NOT_MODIFIED;
    }
    // Files under assets/ carry their content's hash in their name; the rest is asked for anew.
    let cache = if name.starts_with("assets/") { "public, max-age=31536000, immutable" } else { "no-cache" };
    let out = response.headers_mut();
    out.insert(header::CACHE_CONTROL, HeaderValue::from_static(cache));
    out.insert(header::CONTENT_TYPE, HeaderValue::from_str(&content_type(file.metadata.mimetype())).ok()?);
    out.insert(header::ETAG, HeaderValue::from_str(&tag).ok()?);
    out.extend(SECURITY.iter().cloned());
    Some(response)
}

/// Whether `If-None-Match` names a tag (RFC 9110 section 13.1.2).
pub(super) fn is_known(headers: &HeaderMap, tag: &str) -> bool {
    let known = headers.get_all(header::IF_NONE_MATCH).iter().filter_map(|value| value.to_str().ok());
    known
        .flat_map(|value| value.split(','))
        .map(str::trim)
        .any(|value| value.trim_start_matches("W/") == tag || value == "*")
}

fn content_type(mime: &str) -> String {
    if mime.starts_with("text/") || mime == "application/javascript" {
        format!("{mime}; charset=utf-8")
    } else {
        mime.to_owned()
    }
}
