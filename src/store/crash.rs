//! What becomes of a job that was in flight when its daemon died. Both embedded stores ask here, and nowhere else.
//!
//! Invariant: only a job with an open attempt counts a crash; one that crashes the process again and again while nothing
//! else can be blamed ends, and is never tried again by itself.

use super::JobError;
use crate::ids::JobId;

/// Crashes in a row that make a job a suspect.
const SUSPECT_AT: u32 = 2;

/// A job that a dead daemon left running.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Abandoned {
    /// Crashes in a row before this one.
    pub crashes: u32,
    /// Whether it was a suspect.
    pub suspect: bool,
    /// Whether it had an open attempt: a call may have been in flight.
    pub calling: bool,
    /// Whether its caller waited for it, at the daemon that is no more.
    pub live: bool,
}

/// What becomes of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// Back into the queue.
    Requeue {
        /// Crashes in a row, this one included.
        crashes: u32,
        /// Whether it is a suspect from now on.
        suspect: bool,
    },
    /// It ends as `crashed_worker`.
    Quarantine {
        /// Crashes in a row, this one included.
        crashes: u32,
    },
    /// It ends as `caller_gone`: nobody waits for its answer any more.
    LetGo,
}

/// Decides about one abandoned job; `suspects` is how many suspects had an open attempt at that crash, itself included.
pub fn fate(job: Abandoned, suspects: usize) -> Fate {
    if job.live {
        return Fate::LetGo;
    }
    if !job.calling {
        return Fate::Requeue { crashes: job.crashes, suspect: job.suspect };
    }
    let crashes = job.crashes.saturating_add(1);
    if job.suspect && suspects <= 1 {
        Fate::Quarantine { crashes }
    } else {
        Fate::Requeue { crashes, suspect: crashes >= SUSPECT_AT }
    }
}

/// How many of these are suspects that had an open attempt.
pub fn suspects_calling<'a>(jobs: impl IntoIterator<Item = &'a Abandoned>) -> usize {
    jobs.into_iter().filter(|job| job.suspect && job.calling).count()
}

/// Why a quarantined job failed.
pub fn quarantine_error(job: JobId, crashes: u32) -> JobError {
    JobError {
        reason_code: "crashed_worker".to_owned(),
        message: format!(
            "the daemon died {crashes} times in a row while this job was being called, the last time with no other \
             suspect in flight, so it is not tried again by itself; look for the cause (memory, the log before the \
             restart), then submit it anew with `landbridge jobs retry {job}`"
        ),
        kind: "server_error".to_owned(),
        code: Some("crashed_worker".to_owned()),
        param: None,
    }
}

/// Why a live job failed whose daemon died.
pub fn caller_gone_error() -> JobError {
    JobError {
        reason_code: "caller_gone".to_owned(),
        message:
            "the daemon stopped while the caller waited for this answer; it is not carried on, because the caller's \
                  connection ended too"
                .to_owned(),
        kind: "server_error".to_owned(),
        code: Some("caller_gone".to_owned()),
        param: None,
    }
}

/// What the ledger says of an attempt whose end nobody saw.
pub const UNSEEN_END: &str = "the daemon stopped before the end of this call was seen; it may have been billed";

#[cfg(test)]
mod tests {
    use super::*;

    fn check(crashes: u32, suspect: bool, calling: bool, suspects: usize, expected: Fate) {
        assert_eq!(fate(Abandoned { crashes, suspect, calling, live: false }, suspects), expected);
    }

    #[test]
    fn only_repeated_crashes_with_a_call_in_flight_lead_to_quarantine() {
        check(0, false, false, 0, Fate::Requeue { crashes: 0, suspect: false });
        check(0, false, true, 0, Fate::Requeue { crashes: 1, suspect: false });
        check(1, false, true, 0, Fate::Requeue { crashes: 2, suspect: true });
        check(1, false, true, 1, Fate::Requeue { crashes: 2, suspect: true });
        check(2, true, false, 0, Fate::Requeue { crashes: 2, suspect: true });
        check(2, true, true, 2, Fate::Requeue { crashes: 3, suspect: true });
        check(2, true, true, 1, Fate::Quarantine { crashes: 3 });
        assert_eq!(fate(Abandoned { crashes: 0, suspect: false, calling: true, live: true }, 0), Fate::LetGo);
    }
}
