//! File descriptors: as many as the system lets this process have, and no more connections than they carry.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::settings::Limits;

/// Descriptors for files, links to the bus and the store, and everything else that is no client's connection.
const OWN_DESCRIPTORS: usize = 128;

/// Raises the soft limit to the hard one, and lowers the limit of connections if it can't be met all the same.
pub fn fit(limits: &mut Limits) {
    let Some(files) = raise() else { return };
    // With very few, half of them are the process's own.
    let most = (files - OWN_DESCRIPTORS.min(files / 2)).max(1);
    if limits.connections > most {
        tracing::warn!(
            setting = "limits.connections",
            value = limits.connections,
            effective = most,
            files,
            "limits.connections can't be met: this process may not have so many files open (raise LimitNOFILE, or `ulimit -n`)"
        );
        limits.connections = most;
    }
}

/// The soft limit, once it is as high as it may be; `None` where there is none.
fn raise() -> Option<usize> {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let raised = current != maximum && setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }).is_ok();
    let files = if raised { maximum } else { current };
    files.map(|files| usize::try_from(files).unwrap_or(usize::MAX))
}
