//! The book's Markdown: blocks, links, headings and includes.

use std::{
    fs,
    path::{Path, PathBuf},
};

use super::{exists, is_included};
use crate::support::root;

pub fn docs() -> PathBuf {
    root().join("docs")
}

/// Files of the chapters, as SUMMARY.md has them.
pub fn summary() -> Vec<String> {
    let text = fs::read_to_string(docs().join("SUMMARY.md")).unwrap();
    links(&text).into_iter().map(|link| link.trim_start_matches("./").to_owned()).collect()
}

/// One fenced block.
#[derive(Debug, Clone)]
pub struct Block {
    pub chapter: String,
    pub line: usize,
    pub info: Vec<String>,
    pub text: String,
    /// Who tests it, when it is not run here.
    pub tested_by: Option<String>,
}

pub fn blocks(chapter: &str) -> Vec<Block> {
    let text = fs::read_to_string(docs().join(chapter)).unwrap();
    let mut found: Vec<Block> = Vec::new();
    let mut open: Option<(Block, usize)> = None;
    let mut before = "";
    for (number, line) in text.lines().enumerate() {
        let plain = line.trim_start();
        match &mut open {
            Some((block, _)) if plain.trim_end() == "```" => {
                found.push(block.clone());
                open = None;
            }
            Some((block, indent)) => {
                let spaces = line.len() - plain.len();
                block.text += &line[spaces.min(*indent)..];
                block.text.push('\n');
            }
            None if plain.starts_with("```") => {
                let info = plain.trim_start_matches('`').split(',').map(|word| word.trim().to_owned()).collect();
                let tested_by = before.strip_prefix("<!-- tested by ").and_then(|rest| rest.strip_suffix(" -->"));
                let block = Block {
                    chapter: chapter.to_owned(),
                    line: number + 1,
                    info,
                    text: String::new(),
                    tested_by: tested_by.map(str::to_owned),
                };
                open = Some((block, line.len() - plain.len()));
            }
            None if !plain.is_empty() => before = plain.trim_end(),
            None => {}
        }
    }
    assert!(open.is_none(), "{chapter}: a block does not end");
    found
}

impl Block {
    pub fn place(&self) -> String {
        format!("docs/{}:{}", self.chapter, self.line)
    }

    pub fn has(&self, word: &str) -> bool {
        self.info.iter().any(|known| known == word)
    }

    /// The value of `file=…`.
    pub fn file(&self) -> Option<&str> {
        self.info.iter().find_map(|word| word.strip_prefix("file="))
    }

    /// Whether the session does something with it.
    pub fn is_run(&self) -> bool {
        let tried = matches!(self.info[0].as_str(), "yaml" | "sh" | "json") || self.has("output");
        self.tested_by.is_none() && tried
    }

    /// Whether its info string is known, and whoever tests it elsewhere is there.
    pub fn is_told(&self) {
        let place = self.place();
        if let Some(test) = &self.tested_by {
            assert!(exists(test), "{place}: there is no {test}");
            return;
        }
        let (kind, more) = self.info.split_first().unwrap();
        let known: &[&str] = match kind.as_str() {
            "yaml" => &["part", "insert", "settings"],
            "sh" => &["fails", "beside", "server", "until"],
            "text" => &["output", "beside"],
            "json" | "nginx" | "ini" => &[],
            "rust" | "python" => {
                assert!(is_included(self), "{place}: code is included from a file that is tested");
                &[]
            }
            other => panic!("{place}: `{other}` is no kind of block that is known"),
        };
        for word in more {
            let file = word.starts_with("file=") && matches!(kind.as_str(), "yaml" | "json");
            assert!(file || known.contains(&word.as_str()), "{place}: `{word}` is not known of `{kind}`");
        }
    }
}

/// Targets of the links outside of blocks.
pub fn links(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    for line in prose(text) {
        let mut rest = line;
        while let Some(at) = rest.find("](") {
            rest = &rest[at + 2..];
            let Some(end) = rest.find(')') else { break };
            found.push(rest[..end].to_owned());
            rest = &rest[end..];
        }
    }
    found
}

/// Anchors of the headings, as mdBook makes them.
pub fn headings(text: &str) -> Vec<String> {
    let titles = prose(text).filter_map(|line| line.strip_prefix('#'));
    titles
        .map(|title| {
            let title = title.trim_start_matches('#').trim().to_lowercase();
            title
                .chars()
                .filter_map(|c| match c {
                    ' ' => Some('-'),
                    c if c.is_alphanumeric() || c == '-' || c == '_' => Some(c),
                    _ => None,
                })
                .collect()
        })
        .collect()
}

fn prose(text: &str) -> impl Iterator<Item = &str> {
    let mut inside = false;
    text.lines().filter(move |line| {
        if line.trim_start().starts_with("```") {
            inside = !inside;
            return false;
        }
        !inside
    })
}

/// `{{#include path}}`, `{{#include path:anchor}}`
#[derive(Debug)]
pub struct Include {
    path: String,
    anchor: Option<String>,
}

pub fn includes(text: &str) -> Vec<Include> {
    let names = text.split("{{#include ").skip(1).filter_map(|rest| rest.split("}}").next());
    names
        .map(|name| match name.split_once(':') {
            Some((path, anchor)) => Include { path: path.to_owned(), anchor: Some(anchor.to_owned()) },
            None => Include { path: name.to_owned(), anchor: None },
        })
        .collect()
}

impl Include {
    /// What it stands for in `chapter`.
    pub fn text(&self, chapter: &Path) -> String {
        let path = chapter.parent().unwrap().join(&self.path);
        let text =
            fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {}: {error}", chapter.display(), self.path));
        let Some(anchor) = &self.anchor else { return text };
        // Lines, as in `:11:18`.
        if let Some((Ok(first), Ok(last))) = anchor.split_once(':').map(|(first, last)| (first.parse(), last.parse())) {
            let (first, last): (usize, usize) = (first, last);
            let lines: Vec<&str> = text.lines().collect();
            assert!(first <= last && last <= lines.len(), "{}: {} has no such lines", chapter.display(), self.path);
            return lines[first - 1..last].join("\n") + "\n";
        }
        let (begin, end) = (format!("ANCHOR: {anchor}"), format!("ANCHOR_END: {anchor}"));
        let lines = text.lines().skip_while(|line| !line.contains(&begin)).skip(1);
        let inside: Vec<&str> = lines.take_while(|line| !line.contains(&end)).collect();
        assert!(!inside.is_empty() && text.contains(&end), "{}: {} has no {anchor}", chapter.display(), self.path);
        inside.join("\n") + "\n"
    }
}
