//! `fpesa routes`: the table, to be read at a glance.

use std::path::Path;

use super::show;
use crate::{
    files::Disk,
    output::say,
    route::{
        compile::{Compiled, compile},
        table::Action,
    },
};

/// `fpesa routes`: the table, a route a line.
pub fn routes(file: &Path) -> anyhow::Result<bool> {
    let Compiled { table, problems } = compile(&Disk::new(file));
    show(&problems);
    let Some(table) = table else { return Ok(false) };
    let rows: Vec<[String; 4]> = table
        .routes
        .iter()
        .map(|route| {
            let target = match &route.action {
                Action::Publish(publish) => format!("publish {} {}", publish.exchange, publish.key.text),
                Action::Call(call) if call.exchange.is_empty() => format!("call {}", call.key.text),
                Action::Call(call) => format!("call {} {}", call.exchange, call.key.text),
            };
            [route.method.name().to_owned(), route.path.clone(), target, route.id.clone()]
        })
        .collect();
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let (method, path, target) = (width(0), width(1), width(2));
    for [m, p, t, id] in &rows {
        say(&format!("{m:method$}  {p:path$}  {t:target$}  {id}"))?;
    }
    Ok(true)
}
