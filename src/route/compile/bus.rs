//! `exchanges` and `queues`: what the bus must have, and whether it fits together.

use std::collections::BTreeMap;

use super::Compiler;
use crate::{
    route::{
        decode::At,
        file::QueueFile,
        problem::{did_you_mean, meant},
        yaml::{Key, Node},
    },
    topology::{Arguments, Binding, DeliveryLimit, Exchange, Queue, QueueKind, Topology},
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
                None if passive || exchange.typed => String::new(),
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
        let queues: BTreeMap<&str, &QueueFile> =
            file.queues.iter().map(|(key, queue)| (key.name.as_str(), queue)).collect();
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
            self.queue_fits(key, queue, &queues);
            topology.queues.insert(
                key.name.clone(),
                Queue {
                    kind: queue.kind,
                    bind,
                    max_length: queue.max_length,
                    delivery_limit: match (&queue.delivery_limit, &queue.dead_letter) {
                        (Some(At { value: DeliveryLimit::Policy, .. }), _) => Some(DeliveryLimit::Policy),
                        (Some(limit), Some(_)) => Some(limit.value),
                        (None, Some(_)) => Some(DeliveryLimit::Count(20)),
                        (_, None) => None,
                    },
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
                Some("choose another name".into()),
            );
        }
    }

    fn bindings(&mut self, queue: &QueueFile, kinds: &Kinds) -> Vec<Binding> {
        let mut bindings = Vec::new();
        for binding in &queue.bind {
            let Some(exchange) = &binding.exchange else { continue };
            let Some(kind) = kinds.get(&exchange.value) else {
                let hint = Some(declare_exchange(&exchange.value, kinds));
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
                let message = format!("a binding's `key` has at most 255 bytes, and this one {}", key.value.len());
                self.problem(key.at, "bad-value", message, Some("shorten it".into()));
            }
            bindings.push(Binding {
                exchange: exchange.value.clone(),
                key: binding.key.as_ref().map(|key| key.value.clone()).unwrap_or_default(),
                arguments: arguments(&binding.arguments),
            });
        }
        bindings
    }

    fn queue_fits(&mut self, key: &Key, queue: &QueueFile, queues: &BTreeMap<&str, &QueueFile>) {
        let name = &key.name;
        if let Some(dead) = &queue.dead_letter {
            match queues.get(dead.value.as_str()) {
                None => {
                    let hint = did_you_mean(&dead.value, queues.keys().copied());
                    let hint = Some(hint.map_or("declare it under `queues:`".to_owned(), meant));
                    self.problem(dead.at, "unknown-queue", format!("there is no queue `{}`", dead.value), hint);
                }
                Some(target) if target.kind == QueueKind::Rpc => {
                    let message = format!("`{}` is an rpc queue, which keeps nothing", dead.value);
                    self.problem(dead.at, "bad-argument", message, Some("name a queue that is there to keep".into()));
                }
                Some(_) => {}
            }
        } else if let Some(limit) = queue.delivery_limit.as_ref().filter(|limit| limit.value != DeliveryLimit::Policy) {
            let message = format!("queue `{name}` has a `delivery_limit` and no `dead_letter`: it would lose messages");
            self.problem(
                limit.at,
                "bad-argument",
                message,
                Some("add `dead_letter:` with the queue that takes them".into()),
            );
        }
        if let (Some(limit), QueueKind::Classic) = (&queue.delivery_limit, queue.kind) {
            let message = format!("queue `{name}` is classic, and counts no deliveries");
            self.problem(
                limit.at,
                "bad-argument",
                message,
                Some("delete `delivery_limit`, or take `type: quorum`".into()),
            );
        }
        if queue.kind == QueueKind::Stream {
            let refused =
                queue.fixed.iter().filter(|(what, _)| matches!(*what, "max_length" | "delivery_limit" | "dead_letter"));
            for (what, at) in refused {
                let message = format!("queue `{name}` is a stream, which nothing is taken from: it has no `{what}`");
                let hint = format!(
                    "delete `{what}`, or take another `type`; `arguments` such as `x-max-age: 7D` bound a stream"
                );
                self.problem(*at, "bad-argument", message, Some(hint));
            }
        }
        for (argument, _) in &queue.arguments {
            let told = match (argument.name.as_str(), queue.kind) {
                ("x-max-priority", QueueKind::Quorum) => {
                    Some(("a quorum queue has no such priorities", "delete it, or take `type: classic`"))
                }
                ("x-queue-type", _) => Some(("the key `type` says this", "write `type:` instead")),
                ("x-dead-letter-exchange" | "x-dead-letter-routing-key", _) => {
                    Some(("the key `dead_letter` says this", "write `dead_letter:` instead"))
                }
                ("x-max-length", _) => Some(("the key `max_length` says this", "write `max_length:` instead")),
                ("x-delivery-limit", _) => {
                    Some(("the key `delivery_limit` says this", "write `delivery_limit:` instead"))
                }
                ("x-overflow", _) => Some(("a queue here always rejects when it is full", "delete it")),
                ("auto-delete" | "auto_delete" | "x-auto-delete", QueueKind::Quorum) => {
                    Some(("a quorum queue can't delete itself", "delete it; `x-expires` ends a queue that nobody uses"))
                }
                ("auto-delete" | "auto_delete" | "x-auto-delete", _) => {
                    Some(("what publishes reach has to stay", "delete it; `x-expires` ends a queue that nobody uses"))
                }
                ("x-queue-mode", _) => Some(("no RabbitMQ from 4.0 on knows it", "delete it")),
                _ => None,
            };
            if let Some((why, hint)) = told.filter(|_| queue.kind != QueueKind::Rpc) {
                let message = format!("queue `{name}` can't have the argument `{}`: {why}", argument.name);
                self.problem(argument.at, "bad-argument", message, Some(hint.into()));
            }
        }
        if queue.kind == QueueKind::Rpc {
            for (what, at) in &queue.fixed {
                let message =
                    format!("queue `{name}` is rpc, which its worker declares in one fixed way: it has no `{what}`");
                self.problem(*at, "bad-argument", message, Some(format!("delete `{what}`, or take another `type`")));
            }
        }
    }

    fn dead_letter_cycles(&mut self) {
        let file = self.file;
        let index: BTreeMap<&str, usize> =
            file.queues.iter().enumerate().map(|(index, (key, _))| (key.name.as_str(), index)).collect();
        let next = |queue: usize| {
            let dead = file.queues[queue].1.dead_letter.as_ref()?;
            index.get(dead.value.as_str()).copied()
        };
        // The walk that came by each queue first: a queue has one way on, so one walk is enough.
        let mut walked: Vec<Option<usize>> = vec![None; file.queues.len()];
        for start in 0..file.queues.len() {
            let mut way = Vec::new();
            let mut here = Some(start);
            while let Some(queue) = here.filter(|queue| walked[*queue].is_none()) {
                walked[queue] = Some(start);
                way.push(queue);
                here = next(queue);
            }
            let Some(first) = here.filter(|queue| walked[*queue] == Some(start)) else { continue };
            let Some(begin) = way.iter().position(|queue| *queue == first) else { continue };
            let circle = &mut way[begin..];
            let earliest = circle.iter().enumerate().min_by_key(|(_, queue)| **queue).map_or(0, |(at, _)| at);
            circle.rotate_left(earliest);
            let (key, queue) = &file.queues[circle[0]];
            let names: Vec<&str> =
                circle.iter().chain([&circle[0]]).map(|queue| file.queues[*queue].0.name.as_str()).collect();
            let message = format!("dead letters go round in a circle: {}", names.join(" → "));
            let at = queue.dead_letter.as_ref().map_or(key.at, |dead| dead.at);
            self.problem(at, "dead-letter-cycle", message, Some("let one of them keep what it gets".into()));
        }
    }
}

/// What to do about an exchange that is not there.
pub(super) fn declare_exchange(name: &str, kinds: &Kinds) -> String {
    did_you_mean(name, kinds.keys().map(String::as_str).filter(|known| !known.is_empty()))
        .map_or("declare it under `exchanges:`, or use one of the broker's own, such as `amq.topic`".to_owned(), meant)
}

fn arguments(entries: &[(Key, Node)]) -> Arguments {
    entries.iter().map(|(key, node)| (key.name.clone(), node.to_json())).collect()
}
