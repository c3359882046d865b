//! The jobs that this daemon is carrying right now, and how to stop one.
//!
//! Invariant: a job is listed from its claim to its settlement; dropping its [`Ticket`] strikes it off and frees its
//! place, however the carrying ends.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::{ids::JobId, names::PipelineName};

/// Why a call is stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StopReason {
    /// The job was cancelled: its row says so already.
    Cancelled,
    /// The daemon drains, or an operator interrupts: the job goes back to the queue.
    Interrupted,
}

/// A switch that stops one job.
#[derive(Debug, Default)]
pub struct Stop {
    token: CancellationToken,
    cancelled: AtomicBool,
}

impl Stop {
    /// Stops the job.
    pub fn stop(&self, reason: StopReason) {
        if reason == StopReason::Cancelled {
            self.cancelled.store(true, Ordering::Release);
        }
        self.token.cancel();
    }

    /// Waits until the job is stopped.
    pub async fn stopped(&self) -> StopReason {
        self.token.cancelled().await;
        if self.cancelled.load(Ordering::Acquire) { StopReason::Cancelled } else { StopReason::Interrupted }
    }

    /// Whether it was stopped.
    pub fn is_stopped(&self) -> bool {
        self.token.is_cancelled()
    }
}

#[derive(Debug)]
struct Entry {
    pipeline: PipelineName,
    stop: Arc<Stop>,
}

#[derive(Debug, Default)]
struct Jobs {
    by_id: HashMap<JobId, Entry>,
    by_pipeline: HashMap<PipelineName, u32>,
    /// Of those in flight, how many a caller waits for.
    live: usize,
}

/// All jobs in flight.
#[derive(Debug, Default)]
pub struct Inflight {
    jobs: Mutex<Jobs>,
    freed: Notify,
    emptied: Notify,
}

impl Inflight {
    /// Lists a job; the ticket strikes it off.
    pub fn admit(self: &Arc<Self>, job: JobId, pipeline: PipelineName) -> Ticket {
        self.list(&mut self.lock(), job, pipeline, false)
    }

    /// The same for a job whose caller waits, while there are fewer than `most` of that kind.
    pub fn admit_live(self: &Arc<Self>, job: JobId, pipeline: PipelineName, most: usize) -> Option<Ticket> {
        let mut jobs = self.lock();
        if jobs.live >= most {
            return None;
        }
        jobs.live += 1;
        Some(self.list(&mut jobs, job, pipeline, true))
    }

    fn list(self: &Arc<Self>, jobs: &mut Jobs, job: JobId, pipeline: PipelineName, live: bool) -> Ticket {
        let stop = Arc::new(Stop::default());
        *jobs.by_pipeline.entry(pipeline.clone()).or_default() += 1;
        jobs.by_id.insert(job, Entry { pipeline: pipeline.clone(), stop: stop.clone() });
        Ticket { inflight: self.clone(), job, pipeline, stop, live }
    }

    /// How many jobs of a pipeline are in flight.
    pub fn of(&self, pipeline: &PipelineName) -> u32 {
        self.lock().by_pipeline.get(pipeline).copied().unwrap_or(0)
    }

    /// How many jobs are in flight.
    pub fn len(&self) -> usize {
        self.lock().by_id.len()
    }

    /// Whether nothing is in flight.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Stops one job, if it is in flight here.
    pub fn stop(&self, job: JobId, reason: StopReason) -> bool {
        let stop = self.lock().by_id.get(&job).map(|entry| entry.stop.clone());
        stop.inspect(|stop| stop.stop(reason)).is_some()
    }

    /// Interrupts all jobs of a pipeline, or all; how many.
    pub fn interrupt(&self, pipeline: Option<&PipelineName>) -> usize {
        let stops: Vec<Arc<Stop>> = self
            .lock()
            .by_id
            .values()
            .filter(|entry| pipeline.is_none_or(|wanted| entry.pipeline == *wanted))
            .map(|entry| entry.stop.clone())
            .collect();
        for stop in &stops {
            stop.stop(StopReason::Interrupted);
        }
        stops.len()
    }

    /// Completes when a place was freed after the last time it completed.
    pub async fn freed(&self) {
        self.freed.notified().await;
    }

    /// Completes when nothing is in flight.
    pub async fn emptied(&self) {
        loop {
            let emptied = self.emptied.notified();
            tokio::pin!(emptied);
            emptied.as_mut().enable();
            if self.is_empty() {
                return;
            }
            emptied.await;
        }
    }

    fn lock(&self) -> MutexGuard<'_, Jobs> {
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A job's place among those in flight.
#[derive(Debug)]
pub struct Ticket {
    inflight: Arc<Inflight>,
    job: JobId,
    pipeline: PipelineName,
    stop: Arc<Stop>,
    live: bool,
}

impl Ticket {
    /// The switch that stops this job.
    pub fn stop(&self) -> &Arc<Stop> {
        &self.stop
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let mut jobs = self.inflight.lock();
        jobs.by_id.remove(&self.job);
        if self.live {
            jobs.live = jobs.live.saturating_sub(1);
        }
        if let Some(count) = jobs.by_pipeline.get_mut(&self.pipeline) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                jobs.by_pipeline.remove(&self.pipeline);
            }
        }
        let empty = jobs.by_id.is_empty();
        drop(jobs);
        self.inflight.freed.notify_one();
        if empty {
            self.inflight.emptied.notify_waiters();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_dropped_ticket_frees_its_place() {
        let inflight = Arc::new(Inflight::default());
        let pipeline = PipelineName::new("p").unwrap();
        let job = JobId::generate();
        let ticket = inflight.admit(job, pipeline.clone());
        assert_eq!((inflight.of(&pipeline), inflight.len()), (1, 1));
        assert!(inflight.stop(job, StopReason::Cancelled));
        assert_eq!(ticket.stop().stopped().await, StopReason::Cancelled);
        drop(ticket);
        assert_eq!((inflight.of(&pipeline), inflight.len()), (0, 0));
        assert!(!inflight.stop(job, StopReason::Cancelled));
        inflight.emptied().await;
    }

    #[test]
    fn callers_who_wait_never_take_all_places() {
        let inflight = Arc::new(Inflight::default());
        let admit = || inflight.admit_live(JobId::generate(), PipelineName::new("p").unwrap(), 2);
        let (first, _second) = (admit(), admit());
        assert!(first.is_some() && admit().is_none());
        drop(first);
        assert!(admit().is_some());
    }

    #[tokio::test]
    async fn an_interrupt_reaches_only_its_pipeline() {
        let inflight = Arc::new(Inflight::default());
        let (a, b) = (PipelineName::new("a").unwrap(), PipelineName::new("b").unwrap());
        let first = inflight.admit(JobId::generate(), a.clone());
        let second = inflight.admit(JobId::generate(), b);
        assert_eq!(inflight.interrupt(Some(&a)), 1);
        assert!(first.stop().is_stopped() && !second.stop().is_stopped());
        assert_eq!(first.stop().stopped().await, StopReason::Interrupted);
    }
}
