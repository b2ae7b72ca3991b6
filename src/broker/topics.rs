//! The feed's topic filters as the regular expression that RabbitMQ checks a subscription's routing key with.

use std::fmt::Write as _;

use fpesa_workers::topic::Filter;

/// Matches exactly the subscriptions, in AMQP's form (`messages.#`), that read no more than the filters let through.
pub(super) fn readable(feed: &[Filter]) -> String {
    let parts: Vec<String> = feed.iter().map(pattern).collect();
    if parts.is_empty() { "^$".into() } else { format!("^({})$", parts.join("|")) }
}

fn pattern(filter: &Filter) -> String {
    let mut pattern = String::new();
    for (index, level) in filter.as_str().split('/').enumerate() {
        if level == "#" {
            // The level before it, and everything below.
            pattern.push_str(if index == 0 { ".*" } else { "(\\..*)?" });
            continue;
        }
        if index > 0 {
            pattern.push_str("\\.");
        }
        if level == "+" {
            pattern.push_str("[^.#]*");
        } else {
            literal(&mut pattern, level);
        }
    }
    pattern
}

pub(super) fn literal(pattern: &mut String, level: &str) {
    for character in level.chars() {
        if character.is_ascii() && !character.is_ascii_alphanumeric() {
            let _ = write!(pattern, "\\{character}");
        } else {
            pattern.push(character);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_as_patterns() {
        for (filters, expected) in [
            (&["messages/#"][..], "^(messages(\\..*)?)$"),
            (&["a-b/+/c", "x"], "^(a\\-b\\.[^.#]*\\.c|x)$"),
            (&["#"], "^(.*)$"),
            (&[], "^$"),
        ] {
            let filters: Vec<Filter> = filters.iter().map(|filter| filter.parse().unwrap()).collect();
            assert_eq!(readable(&filters), expected);
        }
    }
}
