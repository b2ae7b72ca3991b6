//! The corpus of `fuzz/`: tables that were found to be interesting, and every broken one, are compiled again.

use std::time::{Duration, Instant};

use crate::support::root;

#[path = "../../fuzz/drive.rs"]
mod drive;

#[test]
fn the_corpus_is_replayed() {
    let corpus = root().join("fuzz/corpus/table");
    let mut count = 0;
    for entry in std::fs::read_dir(corpus).unwrap() {
        let path = entry.unwrap().path();
        let start = Instant::now();
        drive::table(&std::fs::read(&path).unwrap());
        assert!(start.elapsed() < Duration::from_secs(20), "{} takes long", path.display());
        count += 1;
    }
    assert!(count > 50, "{count} files");
}

/// What would take time by the square of its size, if something in the way did.
#[test]
fn large_ones_end() {
    let many = |line: &str, head: &str| format!("version: 1\n{head}\n{}", line.repeat(300_000 / line.len()));
    let words = (0..30_000).map(|n| format!("w{n}: 1, ")).collect::<String>();
    let queues = (0..5_000).map(|n| format!("  q{n}: {{ dead_letter: q{} }}\n", n + 1)).collect::<String>();
    let routes = (0..1_500)
        .map(|n| {
            format!(
                "  - {{ id: r{n}, method: POST, path: '/{n}', body: {{}}, publish: {{ exchange: amq.topic, key: '{{id|raw}}.a.{n}' }} }}\n"
            )
        })
        .collect::<String>();
    let bound = (0..1_500)
        .map(|n| format!("  q{n}: {{ bind: [{{ exchange: amq.topic, key: '#.a.#.{n}' }}] }}\n"))
        .collect::<String>();
    for text in [
        many("zebra: 1\n", ""),
        many("- a\n", "routes:"),
        many("  - { id: a, method: GET, path: /a, call: { queue: rrr } }\n", "routes:"),
        many("{", ""),
        many("- ", ""),
        many("'", ""),
        many("  ", ""),
        many("a\r", ""),
        format!("{{ version: 1, {words} routes: [] }}"),
        format!("version: 1\nroutes: []\nqueues:\n{queues}"),
        format!("version: 1\nroutes:\n{routes}queues:\n{bound}"),
        format!("version: 1\nroutes: []\n{}: 1", "k".repeat(900_000)),
    ] {
        let start = Instant::now();
        drive::table(text.as_bytes());
        let took = start.elapsed();
        assert!(took < Duration::from_secs(60), "{text:.60}… takes {took:?}");
        println!("{took:?} {:.40}", text.replace('\n', " "));
    }
}
