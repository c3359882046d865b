//! Cancel, hold and release, promotion, expiry.

use std::collections::BTreeMap;

use super::{Bench, pipeline, secs};
use crate::{
    ids::JobId,
    job::{HoldReason, State},
    store::{Cancelled, NewJob, Next, Promoted, Settled},
};

pub async fn cancel_says_what_it_found(bench: &Bench) {
    let node = bench.store.local_node();
    let ended = bench.queued("a").await;
    bench.finish(node, "a").await;
    let running = bench.queued("a").await;
    let claimed = bench.claim_one(node, "a").await;
    let queued = bench.queued("a").await;
    let waiting = bench.add(NewJob { not_before: Some(bench.now() + secs(9)), ..bench.new_job("a") }).await;
    let unknown = JobId::generate();
    let answers = bench.store.cancel(vec![ended, running, queued, waiting, unknown, queued]).await.unwrap();
    let expected = [
        Cancelled::AlreadyEnded(State::Succeeded),
        Cancelled::Done { was: State::Running },
        Cancelled::Done { was: State::Queued },
        Cancelled::Done { was: State::Waiting },
        Cancelled::Unknown,
        Cancelled::AlreadyEnded(State::Cancelled),
    ];
    assert_eq!(answers, expected);
    assert_eq!(bench.settle(running, claimed.fence, None, Next::Queue).await, Settled::Stale);
    assert!(bench.claim(node, "a", 9).await.is_empty());
    assert_eq!(bench.store.promote(bench.now() + secs(60), 9).await.unwrap(), Promoted::default());
}

/// A held job of a pipeline.
async fn hold(bench: &Bench, name: &str) -> JobId {
    let id = bench.queued(name).await;
    let claimed = bench.claim_one(bench.store.local_node(), name).await;
    bench.settle(id, claimed.fence, None, Next::Hold(HoldReason::Budget)).await;
    id
}

pub async fn held_time_does_not_count(bench: &Bench) {
    let id = hold(bench, "a").await;
    let before = bench.record(id).await.summary.deadline;
    bench.clock.advance(secs(7_200));
    let late = BTreeMap::from([(pipeline("a"), bench.now())]);
    assert!(bench.store.expire(late.clone(), 9).await.unwrap().is_empty(), "a held job's clock stands still");
    assert_eq!(bench.store.release(None, 9).await.unwrap(), 1);
    assert!(bench.store.expire(late, 9).await.unwrap().is_empty(), "two hours held, one hour to live");
    let claimed = bench.claim_one(bench.store.local_node(), "a").await;
    assert_eq!(claimed.expiry_key, before + secs(7_200));
    let much_later = BTreeMap::from([(pipeline("a"), bench.now() + secs(3_600))]);
    assert_eq!(bench.store.expire(much_later, 9).await.unwrap(), [id]);
}

pub async fn release_keeps_to_pipeline_and_limit(bench: &Bench) {
    let a = [hold(bench, "a").await, hold(bench, "a").await, hold(bench, "a").await];
    let b = hold(bench, "b").await;
    assert_eq!(bench.store.release(Some(pipeline("none")), 9).await.unwrap(), 0);
    assert_eq!(bench.store.release(Some(pipeline("a")), 2).await.unwrap(), 2);
    assert_eq!(bench.state(b).await, State::Held);
    assert_eq!(bench.store.release(None, 9).await.unwrap(), 2);
    for id in a.into_iter().chain([b]) {
        let summary = bench.record(id).await.summary;
        assert_eq!((summary.state, summary.hold), (State::Queued, None));
    }
    assert_eq!(bench.store.release(None, 9).await.unwrap(), 0);
}

pub async fn promotion_moves_what_is_due(bench: &Bench) {
    let start = bench.now();
    let mut jobs = Vec::new();
    for wait in [30, 10, 20] {
        jobs.push(bench.add(NewJob { not_before: Some(start + secs(wait)), ..bench.new_job("a") }).await);
    }
    let promote = |after: u64, limit: u32| bench.store.promote(start + secs(after), limit);
    assert_eq!(promote(9, 9).await.unwrap(), Promoted { moved: 0, next_due: Some(start + secs(10)) });
    assert_eq!(promote(20, 1).await.unwrap(), Promoted { moved: 1, next_due: Some(start + secs(20)) });
    assert_eq!(bench.state(jobs[1]).await, State::Queued);
    assert_eq!(bench.record(jobs[1]).await.summary.until, None);
    assert_eq!(promote(30, 9).await.unwrap(), Promoted { moved: 2, next_due: None });
    let claimed = bench.claim(bench.store.local_node(), "a", 9).await;
    assert_eq!(claimed.iter().map(|job| job.id).collect::<Vec<_>>(), jobs, "by age, whatever they waited");
}

pub async fn expiry_judges_each_pipeline_by_its_own_moment(bench: &Bench) {
    let mut jobs = Vec::new();
    for (name, life) in [("a", 10), ("a", 20), ("b", 10), ("c", 10)] {
        let key = bench.now() + secs(life);
        jobs.push(bench.add(NewJob { expiry_key: key, ..bench.new_job(name) }).await);
    }
    let moments = |a: u64, b: u64| {
        BTreeMap::from([(pipeline("a"), bench.now() + secs(a)), (pipeline("b"), bench.now() + secs(b))])
    };
    assert_eq!(bench.store.expire(moments(15, 5), 9).await.unwrap(), [jobs[0]]);
    assert_eq!(bench.store.expire(moments(99, 99), 1).await.unwrap().len(), 1);
    assert_eq!(bench.store.expire(moments(99, 99), 9).await.unwrap().len(), 1);
    for (place, state) in [State::Expired, State::Expired, State::Expired, State::Queued].into_iter().enumerate() {
        assert_eq!(bench.state(jobs[place]).await, state);
    }
    assert_eq!(bench.record(jobs[0]).await.summary.finished_at, Some(bench.now()));
}

pub async fn expiry_takes_the_fence(bench: &Bench) {
    let id = bench.queued("a").await;
    let claimed = bench.claim_one(bench.store.local_node(), "a").await;
    let far = BTreeMap::from([(pipeline("a"), bench.now() + secs(99_999))]);
    assert_eq!(bench.store.expire(far, 9).await.unwrap(), [id]);
    let settled = bench.settle(id, claimed.fence, None, Next::Succeed("{}".to_owned())).await;
    assert_eq!((settled, bench.state(id).await), (Settled::Stale, State::Expired));
}
