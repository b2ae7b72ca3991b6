//! How long a command waits for a server that is away: servers wait for ever, a command that somebody looks at does not.

use std::{
    future::Future,
    time::{Duration, Instant},
};

use anyhow::anyhow;

use crate::output::note;

/// How long a command tries, unless `--wait` was given.
const PATIENCE: Duration = Duration::from_secs(10);
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// When a command gives up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Limit {
    /// After ten seconds.
    Short,
    /// After ten seconds, since `--wait` was not given.
    ShortWithoutFlag,
    /// Never.
    Endless,
}

impl Limit {
    /// That of a command with the flag `--wait`.
    pub fn of(wait: bool) -> Self {
        if wait { Self::Endless } else { Self::ShortWithoutFlag }
    }
}

/// The patience with one server.
pub struct Patience {
    what: String,
    limit: Limit,
    since: Instant,
    pause: Duration,
    told: bool,
}

/// How one try ended.
pub enum Tried<T> {
    /// It worked.
    Done(T),
    /// The server is away, for this reason: another try may work.
    Away(String),
}

impl Patience {
    /// Patience with `what`, such as "the store postgres://…", from now on.
    pub fn new(what: impl Into<String>, limit: Limit) -> Self {
        Self { what: what.into(), limit, since: Instant::now(), pause: FIRST_PAUSE, told: false }
    }

    /// The server was there: the next time it is away is another one.
    pub fn reset(&mut self) {
        (self.since, self.pause, self.told) = (Instant::now(), FIRST_PAUSE, false);
    }

    /// Waits a moment, after having said what for. The error when the time is over.
    pub async fn pause(&mut self, why: &str) -> anyhow::Result<()> {
        let left = PATIENCE.saturating_sub(self.since.elapsed());
        let endless = self.limit == Limit::Endless;
        if left.is_zero() && !endless {
            let flag = if self.limit == Limit::ShortWithoutFlag { "; --wait keeps trying" } else { "" };
            return Err(anyhow!("{} is away: {why} (tried for {} s{flag})", self.what, PATIENCE.as_secs()));
        }
        if !std::mem::replace(&mut self.told, true) {
            let end = if endless {
                "trying until it is there".to_owned()
            } else {
                format!("trying for {} s", PATIENCE.as_secs())
            };
            note(&format!("fpesa: waiting for {}: {why}; {end}", self.what));
        }
        tokio::time::sleep(if endless { self.pause } else { self.pause.min(left) }).await;
        self.pause = (self.pause * 2).min(LONGEST_PAUSE);
        Ok(())
    }

    /// Tries until it works, fails for another reason, or the time is over. One try takes no longer than all of them.
    pub async fn until<T, F>(&mut self, mut attempt: impl FnMut() -> F) -> anyhow::Result<T>
    where
        F: Future<Output = anyhow::Result<Tried<T>>>,
    {
        loop {
            let why = match tokio::time::timeout(PATIENCE, attempt()).await {
                Ok(tried) => match tried? {
                    Tried::Done(done) => return Ok(done),
                    Tried::Away(why) => why,
                },
                Err(_) => "it does not answer".to_owned(),
            };
            self.pause(&why).await?;
        }
    }
}
