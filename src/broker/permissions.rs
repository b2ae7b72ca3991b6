//! `fpesa broker permissions`: what a table needs of a broker user, and nothing more, as RabbitMQ writes it.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
};

use serde_json::{Value, json};

use super::topics::literal;
use crate::{
    route::{
        table::{Action, Table},
        template::{Piece, Template},
    },
    topology::{Declare, QueueKind},
};

/// RabbitMQ's own name for the default exchange in permissions.
const DEFAULT_EXCHANGE: &str = "amq.default";
/// Queues that replies come to, as a pattern.
const REPLY_QUEUES: &str = "fpesa\\.reply\\..*";

/// What one process asks of a broker user: regular expressions of exchanges and queues.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Permissions {
    configure: BTreeSet<String>,
    write: BTreeSet<String>,
    read: BTreeSet<String>,
    /// Routing keys by topic exchange: written and read. Needed where the user has topic permissions at all.
    topics: BTreeMap<String, (BTreeSet<String>, BTreeSet<String>)>,
}

impl Permissions {
    /// Of a gateway: the topology, and what its routes publish and call.
    pub fn of_gateway(table: &Table) -> Self {
        let mut all = Self::default();
        all.declare(table);
        for route in &table.routes {
            let (exchange, key) = match &route.action {
                Action::Publish(publish) => (&publish.exchange, &publish.key),
                Action::Call(call) => (&call.exchange, &call.key),
            };
            all.write.insert(exchange_pattern(exchange));
            if is_topic(table, exchange) {
                all.topics.entry(exchange.clone()).or_default().0.insert(key_pattern(key));
            }
            if matches!(route.action, Action::Call(_)) {
                all.configure.insert(REPLY_QUEUES.into());
                all.read.insert(REPLY_QUEUES.into());
            }
        }
        all
    }

    /// Of workers: the topology, their queues, and the default exchange for replies and dead letters.
    pub fn of_workers(table: &Table) -> Self {
        let mut all = Self::default();
        all.declare(table);
        for worker in table.workers.values() {
            let Some(queue) = table.topology.queues.get(&worker.queue) else { continue };
            all.read.insert(pattern(&worker.queue));
            if queue.kind == QueueKind::Rpc {
                all.configure.insert(pattern(&worker.queue));
            }
            if queue.kind == QueueKind::Rpc || queue.dead_letter.is_some() || worker.kind == "history" {
                all.write.insert(exchange_pattern(""));
            }
        }
        all
    }

    /// Of one process that is both.
    #[must_use]
    pub fn and(mut self, other: Self) -> Self {
        self.configure.extend(other.configure);
        self.write.extend(other.write);
        self.read.extend(other.read);
        for (exchange, (write, read)) in other.topics {
            let mine = self.topics.entry(exchange).or_default();
            mine.0.extend(write);
            mine.1.extend(read);
        }
        self
    }

    /// Declaring and binding: what others declare is only looked at, for which nothing is needed.
    fn declare(&mut self, table: &Table) {
        let topology = &table.topology;
        for (name, exchange) in &topology.exchanges {
            if exchange.declare == Declare::Passive {
                continue;
            }
            self.configure.insert(pattern(name));
            if let Some(alternate) = exchange.arguments.get("alternate-exchange").and_then(Value::as_str) {
                self.read.insert(pattern(name));
                self.write.insert(exchange_pattern(alternate));
            }
        }
        for (name, queue) in &topology.queues {
            if queue.declare == Declare::Passive || queue.kind == QueueKind::Rpc {
                continue;
            }
            self.configure.insert(pattern(name));
            if queue.dead_letter.is_some() {
                self.read.insert(pattern(name));
                self.write.insert(exchange_pattern(""));
            }
            for binding in &queue.bind {
                self.write.insert(pattern(name));
                self.read.insert(exchange_pattern(&binding.exchange));
                if is_topic(table, &binding.exchange) {
                    self.topics.entry(binding.exchange.clone()).or_default().1.insert(pattern(&binding.key));
                }
            }
        }
    }

    /// As JSON: `configure`, `write`, `read`, `topics`.
    pub fn document(&self) -> Value {
        let topics: Vec<Value> = self
            .topics
            .iter()
            .map(|(exchange, (write, read))| json!({ "exchange": exchange, "write": any(write), "read": any(read) }))
            .collect();
        json!({ "configure": any(&self.configure), "write": any(&self.write), "read": any(&self.read), "topics": topics })
    }

    /// As commands that give it to a user.
    pub fn commands(&self, vhost: &str, user: &str) -> String {
        let quote = |text: &str| format!("'{}'", text.replace('\'', "'\\''"));
        let mut text = format!(
            "rabbitmqctl set_permissions -p {} {} {} {} {}\n",
            quote(vhost),
            quote(user),
            quote(&any(&self.configure)),
            quote(&any(&self.write)),
            quote(&any(&self.read))
        );
        for (exchange, (write, read)) in &self.topics {
            let _ = writeln!(
                text,
                "rabbitmqctl set_topic_permissions -p {} {} {} {} {}",
                quote(vhost),
                quote(user),
                quote(exchange),
                quote(&any(write)),
                quote(&any(read))
            );
        }
        text
    }
}

fn any(patterns: &BTreeSet<String>) -> String {
    if patterns.is_empty() {
        return "^$".into();
    }
    format!("^({})$", patterns.iter().map(String::as_str).collect::<Vec<_>>().join("|"))
}

fn pattern(name: &str) -> String {
    let mut pattern = String::new();
    literal(&mut pattern, name);
    pattern
}

fn exchange_pattern(name: &str) -> String {
    pattern(if name.is_empty() { DEFAULT_EXCHANGE } else { name })
}

fn is_topic(table: &Table, exchange: &str) -> bool {
    exchange == "amq.topic"
        || table.topology.exchanges.get(exchange).is_some_and(|exchange| matches!(exchange.kind.as_str(), "topic" | ""))
}

/// The keys that a template gives: a value without `|raw` holds no dot.
fn key_pattern(template: &Template) -> String {
    let mut key = String::new();
    for piece in &template.pieces {
        match piece {
            Piece::Literal(text) => literal(&mut key, text),
            Piece::Reference(reference) => {
                let dots = reference.raw || reference.default.as_ref().is_some_and(|text| text.contains('.'));
                key.push_str(if dots { ".*" } else { "[^.]*" });
            }
        }
    }
    key
}
