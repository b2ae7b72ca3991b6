//! `fpesa schema`: the JSON Schema of routes.yaml, for editors.

use super::say;
use crate::route::table_schema::table_schema;

/// `fpesa schema`: what `schemas/routes.schema.json` holds.
pub fn schema() -> anyhow::Result<bool> {
    say(&serde_json::to_string_pretty(&table_schema())?)?;
    Ok(true)
}
