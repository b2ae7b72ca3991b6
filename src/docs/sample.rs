//! One request that a route takes, made from its schemas and tried on the mapping itself: what is shown as an example is
//! an example of what works.

use serde_json::{Map, Value as Json, json};
use time::{OffsetDateTime, macros::datetime};
use uuid::Uuid;

use super::{example::Examples, problems::MESSAGE, schemas::Components};
use crate::{
    message::Message,
    route::{
        invalid::Part,
        map::{self, Order, Request},
        params::Param,
        table::{Action, Call, Publish, Route, Segment},
        template::{From, Template},
        validator::Budget,
    },
};

/// A `traceparent`, for examples.
pub const TRACE: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
/// When an example's message came.
const NOW: OffsetDateTime = datetime!(2026-11-23 18:27:58.123456 UTC);

/// A route with its schemas as they stand in a document.
pub struct Described<'t> {
    /// The route.
    pub route: &'t Route,
    /// Its parameters.
    pub params: Vec<(Part, &'t Param, Json)>,
    /// What its body must be, where that is said.
    pub body: Option<Json>,
    /// What its reply must be, where that is said.
    pub reply: Option<Json>,
}

impl<'t> Described<'t> {
    /// Puts the route's schemas among the components.
    pub fn new(route: &'t Route, components: &mut Components<'t>) -> Self {
        let groups = [
            (Part::Path, &route.path_params),
            (Part::Query, &route.query_params),
            (Part::Header, &route.header_params),
        ];
        let mut params = Vec::new();
        for (part, group) in groups {
            for param in &group.0 {
                let schema = components.schema(&param.schema, &format!("{}.{}", route.id, param.name));
                params.push((part, param, schema));
            }
        }
        let body = route.body.as_ref().and_then(|body| body.schema.as_ref());
        let body = body.map(|schema| components.schema(schema, &format!("{}.body", route.id)));
        let reply = match &route.action {
            Action::Call(Call { reply, .. }) => reply.as_ref(),
            Action::Publish(_) => None,
        };
        let reply = reply.map(|schema| components.schema(schema, &format!("{}.reply", route.id)));
        Self { route, params, body, reply }
    }

    /// The templates of the route.
    fn templates(&self) -> impl Iterator<Item = &'t Template> {
        let (key, headers) = match &self.route.action {
            Action::Publish(Publish { key, headers, .. }) | Action::Call(Call { key, headers, .. }) => (key, headers),
        };
        std::iter::once(key).chain(headers.iter().map(|(_, template)| template))
    }
}

/// A request that a route takes.
pub struct Sample {
    /// Values of the parameters that it must have.
    pub params: Vec<(Part, String, Json)>,
    /// Its body, where that is JSON.
    pub body: Option<Json>,
    /// What it becomes.
    pub message: Message,
}

/// Makes one; `None` where nothing that was made is taken.
pub fn sample(described: &Described<'_>, components: &Map<String, Json>) -> Option<Sample> {
    let route = described.route;
    let needed: Vec<&From> = described
        .templates()
        .flat_map(Template::references)
        .filter(|reference| reference.default.is_none())
        .map(|reference| &reference.from)
        .collect();
    let mut params = Vec::new();
    for (part, param, schema) in &described.params {
        let named = needed.iter().any(|from| match from {
            From::Path(name) => *part == Part::Path && *name == param.name,
            From::Query(name) => *part == Part::Query && *name == param.name,
            From::Header(name) => *part == Part::Header && *name == param.name,
            _ => false,
        });
        if (param.required || named) && param.default.is_none() {
            let value = Examples::new(components, &[], false).value(schema)?;
            params.push((*part, param.name.clone(), value));
        }
    }
    let wanted: Vec<Vec<String>> = needed
        .iter()
        .filter_map(|from| match from {
            From::Body(path) => Some(path.clone()),
            _ => None,
        })
        .collect();
    let mut bodies: Vec<Option<Json>> = Vec::new();
    if route.body.as_ref().is_some_and(|body| body.json) {
        let any = json!({});
        let schema = described.body.as_ref().unwrap_or(&any);
        let made = |whole| Examples::new(components, &wanted, whole).value(schema);
        // The least that is taken says most plainly what is needed; of a body that needs nothing, all that it may have.
        bodies.extend(made(false).filter(|body| *body != json!({})).map(Some));
        bodies.extend(made(true).map(Some));
        bodies.extend(made(false).map(Some));
    }
    if route.body.as_ref().is_none_or(|body| !body.json || !body.required) {
        bodies.push(None);
    }
    bodies.into_iter().find_map(|body| {
        let message = tried(route, &params, body.as_ref())?;
        Some(Sample { params: params.clone(), body, message })
    })
}

/// Steps that an example may cost.
const SAMPLE_STEPS: u64 = 100_000;

/// What the request becomes, when the route takes it.
fn tried(route: &Route, params: &[(Part, String, Json)], body: Option<&Json>) -> Option<Message> {
    let of = |part: Part| params.iter().filter(move |(of, ..)| *of == part);
    let path_values: Vec<(String, String)> =
        of(Part::Path).map(|(_, name, value)| (name.clone(), encode(value))).collect();
    let mut path = String::new();
    for segment in &route.segments {
        path.push('/');
        path.push_str(match segment {
            Segment::Literal(text) => text,
            Segment::Param(name) | Segment::Rest(name) => &path_values.iter().find(|(of, _)| of == name)?.1,
        });
    }
    let query: Vec<String> = of(Part::Query).map(|(_, name, value)| format!("{name}={}", encode(value))).collect();
    let query = (!query.is_empty()).then(|| query.join("&"));
    let mut headers = vec![("traceparent".to_owned(), TRACE.to_owned())];
    headers.extend(of(Part::Header).map(|(_, name, value)| (name.clone(), text(value))));
    let bytes = match (&route.body, body) {
        (Some(_), Some(body)) => body.to_string().into_bytes(),
        (Some(wanted), None) if !wanted.json => b"bytes".to_vec(),
        _ => Vec::new(),
    };
    if let (Some(body), false) = (&route.body, bytes.is_empty()) {
        headers.push(("content-type".to_owned(), body.content_type.clone()));
    }
    let values: Vec<(&str, &str)> = path_values.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    let headers: Vec<(&str, &str)> = headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    let request = Request {
        path: &path,
        path_values: &values,
        query: query.as_deref(),
        headers: &headers,
        body: map::check_body(route, bytes.into(), &mut Budget::steps(SAMPLE_STEPS)).ok()?,
        now: NOW,
        new_id: Uuid::parse_str(MESSAGE).ok()?,
    };
    match map::map(route, &request).ok()? {
        Order::Publish { message, .. } | Order::Call { message, .. } => Some(message),
    }
}

/// A parameter's value as the text that carries it.
pub fn text(value: &Json) -> String {
    match value {
        Json::String(text) => text.clone(),
        Json::Array(items) => items.iter().map(text).collect::<Vec<_>>().join(","),
        other => other.to_string(),
    }
}

fn encode(value: &Json) -> String {
    percent_encoding::utf8_percent_encode(&text(value), percent_encoding::NON_ALPHANUMERIC).to_string()
}
