//! The web app: files that are embedded in the executable, served compressed, with caching and a strict security
//! policy.

use std::{
    collections::HashMap,
    io::Write as _,
    sync::{LazyLock, Mutex, PoisonError},
};

use axum::{
    body::Body,
    http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode, header},
};
use bytes::Bytes;
use flate2::{Compression, write::GzEncoder};
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
    let zipped = accepts_gzip(headers).then(|| zipped(name, &file.data)).flatten();
    let hash: String = file.metadata.sha256_hash().iter().take(16).map(|byte| format!("{byte:02x}")).collect();
    let tag = format!("\"{hash}{}\"", if zipped.is_some() { "-gz" } else { "" });
    let unchanged = is_known(headers, &tag);
    let encoded = zipped.is_some();
    let body = match zipped {
        _ if unchanged => Body::empty(),
        Some(zipped) => Body::from(zipped),
        None => Body::from(file.data),
    };
    let mut response = Response::new(body);
    if unchanged {
        *response.status_mut() = StatusCode::NOT_MODIFIED;
    }
    // Files under assets/ carry their content's hash in their name; the rest is asked for anew.
    let cache = if name.starts_with("assets/") { "public, max-age=31536000, immutable" } else { "no-cache" };
    let out = response.headers_mut();
    out.insert(header::CACHE_CONTROL, HeaderValue::from_static(cache));
    out.insert(header::CONTENT_TYPE, HeaderValue::from_str(&content_type(file.metadata.mimetype())).ok()?);
    out.insert(header::ETAG, HeaderValue::from_str(&tag).ok()?);
    out.insert(header::VARY, HeaderValue::from_static("Accept-Encoding"));
    if encoded {
        out.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    }
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

/// Smaller files gain nothing worth a decoder's start.
const WORTH_IT: usize = 1_024;

/// A file as gzip, made once; `None` where that would be no smaller.
fn zipped(name: &str, data: &[u8]) -> Option<Bytes> {
    static MADE: LazyLock<Mutex<HashMap<String, Option<Bytes>>>> = LazyLock::new(Mutex::default);
    let mut made = MADE.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(zipped) = made.get(name) {
        return zipped.clone();
    }
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    // Writing into memory does not fail.
    let zipped = encoder.write_all(data).and_then(|()| encoder.finish()).ok();
    let zipped = zipped.filter(|zipped| data.len() >= WORTH_IT && zipped.len() < data.len()).map(Bytes::from);
    made.insert(name.to_owned(), zipped.clone());
    zipped
}

/// Whether gzip is named (or everything is) and not by a quality of 0 (RFC 9110 section 12.5.3).
fn accepts_gzip(headers: &HeaderMap) -> bool {
    let values = headers.get_all(header::ACCEPT_ENCODING).iter().filter_map(|value| value.to_str().ok());
    let mut any = None;
    for coding in values.flat_map(|value| value.split(',')) {
        let mut parts = coding.split(';').map(str::trim);
        let name = parts.next().unwrap_or("");
        let quality = parts.find_map(|part| part.strip_prefix("q=")).and_then(|q| q.parse::<f32>().ok());
        let wanted = quality != Some(0.0);
        if name.eq_ignore_ascii_case("gzip") || name.eq_ignore_ascii_case("x-gzip") {
            return wanted;
        }
        if name == "*" {
            any = Some(wanted);
        }
    }
    any.unwrap_or(false)
}

fn content_type(mime: &str) -> String {
    if mime.starts_with("text/") || mime == "application/javascript" {
        format!("{mime}; charset=utf-8")
    } else {
        mime.to_owned()
    }
}
