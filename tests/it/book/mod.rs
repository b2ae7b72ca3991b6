//! The book in `docs/`: what it shows is what happens. Each chapter is a session in a folder of its own, with a gateway on a
//! free port; its blocks run in order. A block's info string says what it is:
//!
//! | | |
//! |---|---|
//! | `yaml` | a whole table, which compiles |
//! | `yaml,part` | keys that compile when they are added to the shipped table |
//! | `yaml,insert` | the same, and the session's table has them from here on |
//! | `yaml,file=NAME`, `json,file=NAME` | a file of the session |
//! | `yaml,settings` | a settings file that `fpesa config` takes |
//! | `json` | JSON |
//! | `sh` | commands that succeed; `sh,fails` that do not; `sh,beside` that go on in the background; `sh,until` that are run
//! |      | until they print what is expected |
//! | `sh,server` | one `fpesa up …`, which is the session's gateway from here on |
//! | `text,output` | what the commands before print; `…` is anything; `text,output,beside` what those in the background do |
//! | `rust`, `python` | included from a file that is tested where it is |
//!
//! After a comment `<!-- tested by tests/it/NAME.rs -->` a block is not run here.

mod session;
mod source;
mod worker;

use std::{collections::BTreeSet, fs, path::Path};

use session::Session;
use source::{Block, blocks, docs, headings, links, summary};

macro_rules! chapters {
    ($($name:ident: $file:literal),* $(,)?) => {
        /// Chapters that run something.
        const RUN: &[&str] = &[$($file),*];
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                Session::run($file).await;
            }
        )*
    };
}

chapters! {
    quick_start: "quick-start.md",
    table: "table.md",
    cases: "cases.md",
    http: "http.md",
    feed: "feed.md",
    writing_a_worker: "writing-a-worker.md",
    workers: "workers.md",
    moving: "moving.md",
    reload: "reload.md",
    operating: "operating.md",
}

#[test]
fn every_chapter_is_in_the_summary_and_every_block_is_run_or_says_who_does() {
    let chapters = summary();
    let mut found = BTreeSet::new();
    for folder in [docs(), docs().join("adr")] {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_some_and(|extension| extension == "md") && !path.ends_with("SUMMARY.md") {
                found.insert(path.strip_prefix(docs()).unwrap().display().to_string());
            }
        }
    }
    assert_eq!(chapters.iter().cloned().collect::<BTreeSet<_>>(), found, "SUMMARY.md and the files in docs/");
    assert_eq!(chapters.iter().collect::<BTreeSet<_>>().len(), chapters.len(), "a chapter stands in SUMMARY.md twice");
    for chapter in &chapters {
        for block in blocks(chapter) {
            block.is_told();
            if block.is_run() {
                assert!(RUN.contains(&chapter.as_str()), "{}: name the chapter in tests/it/book/mod.rs", block.place());
            }
        }
    }
    for chapter in RUN {
        assert!(chapters.iter().any(|known| known == chapter), "there is no chapter {chapter}");
    }
}

#[test]
fn every_link_and_include_leads_somewhere() {
    for chapter in summary() {
        let path = docs().join(&chapter);
        let text = fs::read_to_string(&path).unwrap();
        for link in links(&text) {
            if link.starts_with("https://") || link.starts_with("http://") {
                continue;
            }
            let (file, anchor) = link.split_once('#').unwrap_or((&link, ""));
            let target = if file.is_empty() { path.clone() } else { path.parent().unwrap().join(file) };
            let Ok(target) = fs::canonicalize(&target) else { panic!("{chapter}: {link} leads nowhere") };
            assert!(target.starts_with(fs::canonicalize(docs()).unwrap()), "{chapter}: {link} leads out of the book");
            if !anchor.is_empty() {
                let known = headings(&fs::read_to_string(&target).unwrap());
                assert!(
                    known.iter().any(|heading| heading == anchor),
                    "{chapter}: {link}: no such heading in {known:?}"
                );
            }
        }
        for included in source::includes(&text) {
            included.text(&path);
        }
    }
}

/// What a block of code in another language says: one include, and nothing of its own.
fn is_included(block: &Block) -> bool {
    !block.text.is_empty() && block.text.lines().all(|line| line.starts_with("{{#include ") && line.ends_with("}}"))
}

fn exists(path: &str) -> bool {
    crate::support::root().join(Path::new(path)).is_file()
}
