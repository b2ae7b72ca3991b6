//! The gateway's own paths in OpenAPI, and the schemas of what they answer.

use serde_json::{Map, Value as Json, json};

use super::{problems::Flavour, schemas::reference};

/// The tag of the gateway's own paths.
pub const TAG: &str = "system";

/// Each path with its method and operation; `ids` are taken.
pub fn operations(ids: &[&str]) -> Vec<(&'static str, &'static str, Json)> {
    let text = || json!({ "text/plain": { "schema": { "type": "string" } } });
    let json_of = |schema: Json| json!({ "application/json": { "schema": schema } });
    let ok = |description: &str, content: Json| (200, description.to_owned(), content);
    let ready = || json_of(reference("Readiness", ""));
    let object = || json_of(json!({ "type": "object" }));
    let document = |what: &str| vec![ok(what, object()), unchanged()];
    let mut out = vec![
        ("/healthz", "Whether the process serves", vec![ok("It serves.", text())]),
        (
            "/readyz",
            "Whether it can do its job",
            vec![ok("It can.", ready()), (503, "It can't, or not yet.".into(), ready())],
        ),
        (
            "/metrics",
            "Metrics for Prometheus",
            vec![ok("All series.", json!({ "application/openmetrics-text": { "schema": { "type": "string" } } }))],
        ),
        ("/feed.json", "Where and what a browser subscribes", vec![ok("The feed.", json_of(reference("Feed", "")))]),
        ("/table.json", "The table as a map, with who consumes its queues now", vec![ok("The map.", object())]),
        ("/pulse.json", "The last 15 minutes in samples", vec![ok("The samples.", object())]),
        ("/openapi.json", "This document", document("OpenAPI 3.1 of the table in force.")),
        ("/asyncapi.json", "What travels on the bus and the feed", document("AsyncAPI 3.0 of the table in force.")),
        (
            "/docs",
            "Both documents as a page",
            vec![ok("The page.", json!({ "text/html": { "schema": { "type": "string" } } })), unchanged()],
        ),
    ]
    .into_iter()
    .map(|(path, summary, answers)| (path, "get", operation(ids, path, summary, answers)))
    .collect::<Vec<_>>();
    let mut feed = operation(
        ids,
        "/mqtt",
        "The live feed: MQTT over a WebSocket",
        vec![(101, "MQTT 3.1.1 or 5 from here on, subprotocol `mqtt`. Embedded bus only.".into(), json!({}))],
    );
    if let Some(responses) = feed.get_mut("responses").and_then(Json::as_object_mut) {
        for status in [400, 403, 404, 426] {
            responses.insert(status.to_string(), refused(status));
        }
    }
    out.push(("/mqtt", "get", feed));
    let mut reload = operation(
        ids,
        "/reload",
        "Look at the table's files now, and tell whether they are in force",
        vec![
            ok("They are: the generation, and what it changed.", object()),
            (202, "With `Prefer: respond-async`: it looks, and nobody waits.".into(), object()),
        ],
    );
    if let Some(responses) = reload.get_mut("responses").and_then(Json::as_object_mut) {
        for status in [403, 409, 503] {
            responses.insert(status.to_string(), refused(status));
        }
    }
    out.push(("/reload", "post", reload));
    out
}

fn unchanged() -> (u16, String, Json) {
    (304, "It is what `If-None-Match` names.".into(), json!({}))
}

fn refused(status: u16) -> Json {
    json!({ "$ref": format!("#/components/responses/{}", Flavour::System.response(status)) })
}

fn operation(ids: &[&str], path: &str, summary: &str, answers: Vec<(u16, String, Json)>) -> Json {
    let mut id = format!("fpesa-{}", path.trim_start_matches('/').replace('.', "-"));
    while ids.contains(&id.as_str()) {
        id.push('_');
    }
    let mut responses = Map::new();
    let cached = answers.iter().any(|(status, ..)| *status == 304);
    for (status, description, content) in answers {
        let mut headers = json!({ "X-Request-Id": { "$ref": "#/components/headers/X-Request-Id" } });
        if let (true, Some(headers)) = (cached, headers.as_object_mut()) {
            headers.insert("ETag".into(), json!({ "$ref": "#/components/headers/ETag" }));
        }
        let mut response = json!({ "description": description, "headers": headers });
        if let (true, Some(response)) = (content != json!({}), response.as_object_mut()) {
            response.insert("content".into(), content);
        }
        responses.insert(status.to_string(), response);
    }
    for status in [400, 414, 417, 421, 431, 500, 501] {
        responses.insert(status.to_string(), refused(status));
    }
    let mut parameters = vec![json!({ "$ref": "#/components/parameters/X-Request-Id" })];
    if cached {
        parameters.push(json!({
            "name": "If-None-Match", "in": "header", "schema": { "type": "string" },
            "description": "An `ETag` that the client has: then the answer is 304 when nothing changed.",
        }));
    }
    json!({
        "operationId": id,
        "summary": summary,
        "tags": [TAG],
        "parameters": parameters,
        "responses": responses,
    })
}

/// Schemas of what these paths answer.
pub fn schemas() -> Vec<(String, Json)> {
    vec![
        (
            "Readiness".into(),
            json!({
                "type": "object",
                "required": ["ready", "bus", "generation", "reload", "workers"],
                "properties": {
                    "ready": { "type": "boolean" },
                    "bus": { "enum": ["up", "blocked", "down"] },
                    "store": { "enum": ["up", "down"] },
                    "generation": { "type": "integer", "minimum": 1, "description": "Number of the table in force." },
                    "reload": {
                        "type": "object",
                        "description": "How the last reload went: a broken edit leaves the table in force.",
                        "required": ["ok", "time", "problems"],
                        "properties": {
                            "ok": { "type": "boolean" },
                            "time": { "type": "string", "format": "date-time" },
                            "problems": { "type": "array", "items": { "type": "object" } },
                        },
                    },
                    "workers": { "type": "array", "items": { "type": "string" }, "description": "This process's own, that consume." },
                    "missing": { "type": "array", "items": { "type": "string" }, "description": "Queues and exchanges that are not there." },
                    "refused": { "type": "string", "description": "Why the broker refuses the topology." },
                },
            }),
        ),
        (
            "Feed".into(),
            json!({
                "type": "object",
                "required": ["url", "protocol", "topics"],
                "properties": {
                    "url": { "type": "string", "description": "Relative to the page; http becomes ws." },
                    "protocol": { "const": "mqtt" },
                    "topics": { "type": "array", "items": { "type": "string" }, "description": "MQTT filters that may be subscribed." },
                    "username": { "type": ["string", "null"] },
                    "password": { "type": "string", "description": "Public, and good for reading only." },
                },
            }),
        ),
    ]
}

/// The schema of an event (CloudEvents 1.0 in structured JSON mode).
pub fn event_schema() -> Json {
    json!({
        "type": "object",
        "title": "Event",
        "description": "CloudEvents 1.0 in structured JSON mode. `data` is what was sent, byte for byte.",
        "required": ["specversion", "id", "source", "type", "time"],
        "properties": {
            "specversion": { "const": "1.0" },
            "id": { "type": "string", "format": "uuid" },
            "source": { "type": "string", "format": "uri-reference" },
            "type": { "type": "string" },
            "subject": { "type": "string", "description": "The topic, as MQTT writes it." },
            "time": { "type": "string", "format": "date-time" },
            "datacontenttype": { "type": "string" },
            "traceparent": { "type": "string" },
            "tracestate": { "type": "string" },
            "data": {},
            "data_base64": { "type": "string", "contentEncoding": "base64" },
        },
    })
}

/// The schema of a page that a history worker answers.
pub fn history_schema() -> Json {
    json!({
        "type": "object",
        "title": "HistoryPage",
        "required": ["items", "next"],
        "properties": {
            "items": { "type": "array", "items": reference("Event", "") },
            "next": { "type": ["string", "null"], "description": "Give it as `before` for the following, older page." },
            "total": { "type": "integer", "minimum": 0, "description": "With `count=true`." },
        },
    })
}
