//! What is set aside: the message for the dead-letter queue, and when a message has failed too often.

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};

use crate::{
    bus::Delivery,
    message::{HeaderValue, Message},
    topology::{DeliveryLimit, Queue},
};

/// Why it is set aside, in a word.
const REASON: &str = "fpesa-reason";
/// Why it is set aside, in a sentence.
const DETAIL: &str = "fpesa-detail";
/// The queue that it was on.
const QUEUE: &str = "fpesa-queue";
/// The properties that could not be read, in base64.
const RAW_PROPERTIES: &str = "fpesa-raw-properties";

/// How often a quorum queue delivered a message in vain. RabbitMQ 4.3 counts what a consumer gave back in the second alone.
const DELIVERY_COUNTS: [&str; 2] = ["x-delivery-count", "x-acquired-count"];

/// Headers by which RabbitMQ would send the copy to further queues ("Sender-selected Distribution"): whoever published the
/// message would publish with our permissions.
const FURTHER_KEYS: [&str; 2] = ["CC", "BCC"];

/// The longest [`DETAIL`], in bytes.
const MAX_DETAIL: usize = 500;
/// The longest [`RAW_PROPERTIES`], in bytes of base64.
const MAX_RAW_TEXT: usize = 64 * 1024;
/// Unreadable properties larger than this, in bytes, leave no room for the headers among them that can be read.
const MAX_RAW_BESIDE_HEADERS: usize = 16 * 1024;

/// Where a queue's messages go that can never be worked on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct DeadLetters {
    /// The queue that takes them.
    pub queue: String,
    /// Failed deliveries after which a message is one of them; `None` where that is the broker's alone.
    pub delivery_limit: Option<u32>,
}

impl DeadLetters {
    /// Those of a queue, if it has any.
    pub fn of(queue: &Queue) -> Option<Self> {
        let to = queue.dead_letter.clone()?;
        let delivery_limit = match queue.delivery_limit {
            Some(DeliveryLimit::Count(count)) => Some(count),
            // The broker's to set.
            Some(DeliveryLimit::Policy) | None => None,
        };
        Some(Self { queue: to, delivery_limit })
    }

    /// Whether a message that has just failed once more has failed too often. The broker would set it aside now too, and
    /// could not say why; or would not, since RabbitMQ 4.3 does not count every way of giving a message back.
    pub fn are_due(&self, failed: i64) -> bool {
        self.delivery_limit.is_some_and(|limit| failed > i64::from(limit))
    }
}

/// How often a delivery has failed before. Only of one that is delivered again the broker has set the count: of another it
/// is what the publisher wrote.
pub(super) fn failed_before(delivery: &Delivery) -> i64 {
    let headers = &delivery.message.properties.headers;
    let count = |name: &&str| match headers.get(*name) {
        Some(HeaderValue::Int(count)) if delivery.redelivered => *count,
        _ => 0,
    };
    DELIVERY_COUNTS.iter().map(count).max().unwrap_or_default().max(0)
}

/// The message for the dead-letter queue: body and properties unchanged, with the reason. `from` is the queue it was on.
pub(super) fn message(message: &Message, from: &str, to: &str, reason: &str, detail: &str) -> Message {
    let mut dead = message.clone();
    let unreadable = dead.properties.unreadable.take();
    let headers = &mut dead.properties.headers;
    for name in [RAW_PROPERTIES].iter().chain(&DELIVERY_COUNTS).chain(&FURTHER_KEYS) {
        headers.remove(*name);
    }
    if let Some(unreadable) = unreadable.filter(|unreadable| !unreadable.raw.is_empty()) {
        let raw = &unreadable.raw;
        if raw.len() > MAX_RAW_BESIDE_HEADERS {
            headers.clear();
        }
        let text = BASE64.encode(&raw[..raw.len().min(MAX_RAW_TEXT / 4 * 3)]);
        headers.insert(RAW_PROPERTIES.into(), text.into());
    }
    let detail = &detail[..detail.floor_char_boundary(MAX_DETAIL)];
    for (name, value) in [(REASON, reason), (DETAIL, detail), (QUEUE, from)] {
        headers.insert(name.into(), value.into());
    }
    dead.properties.expiration = None;
    dead.properties.persistent = true;
    dead.exchange = String::new();
    to.clone_into(&mut dead.key);
    dead.mandatory = true;
    dead
}

#[cfg(test)]
mod tests {
    use crate::{
        bus::{Delivery, Ticket},
        message::{HeaderValue, Message, Properties, Unreadable},
    };

    use super::{DeadLetters, failed_before, message};

    fn with(headers: &[(&str, HeaderValue)]) -> Message {
        let headers = headers.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect();
        Message { properties: Properties { headers, ..Properties::default() }, ..Message::default() }
    }

    #[test]
    fn the_larger_count_counts_and_only_of_what_comes_again() {
        let delivery = |redelivered, delivered: Option<i64>, acquired: Option<i64>| {
            let counts = [("x-delivery-count", delivered), ("x-acquired-count", acquired)];
            let headers: Vec<_> =
                counts.into_iter().filter_map(|(name, count)| Some((name, HeaderValue::Int(count?)))).collect();
            Delivery { message: with(&headers), redelivered, ticket: Ticket::new(|_| ()) }
        };
        for (redelivered, delivered, acquired, expected) in [
            (true, None, None, 0),
            (true, Some(3), None, 3),
            // As RabbitMQ 4.3 has it after `basic.nack`.
            (true, None, Some(7), 7),
            (true, Some(2), Some(7), 7),
            (true, Some(8), Some(7), 8),
            (true, Some(-5), None, 0),
            (false, Some(20), Some(20), 0),
        ] {
            let failed = failed_before(&delivery(redelivered, delivered, acquired));
            assert_eq!(failed, expected, "{redelivered} {delivered:?} {acquired:?}");
        }
        let dead = DeadLetters { queue: "dead".into(), delivery_limit: Some(2) };
        assert_eq!([0, 1, 2, 3].map(|failed| dead.are_due(failed)), [false, false, false, true]);
        assert!(!DeadLetters { delivery_limit: None, ..dead }.are_due(1_000));
    }

    #[test]
    fn nothing_in_the_copy_is_for_the_broker_to_act_upon() {
        let raw = HeaderValue::Raw { letter: b'A', bytes: vec![0, 0, 0, 6, b'S', 0, 0, 0, 1, b'q'] };
        let mut came = with(&[
            ("CC", raw.clone()),
            ("BCC", raw.clone()),
            ("x-delivery-count", HeaderValue::Int(20)),
            ("x-acquired-count", HeaderValue::Int(20)),
            ("fpesa-raw-properties", "of the publisher".into()),
            ("fpesa-reason", "of the publisher".into()),
            ("other", raw),
        ]);
        came.properties.expiration = Some(std::time::Duration::from_secs(1));
        let dead = message(&came, "q", "dead", "not-an-event", "why");
        let names: Vec<_> = dead.properties.headers.keys().map(String::as_str).collect();
        assert_eq!(names, ["fpesa-detail", "fpesa-queue", "fpesa-reason", "other"]);
        assert_eq!(dead.properties.headers["fpesa-reason"], "not-an-event".into());
        assert_eq!((dead.key.as_str(), dead.mandatory, dead.properties.persistent), ("dead", true, true));
        assert_eq!(dead.properties.expiration, None);
    }

    #[test]
    fn what_could_not_be_read_is_kept_within_bounds() {
        for (size, text, others) in [(3, 4, 1), (16 * 1024, 21_848, 1), (20_000, 26_668, 0), (200_000, 65_536, 0)] {
            let mut came = with(&[("other", HeaderValue::Bool(true))]);
            let unreadable = Unreadable { why: "why".into(), raw: vec![7; size].into() };
            came.properties.unreadable = Some(Box::new(unreadable));
            let dead = message(&came, "q", "dead", "unreadable", &"ü".repeat(300));
            let headers = &dead.properties.headers;
            assert_eq!(headers["fpesa-raw-properties"].to_text().unwrap().len(), text);
            assert_eq!(headers["fpesa-detail"].to_text().unwrap().len(), 500);
            assert_eq!(headers.len(), 4 + others, "{size}");
            assert_eq!(dead.properties.unreadable, None);
        }
    }
}
