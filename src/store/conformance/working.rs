//! Claims, intents, settlements, fences.

use std::collections::BTreeSet;

use super::{Bench, secs};
use crate::{
    ids::NodeId,
    job::{Fault, FidelityAction, FidelityNote, HoldReason, Outcome, State},
    routing::Arm,
    store::{Assignment, Cancelled, ClaimRequest, Fence, Intent, JobError, NewJob, Next, Settled},
    usage::Usage,
};

pub async fn claims_follow_priority_and_age_over_all_pipelines(bench: &Bench) {
    let node = bench.store.local_node();
    let first = bench.queued("a").await;
    let second = bench.queued("b").await;
    let urgent = bench.add(NewJob { priority: 1, ..bench.new_job("a") }).await;
    let low = bench.add(NewJob { priority: -1, ..bench.new_job("b") }).await;
    bench.queued("c").await;
    let claimed = bench.claim_request(node, &[("a", 9), ("b", 9), ("none", 9)], 9, false).await;
    assert_eq!(claimed.iter().map(|job| job.id).collect::<Vec<_>>(), [urgent, first, second, low]);
    // A step of priority weighs as much as a minute of age: nothing starves.
    let old = bench.add(NewJob { priority: -1, ..bench.new_job("a") }).await;
    bench.clock.advance(secs(61));
    let young = bench.queued("a").await;
    let claimed = bench.claim(node, "a", 9).await;
    assert_eq!(claimed.iter().map(|job| job.id).collect::<Vec<_>>(), [old, young]);
}

pub async fn claims_keep_to_their_limits(bench: &Bench) {
    let node = bench.store.local_node();
    for name in ["a", "b", "b", "a", "a", "b"] {
        bench.queued(name).await;
    }
    let names = |claimed: &[crate::store::Claimed]| -> Vec<String> {
        claimed.iter().map(|job| job.pipeline.to_string()).collect()
    };
    assert_eq!(names(&bench.claim_request(node, &[("a", 1), ("b", 2)], 9, false).await), ["a", "b", "b"]);
    assert_eq!(names(&bench.claim_request(node, &[("a", 9), ("b", 9)], 2, false).await), ["a", "a"]);
    assert!(bench.claim_request(node, &[("b", 0)], 9, false).await.is_empty());
    assert!(bench.claim_request(node, &[("b", 9)], 0, false).await.is_empty());
    assert!(bench.claim_request(node, &[], 9, false).await.is_empty());
    assert_eq!(names(&bench.claim_request(node, &[("a", 9), ("b", 9)], 9, false).await), ["b"]);
}

pub async fn a_job_is_claimed_once(bench: &Bench) {
    let jobs = (0..200).map(|_| bench.new_job("a")).collect();
    bench.store.submit(jobs).await.unwrap();
    let mut workers = Vec::new();
    for _ in 0..8 {
        let store = bench.store.clone();
        let request = ClaimRequest {
            node: store.local_node(),
            pipelines: vec![(super::pipeline("a"), 7)],
            max: 7,
            suspects: false,
        };
        workers.push(tokio::spawn(async move {
            let mut mine = Vec::new();
            loop {
                let claimed = store.claim(request.clone()).await.unwrap();
                if claimed.is_empty() {
                    return mine;
                }
                mine.extend(claimed.into_iter().map(|job| job.id));
            }
        }));
    }
    let mut all = Vec::new();
    for worker in workers {
        all.extend(worker.await.unwrap());
    }
    assert_eq!(all.len(), 200);
    assert_eq!(all.into_iter().collect::<BTreeSet<_>>().len(), 200);
}

pub async fn intents_are_written_under_the_fence_alone(bench: &Bench) {
    let id = bench.queued("a").await;
    assert_eq!(bench.store.begin(vec![bench.intent(id, Fence(0), 1)]).await.unwrap(), [false]);
    let claimed = bench.claim_one(bench.store.local_node(), "a").await;
    let good = Intent {
        region: Some("us-east-1".parse().unwrap()),
        fidelity: vec![FidelityNote {
            parameter: "seed".to_owned(),
            action: FidelityAction::Dropped,
            detail: "not carried".to_owned(),
        }],
        ..bench.intent(id, claimed.fence, 1)
    };
    let wrong = bench.intent(id, Fence(claimed.fence.0 + 1), 2);
    let unknown = bench.intent(crate::ids::JobId::generate(), claimed.fence, 1);
    let answers = bench.store.begin(vec![wrong, good.clone(), unknown]).await.unwrap();
    assert_eq!(answers, [false, true, false]);
    let record = bench.record(id).await;
    assert_eq!(record.fidelity, good.fidelity);
    assert_eq!((record.summary.attempts, record.summary.generation), (1, 7));
    assert_eq!(record.summary.target, Some(good.target.clone()));
    let [attempt] = record.attempts.as_slice() else { panic!("{:?}", record.attempts) };
    assert_eq!((attempt.id, attempt.n, attempt.outcome), (good.attempt, 1, Outcome::Open));
    assert_eq!((&attempt.provider, &attempt.model, attempt.started_at), (&good.provider, &good.model, good.started_at));
    assert_eq!(attempt.decision.as_ref().unwrap()["chain"][0], "openai");
}

pub async fn beginning_twice_is_one_attempt(bench: &Bench) {
    bench.queued("a").await;
    let claimed = bench.claim_one(bench.store.local_node(), "a").await;
    let intent = bench.intent(claimed.id, claimed.fence, 1);
    assert_eq!(bench.store.begin(vec![intent.clone(), intent.clone()]).await.unwrap(), [true, true]);
    assert_eq!(bench.record(claimed.id).await.attempts.len(), 1);
}

fn error() -> JobError {
    JobError {
        reason_code: "refused".to_owned(),
        message: "no".to_owned(),
        kind: "invalid_request_error".to_owned(),
        code: Some("bad".to_owned()),
        param: Some("messages".to_owned()),
    }
}

pub async fn each_settlement_leads_to_its_state(bench: &Bench) {
    let later = bench.now() + secs(60);
    for (next, state) in [
        (Next::Keep, State::Running),
        (Next::Queue, State::Queued),
        (Next::Wait(later), State::Waiting),
        (Next::Hold(HoldReason::Budget), State::Held),
        (Next::Succeed(r#"{"id":"x"}"#.to_owned()), State::Succeeded),
        (Next::Fail(error()), State::Failed),
        (Next::Expire, State::Expired),
    ] {
        let id = bench.queued("a").await;
        let claimed = bench.claim_one(bench.store.local_node(), "a").await;
        let attempt = bench.open(id, claimed.fence, 1).await;
        let end = bench.ended(attempt, Outcome::Failed);
        assert_eq!(bench.settle(id, claimed.fence, Some(end), next.clone()).await, Settled::Applied);
        let record = bench.record(id).await;
        let summary = &record.summary;
        assert_eq!(summary.state, state);
        assert_eq!(summary.finished_at, state.is_terminal().then(|| bench.now()));
        assert_eq!(summary.until, (state == State::Waiting).then_some(later));
        assert_eq!(summary.hold, (state == State::Held).then_some(HoldReason::Budget));
        assert_eq!(record.result.is_some(), state == State::Succeeded);
        assert_eq!(record.error, (state == State::Failed).then(error));
        // Only a job that goes on can be settled again under the same fence.
        let settled = bench.settle(id, claimed.fence, None, Next::Queue).await;
        assert_eq!(settled == Settled::Applied, state == State::Running, "{state}");
        bench.store.cancel(vec![id]).await.unwrap();
    }
}

pub async fn a_stale_worker_closes_its_attempt_and_nothing_else(bench: &Bench) {
    let id = bench.queued("a").await;
    let claimed = bench.claim_one(bench.store.local_node(), "a").await;
    let attempt = bench.open(id, claimed.fence, 1).await;
    let cancelled = bench.store.cancel(vec![id]).await.unwrap();
    assert_eq!(cancelled, [Cancelled::Done { was: State::Running }]);
    let end = crate::store::AttemptEnd {
        outcome: Outcome::Succeeded,
        usage: Some(Usage { input: 10, output: 20, cache_read: 1, cache_write: 2, reasoning: 3 }),
        cost: Some("0.0123".parse().unwrap()),
        ..bench.ended(attempt, Outcome::Succeeded)
    };
    let settled = bench.settle(id, claimed.fence, Some(end.clone()), Next::Succeed("{}".to_owned())).await;
    assert_eq!(settled, Settled::Stale);
    let record = bench.record(id).await;
    assert_eq!((record.summary.state, record.result), (State::Cancelled, None));
    assert_eq!(record.attempts[0].outcome, Outcome::Succeeded);
    assert_eq!((record.attempts[0].usage, record.attempts[0].cost_usd), (end.usage, end.cost));
    assert_eq!(bench.store.begin(vec![bench.intent(id, claimed.fence, 2)]).await.unwrap(), [false]);
}

pub async fn a_closed_attempt_stays_as_it_was(bench: &Bench) {
    let id = bench.queued("a").await;
    let claimed = bench.claim_one(bench.store.local_node(), "a").await;
    let attempt = bench.open(id, claimed.fence, 1).await;
    let first = crate::store::AttemptEnd {
        fault: Some(Fault::Transient),
        message: Some("503".to_owned()),
        cost: Some("1".parse().unwrap()),
        possibly_billed: true,
        provider_request_id: Some("req-1".to_owned()),
        ..bench.ended(attempt, Outcome::Failed)
    };
    assert_eq!(bench.settle(id, claimed.fence, Some(first.clone()), Next::Keep).await, Settled::Applied);
    bench.clock.advance(secs(1));
    let second = crate::store::AttemptEnd { cost: first.cost, ..bench.ended(attempt, Outcome::Succeeded) };
    assert_eq!(bench.settle(id, claimed.fence, Some(second), Next::Queue).await, Settled::Applied);
    let record = bench.record(id).await;
    assert_eq!(record.summary.state, State::Queued);
    let kept = &record.attempts[0];
    assert_eq!((kept.outcome, kept.fault, kept.ended_at), (Outcome::Failed, first.fault, Some(first.ended_at)));
    assert_eq!((&kept.message, kept.possibly_billed), (&first.message, true));
    assert_eq!(bench.store.spending(bench.now() - secs(60)).await.unwrap()[&super::pipeline("a")], first.cost.unwrap());
}

pub async fn a_second_claim_brings_the_past(bench: &Bench) {
    let node = bench.store.local_node();
    let job =
        NewJob { metadata: [("customer".to_owned(), "c-1".to_owned())].into(), priority: 5, ..bench.new_job("a") };
    let id = bench.add(job.clone()).await;
    let first = bench.claim_one(node, "a").await;
    assert_eq!((&first.metadata, &first.body, first.priority), (&job.metadata, &job.body, 5));
    assert_eq!((first.created_at, first.expiry_key), (job.created_at, job.expiry_key));
    assert!(first.attempts.is_empty() && !first.suspect);
    for n in 1..=3 {
        let attempt = bench.open(id, first.fence, n).await;
        let end = crate::store::AttemptEnd { fault: Some(Fault::Throttled), ..bench.ended(attempt, Outcome::Failed) };
        let next = if n == 3 { Next::Queue } else { Next::Keep };
        bench.settle(id, first.fence, Some(end), next).await;
    }
    let second = bench.claim_one(node, "a").await;
    assert!(second.fence > first.fence);
    assert_eq!(second.attempts.iter().map(|attempt| attempt.n).collect::<Vec<_>>(), [1, 2, 3]);
    assert!(second.attempts.iter().all(|past| past.fault == Some(Fault::Throttled) && past.decision.is_none()));
    assert_eq!(bench.settle(id, first.fence, None, Next::Queue).await, Settled::Stale);
}

pub async fn the_first_assignment_stays(bench: &Bench) {
    let id = bench.queued("a").await;
    let node = bench.store.local_node();
    let claimed = bench.claim_one(node, "a").await;
    assert_eq!(claimed.assignment, None);
    let first = Assignment {
        rollout: "to-bedrock".parse().unwrap(),
        arm: Arm::Candidate,
        bucket: Some(45),
        evidence: true,
        counted: None,
    };
    let second = Assignment { arm: Arm::Baseline, bucket: None, ..first.clone() };
    let intent = |assignment: Option<&Assignment>| Intent {
        assignment: assignment.cloned(),
        ..bench.intent(id, claimed.fence, 1)
    };
    let intents = vec![intent(None), intent(Some(&first)), intent(Some(&second))];
    assert_eq!(bench.store.begin(intents).await.unwrap(), [true; 3]);
    assert_eq!(bench.record(id).await.assignment, Some(first.clone()));
    bench.settle(id, claimed.fence, None, Next::Queue).await;
    assert_eq!(bench.claim_one(node, "a").await.assignment, Some(first));
}

pub async fn hints_tell_of_ready_and_ended_jobs(bench: &Bench) {
    let node = NodeId::generate();
    let mut wakeups = bench.store.wakeups();
    let mut endings = bench.store.endings();
    let id = bench.queued("a").await;
    assert!(wakeups.has_changed().unwrap(), "submit");
    wakeups.mark_unchanged();
    let claimed = bench.claim_one(node, "a").await;
    bench.settle(id, claimed.fence, None, Next::Wait(bench.now())).await;
    bench.store.promote(bench.now(), 9).await.unwrap();
    assert!(wakeups.has_changed().unwrap(), "promote");
    wakeups.mark_unchanged();
    let claimed = bench.claim_one(node, "a").await;
    bench.settle(id, claimed.fence, None, Next::Hold(HoldReason::Budget)).await;
    assert!(endings.try_recv().is_err());
    bench.store.release(None, 9).await.unwrap();
    assert!(wakeups.has_changed().unwrap(), "release");
    wakeups.mark_unchanged();
    bench.claim_one(node, "a").await;
    bench.store.register(node).await.unwrap();
    assert!(wakeups.has_changed().unwrap(), "recovery");
    assert_eq!(bench.finish(node, "a").await, id);
    assert_eq!(endings.recv().await.unwrap(), id);
}
