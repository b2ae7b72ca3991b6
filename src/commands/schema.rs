//! `fpesa schema`: the JSON Schema of routes.yaml, for editors.

use crate::{output::say, route::table_schema::table_schema};

/// `fpesa schema`: what `schemas/routes.schema.json` holds.
pub fn schema() -> anyhow::Result<bool> {
    say(&serde_json::to_string_pretty(&table_schema())?)?;
    Ok(true)
}
