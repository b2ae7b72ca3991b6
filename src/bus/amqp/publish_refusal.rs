//! What a channel exception says of the publish that caused it.

use crate::message::{HeaderValue, Message, Outcome, Refusal};

/// Reply codes of AMQP 0-9-1 (1.2).
const CONTENT_TOO_LARGE: u16 = 311;
const NOT_FOUND: u16 = 404;
const PRECONDITION_FAILED: u16 = 406;

/// The outcome of a publish of so many bytes that made the broker close its channel. Codes decide, not words: those differ
/// from version to version.
pub(super) fn outcome_of(code: u16, text: &str, body_bytes: usize) -> Outcome {
    match code {
        NOT_FOUND => Outcome::Unroutable,
        CONTENT_TOO_LARGE => Outcome::Refused(Refusal::TooLarge { limit: limit_in(text, body_bytes) }),
        // RabbitMQ has one code for a body over its `max_message_size` and for properties that it can't take. For the body it
        // names both sizes.
        PRECONDITION_FAILED => match limit_in(text, body_bytes) {
            Some(limit) => Outcome::Refused(Refusal::TooLarge { limit: Some(limit) }),
            None => Outcome::Refused(Refusal::Forbidden),
        },
        _ => Outcome::Refused(Refusal::Forbidden),
    }
}

/// The limit that a text names: a number below the body's own size, which stands there too.
fn limit_in(text: &str, body_bytes: usize) -> Option<u64> {
    let size = u64::try_from(body_bytes).ok()?;
    let numbers = || text.split(|c: char| !c.is_ascii_digit()).filter_map(|digits| digits.parse::<u64>().ok());
    numbers().find(|number| *number == size)?;
    numbers().rfind(|number| *number < size)
}

/// The route that a message comes from.
pub(super) fn route_of(message: &Message) -> Option<&str> {
    match message.properties.headers.get("fpesa-route") {
        Some(HeaderValue::Text(route)) => Some(route),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::outcome_of;
    use crate::message::{Outcome, Refusal};

    #[test]
    fn codes_decide() {
        let too_large = |limit| Outcome::Refused(Refusal::TooLarge { limit });
        let size = "PRECONDITION_FAILED - message size 70000 is larger than configured max size 65536";
        for (code, text, expected) in [
            (
                403,
                "ACCESS_REFUSED - write access to exchange 'a' in vhost '/' refused",
                Outcome::Refused(Refusal::Forbidden),
            ),
            (404, "NOT_FOUND - no exchange 'a' in vhost '/'", Outcome::Unroutable),
            (406, size, too_large(Some(65_536))),
            (406, "PRECONDITION_FAILED - invalid expiration '500': 3", Outcome::Refused(Refusal::Forbidden)),
            (406, "PRECONDITION_FAILED - user_id property set to '70000'", Outcome::Refused(Refusal::Forbidden)),
            (311, "CONTENT_TOO_LARGE", too_large(None)),
            (311, "CONTENT_TOO_LARGE - 70000 > 1024", too_large(Some(1_024))),
            (405, "RESOURCE_LOCKED", Outcome::Refused(Refusal::Forbidden)),
        ] {
            assert_eq!(outcome_of(code, text, 70_000), expected, "{text}");
        }
    }
}
