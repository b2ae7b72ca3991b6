//! `routes`: each one's path, parameters, body and action, and that no two answer the same request.

use std::{collections::HashMap, sync::Arc};

use super::{CONFIRM_TIMEOUT, Compiler, MAX_SIZE, TIMEOUT, bus::Kinds, reach::reaches};
use crate::{
    route::{
        decode::At,
        file::{BodyFile, CallFile, Method, ParamFile, PublishFile, RouteFile},
        invalid::Part,
        params::{Kind, Param, Params},
        problem::{Place, Problem, Source, suggest},
        table::{Action, Body, Call, Publish, Route, Segment, shape, trimmed},
        template::{From, Template},
        yaml::Key,
    },
    topology::Topology,
};

/// Paths that the gateway answers itself.
pub const RESERVED: [&str; 10] = [
    "/",
    "/healthz",
    "/readyz",
    "/reload",
    "/metrics",
    "/openapi.json",
    "/asyncapi.json",
    "/docs",
    "/feed.json",
    "/mqtt",
];
/// Folder of the web app's files.
pub const ASSETS: &str = "/assets";

impl Compiler<'_> {
    pub(super) fn routes(&mut self, topology: &Topology, kinds: &Kinds) -> Vec<Route> {
        let file = self.file;
        self.base_path();
        let base = file.base_path.as_ref().map_or("", |at| at.value.trim_end_matches('/'));
        let mut routes: Vec<Route> = Vec::new();
        let mut ids: HashMap<&str, (&Source, Place)> = HashMap::new();
        let mut shapes: HashMap<(Method, String), (&Source, Place)> = HashMap::new();
        for written in &file.routes {
            if let Some(id) = &written.id {
                self.id_fits(written, id);
                if let Some(first) = ids.get(id.value.as_str()) {
                    let message = format!("the id `{}` is taken already ({})", id.value, place(*first));
                    self.tell(
                        &written.source,
                        id.at,
                        "duplicate-id",
                        message,
                        Some("every route has an id of its own".into()),
                    );
                } else {
                    ids.insert(&id.value, (&written.source, id.at));
                }
            }
            let segments = written.path.as_ref().and_then(|path| self.segments(&written.source, base, path));
            if let (Some(segments), Some(path), Some(method)) = (&segments, &written.path, &written.method) {
                self.reserved(&written.source, path, segments);
                let shape = (method.value, shape(segments));
                if let Some(first) = shapes.get(&shape) {
                    let message = format!(
                        "{} {} is matched already by another route ({})",
                        method.value.name(),
                        path.value,
                        place(*first)
                    );
                    let hint = "give one of them another path or method".to_owned();
                    self.tell(&written.source, path.at, "route-conflict", message, Some(hint));
                } else {
                    shapes.insert(shape, (&written.source, path.at));
                }
            }
            if let Some(route) = self.route(written, segments, base, topology, kinds) {
                routes.push(route);
            }
        }
        locations(&mut routes);
        routes
    }

    fn tell(&mut self, source: &Source, at: Place, code: &'static str, message: String, hint: Option<String>) {
        let mut problem = Problem::at(source, at, code, message);
        problem.hint = hint;
        self.problems.push(problem);
    }

    fn base_path(&mut self) {
        let Some(base) = &self.file.base_path else { return };
        let fits = base.value.starts_with('/')
            && base.value.trim_matches('/').split('/').all(|part| literal(part) || base.value == "/");
        if !fits {
            let message = format!("`base_path` can't be `{}`", base.value);
            self.problem(
                base.at,
                "bad-path",
                message,
                Some("it begins with `/` and has no parameters, as in `/api/v1`".into()),
            );
        }
    }

    fn id_fits(&mut self, route: &RouteFile, id: &At<String>) {
        let fits = id.value.len() <= 128 && id.value.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c));
        if !fits || id.value == "none" {
            let hint = "letters, digits, `-`, `_` and `.`, at most 128 (`none` is taken)".to_owned();
            self.tell(&route.source, id.at, "bad-value", format!("`{}` can't be an id", id.value), Some(hint));
        }
    }

    fn segments(&mut self, source: &Source, base: &str, path: &At<String>) -> Option<Vec<Segment>> {
        let mut bad = |message: String, hint: &str| {
            self.tell(source, path.at, "bad-path", message, Some(hint.to_owned()));
            None
        };
        if !path.value.starts_with('/') {
            return bad(format!("`{}` is no path", path.value), "a path begins with `/`");
        }
        let whole = format!("{base}{}", trimmed(&path.value));
        let whole = trimmed(&whole).trim_start_matches('/');
        let mut segments: Vec<Segment> = Vec::new();
        if whole.is_empty() {
            return Some(segments);
        }
        for text in whole.split('/') {
            if matches!(segments.last(), Some(Segment::Rest(_))) {
                return bad(
                    format!("in `{}` something follows a `{{*…}}`", path.value),
                    "it takes all that is left, so it stands last",
                );
            }
            let segment = match text.strip_prefix('{').and_then(|text| text.strip_suffix('}')) {
                Some(name) => match name.strip_prefix('*') {
                    Some(name) => Segment::Rest(name.to_owned()),
                    None => Segment::Param(name.to_owned()),
                },
                None => Segment::Literal(text.to_owned()),
            };
            match &segment {
                Segment::Literal(text) if !literal(text) => {
                    let message = format!("`{text}` can't be a segment of a path");
                    return bad(message, "letters, digits and `-._~!$&'()*+,;=:@`, or one whole `{name}`");
                }
                Segment::Param(name) | Segment::Rest(name) => {
                    if name.is_empty() || !name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-') {
                        return bad(
                            format!("`{{{name}}}` is no parameter"),
                            "its name has letters, digits, `_` and `-`",
                        );
                    }
                    if segments.iter().any(|s| matches!(s, Segment::Param(n) | Segment::Rest(n) if n == name)) {
                        return bad(format!("the parameter `{name}` is in the path twice"), "give each its own name");
                    }
                }
                Segment::Literal(_) => {}
            }
            segments.push(segment);
        }
        Some(segments)
    }

    fn reserved(&mut self, source: &Source, path: &At<String>, segments: &[Segment]) {
        let matches = |reserved: &str| {
            let parts: Vec<&str> = reserved.split('/').filter(|part| !part.is_empty()).collect();
            let mut parts = parts.as_slice();
            for segment in segments {
                match (segment, parts.split_first()) {
                    (Segment::Rest(_), Some(_)) => return true,
                    (Segment::Param(_), Some((_, rest))) => parts = rest,
                    (Segment::Literal(text), Some((part, rest))) if text == part => parts = rest,
                    _ => return false,
                }
            }
            parts.is_empty()
        };
        let assets = format!("{ASSETS}/x");
        if let Some(taken) = RESERVED.into_iter().chain([assets.as_str()]).find(|reserved| matches(reserved)) {
            let taken = if taken == assets { "/assets" } else { taken };
            let message = format!("this path takes `{taken}`, which the gateway answers itself");
            let hint = Some("set a `base_path`, such as `/api/v1`, or choose another path".into());
            self.tell(source, path.at, "reserved-path", message, hint);
        }
    }

    fn route(
        &mut self,
        written: &RouteFile,
        segments: Option<Vec<Segment>>,
        base: &str,
        topology: &Topology,
        kinds: &Kinds,
    ) -> Option<Route> {
        let source = &written.source;
        let path_params = self.params(source, &written.path_params, Part::Path);
        let query_params = self.params(source, &written.query_params, Part::Query);
        let header_params = self.params(source, &written.header_params, Part::Header);
        if let Some(segments) = &segments {
            self.path_params_fit(written, segments);
        }
        let body = written.body.as_ref().map(|body| self.body(source, body));
        let known = Known {
            path: &path_params,
            query: &query_params,
            header: &header_params,
            body: body.as_ref(),
            segments: segments.as_deref(),
        };
        let id = written.id.as_ref().map(|id| id.value.clone());
        let action = match (&written.publish, &written.call) {
            (Some(publish), None) => self.publish(source, publish, id.as_deref(), &known, topology, kinds),
            (None, Some(call)) => self.call(source, call, &known, topology, kinds),
            (Some(publish), Some(call)) => {
                // Told already that it may be one only; each is still read for its own mistakes.
                self.call(source, call, &known, topology, kinds);
                self.publish(source, publish, id.as_deref(), &known, topology, kinds)
            }
            (None, None) => None,
        };
        Some(Route {
            id: id?,
            method: written.method.as_ref()?.value,
            path: {
                let path = format!("{base}{}", trimmed(&written.path.as_ref()?.value));
                trimmed(&path).to_owned()
            },
            base_path: base.to_owned(),
            segments: segments?,
            summary: written.summary.clone(),
            description: written.description.clone(),
            tags: written.tags.clone(),
            deprecated: written.deprecated,
            path_params,
            query_params,
            header_params,
            body,
            action: action?,
        })
    }

    fn params(&mut self, source: &Source, written: &[(Key, ParamFile)], part: Part) -> Params {
        let mut params = Vec::new();
        for (key, param) in written {
            let name = if part == Part::Header { key.name.to_ascii_lowercase() } else { key.name.clone() };
            if part == Part::Header
                && matches!(
                    name.as_str(),
                    "authorization" | "cookie" | "content-type" | "content-length" | "accept" | "host"
                )
            {
                let message = format!("the header `{}` can't be a parameter: it never goes to the bus", key.name);
                self.tell(source, key.at, "bad-value", message, None);
                continue;
            }
            let Some(schema) = self.schemas.inline(source, &param.schema, self.problems) else { continue };
            let default = schema.json.get("default").cloned();
            if let Some(value) = &default
                && let Some(error) = schema.validator.iter_errors(value).next()
            {
                let at = param.schema.place_of("/default");
                let message = format!("the default of `{}` is refused by its own schema: {error}", key.name);
                self.tell(source, at, "bad-default", message, Some("make one fit the other".into()));
            }
            let required = param.required || part == Part::Path;
            params.push(Param { name, kind: Kind::of(&schema.json), required, default, schema });
        }
        Params(params)
    }

    fn path_params_fit(&mut self, written: &RouteFile, segments: &[Segment]) {
        let in_path: Vec<&str> = segments
            .iter()
            .filter_map(|segment| match segment {
                Segment::Param(name) | Segment::Rest(name) => Some(name.as_str()),
                Segment::Literal(_) => None,
            })
            .collect();
        for (key, _) in &written.path_params {
            if !in_path.contains(&key.name.as_str()) {
                let message = format!("the path has no `{{{}}}`", key.name);
                let hint = suggest(&key.name, in_path.iter().copied())
                    .or(Some("delete this parameter, or put it into the path".into()));
                self.tell(&written.source, key.at, "path-parameter", message, hint);
            }
        }
        let Some(path) = &written.path else { return };
        for name in in_path {
            if !written.path_params.iter().any(|(key, _)| key.name == name) {
                let message = format!("the path's `{{{name}}}` is not declared");
                let hint = format!("add `params: {{ path: {{ {name}: {{ type: string }} }} }}`");
                self.tell(&written.source, path.at, "path-parameter", message, Some(hint));
            }
        }
    }

    fn body(&mut self, source: &Source, written: &BodyFile) -> Body {
        let content_type = written
            .content_type
            .as_ref()
            .map_or("application/json".to_owned(), |at| at.value.trim().to_ascii_lowercase());
        if let Some(at) = &written.content_type {
            let fits = content_type.split_once('/').is_some_and(|(kind, sub)| {
                !kind.is_empty()
                    && !sub.is_empty()
                    && content_type.chars().all(|c| c.is_ascii_graphic() && !",;\"/ ".contains(c) || c == '/')
            });
            if !fits {
                let hint = Some("write it without parameters, as in `application/json`".into());
                self.tell(source, at.at, "bad-value", format!("`{}` is no media type", at.value), hint);
            }
        }
        let json = content_type == "application/json" || content_type.ends_with("+json");
        if let (Some(schema), false) = (&written.schema, json) {
            let message =
                format!("a body of type `{content_type}` is passed through unchecked, so it can have no schema");
            self.tell(source, schema.at, "bad-value", message, Some("delete `schema`, or take JSON".into()));
        }
        let schema = written.schema.as_ref().and_then(|node| self.schemas.resolve(source, node, self.problems));
        Body {
            schema,
            max_size: written.max_size.or(self.file.defaults.max_size).unwrap_or(MAX_SIZE),
            content_type,
            json,
            required: written.required,
        }
    }

    fn publish(
        &mut self,
        source: &Source,
        written: &PublishFile,
        id: Option<&str>,
        known: &Known<'_>,
        topology: &Topology,
        kinds: &Kinds,
    ) -> Option<Action> {
        let exchange = written.exchange.as_ref();
        if let Some(exchange) = exchange {
            self.exchange_known(source, exchange, kinds);
        }
        let key = written.key.as_ref().and_then(|key| self.template(source, key, known));
        let headers = self.templates(source, &written.headers, known);
        let (exchange, key) = (exchange?, key?);
        let reaches = reaches(&exchange.value, &key, topology, kinds);
        let mandatory = self.mandatory(written.unroutable);
        // An exchange that others declare may have bindings that the table does not know.
        let passive =
            topology.exchanges.get(&exchange.value).is_some_and(|e| e.declare == crate::topology::Declare::Passive);
        if reaches.is_empty() && mandatory && !passive && kinds.contains_key(&exchange.value) {
            let at = written.key.as_ref().map_or(written.at, |key| key.at);
            let mut problem =
                Problem::at(source, at, "unreceived-publish", "no queue of this table receives what is published here")
                    .warning();
            problem.hint = Some("bind a queue to it, or say `unroutable: accept` for a live-only route".into());
            self.problems.push(problem);
        }
        Some(Action::Publish(Publish {
            exchange: exchange.value.clone(),
            key,
            payload: self.payload(written.payload),
            headers,
            kind: written.kind.as_ref().map_or_else(|| id.unwrap_or_default().to_owned(), |at| at.value.clone()),
            expires: written.expires,
            priority: written.priority,
            confirm_timeout: written.confirm_timeout.or(self.file.defaults.confirm_timeout).unwrap_or(CONFIRM_TIMEOUT),
            mandatory,
            status: written.status.unwrap_or(202),
            reaches,
            location: false,
        }))
    }

    fn call(
        &mut self,
        source: &Source,
        written: &CallFile,
        known: &Known<'_>,
        topology: &Topology,
        kinds: &Kinds,
    ) -> Option<Action> {
        if let Some(queue) = &written.queue
            && !topology.queues.contains_key(&queue.value)
        {
            let hint = suggest(&queue.value, topology.queues.keys().map(String::as_str));
            let hint = hint.or(Some("declare it under `queues:`, with `declare: passive` when others make it".into()));
            self.tell(source, queue.at, "unknown-queue", format!("there is no queue `{}`", queue.value), hint);
        }
        if let Some(exchange) = &written.exchange {
            self.exchange_known(source, exchange, kinds);
        }
        let headers = self.templates(source, &written.headers, known);
        let reply = written.reply_schema.as_ref().and_then(|node| self.schemas.resolve(source, node, self.problems));
        let (exchange, key) = match (&written.queue, &written.exchange, &written.key) {
            // A queue's name is no template: braces in it are braces.
            (Some(queue), ..) => {
                let pieces = vec![crate::route::template::Piece::Literal(queue.value.clone())];
                (String::new(), Template { text: queue.value.clone(), pieces })
            }
            (None, Some(exchange), Some(key)) => (exchange.value.clone(), self.template(source, key, known)?),
            _ => return None,
        };
        Some(Action::Call(Call {
            exchange,
            key,
            timeout: written.timeout.or(self.file.defaults.timeout).unwrap_or(TIMEOUT),
            headers,
            reply,
        }))
    }

    fn exchange_known(&mut self, source: &Source, exchange: &At<String>, kinds: &Kinds) {
        if !kinds.contains_key(&exchange.value) {
            let names = kinds.keys().map(String::as_str).filter(|name| !name.is_empty());
            let hint = suggest(&exchange.value, names).or(Some("declare it under `exchanges:`".into()));
            self.tell(
                source,
                exchange.at,
                "unknown-exchange",
                format!("there is no exchange `{}`", exchange.value),
                hint,
            );
        }
    }

    fn templates(
        &mut self,
        source: &Source,
        written: &[(Key, At<String>)],
        known: &Known<'_>,
    ) -> Vec<(String, Template)> {
        let mut headers = Vec::new();
        for (key, text) in written {
            let taken = key.name.starts_with("fpesa-")
                || key.name.starts_with("x-")
                || matches!(key.name.as_str(), "traceparent" | "tracestate");
            if taken || key.name.is_empty() || key.name.len() > 128 {
                let hint = Some("names with `fpesa-` and `x-`, `traceparent` and `tracestate` are taken".into());
                self.tell(source, key.at, "bad-value", format!("`{}` can't be a message header", key.name), hint);
            }
            if let Some(template) = self.template(source, text, known) {
                headers.push((key.name.clone(), template));
            }
        }
        headers
    }

    fn template(&mut self, source: &Source, text: &At<String>, known: &Known<'_>) -> Option<Template> {
        let template = match Template::parse(&text.value) {
            Ok(template) => template,
            Err(why) => {
                self.tell(source, text.at, "template-syntax", format!("this template can't be read: {why}"), None);
                return None;
            }
        };
        for reference in template.references() {
            if let Err((message, hint)) = known.check(&reference.from) {
                self.tell(source, text.at, "template-unknown", message, hint);
            }
        }
        Some(template)
    }
}

/// What a template of a route can name.
struct Known<'a> {
    path: &'a Params,
    query: &'a Params,
    header: &'a Params,
    body: Option<&'a Body>,
    segments: Option<&'a [Segment]>,
}

impl Known<'_> {
    fn check(&self, from: &From) -> Result<(), (String, Option<String>)> {
        let (params, name, group) = match from {
            From::Id | From::Route => return Ok(()),
            From::Body(path) => return self.check_body(path),
            // What the path has is named well, declared or not: that is told where it belongs.
            From::Path(name)
                if self.segments.is_none_or(|s| {
                    s.iter().any(|s| matches!(s, Segment::Param(n) | Segment::Rest(n) if n == name))
                }) =>
            {
                return Ok(());
            }
            From::Path(name) => (self.path, name, "path"),
            From::Query(name) => (self.query, name, "query"),
            From::Header(name) => (self.header, name, "header"),
        };
        match params.0.iter().find(|param| param.name == *name) {
            Some(param) if matches!(param.kind, Kind::Array(_)) => {
                Err((format!("`{{{from}}}` is a list, and a list can't become text"), None))
            }
            Some(_) => Ok(()),
            None => {
                let hint = suggest(name, params.0.iter().map(|param| param.name.as_str()));
                let hint = hint.or(Some(format!("declare it under `params.{group}`")));
                Err((format!("`{{{from}}}`: this route has no {group} parameter `{name}`"), hint))
            }
        }
    }

    fn check_body(&self, path: &[String]) -> Result<(), (String, Option<String>)> {
        let shown = path.join(".");
        let Some(body) = self.body else {
            return Err((format!("`{{body.{shown}}}`: this route takes no body"), Some("give it `body:`".into())));
        };
        if !body.json {
            return Err((format!("`{{body.{shown}}}`: a body of type `{}` has no fields", body.content_type), None));
        }
        let Some(schema) = &body.schema else { return Ok(()) };
        let mut here: &serde_json::Value = &schema.json;
        for name in path {
            // References and combinations may allow anything: what can't be ruled out is let through.
            let open =
                ["$ref", "$dynamicRef", "allOf", "anyOf", "oneOf", "if", "patternProperties", "unevaluatedProperties"];
            if open.iter().any(|key| here.get(*key).is_some()) {
                return Ok(());
            }
            if let Some(kind) = here.get("type").and_then(serde_json::Value::as_str)
                && kind != "object"
            {
                return Err((format!("`{{body.{shown}}}`: the schema has {kind} where `{name}` is looked for"), None));
            }
            let properties = here.get("properties").and_then(serde_json::Value::as_object);
            match properties.and_then(|properties| properties.get(name)) {
                Some(next) => here = next,
                None if here.get("additionalProperties") == Some(&serde_json::Value::Bool(false)) => {
                    let hint = properties.and_then(|properties| suggest(name, properties.keys().map(String::as_str)));
                    return Err((format!("`{{body.{shown}}}`: the schema rules out `{name}`"), hint));
                }
                None => return Ok(()),
            }
        }
        match here.get("type").and_then(serde_json::Value::as_str) {
            Some(kind @ ("object" | "array" | "null")) => {
                Err((format!("`{{body.{shown}}}` is of type {kind} and can't become text"), None))
            }
            _ => Ok(()),
        }
    }
}

/// Marks publish routes whose messages a GET route gives one by one.
fn locations(routes: &mut [Route]) {
    let gets: Vec<Arc<[Segment]>> = routes
        .iter()
        .filter(|route| route.method == Method::Get)
        .map(|route| route.segments.as_slice().into())
        .collect();
    for route in routes {
        let one_more = |get: &Arc<[Segment]>| {
            get.split_last().is_some_and(|(last, before)| {
                matches!(last, Segment::Param(_)) && shape(before) == shape(&route.segments)
            })
        };
        let location = gets.iter().any(one_more);
        if let Action::Publish(publish) = &mut route.action {
            publish.location = location;
        }
    }
}

fn literal(text: &str) -> bool {
    !text.is_empty()
        && text != "."
        && text != ".."
        && text.chars().all(|c| c.is_ascii_alphanumeric() || "-._~!$&'()*+,;=:@".contains(c))
}

fn place((source, at): (&Source, Place)) -> String {
    format!("{}:{}", source.name, at.line)
}
