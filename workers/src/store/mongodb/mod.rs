//! The store on MongoDB: three collections in the database that the URL names, made and versioned on the first connection.

use std::{future::Future, sync::Mutex, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use mongodb::{
    Client, Collection,
    bson::RawDocumentBuf,
    error::{Error, ErrorKind},
};
use tokio::sync::OnceCell;
use uuid::Uuid;

use super::{Access, Appended, Cursor, Page, PageQuery, Store, StoreError};
use crate::event::Event;

mod address;
mod document;
mod mirror;
mod read;
mod schema;
mod write;

use address::Address;

/// How long the first look at the database may take.
const PREPARE_WITHIN: Duration = Duration::from_secs(10);
/// How long a page may take, and a batch to be written.
const READ_WITHIN: Duration = Duration::from_secs(10);
const WRITE_WITHIN: Duration = Duration::from_secs(30);
/// How long a place far down the order may take to be found.
const FIND_WITHIN: Duration = Duration::from_secs(120);

/// A store in a MongoDB database.
pub struct Mongodb {
    address: Address,
    /// Made once the address is resolved: `mongodb+srv://` asks the DNS, which may be away too.
    client: OnceCell<Client>,
    ready: OnceCell<Ready>,
}

/// A database that has our schema.
struct Ready {
    events: Collection<RawDocumentBuf>,
    topics: Collection<RawDocumentBuf>,
    /// Topics that are known to be there, so that most batches need not say them again.
    known: Mutex<std::collections::HashSet<String>>,
}

impl Mongodb {
    /// Reads the URL, and looks at the database if it can be reached. One that is away is no error: every use tries again.
    pub async fn open(access: &Access<'_>) -> Result<Self, StoreError> {
        let store = Self { address: address::read(access)?, client: OnceCell::new(), ready: OnceCell::new() };
        match store.ready().await {
            Ok(_) => {}
            Err(StoreError::Away(why)) => tracing::error!(why, "MongoDB is away: trying until it is there"),
            Err(error) => return Err(error),
        }
        Ok(store)
    }

    async fn ready(&self) -> Result<&Ready, StoreError> {
        let prepare = || async {
            let client = self.client.get_or_try_init(|| self.address.connect()).await?;
            let database = client.database(&self.address.database);
            schema::prepare(&database).await?;
            Ok(Ready {
                events: database.collection(schema::EVENTS),
                topics: database.collection(schema::TOPICS),
                known: Mutex::default(),
            })
        };
        within(PREPARE_WITHIN, self.ready.get_or_try_init(prepare)).await
    }
}

async fn within<T>(within: Duration, work: impl Future<Output = Result<T, StoreError>>) -> Result<T, StoreError> {
    let late = |_| Err(StoreError::Away(format!("MongoDB did not answer within {within:?}")));
    tokio::time::timeout(within, work).await.unwrap_or_else(late)
}

#[async_trait]
impl Store for Mongodb {
    async fn append(&self, batch: &[Event]) -> Result<Vec<Appended>, StoreError> {
        let ready = self.ready().await?;
        within(WRITE_WITHIN, write::append(ready, batch)).await
    }

    async fn page(&self, query: &PageQuery) -> Result<Page, StoreError> {
        let ready = self.ready().await?;
        within(READ_WITHIN, read::page(ready, query)).await
    }

    async fn get(&self, id: &Uuid) -> Result<Option<Bytes>, StoreError> {
        let ready = self.ready().await?;
        within(READ_WITHIN, async { Ok(read::get(ready, id).await?.map(|(_, text)| text)) }).await
    }

    async fn place(&self, newer: u64) -> Result<Option<Cursor>, StoreError> {
        let ready = self.ready().await?;
        within(FIND_WITHIN, read::nth_newest(ready, newer)).await
    }

    async fn remove_before(&self, place: &Cursor, most: usize) -> Result<u64, StoreError> {
        let ready = self.ready().await?;
        within(WRITE_WITHIN, write::remove_before(ready, place, most)).await
    }
}

/// A driver's error: what only other settings can heal is told as such, everything else heals with time.
#[allow(clippy::needless_pass_by_value, reason = "the shape that map_err takes")]
fn told(error: Error) -> StoreError {
    /// `Unauthorized`, `AuthenticationFailed`, and Atlas's word for the same.
    const REFUSED: [i32; 3] = [13, 18, 8000];
    match &*error.kind {
        ErrorKind::Authentication { message, .. } => StoreError::Settings(format!("MongoDB refuses: {message}")),
        ErrorKind::Command(command) if REFUSED.contains(&command.code) => {
            StoreError::Settings(format!("MongoDB refuses: {}", command.message))
        }
        ErrorKind::InvalidTlsConfig { message, .. } | ErrorKind::IncompatibleServer { message, .. } => {
            StoreError::Settings(format!("store: {message}"))
        }
        ErrorKind::Command(command) => {
            StoreError::Away(format!("MongoDB: {} (code {})", command.message, command.code))
        }
        kind => StoreError::Away(format!("MongoDB: {kind}")),
    }
}
