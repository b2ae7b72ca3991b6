//! `fpesa explain`: what would become of a request.

use std::{fs, io::Read as _, path::Path};

use axum::body::Bytes;
use serde_json::{Value, value::RawValue};

use super::{paint::Paint, show};
use crate::{
    app::Usage,
    cli::Format,
    files::Disk,
    http::explain::{Asked, Explained, Sent, Verdict, explain as explain_request},
    json::indented,
    output::say,
    route::{
        compile::{Compiled, compile},
        table::{Action, Route},
    },
};

/// Routes that are shown as not answering, the closest first; programs get all.
const MOST_OTHERS: usize = 8;

/// The request of a command line.
#[derive(Debug, Clone)]
pub struct Request {
    /// `GET`, `POST`, …
    pub method: String,
    /// Path, with a query perhaps.
    pub path: String,
    /// `Name: value` each.
    pub headers: Vec<String>,
    /// The body: text, or `@` and a file's name (`@-` is stdin).
    pub data: Option<String>,
}

/// `fpesa explain`: whether the request would be taken, and what would become of it.
pub fn explain(file: &Path, request: &Request, format: Format) -> anyhow::Result<bool> {
    let asked = asked(request)?;
    let Compiled { table, problems } = compile(&Disk::new(file));
    show(&problems);
    let Some(table) = table else { return Ok(false) };
    let explained = explain_request(&table, &asked);
    match format {
        Format::Json => say(&serde_json::to_string(&explained.view())?)?,
        Format::Text => say(&text(&asked, &explained, Paint::stdout()))?,
    }
    Ok(explained.taken())
}

fn asked(request: &Request) -> Result<Asked, Usage> {
    let mut headers = Vec::new();
    for line in &request.headers {
        let (name, value) = line.split_once(':').ok_or_else(|| {
            Usage(format!("`{line}` is no header: write it as in --header 'Content-Type: application/json'"))
        })?;
        headers.push((name.trim().to_owned(), value.trim().to_owned()));
    }
    let body = request.data.as_deref().map(data).transpose()?.unwrap_or_default();
    Asked::new(&request.method, &request.path, &headers, body).map_err(Usage)
}

fn data(given: &str) -> Result<Bytes, Usage> {
    let Some(name) = given.strip_prefix('@') else { return Ok(given.to_owned().into()) };
    let read = if name == "-" {
        let mut bytes = Vec::new();
        std::io::stdin().lock().read_to_end(&mut bytes).map(|_| bytes)
    } else {
        fs::read(name)
    };
    read.map(Bytes::from).map_err(|error| Usage(format!("--data {given}: {error}")))
}

/// The explanation for people.
fn text(asked: &Asked, explained: &Explained<'_>, paint: Paint) -> String {
    let mut out = Sheet { paint, lines: Vec::new(), label: "" };
    let asked_for = paint.bold(&format!("{} {}", asked.method, asked.uri));
    let headline = match &explained.verdict {
        Verdict::Published { status, .. } => paint.good(&format!("taken: published, {status}")),
        Verdict::Called { .. } => paint.good("taken: a call, and its reply is the answer"),
        Verdict::Own => paint.good("taken: the gateway answers it by itself"),
        Verdict::Refused(problem) => paint.bad(&format!("refused: {}", problem.status)),
    };
    out.lines.push(format!("{asked_for}  →  {headline}\n"));
    if let Some(route) = explained.route {
        let summary = route.summary.as_deref().unwrap_or("");
        out.row("route", &format!("{}  {}", route.id, paint.dim(summary)));
        out.row("route", &paint.dim(&format!("{} {}", route.method.name(), route.path)));
    }
    params(&mut out, explained);
    let view = explained.view();
    if let Verdict::Refused(problem) = &explained.verdict {
        for (name, value) in problem.headers() {
            out.row("header", &format!("{name}: {}", value.to_str().unwrap_or_default()));
        }
        let document = view.problem.map(Value::Object).unwrap_or_default();
        out.block("problem", &indented(&document.to_string()));
    }
    if let (Some(sent), Some(route)) = (&view.sent, explained.route) {
        message(&mut out, sent, explained, route, asked);
    }
    others(&mut out, explained);
    if view.sent.is_some() {
        out.lines.push(paint.dim("\nids and times are examples"));
    }
    out.lines.join("\n")
}

fn params(out: &mut Sheet, explained: &Explained<'_>) {
    let Some(params) = &explained.params else { return };
    for (part, values) in [("path", &params.path), ("query", &params.query), ("header", &params.header)] {
        for (name, value) in values {
            out.row("params", &format!("{part}.{name} = {value}"));
        }
    }
}

fn message(out: &mut Sheet, sent: &Sent<'_>, explained: &Explained<'_>, route: &Route, asked: &Asked) {
    let paint = out.paint;
    if let (Some(body), false) = (&route.body, asked.body.is_empty()) {
        let fits = match &body.schema {
            Some(schema) => {
                format!("fits {}", schema.name.as_ref().map_or("its schema".into(), |n| format!("schemas/{n}")))
            }
            None if body.json => "JSON, without a schema".into(),
            None => "not looked into".into(),
        };
        out.row("body", &format!("{} bytes, {fits}", asked.body.len()));
    }
    let template = match &route.action {
        Action::Publish(publish) => &publish.key,
        Action::Call(call) => &call.key,
    };
    if let Some(queue) = sent.queue {
        out.row("queue", queue);
    } else {
        out.row("exchange", if sent.exchange.is_empty() { "(the default exchange)" } else { sent.exchange });
        let written =
            if template.text == sent.key { String::new() } else { format!("  {}", paint.dim(&template.text)) };
        out.row("key", &format!("{}{written}", sent.key));
    }
    match &explained.verdict {
        Verdict::Published { queues, status, location, .. } => {
            let none = || paint.dim("none that the table declares");
            out.row("queues", &if queues.is_empty() { none() } else { queues.join(", ") });
            let location = location.as_ref().map(|location| format!(", Location: {location}")).unwrap_or_default();
            out.row("answer", &format!("{status} once it is kept{location}"));
        }
        Verdict::Called { timeout, .. } => {
            out.row("answer", &format!("the reply, within {}", crate::units::show_duration(*timeout)));
        }
        Verdict::Own | Verdict::Refused(_) => {}
    }
    for (label, values) in [("headers", &sent.headers), ("properties", &sent.properties)] {
        let width = values.keys().map(|name| name.chars().count()).max().unwrap_or(0);
        for (name, value) in values {
            let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            out.row(label, &format!("{name:width$}  {value}"));
        }
    }
    out.block("payload", &indented(RawValue::get(&sent.payload)));
}

fn others(out: &mut Sheet, explained: &Explained<'_>) {
    if explained.others.is_empty() || matches!(explained.verdict, Verdict::Own) {
        return;
    }
    let mut others: Vec<_> = explained.others.iter().collect();
    others.sort_by_key(|(_, why)| std::cmp::Reverse(why.close));
    let shown = &others[..others.len().min(MOST_OTHERS)];
    let width = shown.iter().map(|(route, _)| route.id.chars().count()).max().unwrap_or(0);
    for (route, why) in shown {
        out.row("not", &format!("{:width$}  {}", route.id, out.paint.dim(&why.why)));
    }
    if let more @ 1.. = others.len() - shown.len() {
        out.row("not", &out.paint.dim(&format!("and {more} more")));
    }
}

/// Rows with a label, which is said once.
struct Sheet {
    paint: Paint,
    lines: Vec<String>,
    label: &'static str,
}

impl Sheet {
    fn row(&mut self, label: &'static str, text: &str) {
        let shown = if self.label == label { "" } else { label };
        self.label = label;
        self.lines.push(format!("{}{text}", self.paint.dim(&format!("{shown:12}"))).trim_end().to_owned());
    }

    fn block(&mut self, label: &'static str, text: &str) {
        for line in text.lines() {
            self.row(label, line);
        }
    }
}
