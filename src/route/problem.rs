//! A mistake in the table, told with its place: how `check`, the log and `/readyz` show it.
//! Pure: sources come in as text.

use std::{fmt::Write as _, sync::Arc};

use serde::{Deserialize, Serialize};
use unicode_width::UnicodeWidthChar as _;

/// One text that the table is made of, with the name that the user knows it by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// As the user named it, or relative to the table's folder.
    pub name: Arc<str>,
    /// The whole text.
    pub text: Arc<str>,
}

/// A place in a source; lines and columns count from 1, columns in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    /// Line, from 1.
    pub line: u32,
    /// Column in characters, from 1.
    pub column: u32,
}

impl Default for Place {
    fn default() -> Self {
        Self { line: 1, column: 1 }
    }
}

/// How bad a problem is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, PartialOrd, Ord)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// The table cannot take effect.
    Error,
    /// It can, but probably does not do what was meant.
    Warning,
}

/// One mistake. Its serialized form is a contract with editors and CI.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// File as the user named it, or relative to the table's folder.
    pub file: String,
    /// Line, from 1.
    pub line: u32,
    /// Column in characters, from 1.
    pub column: u32,
    /// A stable word for programs, such as `unknown-key`.
    pub code: &'static str,
    /// What is wrong, in a sentence.
    pub message: String,
    /// What to do about it.
    pub hint: Option<String>,
    /// Error or warning.
    pub severity: Severity,
    /// Where the line is looked up that people are shown.
    #[serde(skip)]
    pub source: Source,
}

impl Problem {
    /// A problem at a place of a source.
    pub fn at(source: &Source, place: Place, code: &'static str, message: impl Into<String>) -> Self {
        Self {
            file: source.name.to_string(),
            line: place.line,
            column: place.column,
            code,
            message: message.into(),
            hint: None,
            severity: Severity::Error,
            source: source.clone(),
        }
    }

    /// The same with what to do about it.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// The same as a warning.
    #[must_use]
    pub fn warning(mut self) -> Self {
        self.severity = Severity::Warning;
        self
    }

    /// Whether it keeps the table from taking effect.
    pub fn is_error(&self) -> bool {
        self.severity == Severity::Error
    }

    /// `file:line:column: error[code]: message`, the line itself, and a caret with the hint.
    pub fn render(&self, colour: bool) -> String {
        self.render_as(self.code, colour)
    }

    /// The same with another word for programs: that of a problem that came from elsewhere.
    pub fn render_as(&self, code: &str, colour: bool) -> String {
        let paint = |tint: &str, text: &str| {
            if colour { format!("\x1b[{tint}m{text}\x1b[0m") } else { text.to_owned() }
        };
        let (word, tint) = match self.severity {
            Severity::Error => ("error", "1;31"),
            Severity::Warning => ("warning", "1;33"),
        };
        let mut out = format!(
            "{}:{}:{}: {} {}",
            self.file,
            self.line,
            self.column,
            paint(tint, &format!("{word}[{code}]:")),
            paint("1", &self.message)
        );
        let number = self.line.to_string();
        let gutter = " ".repeat(number.len());
        let Excerpt { text: shown, column, width } = self.excerpt();
        if !shown.trim().is_empty() {
            let carets = "^".repeat(width);
            let _ = write!(out, "\n {gutter} |\n {number} | {shown}");
            let _ = write!(out, "\n {gutter} | {}{}", blank(&shown, column), paint(tint, &carets));
            if let Some(hint) = &self.hint {
                let _ = write!(out, " {hint}");
            }
        } else if let Some(hint) = &self.hint {
            let _ = write!(out, "\n {gutter} = {hint}");
        }
        out
    }

    /// The line that it is told of, as people are shown it.
    pub fn excerpt(&self) -> Excerpt {
        let (line, from) = window(self.source.line(self.line), self.column);
        let width = word_width(line, self.column as usize - from, from > 0).clamp(1, 60);
        let (text, column) = shown(line, self.column as usize - from, from > 0);
        Excerpt { text, column, width }
    }
}

/// A line to be shown, and what in it is meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Excerpt {
    /// The line, tabs as one blank; only what stands around the place where it is long.
    pub text: String,
    /// Where what is meant begins, in characters from 0.
    pub column: usize,
    /// How many characters it has.
    pub width: usize,
}

impl Source {
    /// A line, from 1; empty where there is none.
    fn line(&self, number: u32) -> &str {
        let text = self.text.strip_prefix('\u{feff}').unwrap_or(&self.text);
        text.lines().nth(number.saturating_sub(1) as usize).unwrap_or("")
    }
}

/// Most characters of a line that are shown.
const MOST: usize = 160;

/// What stands around `column` in a line that may be long, and how many characters were left out before it.
fn window(line: &str, column: u32) -> (&str, usize) {
    let line = line.trim_end();
    if line.len() <= MOST || line.chars().nth(MOST).is_none() {
        return (line, 0);
    }
    let from = (column.saturating_sub(1) as usize).saturating_sub(MOST / 2);
    let ascii = line.is_ascii();
    let byte = |index: usize| {
        if ascii { index.min(line.len()) } else { line.char_indices().nth(index).map_or(line.len(), |(byte, _)| byte) }
    };
    (&line[byte(from)..byte(from + 2 * MOST)], from)
}

/// The line as people see it, tabs as one blank, and the column in it (from 0); `cut` where something was left out before.
fn shown(line: &str, column: usize, cut: bool) -> (String, usize) {
    let clean = |c: char| if c.is_control() { ' ' } else { c };
    let mut shown: String = line.chars().take(MOST).map(clean).collect();
    if line.chars().nth(MOST).is_some() {
        shown.push('…');
    }
    if cut { (format!("…{shown}"), column) } else { (shown, column.saturating_sub(1)) }
}

/// Blanks as wide as the first `count` characters of `text` are on a terminal.
fn blank(text: &str, count: usize) -> String {
    let before: usize = text.chars().take(count).map(|c| c.width().unwrap_or(1)).sum();
    " ".repeat(before + count.saturating_sub(text.chars().count()))
}

/// How many characters the word at `column` has: a quoted text whole, a plain one up to what ends it in YAML. A line that is
/// `cut` before it is so long that the word stands in a list or a mapping that opened in what was left out.
fn word_width(line: &str, column: usize, cut: bool) -> usize {
    let column = column.saturating_sub(1);
    let before = line.chars().take(column);
    let rest: Vec<char> = line.chars().skip(column).collect();
    match rest.first() {
        Some(quote @ ('"' | '\'')) => {
            let closed = (1..rest.len()).find(|at| rest[*at] == *quote && (rest[at - 1] != '\\' || *quote == '\''));
            closed.map_or(1, |at| at + 1)
        }
        Some('[' | ']' | '{' | '}' | ',' | ':' | '#') | None => 1,
        Some(_) => {
            let depth = before.fold(i32::from(cut), |depth, c| match c {
                '[' | '{' => depth + 1,
                ']' | '}' => depth - 1,
                _ => depth,
            });
            let ends = |at: &usize| match (rest[*at], rest.get(at + 1)) {
                (',' | ']' | '}', _) => depth > 0,
                (':', None | Some(' ')) | (' ', Some('#')) => true,
                _ => false,
            };
            let end = (0..rest.len()).find(ends).unwrap_or(rest.len());
            let word = &rest[..end];
            word.iter().rposition(|c| !c.is_whitespace()).map_or(1, |last| last + 1)
        }
    }
}

/// The known word that is closest to `word`, if one is close enough to be what was meant.
pub fn did_you_mean<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    /// No word that people mistype is longer, and none is looked for among more.
    const LONGEST: usize = 100;
    const MOST: usize = 1_000;
    if word.len() > LONGEST {
        return None;
    }
    let lower = word.to_lowercase();
    let known: Vec<&str> = known.into_iter().take(MOST).filter(|candidate| candidate.len() <= LONGEST).collect();
    let close = known
        .iter()
        .map(|candidate| (strsim::damerau_levenshtein(&lower, &candidate.to_lowercase()), *candidate))
        .filter(|(distance, candidate)| *distance <= 1.max(candidate.chars().count().min(word.chars().count()) / 3))
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate);
    // `routing_key` means `key`.
    let part = || {
        let mut parts = lower.split(['_', '-', '.', ' ']).filter(|part| part.len() > 2 && part.len() < lower.len());
        parts.find_map(|part| known.iter().find(|candidate| **candidate == part).copied())
    };
    close.or_else(part)
}

/// The hint that names a known word.
pub fn meant(word: &str) -> String {
    format!("did you mean `{word}`?")
}

/// A hint that names the closest known word, or else lists them all when they are few.
pub fn suggest<'a>(word: &str, known: impl IntoIterator<Item = &'a str> + Clone) -> Option<String> {
    const FEW: usize = 30;
    if let Some(word) = did_you_mean(word, known.clone()) {
        return Some(meant(word));
    }
    let all: Vec<&str> = known.into_iter().take(FEW + 1).collect();
    (1..=FEW).contains(&all.len()).then(|| format!("known here: {}", all.join(", ")))
}
