//! `fpesa reload`: asks running gateways to look at their files, and tells whether those are in force.

use anyhow::{Context as _, bail};
use hyper::{Request, StatusCode};
use serde::Deserialize;

use crate::{
    app::Usage,
    ask::{self, Address},
    commands::patience::Limit,
    files::Disk,
    output::{note, say},
    reload::{Texts, change::Change, compile_noting},
    route::problem::{Place, Problem, Severity, Source},
    settings::{Settings, mask_text},
};

/// What a gateway answers, of both kinds.
#[derive(Debug, Deserialize)]
struct Answer {
    generation: u64,
    #[serde(default)]
    change: Change,
    #[serde(default)]
    problems: Vec<Told>,
    #[serde(default)]
    digest: String,
}

/// A problem, as a gateway tells it: without the line itself, which is nobody's business who is not on its machine.
#[derive(Debug, Deserialize)]
struct Told {
    file: String,
    line: u32,
    column: u32,
    code: String,
    message: String,
    hint: Option<String>,
    severity: Severity,
}

/// `fpesa reload`: whether all of them took the files as they are now.
pub async fn reload(settings: &Settings, urls: &[String], wait: bool) -> anyhow::Result<bool> {
    let listening = [format!("http://{}", settings.listen)];
    let urls = if urls.is_empty() { &listening[..] } else { urls };
    let urls: Vec<Address> = urls.iter().map(|url| ask::address(url)).collect::<Result<_, Usage>>()?;
    let mut good = true;
    let mut digests = Vec::new();
    for url in &urls {
        match one(settings, url, wait).await {
            Ok((in_force, digest)) => {
                good &= in_force;
                digests.extend(digest.map(|digest| (url, digest)));
            }
            Err(error) if error.is::<Usage>() => return Err(error),
            Err(error) => {
                note(&mask_text(&format!("fpesa: {error:#}")));
                good = false;
            }
        }
    }
    // Each read its own files: two that read different ones serve different tables.
    if let Some((first, digest)) = digests.first()
        && let Some((other, _)) = digests.iter().find(|(_, other)| other != digest)
    {
        note(&format!("fpesa: {first} and {other} have different files: bring them to the same, and reload again"));
        good = false;
    }
    Ok(good)
}

/// Asks one: whether its files are in force, and their digest.
async fn one(settings: &Settings, url: &Address, wait: bool) -> anyhow::Result<(bool, Option<String>)> {
    let shown = url.to_string();
    let request = || {
        let request = Request::post("/reload").header("content-length", "0");
        if wait { request } else { request.header("prefer", "respond-async") }
    };
    // `--wait` waits for the reload here, not for the gateway.
    let response = ask::gateway(url, request, &mut ask::patience(url, Limit::Short)).await?;
    if !matches!(response.status(), StatusCode::OK | StatusCode::ACCEPTED | StatusCode::CONFLICT) {
        bail!("{shown}/reload answers {}: is this a gateway of fpesa?", response.status());
    }
    let answer: Answer = serde_json::from_slice(response.body())
        .with_context(|| format!("{shown}/reload answers what it must not: is this a gateway of fpesa?"))?;
    let generation = answer.generation;
    if response.status() == StatusCode::ACCEPTED {
        say(&format!("{shown}: looking at its files (generation {generation} is in force; --wait tells how it went)"))?;
        return Ok((true, None));
    }
    let ours = compile_noting(&Disk::new(&settings.routes)).1;
    let same = ours.digest == answer.digest;
    for problem in &answer.problems {
        note(&problem.render(&settings.routes, same.then_some(&ours)));
    }
    if response.status() == StatusCode::CONFLICT {
        note(&format!("fpesa: {shown} did not reload: generation {generation} stays in force"));
        return Ok((false, Some(answer.digest)));
    }
    let change = if generation == 1 { "as it was started".to_owned() } else { answer.change.to_string() };
    say(&format!("{shown}: generation {generation} is in force: {change}"))?;
    if !same && ours.table.is_some() {
        note(&format!("fpesa: note that {shown} reads other files than {}", settings.routes.display()));
    }
    Ok((true, Some(answer.digest)))
}

impl Told {
    /// As `fpesa check` shows it; with the line where `ours` are the gateway's own files.
    fn render(&self, table: &std::path::Path, ours: Option<&Texts>) -> String {
        let disk = Disk::new(table);
        let text = ours.map(|texts| {
            if texts.names.contains(&self.file) {
                std::fs::read_to_string(disk.folder().join(&self.file)).unwrap_or_default()
            } else {
                texts.table.as_ref().map(|table| table.text.to_string()).unwrap_or_default()
            }
        });
        let source = Source { name: self.file.as_str().into(), text: text.unwrap_or_default().into() };
        let at = Place { line: self.line, column: self.column };
        let mut problem = Problem::at(&source, at, "", self.message.clone());
        problem.hint.clone_from(&self.hint);
        problem.severity = self.severity;
        problem.render_as(&self.code, std::io::IsTerminal::is_terminal(&std::io::stderr()))
    }
}
