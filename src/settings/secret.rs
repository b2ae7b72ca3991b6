//! Texts that are never shown whole.

use std::fmt;

use serde::{Deserialize, Deserializer};

/// A text that is never shown whole: passwords go, in URLs too.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// The text itself; not for logs, answers or errors.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// The text with every password in it as `***`.
    pub fn masked(&self) -> String {
        if self.0.contains("://") {
            mask_urls(&self.0)
        } else if self.is_plain_url() {
            self.0.clone()
        } else {
            "***".into()
        }
    }

    fn is_plain_url(&self) -> bool {
        self.0.starts_with("embedded:")
    }
}

impl From<&str> for Secret {
    fn from(text: &str) -> Self {
        Self(text.to_owned())
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.masked())
    }
}

impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(Self)
    }
}

/// `scheme://user:password@host` with the password as `***`, in each of several URLs.
pub fn mask_urls(text: &str) -> String {
    let mask = |part: &str| {
        let Some((scheme, rest)) = part.split_once("://") else { return mask_authority(part) };
        format!("{scheme}://{}", mask_authority(rest))
    };
    text.split(',').map(mask).collect::<Vec<_>>().join(",")
}

fn mask_authority(rest: &str) -> String {
    let end = rest.find('/').unwrap_or(rest.len());
    let (authority, path) = rest.split_at(end);
    let path = mask_query(path);
    match authority.rsplit_once('@') {
        Some((user, host)) => match user.split_once(':') {
            Some((name, _)) => format!("{name}:***@{host}{path}"),
            None => format!("{authority}{path}"),
        },
        None => format!("{authority}{path}"),
    }
}

/// PostgreSQL's URLs may carry the password as a parameter.
fn mask_query(path: &str) -> String {
    let Some((path, query)) = path.split_once('?') else { return path.to_owned() };
    let mask = |pair: &str| match pair.split_once('=') {
        Some((name, _)) if name.to_ascii_lowercase().contains("password") => format!("{name}=***"),
        _ => pair.to_owned(),
    };
    format!("{path}?{}", query.split('&').map(mask).collect::<Vec<_>>().join("&"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_are_masked() {
        for (text, masked) in [
            ("amqp://u:p@h:5672/v", "amqp://u:***@h:5672/v"),
            ("amqp://u:p@h1,h2:5673/v", "amqp://u:***@h1,h2:5673/v"),
            ("amqp://u:p@h1/v,amqp://x:y@h2/v", "amqp://u:***@h1/v,amqp://x:***@h2/v"),
            ("postgres://u@h/d", "postgres://u@h/d"),
            ("postgres://h/d?user=u&password=p&sslmode=require", "postgres://h/d?user=u&password=***&sslmode=require"),
            ("mongodb://u:p%40w@h/d?x=y", "mongodb://u:***@h/d?x=y"),
            ("s3cret", "***"),
            ("embedded:", "embedded:"),
        ] {
            assert_eq!(Secret::from(text).masked(), masked);
        }
    }
}
