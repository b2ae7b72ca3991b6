//! The collections, their indexes and their version.

use mongodb::{
    Collection, Database, IndexModel,
    bson::{Document, doc},
    error::{Error, ErrorKind, WriteFailure},
    options::IndexOptions,
};

use super::told;
use crate::store::StoreError;

/// The version that this program knows.
const SCHEMA: i32 = 1;

pub(super) const EVENTS: &str = "fpesa_event";
pub(super) const TOPICS: &str = "fpesa_topic";
const VERSION: &str = "fpesa_schema";

/// The index of `place`, and of a topic's places.
pub(super) const BY_PLACE: &str = "fpesa_by_place";
pub(super) const BY_TOPIC: &str = "fpesa_by_topic";

/// Server code of a duplicate key.
pub(super) const DUPLICATE_KEY: i32 = 11000;

/// Brings the database to our version, whoever else does the same at the same time: every step may run twice at once
/// (an index that is there already is made in no time), and the version never goes down.
pub(super) async fn prepare(database: &Database) -> Result<(), StoreError> {
    let versions = database.collection::<Document>(VERSION);
    let found = version(&versions).await?;
    refuse_newer(found)?;
    if found == SCHEMA {
        return Ok(());
    }
    if found < 1 {
        let index = |keys: Document, name: &str| {
            IndexModel::builder().keys(keys).options(IndexOptions::builder().name(name.to_owned()).build()).build()
        };
        let events = database.collection::<Document>(EVENTS);
        let indexes = [index(doc! { "place": 1 }, BY_PLACE), index(doc! { "topic": 1, "place": 1 }, BY_TOPIC)];
        events.create_indexes(indexes).await.map_err(told)?;
    }
    let raise = versions.update_one(doc! { "_id": "schema" }, doc! { "$max": { "version": SCHEMA } }).upsert(true);
    match raise.await {
        Err(error) if !is_duplicate(&error) => return Err(told(error)),
        // Another made the document between our look and our write.
        _ => {}
    }
    refuse_newer(version(&versions).await?)
}

async fn version(versions: &Collection<Document>) -> Result<i32, StoreError> {
    let found = versions.find_one(doc! { "_id": "schema" }).await.map_err(told)?;
    Ok(found.and_then(|found| found.get_i32("version").ok()).unwrap_or(0))
}

fn refuse_newer(found: i32) -> Result<(), StoreError> {
    if found <= SCHEMA {
        return Ok(());
    }
    Err(StoreError::Settings(format!(
        "the database was written by a newer fpesa (schema {found}, this one knows {SCHEMA}): use that one, or another database"
    )))
}

fn is_duplicate(error: &Error) -> bool {
    match &*error.kind {
        ErrorKind::Write(WriteFailure::WriteError(error)) => error.code == DUPLICATE_KEY,
        ErrorKind::Command(error) => error.code == DUPLICATE_KEY,
        _ => false,
    }
}
