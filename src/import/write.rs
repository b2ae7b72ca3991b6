//! The table as YAML for people: in the style of the shipped one, with a comment where something was left out.

use std::fmt::Write as _;

use serde_json::{Map, Value as Json};

use super::{document::Document, operations::Draft};

/// A table in the making.
pub struct Skeleton {
    /// The document's file.
    pub from: String,
    /// Its title and version.
    pub title: String,
    /// First word of keys and queues.
    pub name: String,
    /// Prefix of every route.
    pub base_path: String,
    /// What is said before the routes.
    pub notes: Vec<String>,
    /// Routes; the sentence says why one is only a comment.
    pub routes: Vec<(Draft, Option<String>)>,
    /// Operations that became no route.
    pub left_out: Vec<String>,
}

/// The text of a table, and in which lines each route stands (from 1; the end is not included).
pub struct Written {
    /// `routes.yaml`
    pub text: String,
    /// By index.
    pub lines: Vec<std::ops::Range<usize>>,
}

impl Skeleton {
    /// What a table is made from, with nothing changed yet.
    pub fn new(doc: &Document, from: &str, routes: Vec<Draft>, left_out: Vec<String>) -> Self {
        let info = &doc.json["info"];
        let title = info["title"].as_str().unwrap_or("untitled").to_owned();
        let version = info["version"].as_str().unwrap_or_default();
        Self {
            from: from.rsplit(['/', '\\']).next().unwrap_or(from).to_owned(),
            name: super::operations::word(&title.to_lowercase()),
            title: format!("{title} {version}").trim_end().to_owned(),
            base_path: String::new(),
            notes: Vec::new(),
            routes: routes.into_iter().map(|draft| (draft, None)).collect(),
            left_out,
        }
    }

    /// Leaves descriptions out; whether there were any.
    pub fn shorten(&mut self) -> bool {
        let mut shorter = false;
        for (draft, _) in &mut self.routes {
            shorter |= draft.told.shift_remove("description").is_some();
            for schema in draft.params.all.iter_mut().filter_map(|param| param.schema.as_object_mut()) {
                shorter |= schema.shift_remove("description").is_some();
            }
        }
        shorter
    }

    /// The table as YAML.
    pub fn write(&self) -> Written {
        let mut out = String::new();
        comment(
            &mut out,
            "",
            &format!("Made by `fpesa import` from {} ({}). It is yours now: edit it.", self.from, self.title),
        );
        comment(
            &mut out,
            "",
            "A GET is a call: a worker of yours answers it from the queue that it names. All else is published and kept.",
        );
        self.notes.iter().for_each(|note| comment(&mut out, "", note));
        out.push_str("version: 1\n");
        if !self.base_path.is_empty() {
            let _ = writeln!(out, "base_path: {}", scalar(&self.base_path));
        }
        let empty = self.routes.iter().all(|(_, why)| why.is_some());
        out.push_str(if empty { "\nroutes: []\n" } else { "\nroutes:\n" });
        let mut lines = Vec::new();
        for (index, (draft, why)) in self.routes.iter().enumerate() {
            if index > 0 {
                out.push('\n');
            }
            let from = out.matches('\n').count() + 1;
            match why {
                None => out.push_str(&self.route(draft)),
                Some(why) => {
                    comment(&mut out, "  ", &format!("left out: {why}"));
                    for line in self.route(draft).lines() {
                        let _ = writeln!(out, "  #{}", line.strip_prefix("  ").map_or(line, |line| line));
                    }
                }
            }
            lines.push(from..out.matches('\n').count() + 1);
        }
        for what in &self.left_out {
            out.push('\n');
            comment(&mut out, "  ", &format!("left out: {what}"));
        }
        self.bus(&mut out);
        Written { text: out, lines }
    }

    fn route(&self, draft: &Draft) -> String {
        let mut out = String::new();
        let _ = writeln!(out, "  - id: {}", scalar(&draft.id));
        for note in draft.notes.iter().chain(&draft.params.left_out) {
            comment(&mut out, "    ", note);
        }
        for (key, value) in &draft.told {
            let _ = writeln!(out, "    {key}: {}", flow(value));
        }
        let _ = writeln!(out, "    method: {}\n    path: {}", draft.method, scalar(&draft.path));
        if !draft.params.all.is_empty() {
            out.push_str("    params:\n");
        }
        for part in ["path", "query", "header"] {
            let mut params = draft.params.all.iter().filter(|param| param.part == part).peekable();
            if params.peek().is_some() {
                let _ = writeln!(out, "      {part}:");
            }
            for param in params {
                let mut schema = Map::new();
                if param.required {
                    schema.insert("required".into(), true.into());
                }
                schema.extend(param.schema.as_object().cloned().unwrap_or_default());
                let _ = writeln!(out, "        {}: {}", scalar(&param.name), flow(&schema.into()));
            }
        }
        if let Some(body) = &draft.body {
            let mut members = Map::new();
            members.extend(body.schema.clone().map(|file| ("schema".into(), file.into())));
            members.extend(body.content_type.clone().map(|kind| ("content_type".into(), kind.into())));
            if !body.required {
                members.insert("required".into(), false.into());
            }
            let _ = writeln!(out, "    body: {}", flow(&members.into()));
        }
        if draft.method == "GET" {
            let _ = write!(out, "    call: {{ queue: {}", scalar(&self.queue(&draft.group)));
            if let Some(file) = &draft.reply {
                let _ = write!(out, ", reply: {{ schema: {} }}", scalar(file));
            }
            out.push_str(" }\n");
            return out;
        }
        let key = format!("{}.{}.{}", self.name, draft.group, super::operations::word(&draft.id));
        let _ = writeln!(out, "    publish:\n      exchange: amq.topic\n      key: {}", scalar(&key));
        if draft
            .body
            .as_ref()
            .is_some_and(|body| body.content_type.as_deref().is_some_and(|kind| !kind.ends_with("+json")))
        {
            out.push_str("      payload: body\n");
        }
        if let Some(status) = draft.status {
            let _ = writeln!(out, "      status: {status}");
        }
        out
    }

    fn queue(&self, group: &str) -> String {
        format!("{}.query.{group}", self.name)
    }

    /// Queues and workers, as far as routes need them.
    fn bus(&self, out: &mut String) {
        let used = || self.routes.iter().filter(|(_, why)| why.is_none()).map(|(draft, _)| draft);
        let publishes = used().any(|draft| draft.method != "GET");
        let mut groups: Vec<&str> =
            used().filter(|draft| draft.method == "GET").map(|draft| draft.group.as_str()).collect();
        groups.sort_unstable();
        groups.dedup();
        if publishes || !groups.is_empty() {
            out.push_str("\nqueues:\n");
        }
        let name = &self.name;
        if publishes {
            let _ = writeln!(out, "  {}:", scalar(&format!("{name}.persist")));
            let _ = writeln!(out, "    bind: [{{ exchange: amq.topic, key: {} }}]", scalar(&format!("{name}.#")));
            let _ = writeln!(out, "    dead_letter: {}", scalar(&format!("{name}.dead")));
            let _ = writeln!(out, "  {}: {{}}", scalar(&format!("{name}.dead")));
        }
        for group in &groups {
            let queue = scalar(&self.queue(group));
            let _ = writeln!(out, "  {queue}: {{ type: rpc, declare: passive }}    # its worker declares it");
        }
        if publishes {
            let _ = writeln!(out, "\nworkers:\n  persist: {{ queue: {} }}", scalar(&format!("{name}.persist")));
        }
    }
}

/// A comment; what breaks a line is a blank in it.
fn comment(out: &mut String, indent: &str, text: &str) {
    let text: String =
        text.chars().map(|c| if c.is_control() || matches!(c, '\u{2028}' | '\u{2029}') { ' ' } else { c }).collect();
    let _ = writeln!(out, "{indent}# {text}");
}

/// A value in flow style.
fn flow(value: &Json) -> String {
    match value {
        Json::Object(members) if members.is_empty() => "{}".into(),
        Json::Object(members) => {
            let members: Vec<String> =
                members.iter().map(|(key, value)| format!("{}: {}", scalar(key), flow(value))).collect();
            format!("{{ {} }}", members.join(", "))
        }
        Json::Array(items) => format!("[{}]", items.iter().map(flow).collect::<Vec<_>>().join(", ")),
        Json::String(text) => scalar(text),
        other => other.to_string(),
    }
}

/// Text as a plain scalar where it can't be taken for anything else, else in double quotes.
fn scalar(text: &str) -> String {
    const WORDS: [&str; 10] = ["null", "true", "false", "yes", "no", "on", "off", "y", "n", "nan"];
    let plain = text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '/')
        && text.chars().all(|c| c.is_ascii_alphanumeric() || "_-./ ".contains(c))
        && !text.ends_with(' ')
        && !WORDS.contains(&text.to_ascii_lowercase().as_str());
    if plain {
        return text.to_owned();
    }
    let quoted = Json::from(text).to_string();
    // YAML allows fewer characters as they are than JSON does.
    let raw =
        |c: char| matches!(c, '\u{7f}'..='\u{9f}' | '\u{2028}' | '\u{2029}' | '\u{feff}' | '\u{fffe}' | '\u{ffff}');
    quoted.chars().map(|c| if raw(c) { format!("\\u{:04x}", u32::from(c)) } else { c.to_string() }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::route::{problem::Source, yaml};

    #[test]
    fn what_is_written_is_read_as_it_was() {
        let value = serde_json::json!({
            "plain": "a b", "like a number": "1", "words": ["null", "Yes", "~", "", " a", "a ", "-", "# x", "a: b", "{x}", "*a", "&b"],
            "escapes": "a\"b\\c\n\t\u{7f}\u{85}\u{2028}\u{feff}é😀", "numbers": [1, 2.5, -3, 1e30], "empty": {}, "null": null,
            "deep": { "a": [{ "b": [] }] }, "é": true
        });
        let source = Source { name: "t.yaml".into(), text: format!("x: {}\n", flow(&value)).into() };
        assert_eq!(yaml::parse(&source).unwrap().to_json()["x"], value, "{}", source.text);
    }
}
