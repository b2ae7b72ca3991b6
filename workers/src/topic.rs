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
        // A topic name is never empty: what these two match has one level more than their prefix, for certain.
        let mine = match self.0.as_str() {
            "#" => "+/#",
            "/#" => "/+/#",
            mine => mine,
        };
        let mut mine = mine.split('/');
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The definition, word for word: levels one by one, `#` for the rest.
    fn oracle(filter: &[&str], topic: &[&str]) -> bool {
        match (filter.split_first(), topic.split_first()) {
            (Some((&"#", _)), _) | (None, None) => true,
            (Some((&"+", filter)), Some((_, topic))) => oracle(filter, topic),
            (Some((level, filter)), Some((name, topic))) => level == name && oracle(filter, topic),
            _ => false,
        }
    }

    fn filters() -> impl Strategy<Value = Filter> {
        let level = prop_oneof![Just("a"), Just("b"), Just(""), Just("+"), Just("$s")];
        (prop::collection::vec(level, 0..4), any::<bool>()).prop_filter_map("a filter", |(mut levels, hash)| {
            if hash {
                levels.push("#");
            }
            levels.join("/").parse().ok()
        })
    }

    /// Every topic of up to four levels over a small alphabet.
    fn topics() -> Vec<String> {
        let level = ["a", "b", "c", "", "$s"];
        let mut all: Vec<String> = level.iter().map(ToString::to_string).collect();
        let mut last = all.clone();
        for _ in 0..3 {
            last = last.iter().flat_map(|start| level.map(|level| format!("{start}/{level}"))).collect();
            all.extend(last.clone());
        }
        all.retain(|topic| !topic.is_empty());
        all
    }

    proptest! {
        #[test]
        fn matching_is_the_definition(filter in filters()) {
            let levels: Vec<&str> = filter.as_str().split('/').collect();
            for topic in topics() {
                let names: Vec<&str> = topic.split('/').collect();
                let hidden = topic.starts_with('$') && matches!(levels[0], "+" | "#");
                prop_assert_eq!(filter.matches(&topic), !hidden && oracle(&levels, &names), "{}", topic);
            }
        }

        #[test]
        fn a_subset_lets_nothing_else_through(inner in filters(), outer in filters()) {
            let brute = topics().iter().all(|topic| !inner.matches(topic) || outer.matches(topic));
            prop_assert_eq!(inner.is_subset_of(&outer), brute, "{} in {}", inner, outer);
        }
    }

    #[test]
    fn what_is_no_filter() {
        for text in ["", "a#", "#/a", "a/#/b", "a+", "+a/b", "a\0"] {
            assert!(text.parse::<Filter>().is_err(), "{text:?}");
        }
    }
}
