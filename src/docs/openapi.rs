//! OpenAPI 3.1 of a table: each route as an operation with everything that it takes and every status that it can give,
//! and the gateway's own paths.

use serde_json::{Map, Value as Json, json};

use super::{
    paths::{Named, Placed, place},
    problems::{self, Flavour, Kind, MESSAGE, REQUEST},
    sample::{Described, Sample, TRACE, sample, text},
    schemas::{Components, reference},
    system,
};
use crate::{
    message::PROBLEM,
    route::{
        invalid::Part,
        params::{self, Param},
        table::{Action, Body, Call, Publish, Route, Table},
    },
    settings::Settings,
};

/// The document of a table.
pub fn openapi(table: &Table, settings: &Settings) -> Json {
    let kinds = problems::kinds();
    let own = own_schemas(&kinds);
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
    for (path, operation) in system::operations(&ids) {
        insert(&mut paths, path, "get", operation);
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
            "parameters": parameters(),
            "headers": headers(),
            "responses": responses(&kinds, settings.bus_is_embedded()),
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
        (404, in_path || call),
        (405, in_path),
        (406, true),
        (408, true),
        (413, route.body.is_some()),
        (414, true),
        (415, route.body.is_some()),
        (422, true),
        (431, true),
        (500, true),
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
    let header = |name: &str| json!({ "$ref": format!("#/components/headers/{name}") });
    let ours = history(table, described.route);
    let content = match (&described.reply, ours) {
        (Some(schema), _) => json!({ "application/json": { "schema": schema } }),
        (None, Some(schema)) => json!({ "application/json": { "schema": reference(schema, "") } }),
        // Nothing is said of it: JSON when the worker names no type, else anything.
        (None, None) => json!({ "application/json": {}, "*/*": {} }),
    };
    json!({
        "description": "The worker's answer.",
        "headers": {
            "X-Request-Id": header("X-Request-Id"),
            "Link": header("Link"),
            "ETag": header("ETag"),
            "Cache-Control": header("Cache-Control"),
            "Location": header("Location"),
        },
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

/// Schemas of our own.
fn own_schemas(kinds: &[Kind]) -> Vec<(String, Json)> {
    let mut out: Vec<(String, Json)> = vec![
        ("Problem".into(), problems::any_schema()),
        ("FieldError".into(), problems::field_error_schema()),
        (
            "Published".into(),
            json!({
                "type": "object",
                "required": ["id"],
                "properties": { "id": { "type": "string", "format": "uuid", "description": "The message's id." } },
            }),
        ),
        ("Event".into(), system::event_schema()),
        ("HistoryPage".into(), system::history_schema()),
    ];
    out.extend(system::schemas());
    for kind in kinds {
        let name = problems::name(&kind.problem);
        if !out.iter().any(|(known, _)| *known == name) {
            out.push((name, problems::schema(&kind.problem)));
        }
    }
    out
}

fn parameters() -> Json {
    json!({
        "Idempotency-Key": {
            "name": "Idempotency-Key", "in": "header",
            "description": "The message's id, a UUID, bare or quoted: a message that is sent again with it is kept once.",
            "schema": { "type": "string", "format": "uuid" },
            "example": MESSAGE,
        },
        "Prefer-return": {
            "name": "Prefer", "in": "header",
            "description": "`return=minimal` for an answer without a body (RFC 7240). Anything else is passed over.",
            "schema": { "type": "string" },
        },
        "Prefer-wait": {
            "name": "Prefer", "in": "header",
            "description": "`wait=N` for a deadline of N seconds, where that is shorter than the route's (RFC 7240). Anything else is passed over.",
            "schema": { "type": "string" },
        },
        "X-Request-Id": {
            "name": "X-Request-Id", "in": "header",
            "description": "Comes back as it is when it is 1 to 128 letters, digits, `-`, `_` and `.`; else the gateway makes one.",
            "schema": { "type": "string" },
        },
        "traceparent": {
            "name": "traceparent", "in": "header",
            "description": "W3C Trace Context; without a valid one a trace begins here.",
            "schema": { "type": "string" },
            "example": TRACE,
        },
        "tracestate": {
            "name": "tracestate", "in": "header",
            "description": "W3C Trace Context; travels with a valid `traceparent`.",
            "schema": { "type": "string" },
        },
    })
}

fn headers() -> Json {
    let header = |description: &str, schema: Json| json!({ "description": description, "schema": schema });
    let text = || json!({ "type": "string" });
    json!({
        "X-Request-Id": {
            "description": "The request's id: the client's own when it is sane.",
            "required": true,
            "schema": { "type": "string", "pattern": "^[A-Za-z0-9_.-]{1,128}$" },
            "example": REQUEST,
        },
        "Location": header("Where the message can be read.", json!({ "type": "string", "format": "uri-reference" })),
        "Link": header("Further pages, relative to the request (RFC 8288).", text()),
        "Retry-After": header("Seconds after which to try again.", json!({ "type": "integer", "minimum": 0 })),
        "Preference-Applied": header("The preference that was followed (RFC 7240).", text()),
        "Allow": header("The methods that the path takes.", text()),
        "Accept": header("The type of body that the route takes.", text()),
        "Upgrade": header("What the path is for.", text()),
        "ETag": header("The version of what is answered.", text()),
        "Cache-Control": header("How long the answer may be kept.", text()),
    })
}

fn responses(kinds: &[Kind], embedded: bool) -> Json {
    let mut out = Map::new();
    for (flavour, _) in Flavour::ALL {
        for (status, response) in problems::responses(kinds, flavour, embedded) {
            out.insert(flavour.response(status), response);
        }
    }
    out.insert(
        "worker".into(),
        json!({
            "description": "A worker may answer with any status from 200 to 599, and its own problem.",
            "headers": {
                "X-Request-Id": { "$ref": "#/components/headers/X-Request-Id" },
                "Retry-After": { "$ref": "#/components/headers/Retry-After" },
                "Location": { "$ref": "#/components/headers/Location" },
            },
            "content": { PROBLEM: { "schema": reference("Problem", "") }, "*/*": {} },
        }),
    );
    Json::Object(out)
}
