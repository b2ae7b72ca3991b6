//! `fpesa openapi` and `fpesa asyncapi`: the documents of a table, as the gateway serves them.

use serde_json::Value;

use super::show;
use crate::{
    docs,
    files::Disk,
    output::say,
    route::{
        compile::{Compiled, compile},
        table::Table,
    },
    settings::Settings,
};

/// `fpesa openapi`: the HTTP side.
pub fn openapi(settings: &Settings) -> anyhow::Result<bool> {
    document(settings, docs::openapi)
}

/// `fpesa asyncapi`: the messages.
pub fn asyncapi(settings: &Settings) -> anyhow::Result<bool> {
    document(settings, docs::asyncapi)
}

fn document(settings: &Settings, of: fn(&Table, &Settings) -> Value) -> anyhow::Result<bool> {
    let Compiled { table, problems } = compile(&Disk::new(&settings.routes));
    show(&problems);
    let Some(table) = table else { return Ok(false) };
    say(&serde_json::to_string_pretty(&of(&table, settings))?)?;
    Ok(true)
}
