//! Declaring a topology exactly as the wire contract has it, and telling a difference in one sentence.

use std::collections::BTreeSet;

use lapin::{
    Channel, Connection, ExchangeKind,
    options::{ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions},
    types::FieldTable,
};

use super::convert::{arguments, short};
use crate::{
    bus::{BusError, Fault},
    topology::{Declare, Exchange, QueueKind, Topology, Version},
};

/// Declares everything but `rpc` queues, dead-letter queues first.
pub(super) async fn declare(connection: &Connection, topology: &Topology, version: Version) -> Result<(), BusError> {
    // An error closes its channel: one of its own keeps everything else from it.
    let channel = connection.create_channel().await.map_err(|error| BusError::Down(error.to_string()))?;
    for (name, exchange) in &topology.exchanges {
        declare_exchange(&channel, name, exchange).await.map_err(|error| told("exchange", name, &error))?;
    }
    for name in dead_letters_first(topology) {
        let Some(queue) = topology.queues.get(name) else { continue };
        let options = QueueDeclareOptions {
            durable: true,
            passive: queue.declare == Declare::Passive,
            ..QueueDeclareOptions::default()
        };
        // One from before the broker's upgrade has no such argument, and is not another queue for that.
        let from_before = queue.keeps_for_ever(version) && exists(connection, name).await;
        if !from_before {
            let declared = channel.queue_declare(short(name), options, arguments(&queue.declared_arguments(version)));
            declared.await.map_err(|error| told("queue", name, &error))?;
        }
        for binding in queue.bind.iter().filter(|_| queue.declare == Declare::Active) {
            let bound = channel.queue_bind(
                short(name),
                short(&binding.exchange),
                short(&binding.key),
                QueueBindOptions::default(),
                arguments(&binding.arguments),
            );
            bound.await.map_err(|error| told("the binding of queue", name, &error))?;
        }
    }
    let _ = channel.close(200, "declared".into()).await;
    Ok(())
}

/// Whether a queue is there, whatever its arguments; on a channel of its own, which a missing one closes.
async fn exists(connection: &Connection, queue: &str) -> bool {
    let Ok(channel) = connection.create_channel().await else { return false };
    let options = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
    let there = channel.queue_declare(short(queue), options, FieldTable::default()).await.is_ok();
    let _ = channel.close(200, "looked".into()).await;
    there
}

async fn declare_exchange(channel: &Channel, name: &str, exchange: &Exchange) -> lapin::Result<()> {
    let kind = match exchange.kind.as_str() {
        "topic" => ExchangeKind::Topic,
        "direct" | "" => ExchangeKind::Direct,
        "fanout" => ExchangeKind::Fanout,
        "headers" => ExchangeKind::Headers,
        other => ExchangeKind::Custom(other.to_owned()),
    };
    let passive = exchange.declare == Declare::Passive;
    let options = ExchangeDeclareOptions { durable: true, passive, ..ExchangeDeclareOptions::default() };
    channel.exchange_declare(short(name), kind, options, arguments(&exchange.arguments)).await
}

/// A queue's dead-letter queue stands before it.
fn dead_letters_first(topology: &Topology) -> Vec<&str> {
    fn visit<'t>(topology: &'t Topology, name: &'t str, done: &mut BTreeSet<&'t str>, order: &mut Vec<&'t str>) {
        let Some(queue) = topology.queues.get(name).filter(|queue| queue.kind != QueueKind::Rpc) else { return };
        if !done.insert(name) {
            return;
        }
        if let Some(dead) = &queue.dead_letter {
            visit(topology, dead, done, order);
        }
        order.push(name);
    }
    let (mut done, mut order) = (BTreeSet::new(), Vec::new());
    for name in topology.queues.keys() {
        visit(topology, name, &mut done, &mut order);
    }
    order
}

/// A refusal as one sentence that names what differs; anything else is a broken link.
fn told(what: &str, name: &str, error: &lapin::Error) -> BusError {
    let text = error.to_string();
    let lower = text.to_lowercase();
    let differs = |why| {
        BusError::Topology(vec![if what == "exchange" { Fault::exchange(name, why) } else { Fault::queue(name, why) }])
    };
    if lower.contains("precondition") || lower.contains("inequivalent") {
        // "inequivalent arg 'x' for queue 'q' in vhost '/': received 'a' but current is 'b'"
        let difference =
            text.find("inequivalent").map_or(text.as_str(), |at| text[at..].split('"').next().unwrap_or(""));
        return differs(format!(
            "{what} `{name}` exists on the broker and differs ({difference}): give it another name, make the table say \
             what is there, or delete it on the broker"
        ));
    }
    if lower.contains("not-found")
        || lower.contains("not_found")
        || lower.contains("no queue")
        || lower.contains("no exchange")
    {
        return differs(format!("{what} `{name}` is not on the broker, and the table says that others declare it"));
    }
    if lower.contains("access") {
        return differs(format!("{what} `{name}`: the broker's user may not declare it"));
    }
    BusError::Down(text)
}

/// Whether a channel's error says that a queue or exchange is not there.
pub(super) fn is_not_found(error: &lapin::Error) -> bool {
    let lower = error.to_string().to_lowercase();
    lower.contains("not-found") || lower.contains("not_found")
}
