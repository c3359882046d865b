//! What a dead daemon leaves behind.

use super::{Bench, secs};
use crate::{
    ids::{JobId, NodeId},
    job::{Fault, Outcome, State},
    store::{Fence, Next, Recovered, Settled, Unseen},
};

/// Claims the job and opens an attempt, then the daemon dies and comes back.
async fn crash_calling(bench: &Bench, node: NodeId, n: u32, suspects: bool) -> Recovered {
    let mut claimed = bench.claim_request(node, &[("a", 1)], 1, suspects).await;
    let job = claimed.pop().expect("a job to claim");
    assert_eq!(job.suspect, suspects);
    bench.open(job.id, job.fence, n).await;
    bench.store.register(node).await.unwrap()
}

async fn suspect(bench: &Bench, node: NodeId) -> JobId {
    let id = bench.queued("a").await;
    crash_calling(bench, node, 1, false).await;
    crash_calling(bench, node, 2, false).await;
    assert!(bench.record(id).await.summary.suspect);
    id
}

pub async fn a_restart_takes_its_jobs_back(bench: &Bench) {
    let node = NodeId::generate();
    assert_eq!(bench.store.register(node).await.unwrap(), Recovered::default());
    let [first, second] = [bench.queued("a").await, bench.queued("a").await];
    let claimed = bench.claim(node, "a", 2).await;
    let attempt = bench.open(first, claimed[0].fence, 1).await;
    assert_eq!(bench.store.register(NodeId::generate()).await.unwrap(), Recovered::default(), "not another's");
    let recovered = bench.store.register(node).await.unwrap();
    let unseen = vec![Unseen {
        pipeline: super::pipeline("a"),
        target: "openai".parse().unwrap(),
        most_cost: Some("0.05".parse().unwrap()),
    }];
    assert_eq!(recovered, Recovered { requeued: 2, unknown_attempts: 1, unseen, ..Recovered::default() });
    assert_eq!((bench.state(first).await, bench.state(second).await), (State::Queued, State::Queued));
    let record = bench.record(first).await;
    let closed = &record.attempts[0];
    assert_eq!((closed.id, closed.outcome, closed.fault), (attempt, Outcome::Unknown, Some(Fault::Unknown)));
    assert_eq!(closed.possible_cost_usd.unwrap().to_string(), "0.05");
    assert!(closed.possibly_billed && closed.ended_at == Some(bench.now()) && closed.message.is_some());
    // The old life's fence is void; what it saw of its call is still true.
    let end = bench.ended(attempt, Outcome::Succeeded);
    let settled = bench.settle(first, claimed[0].fence, Some(end), Next::Succeed("{}".to_owned())).await;
    assert_eq!(settled, Settled::Stale);
    let record = bench.record(first).await;
    assert_eq!((record.summary.state, record.attempts[0].outcome), (State::Queued, Outcome::Succeeded));
    assert_eq!(bench.store.register(node).await.unwrap(), Recovered::default());
}

pub async fn a_job_that_was_only_claimed_counts_no_crash(bench: &Bench) {
    let node = NodeId::generate();
    let id = bench.queued("a").await;
    for _ in 0..5 {
        bench.claim_one(node, "a").await;
        assert_eq!(bench.store.register(node).await.unwrap().requeued, 1);
    }
    // An attempt that was closed before the crash is no call in flight either.
    for n in 1..5 {
        let claimed = bench.claim_one(node, "a").await;
        let attempt = bench.open(id, claimed.fence, n).await;
        bench.settle(id, claimed.fence, Some(bench.ended(attempt, Outcome::Failed)), Next::Keep).await;
        assert_eq!(bench.store.register(node).await.unwrap().unknown_attempts, 0);
    }
    assert!(!bench.record(id).await.summary.suspect);
}

pub async fn two_crashes_make_a_suspect_and_the_next_ends_it(bench: &Bench) {
    let node = NodeId::generate();
    let id = bench.queued("a").await;
    assert_eq!(crash_calling(bench, node, 1, false).await.suspects, 0);
    let second = crash_calling(bench, node, 2, false).await;
    assert_eq!((second.suspects, second.requeued), (1, 1));
    assert!(bench.claim(node, "a", 9).await.is_empty(), "suspects are not among ordinary jobs");
    // Claimed and not called: not its fault.
    assert_eq!(bench.claim_request(node, &[("a", 9)], 9, true).await.len(), 1);
    assert_eq!(bench.store.register(node).await.unwrap().quarantined, []);
    let third = crash_calling(bench, node, 3, true).await;
    assert_eq!((third.quarantined.as_slice(), third.requeued), ([id].as_slice(), 0));
    let record = bench.record(id).await;
    assert_eq!(record.summary.state, State::Failed);
    let error = record.error.unwrap();
    assert_eq!(error.reason_code, "crashed_worker");
    assert!(error.message.contains(&format!("landbridge jobs retry {id}")), "{}", error.message);
    assert_eq!(record.attempts.len(), 3);
    assert!(bench.claim_request(node, &[("a", 9)], 9, true).await.is_empty());
}

pub async fn suspects_run_one_at_a_time(bench: &Bench) {
    let node = NodeId::generate();
    // Both crash twice together, so both are suspects.
    let ids = [bench.queued("a").await, bench.queued("a").await];
    for n in 1..=2 {
        let claimed = bench.claim(node, "a", 2).await;
        assert_eq!(claimed.len(), 2);
        for job in &claimed {
            bench.open(job.id, job.fence, n).await;
        }
        bench.store.register(node).await.unwrap();
    }
    let ordinary = bench.queued("a").await;
    let one = bench.claim_request(node, &[("a", 9)], 9, true).await;
    assert_eq!(one.iter().map(|job| job.id).collect::<Vec<_>>(), [ids[0]]);
    assert!(bench.claim_request(node, &[("a", 9)], 9, true).await.is_empty(), "one is in flight");
    assert_eq!(bench.claim(node, "a", 9).await[0].id, ordinary, "ordinary work goes on");
    bench.settle(ids[0], one[0].fence, None, Next::Queue).await;
    assert_eq!(bench.claim_request(node, &[("a", 0)], 9, true).await, []);
    assert_eq!(bench.claim_request(node, &[("a", 9)], 9, true).await[0].id, ids[0]);
}

pub async fn a_seen_end_ends_the_row_of_crashes(bench: &Bench) {
    let node = NodeId::generate();
    let id = suspect(bench, node).await;
    let job = bench.claim_request(node, &[("a", 1)], 1, true).await.remove(0);
    let attempt = bench.open(id, job.fence, 3).await;
    bench.settle(id, job.fence, Some(bench.ended(attempt, Outcome::Failed)), Next::Queue).await;
    assert!(!bench.record(id).await.summary.suspect);
    assert_eq!(crash_calling(bench, node, 4, false).await.suspects, 0, "the row begins anew");
    assert_eq!(crash_calling(bench, node, 5, false).await.suspects, 1);
}

pub async fn a_clean_stop_leaves_nothing_to_count(bench: &Bench) {
    let node = NodeId::generate();
    let id = bench.queued("a").await;
    for n in 1..=4 {
        bench.store.register(node).await.unwrap();
        let claimed = bench.claim_one(node, "a").await;
        bench.open(id, claimed.fence, n).await;
        bench.store.deregister(node).await.unwrap();
        assert_eq!(bench.state(id).await, State::Queued);
        assert_eq!(bench.store.register(node).await.unwrap(), Recovered::default());
    }
    let record = bench.record(id).await;
    assert!(!record.summary.suspect);
    assert!(record.attempts.iter().all(|call| call.outcome == Outcome::Unknown && call.possibly_billed));
    bench.store.deregister(node).await.unwrap();
    bench.clock.advance(secs(999));
    assert_eq!(bench.store.reclaim(secs(30)).await.unwrap(), Recovered::default());
}

pub async fn silent_nodes_lose_their_jobs(bench: &Bench) {
    let [silent, alive] = [NodeId::generate(), NodeId::generate()];
    for node in [silent, alive] {
        bench.store.register(node).await.unwrap();
        bench.queued("a").await;
        let claimed = bench.claim_one(node, "a").await;
        bench.open(claimed.id, claimed.fence, 1).await;
    }
    bench.clock.advance(secs(20));
    bench.store.heartbeat(alive).await.unwrap();
    assert_eq!(bench.store.reclaim(secs(30)).await.unwrap(), Recovered::default());
    bench.clock.advance(secs(20));
    let recovered = bench.store.reclaim(secs(30)).await.unwrap();
    assert_eq!((recovered.requeued, recovered.unknown_attempts), (1, 1));
    assert_eq!(bench.store.reclaim(secs(30)).await.unwrap(), Recovered::default());
    assert_eq!(bench.claim(alive, "a", 9).await.len(), 1);
}

pub async fn the_asking_node_is_never_silent(bench: &Bench) {
    let node = bench.store.local_node();
    bench.store.register(node).await.unwrap();
    bench.queued("a").await;
    bench.claim_one(node, "a").await;
    bench.clock.advance(secs(9_999));
    assert_eq!(bench.store.reclaim(secs(30)).await.unwrap(), Recovered::default());
}

pub async fn a_cancelled_call_is_listed_after_a_crash(bench: &Bench) {
    let node = NodeId::generate();
    let id = bench.queued("a").await;
    let claimed = bench.claim_one(node, "a").await;
    bench.open(id, claimed.fence, 1).await;
    bench.store.cancel(vec![id]).await.unwrap();
    let recovered = bench.store.register(node).await.unwrap();
    assert_eq!((recovered.requeued, recovered.unknown_attempts), (0, 1));
    let record = bench.record(id).await;
    assert_eq!((record.summary.state, record.attempts[0].outcome), (State::Cancelled, Outcome::Unknown));
}

pub async fn a_live_job_ends_with_its_daemon(bench: &Bench) {
    let node = bench.store.local_node();
    let live = bench.new_job("a");
    bench.store.submit_running(live.clone(), node, bench.intent(live.id, Fence::FIRST, 1)).await.unwrap();
    let recovered = bench.store.register(node).await.unwrap();
    assert_eq!((recovered.requeued, recovered.unknown_attempts, recovered.quarantined), (0, 1, vec![]));
    let record = bench.record(live.id).await;
    assert_eq!(record.summary.state, State::Failed);
    assert_eq!(record.error.unwrap().reason_code, "caller_gone");
    assert_eq!(record.attempts[0].outcome, Outcome::Unknown);
}

pub async fn a_late_bill_is_taken_over_an_unseen_end(bench: &Bench) {
    let [silent, alive] = [NodeId::generate(), NodeId::generate()];
    let start = bench.now();
    bench.store.register(silent).await.unwrap();
    let id = bench.queued("a").await;
    let stale = bench.claim_one(silent, "a").await;
    let attempt = bench.open(id, stale.fence, 1).await;
    bench.clock.advance(secs(60));
    assert_eq!(bench.store.reclaim(secs(30)).await.unwrap().unknown_attempts, 1);
    let again = bench.claim_one(alive, "a").await;
    let bill = |cost: &str| crate::store::AttemptEnd {
        usage: Some(crate::usage::Usage { input: 7, output: 9, ..crate::usage::Usage::default() }),
        cost: Some(cost.parse().unwrap()),
        ..bench.ended(attempt, Outcome::Succeeded)
    };
    bench.clock.advance(secs(1));
    let late = bill("0.25");
    let settled = bench.settle(id, stale.fence, Some(late.clone()), Next::Succeed("{}".to_owned())).await;
    assert_eq!(settled, Settled::Stale);
    let record = bench.record(id).await;
    assert_eq!((record.summary.state, &record.result), (State::Running, &None), "the job stays with who has it");
    let told = &record.attempts[0];
    assert_eq!((told.outcome, told.fault, told.possibly_billed), (Outcome::Succeeded, None, false));
    assert_eq!((told.usage, told.cost_usd, told.ended_at), (late.usage, late.cost, Some(late.ended_at)));
    // Once: what was seen stays, and is paid once.
    bench.settle(id, stale.fence, Some(late), Next::Queue).await;
    bench.settle(id, stale.fence, Some(bill("9")), Next::Queue).await;
    let spent = || async { bench.store.spending(start).await.unwrap()[&super::pipeline("a")].to_string() };
    assert_eq!(spent().await, "0.25");
    // The same when the job has ended meanwhile.
    let second = bench.open(id, again.fence, 2).await;
    bench.store.reclaim(secs(0)).await.unwrap();
    bench.clock.advance(secs(1));
    bench.store.reclaim(secs(0)).await.unwrap();
    bench.store.cancel(vec![id]).await.unwrap();
    let end = crate::store::AttemptEnd { attempt: second, ..bill("0.5") };
    assert_eq!(bench.settle(id, again.fence, Some(end), Next::Queue).await, Settled::Stale);
    let record = bench.record(id).await;
    assert_eq!((record.summary.state, record.attempts[1].outcome), (State::Cancelled, Outcome::Succeeded));
    assert_eq!(spent().await, "0.75");
}

pub async fn nodes_are_known_with_when_they_were_heard(bench: &Bench) {
    let [one, two] = [NodeId::generate(), NodeId::generate()];
    bench.store.register(one).await.unwrap();
    bench.store.register(two).await.unwrap();
    bench.clock.advance(secs(20));
    bench.store.heartbeat(two).await.unwrap();
    let seen = |nodes: &std::collections::BTreeMap<NodeId, _>, node| nodes.get(&node).copied().unwrap();
    let nodes = bench.store.nodes().await.unwrap();
    assert_eq!((seen(&nodes, one), seen(&nodes, two)), (Some(bench.now() - secs(20)), Some(bench.now())));
    bench.clock.advance(secs(20));
    bench.store.reclaim(secs(30)).await.unwrap();
    bench.store.deregister(two).await.unwrap();
    let nodes = bench.store.nodes().await.unwrap();
    assert_eq!((seen(&nodes, one), seen(&nodes, two)), (None, None));
}
