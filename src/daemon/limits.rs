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

/// Raises the limit of open files as far as it may go, and says how many calls fit under it.
pub(super) fn max_in_flight() -> usize {
    let limit = getrlimit(Resource::Nofile);
    let wanted = limit.maximum.unwrap_or(u64::MAX).min(MOST_IN_FLIGHT * 2 + OTHER_FILES);
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
