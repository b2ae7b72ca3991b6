//! Stores of the test's own, and what is in them.

use std::{path::Path, sync::Arc};

use bytes::Bytes;
use fpesa_workers::{
    event::Event,
    store::{self, Access, Part, Store, Walk},
};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};
use uuid::Uuid;

/// The first second of [`event`], in microseconds since 1970.
pub const START: i64 = 1_800_000_000_000_000;

/// An event of a second after [`START`]. Its data is the JSON that is given.
pub fn event(n: u128, seconds: i64, topic: &str, data: &str) -> Event {
    let id = Uuid::from_u128(n);
    let at = OffsetDateTime::from_unix_timestamp_nanos(i128::from(START + seconds * 1_000_000) * 1000).unwrap();
    let at = at.format(&Rfc3339).unwrap();
    let text = format!(
        r#"{{"specversion":"1.0","id":"{id}","source":"/t","type":"t","subject":"{topic}","time":"{at}","data":{data}}}"#
    );
    Event::parse(text.into()).unwrap()
}

/// So many of them, a second apart.
pub fn events(count: u128) -> Vec<Event> {
    (1..=count).map(|n| event(n, i64::try_from(n).unwrap(), &format!("m/{}", n % 5), &n.to_string())).collect()
}

pub async fn open(url: &str) -> Arc<dyn Store> {
    store::open(Access { url, password: None, data_dir: Path::new("/nowhere") }).await.unwrap()
}

/// The URL of the embedded store in a folder.
pub fn embedded(folder: &Path) -> String {
    format!("embedded:{}", folder.display())
}

pub async fn fill(store: &Arc<dyn Store>, events: &[Event]) {
    for batch in events.chunks(2_000) {
        store.append(batch).await.unwrap();
    }
}

/// Everything that is there, oldest first.
pub async fn all(store: &Arc<dyn Store>) -> Vec<Event> {
    let mut walk = Walk::start(store.clone(), Part::default()).await.unwrap();
    let mut all = Vec::new();
    while let Some(events) = walk.next().await.unwrap() {
        all.extend(events);
    }
    all
}

pub async fn texts(store: &Arc<dyn Store>) -> Vec<Bytes> {
    all(store).await.into_iter().map(|event| event.text).collect()
}
