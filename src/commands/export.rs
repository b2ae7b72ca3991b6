//! `fpesa export`: history as lines, oldest first.

use clap::Args;
use fpesa_workers::{lines, store::Walk};

use super::{
    patience::Limit,
    stores::{PartFlags, Use, open},
};
use crate::{
    cli::Common,
    output::{Reader, write_out},
    settings::Settings,
};

/// Flags of `export`.
#[derive(Debug, Args)]
pub struct ExportArgs {
    /// Which part
    #[command(flatten)]
    pub part: PartFlags,
    /// Keep trying while a server is away, instead of giving up after 10 s
    #[arg(long)]
    pub wait: bool,
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
    let store = open("store", settings.store_access(), Use::Read, Limit::of(args.wait)).await?;
    let mut walk = Walk::start(store, part).await?;
    let mut text = Vec::new();
    while let Some(events) = walk.next().await? {
        text.clear();
        for event in &events {
            lines::write(&event.text, &mut text);
        }
        if write_out(&text)? == Reader::Gone {
            break;
        }
    }
    Ok(true)
}
