//! `fpesa broker`: what RabbitMQ needs.

use std::time::Duration;

use serde_json::json;

use super::show;
use crate::{
    app::Usage,
    broker::{self, Broker, Permissions},
    bus::amqp::{Login, Options},
    cli::Format,
    files::Disk,
    output::say,
    route::{
        compile::{Compiled, compile},
        table::Table,
    },
    settings::Settings,
    topology::Version,
};

/// How long the broker may take to say who it is.
const ASK_WITHIN: Duration = Duration::from_secs(2);

/// `fpesa broker definitions`: what to import into RabbitMQ; for the broker's own version and users where it can be asked.
pub async fn definitions(settings: &Settings, major: Option<u32>) -> anyhow::Result<bool> {
    let Some(table) = table(settings) else { return Ok(false) };
    let mut known = Broker { version: major.map(|major| Version { major }), has_user: false };
    if !settings.bus_is_embedded() {
        let options = Options::of(settings).map_err(Usage)?;
        let asked = tokio::time::timeout(ASK_WITHIN, options.version()).await;
        if let Ok(Ok(version)) = asked {
            known.version = known.version.or((version.major > 0).then_some(version));
            known.has_user = tokio::time::timeout(ASK_WITHIN, options.answers()).await.unwrap_or(false);
        }
    }
    let printed = broker::definitions(settings, &table, known).map_err(|error| Usage(error.to_string()))?;
    let (definitions, notes) = printed;
    say(&serde_json::to_string_pretty(&definitions)?)?;
    for note in notes {
        eprintln!("note: {note}");
    }
    Ok(true)
}

/// `fpesa broker permissions`: what the table needs of a broker user.
pub fn permissions(settings: &Settings, format: Format) -> anyhow::Result<bool> {
    let Some(table) = table(settings) else { return Ok(false) };
    let (gateway, workers) = (Permissions::of_gateway(&table), Permissions::of_workers(&table));
    let both = gateway.clone().and(workers.clone());
    if format == Format::Json {
        let document = json!({ "gateway": gateway.document(), "workers": workers.document(), "up": both.document() });
        say(&serde_json::to_string_pretty(&document)?)?;
        return Ok(true);
    }
    let login = if settings.bus_is_embedded() { None } else { Some(Login::of(settings).map_err(Usage)?) };
    let (vhost, user) = login.map_or(("/".into(), "fpesa".into()), |login| (login.vhost, login.user));
    for (process, permissions) in
        [("fpesa gateway", gateway), ("fpesa work", workers), ("fpesa up, or one user for both", both)]
    {
        say(&format!("# {process}\n{}", permissions.commands(&vhost, &user)))?;
    }
    Ok(true)
}

fn table(settings: &Settings) -> Option<Table> {
    let Compiled { table, problems } = compile(&Disk::new(&settings.routes));
    show(&problems);
    table
}
