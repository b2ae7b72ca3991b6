//! The tables and their versions.

use tokio_postgres::Client;

/// The version that this program knows.
pub(super) const SCHEMA: i32 = 1;

/// One process at a time looks and migrates; the number is ours alone ("fpesa" in ASCII).
const LOCK: i64 = 0x66_70_65_73_61;

/// Each step leads from the version of its place to the next one.
const STEPS: [&str; 1] = ["CREATE TABLE fpesa_topic (
         id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
         name bytea NOT NULL           -- UTF-8; bytea because text has no U+0000
     );
     -- By digest: a name may be longer than an index entry.
     CREATE UNIQUE INDEX fpesa_topic_by_name ON fpesa_topic (sha256(name));
     CREATE TABLE fpesa_event (
         id uuid PRIMARY KEY,
         time bigint NOT NULL,         -- microseconds since 1970
         topic bigint REFERENCES fpesa_topic,
         text bytea NOT NULL,          -- the CloudEvent, byte for byte: the truth
         doc jsonb                     -- its mirror for ad-hoc queries; NULL where jsonb can't be exact
     );
     CREATE INDEX fpesa_event_by_time ON fpesa_event (time, id);
     CREATE INDEX fpesa_event_by_topic ON fpesa_event (topic, time, id);"];

pub(super) enum Unusable {
    Settings(String),
    Failed(tokio_postgres::Error),
}

impl From<tokio_postgres::Error> for Unusable {
    fn from(error: tokio_postgres::Error) -> Self {
        Self::Failed(error)
    }
}

/// Brings the database to our version, whoever else does the same at the same time.
pub(super) async fn prepare(client: &mut Client) -> Result<(), Unusable> {
    // What most connections find: looked up without a lock.
    let there: bool = client.query_one("SELECT to_regclass('fpesa_schema') IS NOT NULL", &[]).await?.get(0);
    if there && version(client).await? == SCHEMA {
        return Ok(());
    }
    let transaction = client.transaction().await?;
    transaction.execute("SELECT pg_advisory_xact_lock($1)", &[&LOCK]).await?;
    transaction.batch_execute("CREATE TABLE IF NOT EXISTS fpesa_schema (version int NOT NULL)").await?;
    let row = transaction.query_opt("SELECT version FROM fpesa_schema", &[]).await?;
    let found: i32 = row.map_or(0, |row| row.get(0));
    if found > SCHEMA {
        return Err(Unusable::Settings(format!(
            "the database was written by a newer fpesa (schema {found}, this one knows {SCHEMA}): use that one, or another database"
        )));
    }
    for step in STEPS.iter().skip(usize::try_from(found).unwrap_or(0)) {
        transaction.batch_execute(step).await?;
    }
    transaction.execute("DELETE FROM fpesa_schema", &[]).await?;
    transaction.execute("INSERT INTO fpesa_schema VALUES ($1)", &[&SCHEMA]).await?;
    transaction.commit().await?;
    Ok(())
}

async fn version(client: &Client) -> Result<i32, tokio_postgres::Error> {
    let row = client.query_opt("SELECT version FROM fpesa_schema", &[]).await?;
    Ok(row.map_or(0, |row| row.get(0)))
}
