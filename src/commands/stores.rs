//! What the commands on history share: opening stores, and saying which part of one is meant.

use std::{
    path::Path,
    sync::Arc,
    time::{Duration, SystemTime},
};

use clap::Args;
use fpesa_workers::{
    event::micros,
    store::{self, Access, Part, Store, StoreError},
};
use uuid::Uuid;

use super::patience::{Limit, Patience, Tried};
use crate::{
    app::Usage,
    settings::{check_store_url, mask_text, mask_urls},
    units,
};

/// Which part of history; everything when nothing is given.
#[derive(Debug, Args)]
pub struct PartFlags {
    /// From this time on: as in 2026-11-23T18:27:58Z, or how long ago, as in 12h or 30d
    #[arg(long, value_name = "TIME")]
    pub since: Option<String>,
    /// Before this time
    #[arg(long, value_name = "TIME")]
    pub until: Option<String>,
    /// An MQTT topic filter, such as messages/# or messages/+
    #[arg(long, value_name = "FILTER")]
    pub topic: Option<String>,
}

impl PartFlags {
    pub(super) fn part(&self) -> Result<Part, Usage> {
        let time = |flag: &str, text: &Option<String>| text.as_deref().map(|text| time(flag, text)).transpose();
        let topic = self
            .topic
            .as_deref()
            .map(|text| text.parse().map_err(|error| Usage(format!("--topic: `{text}` is no topic filter: {error}"))));
        Ok(Part { topic: topic.transpose()?, since: time("since", &self.since)?, until: time("until", &self.until)? })
    }
}

/// Microseconds since 1970 of a time, or of how long ago it was.
fn time(flag: &str, text: &str) -> Result<i64, Usage> {
    if let Some(micros) = micros(text) {
        return Ok(micros);
    }
    let ago = units::age(text).map_err(|_| {
        Usage(format!(
            "--{flag}: `{text}` is no time: write it as in 2026-11-23T18:27:58Z, or how long ago, as in 12h or 30d"
        ))
    })?;
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let micros = |duration: Duration| i64::try_from(duration.as_micros()).unwrap_or(i64::MAX);
    Ok(micros(now) - micros(ago))
}

/// What is done with a store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Use {
    /// It must be there: an embedded one is not made.
    Read,
    /// It is made where it is not there.
    Write,
}

/// Opens the store that `flag` names. One whose server is away is waited for.
pub(super) async fn open(flag: &str, access: Access<'_>, usage: Use, limit: Limit) -> anyhow::Result<Arc<dyn Store>> {
    let shown = mask_urls(access.url);
    check_store_url(access.url).map_err(|why| Usage(format!("--{flag}: `{shown}`: {why}")))?;
    if let Some(folder) = access.folder().filter(|_| usage == Use::Read && !access.exists()) {
        return Err(Usage(format!(
            "--{flag}: there is no store in {}: `embedded:` means --data-dir, `embedded:/some/folder` another one",
            folder.display()
        ))
        .into());
    }
    let told = |error| match error {
        StoreError::Settings(why) => Usage(format!("--{flag}: {}", mask_text(&why))).into(),
        error => anyhow::Error::from(error).context(format!("--{flag}")),
    };
    let store = store::open(access).await.map_err(told)?;
    let look = || async {
        let there = match usage {
            Use::Read => store.get(&Uuid::nil()).await.map(drop),
            Use::Write => store.check().await,
        };
        match there {
            Ok(()) => Ok(Tried::Done(())),
            Err(StoreError::Away(why)) => Ok(Tried::Away(mask_text(&why))),
            Err(error) => Err(told(error)),
        }
    };
    Patience::new(format!("the store {shown}"), limit).until(look).await?;
    Ok(store)
}

/// The password that a file holds.
pub(super) fn password(flag: &str, file: Option<&Path>) -> Result<Option<String>, Usage> {
    let Some(file) = file else { return Ok(None) };
    let held = std::fs::read_to_string(file)
        .map_err(|error| Usage(format!("--{flag}: {} can't be read: {error}", file.display())))?;
    Ok(Some(held.trim_end_matches(['\n', '\r']).to_owned()))
}
