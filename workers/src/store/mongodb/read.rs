//! Reading pages: keyset walks along the index of `place`, or along those of a few topics at once (the server merges
//! them: up to as many as it does that for are asked so).

use bytes::Bytes;
use futures::TryStreamExt as _;
use mongodb::{
    bson::{Bson, Document, doc},
    options::Hint,
};
use uuid::Uuid;

use super::{Ready, document, schema, told};
use crate::{
    store::{Cursor, From, MERGED_TOPICS, Page, PageQuery, StoreError},
    topic::Filter,
};

/// Whose events are read.
enum Topics {
    All,
    /// Few: their walks are merged.
    These(Vec<String>),
    /// Many: a walk of everything, filtered.
    Filtered(Vec<String>),
}

impl Topics {
    /// The condition, and the index that goes with it.
    fn condition(&self) -> (Document, &'static str) {
        match self {
            Self::All => (Document::new(), schema::BY_PLACE),
            Self::These(names) => match names.as_slice() {
                [name] => (doc! { "topic": name }, schema::BY_TOPIC),
                names => (doc! { "topic": { "$in": names } }, schema::BY_TOPIC),
            },
            Self::Filtered(names) => (doc! { "topic": { "$in": names } }, schema::BY_PLACE),
        }
    }
}

pub(super) async fn page(ready: &Ready, query: &PageQuery) -> Result<Page, StoreError> {
    let (mut before, mut after) = (None, None);
    match &query.from {
        From::Newest => {}
        From::Before(cursor) => before = Some(*cursor),
        From::After(id) => after = Some(get(ready, id).await?.ok_or(StoreError::UnknownAfter)?.0),
        From::Following(cursor) => after = Some(*cursor),
    }
    let topics = topics(ready, query.topic.as_ref()).await?;
    let total = if query.count { Some(count(ready, &topics, query).await?) } else { None };
    let (mut condition, index) = topics.condition();
    condition.extend(places(query, before, after));
    let most = query.limit + 1;
    let mut cursor = ready
        .events
        .find(condition)
        .sort(doc! { "place": if after.is_some() { 1 } else { -1 } })
        .projection(doc! { "_id": 0, "place": 1, "text": 1 })
        .hint(Hint::Name(index.to_owned()))
        .limit(i64::try_from(most).unwrap_or(i64::MAX))
        .batch_size(u32::try_from(most).unwrap_or(u32::MAX))
        .await
        .map_err(told)?;
    let (mut items, mut last, mut more, mut bytes) = (Vec::new(), None, false, 0);
    while let Some(document) = cursor.try_next().await.map_err(told)? {
        let (place, text) = document::read(&document)?;
        bytes += text.len();
        if items.len() == query.limit || (bytes > query.max_bytes && !items.is_empty()) {
            more = true;
            break;
        }
        items.push(text);
        last = Some(place);
    }
    Ok(Page { items, next: last.filter(|_| more), total })
}

/// One event, with its place.
pub(super) async fn get(ready: &Ready, id: &Uuid) -> Result<Option<(Cursor, Bytes)>, StoreError> {
    let found = ready.events.find_one(doc! { "_id": document::id(id) }).await.map_err(told)?;
    found.map(|document| document::read(&document)).transpose()
}

/// The place of the event that so many newer ones follow: a walk along the index alone.
pub(super) async fn nth_newest(ready: &Ready, newer: u64) -> Result<Option<Cursor>, StoreError> {
    /// Servers add the limit to it, and the sum must be a 64-bit integer.
    const MOST: u64 = i64::MAX.cast_unsigned() - 1;
    let found = ready
        .events
        .find_one(doc! {})
        .sort(doc! { "place": -1 })
        .skip(newer.min(MOST))
        .projection(doc! { "_id": 0, "place": 1 })
        .hint(Hint::Name(schema::BY_PLACE.to_owned()));
    found.await.map_err(told)?.map(|document| document::place_of(&document)).transpose()
}

/// The condition on places: after one, before another, within the times.
fn places(query: &PageQuery, before: Option<Cursor>, after: Option<Cursor>) -> Document {
    let start = |time| Cursor { time, id: Uuid::nil() };
    let mut bounds = Document::new();
    let mut bound = |operator: &str, place: Option<Cursor>| {
        if let Some(place) = place {
            bounds.insert(operator, document::place(&place));
        }
    };
    bound("$gt", after);
    bound("$gte", query.since.map(start));
    bound("$lt", [before, query.until.map(start)].into_iter().flatten().min());
    if bounds.is_empty() {
        Document::new()
    } else {
        doc! { "place": bounds }
    }
}

async fn topics(ready: &Ready, filter: Option<&Filter>) -> Result<Topics, StoreError> {
    let Some(filter) = filter else { return Ok(Topics::All) };
    if !filter.as_str().contains(['+', '#']) {
        return Ok(Topics::These(vec![filter.as_str().to_owned()]));
    }
    let mut names = Vec::new();
    let mut cursor = ready.topics.find(doc! {}).await.map_err(told)?;
    while let Some(topic) = cursor.try_next().await.map_err(told)? {
        if let Some(name) = topic.get_str("_id").ok().filter(|name| filter.matches(name)) {
            names.push(name.to_owned());
        }
    }
    Ok(if names.len() <= MERGED_TOPICS { Topics::These(names) } else { Topics::Filtered(names) })
}

/// Counts what passes topic and times; `before` and `after` say where a page begins, not what there is.
async fn count(ready: &Ready, topics: &Topics, query: &PageQuery) -> Result<u64, StoreError> {
    let (mut condition, _) = topics.condition();
    condition.extend(places(query, None, None));
    let index = if condition.contains_key("topic") { schema::BY_TOPIC } else { schema::BY_PLACE };
    if condition.is_empty() {
        // Any condition on the index that all pass: without one the collection itself is read.
        condition.insert("place", doc! { "$gte": Bson::MinKey });
    }
    ready.events.count_documents(condition).hint(Hint::Name(index.to_owned())).await.map_err(told)
}
