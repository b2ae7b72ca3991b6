//! The store on PostgreSQL: three tables in the database that the URL names, made and versioned on the first connection.

use std::{future::Future, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use deadpool_postgres::{Hook, HookError, Manager, ManagerConfig, Object, Pool, PoolError, RecyclingMethod, Runtime};
use tokio_postgres::error::SqlState;
use uuid::Uuid;

use super::{Access, Appended, Cursor, Page, PageQuery, Store, StoreError};
use crate::event::Event;

mod address;
mod read;
mod schema;
mod tls;
mod write;

/// Connections of one process.
const CONNECTIONS: usize = 8;
/// How long a connection may take to be made, and one to be had.
const CONNECT_WITHIN: Duration = Duration::from_secs(5);
/// How long a page may take, and a batch to be written.
const READ_WITHIN: Duration = Duration::from_secs(10);
const WRITE_WITHIN: Duration = Duration::from_secs(30);
/// How long a place far down the order may take to be found.
const FIND_WITHIN: Duration = Duration::from_secs(120);

/// A store in a PostgreSQL database.
pub struct Postgres {
    pool: Pool,
}

impl Postgres {
    /// Reads the URL, and looks at the database if it can be reached. One that is away is no error: every use tries again.
    pub async fn open(access: &Access<'_>) -> Result<Self, StoreError> {
        let (mut config, tls) = address::read(access)?;
        config.application_name("fpesa").connect_timeout(CONNECT_WITHIN).keepalives_idle(Duration::from_secs(30));
        let recycling = ManagerConfig { recycling_method: RecyclingMethod::Fast };
        let manager = Manager::from_config(config, tls::connector(&tls)?, recycling);
        let pool = Pool::builder(manager)
            .runtime(Runtime::Tokio1)
            .max_size(CONNECTIONS)
            .create_timeout(Some(CONNECT_WITHIN))
            .wait_timeout(Some(CONNECT_WITHIN))
            .post_create(Hook::async_fn(|client, _| {
                Box::pin(async move {
                    schema::prepare(client).await.map_err(|error| match error {
                        schema::Unusable::Settings(why) => HookError::message(format!("{SETTINGS}{why}")),
                        schema::Unusable::Failed(error) => HookError::Backend(error),
                    })
                })
            }))
            .build()
            .map_err(|error| StoreError::Settings(format!("the PostgreSQL pool can't be made: {error}")))?;
        let store = Self { pool };
        match store.client().await {
            Ok(_) => {}
            Err(StoreError::Away(why)) => tracing::error!(why, "PostgreSQL is away: trying until it is there"),
            Err(error) => return Err(error),
        }
        Ok(store)
    }

    async fn client(&self) -> Result<Object, StoreError> {
        self.pool.get().await.map_err(|error| match error {
            PoolError::Backend(error) | PoolError::PostCreateHook(HookError::Backend(error)) => told(&error),
            PoolError::PostCreateHook(HookError::Message(why)) => match why.strip_prefix(SETTINGS) {
                Some(why) => StoreError::Settings(why.to_owned()),
                None => StoreError::Away(why.into_owned()),
            },
            PoolError::Timeout(_) => StoreError::Away(format!("no connection within {CONNECT_WITHIN:?}")),
            error => StoreError::Away(error.to_string()),
        })
    }

    /// Runs `work` on a connection. One that does not answer in time is not used again.
    async fn with<T, F: Future<Output = Result<T, StoreError>>>(
        &self,
        within: Duration,
        work: impl FnOnce(Lent) -> F,
    ) -> Result<T, StoreError> {
        let client = self.client().await?;
        match tokio::time::timeout(within, work(Lent(Some(client)))).await {
            Ok(result) => result,
            Err(_) => Err(StoreError::Away(format!("PostgreSQL did not answer within {within:?}"))),
        }
    }
}

impl Postgres {
    /// Reads, and once more where the connection at hand turned out to be an old one.
    async fn read<T, F: Future<Output = Result<T, StoreError>>>(&self, read: impl Fn() -> F) -> Result<T, StoreError> {
        match read().await {
            Err(StoreError::Away(_)) => read().await,
            result => result,
        }
    }
}

/// Marks a hook's message as one for [`StoreError::Settings`].
const SETTINGS: &str = "settings: ";

/// A connection for one piece of work. Given back only when the work is done: a piece that was dropped half-way leaves
/// a connection whose state nobody knows.
struct Lent(Option<Object>);

impl Lent {
    fn done(mut self) {
        drop(self.0.take());
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        if let Some(client) = self.0.take() {
            drop(Object::take(client));
        }
    }
}

#[async_trait]
impl Store for Postgres {
    async fn append(&self, batch: &[Event]) -> Result<Vec<Appended>, StoreError> {
        self.with(WRITE_WITHIN, |lent| async move {
            let Some(client) = lent.0.as_ref() else { return Err(StoreError::Away("no connection".into())) };
            let result = write::append(client, batch).await.map_err(|error| told(&error));
            lent.done();
            result
        })
        .await
    }

    async fn page(&self, query: &PageQuery) -> Result<Page, StoreError> {
        self.read(|| {
            self.with(READ_WITHIN, |mut lent| async move {
                let Some(client) = lent.0.as_mut() else { return Err(StoreError::Away("no connection".into())) };
                let result = read::page(client, query).await;
                lent.done();
                result
            })
        })
        .await
    }

    async fn get(&self, id: &Uuid) -> Result<Option<Bytes>, StoreError> {
        self.read(|| {
            self.with(READ_WITHIN, |lent| async move {
                let Some(client) = lent.0.as_ref() else { return Err(StoreError::Away("no connection".into())) };
                let result = read::get(client, id).await.map_err(|error| told(&error));
                lent.done();
                result
            })
        })
        .await
    }

    async fn check(&self) -> Result<(), StoreError> {
        self.read(|| {
            self.with(READ_WITHIN, |lent| async move {
                let Some(client) = lent.0.as_ref() else { return Err(StoreError::Away("no connection".into())) };
                let result = read::is_read_only(client).await.map_err(|error| told(&error));
                lent.done();
                // A standby, or a database that was made so while it is worked on.
                if result? { Err(StoreError::Away("PostgreSQL is read-only".into())) } else { Ok(()) }
            })
        })
        .await
    }

    async fn place(&self, newer: u64) -> Result<Option<Cursor>, StoreError> {
        self.read(|| {
            self.with(FIND_WITHIN, |lent| async move {
                let Some(client) = lent.0.as_ref() else { return Err(StoreError::Away("no connection".into())) };
                let result = read::nth_newest(client, newer).await.map_err(|error| told(&error));
                lent.done();
                result
            })
        })
        .await
    }

    async fn remove_before(&self, place: &Cursor, most: usize) -> Result<u64, StoreError> {
        self.with(WRITE_WITHIN, |lent| async move {
            let Some(client) = lent.0.as_ref() else { return Err(StoreError::Away("no connection".into())) };
            let result = write::remove_before(client, place, most).await.map_err(|error| told(&error));
            lent.done();
            result
        })
        .await
    }
}

/// A driver's error: what only other settings can heal is told as such, everything else heals with time.
fn told(error: &tokio_postgres::Error) -> StoreError {
    let wrong_settings = [
        SqlState::INVALID_PASSWORD,
        SqlState::INVALID_AUTHORIZATION_SPECIFICATION,
        SqlState::INVALID_CATALOG_NAME,
        SqlState::INSUFFICIENT_PRIVILEGE,
    ];
    match error.as_db_error() {
        Some(db) if wrong_settings.contains(db.code()) => {
            StoreError::Settings(format!("PostgreSQL refuses: {}", db.message()))
        }
        Some(db) => StoreError::Away(format!("PostgreSQL: {} (SQLSTATE {})", db.message(), db.code().code())),
        None => {
            // "error connecting to server" says little: its cause says why.
            let cause = std::error::Error::source(error).map(|cause| format!(": {cause}")).unwrap_or_default();
            StoreError::Away(format!("{error}{cause}"))
        }
    }
}
