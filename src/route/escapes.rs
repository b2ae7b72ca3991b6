//! Percent-escapes of paths and queries (RFC 3986 section 2.1), read strictly: what stands for no text is named, instead of
//! being taken for another value.

use std::borrow::Cow;

use percent_encoding::percent_decode_str;

/// A query's names and values.
pub type Pairs<'q> = Vec<(Cow<'q, str>, Cow<'q, str>)>;

/// The text of a path segment. The error is a sentence.
pub fn decode(text: &str) -> Result<Cow<'_, str>, String> {
    if let Some(bad) = bad_escape(text) {
        return Err(format!("`{bad}` is not a percent-escape: write a percent sign as %25"));
    }
    percent_decode_str(text).decode_utf8().map_err(|_| "this is not UTF-8".to_owned())
}

/// The pairs of a query (`application/x-www-form-urlencoded`, where `+` is a space), and which names have a value that can't be
/// read, with a sentence. Such values are among the pairs too, as far as they are text.
pub fn query_pairs(query: &str) -> (Pairs<'_>, Vec<(String, String)>) {
    let mut bad = Vec::new();
    let read = |pair| {
        let (name, value) = split(pair);
        let (name, _) = form_text(name);
        let (value, error) = form_text(value);
        if let Some(error) = error {
            bad.push((name.to_string(), error));
        }
        (name, value)
    };
    let pairs = query.split('&').filter(|pair| !pair.is_empty()).map(read).collect();
    (pairs, bad)
}

/// Whether a value of a query's parameter has a `+` in it.
pub fn has_plus(query: &str, name: &str) -> bool {
    query.split('&').map(split).any(|(given, value)| value.contains('+') && form_text(given).0 == name)
}

fn split(pair: &str) -> (&str, &str) {
    pair.split_once('=').unwrap_or((pair, ""))
}

/// A name or value of a form, decoded as far as it can be, and what is wrong with it.
fn form_text(text: &str) -> (Cow<'_, str>, Option<String>) {
    if !text.contains(['%', '+']) {
        return (text.into(), None);
    }
    let spaced = text.replace('+', " ");
    match decode(&spaced) {
        Ok(decoded) => (decoded.into_owned().into(), None),
        Err(error) => (percent_decode_str(&spaced).decode_utf8_lossy().into_owned().into(), Some(error)),
    }
}

/// The first `%` that two hexadecimal digits do not follow, with what follows.
fn bad_escape(text: &str) -> Option<&str> {
    let bytes = text.as_bytes();
    let at = text
        .match_indices('%')
        .map(|(at, _)| at)
        .find(|at| !bytes.get(at + 1..at + 3).is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit)))?;
    let end = text[at..].char_indices().nth(3).map_or(text.len(), |(end, _)| at + end);
    Some(&text[at..end])
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_stands_for_no_text_is_named() {
        for (text, expected) in [
            ("a%20b", Ok("a b")),
            ("a+b", Ok("a+b")),
            ("%zz", Err("`%zz` is not a percent-escape: write a percent sign as %25")),
            ("100%", Err("`%` is not a percent-escape: write a percent sign as %25")),
            ("%2", Err("`%2` is not a percent-escape: write a percent sign as %25")),
            ("x%üüü", Err("`%üü` is not a percent-escape: write a percent sign as %25")),
            ("%ff", Err("this is not UTF-8")),
        ] {
            assert_eq!(decode(text).as_deref().map_err(String::as_str), expected, "{text}");
        }
    }

    #[test]
    fn values_that_cannot_be_read() {
        let (pairs, bad) = query_pairs("a=1+2&b=%zz&&c&%ff=x&d=%ff");
        let names: Vec<&str> = bad.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["b", "d"]);
        assert_eq!(pairs[0], ("a".into(), "1 2".into()));
        assert_eq!(pairs[2], ("c".into(), "".into()));
        assert!(has_plus("%61=1+2", "a") && !has_plus("a=12&b=+", "a"));
    }

    proptest! {
        #[test]
        fn what_is_escaped_rightly_is_read_as_forms_are(query in "([ab+=&]|%[2-7][0-9a-fA-F]|%[cC]3%[aA]4){0,20}") {
            let (pairs, bad) = query_pairs(&query);
            prop_assert!(bad.is_empty());
            prop_assert_eq!(pairs, url::form_urlencoded::parse(query.as_bytes()).collect::<Vec<_>>());
        }
    }
}
