//! `fpesa broker definitions`: users, permissions, the policy that bounds a browser's queue, and the table's topology.

use serde_json::{Value, json};

use super::{FEED_EXCHANGE, FEED_QUEUES, MissingSetting, password::hash, topics::readable};
use crate::{
    bus::amqp::Login,
    route::table::Table,
    settings::{Secret, Settings},
    topology::{Declare, QueueKind, Topology, Version},
};

/// What one stalled browser may cost the broker: the oldest messages go first.
const FEED_MESSAGES: u64 = 1_000;
const FEED_BYTES: u64 = 4 * 1024 * 1024;

/// Definitions for `rabbitmqctl import_definitions`. The users are those of the settings `bus` and `feed`; passwords are
/// there as salted hashes alone.
pub fn definitions(settings: &Settings, table: &Table, version: Version) -> Result<Value, MissingSetting> {
    let missing = |why: &str| MissingSetting(why.to_owned());
    if settings.bus_is_embedded() {
        return Err(missing(
            "definitions are for RabbitMQ: say which with --bus amqp://user@host:5672/vhost (the password in bus_password_file)",
        ));
    }
    let login = Login::of(settings).map_err(MissingSetting)?;
    let Some(password) = login.password.as_deref().filter(|password| !password.is_empty()) else {
        return Err(missing(
            "the user of `bus` has no password: give it in bus_password_file (or FPESA_BUS_PASSWORD); there is no default",
        ));
    };
    let browser = settings.feed.username.as_deref().unwrap_or("browser");
    let Some(look) = settings.feed.password.as_ref().map(Secret::expose).filter(|password| !password.is_empty()) else {
        return Err(missing(
            "the browser's user has no password: give feed.password (or FPESA_FEED__PASSWORD); it is public, and good for reading only",
        ));
    };
    if login.user == browser {
        return Err(missing("feed.username must not be the user of `bus`: browsers get it, and it may only read"));
    }
    let vhost = &login.vhost;
    let own = format!("{FEED_QUEUES}.*$");
    let user = |name: &str, password: &str| {
        json!({ "name": name, "password_hash": hash(password),
                "hashing_algorithm": "rabbit_password_hashing_sha256", "tags": "" })
    };
    Ok(json!({
        "vhosts": [{ "name": vhost }],
        "users": [user(&login.user, password), user(browser, look)],
        "permissions": [
            { "user": login.user, "vhost": vhost, "configure": ".*", "write": ".*", "read": ".*" },
            { "user": browser, "vhost": vhost, "configure": own, "write": own,
              "read": format!("^(mqtt-subscription-.*|{})$", FEED_EXCHANGE.replace('.', "\\.")) },
        ],
        "topic_permissions": [
            { "user": browser, "vhost": vhost, "exchange": FEED_EXCHANGE, "write": "^$", "read": readable(&table.feed) },
        ],
        "policies": [
            { "vhost": vhost, "name": "fpesa-feed", "pattern": FEED_QUEUES, "apply-to": "queues", "priority": 0,
              "definition": { "max-length": FEED_MESSAGES, "max-length-bytes": FEED_BYTES, "overflow": "drop-head" } },
        ],
        "exchanges": exchanges(&table.topology, vhost),
        "queues": queues(&table.topology, vhost, version),
        "bindings": bindings(&table.topology, vhost),
    }))
}

fn exchanges(topology: &Topology, vhost: &str) -> Vec<Value> {
    let ours = topology.exchanges.iter().filter(|(_, exchange)| exchange.declare == Declare::Active);
    ours.map(|(name, exchange)| {
        json!({ "name": name, "vhost": vhost, "type": exchange.kind, "durable": true, "auto_delete": false,
                "internal": false, "arguments": exchange.arguments })
    })
    .collect()
}

/// All but those that others declare: an `rpc` queue is its worker's.
fn queues(topology: &Topology, vhost: &str, version: Version) -> Vec<Value> {
    let ours =
        topology.queues.iter().filter(|(_, queue)| queue.declare == Declare::Active && queue.kind != QueueKind::Rpc);
    ours.map(|(name, queue)| {
        json!({ "name": name, "vhost": vhost, "durable": true, "auto_delete": false,
                "arguments": queue.declared_arguments(version) })
    })
    .collect()
}

fn bindings(topology: &Topology, vhost: &str) -> Vec<Value> {
    let mut bindings = Vec::new();
    for (name, queue) in &topology.queues {
        if queue.declare == Declare::Passive || queue.kind == QueueKind::Rpc {
            continue;
        }
        for binding in &queue.bind {
            bindings.push(json!({ "source": binding.exchange, "vhost": vhost, "destination": name,
                "destination_type": "queue", "routing_key": binding.key, "arguments": binding.arguments }));
        }
    }
    bindings
}
