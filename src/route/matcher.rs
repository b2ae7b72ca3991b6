//! Finds the route of a path: a tree of segments, in which a step costs the same however many routes there are. At each
//! segment a literal beats `{name}`, which beats `{*name}`; what leads nowhere is taken back.

use std::collections::HashMap;

use percent_encoding::percent_decode_str;

use super::table::Segment;

/// The routes of one method, by their index in the table.
#[derive(Debug, Default)]
pub struct Matcher {
    /// Where every path begins; a step leads from a node to another one.
    nodes: Vec<Step>,
}

#[derive(Debug, Default)]
struct Step {
    literals: HashMap<Box<str>, usize>,
    param: Option<usize>,
    /// The route that takes all that is left.
    rest: Option<usize>,
    /// The route whose path ends here.
    end: Option<usize>,
}

impl Matcher {
    /// Adds a route; of two with the same shape the first stays, which the compiler rules out.
    pub fn insert(&mut self, segments: &[Segment], index: usize) {
        if self.nodes.is_empty() {
            self.nodes.push(Step::default());
        }
        let mut here = 0;
        for segment in segments {
            let new = self.nodes.len();
            let next = match segment {
                Segment::Literal(text) => *self.nodes[here].literals.entry(text.as_str().into()).or_insert(new),
                Segment::Param(_) => *self.nodes[here].param.get_or_insert(new),
                Segment::Rest(_) => {
                    self.nodes[here].rest.get_or_insert(index);
                    return;
                }
            };
            if next == new {
                self.nodes.push(Step::default());
            }
            here = next;
        }
        self.nodes[here].end.get_or_insert(index);
    }

    /// The route of a path, without its trailing slash, and what stands for each parameter, in order.
    pub fn find<'p>(&self, path: &'p str) -> Option<(usize, Vec<&'p str>)> {
        let left = path.strip_prefix('/').filter(|left| !left.is_empty());
        let mut values = Vec::new();
        let found = self.from(self.nodes.first()?, left, &mut values)?;
        Some((found, values))
    }

    /// `left` is what follows, without the slash before it. At most a visit for each step of the tree: a step stands in
    /// one depth.
    fn from<'p>(&self, step: &Step, left: Option<&'p str>, values: &mut Vec<&'p str>) -> Option<usize> {
        let Some(left) = left else { return step.end };
        let (segment, next) = match left.split_once('/') {
            Some((segment, next)) => (segment, Some(next)),
            None => (left, None),
        };
        // An escape is another spelling of the character that it stands for (RFC 3986 section 6.2.2.2). A decoded `/` fits no
        // literal.
        let decoded = if segment.contains('%') { percent_decode_str(segment).decode_utf8().ok() } else { None };
        if let Some(literal) = step.literals.get(decoded.as_deref().unwrap_or(segment))
            && let Some(found) = self.from(&self.nodes[*literal], next, values)
        {
            return Some(found);
        }
        // A parameter is never empty.
        if let Some(param) = step.param
            && !segment.is_empty()
        {
            values.push(segment);
            if let Some(found) = self.from(&self.nodes[param], next, values) {
                return Some(found);
            }
            values.pop();
        }
        let found = step.rest.filter(|_| !left.is_empty())?;
        values.push(left);
        Some(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn segments(path: &str) -> Vec<Segment> {
        let parts = path.split('/').filter(|part| !part.is_empty());
        parts
            .map(|part| match part.strip_prefix('{').and_then(|part| part.strip_suffix('}')) {
                Some(name) => match name.strip_prefix('*') {
                    Some(name) => Segment::Rest(name.into()),
                    None => Segment::Param(name.into()),
                },
                None => Segment::Literal(part.into()),
            })
            .collect()
    }

    #[test]
    fn the_most_specific_wins() {
        let routes = ["/", "/a", "/a/{x}", "/a/b", "/a/{*rest}", "/{x}/c/d", "/a/b/{y}/e", "/{x}/b/{z}"];
        let mut matcher = Matcher::default();
        for (index, route) in routes.iter().enumerate() {
            matcher.insert(&segments(route), index);
        }
        for (path, expected) in [
            ("/", Some(("/", vec![]))),
            ("/a", Some(("/a", vec![]))),
            ("/a/b", Some(("/a/b", vec![]))),
            ("/a/c", Some(("/a/{x}", vec!["c"]))),
            ("/a/c/d", Some(("/a/{*rest}", vec!["c/d"]))),
            ("/q/c/d", Some(("/{x}/c/d", vec!["q"]))),
            ("/a/b/1/e", Some(("/a/b/{y}/e", vec!["1"]))),
            ("/a/b/1", Some(("/a/{*rest}", vec!["b/1"]))),
            ("/q/b/1", Some(("/{x}/b/{z}", vec!["q", "1"]))),
            ("/a//", Some(("/a/{*rest}", vec!["/"]))),
            ("/%61", Some(("/a", vec![]))),
            ("/%61/%62/1/%65", Some(("/a/b/{y}/e", vec!["1"]))),
            ("/a/%63%2f", Some(("/a/{x}", vec!["%63%2f"]))),
            ("/a%2fb", None),
            ("/a%", None),
            ("/q", None),
            ("//c/d", None),
            ("/q/c", None),
            ("", Some(("/", vec![]))),
        ] {
            let expected = expected.map(|(route, values)| (routes.iter().position(|r| *r == route).unwrap(), values));
            assert_eq!(matcher.find(path), expected, "{path}");
        }
        assert_eq!(Matcher::default().find("/a"), None);
    }
}
