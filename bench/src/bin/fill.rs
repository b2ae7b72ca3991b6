//! Fills a store: `fill URL COUNT`, in batches, as the persist worker would.

use std::path::Path;

use anyhow::Context as _;
use fpesa_workers::{event::Event, store};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};
use uuid::Uuid;

const BATCH: usize = 2_000;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let mut args = std::env::args().skip(1);
    let url = args.next().context("fill URL COUNT")?;
    let count: usize = args.next().context("fill URL COUNT")?.parse()?;
    let store = store::open(store::Access { url: &url, password: None, data_dir: Path::new(".") }).await?;
    let start = OffsetDateTime::now_utc() - time::Duration::days(30);
    let mut batch = Vec::with_capacity(BATCH);
    for n in 0..count {
        let at = start + time::Duration::microseconds(i64::try_from(n)? * 1_000);
        let text = format!(
            r#"{{"specversion":"1.0","id":"{}","source":"/post-message","type":"post-message","subject":"messages/t{}","time":"{}","datacontenttype":"application/json","data":{{"text":"message {n}","padding":"{:080}"}}}}"#,
            Uuid::now_v7(),
            n % 50,
            at.format(&Rfc3339)?,
            n
        );
        batch.push(Event::parse(text.into())?);
        if batch.len() == BATCH || n + 1 == count {
            store.append(&batch).await?;
            batch.clear();
        }
    }
    Ok(())
}
