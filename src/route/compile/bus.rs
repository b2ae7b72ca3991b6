//! `exchanges` and `queues`: what the bus must have, and whether it fits together.

use std::collections::BTreeMap;

use super::Compiler;
use crate::{
    route::{
        file::QueueFile,
        problem::{Place, suggest},
        yaml::{Key, Node, Value},
    },
    topology::{Arguments, Binding, Exchange, Queue, QueueKind, Topology},
};

/// Type of each exchange by name, the predeclared ones included.
pub(super) type Kinds = BTreeMap<String, String>;

/// Exchanges that every RabbitMQ has.
const PREDECLARED: [(&str, &str); 6] = [
    ("", "direct"),
    ("amq.direct", "direct"),
    ("amq.fanout", "fanout"),
    ("amq.headers", "headers"),
    ("amq.match", "headers"),
    ("amq.topic", "topic"),
];

impl Compiler<'_> {
    pub(super) fn topology(&mut self) -> (Topology, Kinds) {
        let file = self.file;
        let mut topology = Topology::default();
        let mut kinds: Kinds = PREDECLARED.iter().map(|(name, kind)| ((*name).into(), (*kind).into())).collect();
        for (key, exchange) in &file.exchanges {
            if key.name.starts_with("amq.") || key.name.is_empty() {
                let message = format!("`{}` is the broker's own and needs no entry", key.name);
                self.problem(key.at, "bad-value", message, Some("delete this entry, or choose another name".into()));
                continue;
            }
            self.name_fits(key, "an exchange");
            let passive = exchange.declare == crate::topology::Declare::Passive;
            let kind = match &exchange.kind {
                Some(kind) => kind.value.clone(),
                // A passive one exists already; without its type it may route anything.
                None if passive => String::new(),
                None => {
                    let hint = Some("add `type: topic` (or direct, fanout, headers)".into());
                    self.problem(key.at, "missing-key", format!("exchange `{}` has no `type`", key.name), hint);
                    continue;
                }
            };
            kinds.insert(key.name.clone(), kind.clone());
            let arguments = arguments(&exchange.arguments);
            topology.exchanges.insert(key.name.clone(), Exchange { kind, arguments, declare: exchange.declare });
        }
        for (key, queue) in &file.queues {
            self.name_fits(key, "a queue");
            if key.name.starts_with("amq.") {
                let hint = Some("choose a name that does not begin with `amq.`".into());
                self.problem(
                    key.at,
                    "bad-value",
                    format!("`{}`: names with `amq.` are the broker's own", key.name),
                    hint,
                );
            }
            let bind = self.bindings(queue, &kinds);
            self.queue_fits(key, queue);
            topology.queues.insert(
                key.name.clone(),
                Queue {
                    kind: queue.kind,
                    bind,
                    max_length: queue.max_length,
                    delivery_limit: queue
                        .dead_letter
                        .as_ref()
                        .map(|_| queue.delivery_limit.as_ref().map_or(20, |at| at.value)),
                    dead_letter: queue.dead_letter.as_ref().map(|at| at.value.clone()),
                    arguments: arguments(&queue.arguments),
                    declare: queue.declare,
                },
            );
        }
        self.dead_letter_cycles();
        (topology, kinds)
    }

    fn name_fits(&mut self, key: &Key, what: &str) {
        if key.name.is_empty() || key.name.len() > 255 || key.name.chars().any(char::is_control) {
            self.problem(
                key.at,
                "bad-value",
                format!("{what}'s name has 1 to 255 bytes, none a control character"),
                None,
            );
        }
    }

    fn bindings(&mut self, queue: &QueueFile, kinds: &Kinds) -> Vec<Binding> {
        let mut bindings = Vec::new();
        for binding in &queue.bind {
            let Some(exchange) = &binding.exchange else { continue };
            let Some(kind) = kinds.get(&exchange.value) else {
                let hint = suggest(&exchange.value, kinds.keys().map(String::as_str).filter(|name| !name.is_empty()));
                let hint = hint.or(Some("declare it under `exchanges:`".into()));
                self.problem(
                    exchange.at,
                    "unknown-exchange",
                    format!("there is no exchange `{}`", exchange.value),
                    hint,
                );
                continue;
            };
            if binding.key.is_none() && !matches!(kind.as_str(), "fanout" | "headers" | "") {
                let message = format!("a binding to a {kind} exchange has a `key`");
                self.problem(exchange.at, "missing-key", message, Some("as in `key: \"messages.#\"`".into()));
            }
            if let Some(key) = binding.key.as_ref().filter(|key| key.value.len() > 255) {
                self.problem(key.at, "bad-value", "a binding's `key` has at most 255 bytes", None);
            }
            bindings.push(Binding {
                exchange: exchange.value.clone(),
                key: binding.key.as_ref().map(|key| key.value.clone()).unwrap_or_default(),
                arguments: arguments(&binding.arguments),
            });
        }
        bindings
    }

    fn queue_fits(&mut self, key: &Key, queue: &QueueFile) {
        let name = &key.name;
        if let Some(dead) = &queue.dead_letter {
            let target = self.file.queues.iter().find(|(key, _)| key.name == dead.value);
            match target {
                None => {
                    let hint = suggest(&dead.value, self.file.queues.iter().map(|(key, _)| key.name.as_str()));
                    self.problem(dead.at, "unknown-queue", format!("there is no queue `{}`", dead.value), hint);
                }
                Some((_, target)) if target.kind == QueueKind::Rpc => {
                    let message = format!("`{}` is an rpc queue, which keeps nothing", dead.value);
                    self.problem(dead.at, "bad-argument", message, Some("name a queue that is there to keep".into()));
                }
                Some(_) => {}
            }
        } else if let Some(limit) = &queue.delivery_limit {
            let message = format!("queue `{name}` has a `delivery_limit` and no `dead_letter`: it would lose messages");
            self.problem(
                limit.at,
                "bad-argument",
                message,
                Some("add `dead_letter:` with the queue that takes them".into()),
            );
        }
        for (argument, value) in &queue.arguments {
            let told = match (argument.name.as_str(), queue.kind) {
                ("x-max-priority", QueueKind::Quorum) => Some("a quorum queue has no priorities"),
                ("x-queue-type", _) => Some("the key `type` says this"),
                ("x-dead-letter-exchange" | "x-dead-letter-routing-key", _) => Some("the key `dead_letter` says this"),
                ("x-max-length", _) => Some("the key `max_length` says this"),
                ("x-delivery-limit", _) => Some("the key `delivery_limit` says this"),
                ("x-overflow", _) => Some("a queue here always rejects when it is full"),
                ("auto-delete" | "auto_delete" | "x-auto-delete", QueueKind::Quorum) => {
                    Some("a quorum queue can't delete itself")
                }
                ("x-queue-mode", _) => Some("no RabbitMQ from 4.0 on knows it"),
                ("x-expires", QueueKind::Rpc) => Some("an rpc queue is declared in one fixed way"),
                _ => None,
            };
            if let Some(why) = told {
                let message = format!("queue `{name}` can't have the argument `{}`: {why}", argument.name);
                self.problem(argument.at, "bad-argument", message, None);
            } else if !matches!(value.value, Value::Text(_) | Value::Bool(_) | Value::Number(_)) {
                let message =
                    format!("the argument `{}` is text, a number or a boolean, not {}", argument.name, value.kind());
                self.problem(value.at, "wrong-type", message, None);
            }
        }
        if queue.kind == QueueKind::Rpc {
            let fixed = [
                ("bind", !queue.bind.is_empty()),
                ("max_length", queue.max_length.is_some()),
                ("dead_letter", queue.dead_letter.is_some()),
                ("arguments", !queue.arguments.is_empty()),
            ];
            for (what, _) in fixed.into_iter().filter(|(_, given)| *given) {
                let message =
                    format!("the rpc queue `{name}` has `{what}`, and its worker declares it in one fixed way");
                self.problem(
                    queue.at,
                    "bad-argument",
                    message,
                    Some(format!("delete `{what}`, or choose another type")),
                );
            }
        }
    }

    fn dead_letter_cycles(&mut self) {
        let file = self.file;
        let next = |name: &str| {
            let (_, queue) = file.queues.iter().find(|(key, _)| key.name == name)?;
            queue.dead_letter.as_ref()
        };
        let mut told: Vec<&str> = Vec::new();
        for (key, queue) in &file.queues {
            let mut way = vec![key.name.as_str()];
            let mut at: Option<Place> = queue.dead_letter.as_ref().map(|dead| dead.at);
            let mut here = queue.dead_letter.as_ref();
            while let Some(dead) = here {
                if dead.value == key.name {
                    if !way.iter().any(|name| told.contains(name)) {
                        way.push(&key.name);
                        let message = format!("dead letters go round in a circle: {}", way.join(" → "));
                        self.problem(at.take().unwrap_or(key.at), "dead-letter-cycle", message, None);
                        told.push(&key.name);
                    }
                    break;
                }
                if way.contains(&dead.value.as_str()) {
                    break;
                }
                way.push(&dead.value);
                here = next(&dead.value);
            }
        }
    }
}

fn arguments(entries: &[(Key, Node)]) -> Arguments {
    entries.iter().map(|(key, node)| (key.name.clone(), node.to_json())).collect()
}
