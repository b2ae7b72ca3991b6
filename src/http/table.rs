//! `/table.json`: the table in force as a map for people (endpoint, exchange and key, queues, workers), with how the queues
//! are now and how the last edit went. Names and shapes alone: no settings, no headers' values.

use serde_json::{Map, Value, json};

use super::vitals::Vitals;
use crate::{
    bus::QueueNow,
    live::Reloaded,
    route::{
        problem::Excerpt,
        table::{Action, Route, Table},
    },
    topology::{Queue, QueueKind},
};

/// The document.
pub(super) fn document(vitals: &Vitals) -> Value {
    let in_force = vitals.live.get();
    let table = &in_force.table;
    let now = vitals.bus.queues();
    let queues: Vec<Value> =
        table.topology.queues.iter().map(|(name, queue)| queue_of(name, queue, now.get(name))).collect();
    let exchanges: Map<String, Value> =
        table.topology.exchanges.iter().map(|(name, exchange)| (name.clone(), exchange.kind.as_str().into())).collect();
    let workers: Vec<Value> = table
        .workers
        .iter()
        .map(|(name, worker)| json!({ "name": name, "kind": worker.kind, "queue": worker.queue }))
        .collect();
    json!({
        "generation": in_force.generation,
        "reload": reload(&vitals.live.reloaded()),
        "bus": vitals.bus.state().link.word(),
        "routes": table.routes.iter().map(|route| route_of(route, table)).collect::<Vec<_>>(),
        "exchanges": exchanges,
        "queues": queues,
        "workers": workers,
        "feed": table.feed.iter().map(fpesa_workers::topic::Filter::as_str).collect::<Vec<_>>(),
    })
}

/// How the last edit went; each problem with its line as it is written.
fn reload(reloaded: &Reloaded) -> Value {
    let mut told = json!(reloaded);
    if let Some(problems) = told["problems"].as_array_mut() {
        for (told, problem) in problems.iter_mut().zip(&reloaded.problems) {
            // Where the table lies on this machine is nobody's business.
            let file = std::path::Path::new(&problem.file);
            if let Some(name) = file.file_name().filter(|_| file.is_absolute()) {
                told["file"] = name.to_string_lossy().into();
            }
            let Excerpt { text, column, width } = problem.excerpt();
            told["excerpt"] = json!({ "text": text, "column": column, "width": width });
        }
    }
    told
}

fn route_of(route: &Route, table: &Table) -> Value {
    let mut told = json!({
        "id": route.id,
        "method": route.method.name(),
        "path": route.path,
        "summary": route.summary,
        "deprecated": route.deprecated,
    });
    let (action, exchange, key) = match &route.action {
        Action::Publish(publish) => ("publish", &publish.exchange, &publish.key.text),
        Action::Call(call) => ("call", &call.exchange, &call.key.text),
    };
    told["action"] = action.into();
    told["exchange"] = exchange.as_str().into();
    told["key"] = key.as_str().into();
    told["queues"] = match &route.action {
        Action::Publish(publish) => json!(publish.reaches),
        Action::Call(call) if call.exchange.is_empty() && table.topology.queues.contains_key(&call.key.text) => {
            json!([call.key.text])
        }
        Action::Call(_) => json!([]),
    };
    if let Action::Publish(publish) = &route.action {
        // A route that nobody needs to hear: live only.
        told["accepts_unroutable"] = (!publish.mandatory).into();
    }
    told
}

/// `consumers` and `messages` are null where the bus does not know them (yet); `there` says whether the queue is.
fn queue_of(name: &str, queue: &Queue, now: Option<&Option<QueueNow>>) -> Value {
    let kind = match queue.kind {
        QueueKind::Quorum => "quorum",
        QueueKind::Classic => "classic",
        QueueKind::Stream => "stream",
        QueueKind::Rpc => "rpc",
    };
    let bind: Vec<Value> =
        queue.bind.iter().map(|binding| json!({ "exchange": binding.exchange, "key": binding.key })).collect();
    let counts = now.copied().flatten();
    json!({
        "name": name,
        "type": kind,
        "bind": bind,
        "dead_letter": queue.dead_letter,
        "max_length": queue.max_length,
        "there": now.map(Option::is_some),
        "consumers": counts.map(|now| now.consumers),
        "messages": counts.map(|now| now.messages),
    })
}
