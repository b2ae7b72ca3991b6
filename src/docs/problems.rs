//! Every problem that the gateway gives, as schemas and responses. They are made by the code that answers with them, so
//! that what is documented is what is sent.

use axum::http::StatusCode;
use serde_json::{Map, Value as Json, json};

use super::schemas::reference;
use crate::{
    http::problem::{Problem, TYPES},
    live::Reloaded,
    message::{Away, CallError, Outcome, PROBLEM, Refusal},
    route::{
        invalid::{FieldError, FieldErrors, Part},
        map::Reject,
    },
};

/// A client's request id, for examples.
pub const REQUEST: &str = "0193f1c2-8a10-7b6e-b0a4-0123456789ab";
/// A message's id, for examples.
pub const MESSAGE: &str = "0193f1c2-7d3a-7c3e-9d4e-0123456789ab";

/// What an operation is, as far as its problems go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Flavour {
    /// A publish that must be routed.
    Publish,
    /// A publish that nobody needs to receive.
    Live,
    /// A call.
    Call,
    /// One of the gateway's own paths.
    System,
}

impl Flavour {
    /// All of them, with the names of their responses.
    pub const ALL: [(Self, &'static str); 4] =
        [(Self::Publish, "publish"), (Self::Live, "live"), (Self::Call, "call"), (Self::System, "system")];

    /// The name of a status's response.
    pub fn response(self, status: u16) -> String {
        let name = Self::ALL.iter().find(|(flavour, _)| *flavour == self).map_or("", |(_, name)| name);
        format!("{name}.{status}")
    }
}

/// A type of problem.
pub struct Kind {
    /// One of it.
    pub problem: Problem,
    /// What gives it.
    pub given: &'static [Flavour],
    /// Whether the embedded bus alone gives it.
    pub embedded: bool,
}

const ALL: &[Flavour] = &[Flavour::Publish, Flavour::Live, Flavour::Call, Flavour::System];
const ROUTES: &[Flavour] = &[Flavour::Publish, Flavour::Live, Flavour::Call];
const PUBLISHES: &[Flavour] = &[Flavour::Publish, Flavour::Live];
const CALLS: &[Flavour] = &[Flavour::Call];
const SYSTEM: &[Flavour] = &[Flavour::System];

/// One of each type, by status.
pub fn kinds() -> Vec<Kind> {
    let kind = |problem, given| Kind { problem, given, embedded: false };
    let embedded =
        |away| Kind { problem: Problem::publish(Outcome::NotSent(away), MESSAGE), given: PUBLISHES, embedded: true };
    let invalid = FieldError::body("/text", "required", "\"text\" is a required property");
    let unknown = FieldError::named(Part::Query, "limt", "unknown", "this route takes limit, before, after");
    let mut kinds = vec![
        kind(Problem::body_incomplete(), ROUTES),
        kind(Problem::invalid_host(), ALL),
        kind(Problem::wrong_subprotocol(), SYSTEM),
        kind(Problem::origin_refused(), ALL),
        kind(Problem::not_found(), ALL),
        kind(Problem::method_not_allowed("GET, HEAD, POST"), ALL),
        kind(Problem::not_acceptable("application/json"), CALLS),
        kind(Problem::body_timeout(10_000), ROUTES),
        kind(Problem::body_too_large(262_144), ROUTES),
        kind(Problem::uri_too_long(), ALL),
        kind(Problem::unsupported_media_type("application/json"), ROUTES),
        kind(Problem::rejected(&Reject::Invalid(FieldErrors { list: vec![invalid, unknown], cut: false })), ROUTES),
        kind(Problem::validation_budget(), ROUTES),
        kind(Problem::expectation_failed(), ALL),
        kind(Problem::misdirected_request(), ALL),
        kind(Problem::not_a_websocket(), SYSTEM),
        kind(Problem::headers_too_large(), ALL),
        kind(Problem::internal(), ALL),
        kind(Problem::unsupported_transfer_coding(), ALL),
        kind(Problem::invalid_reply(), CALLS),
        kind(Problem::publish(Outcome::Refused(Refusal::Forbidden), MESSAGE), ROUTES),
        kind(Problem::overloaded(), ALL),
        kind(Problem::reload_refused(1, &Reloaded::default()), SYSTEM),
        kind(Problem::publish(Outcome::NotSent(Away::Down), MESSAGE), ROUTES),
        kind(Problem::publish(Outcome::NotSent(Away::Blocked), MESSAGE), ROUTES),
        kind(Problem::publish(Outcome::Rejected, MESSAGE), ROUTES),
        kind(Problem::unroutable(), PUBLISHES),
        embedded(Away::StorageFull),
        embedded(Away::StorageFailed),
        kind(Problem::call(CallError::NoWorker, MESSAGE), CALLS),
        kind(Problem::publish(Outcome::Unknown, MESSAGE), PUBLISHES),
        kind(Problem::call(CallError::Timeout, MESSAGE), CALLS),
    ];
    kinds.sort_by_key(|kind| kind.problem.status);
    kinds
}

/// The name of a problem's schema: `body-too-large` is `BodyTooLarge`.
pub fn name(problem: &Problem) -> String {
    let capital = |word: &str| {
        let mut letters = word.chars();
        letters.next().map(|first| first.to_ascii_uppercase()).into_iter().chain(letters).collect::<String>()
    };
    problem.suffix().split('-').map(capital).collect()
}

/// The schema of any problem, a worker's own included.
pub fn any_schema() -> Json {
    json!({
        "type": "object",
        "title": "Problem",
        "description": "A refusal (RFC 9457). A worker's own problems may leave out any member.",
        "properties": {
            "type": { "type": "string", "format": "uri-reference", "description": "Which problem it is." },
            "title": { "type": "string" },
            "status": { "type": "integer", "minimum": 100, "maximum": 599 },
            "detail": { "type": "string", "description": "What is wrong in this request, and what to do." },
            "instance": { "type": "string", "description": "The request's id, as in `X-Request-Id`." },
        },
    })
}

/// The schema of one field's error.
pub fn field_error_schema() -> Json {
    json!({
        "type": "object",
        "title": "FieldError",
        "required": ["in", "keyword", "detail"],
        "properties": {
            "in": { "enum": ["body", "path", "query", "header"] },
            "pointer": { "type": "string", "description": "Where in the body (RFC 6901)." },
            "name": { "type": "string", "description": "Which parameter or header." },
            "keyword": { "type": "string", "description": "What refuses it: a keyword of JSON Schema, or a word such as `unknown` or `not-allowed`." },
            "detail": { "type": "string" },
        },
    })
}

/// The schema of one type of problem.
pub fn schema(problem: &Problem) -> Json {
    let body = problem.body(REQUEST);
    let mut properties = Map::new();
    properties.insert("type".into(), json!({ "const": format!("{TYPES}{}", problem.suffix()) }));
    properties.insert("status".into(), json!({ "const": problem.status.as_u16() }));
    let mut required = vec!["type", "title", "status", "detail", "instance"];
    for (name, value) in &body {
        let schema = match (name.as_str(), value) {
            ("type" | "title" | "status" | "detail" | "instance", _) => continue,
            // The link to the broker may break before a call is sent, and after.
            // Or there is no room for the answer.
            ("outcome", _) if matches!(problem.suffix(), "broker-unavailable" | "overloaded") => {
                json!({ "enum": ["not-sent", "unknown"] })
            }
            ("outcome", value) => json!({ "const": value }),
            ("errors", _) => {
                json!({ "type": "array", "minItems": 1, "maxItems": 20, "items": reference("FieldError", "") })
            }
            ("id" | "correlation_id", _) => json!({ "type": "string", "format": "uuid" }),
            (_, Json::Number(_)) => json!({ "type": "integer", "minimum": 0 }),
            _ => json!({}),
        };
        properties.insert(name.clone(), schema);
        // A broker that finds a body too large need not name its limit.
        if !(problem.suffix() == "body-too-large" && name == "limit") {
            required.push(name);
        }
    }
    if problem.suffix() == "body-too-large" {
        let outcome =
            json!({ "const": "rejected", "description": "There when the broker refused it, not the gateway." });
        properties.insert("outcome".into(), outcome);
    }
    json!({
        "title": name(problem),
        "allOf": [reference("Problem", "")],
        "required": required,
        "properties": properties,
    })
}

/// The responses of a flavour, by status.
pub fn responses(kinds: &[Kind], flavour: Flavour, embedded: bool) -> Vec<(u16, Json)> {
    let mut out: Vec<(u16, Json)> = Vec::new();
    let given: Vec<&Kind> =
        kinds.iter().filter(|kind| kind.given.contains(&flavour) && (embedded || !kind.embedded)).collect();
    for group in given.chunk_by(|a, b| a.problem.status == b.problem.status) {
        let Some(first) = group.first() else { continue };
        let problems: Vec<&Problem> = group.iter().map(|kind| &kind.problem).collect();
        out.push((first.problem.status.as_u16(), response(&problems, flavour == Flavour::Call)));
    }
    out
}

/// The response that can be any of these problems; or, of a call, one of the worker's own.
fn response(problems: &[&Problem], worker: bool) -> Json {
    let mut references: Vec<Json> = problems.iter().map(|problem| reference(&name(problem), "")).collect();
    if worker {
        references.push(reference("Problem", ""));
    }
    let schema = match references.as_slice() {
        [one] => one.clone(),
        _ => json!({ "anyOf": references }),
    };
    let examples: Map<String, Json> = problems
        .iter()
        .map(|problem| {
            let body = problem.body(REQUEST);
            (problem.suffix().to_owned(), json!({ "summary": body.get("title"), "value": body }))
        })
        .collect();
    let titles: Vec<String> =
        problems.iter().filter_map(|p| Some(p.body("").get("title")?.as_str()?.to_owned())).collect();
    let mut description = titles.join(" · ");
    if worker {
        description.push_str(" · or the worker's own problem");
    }
    let mut headers = Map::new();
    headers.insert("X-Request-Id".into(), json!({ "$ref": "#/components/headers/X-Request-Id" }));
    for problem in problems {
        for header in problem.header_names() {
            let name = match header {
                "retry-after" => "Retry-After",
                "allow" => "Allow",
                "accept" => "Accept",
                "upgrade" => "Upgrade",
                _ => continue,
            };
            headers.insert(name.into(), json!({ "$ref": format!("#/components/headers/{name}") }));
        }
        // The same problem is given for a body's type and for its content encoding, each with its header.
        if problem.status == StatusCode::UNSUPPORTED_MEDIA_TYPE {
            headers.insert("Accept-Encoding".into(), json!({ "$ref": "#/components/headers/Accept-Encoding" }));
        }
    }
    json!({
        "description": description,
        "headers": headers,
        "content": { PROBLEM: { "schema": schema, "examples": examples } },
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_problem_of_the_gateway_is_among_them() {
        let source = include_str!("../http/problem.rs");
        let listed: BTreeSet<&str> = kinds().iter().map(|kind| kind.problem.suffix()).collect();
        // In that file, and nowhere else, words with a dash or a lone word after a status are suffixes.
        let mut found = BTreeSet::new();
        for part in source.split("StatusCode::").skip(1) {
            let mut texts = part.split('"').skip(1).step_by(2);
            if let Some(text) = texts.next()
                && part.find('"').is_some_and(|at| part[..at].chars().filter(|c| *c == ',').count() == 1)
            {
                found.insert(text);
            }
        }
        for word in ["broker-unavailable", "broker-blocked", "storage-full", "storage-failed"] {
            assert!(source.contains(&format!("\"{word}\"")), "{word}");
            found.insert(word);
        }
        found.retain(|word| !word.contains(' '));
        assert!(found.len() > 20, "{found:?}");
        assert_eq!(listed, found);
    }
}
