//! Checks of a request's head that come before anything else: sizes, framing, expectations and the host (RFC 9110, RFC 9112).

use std::net::IpAddr;

use axum::http::{HeaderMap, Uri, Version, header, uri::Authority};

use super::problem::Problem;

/// Largest header block, in bytes.
const MAX_HEADER_BYTES: usize = 16 * 1024;
/// Longest URI, in bytes.
const MAX_URI_BYTES: usize = 8 * 1024;

/// Refuses a head that is too large, or that asks for something this server does not do.
pub fn check_head(headers: &HeaderMap, uri: &Uri) -> Result<(), Problem> {
    let size: usize = headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 4).sum();
    if size > MAX_HEADER_BYTES {
        return Err(Problem::headers_too_large());
    }
    if uri.path_and_query().map_or(0, |whole| whole.as_str().len()) > MAX_URI_BYTES {
        return Err(Problem::uri_too_long());
    }
    // The HTTP layer undoes `chunked` alone: a body in another coding would be taken for what it is not.
    let mut codings = headers.get_all(header::TRANSFER_ENCODING).iter();
    if let Some(coding) = codings.next()
        && (codings.next().is_some() || !coding.as_bytes().trim_ascii().eq_ignore_ascii_case(b"chunked"))
    {
        return Err(Problem::unsupported_transfer_coding());
    }
    let mut expectations = headers.get_all(header::EXPECT).iter();
    if expectations.any(|expectation| !expectation.as_bytes().eq_ignore_ascii_case(b"100-continue")) {
        return Err(Problem::expectation_failed());
    }
    Ok(())
}

/// Whether the client waits for `100 Continue` before it sends the body. A refusal then goes out without reading any of it.
pub fn expects_continue(headers: &HeaderMap) -> bool {
    headers.contains_key(header::EXPECT)
}

/// The host that a request is for, as `name` or `name:port`: an absolute URI's, else the one `Host` header that HTTP/1.1
/// demands (RFC 9112 section 3.2). Empty where HTTP/1.0 names none.
pub fn request_host<'r>(headers: &'r HeaderMap, uri: &'r Uri, version: Version) -> Result<&'r str, Problem> {
    let mut hosts = headers.get_all(header::HOST).iter();
    let host = match (hosts.next(), hosts.next()) {
        (Some(host), None) => host.to_str().ok().filter(|host| is_host(host)).ok_or_else(Problem::invalid_host)?,
        (None, _) if version < Version::HTTP_11 => "",
        (None, _) if uri.authority().is_some() && version > Version::HTTP_11 => "",
        _ => return Err(Problem::invalid_host()),
    };
    Ok(uri.authority().map_or(host, Authority::as_str))
}

/// Whether it is `uri-host [ ":" port ]` (RFC 3986); a user is no part of it. Empty is what a URI without a host has.
pub fn is_host(host: &str) -> bool {
    let port_and_name = host.rsplit_once(':').filter(|(name, _)| !host.starts_with('[') || name.ends_with(']'));
    let (name, port) = port_and_name.unwrap_or((host, ""));
    let literal = name.strip_prefix('[').and_then(|name| name.strip_suffix(']'));
    let is_name = match literal {
        Some(address) => address.bytes().all(|byte| byte.is_ascii_alphanumeric() || b":.-_~".contains(&byte)),
        None => name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._~%!$&'()*+,;=".contains(&byte)),
    };
    is_name && port.bytes().all(|byte| byte.is_ascii_digit())
}

/// A host without its port.
pub fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) && !name.ends_with(':') => name,
        _ => host,
    }
}

/// Which hosts this process answers for.
#[derive(Debug, Clone, Default)]
pub struct HostPolicy {
    /// The setting `hosts`; empty lets any in.
    named: Vec<String>,
    /// The address that the listener is named by.
    listener: Option<IpAddr>,
}

impl HostPolicy {
    /// A policy of the setting `hosts` and the listener's address.
    pub fn new(named: &[String], listener: Option<IpAddr>) -> Self {
        Self { named: named.to_vec(), listener: listener.filter(|address| !address.is_unspecified()) }
    }

    /// For routes, documents and the page: any host, or those that are named.
    pub fn check_public(&self, host: &str) -> Result<(), Problem> {
        if self.named.is_empty() || self.is_named(host) { Ok(()) } else { Err(Problem::misdirected_request()) }
    }

    /// For probes and metrics: also an address, which is what probes have. (A page that reaches this server by DNS
    /// rebinding always has a name.)
    pub fn check_probe(&self, host: &str) -> Result<(), Problem> {
        if address(host).is_some() || is_localhost(host) { Ok(()) } else { self.check_public(host) }
    }

    /// For what changes something here: this machine's own names, the listener's and those that are named, so that no
    /// page from elsewhere comes in by DNS rebinding.
    pub fn check_operator(&self, host: &str) -> Result<(), Problem> {
        let own = address(host).is_some_and(|address| address.is_loopback() || Some(address) == self.listener);
        if own || is_localhost(host) || self.is_named(host) { Ok(()) } else { Err(Problem::misdirected_request()) }
    }

    /// With a port only that one fits, without one any does.
    fn is_named(&self, host: &str) -> bool {
        let name = without_port(host);
        let fits = |named: &String| named.eq_ignore_ascii_case(host) || named.eq_ignore_ascii_case(name);
        self.named.iter().any(fits)
    }
}

fn address(host: &str) -> Option<IpAddr> {
    let name = without_port(host);
    let bare = name.strip_prefix('[').and_then(|name| name.strip_suffix(']')).unwrap_or(name);
    bare.parse().ok()
}

fn is_localhost(host: &str) -> bool {
    without_port(host).trim_end_matches('.').eq_ignore_ascii_case("localhost")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_and_ports() {
        for (host, name) in [("a.b", "a.b"), ("a.b:80", "a.b"), ("[::1]:80", "[::1]"), ("[::1]", "[::1]"), ("", "")] {
            assert_eq!(without_port(host), name);
        }
        for (host, good) in [
            ("a.b:80", true),
            ("", true),
            ("[::1]", true),
            ("[::1]:80", true),
            ("a:", true),
            ("a b", false),
            ("u@h", false),
            ("a/b", false),
            ("a:b", false),
            ("a:80:80", false),
            ("::1", false),
            ("[::1", false),
            ("[::1]x", false),
            ("a, b", false),
        ] {
            assert_eq!(is_host(host), good, "{host}");
        }
    }

    #[test]
    fn who_is_answered() {
        let policy = HostPolicy::new(&["api.example.com".into(), "x:8443".into()], "10.0.0.5".parse().ok());
        for (host, public, probe, operator) in [
            ("api.example.com", true, true, true),
            ("API.example.com:8080", true, true, true),
            ("x:8443", true, true, true),
            ("x", false, false, false),
            ("localhost:8080", false, true, true),
            ("127.0.0.1:8080", false, true, true),
            ("127.8.8.8", false, true, true),
            ("[::1]:8080", false, true, true),
            ("10.0.0.5:8080", false, true, true),
            ("10.0.0.6:8080", false, true, false),
            ("evil.example", false, false, false),
            ("localhost.evil.example", false, false, false),
            ("", false, false, false),
        ] {
            assert_eq!(policy.check_public(host).is_ok(), public, "{host}");
            assert_eq!(policy.check_probe(host).is_ok(), probe, "{host}");
            assert_eq!(policy.check_operator(host).is_ok(), operator, "{host}");
        }
        let open = HostPolicy::new(&[], "0.0.0.0".parse().ok());
        assert!(open.check_public("evil.example").is_ok() && open.check_probe("evil.example").is_ok());
        assert!(open.check_operator("evil.example").is_err() && open.check_operator("0.0.0.0").is_err());
    }
}
