//! `fpesa broker definitions`: users, permissions, the policy that bounds a browser's queue, and the table's topology.

use serde_json::{Value, json};

use super::{FEED_EXCHANGE, FEED_QUEUES, MissingSetting, password::hash, topics::readable};
use crate::{
    bus::amqp::Login,
    route::table::Table,
    settings::{Secret, Settings},
    topology::{Declare, Queue, QueueKind, Topology, Version},
};

/// What one stalled browser may cost the broker, in bytes: the oldest messages go first. Bytes alone: a browser that reads a
/// burst of small messages slowly gets as many of them as fit.
const FEED_BYTES: u64 = 4 * 1024 * 1024;

/// What is known of the broker that definitions are for.
#[derive(Debug, Clone, Copy, Default)]
pub struct Broker {
    /// `None`: of any version.
    pub version: Option<Version>,
    /// Whether the user of `bus` is there already: an import would take its tags.
    pub has_user: bool,
}

/// Definitions for `rabbitmqctl import_definitions`, and notes for who imports them. The users are those of the settings `bus`
/// and `feed`; passwords are there as salted hashes alone.
pub fn definitions(settings: &Settings, table: &Table, broker: Broker) -> Result<(Value, Vec<String>), MissingSetting> {
    let missing = |why: &str| MissingSetting(why.to_owned());
    if settings.bus_is_embedded() {
        return Err(missing(
            "definitions are for RabbitMQ: say which with --bus amqp://user@host:5672/vhost (the password in bus_password_file)",
        ));
    }
    let login = Login::of(settings).map_err(MissingSetting)?;
    // RabbitMQ makes `guest` itself.
    let leaves_user_out = broker.has_user || login.user == "guest";
    let password = login.password.as_deref().filter(|password| !password.is_empty());
    if password.is_none() && !leaves_user_out {
        return Err(missing(
            "the user of `bus` has no password: give it in bus_password_file (or FPESA_BUS_PASSWORD); there is no default",
        ));
    }
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
    // From RabbitMQ 4 on, a subscriber at QoS 0 is fed from its connection's mailbox, which no policy bounds: one stalled
    // browser cost a node hundreds of megabytes. So browsers may have queues for QoS 1 alone, unless the broker is older.
    let queues_of =
        if broker.version.is_some_and(|version| (1..4).contains(&version.major)) { ".*$" } else { ".*qos1$" };
    let own = format!("{FEED_QUEUES}{queues_of}");
    let user = |name: &str, password: &str| {
        json!({ "name": name, "password_hash": hash(password),
                "hashing_algorithm": "rabbit_password_hashing_sha256", "tags": "" })
    };
    let mut notes = Vec::new();
    let mut browsers = user(browser, look);
    // Together with FEED_BYTES it bounds what all browsers cost.
    browsers["limits"] = json!({ "max-connections": settings.limits.feed_sessions });
    let mut users = vec![browsers];
    let mut permissions = vec![json!({
        "user": browser, "vhost": vhost, "configure": own, "write": own,
        "read": format!("^(mqtt-subscription-.*|{})$", FEED_EXCHANGE.replace('.', "\\."))
    })];
    match password {
        Some(password) if !leaves_user_out => {
            users.insert(0, user(&login.user, password));
            permissions.insert(
                0,
                json!({ "user": login.user, "vhost": vhost, "configure": ".*", "write": ".*", "read": ".*" }),
            );
            notes.push(format!(
                "the user `{}` is in them, without tags: if it is on the broker already, delete it from `users` before the import",
                login.user
            ));
        }
        _ => notes.push(format!(
            "the user `{}` is left out, so that it keeps its tags and permissions; `fpesa broker permissions` prints what it needs",
            login.user
        )),
    }
    let left_out = left_out(&table.topology, broker.version);
    if !left_out.is_empty() {
        notes.push(format!(
            "left out, because RabbitMQ 3 and 4 need them declared differently and the broker can't be asked: {}. Gateways and \
             workers declare them when they connect; or give --rabbitmq with the broker's major version",
            left_out.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
        ));
    }
    let version = broker.version.unwrap_or_default();
    let topology = without(&table.topology, &left_out);
    let topology = &topology;
    let definitions = json!({
        "vhosts": [{ "name": vhost }],
        "users": users,
        "permissions": permissions,
        "topic_permissions": [
            { "user": browser, "vhost": vhost, "exchange": FEED_EXCHANGE, "write": "^$", "read": readable(&table.feed) },
        ],
        "policies": [
            { "vhost": vhost, "name": "fpesa-feed", "pattern": FEED_QUEUES, "apply-to": "queues", "priority": 0,
              "definition": { "max-length-bytes": FEED_BYTES, "overflow": "drop-head" } },
        ],
        "exchanges": exchanges(topology, vhost),
        "queues": queues(topology, vhost, version),
        "bindings": bindings(topology, vhost),
    });
    Ok((definitions, notes))
}

/// Queues that must never drop: from RabbitMQ 4 on that is said with an argument that makes 3.x drop.
fn left_out(topology: &Topology, version: Option<Version>) -> Vec<String> {
    let differs = |queue: &Queue| version.is_none() && queue.keeps_for_ever(Version { major: 4 });
    topology.queues.iter().filter(|(_, queue)| differs(queue)).map(|(name, _)| name.clone()).collect()
}

fn without(topology: &Topology, left_out: &[String]) -> Topology {
    let mut topology = topology.clone();
    topology.queues.retain(|name, _| !left_out.contains(name));
    topology
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
