//! What must exist on the bus before anyone publishes: exchanges, queues and bindings, and the matching of a
//! routing key against a binding. Pure: the compiler makes it, the bus adapters declare it.

use std::collections::{BTreeMap, BTreeSet};

/// Everything that a table needs on the bus.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Topology {
    /// Exchanges to declare (or to check), by name. The predeclared `amq.*` and the default exchange need no entry.
    pub exchanges: BTreeMap<String, Exchange>,
    /// Queues to declare (or to check), by name, with their bindings.
    pub queues: BTreeMap<String, Queue>,
    /// Queues that some publish route reaches: while one is missing, its routes answer 503.
    pub watched_queues: BTreeSet<String>,
    /// Exchanges that some publish route names, predeclared ones included, the default exchange not.
    pub watched_exchanges: BTreeSet<String>,
    /// What may be published to each exchange that a route names, the default exchange included: for finding out whether the
    /// broker's user may.
    pub samples: BTreeMap<String, SampleKey>,
    /// Whether any route waits for replies.
    pub calls: bool,
}

/// A routing key that a route may publish with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SampleKey {
    /// The key.
    pub key: String,
    /// Whether a route publishes with this very key. Else values are made up, and a broker may allow only others.
    pub exact: bool,
}

impl Topology {
    /// Whether a queue of this name is a stream by the table.
    pub fn is_stream(&self, queue: &str) -> bool {
        self.queues.get(queue).is_some_and(|queue| queue.kind == QueueKind::Stream)
    }
}

/// One exchange.
#[derive(Debug, Clone, PartialEq)]
pub struct Exchange {
    /// `topic`, `direct`, `fanout`, `headers`, or a plugin's type.
    pub kind: String,
    /// Arguments of its declaration.
    pub arguments: Arguments,
    /// Whether we make it or only check that it is there.
    pub declare: Declare,
}

/// One queue.
#[derive(Debug, Clone, PartialEq)]
pub struct Queue {
    /// How messages are kept.
    pub kind: QueueKind,
    /// What is routed to it.
    pub bind: Vec<Binding>,
    /// Most messages it holds; a further one is refused (`x-overflow: reject-publish`).
    pub max_length: Option<u64>,
    /// Deliveries before a message is dead-lettered; a count only with `dead_letter`.
    pub delivery_limit: Option<DeliveryLimit>,
    /// Queue that takes what was rejected or delivered too often.
    pub dead_letter: Option<String>,
    /// Further arguments of its declaration, as written.
    pub arguments: Arguments,
    /// Whether we make it or only check that it is there.
    pub declare: Declare,
}

/// `delivery_limit:`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeliveryLimit {
    /// Declared with the queue.
    Count(u32),
    /// Not declared: the broker's own policies set it.
    Policy,
}

/// A version of RabbitMQ.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Version {
    /// Its first number; 0 where it is not known.
    pub major: u32,
}

impl Queue {
    /// Whether it must be said that the queue never drops a message for its deliveries: from RabbitMQ 4.0 on, a quorum queue
    /// drops after 20 unless it has a dead letter. (Before, `-1` would drop after one.)
    pub fn keeps_for_ever(&self, version: Version) -> bool {
        version.major >= 4
            && self.kind == QueueKind::Quorum
            && self.dead_letter.is_none()
            && self.declare == Declare::Active
            && self.delivery_limit != Some(DeliveryLimit::Policy)
            && !self.arguments.contains_key("x-delivery-limit")
    }

    /// The arguments that the queue is declared with, exactly: whoever else declares it must name the same. None for one
    /// that others declare.
    pub fn declared_arguments(&self, version: Version) -> Arguments {
        /// Deliveries before a quorum queue dead-letters a message.
        const DELIVERIES: u32 = 20;
        if self.declare == Declare::Passive {
            return Arguments::new();
        }
        let mut all = self.arguments.clone();
        let mut set = |name: &str, value: serde_json::Value| all.insert(name.to_owned(), value);
        let quorum = self.kind == QueueKind::Quorum;
        match self.kind {
            QueueKind::Quorum => drop(set("x-queue-type", "quorum".into())),
            QueueKind::Stream => drop(set("x-queue-type", "stream".into())),
            QueueKind::Classic | QueueKind::Rpc => {}
        }
        if self.keeps_for_ever(version) {
            set("x-delivery-limit", (-1).into());
        }
        if let Some(dead) = &self.dead_letter {
            set("x-dead-letter-exchange", "".into());
            set("x-dead-letter-routing-key", dead.as_str().into());
            if quorum {
                match self.delivery_limit {
                    Some(DeliveryLimit::Count(count)) => drop(set("x-delivery-limit", count.into())),
                    None => drop(set("x-delivery-limit", DELIVERIES.into())),
                    Some(DeliveryLimit::Policy) => {}
                }
                set("x-dead-letter-strategy", "at-least-once".into());
                set("x-overflow", "reject-publish".into());
            }
        }
        if let Some(most) = self.max_length {
            set("x-max-length", most.into());
            set("x-overflow", "reject-publish".into());
        }
        all
    }
}

/// How a queue keeps its messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum QueueKind {
    /// Replicated and durable (`x-queue-type: quorum`); embedded: durable.
    Quorum,
    /// Durable on one node; embedded: durable.
    Classic,
    /// A log that is published to only (`x-queue-type: stream`): nobody of fpesa's consumes it.
    Stream,
    /// Lives while a worker consumes it; declared by that worker alone. Its messages are kept in memory only.
    Rpc,
}

/// One binding of a queue to an exchange.
#[derive(Debug, Clone, PartialEq)]
pub struct Binding {
    /// The exchange's name.
    pub exchange: String,
    /// Routing key pattern: for a topic exchange `*` is one word, `#` any number of words.
    pub key: String,
    /// Arguments of the binding, for a headers exchange.
    pub arguments: Arguments,
}

/// Who makes an exchange or a queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Declare {
    /// We do, repeatably.
    #[default]
    Active,
    /// Somebody else does: we only check that it is there.
    Passive,
}

/// Arguments of a declaration, as the table writes them.
pub type Arguments = BTreeMap<String, serde_json::Value>;

/// Whether a topic exchange routes `key` by `pattern`: words are separated by dots, `*` is exactly one word and `#`
/// is none or more (AMQP 0-9-1, 3.1.3.3).
pub fn topic_matches(pattern: &str, key: &str) -> bool {
    let (mut pattern, mut key) = (Words(Some(pattern)), Words(Some(key)));
    // Greedy with one point to go back to: no memory, no exponential `#.#.#`.
    let mut last_hash: Option<(Words<'_>, Words<'_>)> = None;
    while let Some(word) = key.first() {
        match pattern.first() {
            Some("#") => {
                pattern.skip();
                last_hash = Some((pattern, key));
            }
            Some(wanted) if wanted == "*" || wanted == word => {
                pattern.skip();
                key.skip();
            }
            _ => {
                let Some((after, mut from)) = last_hash else { return false };
                from.skip();
                last_hash = Some((after, from));
                (pattern, key) = (after, from);
            }
        }
    }
    while pattern.first() == Some("#") {
        pattern.skip();
    }
    pattern.first().is_none()
}

/// Words that are separated by dots; the empty text is one empty word.
#[derive(Clone, Copy)]
struct Words<'t>(Option<&'t str>);

impl<'t> Words<'t> {
    fn first(self) -> Option<&'t str> {
        self.0.map(|rest| rest.split_once('.').map_or(rest, |(word, _)| word))
    }

    fn skip(&mut self) {
        self.0 = self.0.and_then(|rest| rest.split_once('.')).map(|(_, rest)| rest);
    }
}

#[cfg(test)]
mod tests {
    use super::topic_matches;

    #[test]
    fn words() {
        for (pattern, key, expected) in [
            ("messages.#", "messages.general", true),
            ("messages.#", "messages", true),
            ("messages.*", "messages", false),
            ("messages.*", "messages.a.b", false),
            ("#", "", true),
            ("*", "", true),
            ("#.b", "a.b", true),
            ("#.b.#", "a.c", false),
            ("a.#.c", "a.c", true),
            ("a.#.c", "a.b.b.c", true),
            ("a.#.*.c", "a.c", false),
            ("a", "a", true),
            ("a", "A", false),
        ] {
            assert_eq!(topic_matches(pattern, key), expected, "{pattern} {key}");
        }
    }
}
