//! `fpesa broker`: what RabbitMQ needs.

use super::{say, show};
use crate::{
    app::Usage,
    broker,
    files::Disk,
    route::compile::{Compiled, compile},
    settings::Settings,
    topology::Version,
};

/// `fpesa broker definitions`: what to import into RabbitMQ.
pub fn definitions(settings: &Settings, major: u32) -> anyhow::Result<bool> {
    let Compiled { table, problems } = compile(&Disk::new(&settings.routes));
    show(&problems);
    let Some(table) = table else { return Ok(false) };
    let definitions =
        broker::definitions(settings, &table, Version { major }).map_err(|error| Usage(error.to_string()))?;
    say(&serde_json::to_string_pretty(&definitions)?)?;
    Ok(true)
}
