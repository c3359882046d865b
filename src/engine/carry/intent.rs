//! Writing down what is about to be called.
//!
//! Invariant: when this says yes, the row of the attempt is durable, and bytes may leave.

use super::{Carried, Going};
use crate::{
    engine::{settle::open_attempt, world::Lane},
    routing::Decision,
    store::{Intent, Next},
    wire::Prepared,
};

impl Carried<'_> {
    /// Stores the intent; a live job's first makes its row too, in the same commit.
    pub(super) async fn begin(
        &mut self,
        lane: &Lane,
        decision: &Decision,
        going: &Going,
        prepared: &Prepared,
        generation: u64,
    ) -> bool {
        let (target, now) = (&going.target, going.started_at);
        let spec = &lane.loaded.pipeline;
        let n = u32::try_from(self.job.attempts.len()).unwrap_or(u32::MAX).saturating_add(1);
        let assignment = match &self.job.assignment {
            Some(_) => None,
            // Where money decides, no arm does.
            None if self.thrifty => None,
            None => decision.assignment(spec, &lane.flags),
        };
        let known = self.job.assignment.as_ref().or(assignment.as_ref());
        let known = known.filter(|assignment| assignment.counted.is_some()).cloned();
        let told = self.leg_at(lane, decision, going, known.as_ref());
        let mut record = decision.record(spec, generation);
        if going.spilled {
            record
                .reasons
                .push(format!("the routed target's quota is exhausted, so {}, its equal, serves", target.name));
        }
        if self.thrifty {
            let reason = "the pipeline's budget is spent, so the cheapest target that may serve it comes first";
            record.reasons.push(format!("{reason}: {}", target.name));
        }
        record.reasons.extend(self.unfit.iter().map(|(_, unfit)| format!("passed over: {unfit}")));
        let intent = Intent {
            attempt: going.attempt,
            job: self.job.id,
            fence: self.job.fence,
            n,
            target: target.name.clone(),
            provider: target.provider.clone(),
            model: target.model.clone(),
            region: target.region.clone(),
            started_at: now,
            generation,
            decision: serde_json::to_string(&record).unwrap_or_default(),
            assignment: assignment.clone(),
            fidelity: prepared.fidelity.clone(),
            most_cost: going.most_cost,
            prompt_estimate: Some(going.prompt.most),
            told,
        };
        let unborn = self.live.as_mut().and_then(|live| {
            live.generation = generation;
            live.unborn.take()
        });
        let stored = match unborn {
            None => self.engine.store.begin(vec![intent]).await.map(|mut held| held.pop().unwrap_or(false)),
            Some(new) => {
                let stored = self.engine.store.submit_running(new, self.engine.node, intent).await;
                if let Some(live) = &mut self.live {
                    live.lost = stored.is_err();
                }
                if stored.is_ok() {
                    self.engine.metrics.jobs_submitted(&spec.name, 1);
                }
                stored.map(|()| true)
            }
        };
        match stored {
            Ok(true) => {
                self.job.assignment = self.job.assignment.take().or(assignment);
                self.job.attempts.push(open_attempt(going.attempt, n, target, now));
                true
            }
            Ok(false) => {
                tracing::debug!(job = self.id, "the fence is void: the job was cancelled, expired or taken over");
                false
            }
            Err(error) => {
                tracing::error!(job = self.id, %error, "the intent could not be stored; nothing was sent");
                self.settle(None, Next::Queue).await;
                false
            }
        }
    }
}
