//! `fpesa export`: history as lines, oldest first.

use std::io::{self, ErrorKind, Write as _};

use clap::Args;
use fpesa_workers::{lines, store::Walk};

use super::stores::{PartFlags, open};
use crate::{cli::Common, settings::Settings};

/// Flags of `export`.
#[derive(Debug, Args)]
pub struct ExportArgs {
    /// Which part
    #[command(flatten)]
    pub part: PartFlags,
    /// Settings
    #[command(flatten)]
    pub common: Common,
}

/// Examples of `export`.
pub const EXAMPLES: &str = "Examples:
  fpesa export --store embedded: > history.ndjson
  fpesa export --store postgres://fpesa@db/fpesa --since 24h --topic 'messages/#' | jq .data
  fpesa export --store embedded:/var/lib/fpesa | gzip > history.ndjson.gz";

/// `fpesa export`: what is there when it begins, one event a line.
pub async fn export(args: &ExportArgs, settings: &Settings) -> anyhow::Result<bool> {
    let part = args.part.part()?;
    let store = open("store", settings.store_access(), true).await?;
    let mut walk = Walk::start(store, part).await?;
    let mut out = io::stdout().lock();
    let mut text = Vec::new();
    while let Some(events) = walk.next().await? {
        text.clear();
        for event in &events {
            lines::write(&event.text, &mut text);
        }
        match out.write_all(&text).and_then(|()| out.flush()) {
            // Whoever reads has enough, as `head` does.
            Err(error) if error.kind() == ErrorKind::BrokenPipe => return Ok(true),
            written => written?,
        }
    }
    Ok(true)
}
