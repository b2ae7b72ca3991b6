//! `routes`: each one's path, parameters, body and action, and that no two answer the same request.

use std::collections::{HashMap, HashSet};

use super::{Bus, Compiler, known::Known};
use crate::route::{
    decode::At,
    file::{Method, RouteFile},
    invalid::Part,
    problem::{Place, Problem, Source, suggest},
    table::{Action, Route, Segment, shape, trimmed},
};

/// Paths that the gateway answers itself.
pub const RESERVED: [&str; 12] = [
    "/",
    "/healthz",
    "/readyz",
    "/reload",
    "/metrics",
    "/openapi.json",
    "/asyncapi.json",
    "/docs",
    "/feed.json",
    "/table.json",
    "/pulse.json",
    "/mqtt",
];
/// Folder of the web app's files.
pub const ASSETS: &str = "/assets";

impl Compiler<'_> {
    pub(super) fn routes(&mut self, bus: &Bus<'_>) -> Vec<Route> {
        let file = self.file;
        // What is wrong with the prefix is not wrong with each route.
        let base = if self.base_path() {
            file.base_path.as_ref().map_or("", |at| at.value.trim_end_matches('/'))
        } else {
            "/prefix"
        };
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
            if let Some(route) = self.route(written, segments, base, bus) {
                routes.push(route);
            }
        }
        locations(&mut routes);
        routes
    }

    pub(super) fn tell(
        &mut self,
        source: &Source,
        at: Place,
        code: &'static str,
        message: String,
        hint: Option<String>,
    ) {
        let mut problem = Problem::at(source, at, code, message);
        problem.hint = hint;
        self.problems.push(problem);
    }

    /// Whether the prefix can be one.
    fn base_path(&mut self) -> bool {
        let Some(base) = &self.file.base_path else { return true };
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
        fits
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
                Segment::Literal(text) if text.is_empty() => {
                    return bad(format!("`{}` has an empty segment", path.value), "write one `/` between two segments");
                }
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
        bus: &Bus<'_>,
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
            written,
            path: &path_params,
            query: &query_params,
            header: &header_params,
            body: body.as_ref(),
            segments: segments.as_deref(),
        };
        let id = written.id.as_ref().map(|id| id.value.clone());
        let action = match (&written.publish, &written.call) {
            (Some(publish), None) => self.publish(publish, id.as_deref(), &known, bus),
            (None, Some(call)) => self.call(call, &known, bus),
            (Some(publish), Some(call)) => {
                // Told already that it may be one only; each is still read for its own mistakes.
                self.call(call, &known, bus);
                self.publish(publish, id.as_deref(), &known, bus)
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

    /// Every `{name}` of the path is declared, and every declared one is in the path.
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
}

/// Marks publish routes whose messages a GET route gives one by one.
fn locations(routes: &mut [Route]) {
    let mut gets = HashSet::new();
    for route in routes.iter().filter(|route| route.method == Method::Get) {
        if let Some((Segment::Param(_), before)) = route.segments.split_last() {
            gets.insert(shape(before));
        }
    }
    for route in routes {
        let one_more = gets.contains(&shape(&route.segments));
        if let Action::Publish(publish) = &mut route.action {
            publish.location = one_more;
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
