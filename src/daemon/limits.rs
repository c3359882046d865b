//! What the machine lets us do: open files, and with them calls in flight.

use std::time::Duration;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Calls in flight, however many files may be open: each costs some 40 KiB.
const MOST_IN_FLIGHT: u64 = 10_000;
/// Files that are not calls: store, watcher, listeners, clients' connections.
const OTHER_FILES: u64 = 512;
/// How long open requests may take to finish at the end.
pub(super) const CLOSING: Duration = Duration::from_secs(5);
/// How often the machine's clock is looked at.
pub(super) const CLOCK_LOOK: Duration = Duration::from_secs(1);

/// Clients' connections at once, at most.
const MOST_CONNECTIONS: u64 = 16_384;
/// Connections of machines that look at health and metrics.
pub(super) const PROBES: usize = 64;

/// How many connections of clients fit under the limit of open files, beside the calls.
pub(super) fn max_connections() -> usize {
    let open = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    let places = (open.saturating_sub(OTHER_FILES) / 2).clamp(64, MOST_CONNECTIONS);
    usize::try_from(places).unwrap_or(64)
}

/// Raises the limit of open files as far as it may go, and says how many calls fit under it.
pub(super) fn max_in_flight() -> usize {
    let limit = getrlimit(Resource::Nofile);
    let wanted =
        limit.maximum.unwrap_or(u64::MAX).min(MOST_IN_FLIGHT + MOST_CONNECTIONS.max(MOST_IN_FLIGHT) + OTHER_FILES);
    let mut current = limit.current.unwrap_or(u64::MAX);
    if current < wanted && setrlimit(Resource::Nofile, Rlimit { current: Some(wanted), maximum: limit.maximum }).is_ok()
    {
        current = wanted;
    }
    let calls = (current.saturating_sub(OTHER_FILES) / 2).clamp(16, MOST_IN_FLIGHT);
    if calls < MOST_IN_FLIGHT {
        tracing::warn!(
            open_files = current,
            calls,
            "few files may be open: at most this many calls run at once; raise `ulimit -n`"
        );
    }
    usize::try_from(calls).unwrap_or(16)
}
