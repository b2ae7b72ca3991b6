//! Which declared queues a publish route's messages can reach, told from its key template before any message is there.

use std::collections::{BTreeSet, HashMap};

use super::bus::Kinds;
use crate::{
    route::template::{Piece, Template},
    topology::{QueueKind, Topology},
};

/// The bindings of a table, by exchange and split into words once.
pub(super) struct Reach<'t> {
    /// Queues by the words of their names, which are their keys on the default exchange.
    queues: Vec<(&'t str, Vec<Word<'t>>)>,
    bound: HashMap<&'t str, Vec<(&'t str, Takes<'t>)>>,
}

/// Which keys a binding takes.
enum Takes<'t> {
    Words(Vec<Word<'t>>),
    /// A fanout takes all; what a headers or a plugin's exchange takes is not told by the key.
    Any,
}

impl<'t> Reach<'t> {
    pub fn of(topology: &'t Topology, kinds: &Kinds) -> Self {
        let mut reach = Self { queues: Vec::new(), bound: HashMap::new() };
        for (name, queue) in topology.queues.iter().filter(|(_, queue)| queue.kind != QueueKind::Rpc) {
            reach.queues.push((name, literal(name)));
            for binding in &queue.bind {
                let takes = match kinds.get(&binding.exchange).map_or("", String::as_str) {
                    "topic" => Takes::Words(split(&binding.key)),
                    "direct" => Takes::Words(literal(&binding.key)),
                    _ => Takes::Any,
                };
                reach.bound.entry(&binding.exchange).or_default().push((name, takes));
            }
        }
        reach
    }

    /// Names of the queues that a message with this exchange and key can be routed to.
    pub fn queues(&self, exchange: &str, key: &Template) -> BTreeSet<String> {
        let key = words(key);
        if exchange.is_empty() {
            let named = self.queues.iter().filter(|(_, name)| overlap(name, &key));
            return named.map(|(name, _)| (*name).to_owned()).collect();
        }
        let bound = self.bound.get(exchange).into_iter().flatten().filter(|(_, takes)| match takes {
            Takes::Words(pattern) => overlap(pattern, &key),
            Takes::Any => true,
        });
        bound.map(|(name, _)| (*name).to_owned()).collect()
    }
}

/// Whether a topic pattern (`messages.#`) fits some key of a template.
pub fn may_match(pattern: &str, key: &Template) -> bool {
    overlap(&split(pattern), &words(key))
}

/// A word of a key or of a pattern.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Word<'t> {
    Is(&'t str),
    Any,
    Many,
}

fn split(pattern: &str) -> Vec<Word<'_>> {
    let word = |word| match word {
        "*" => Word::Any,
        "#" => Word::Many,
        word => Word::Is(word),
    };
    pattern.split('.').map(word).collect()
}

fn literal(key: &str) -> Vec<Word<'_>> {
    key.split('.').map(Word::Is).collect()
}

/// A template's key, word by word: a value without `|raw` holds no dot, so it stays within its word.
fn words(template: &Template) -> Vec<Word<'_>> {
    let mut words = vec![Word::Is("")];
    for piece in &template.pieces {
        match piece {
            Piece::Literal(text) => {
                let mut parts = text.split('.');
                // No literal follows another one: a word that is begun already is one of a reference.
                if let (Some(last @ Word::Is("")), Some(part)) = (words.last_mut(), parts.next()) {
                    *last = Word::Is(part);
                }
                words.extend(parts.map(Word::Is));
            }
            Piece::Reference(reference) => {
                let dots = reference.raw || reference.default.as_ref().is_some_and(|text| text.contains('.'));
                if let Some(last) = words.last_mut() {
                    *last = if dots || *last == Word::Many { Word::Many } else { Word::Any };
                }
            }
        }
    }
    words
}

/// Whether some key fits both. Each pair of rests is looked at once: time is the product of the lengths.
fn overlap(a: &[Word<'_>], b: &[Word<'_>]) -> bool {
    // Most pairs differ in a literal at one of the ends.
    let differ =
        |a: Option<&Word<'_>>, b: Option<&Word<'_>>| matches!((a, b), (Some(Word::Is(x)), Some(Word::Is(y))) if x != y);
    if differ(a.first(), b.first()) || differ(a.last(), b.last()) {
        return false;
    }
    // From the end: whether the rest of `a` at hand and the rest of `b` from each place on have a key in common.
    let mut below: Vec<bool> = Vec::new();
    for i in (0..=a.len()).rev() {
        let mut row = vec![false; b.len() + 1];
        for j in (0..=b.len()).rev() {
            let skip_a = || below.get(j).copied().unwrap_or(false);
            let skip_b = || row.get(j + 1).copied().unwrap_or(false);
            let both = || below.get(j + 1).copied().unwrap_or(false);
            row[j] = match (a.get(i), b.get(j)) {
                (None, None) => true,
                (Some(Word::Many), _) | (_, Some(Word::Many)) => skip_a() || skip_b(),
                (Some(Word::Is(x)), Some(Word::Is(y))) => x == y && both(),
                (Some(_), Some(_)) => both(),
                (None, Some(_)) | (Some(_), None) => false,
            };
        }
        below = row;
    }
    below[0]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn overlapping() {
        for (pattern, template, expected) in [
            ("messages.#", "messages.{body.topic:-general}", true),
            ("messages.*", "messages.{body.topic}", true),
            ("messages.a", "messages.{body.topic}", true),
            ("messages.a.b", "messages.{body.topic}", false),
            ("messages.a.b", "messages.{path.rest|raw}", true),
            ("orders.#", "messages.{body.topic}", false),
            ("#", "{id}", true),
            ("*.new", "{header.tenant}.old", false),
            ("a-b", "a-{body.x}", true),
            ("messages", "messages", true),
            ("a.#.b.#.c", "a.{path.x|raw}.c", true),
            ("a.#", "b.{path.x|raw}", false),
            (
                "#.#.#.#.#.#.#.#.#.#.#.#.#.#.#.#.z",
                "{id|raw}.{id|raw}.{id|raw}.{id|raw}.{id|raw}.{id|raw}.{id|raw}.y",
                false,
            ),
            ("", "", true),
        ] {
            let template = Template::parse(template).unwrap();
            assert_eq!(overlap(&split(pattern), &words(&template)), expected, "{pattern} {}", template.text);
        }
    }
}
