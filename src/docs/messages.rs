//! What travels: the message of each route, and the replies to calls.

use fpesa_workers::event::TIME_HEADER;
use serde_json::{Map, Value as Json, json};

use super::{dialect::older, openapi::history, problems::MESSAGE, sample::Described, schemas::reference};
use crate::{
    message::{APP_ID, CLOUDEVENT, HeaderValue, Message},
    route::{
        file::Payload,
        invalid::Part,
        table::{Publish, Table},
        template::Template,
    },
};

/// The message of a publish.
pub fn published(described: &Described<'_>, publish: &Publish, example: Option<&Message>) -> Json {
    let route = described.route;
    let (content_type, payload) = match publish.payload {
        Payload::Event => (Some(CLOUDEVENT.to_owned()), Some(event(described, publish))),
        Payload::Body => {
            let body = route.body.as_ref();
            (
                body.map(|body| body.content_type.clone()),
                body.filter(|body| body.json).map(|_| described.body.clone().unwrap_or(json!({}))),
            )
        }
    };
    let json = publish.payload == Payload::Event || route.body.as_ref().is_some_and(|body| body.json);
    let mut out = Map::new();
    out.insert("name".into(), publish.kind.as_str().into());
    out.insert("title".into(), route.summary.clone().unwrap_or_else(|| route.id.clone()).into());
    if let Some(content_type) = content_type {
        out.insert("contentType".into(), content_type.into());
    }
    out.insert("headers".into(), headers(&route.id, &publish.headers, &[TIME_HEADER]));
    if let Some(payload) = payload {
        out.insert("payload".into(), older(&payload));
    }
    out.insert("bindings".into(), json!({ "amqp": { "messageType": publish.kind, "bindingVersion": "0.3.0" } }));
    out.insert(
        "x-properties".into(),
        json!({
            "message_id": "the message's id, a UUID: the client's Idempotency-Key, or a new one",
            "type": publish.kind,
            "app_id": APP_ID,
            "timestamp": "when it came, in seconds",
        }),
    );
    give_example(&mut out, example, json);
    Json::Object(out)
}

/// CloudEvents 1.0 around the body.
fn event(described: &Described<'_>, publish: &Publish) -> Json {
    let route = described.route;
    let mut required = vec!["specversion", "id", "source", "type", "time"];
    let mut properties = json!({
        "source": { "const": format!("/{}", route.id) },
        "type": { "const": publish.kind },
    });
    if let (Some(properties), Some(body)) = (properties.as_object_mut(), &route.body) {
        let data = if body.json { "data" } else { "data_base64" };
        if body.required {
            required.push(data);
        }
        if body.json {
            properties.insert(data.into(), described.body.clone().unwrap_or_else(|| json!({})));
        }
        properties.insert("datacontenttype".into(), json!({ "type": "string", "examples": [body.content_type] }));
    }
    json!({ "allOf": [reference("Event", "")], "required": required, "properties": properties })
}

/// The request message of a call.
pub fn asked(described: &Described<'_>, example: Option<&Message>) -> Json {
    let route = described.route;
    let group = |part: Part| {
        let mut properties = Map::new();
        let mut required = Vec::new();
        for (_, param, schema) in described.params.iter().filter(|(of, ..)| *of == part) {
            properties.insert(param.name.clone(), schema.clone());
            if param.required || param.default.is_some() {
                required.push(param.name.clone());
            }
        }
        let mut out = json!({ "type": "object", "properties": properties });
        if let (Some(out), false) = (out.as_object_mut(), required.is_empty()) {
            out.insert("required".into(), json!(required));
        }
        out
    };
    let mut properties = json!({
        "id": { "type": "string", "format": "uuid" },
        "route": { "const": route.id },
        "method": { "const": route.method.name() },
        "path": { "type": "string", "description": "Without the base path." },
        "params": {
            "type": "object",
            "required": ["path", "query", "header"],
            "properties": { "path": group(Part::Path), "query": group(Part::Query), "header": group(Part::Header) },
        },
    });
    if let Some(properties) = properties.as_object_mut() {
        let body = match (&route.body, &described.body) {
            (Some(body), Some(schema)) if body.required => schema.clone(),
            (Some(_), Some(schema)) => json!({ "anyOf": [schema, { "type": "null" }] }),
            (Some(body), None) if body.json => json!({}),
            _ => json!({ "type": "null" }),
        };
        properties.insert("body".into(), body);
        if route.body.as_ref().is_some_and(|body| !body.json) {
            properties.insert("content_type".into(), json!({ "type": "string" }));
            properties.insert("body_base64".into(), json!({ "type": "string", "contentEncoding": "base64" }));
        }
    }
    let payload = json!({
        "type": "object",
        "required": ["id", "route", "method", "path", "params", "body"],
        "properties": properties,
    });
    let (key_headers, further) = match &route.action {
        crate::route::table::Action::Call(call) => (call.headers.as_slice(), ["fpesa-deadline"]),
        crate::route::table::Action::Publish(_) => (&[][..], ["fpesa-deadline"]),
    };
    let mut out = Map::new();
    out.insert("name".into(), route.id.as_str().into());
    out.insert("title".into(), route.summary.clone().unwrap_or_else(|| route.id.clone()).into());
    out.insert("contentType".into(), "application/json".into());
    out.insert("headers".into(), headers(&route.id, key_headers, &further));
    out.insert("payload".into(), older(&payload));
    out.insert("correlationId".into(), correlation());
    out.insert(
        "x-properties".into(),
        json!({
            "reply_to": "the queue that the reply goes to, through the default exchange",
            "correlation_id": "joins the reply to its call",
            "message_id": "a UUID",
            "app_id": APP_ID,
            "expiration": "what is left of the deadline, in milliseconds",
        }),
    );
    give_example(&mut out, example, true);
    Json::Object(out)
}

/// The reply to a call.
pub fn answered(table: &Table, described: &Described<'_>) -> Json {
    let route = described.route;
    let schema = described.reply.clone().or_else(|| history(table, route).map(|name| reference(name, "")));
    let mut out = Map::new();
    out.insert("name".into(), format!("reply to {}", route.id).into());
    out.insert("title".into(), format!("The answer to {} {}", route.method.name(), route.path).into());
    out.insert("contentType".into(), "application/json".into());
    out.insert("description".into(), "A problem is `application/problem+json` with its `status` instead.".into());
    let text = |what: &str| json!({ "type": "string", "description": what });
    out.insert(
        "headers".into(),
        json!({
            "type": "object",
            "properties": {
                "status": { "type": "integer", "minimum": 200, "maximum": 599, "default": 200, "description": "The answer's status." },
                "http.link": text("Becomes `Link`."),
                "http.etag": text("Becomes `ETag`."),
                "http.cache-control": text("Becomes `Cache-Control`."),
                "http.location": text("Becomes `Location`."),
                "fpesa-worker": text("Who answered; not passed on."),
            },
        }),
    );
    if let Some(schema) = schema {
        out.insert("payload".into(), older(&json!({ "anyOf": [schema, reference("Problem", "")] })));
    }
    out.insert("correlationId".into(), correlation());
    Json::Object(out)
}

fn correlation() -> Json {
    json!({ "location": "$message.header#/correlation_id", "description": "The property `correlation_id`." })
}

/// The headers of a route's message.
fn headers(route: &str, own: &[(String, Template)], further: &[&str]) -> Json {
    let mut properties = json!({
        "fpesa-route": { "const": route },
        "traceparent": { "type": "string", "description": "W3C Trace Context." },
        "tracestate": { "type": "string", "description": "W3C Trace Context, where the client sent it." },
    });
    if let Some(properties) = properties.as_object_mut() {
        for name in further {
            properties.insert((*name).to_owned(), json!({ "type": "string", "format": "date-time" }));
        }
        for (name, template) in own {
            let shown = format!("`{}`, filled from the request.", template.text);
            properties.insert(name.clone(), json!({ "type": "string", "description": shown }));
        }
    }
    let mut required = vec!["fpesa-route", "traceparent"];
    required.extend(further);
    required.extend(own.iter().map(|(name, _)| name.as_str()));
    json!({ "type": "object", "required": required, "properties": properties })
}

/// What the route's own example becomes.
fn give_example(out: &mut Map<String, Json>, example: Option<&Message>, json: bool) {
    let Some(message) = example else { return };
    let mut headers: Map<String, Json> = message
        .properties
        .headers
        .iter()
        .map(|(name, value)| {
            let value = match value {
                HeaderValue::Text(text) => json!(text),
                HeaderValue::Int(number) => json!(number),
                HeaderValue::Bool(flag) => json!(flag),
                HeaderValue::Raw { .. } => Json::Null,
            };
            (name.clone(), value)
        })
        .collect();
    if out.contains_key("correlationId") {
        headers.insert("fpesa-deadline".into(), "2026-11-23T18:28:03.123456Z".into());
    }
    let mut shown = Map::new();
    shown.insert("name".into(), "example".into());
    shown.insert("summary".into(), format!("Message {MESSAGE}, routed by `{}`.", message.key).into());
    shown.insert("headers".into(), headers.into());
    if json && out.contains_key("payload") {
        let Ok(payload) = serde_json::from_slice::<Json>(&message.body) else { return };
        shown.insert("payload".into(), payload);
    }
    out.insert("examples".into(), json!([shown]));
}
