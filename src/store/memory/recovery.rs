//! Taking back what a dead daemon left running.

use std::time::Duration;

use super::table::Table;
use crate::{
    clock::Timestamp,
    ids::{JobId, NodeId},
    job::{Fault, Outcome, State, state::Event},
    store::{
        AttemptEnd, Recovered, Result, Unseen,
        crash::{self, Abandoned, Fate},
    },
};

impl Table {
    pub fn register(&mut self, node: NodeId, now: Timestamp) -> Result<Recovered> {
        self.gone.remove(&node);
        self.nodes.insert(node, now);
        self.take_back(node, now, true)
    }

    pub fn deregister(&mut self, node: NodeId, now: Timestamp) -> Result<()> {
        self.nodes.remove(&node);
        self.gone.insert(node);
        self.take_back(node, now, false).map(drop)
    }

    pub fn reclaim(&mut self, lease: Duration, asking: NodeId, now: Timestamp) -> Result<Recovered> {
        let silent = self.nodes.iter().filter(|(node, seen)| **node != asking && now.since(**seen) > lease);
        let silent: Vec<NodeId> = silent.map(|(node, _)| *node).collect();
        let mut all = Recovered::default();
        for node in silent {
            self.nodes.remove(&node);
            self.gone.insert(node);
            let one = self.take_back(node, now, true)?;
            all.requeued += one.requeued;
            all.unknown_attempts += one.unknown_attempts;
            all.suspects += one.suspects;
            all.quarantined.extend(one.quarantined);
            all.unseen.extend(one.unseen);
        }
        Ok(all)
    }

    fn take_back(&mut self, node: NodeId, now: Timestamp, crashed: bool) -> Result<Recovered> {
        for (.., until) in self.leads.values_mut().filter(|(_, leader, _)| *leader == node) {
            *until = Timestamp::from_micros(0);
        }
        let mut recovered = Recovered::default();
        let busy: Vec<JobId> = self.busy.get(&node).into_iter().flatten().copied().collect();
        let abandoned: Vec<(JobId, Abandoned)> = busy
            .iter()
            .filter_map(|id| Some((*id, self.get(*id)?)))
            .filter(|(_, job)| job.state == State::Running)
            .map(|(id, job)| {
                let calling = crashed && job.calling();
                (id, Abandoned { crashes: job.crashes, suspect: job.suspect, calling, live: job.live })
            })
            .collect();
        let suspects = crash::suspects_calling(abandoned.iter().map(|(_, job)| job));
        for id in busy {
            let unseen = self.close_unseen(id, now);
            recovered.unknown_attempts += unseen.len() as u64;
            recovered.unseen.extend(unseen);
        }
        for (id, job) in abandoned {
            let fate = crash::fate(job, suspects);
            match fate {
                Fate::Requeue { suspect, .. } => {
                    recovered.requeued += 1;
                    recovered.suspects += u64::from(suspect);
                }
                Fate::Quarantine { .. } => recovered.quarantined.push(id),
                Fate::LetGo => {}
            }
            let done = self.change(id, |job| {
                job.fence += 1;
                match fate {
                    Fate::Requeue { crashes, suspect } => {
                        (job.crashes, job.suspect) = (crashes, suspect);
                        job.step(Event::Requeue, now)
                    }
                    Fate::Quarantine { crashes } => {
                        job.crashes = crashes;
                        job.error = Some(crash::quarantine_error(id, crashes));
                        job.step(Event::Fail, now)
                    }
                    Fate::LetGo => {
                        job.error = Some(crash::caller_gone_error());
                        job.step(Event::Fail, now)
                    }
                }
            });
            done.transpose()?;
        }
        Ok(recovered)
    }

    /// Closes a job's open attempts as `unknown`.
    fn close_unseen(&mut self, id: JobId, now: Timestamp) -> Vec<Unseen> {
        let Some(job) = self.get(id) else { return Vec::new() };
        let open: Vec<_> = job.attempts.iter().filter(|call| call.attempt.ended_at.is_none()).collect();
        let unseen = open
            .iter()
            .map(|call| Unseen {
                pipeline: job.new.pipeline.clone(),
                target: call.attempt.target.clone(),
                most_cost: call.most_cost,
            })
            .collect();
        let open: Vec<_> = open.iter().map(|call| call.attempt.id).collect();
        for attempt in &open {
            self.close(
                id,
                &AttemptEnd {
                    attempt: *attempt,
                    ended_at: now,
                    outcome: Outcome::Unknown,
                    fault: Some(Fault::Unknown),
                    message: Some(crash::UNSEEN_END.to_owned()),
                    usage: None,
                    cost: None,
                    possibly_billed: true,
                    provider_request_id: None,
                    first_token: None,
                },
            );
        }
        self.change(id, |job| {
            if job.state != State::Running {
                job.node = None;
            }
        });
        unseen
    }
}
