//! The log: on stderr, for people on a terminal and as JSON lines otherwise.

use std::io::{self, IsTerminal as _};

use tracing_subscriber::EnvFilter;

/// Starts the log with a level (`info`) or a filter (`fpesa=debug,lapin=warn`). The error is a sentence.
pub fn start(filter: &str) -> Result<(), String> {
    // The links' own supervisor tells what breaks, once; the library below it would tell each try, in its own words.
    let plain = matches!(filter, "error" | "warn" | "info");
    let quiet = if plain { format!("{filter},lapin=off") } else { filter.to_owned() };
    let filter = EnvFilter::builder().parse(quiet).map_err(|error| {
        format!("log: `{filter}` is no level or filter ({error}): use error, warn, info, debug or trace")
    })?;
    let log = tracing_subscriber::fmt().with_writer(io::stderr).with_env_filter(filter);
    if io::stderr().is_terminal() {
        log.with_target(false).init();
    } else {
        log.json().flatten_event(true).init();
    }
    Ok(())
}
