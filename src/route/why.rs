//! Why a route is not the one that answers a request, in a sentence.

use super::{
    file::Method,
    table::{Route, Segment, trimmed},
};

/// A route that does not answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WhyNot {
    /// A sentence.
    pub why: String,
    /// How close it came: segments of its path that fit, and all of them when only the method or another route keeps it
    /// from answering.
    pub close: usize,
}

/// Why `route` does not answer a request, which `chosen` answers, or no route. `method` is `None` where no route has it.
pub fn why_not(route: &Route, method: Option<Method>, path: &str, chosen: Option<&Route>) -> WhyNot {
    let other_method = method != Some(route.method);
    match difference(&route.segments, path) {
        None if other_method => {
            WhyNot { why: format!("its method is {}", route.method.name()), close: route.segments.len() + 1 }
        }
        None => {
            let why = chosen.and_then(|chosen| specific(chosen, route));
            WhyNot { why: why.unwrap_or_else(|| "another route comes first".into()), close: route.segments.len() + 1 }
        }
        Some((fit, why)) => {
            let with_base = format!("{}{path}", route.base_path);
            if !route.base_path.is_empty() && lacks_base(route, path) {
                let base = &route.base_path;
                return if difference(&route.segments, &with_base).is_none() {
                    let why = format!("it answers {with_base}: the table's base_path, {base}, is a part of the path");
                    WhyNot { why, close: route.segments.len() }
                } else {
                    WhyNot { why: format!("its path begins with {base}"), close: 0 }
                };
            }
            let method =
                if other_method { format!("its method is {}, and ", route.method.name()) } else { String::new() };
            WhyNot { why: format!("{method}{why}"), close: fit }
        }
    }
}

/// Whether the path lacks the table's base path.
fn lacks_base(route: &Route, path: &str) -> bool {
    path.strip_prefix(route.base_path.as_str()).is_none_or(|rest| !(rest.is_empty() || rest.starts_with('/')))
}

/// How many segments fit, and what the first is that does not; `None` when the whole path does.
fn difference(segments: &[Segment], path: &str) -> Option<(usize, String)> {
    let path = trimmed(path).strip_prefix('/').unwrap_or(path);
    let mut parts = path.split('/').filter(|_| !path.is_empty()).peekable();
    for (index, segment) in segments.iter().enumerate() {
        let Some(part) = parts.next() else {
            return Some((index, format!("its path goes on with /{}", rest(&segments[index..]))));
        };
        match segment {
            Segment::Literal(text) if *text != percent_encoding::percent_decode_str(part).decode_utf8_lossy() => {
                return Some((index, format!("its path has `{text}` where the request has `{}`", shown(part))));
            }
            Segment::Param(name) if part.is_empty() => {
                return Some((index, format!("`{{{name}}}` would be empty")));
            }
            Segment::Rest(name) => {
                let empty = part.is_empty() && parts.peek().is_none();
                return empty.then(|| (index, format!("`{{*{name}}}` would be empty")));
            }
            Segment::Literal(_) | Segment::Param(_) => {}
        }
    }
    parts.next().map(|part| (segments.len(), format!("its path ends before `/{}`", shown(part))))
}

/// Where two routes that both fit differ, and which one that decides for.
fn specific(chosen: &Route, other: &Route) -> Option<String> {
    let (here, there) = chosen.segments.iter().zip(&other.segments).find(|(a, b)| written(a) != written(b))?;
    let what = match here {
        Segment::Literal(_) => "a literal segment",
        Segment::Param(_) | Segment::Rest(_) => "one segment",
    };
    Some(format!(
        "it fits too, but `{}` is closer: {what}, `{}`, comes before `{}`",
        chosen.id,
        written(here),
        written(there)
    ))
}

fn written(segment: &Segment) -> String {
    match segment {
        Segment::Literal(text) => text.clone(),
        Segment::Param(name) => format!("{{{name}}}"),
        Segment::Rest(name) => format!("{{*{name}}}"),
    }
}

fn rest(segments: &[Segment]) -> String {
    segments.iter().map(written).collect::<Vec<_>>().join("/")
}

/// A client's own text, shortened before it is told back.
fn shown(text: &str) -> String {
    text.chars().take(60).collect()
}
