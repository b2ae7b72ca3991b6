//! Which declared queues a publish route's messages can reach, told from its key template before any message is there.

use std::collections::BTreeSet;

use super::bus::Kinds;
use crate::{
    route::template::{Piece, Template},
    topology::{Queue, QueueKind, Topology},
};

/// Names of the queues that a message with this exchange and key can be routed to.
pub(super) fn reaches(exchange: &str, key: &Template, topology: &Topology, kinds: &Kinds) -> BTreeSet<String> {
    let key = words(key);
    let queues = topology.queues.iter().filter(|(_, queue)| queue.kind != QueueKind::Rpc);
    if exchange.is_empty() {
        return queues.map(|(name, _)| name.clone()).filter(|name| overlap(&split(name), &key)).collect();
    }
    let kind = kinds.get(exchange).map_or("", String::as_str);
    let bound = |queue: &Queue| {
        queue.bind.iter().filter(|binding| binding.exchange == exchange).any(|binding| match kind {
            "topic" => overlap(&split(&binding.key), &key),
            "direct" => overlap(&literal(&binding.key), &key),
            // A fanout takes all; what a headers or a plugin's exchange takes is not told by the key.
            _ => true,
        })
    };
    queues.filter(|(_, queue)| bound(queue)).map(|(name, _)| name.clone()).collect()
}

/// Whether a topic pattern (`messages.#`) fits some key of a template.
pub fn may_match(pattern: &str, key: &Template) -> bool {
    overlap(&split(pattern), &words(key))
}

/// A word of a key or of a pattern.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Word {
    Is(String),
    Any,
    Many,
}

fn split(pattern: &str) -> Vec<Word> {
    let word = |word: &str| match word {
        "*" => Word::Any,
        "#" => Word::Many,
        word => Word::Is(word.to_owned()),
    };
    pattern.split('.').map(word).collect()
}

fn literal(key: &str) -> Vec<Word> {
    key.split('.').map(|word| Word::Is(word.to_owned())).collect()
}

/// A template's key, word by word: a value without `|raw` holds no dot, so it stays within its word.
fn words(template: &Template) -> Vec<Word> {
    let mut words = vec![Word::Is(String::new())];
    for piece in &template.pieces {
        match piece {
            Piece::Literal(text) => {
                for (index, part) in text.split('.').enumerate() {
                    if index > 0 {
                        words.push(Word::Is(String::new()));
                    }
                    if let Some(Word::Is(word)) = words.last_mut() {
                        word.push_str(part);
                    }
                }
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

/// Whether some key fits both.
fn overlap(a: &[Word], b: &[Word]) -> bool {
    match (a.first(), b.first()) {
        (None, None) => true,
        (Some(Word::Many), _) => overlap(&a[1..], b) || (!b.is_empty() && overlap(a, &b[1..])),
        (_, Some(Word::Many)) => overlap(b, a),
        (Some(Word::Is(x)), Some(Word::Is(y))) => x == y && overlap(&a[1..], &b[1..]),
        (Some(_), Some(_)) => overlap(&a[1..], &b[1..]),
        (None, Some(_)) | (Some(_), None) => false,
    }
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
        ] {
            let template = Template::parse(template).unwrap();
            assert_eq!(overlap(&split(pattern), &words(&template)), expected, "{pattern} {}", template.text);
        }
    }
}
