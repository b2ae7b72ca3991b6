//! Which queues an exchange routes a message to (AMQP 0-9-1, section 3.1.3).

use std::collections::BTreeMap;

use crate::{
    message::{HeaderValue, Message},
    topology::{Arguments, Topology, topic_matches},
};

/// The exchange that the live feed listens to.
pub(super) const TOPIC: &str = "amq.topic";

/// Type of an exchange: a declared one's, or a predeclared one's.
pub(super) fn kind<'t>(exchange: &str, topology: &'t Topology) -> Option<&'t str> {
    match exchange {
        "" | "amq.direct" => Some("direct"),
        TOPIC => Some("topic"),
        "amq.fanout" => Some("fanout"),
        "amq.headers" | "amq.match" => Some("headers"),
        name => topology.exchanges.get(name).map(|exchange| exchange.kind.as_str()),
    }
}

/// Names of the queues whose bindings take the message; the default exchange is the caller's.
pub fn bound<'t>(message: &Message, topology: &'t Topology) -> Vec<&'t str> {
    let Some(kind) = kind(&message.exchange, topology) else { return Vec::new() };
    let takes = |binding: &crate::topology::Binding| match kind {
        "topic" => topic_matches(&binding.key, &message.key),
        "direct" => binding.key == message.key,
        "headers" => headers_match(&binding.arguments, &message.properties.headers),
        _ => true,
    };
    topology
        .queues
        .iter()
        .filter(|(_, queue)| queue.bind.iter().any(|binding| binding.exchange == message.exchange && takes(binding)))
        .map(|(name, _)| name.as_str())
        .collect()
}

/// `x-match` is `all` (the default) or `any`; arguments that begin with `x-` are no headers.
fn headers_match(arguments: &Arguments, headers: &BTreeMap<String, HeaderValue>) -> bool {
    let any = arguments.get("x-match").and_then(serde_json::Value::as_str) == Some("any");
    let mut wanted = arguments.iter().filter(|(name, _)| !name.starts_with("x-"));
    let same = |(name, value): (&String, &serde_json::Value)| {
        headers.get(name).is_some_and(|header| match header {
            HeaderValue::Text(text) => value.as_str() == Some(text),
            HeaderValue::Int(number) => value.as_i64() == Some(*number),
            HeaderValue::Bool(flag) => value.as_bool() == Some(*flag),
            HeaderValue::Raw { .. } => false,
        })
    };
    if any { wanted.any(same) } else { wanted.all(same) }
}
