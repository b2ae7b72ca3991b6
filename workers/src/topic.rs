//! MQTT topic filters: parsing, matching, and whether one filter lets through no more than another.
//! Pure; used for history, for the feed's access list and for the compiler.

use std::{fmt, str::FromStr};

/// A topic filter (MQTT 3.1.1 section 4.7, MQTT 5 section 4.7): levels separated by `/`; `+` is exactly one level, a
/// last `#` is the level before it and everything below.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Filter(String);

/// Why a text is no topic filter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FilterError {
    /// At least one character is needed.
    #[error("a topic filter has at least one character")]
    Empty,
    /// More than 65,535 bytes.
    #[error("a topic filter has at most 65535 bytes")]
    TooLong,
    /// U+0000 is in it.
    #[error("a topic filter may not hold the character U+0000")]
    Nul,
    /// `#` is not alone in the last level.
    #[error("'#' must stand alone in the last level, as in 'messages/#'")]
    Hash,
    /// `+` shares its level.
    #[error("'+' must fill its level alone, as in 'messages/+/new'")]
    Plus,
}

impl FromStr for Filter {
    type Err = FilterError;

    fn from_str(text: &str) -> Result<Self, FilterError> {
        if text.is_empty() {
            return Err(FilterError::Empty);
        }
        if text.len() > 65_535 {
            return Err(FilterError::TooLong);
        }
        if text.contains('\0') {
            return Err(FilterError::Nul);
        }
        let mut levels = text.split('/').peekable();
        while let Some(level) = levels.next() {
            if level.contains('#') && (level != "#" || levels.peek().is_some()) {
                return Err(FilterError::Hash);
            }
            if level.contains('+') && level != "+" {
                return Err(FilterError::Plus);
            }
        }
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Display for Filter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Filter {
    /// The filter as written.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether a topic name is let through. A wildcard in the first level does not match a topic that begins with `$`.
    pub fn matches(&self, topic: &str) -> bool {
        if topic.starts_with('$') && self.0.starts_with(['+', '#']) {
            return false;
        }
        let mut levels = topic.split('/');
        for want in self.0.split('/') {
            if want == "#" {
                return true;
            }
            match levels.next() {
                Some(level) if want == "+" || want == level => {}
                _ => return false,
            }
        }
        levels.next().is_none()
    }

    /// Whether every topic that this filter lets through is let through by `other` too.
    pub fn is_subset_of(&self, other: &Self) -> bool {
        if self.0.starts_with('$') && other.0.starts_with(['+', '#']) {
            return false;
        }
        // In the first level there is always something to match, so '#' and '+/#' are the same there.
        if self.0 == "#" && other.0 == "+/#" {
            return true;
        }
        let mut mine = self.0.split('/');
        for theirs in other.0.split('/') {
            if theirs == "#" {
                return true;
            }
            match mine.next() {
                Some("#") | None => return false,
                Some("+") if theirs != "+" => return false,
                Some(level) if theirs != "+" && theirs != level => return false,
                Some(_) => {}
            }
        }
        mine.next().is_none()
    }
}

/// The MQTT topic of an AMQP routing key: words separated by dots become levels separated by slashes.
pub fn topic_of_key(key: &str) -> String {
    key.replace('.', "/")
}
