//! What operations of an API description share: schemas of our own, parameters, headers and responses.

use serde_json::{Map, Value as Json, json};

use super::{
    problems::{self, Flavour, Kind, MESSAGE, REQUEST},
    sample::TRACE,
    schemas::reference,
    system,
};
use crate::{http::reply::WORKER_HEADERS, message::PROBLEM};

/// Schemas of our own.
pub fn schemas(kinds: &[Kind]) -> Vec<(String, Json)> {
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

/// Headers that a request may bring.
pub fn parameters() -> Json {
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

/// Headers that an answer may bring.
pub fn headers() -> Json {
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
        "Content-Disposition": header("How the answer is meant to be shown or saved (RFC 6266).", text()),
        "Content-Encoding": header("The content encoding of the answer.", text()),
        "Content-Language": header("The language of the answer.", text()),
        "X-Total-Count": header("How many there are in all.", text()),
        "Retry-After": header("Seconds after which to try again.", json!({ "type": "integer", "minimum": 0 })),
        "Preference-Applied": header("The preference that was followed (RFC 7240).", text()),
        "Allow": header("The methods that the path takes.", text()),
        "Accept": header("The type of body that the route takes.", text()),
        "Accept-Encoding": header("The content encodings that the route takes.", text()),
        "Upgrade": header("What the path is for.", text()),
        "ETag": header("The version of what is answered.", text()),
        "Cache-Control": header("How long the answer may be kept.", text()),
    })
}

/// Headers of a worker's answer.
pub fn worker_headers() -> Json {
    let header = |name: &str| (name.to_owned(), json!({ "$ref": format!("#/components/headers/{name}") }));
    let names = ["X-Request-Id", "Content-Encoding"].into_iter().chain(WORKER_HEADERS.map(|(_, _, name)| name));
    Json::Object(names.map(header).collect())
}

/// Every flavour's responses, and the one of a worker's own.
pub fn responses(kinds: &[Kind], embedded: bool) -> Json {
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
            "headers": worker_headers(),
            "content": { PROBLEM: { "schema": reference("Problem", "") }, "*/*": {} },
        }),
    );
    Json::Object(out)
}
