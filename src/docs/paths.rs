//! Where routes stand in an API description. Its paths know no catch-all, and one path has one name for each parameter:
//! a name is none of a client's business, so it may differ from the table's.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use crate::route::{
    file::Method,
    table::{Route, Segment},
};

/// Where a route stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Placed {
    /// The path, with parameters in braces.
    pub path: String,
    /// Each parameter of the path: its name there, and what it is in the table.
    pub names: Vec<(String, Named)>,
}

/// What a parameter of a path is in the table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Named {
    /// A parameter of the route.
    Param(String),
    /// A further segment that this catch-all parameter takes.
    Further(String),
}

/// Places all routes, in the table's order.
pub fn place(routes: &[Arc<Route>]) -> Vec<Placed> {
    let mut by_shape: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut taken: BTreeSet<(String, Method)> = BTreeSet::new();
    let mut placed: BTreeMap<usize, Placed> = BTreeMap::new();
    let catches = |route: &Route| matches!(route.segments.last(), Some(Segment::Rest(_)));
    // A catch-all gives way to what is more specific: with `/a/{x}` beside it, it takes two segments and more.
    for last in [false, true] {
        for (index, route) in routes.iter().enumerate().filter(|(_, route)| catches(route) == last) {
            let mut further = 0;
            loop {
                let parts = parts(&route.segments, further);
                let shape: String =
                    parts.iter().map(|part| part.as_deref().map_or("/{}".into(), |text| format!("/{text}"))).collect();
                if catches(route) && taken.contains(&(shape.clone(), route.method)) {
                    further += 1;
                    continue;
                }
                let own = names(&route.segments, further);
                let used =
                    by_shape.entry(shape.clone()).or_insert_with(|| own.iter().map(|(name, _)| name.clone()).collect());
                let mut free = used.iter();
                let path: String = parts
                    .iter()
                    .map(|part| match part {
                        Some(text) => format!("/{text}"),
                        None => format!("/{{{}}}", free.next().map_or("", String::as_str)),
                    })
                    .collect();
                let names = used.iter().cloned().zip(own.into_iter().map(|(_, named)| named)).collect();
                taken.insert((shape, route.method));
                placed.insert(index, Placed { path: if path.is_empty() { "/".into() } else { path }, names });
                break;
            }
        }
    }
    placed.into_values().collect()
}

/// Literal segments, and `None` for each parameter.
fn parts(segments: &[Segment], further: usize) -> Vec<Option<String>> {
    let part = |segment: &Segment| match segment {
        Segment::Literal(text) => vec![Some(text.clone())],
        Segment::Param(_) => vec![None],
        Segment::Rest(_) => vec![None; further + 1],
    };
    segments.iter().flat_map(part).collect()
}

fn names(segments: &[Segment], further: usize) -> Vec<(String, Named)> {
    let mut out = Vec::new();
    for segment in segments {
        match segment {
            Segment::Literal(_) => {}
            Segment::Param(name) => out.push((name.clone(), Named::Param(name.clone()))),
            Segment::Rest(name) => {
                out.extend((1..=further).map(|n| (format!("{name}_{n}"), Named::Further(name.clone()))));
                out.push((name.clone(), Named::Param(name.clone())));
            }
        }
    }
    out
}
