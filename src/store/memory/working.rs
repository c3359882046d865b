//! Submit, claim, begin, settle.

use super::table::{Call, Job, Ledgered, Table};
use crate::{
    clock::Timestamp,
    ids::{JobId, NodeId},
    job::{Attempt, Outcome, State, state::Event},
    names::PipelineName,
    store::{
        AttemptEnd, ClaimRequest, Claimed, Fence, Intent, LedgerRow, NewJob, Next, Result, Settled, Settlement,
        Submitted, Traffic, TrafficKey, traffic::hour_of,
    },
};

impl Table {
    pub fn submit(&mut self, job: NewJob, now: Timestamp) -> Submitted {
        if let Some(key) = &job.idempotency_key
            && let Some(known) = self.by_key(&job.pipeline, &job.caller, key).and_then(|id| self.get(id))
        {
            return if known.new.digest == job.digest {
                Submitted::Existing(known.new.id, known.state)
            } else {
                Submitted::Conflict(known.new.id)
            };
        }
        if let Some(known) = self.get(job.id) {
            return Submitted::Existing(job.id, known.state);
        }
        let state = if job.not_before.is_some_and(|at| at > now) { State::Waiting } else { State::Queued };
        self.add(Job::new(job, state));
        Submitted::New(state)
    }

    pub fn submit_running(&mut self, job: NewJob, node: NodeId, intent: Intent, now: Timestamp) -> Result<()> {
        self.nodes.entry(node).or_insert(now);
        let id = job.id;
        let mut job = Job::new(job, State::Queued);
        job.live = true;
        job.step(Event::Claim, now)?;
        job.fence = Fence::FIRST.0;
        job.node = Some(node);
        if self.get(id).is_none() {
            self.add(job);
        }
        self.begin(intent, now);
        Ok(())
    }

    pub fn claim(&mut self, request: &ClaimRequest, now: Timestamp) -> Result<Vec<Claimed>> {
        if request.is_empty() {
            return Ok(Vec::new());
        }
        self.nodes.entry(request.node).or_insert(now);
        if request.suspects {
            return self.claim_suspect(request, now);
        }
        let mut left: Vec<(PipelineName, u32)> = request.pipelines.clone();
        let mut claimed = Vec::new();
        while claimed.len() < request.max as usize {
            let head = left
                .iter_mut()
                .filter(|(_, limit)| *limit > 0)
                .filter_map(|(pipeline, limit)| Some((*self.ready.get(pipeline)?.first()?, limit)))
                .min_by_key(|(place, _)| *place);
            let Some(((_, id), limit)) = head else { break };
            *limit -= 1;
            claimed.extend(self.take(id, request, now).transpose()?);
        }
        Ok(claimed)
    }

    fn claim_suspect(&mut self, request: &ClaimRequest, now: Timestamp) -> Result<Vec<Claimed>> {
        let mine = self.busy.get(&request.node);
        let in_flight = |id: &JobId| self.get(*id).is_some_and(|job| job.suspect && job.state == State::Running);
        if request.max == 0 || mine.is_some_and(|jobs| jobs.iter().any(in_flight)) {
            return Ok(Vec::new());
        }
        let queued = |(_, id): &&(i64, JobId)| self.get(*id).is_some_and(|job| job.state == State::Queued);
        let head = request
            .pipelines
            .iter()
            .filter(|(_, limit)| *limit > 0)
            .filter_map(|(pipeline, _)| self.suspects.get(pipeline)?.iter().find(queued))
            .min()
            .copied();
        let claimed = head.and_then(|(_, id)| self.take(id, request, now));
        Ok(claimed.transpose()?.into_iter().collect())
    }

    fn take(&mut self, id: JobId, request: &ClaimRequest, now: Timestamp) -> Option<Result<Claimed>> {
        self.change(id, |job| {
            job.step(Event::Claim, now)?;
            job.fence += 1;
            job.node = Some(request.node);
            Ok(Claimed {
                id,
                pipeline: job.new.pipeline.clone(),
                caller: job.new.caller.clone(),
                fence: Fence(job.fence),
                priority: job.new.priority,
                created_at: job.new.created_at,
                expiry_key: job.new.expiry_key,
                metadata: job.new.metadata.clone(),
                body: job.body.clone().unwrap_or_default(),
                assignment: job.assignment.clone(),
                attempts: job.attempts.iter().map(|call| Attempt { decision: None, ..call.attempt.clone() }).collect(),
                suspect: job.suspect,
            })
        })
    }

    pub fn begin(&mut self, intent: Intent, now: Timestamp) -> bool {
        let held = |job: &Job| job.state == State::Running && job.fence == intent.fence.0;
        if !self.get(intent.job).is_some_and(held) {
            return false;
        }
        let Some(job) = self.get(intent.job) else { return false };
        let (pipeline, unassigned) = (job.new.pipeline.clone(), job.assignment.is_none());
        let fresh = job.attempts.iter().all(|call| call.attempt.id != intent.attempt);
        let assignment = intent.assignment.as_ref().filter(|_| unassigned);
        let assignment = assignment.map(|assignment| self.numbered(&pipeline, intent.job, assignment, now));
        if let Some(told) = intent.told.filter(|_| fresh) {
            self.observe(&pipeline, Some(intent.job), told, now);
        }
        self.change(intent.job, |job| {
            if assignment.is_some() {
                job.assignment = assignment;
            }
            if job.attempts.iter().any(|call| call.attempt.id == intent.attempt) {
                return;
            }
            job.attempts.push(Call {
                generation: intent.generation,
                fidelity: intent.fidelity,
                most_cost: intent.most_cost,
                prompt_estimate: intent.prompt_estimate,
                attempt: Attempt {
                    id: intent.attempt,
                    n: intent.n,
                    target: intent.target,
                    provider: intent.provider,
                    model: intent.model,
                    outcome: Outcome::Open,
                    fault: None,
                    message: None,
                    started_at: intent.started_at,
                    ended_at: None,
                    usage: None,
                    cost_usd: None,
                    possibly_billed: false,
                    possible_cost_usd: None,
                    decision: serde_json::from_str(&intent.decision).ok(),
                },
            });
        });
        true
    }

    pub fn settle(&mut self, settlement: Settlement, now: Timestamp) -> Result<Settled> {
        let Settlement { job: id, fence, ended, next, told } = settlement;
        if let Some(end) = &ended {
            self.close(id, end);
        }
        let settled = self.change(id, |job| {
            if job.state != State::Running || job.fence != fence.0 {
                if job.state.is_terminal() && !job.calling() {
                    job.node = None;
                }
                return Ok(Settled::Stale);
            }
            if ended.is_some() {
                job.crashes = 0;
                job.suspect = false;
            }
            match next {
                Next::Keep => {}
                Next::Queue => job.step(Event::Requeue, now)?,
                Next::Wait(until) => {
                    job.step(Event::Wait, now)?;
                    job.until = Some(until);
                }
                Next::Hold(reason) => {
                    job.step(Event::Hold, now)?;
                    job.hold = Some((reason, now));
                }
                Next::Succeed(result) => {
                    job.step(Event::Succeed, now)?;
                    job.result = Some(result);
                }
                Next::Fail(error) => {
                    job.step(Event::Fail, now)?;
                    job.error = Some(error);
                }
                Next::Expire => job.step(Event::Expire, now)?,
            }
            Ok(Settled::Applied)
        });
        let settled = settled.unwrap_or(Ok(Settled::Stale))?;
        if let (Settled::Applied, Some(told), Some(job)) = (settled, told, self.get(id)) {
            let pipeline = job.new.pipeline.clone();
            self.observe(&pipeline, Some(id), told, now);
        }
        Ok(settled)
    }

    /// Closes an attempt once; what nobody saw takes the end that its worker reports, any other end stays.
    pub fn close(&mut self, id: JobId, end: &AttemptEnd) {
        let closed = self.change(id, |job| {
            let place = job.attempts.iter().position(|call| call.attempt.id == end.attempt)?;
            let rescued = end.outcome == Outcome::Succeeded && {
                let (before, this) = job.attempts.split_at(place);
                let target = this.first().map(|call| &call.attempt.target);
                before.iter().any(|call| Some(&call.attempt.target) != target)
            };
            let call = job.attempts.get_mut(place)?;
            let before = call.attempt.ended_at.map(|at| (at, Traffic::of_attempt(&call.attempt)));
            let attempt = &mut call.attempt;
            if before.is_some() && (attempt.outcome != Outcome::Unknown || attempt.cost_usd.is_some()) {
                return None;
            }
            attempt.outcome = end.outcome;
            attempt.fault = end.fault;
            attempt.message.clone_from(&end.message);
            attempt.ended_at = Some(end.ended_at);
            attempt.usage = end.usage;
            attempt.cost_usd = end.cost;
            attempt.possibly_billed = end.possibly_billed;
            attempt.possible_cost_usd = call.most_cost.filter(|_| end.possibly_billed);
            let key = TrafficKey {
                pipeline: job.new.pipeline.clone(),
                target: attempt.target.clone(),
                provider: attempt.provider.clone(),
                model: attempt.model.clone(),
            };
            let row = LedgerRow {
                place: 0,
                ended_at: end.ended_at,
                took: end.ended_at.since(attempt.started_at),
                first_token: end.first_token,
                outcome: end.outcome,
                fault: end.fault,
                usage: end.usage,
                prompt_estimate: call.prompt_estimate,
                cost: end.cost,
                possibly_billed: end.possibly_billed,
                possible_cost: attempt.possible_cost_usd,
                rescued,
            };
            Some((Ledgered { job: id, key, row }, call.most_cost, before))
        });
        if let Some((ledgered, most, before)) = closed.flatten() {
            let key = ledgered.key.clone();
            if let Some((before, counted)) = before {
                self.ledger.remove(&(before, end.attempt));
                let place = (hour_of(before), key.clone());
                if let Some(sums) = self.traffic.get_mut(&place) {
                    *sums -= counted;
                    if *sums == Traffic::default() {
                        self.traffic.remove(&place);
                    }
                }
            }
            self.ledger.insert((end.ended_at, end.attempt), ledgered);
            *self.traffic.entry((hour_of(end.ended_at), key)).or_default() += Traffic::of(end, most);
        }
    }
}
