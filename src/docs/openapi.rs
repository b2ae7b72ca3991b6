//! OpenAPI 3.1 of a table: each route as an operation with everything that it takes and every status that it can give,
//! and the gateway's own paths.

use serde_json::{Map, Value as Json, json};

use super::{
    parts,
    paths::{Named, Placed, place},
    problems::{self, Flavour, MESSAGE},
    sample::{Described, Sample, sample, text},
    schemas::{Components, reference},
    system,
};
use crate::{
    route::{
        file::Method,
        invalid::Part,
        params::{self, Param},
        table::{Action, Body, Call, Publish, Route, Table},
    },
    settings::Settings,
};

/// The document of a table.
pub fn openapi(table: &Table, settings: &Settings) -> Json {
    let kinds = problems::kinds();
    let own = parts::schemas(&kinds);
    let mut components = Components::new(&table.schemas, own.iter().map(|(name, _)| name.as_str()));
    let described: Vec<Described<'_>> =
        table.routes.iter().map(|route| Described::new(route, &mut components)).collect();
    let placed = place(&table.routes);

    let mut paths = Map::new();
    for (described, placed) in described.iter().zip(&placed) {
        let sample = sample(described, components.ready());
        let operation = operation(table, described, placed, sample.as_ref());
        insert(&mut paths, &placed.path, &described.route.method.name().to_ascii_lowercase(), operation);
    }
    let ids: Vec<&str> = table.routes.iter().map(|route| route.id.as_str()).collect();
    for (path, method, operation) in system::operations(&ids) {
        insert(&mut paths, path, method, operation);
    }
    for (name, schema) in own {
        components.add(&name, schema);
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "fpesa",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "Generated from the table in force. A trailing slash is the same path, `HEAD` works where `GET` \
                does, and `OPTIONS` answers CORS. Every refusal is a problem (RFC 9457), and every answer carries \
                `X-Request-Id`.",
        },
        "servers": [{ "url": "/" }],
        "tags": tags(table),
        "paths": paths,
        "components": {
            "schemas": components.ready(),
            "parameters": parts::parameters(),
            "headers": parts::headers(),
            "responses": parts::responses(&kinds, settings.bus_is_embedded()),
        },
    })
}

fn insert(paths: &mut Map<String, Json>, path: &str, method: &str, operation: Json) {
    if let Some(item) = paths.entry(path).or_insert_with(|| json!({})).as_object_mut() {
        item.insert(method.to_owned(), operation);
    }
}

fn tags(table: &Table) -> Vec<Json> {
    let mut names: Vec<&str> = Vec::new();
    for tag in table.routes.iter().flat_map(|route| &route.tags) {
        if tag != system::TAG && !names.contains(&tag.as_str()) {
            names.push(tag);
        }
    }
    let mut tags: Vec<Json> = names.into_iter().map(|name| json!({ "name": name })).collect();
    tags.push(json!({ "name": system::TAG, "description": "The gateway's own paths." }));
    tags
}

fn operation(table: &Table, described: &Described<'_>, placed: &Placed, sample: Option<&Sample>) -> Json {
    let route = described.route;
    let mut out = Map::new();
    out.insert("operationId".into(), route.id.as_str().into());
    if let Some(summary) = &route.summary {
        out.insert("summary".into(), summary.as_str().into());
    }
    out.insert("description".into(), route.description.clone().unwrap_or_else(|| what_it_does(&route.action)).into());
    if !route.tags.is_empty() {
        out.insert("tags".into(), json!(route.tags));
    }
    if route.deprecated {
        out.insert("deprecated".into(), true.into());
    }
    out.insert("parameters".into(), operation_parameters(described, placed, sample).into());
    if let Some(body) = &route.body {
        out.insert("requestBody".into(), request_body(body, described.body.as_ref(), sample));
    }
    out.insert("responses".into(), Json::Object(operation_responses(table, described)));
    out.insert("x-fpesa".into(), extension(table, &route.action));
    Json::Object(out)
}

fn what_it_does(action: &Action) -> String {
    match action {
        Action::Publish(publish) if publish.mandatory => format!(
            "Publishes to the exchange `{}` with the key `{}`. Success is a promise: the broker has the message.",
            publish.exchange, publish.key.text
        ),
        Action::Publish(publish) => format!(
            "Publishes to the exchange `{}` with the key `{}`, whether anybody receives it or not.",
            publish.exchange, publish.key.text
        ),
        Action::Call(call) if call.exchange.is_empty() => {
            format!("A worker on the queue `{}` answers, within {:?}.", call.key.text, call.timeout)
        }
        Action::Call(call) => format!(
            "A worker behind the exchange `{}`, key `{}`, answers within {:?}.",
            call.exchange, call.key.text, call.timeout
        ),
    }
}

/// What the route becomes on the bus.
fn extension(table: &Table, action: &Action) -> Json {
    let (action, exchange, key) = match action {
        Action::Publish(Publish { exchange, key, .. }) => ("publish", exchange, key),
        Action::Call(Call { exchange, key, .. }) => ("call", exchange, key),
    };
    let queue = Some(&key.text).filter(|name| exchange.is_empty() && table.topology.queues.contains_key(*name));
    json!({ "action": action, "exchange": exchange, "key": key.text, "queue": queue })
}

fn operation_parameters(described: &Described<'_>, placed: &Placed, sample: Option<&Sample>) -> Vec<Json> {
    let mut out = Vec::new();
    let find =
        |part: Part, name: &str| described.params.iter().find(|(of, param, _)| *of == part && param.name == *name);
    for (name, named) in &placed.names {
        match named {
            Named::Param(of) => {
                if let Some((_, param, schema)) = find(Part::Path, of) {
                    out.push(parameter(name, Part::Path, param, schema, sample));
                }
            }
            Named::Further(of) => out.push(json!({
                "name": name, "in": "path", "required": true, "schema": { "type": "string" },
                "description": format!("A segment that belongs to `{of}`."),
            })),
        }
    }
    let others = described.params.iter().filter(|(part, ..)| *part != Part::Path);
    out.extend(others.map(|(part, param, schema)| parameter(&param.name, *part, param, schema, sample)));
    let common: &[(&str, &str)] = match described.route.action {
        Action::Publish(_) => &[("idempotency-key", "Idempotency-Key"), ("prefer", "Prefer-return")],
        Action::Call(_) => &[("prefer", "Prefer-wait")],
    };
    let traced = [("x-request-id", "X-Request-Id"), ("traceparent", "traceparent"), ("tracestate", "tracestate")];
    for (name, component) in common.iter().copied().chain(traced) {
        // The table's own parameter of that name says more.
        if find(Part::Header, name).is_none() {
            out.push(json!({ "$ref": format!("#/components/parameters/{component}") }));
        }
    }
    out
}

fn parameter(name: &str, part: Part, param: &Param, schema: &Json, sample: Option<&Sample>) -> Json {
    let mut out = Map::new();
    out.insert("name".into(), name.into());
    out.insert("in".into(), json!(part));
    out.insert("required".into(), (part == Part::Path || param.required && param.default.is_none()).into());
    for keyword in ["description", "deprecated"] {
        if let Some(value) = param.schema.json.get(keyword) {
            out.insert(keyword.into(), value.clone());
        }
    }
    if matches!(param.kind, params::Kind::Array(_)) {
        let (style, explode) = if part == Part::Query { ("form", true) } else { ("simple", false) };
        out.insert("style".into(), style.into());
        out.insert("explode".into(), explode.into());
    }
    out.insert("schema".into(), schema.clone());
    let given = sample.and_then(|sample| {
        sample.params.iter().find(|(of, named, _)| *of == part && *named == param.name).map(|(.., value)| value)
    });
    if let Some(value) = given {
        let plain = matches!(param.kind, params::Kind::String);
        out.insert("example".into(), if plain { text(value).into() } else { value.clone() });
    }
    Json::Object(out)
}

fn request_body(body: &Body, schema: Option<&Json>, sample: Option<&Sample>) -> Json {
    let schema = match schema {
        Some(schema) => schema.clone(),
        None if body.json => json!({}),
        // No bytes are no body.
        None => {
            let least = u8::from(body.required);
            if body.content_type.starts_with("text/") {
                json!({ "type": "string", "minLength": least })
            } else {
                json!({ "type": "string", "format": "binary", "minLength": least })
            }
        }
    };
    let mut media = json!({ "schema": schema });
    if let (Some(value), Some(media)) = (sample.and_then(|sample| sample.body.as_ref()), media.as_object_mut()) {
        media.insert("example".into(), value.clone());
    }
    json!({
        "required": body.required,
        "description": format!("At most {} bytes.", body.max_size),
        "content": { &body.content_type: media },
    })
}

fn operation_responses(table: &Table, described: &Described<'_>) -> Map<String, Json> {
    let route = described.route;
    let mut out = Map::new();
    let flavour = match &route.action {
        Action::Publish(publish) => {
            out.insert(publish.status.to_string(), published(publish));
            if publish.mandatory { Flavour::Publish } else { Flavour::Live }
        }
        Action::Call(_) => {
            out.insert("200".into(), answered(table, described));
            Flavour::Call
        }
    };
    let call = flavour == Flavour::Call;
    // An empty value in a path is another path.
    let in_path = !route.path_params.0.is_empty();
    let statuses = [
        (400, true),
        (403, route.method != Method::Get),
        (404, in_path || call),
        (405, in_path),
        (406, call && route.method == Method::Get),
        (408, true),
        (413, route.body.is_some()),
        (414, true),
        (415, route.body.is_some()),
        (417, true),
        (421, true),
        (422, true),
        (431, true),
        (500, true),
        (501, true),
        (502, call),
        (503, true),
        (504, true),
    ];
    for (status, _) in statuses.into_iter().filter(|(_, given)| *given) {
        let name = flavour.response(status);
        out.insert(status.to_string(), json!({ "$ref": format!("#/components/responses/{name}") }));
    }
    if call {
        out.insert("default".into(), json!({ "$ref": "#/components/responses/worker" }));
    }
    out
}

fn published(publish: &Publish) -> Json {
    let mut headers = json!({
        "X-Request-Id": { "$ref": "#/components/headers/X-Request-Id" },
        "Preference-Applied": { "$ref": "#/components/headers/Preference-Applied" },
    });
    if let (true, Some(headers)) = (publish.location, headers.as_object_mut()) {
        headers.insert("Location".into(), json!({ "$ref": "#/components/headers/Location" }));
    }
    let promise = if publish.mandatory {
        "The broker has the message, on a durable queue."
    } else {
        "The broker has the message; whoever listens gets it."
    };
    let mut out = json!({ "description": promise, "headers": headers });
    if let (true, Some(out)) = (publish.status != 204, out.as_object_mut()) {
        let example = json!({ "id": MESSAGE });
        out.insert(
            "content".into(),
            json!({ "application/json": { "schema": reference("Published", ""), "example": example } }),
        );
    }
    out
}

fn answered(table: &Table, described: &Described<'_>) -> Json {
    let ours = history(table, described.route);
    let content = match (&described.reply, ours) {
        (Some(schema), _) => json!({ "application/json": { "schema": schema } }),
        (None, Some(schema)) => json!({ "application/json": { "schema": reference(schema, "") } }),
        // Nothing is said of it: JSON when the worker names no type, else anything.
        (None, None) => json!({ "application/json": {}, "*/*": {} }),
    };
    json!({
        "description": "The worker's answer.",
        "headers": parts::worker_headers(),
        "content": content,
    })
}

/// The schema of what this route answers, where a history worker of the table does.
pub(super) fn history(table: &Table, route: &Route) -> Option<&'static str> {
    let Action::Call(call) = &route.action else { return None };
    let ours = |queue: &str| table.workers.values().any(|worker| worker.kind == "history" && worker.queue == queue);
    if !call.exchange.is_empty() || !ours(&call.key.text) {
        return None;
    }
    let one = route.path_params.0.iter().any(|param| param.name == "id");
    Some(if one { "Event" } else { "HistoryPage" })
}
