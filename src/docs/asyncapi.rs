//! AsyncAPI 3.0 of a table: the gateway and its workers are the application, which sends what routes publish and ask,
//! receives what its workers consume, and sends the feed to browsers.

use std::collections::BTreeMap;

use serde_json::{Map, Value as Json, json};

use super::{
    dialect::older,
    messages, problems,
    sample::{Described, sample},
    schemas::Components,
    servers::{self, BUS, FEED},
    system,
};
use crate::{
    route::{
        compile::may_match,
        file::Payload,
        table::{Action, Call, Publish, Route, Table},
        template::{From, Piece, Reference, Template},
    },
    settings::Settings,
    topology::{QueueKind, Topology},
};

/// The exchange that the feed listens to.
const FEED_EXCHANGE: &str = "amq.topic";
/// Version of the AMQP bindings.
const AMQP: &str = "0.3.0";
/// The channel of replies.
const REPLIES: &str = "replies";

/// The document of a table.
pub fn asyncapi(table: &Table, settings: &Settings) -> Json {
    let own = [
        ("Problem".to_owned(), problems::any_schema()),
        ("Event".to_owned(), system::event_schema()),
        ("HistoryPage".to_owned(), system::history_schema()),
    ];
    let mut components = Components::new(&table.schemas, own.iter().map(|(name, _)| name.as_str()));
    let described: Vec<Described<'_>> =
        table.routes.iter().map(|route| Described::new(route, &mut components)).collect();
    let mut out = Writer { table, vhost: servers::vhost(settings), ..Writer::new(table) };
    for described in &described {
        let sample = sample(described, components.ready());
        out.route(described, sample.as_ref().map(|sample| &sample.message));
    }
    out.workers();
    out.feed();
    for (name, schema) in own {
        components.add(&name, schema);
    }
    let schemas: Map<String, Json> =
        components.ready().iter().map(|(name, schema)| (name.clone(), older(schema))).collect();
    json!({
        "asyncapi": "3.0.0",
        "info": {
            "title": "fpesa",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "Generated from the table in force. The application is the gateway with the table's workers.",
        },
        "defaultContentType": "application/json",
        "servers": servers::servers(settings),
        "channels": out.channels,
        "operations": out.operations,
        "components": { "messages": out.messages, "schemas": schemas },
    })
}

struct Writer<'t> {
    table: &'t Table,
    vhost: String,
    channels: Map<String, Json>,
    operations: Map<String, Json>,
    messages: Map<String, Json>,
}

impl<'t> Writer<'t> {
    fn new(table: &'t Table) -> Self {
        Self { table, vhost: "/".into(), channels: Map::new(), operations: Map::new(), messages: Map::new() }
    }

    fn route(&mut self, described: &Described<'_>, example: Option<&crate::message::Message>) {
        let route = described.route;
        let channel = format!("route.{}", route.id);
        match &route.action {
            Action::Publish(publish) => {
                let name = message_name(route);
                self.messages.insert(name.clone(), messages::published(described, publish, example));
                self.channel(&channel, route, &publish.exchange, &publish.key, &name);
                self.operations.insert(
                    format!("publish.{}", route.id),
                    json!({
                        "action": "send",
                        "summary": title(route),
                        "channel": to_channel(&channel),
                        "messages": [to_message(&channel, &name)],
                        "bindings": { "amqp": published_with(publish) },
                    }),
                );
            }
            Action::Call(call) => {
                let (name, reply) = (message_name(route), format!("reply.{}", route.id));
                self.messages.insert(name.clone(), messages::asked(described, example));
                self.messages.insert(reply.clone(), messages::answered(self.table, described));
                self.channel(&channel, route, &call.exchange, &call.key, &name);
                self.add_message(REPLIES, &reply);
                self.operations.insert(
                    format!("call.{}", route.id),
                    json!({
                        "action": "send",
                        "summary": title(route),
                        "channel": to_channel(&channel),
                        "messages": [to_message(&channel, &name)],
                        "bindings": { "amqp": asked_with(call) },
                        "reply": {
                            "address": {
                                "location": "$message.header#/reply_to",
                                "description": "The property `reply_to`; the reply carries the request's `correlation_id`.",
                            },
                            "channel": to_channel(REPLIES),
                            "messages": [to_message(REPLIES, &reply)],
                        },
                    }),
                );
            }
        }
    }

    /// The channel of a route: an exchange with a routing key, or a queue.
    fn channel(&mut self, name: &str, route: &Route, exchange: &str, key: &Template, message: &str) {
        let bindings = if exchange.is_empty() { self.queue(&key.text) } else { self.exchange(exchange) };
        let mut channel = json!({
            "address": address(key, &route.id),
            "title": format!("{} {}", route.method.name(), route.path),
            "servers": [to_server(BUS)],
            "messages": to_components(&[message.to_owned()]),
            "bindings": { "amqp": bindings },
        });
        let parameters = parameters(key, route);
        if let (Some(channel), false) = (channel.as_object_mut(), parameters.is_empty()) {
            channel.insert("parameters".into(), parameters.into());
        }
        self.channels.insert(name.to_owned(), channel);
    }

    /// The binding of an exchange.
    fn exchange(&self, name: &str) -> Json {
        let mut exchange = json!({ "name": name, "durable": true, "autoDelete": false, "vhost": self.vhost });
        let kind = kind(name, &self.table.topology);
        if let Some(exchange) = exchange.as_object_mut()
            && !kind.is_empty()
        {
            // The binding knows the standard's types alone.
            let standard = ["topic", "direct", "fanout", "headers"].contains(&kind);
            exchange.insert(if standard { "type" } else { "x-type" }.into(), kind.into());
        }
        json!({ "is": "routingKey", "exchange": exchange, "bindingVersion": AMQP })
    }

    /// The binding of a queue.
    fn queue(&self, name: &str) -> Json {
        let rpc = self.table.topology.queues.get(name).is_some_and(|queue| queue.kind == QueueKind::Rpc);
        json!({
            "is": "queue",
            "queue": { "name": name, "durable": true, "exclusive": false, "autoDelete": rpc, "vhost": self.vhost },
            "bindingVersion": AMQP,
        })
    }

    fn add_message(&mut self, channel: &str, message: &str) {
        let channel = self.channels.entry(channel).or_insert_with(|| {
            json!({
                "address": null,
                "title": "Replies",
                "description": "One exclusive queue for each gateway process, named by `reply_to`.",
                "servers": [to_server(BUS)],
                "messages": {},
            })
        });
        if let Some(messages) = channel.get_mut("messages").and_then(Json::as_object_mut) {
            messages.insert(message.to_owned(), json!({ "$ref": format!("#/components/messages/{message}") }));
        }
    }

    /// What the table's workers receive, each from its queue.
    fn workers(&mut self) {
        let table = self.table;
        let mut channels: BTreeMap<&str, String> = BTreeMap::new();
        for (name, worker) in &table.workers {
            let queue = worker.queue.as_str();
            let given = names(table, |route| match &route.action {
                Action::Publish(publish) => publish.reaches.contains(queue),
                Action::Call(call) => call.exchange.is_empty() && call.key.text == queue,
            });
            let channel = channels.entry(queue).or_insert_with(|| {
                let id = free(&self.channels, &format!("queue.{}", words(queue)));
                let channel = json!({
                    "address": queue,
                    "title": format!("The queue {queue}"),
                    "servers": [to_server(BUS)],
                    "messages": to_components(&given),
                    "bindings": { "amqp": self.queue(queue) },
                });
                self.channels.insert(id.clone(), channel);
                id
            });
            let operation = json!({
                "action": "receive",
                "title": format!("The worker {name}"),
                "channel": to_channel(channel),
                "bindings": { "amqp": { "ack": true, "bindingVersion": AMQP } },
            });
            let id = free(&self.operations, &format!("work.{}", words(name)));
            self.operations.insert(id, with_messages(operation, channel, &given));
        }
    }

    /// What browsers get.
    fn feed(&mut self) {
        for filter in &self.table.feed {
            let filter = filter.as_str();
            let pattern = filter.replace('/', ".").replace('+', "*");
            let given = names(self.table, |route| match &route.action {
                Action::Publish(publish) => publish.exchange == FEED_EXCHANGE && may_match(&pattern, &publish.key),
                Action::Call(_) => false,
            });
            let id = free(&self.channels, &format!("feed.{}", words(filter)));
            self.channels.insert(
                id.clone(),
                json!({
                    "address": filter,
                    "title": format!("The feed {filter}"),
                    "description": "An MQTT filter that browsers may subscribe. A topic is a routing key with `/` for `.`.",
                    "servers": [to_server(FEED)],
                    "messages": to_components(&given),
                }),
            );
            let operation = json!({
                "action": "send",
                "title": format!("Subscribers of {filter}"),
                "channel": to_channel(&id),
                "bindings": { "mqtt": { "qos": 0, "retain": false, "bindingVersion": "0.2.0" } },
            });
            let operation = with_messages(operation, &id, &given);
            self.operations.insert(free(&self.operations, &id), operation);
        }
    }
}

/// Names of the messages of some routes.
fn names(table: &Table, of: impl Fn(&Route) -> bool) -> Vec<String> {
    table.routes.iter().filter(|route| of(route)).map(|route| message_name(route)).collect()
}

fn to_server(name: &str) -> Json {
    json!({ "$ref": format!("#/servers/{name}") })
}

fn to_components(messages: &[String]) -> Map<String, Json> {
    let to = |name: &String| (name.clone(), json!({ "$ref": format!("#/components/messages/{name}") }));
    messages.iter().map(to).collect()
}

/// An operation that carries some of its channel's messages; none named would be all.
fn with_messages(mut operation: Json, channel: &str, messages: &[String]) -> Json {
    let all: Vec<Json> = messages.iter().map(|name| to_message(channel, name)).collect();
    if let (Some(operation), false) = (operation.as_object_mut(), all.is_empty()) {
        operation.insert("messages".into(), all.into());
    }
    operation
}

/// A name like `wish` that is not among the keys.
fn free(among: &Map<String, Json>, wish: &str) -> String {
    let names = std::iter::once(wish.to_owned()).chain((2..).map(|n| format!("{wish}_{n}")));
    names.into_iter().find(|name| !among.contains_key(name)).unwrap_or_default()
}

fn title(route: &Route) -> String {
    route.summary.clone().unwrap_or_else(|| format!("{} {}", route.method.name(), route.path))
}

/// The name of the message that a route makes.
fn message_name(route: &Route) -> String {
    let kind = if matches!(route.action, Action::Publish(_)) { "publish" } else { "call" };
    format!("{kind}.{}", route.id)
}

fn to_channel(name: &str) -> Json {
    json!({ "$ref": format!("#/channels/{name}") })
}

fn to_message(channel: &str, name: &str) -> Json {
    json!({ "$ref": format!("#/channels/{channel}/messages/{name}") })
}

/// A name with nothing but what an identifier may have.
fn words(name: &str) -> String {
    name.chars().map(|c| if c.is_ascii_alphanumeric() || "._-".contains(c) { c } else { '_' }).collect()
}

/// Type of an exchange; empty where the table does not say it.
fn kind<'t>(name: &str, topology: &'t Topology) -> &'t str {
    match name {
        "" | "amq.direct" => "direct",
        FEED_EXCHANGE => "topic",
        "amq.fanout" => "fanout",
        "amq.headers" | "amq.match" => "headers",
        name => topology.exchanges.get(name).map_or("", |exchange| exchange.kind.as_str()),
    }
}

fn published_with(publish: &Publish) -> Json {
    let mut out =
        json!({ "deliveryMode": 2, "mandatory": publish.mandatory, "timestamp": true, "bindingVersion": AMQP });
    if let Some(out) = out.as_object_mut() {
        if let Some(expires) = publish.expires {
            out.insert("expiration".into(), json!(u64::try_from(expires.as_millis()).unwrap_or(u64::MAX)));
        }
        if let Some(priority) = publish.priority {
            out.insert("priority".into(), priority.into());
        }
    }
    out
}

fn asked_with(call: &Call) -> Json {
    let most = u64::try_from(call.timeout.as_millis()).unwrap_or(u64::MAX);
    json!({ "expiration": most, "mandatory": true, "timestamp": true, "bindingVersion": AMQP })
}

/// A template as an address: `messages.{body.topic:-general}` is `messages.{body_topic}`.
fn address(key: &Template, route: &str) -> String {
    let part = |piece: &Piece| match piece {
        // An address has no way to write a brace of its own.
        Piece::Literal(text) => text.replace('{', "%7B").replace('}', "%7D"),
        Piece::Reference(Reference { from: From::Route, .. }) => route.to_owned(),
        Piece::Reference(reference) => format!("{{{}}}", parameter(&reference.from)),
    };
    key.pieces.iter().map(part).collect()
}

fn parameter(from: &From) -> String {
    let fits = |c: char| c.is_ascii_alphanumeric() || c == '-';
    from.to_string().chars().map(|c| if fits(c) { c } else { '_' }).collect()
}

fn parameters(key: &Template, route: &Route) -> Map<String, Json> {
    let event = matches!(&route.action, Action::Publish(publish) if publish.payload == Payload::Event);
    let mut out = Map::new();
    for reference in key.references().filter(|reference| reference.from != From::Route) {
        let mut parameter_object = Map::new();
        parameter_object.insert("description".into(), format!("`{}` of the request.", reference.from).into());
        if let Some(default) = &reference.default {
            parameter_object.insert("default".into(), default.as_str().into());
        }
        let location = match &reference.from {
            From::Body(path) if event => Some(format!("/data/{}", path.join("/"))),
            From::Body(path) if matches!(route.action, Action::Publish(_)) => Some(format!("/{}", path.join("/"))),
            From::Body(path) => Some(format!("/body/{}", path.join("/"))),
            From::Id if event => Some("/id".into()),
            _ => None,
        };
        if let Some(location) = location {
            parameter_object.insert("location".into(), format!("$message.payload#{location}").into());
        }
        out.insert(parameter(&reference.from), parameter_object.into());
    }
    out
}
