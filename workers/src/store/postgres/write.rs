//! Writing a batch: one statement for its topics, one for its events, each id once.

use std::collections::{BTreeMap, HashMap};

use deadpool_postgres::Client;
use tokio_postgres::{
    Error,
    error::{DbError, SqlState},
};
use uuid::Uuid;

use crate::{
    event::Event,
    store::{Appended, Cursor, mirror},
};

pub(super) async fn append(client: &Client, batch: &[Event]) -> Result<Vec<Appended>, Error> {
    // By id: two workers that write the same ids take their locks in the same order. The first of an id counts.
    let mut first: BTreeMap<Uuid, &Event> = BTreeMap::new();
    for event in batch {
        first.entry(event.id).or_insert(event);
    }
    let events: Vec<&Event> = first.values().copied().collect();
    let (mut kept, mut refused, mut there) = (HashMap::new(), HashMap::new(), HashMap::new());
    let mut left = events;
    // What was there, and is removed before it is looked at, does not stand in the way any more.
    while !left.is_empty() {
        write_around(client, &left, &mut kept, &mut refused).await?;
        left.retain(|event| !kept.contains_key(&event.id) && !refused.contains_key(&event.id));
        there.extend(texts(client, left.iter().map(|event| event.id).collect()).await?);
        left.retain(|event| !there.contains_key(&event.id));
    }
    let result = batch.iter().map(|event| match kept.get_mut(&event.id) {
        Some(told @ false) => {
            *told = true;
            Appended::Kept
        }
        None if refused.contains_key(&event.id) => Appended::Refused(refused[&event.id].clone()),
        Some(true) if first.get(&event.id).is_some_and(|kept| event.is_same_as(&kept.text)) => Appended::Duplicate,
        None if there.get(&event.id).is_some_and(|text| event.is_same_as(text)) => Appended::Duplicate,
        Some(true) | None => Appended::Conflict,
    });
    Ok(result.collect())
}

/// Writes what is not there, around what the database refuses: a batch that it refuses is halved until the one event is
/// found, which is written without its mirror, and is refused for good when that does not help. Adds the ids that are
/// kept now, none of them told yet, and the refused ones with the reason.
async fn write_around(
    client: &Client,
    events: &[&Event],
    kept: &mut HashMap<Uuid, bool>,
    refused: &mut HashMap<Uuid, String>,
) -> Result<(), Error> {
    let mut left = vec![events];
    while let Some(part) = left.pop() {
        let mut result = write(client, part, true).await;
        if let ([one], Err(error)) = (part, &result)
            && is_refusal(error)
        {
            result = write(client, part, false).await;
            if let Err(error) = &result
                && is_refusal(error)
            {
                refused.insert(one.id, format!("PostgreSQL refuses it: {}", reason(error)));
                continue;
            }
        }
        match result {
            Ok(ids) => kept.extend(ids.into_iter().map(|id| (id, false))),
            Err(error) if is_refusal(&error) => {
                let (first, second) = part.split_at(part.len() / 2);
                left.extend([second, first]);
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Writes what is not there, and gives the ids that are kept now.
async fn write(client: &Client, events: &[&Event], mirrored: bool) -> Result<Vec<Uuid>, Error> {
    let topics = topics(client, events).await?;
    let ids: Vec<Uuid> = events.iter().map(|event| event.id).collect();
    let times: Vec<i64> = events.iter().map(|event| event.time).collect();
    let topics: Vec<Option<i64>> =
        events.iter().map(|event| topics.get(event.subject.as_deref()?.as_bytes()).copied()).collect();
    let texts: Vec<&[u8]> = events.iter().map(|event| event.text.as_ref()).collect();
    let docs: Vec<Option<&str>> =
        events.iter().map(|event| if mirrored { mirror::exact_in_jsonb(&event.text) } else { None }).collect();
    let insert = client
        .prepare_cached(
            "INSERT INTO fpesa_event (id, time, topic, text, doc)
             SELECT id, time, topic, text, doc::jsonb
             FROM unnest($1::uuid[], $2::bigint[], $3::bigint[], $4::bytea[], $5::text[]) AS given (id, time, topic, text, doc)
             ON CONFLICT (id) DO NOTHING RETURNING id",
        )
        .await?;
    let rows = client.query(&insert, &[&ids, &times, &topics, &texts, &docs]).await?;
    Ok(rows.iter().map(|row| row.get(0)).collect())
}

/// Removes the oldest events before a place. What another one removes at this moment is passed over, not waited for.
pub(super) async fn remove_before(client: &Client, place: &Cursor, most: usize) -> Result<u64, Error> {
    let delete = client
        .prepare_cached(
            "DELETE FROM fpesa_event WHERE id = ANY (ARRAY (
               SELECT id FROM fpesa_event WHERE (time, id) < ($1, $2) ORDER BY time, id LIMIT $3
               FOR UPDATE SKIP LOCKED
             ))",
        )
        .await?;
    client.execute(&delete, &[&place.time, &place.id, &i64::try_from(most).unwrap_or(i64::MAX)]).await
}

/// The numbers of a batch's topics, which are made where they are new.
async fn topics(client: &Client, events: &[&Event]) -> Result<HashMap<Vec<u8>, i64>, Error> {
    let mut names: Vec<&[u8]> = events.iter().filter_map(|event| event.subject.as_deref()).map(str::as_bytes).collect();
    names.sort_unstable();
    names.dedup();
    if names.is_empty() {
        return Ok(HashMap::new());
    }
    let find = client
        .prepare_cached(
            "SELECT topic.name, topic.id FROM unnest($1::bytea[]) AS given (name)
             JOIN fpesa_topic topic ON sha256(topic.name) = sha256(given.name)",
        )
        .await?;
    let found = |rows: Vec<tokio_postgres::Row>| rows.iter().map(|row| (row.get(0), row.get(1))).collect();
    let there: HashMap<Vec<u8>, i64> = found(client.query(&find, &[&names]).await?);
    if there.len() == names.len() {
        return Ok(there);
    }
    let missing: Vec<&[u8]> = names.iter().copied().filter(|name| !there.contains_key(*name)).collect();
    let insert = client
        .prepare_cached(
            "INSERT INTO fpesa_topic (name) SELECT unnest($1::bytea[]) ON CONFLICT (sha256(name)) DO NOTHING",
        )
        .await?;
    client.execute(&insert, &[&missing]).await?;
    Ok(found(client.query(&find, &[&names]).await?))
}

/// The documents of ids that were there already.
async fn texts(client: &Client, ids: Vec<Uuid>) -> Result<HashMap<Uuid, Vec<u8>>, Error> {
    if ids.is_empty() {
        return Ok(HashMap::new());
    }
    let select = client.prepare_cached("SELECT id, text FROM fpesa_event WHERE id = ANY($1)").await?;
    Ok(client.query(&select, &[&ids]).await?.iter().map(|row| (row.get(0), row.get(1))).collect())
}

/// Whether the database will say so of the same event again: class 22 (data exception), class 54 (a limit of the
/// server's), and what constraints and triggers that others made refuse. Our own one, of topics, heals by itself.
fn is_refusal(error: &Error) -> bool {
    error.code().is_some_and(|code| {
        let of_constraint = code.code().starts_with("23") && *code != SqlState::FOREIGN_KEY_VIOLATION;
        let of_data = code.code().starts_with("22") || code.code().starts_with("54");
        of_data || of_constraint || *code == SqlState::RAISE_EXCEPTION
    })
}

fn reason(error: &Error) -> String {
    let told = |db: &DbError| format!("{} (SQLSTATE {})", db.message(), db.code().code());
    error.as_db_error().map_or_else(|| error.to_string(), told)
}
