//! The log: on stderr, for people on a terminal and as JSON lines otherwise.

use std::io::{self, IsTerminal as _};

use tracing_subscriber::EnvFilter;

/// Starts the log with a level (`info`) or a filter (`fpesa=debug,lapin=warn`). The error is a sentence.
pub fn start(filter: &str) -> Result<(), String> {
    let filter = EnvFilter::builder().parse(filter).map_err(|error| {
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
