//! A mistake in the table, told with its place: how `check`, the log and `/readyz` show it.
//! Pure: sources come in as text.

use std::{fmt::Write as _, sync::Arc};

use serde::{Deserialize, Serialize};

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
    /// The line of the file, for people.
    #[serde(skip)]
    pub excerpt: String,
    /// How many characters the caret underlines.
    #[serde(skip)]
    pub width: usize,
}

impl Problem {
    /// A problem at a place of a source; its line and the width of the word there are looked up.
    pub fn at(source: &Source, place: Place, code: &'static str, message: impl Into<String>) -> Self {
        let excerpt = source.text.lines().nth(place.line.saturating_sub(1) as usize).unwrap_or("").to_owned();
        let width = word_width(&excerpt, place.column);
        Self {
            file: source.name.to_string(),
            line: place.line,
            column: place.column,
            code,
            message: message.into(),
            hint: None,
            severity: Severity::Error,
            excerpt,
            width,
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
        let (shown, column) = window(&self.excerpt, self.column);
        if !shown.trim().is_empty() {
            let carets = "^".repeat(self.width.clamp(1, 60));
            let _ = write!(out, "\n {gutter} |\n {number} | {shown}");
            let _ = write!(out, "\n {gutter} | {}{}", " ".repeat(column), paint(tint, &carets));
            if let Some(hint) = &self.hint {
                let _ = write!(out, " {hint}");
            }
        } else if let Some(hint) = &self.hint {
            let _ = write!(out, "\n {gutter} = {hint}");
        }
        out
    }
}

/// At most 160 characters of a line around `column`, tabs as one blank, with the column in what is shown (from 0).
fn window(line: &str, column: u32) -> (String, usize) {
    const MOST: usize = 160;
    let chars: Vec<char> = line.trim_end().chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    let column = (column.saturating_sub(1) as usize).min(chars.len());
    if chars.len() <= MOST {
        return (chars.into_iter().collect(), column);
    }
    let from = column.saturating_sub(MOST / 2);
    let shown: String = chars[from..(from + MOST).min(chars.len())].iter().collect();
    if from == 0 { (format!("{shown}…"), column) } else { (format!("…{shown}…"), column - from + 1) }
}

fn word_width(line: &str, column: u32) -> usize {
    let rest: Vec<char> = line.chars().skip(column.saturating_sub(1) as usize).collect();
    match rest.first() {
        Some(quote @ ('"' | '\'')) => rest.iter().skip(1).position(|c| c == quote).map_or(1, |at| at + 2),
        Some(c) if is_word(*c) => rest.iter().take_while(|c| is_word(**c)).count(),
        _ => 1,
    }
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || "_-./{}*#+$".contains(c)
}

/// The known word that is closest to `word`, if one is close enough to be what was meant.
pub fn did_you_mean<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let lower = word.to_lowercase();
    known
        .into_iter()
        .map(|candidate| (strsim::damerau_levenshtein(&lower, &candidate.to_lowercase()), candidate))
        .filter(|(distance, candidate)| *distance <= 1.max(candidate.chars().count().min(word.chars().count()) / 3))
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// A hint that names the closest known word, or else lists them all when they are few.
pub fn suggest<'a>(word: &str, known: impl IntoIterator<Item = &'a str> + Clone) -> Option<String> {
    const FEW: usize = 30;
    if let Some(meant) = did_you_mean(word, known.clone()) {
        return Some(format!("did you mean `{meant}`?"));
    }
    let all: Vec<&str> = known.into_iter().take(FEW + 1).collect();
    (1..=FEW).contains(&all.len()).then(|| format!("known here: {}", all.join(", ")))
}
