//! Stores decide nothing: whatever is asked of a job in whatever state, the step is that of the state machine.

use std::collections::BTreeMap;

use strum::IntoEnumIterator;

use super::{Bench, pipeline, secs};
use crate::{
    ids::JobId,
    job::{
        HoldReason, State,
        state::{Event, next},
    },
    store::{Claimed, Fence, JobError, Next},
};

fn error() -> JobError {
    JobError { reason_code: "refused".to_owned(), message: String::new(), kind: String::new(), code: None, param: None }
}

/// A job of its own pipeline in the state asked for, with the fence of its last claim.
async fn job_in(bench: &Bench, name: &str, state: State) -> (JobId, Fence) {
    let id = bench.queued(name).await;
    if state == State::Queued {
        return (id, Fence(0));
    }
    let Claimed { fence, .. } = bench.claim_one(bench.store.local_node(), name).await;
    let step = match state {
        State::Queued | State::Running => None,
        State::Waiting => Some(Next::Wait(bench.now() + secs(5))),
        State::Held => Some(Next::Hold(HoldReason::Confined)),
        State::Succeeded => Some(Next::Succeed("{}".to_owned())),
        State::Failed => Some(Next::Fail(error())),
        State::Expired => Some(Next::Expire),
        State::Cancelled => {
            bench.store.cancel(vec![id]).await.unwrap();
            None
        }
    };
    if let Some(step) = step {
        bench.settle(id, fence, None, step).await;
    }
    assert_eq!(bench.state(id).await, state);
    (id, fence)
}

/// Has the event happen to the job by the method that is there for it.
async fn happen(bench: &Bench, name: &str, job: (JobId, Fence), event: Event) {
    let (id, fence) = job;
    let step = match event {
        Event::Claim => {
            bench.claim(bench.store.local_node(), name, 1).await;
            return;
        }
        Event::Promote => {
            bench.store.promote(bench.now() + secs(10), 1_000).await.unwrap();
            return;
        }
        Event::Release => {
            bench.store.release(Some(pipeline(name)), 10).await.unwrap();
            return;
        }
        Event::Cancel => {
            bench.store.cancel(vec![id]).await.unwrap();
            return;
        }
        Event::Expire => {
            let far = bench.now() + secs(100_000);
            bench.store.expire(BTreeMap::from([(pipeline(name), far)]), 10).await.unwrap();
            return;
        }
        Event::Requeue => Next::Queue,
        Event::Wait => Next::Wait(bench.now() + secs(5)),
        Event::Hold => Next::Hold(HoldReason::Budget),
        Event::Succeed => Next::Succeed("{}".to_owned()),
        Event::Fail => Next::Fail(error()),
    };
    bench.settle(id, fence, None, step).await;
}

pub async fn every_operation_takes_the_step_of_the_state_machine(bench: &Bench) {
    for (place, state) in State::iter().enumerate() {
        for event in Event::iter() {
            let name = format!("p{place}-{}", event.to_string().replace('_', "-"));
            let job = job_in(bench, &name, state).await;
            happen(bench, &name, job, event).await;
            // Workers may only move what they have; the rest of the table is for daemons that decide otherwise.
            let by_worker = matches!(event, Event::Requeue | Event::Wait | Event::Hold | Event::Succeed | Event::Fail);
            let allowed = (!by_worker || state == State::Running) && !(event == Event::Expire && state == State::Held);
            let expected = next(state, event).ok().filter(|_| allowed).unwrap_or(state);
            assert_eq!(bench.state(job.0).await, expected, "{state} {event}");
            // Out of the way of what looks at all pipelines.
            bench.store.cancel(vec![job.0]).await.unwrap();
        }
    }
}
