//! The URL, as libpq writes it (`postgres://user@host:5432/db?sslmode=verify-full&sslrootcert=ca.pem`), and the password
//! beside it.

use std::path::PathBuf;

use percent_encoding::percent_decode_str;
use tokio_postgres::{Config, config::SslMode};

use crate::store::{Access, StoreError};

/// What is asked of TLS.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Tls {
    /// Whether the server's certificate must be good. Without it TLS keeps listeners out, not impostors.
    pub verify: bool,
    /// Authorities to trust instead of the system's, PEM.
    pub root: Option<PathBuf>,
}

pub(super) fn read(access: &Access<'_>) -> Result<(Config, Tls), StoreError> {
    let settings = |why: String| StoreError::Settings(format!("store: {why}"));
    // Not a URL of the standard: several hosts may stand in it, each with its port. The driver reads that part.
    let (address, query) = access.url.split_once('?').unwrap_or((access.url, ""));
    let mut tls = Tls::default();
    let mut kept = Vec::new();
    for pair in query.split('&') {
        match pair.split_once('=') {
            Some(("sslrootcert", path)) => {
                let path = percent_decode_str(path).decode_utf8();
                tls.root = Some(path.map_err(|_| settings("`sslrootcert` is no text".into()))?.as_ref().into());
            }
            // The driver knows `require`; whether a certificate is looked at is decided by our connector.
            Some(("sslmode", "require" | "verify-ca" | "verify-full")) => {
                tls.verify = true;
                kept.push("sslmode=require");
            }
            _ => kept.push(pair),
        }
    }
    let url = format!("{address}?{}", kept.join("&"));
    // The driver's own sentence names a parameter, never the URL.
    let mut config: Config = url.parse().map_err(|error: tokio_postgres::Error| {
        let cause = std::error::Error::source(&error).map(|cause| format!(": {cause}")).unwrap_or_default();
        settings(format!("the URL can't be used{cause}"))
    })?;
    if let Some(password) = access.password {
        config.password(password);
    }
    if config.get_hosts().is_empty() {
        return Err(settings("the URL names no host: write it as in postgres://user@host:5432/database".into()));
    }
    if tls.root.is_some() && config.get_ssl_mode() != SslMode::Disable {
        tls.verify = true;
        config.ssl_mode(SslMode::Require);
    }
    Ok((config, tls))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn access(url: &str) -> Access<'_> {
        Access { url, password: Some("s3cret"), data_dir: std::path::Path::new(".") }
    }

    #[test]
    fn urls() {
        for (url, mode, verify) in [
            ("postgres://u@h/d", SslMode::Prefer, false),
            ("postgresql://u@h:1,g:2/d?sslmode=disable", SslMode::Disable, false),
            ("postgres://u@h/d?sslmode=require", SslMode::Require, true),
            ("postgres://u@h/d?sslmode=verify-full&sslrootcert=/ca.pem", SslMode::Require, true),
            ("postgres://u@h/d?sslrootcert=/ca.pem", SslMode::Require, true),
        ] {
            let (config, tls) = read(&access(url)).unwrap();
            assert_eq!((config.get_ssl_mode(), tls.verify), (mode, verify), "{url}");
            assert_eq!(config.get_password(), Some(b"s3cret".as_slice()));
        }
        for url in ["postgres://u:hidden@h/d?nonsense=1", "postgres://u:hidden@h:port/d", "postgres:///d"] {
            let error = read(&access(url)).err().unwrap().to_string();
            assert!(!error.contains("hidden"), "{error}");
        }
    }
}
