//! Which browser pages may ask for something: a page of another origin may not publish, reload or open the feed with what
//! its reader is allowed to do. Clients that are no browsers send neither header and are let through.

use axum::http::{HeaderMap, header};

use super::problem::Problem;

/// Refuses what a page of another origin asks for, unless `allowed` (the setting `cors.origins`) names that origin.
pub fn check(headers: &HeaderMap, host: &str, allowed: &[String]) -> Result<(), Problem> {
    if is_cross_origin(headers, host) && !is_allowed(headers, allowed) {
        Err(Problem::origin_refused())
    } else {
        Ok(())
    }
}

/// Whether a browser says that the request comes from a page of another origin. `host` is the request's own.
///
/// `Sec-Fetch-Site` is the browser's own word, which no page can set, and holds behind a proxy that changes the host. Browsers
/// send it to https and to localhost only: elsewhere the origin is compared with the host.
fn is_cross_origin(headers: &HeaderMap, host: &str) -> bool {
    if let Some(site) = headers.get("sec-fetch-site") {
        return !matches!(site.as_bytes(), b"same-origin" | b"none");
    }
    let Some(origin) = headers.get(header::ORIGIN) else { return false };
    let origin = origin.to_str().ok().and_then(|origin| origin.split_once("://"));
    !origin.is_some_and(|(scheme, of)| {
        without_default_port(scheme, of).eq_ignore_ascii_case(without_default_port(scheme, host))
    })
}

/// Whether the setting `cors.origins` lets the request's origin in.
fn is_allowed(headers: &HeaderMap, allowed: &[String]) -> bool {
    let origin = headers.get(header::ORIGIN).and_then(|origin| origin.to_str().ok());
    allowed.iter().any(|allowed| allowed == "*" || origin.is_some_and(|origin| allowed == origin))
}

fn without_default_port<'h>(scheme: &str, host: &'h str) -> &'h str {
    let port = match scheme {
        "http" => ":80",
        "https" => ":443",
        _ => return host,
    };
    host.strip_suffix(port).unwrap_or(host)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_of_another_origin() {
        for (origin, site, host, cross) in [
            (None, None, "a:80", false),
            (Some("http://a:8080"), None, "a:8080", false),
            (Some("https://App.example"), None, "app.example:443", false),
            (Some("http://a"), None, "a:80", false),
            (Some("http://a:8080"), None, "a:8081", true),
            (Some("http://evil.example"), None, "a", true),
            (Some("null"), None, "a", true),
            (Some("null"), None, "null", true),
            (Some("http://a"), Some("cross-site"), "a", true),
            (Some("http://b.a"), Some("same-site"), "a", true),
            (None, Some("cross-site"), "a", true),
            (None, Some("none"), "a", false),
            // A proxy passed its own name on.
            (Some("https://app.example"), Some("same-origin"), "upstream:8080", false),
        ] {
            let mut headers = HeaderMap::new();
            origin.map(|origin| headers.insert("origin", origin.parse().unwrap()));
            site.map(|site| headers.insert("sec-fetch-site", site.parse().unwrap()));
            assert_eq!(is_cross_origin(&headers, host), cross, "{origin:?} {site:?} {host}");
        }
    }
}
