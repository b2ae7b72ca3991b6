//! Signals: what ends a process, and what must not.

use std::io::{self, IsTerminal as _};

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// Exit status of a second signal: the process did not finish what it held.
const IMPATIENT: i32 = 1;

/// A token that SIGTERM or Ctrl-C cancels, so that everything drains; a second signal ends the process at once.
pub fn shutdown() -> io::Result<CancellationToken> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    // A file-size limit (ulimit -f) then is a write error, which is answered and survived, instead of death.
    let mut file_size = signal(SignalKind::from_raw(SIGXFSZ))?;
    let token = CancellationToken::new();
    let cancelled = token.clone();
    tokio::spawn(async move {
        loop {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
                _ = file_size.recv() => continue,
            }
            if cancelled.is_cancelled() {
                std::process::exit(IMPATIENT);
            }
            tracing::info!("stopping: finishing what is under way (a second signal stops at once)");
            cancelled.cancel();
        }
    });
    Ok(token)
}

/// Calls `act` at each SIGHUP. A terminal that closes sends one too: a process that was started on it then drains and ends,
/// as it would without us.
pub fn on_hangup(shutdown: CancellationToken, act: impl Fn() + Send + 'static) -> io::Result<()> {
    let mut hangup = signal(SignalKind::hangup())?;
    let on_a_terminal = || io::stdin().is_terminal() || io::stderr().is_terminal();
    let started_on_one = on_a_terminal();
    tokio::spawn(async move {
        while hangup.recv().await.is_some() {
            if started_on_one && !on_a_terminal() {
                shutdown.cancel();
                return;
            }
            tracing::info!("SIGHUP: looking at the table's files");
            act();
        }
    });
    Ok(())
}

/// The same number on every Linux that Rust has but MIPS.
const SIGXFSZ: i32 = 25;
