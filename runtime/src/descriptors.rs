//! How many files and connections this process may have open, and who of its listeners gets how many: the rest stays
//! for the journal, the models and the operator, so that no client can lock these out.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tracing::{debug, warn};

/// What the process needs beside its clients' connections: files, sockets of its own, the operator's.
const OWN: u64 = 64;
/// The operator's connections on the run's socket; they are part of [`OWN`].
const SOCKET: usize = 16;
/// More connections than a gateway can have use of.
const MOST: u64 = 16_384;

/// Connections at once, by listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shares {
    /// The HTTP API.
    pub gateway: usize,
    /// Prometheus.
    pub metrics: usize,
    /// The operator's port.
    pub admin: usize,
    /// The run's socket.
    pub socket: usize,
}

/// Raises the process's limit as far as it may be raised.
pub fn raise() {
    let limit = getrlimit(Resource::Nofile);
    if limit.current == limit.maximum {
        return;
    }
    match setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }) {
        Ok(()) => debug!(from = ?limit.current, to = ?limit.maximum, "more files may be open"),
        Err(error) => warn!(%error, limit = ?limit.current, "the limit on open files stays"),
    }
}

/// By the limit that is in force.
pub fn shares() -> Shares {
    of(getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX))
}

fn of(limit: u64) -> Shares {
    let spare = limit.saturating_sub(OWN).clamp(8, MOST) as usize;
    let eighth = spare / 8;
    Shares { gateway: spare - 2 * eighth, metrics: eighth, admin: eighth, socket: SOCKET }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_listeners_together_leave_the_process_what_it_needs() {
        for limit in [128, 256, 1024, 1 << 20, u64::MAX] {
            let Shares { gateway, metrics, admin, .. } = of(limit);
            assert!((gateway + metrics + admin) as u64 + OWN <= limit, "{limit}");
            assert!(gateway >= 6 * metrics && metrics > 0 && metrics == admin, "{limit}");
        }
    }
}
