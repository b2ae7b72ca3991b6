//! Texts that are never shown whole.

use std::fmt;

use serde::{Deserialize, Deserializer};

use super::address::mask_urls;

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_are_masked() {
        for (text, masked) in
            [("amqp://u:p@h:5672/v", "amqp://u:***@h:5672/v"), ("s3cret", "***"), ("embedded:", "embedded:")]
        {
            assert_eq!(Secret::from(text).masked(), masked);
        }
    }
}
