//! Writing a batch: its new topics, then its events in one unordered insert, each id once.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::PoisonError,
    time::Duration,
};

use bytes::Bytes;
use futures::TryStreamExt as _;
use mongodb::{
    Collection,
    bson::{RawDocumentBuf, doc, raw::cstr},
    error::{ErrorKind, IndexedWriteError},
    options::Hint,
};
use uuid::Uuid;

use super::{
    Ready, document,
    schema::{self, DUPLICATE_KEY},
    told,
};
use crate::{
    event::Event,
    store::{Appended, Cursor, StoreError},
};

/// Topics kept in memory; beyond it all of them are said again.
const MOST_KNOWN: usize = 10_000;
/// How often a batch is written while what it meets is removed by somebody else.
const TRIES: usize = 3;

/// What the server did with one document.
#[derive(Debug, PartialEq)]
enum Written {
    Kept,
    /// Its id was there before.
    There,
    /// It refuses this document, whenever it comes.
    Refused(String),
}

pub(super) async fn append(ready: &Ready, batch: &[Event]) -> Result<Vec<Appended>, StoreError> {
    // The first of an id counts.
    let mut first: BTreeMap<Uuid, &Event> = BTreeMap::new();
    for event in batch {
        first.entry(event.id).or_insert(event);
    }
    let events: Vec<&Event> = first.values().copied().collect();
    topics(ready, &events).await?;
    let (mut written, mut there) = (HashMap::new(), HashMap::new());
    let mut left = events;
    // What was there, and is removed before it is looked at, does not stand in the way any more.
    for _ in 0..TRIES {
        written.extend(write_around(ready, &left).await?);
        left.retain(|event| written.get(&event.id) == Some(&Written::There));
        there.extend(texts(ready, &left).await?);
        left.retain(|event| !there.contains_key(&event.id));
        if left.is_empty() {
            break;
        }
    }
    if !left.is_empty() {
        return Err(StoreError::Away("MongoDB: an id is taken, and a majority does not have its event yet".into()));
    }
    let mut told = HashSet::new();
    let result = batch.iter().map(|event| {
        let same_as = |text: &Bytes| if event.is_same_as(text) { Appended::Duplicate } else { Appended::Conflict };
        let kept = &first[&event.id].text;
        match &written[&event.id] {
            Written::Kept if told.insert(event.id) => Appended::Kept,
            Written::Kept => same_as(kept),
            Written::There => same_as(&there[&event.id]),
            Written::Refused(why) => Appended::Refused(why.clone()),
        }
    });
    Ok(result.collect())
}

/// Inserts what is not there. What is refused with its mirror may be taken without: the text is the truth.
async fn write_around(ready: &Ready, events: &[&Event]) -> Result<HashMap<Uuid, Written>, StoreError> {
    let mut written = write(ready, events, true).await?;
    let is_refused = |event: &&Event| matches!(written.get(&event.id), Some(Written::Refused(_)));
    let refused: Vec<&Event> = events.iter().copied().filter(is_refused).collect();
    if !refused.is_empty() {
        written.extend(write(ready, &refused, false).await?);
    }
    Ok(written)
}

/// Inserts what is not there, and says of each event what became of it.
async fn write(ready: &Ready, events: &[&Event], mirrored: bool) -> Result<HashMap<Uuid, Written>, StoreError> {
    let mut written = HashMap::new();
    let mut sent = Vec::with_capacity(events.len());
    let mut documents = Vec::with_capacity(events.len());
    for event in events {
        if let Some(document) = document::of(event, mirrored) {
            sent.push(event.id);
            documents.push(document);
        } else {
            let size = event.text.len();
            let why = format!("its {size} bytes are more than one document of MongoDB holds (16 MiB)");
            written.insert(event.id, Written::Refused(why));
        }
    }
    for (index, error) in insert(&ready.events, &documents).await? {
        written.insert(sent[index], judge(&error)?);
    }
    for id in sent {
        written.entry(id).or_insert(Written::Kept);
    }
    Ok(written)
}

/// One insert of documents that do not wait for each other. What the server says of single documents is told by their
/// place; that the rest is in the journals of a majority is certain, or an error.
async fn insert(
    collection: &Collection<RawDocumentBuf>,
    documents: &[RawDocumentBuf],
) -> Result<Vec<(usize, IndexedWriteError)>, StoreError> {
    if documents.is_empty() {
        return Ok(Vec::new());
    }
    let Err(error) = collection.insert_many(documents).ordered(false).await else { return Ok(Vec::new()) };
    match *error.kind {
        ErrorKind::InsertMany(many) => match many.write_concern_error {
            Some(concern) => {
                let why =
                    format!("MongoDB: a majority does not have it yet: {} (code {})", concern.message, concern.code);
                Err(StoreError::Away(why))
            }
            None => Ok(many.write_errors.into_iter().flatten().map(|error| (error.index, error)).collect()),
        },
        _ => Err(told(error)),
    }
}

/// Whether the server has the id, refuses this document for good, or only could not take it now.
fn judge(error: &IndexedWriteError) -> Result<Written, StoreError> {
    /// `BadValue`, `Overflow`, `InvalidBSON`, `DollarPrefixedFieldName`, `EmptyFieldName`, `DottedFieldName`,
    /// `DocumentValidationFailure`, `BSONObjectTooLarge`, and the older `KeyTooLong` and too large.
    const CONTENT: [i32; 11] = [2, 15, 22, 52, 56, 57, 121, 10334, 17280, 17419, 17420];
    match error.code {
        DUPLICATE_KEY if !is_of_another_index(&error.message) => Ok(Written::There),
        code if code == DUPLICATE_KEY || CONTENT.contains(&code) => {
            Ok(Written::Refused(format!("MongoDB refuses it: {} (code {code})", error.message)))
        }
        code => Err(StoreError::Away(format!("MongoDB: {} (code {code})", error.message))),
    }
}

/// `E11000 duplicate key error collection: db.name index: _id_ dup key: …`: a unique index that others made refuses
/// another event than one with this id.
fn is_of_another_index(message: &str) -> bool {
    message.split_once(" index: ").is_some_and(|(_, index)| !index.starts_with("_id_"))
}

/// Makes the topics of a batch that are not known to be there.
async fn topics(ready: &Ready, events: &[&Event]) -> Result<(), StoreError> {
    let mut new: HashSet<&str> = events.iter().filter_map(|event| event.subject.as_deref()).collect();
    {
        let known = ready.known.lock().unwrap_or_else(PoisonError::into_inner);
        new.retain(|name| !known.contains(*name));
    }
    if new.is_empty() {
        return Ok(());
    }
    let document = |name: &&str| {
        let mut document = RawDocumentBuf::new();
        document.append(cstr!("_id"), *name);
        document
    };
    let documents: Vec<RawDocumentBuf> = new.iter().map(document).collect();
    for (_, error) in insert(&ready.topics, &documents).await? {
        // A name that is refused is its event's to tell.
        judge(&error)?;
    }
    let mut known = ready.known.lock().unwrap_or_else(PoisonError::into_inner);
    if known.len() + new.len() > MOST_KNOWN {
        known.clear();
    }
    known.extend(new.into_iter().map(str::to_owned));
    Ok(())
}

/// The documents of events that were there already, as a majority has them: what a primary alone has may be undone.
async fn texts(ready: &Ready, events: &[&Event]) -> Result<HashMap<Uuid, Bytes>, StoreError> {
    let mut found = HashMap::new();
    if events.is_empty() {
        return Ok(found);
    }
    let ids: Vec<_> = events.iter().map(|event| document::id(&event.id)).collect();
    let mut cursor = ready.events.find(doc! { "_id": { "$in": ids } }).await.map_err(told)?;
    while let Some(document) = cursor.try_next().await.map_err(told)? {
        let (place, text) = document::read(&document)?;
        found.insert(place.id, text);
    }
    Ok(found)
}

/// Removes the oldest events before a place, as one range of the index: ids one by one cost servers far more. What comes
/// to stand in the range meanwhile goes too, for it is before the place as well. Where others removed the same range
/// first, the next one is looked for.
pub(super) async fn remove_before(ready: &Ready, place: &Cursor, most: usize) -> Result<u64, StoreError> {
    const PAUSE: Duration = Duration::from_millis(20);
    let before = document::place(place);
    loop {
        let mut cursor = ready
            .events
            .find(doc! { "place": { "$lt": &before } })
            .sort(doc! { "place": 1 })
            .projection(doc! { "_id": 0, "place": 1 })
            .hint(Hint::Name(schema::BY_PLACE.to_owned()))
            .limit(i64::try_from(most).unwrap_or(i64::MAX))
            .batch_size(u32::try_from(most).unwrap_or(u32::MAX))
            .await
            .map_err(told)?;
        let mut last = None;
        while let Some(document) = cursor.try_next().await.map_err(told)? {
            last = Some(document::place_of(&document)?);
        }
        let Some(last) = last else { return Ok(0) };
        let range = doc! { "place": { "$lte": document::place(&last) } };
        let removed = ready.events.delete_many(range).await.map_err(told)?.deleted_count;
        if removed > 0 {
            return Ok(removed);
        }
        tokio::time::sleep(PAUSE).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(code: i32, message: &str) -> IndexedWriteError {
        let error = serde_json::json!({ "index": 0, "code": code, "errmsg": message });
        serde_json::from_value(error).unwrap()
    }

    #[test]
    fn what_a_server_says_of_one_document() {
        let there =
            error(11000, "E11000 duplicate key error collection: d.fpesa_event index: _id_ dup key: { _id: 1 }");
        assert_eq!(judge(&there), Ok(Written::There));
        let other =
            error(11000, "E11000 duplicate key error collection: d.fpesa_event index: own_1 dup key: { own: 1 }");
        assert!(matches!(judge(&other), Ok(Written::Refused(why)) if why.contains("own_1")));
        let invalid = error(121, "Document failed validation");
        assert!(matches!(judge(&invalid), Ok(Written::Refused(why)) if why.contains("validation")));
        for code in [91, 189, 11602, 14031] {
            assert!(matches!(judge(&error(code, "not now")), Err(StoreError::Away(_))), "{code}");
        }
    }
}
