//! What happens to rollouts with steps is written with what happens to jobs, and read in order.

use super::{Bench, secs};
use crate::{
    job::Outcome,
    names::{PipelineName, RolloutName},
    routing::{Arm, Assignment, Counted},
    store::{Ended, Intent, NewObservation, Next, Observation, ObservationQuery, Observed, Settled, Settlement, Told},
};

fn rollout() -> RolloutName {
    "to-bedrock".parse().unwrap()
}

fn pipeline(name: &str) -> PipelineName {
    name.parse().unwrap()
}

fn assignment(evidence: bool) -> Assignment {
    let counted = Counted { revision: 2, share: crate::money::BasisPoints::new(1_000).unwrap(), number: None };
    Assignment { rollout: rollout(), arm: Arm::Candidate, bucket: Some(45), evidence, counted: Some(counted) }
}

fn told(what: Observed) -> Option<Told> {
    Some(Told { rollout: rollout(), what })
}

fn ended(failed: bool) -> Observed {
    Observed::Ended(Ended { failed, invalid: false, micros: Some(12_000), cost: Some("0.25".parse().unwrap()) })
}

async fn read(bench: &Bench, name: &str, after: u64, limit: u32) -> Vec<Observation> {
    let query = ObservationQuery { pipeline: pipeline(name), rollout: rollout(), after, limit };
    bench.store.observations(query).await.unwrap()
}

pub async fn observations_are_written_with_the_jobs(bench: &Bench) {
    let node = bench.store.local_node();
    let id = bench.queued("a").await;
    let claimed = bench.claim_one(node, "a").await;
    assert_eq!(bench.store.last_observation(&pipeline("a"), &rollout()).await.unwrap(), 0);
    let first = Intent { assignment: Some(assignment(true)), ..bench.intent(id, claimed.fence, 1) };
    // The same intent again is the same attempt, and the same dispatch.
    assert_eq!(bench.store.begin(vec![first.clone(), first.clone()]).await.unwrap(), [true; 2]);
    assert_eq!(bench.store.begin(vec![first.clone()]).await.unwrap(), [true]);
    let kept = bench.record(id).await.assignment.unwrap();
    assert_eq!(kept.counted.and_then(|counted| counted.number), Some(1), "the job keeps its number");
    assert_eq!(kept.arm, Arm::Candidate);
    // A later dispatch that goes elsewhere says so; it is no first dispatch any more.
    let second = Intent {
        assignment: Some(assignment(true)),
        told: told(Observed::Withdrawn),
        ..bench.intent(id, claimed.fence, 2)
    };
    bench.clock.advance(secs(3));
    assert_eq!(bench.store.begin(vec![second.clone()]).await.unwrap(), [true]);
    let end = bench.ended(second.attempt, Outcome::Succeeded);
    let settle = |fence, what| Settlement {
        job: id,
        fence,
        ended: Some(end.clone()),
        next: Next::Succeed("{}".to_owned()),
        told: told(what),
    };
    assert_eq!(bench.store.settle(vec![settle(claimed.fence, ended(false))]).await.unwrap(), [Settled::Applied]);
    assert_eq!(bench.store.settle(vec![settle(claimed.fence, ended(true))]).await.unwrap(), [Settled::Stale]);
    let rows = read(bench, "a", 0, 99).await;
    let whats: Vec<(u64, &Observed)> = rows.iter().map(|row| (row.number, &row.what)).collect();
    let dispatched = Observed::Dispatched {
        revision: 2,
        arm: Arm::Candidate,
        share: crate::money::BasisPoints::new(1_000).unwrap(),
        bucket: Some(45),
    };
    assert_eq!(whats, [(1, &dispatched), (2, &Observed::Withdrawn), (3, &ended(false))]);
    assert!(rows.iter().all(|row| row.job == Some(id)));
    assert_eq!(rows[1].at.since(rows[0].at), secs(3), "by the store's clock");
}

pub async fn what_is_no_evidence_leaves_none(bench: &Bench) {
    let node = bench.store.local_node();
    for assignment in [assignment(false), Assignment { counted: None, ..assignment(true) }] {
        let id = bench.queued("a").await;
        let claimed = bench.claim_one(node, "a").await;
        let intent = Intent { assignment: Some(assignment), ..bench.intent(id, claimed.fence, 1) };
        assert_eq!(bench.store.begin(vec![intent]).await.unwrap(), [true]);
    }
    assert_eq!(read(bench, "a", 0, 99).await, []);
}

pub async fn observations_are_numbered_read_and_forgotten(bench: &Bench) {
    let observe = |name: &str, what: Observed| {
        let row = NewObservation { pipeline: pipeline(name), job: None, told: told(what).unwrap() };
        bench.store.observe(vec![row])
    };
    for _ in 0..5 {
        observe("a", Observed::Switched).await.unwrap();
    }
    observe("b", Observed::Withdrawn).await.unwrap();
    let numbers = |rows: Vec<Observation>| rows.iter().map(|row| row.number).collect::<Vec<_>>();
    assert_eq!(numbers(read(bench, "a", 0, 99).await), [1, 2, 3, 4, 5]);
    assert_eq!(numbers(read(bench, "a", 2, 2).await), [3, 4]);
    assert_eq!(numbers(read(bench, "b", 0, 99).await), [1], "each rollout counts for itself");
    assert_eq!(read(bench, "c", 0, 99).await, []);
    let forget = |through, limit| {
        let store = bench.store.clone();
        async move { store.forget_observations(&pipeline("a"), &rollout(), through, limit).await.unwrap() }
    };
    assert_eq!((forget(3, 2).await, forget(3, 2).await, forget(3, 2).await), (2, 1, 0));
    assert_eq!(numbers(read(bench, "a", 0, 99).await), [4, 5]);
    assert_eq!(forget(99, 99).await, 1, "the newest stays");
    observe("a", Observed::Switched).await.unwrap();
    assert_eq!(numbers(read(bench, "a", 0, 99).await), [5, 6], "no number is given twice");
    assert_eq!(bench.store.last_observation(&pipeline("a"), &rollout()).await.unwrap(), 6);
}
