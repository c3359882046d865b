//! What goes, and what stays.

use std::collections::BTreeMap;

use super::{Bench, pipeline, secs};
use crate::{
    clock::Timestamp,
    job::{HoldReason, Outcome, State},
    store::{AuditEntry, NewJob, Next, PruneCut, Pruned, Submitted},
};

const NEVER: Timestamp = Timestamp::from_micros(0);

fn nothing() -> PruneCut {
    PruneCut {
        prompts: BTreeMap::new(),
        results: BTreeMap::new(),
        default_prompts: NEVER,
        default_results: NEVER,
        ledger: NEVER,
        audit: NEVER,
    }
}

fn everything(bench: &Bench) -> PruneCut {
    let now = bench.now() + secs(1);
    PruneCut { default_prompts: now, default_results: now, ledger: now, audit: now, ..nothing() }
}

pub async fn prompts_go_first_then_jobs_then_the_ledger(bench: &Bench) {
    let node = bench.store.local_node();
    let kept = bench.queued("kept").await;
    bench.finish(node, "kept").await;
    let id = bench.queued("a").await;
    let claimed = bench.claim_one(node, "a").await;
    let attempt = bench.open(id, claimed.fence, 1).await;
    let end =
        crate::store::AttemptEnd { cost: Some("2.5".parse().unwrap()), ..bench.ended(attempt, Outcome::Succeeded) };
    bench.settle(id, claimed.fence, Some(end), Next::Succeed(r#"{"a":1}"#.to_owned())).await;
    let ended = bench.now();
    let a = |at| BTreeMap::from([(pipeline("a"), at)]);

    let prune = |cut| async { bench.store.prune(cut, 100).await.unwrap() };
    assert_eq!(prune(nothing()).await, Pruned::default());
    assert_eq!(prune(PruneCut { prompts: a(ended), ..nothing() }).await, Pruned::default(), "not before its time");
    let cut = PruneCut { prompts: a(ended + secs(1)), ..nothing() };
    assert_eq!(prune(cut.clone()).await, Pruned { prompts: 1, ..Pruned::default() });
    assert_eq!(prune(cut).await, Pruned::default());
    let record = bench.record(id).await;
    assert_eq!((record.body, record.result.as_deref()), (None, Some(r#"{"a":1}"#)));

    let cut = PruneCut { results: a(ended + secs(1)), ..nothing() };
    assert_eq!(prune(cut.clone()).await, Pruned { jobs: 1, ..Pruned::default() });
    assert_eq!(prune(cut).await, Pruned::default());
    assert_eq!(bench.store.job(id).await.unwrap(), None);
    let spent = bench.store.spending(ended - secs(10)).await.unwrap();
    assert_eq!(spent[&pipeline("a")].to_string(), "2.5", "the ledger outlives its job");

    let cut = PruneCut { ledger: ended + secs(1), ..nothing() };
    assert_eq!(prune(cut.clone()).await.attempts, 2);
    assert_eq!(prune(cut).await, Pruned::default());
    assert!(bench.record(kept).await.body.is_some());
    assert!(bench.record(kept).await.attempts.is_empty());
}

pub async fn live_jobs_are_never_touched(bench: &Bench) {
    let node = bench.store.local_node();
    let mut live = Vec::new();
    for state in [State::Running, State::Waiting, State::Held, State::Queued] {
        let id = bench.queued("a").await;
        let claimed = bench.claim_one(node, "a").await;
        let attempt = bench.open(id, claimed.fence, 1).await;
        let next = match state {
            State::Waiting => Next::Wait(bench.now()),
            State::Held => Next::Hold(HoldReason::Paused),
            State::Queued => Next::Queue,
            _ => Next::Keep,
        };
        bench.settle(id, claimed.fence, Some(bench.ended(attempt, Outcome::Failed)), next).await;
        live.push((id, state));
    }
    bench.clock.advance(secs(999_999));
    assert_eq!(bench.store.prune(everything(bench), 100).await.unwrap(), Pruned::default());
    for (id, state) in live {
        let record = bench.record(id).await;
        assert_eq!((record.summary.state, record.attempts.len()), (state, 1));
        assert!(record.body.is_some());
    }
}

pub async fn a_job_stays_while_a_call_is_open(bench: &Bench) {
    let id = bench.queued("a").await;
    let claimed = bench.claim_one(bench.store.local_node(), "a").await;
    let attempt = bench.open(id, claimed.fence, 1).await;
    bench.store.cancel(vec![id]).await.unwrap();
    assert_eq!(bench.store.prune(everything(bench), 100).await.unwrap().jobs, 0);
    let end = crate::store::AttemptEnd { cost: Some("1".parse().unwrap()), ..bench.ended(attempt, Outcome::Succeeded) };
    bench.settle(id, claimed.fence, Some(end), Next::Queue).await;
    assert_eq!(bench.store.spending(NEVER).await.unwrap().len(), 1, "the bill came through");
    assert_eq!(bench.store.prune(everything(bench), 100).await.unwrap().jobs, 1);
}

pub async fn a_pruned_key_is_free_again(bench: &Bench) {
    let job = NewJob { idempotency_key: Some("k".to_owned()), batch: Some("monday".to_owned()), ..bench.new_job("a") };
    bench.add(job.clone()).await;
    bench.store.cancel(vec![job.id]).await.unwrap();
    assert_eq!(bench.store.batch_counts("monday").await.unwrap(), BTreeMap::from([(State::Cancelled, 1)]));
    assert_eq!(bench.store.prune(everything(bench), 100).await.unwrap().jobs, 1);
    assert!(bench.store.batch_counts("monday").await.unwrap().is_empty());
    assert_eq!(bench.store.job_by_key(&job.pipeline, "", "k").await.unwrap(), None);
    let again = NewJob { id: crate::ids::JobId::generate(), digest: [9; 32], ..job };
    assert_eq!(bench.store.submit(vec![again]).await.unwrap(), [Submitted::New(State::Queued)]);
    assert_eq!(bench.store.batch_counts("monday").await.unwrap(), BTreeMap::from([(State::Queued, 1)]));
    assert_eq!(bench.store.counts().await.unwrap(), BTreeMap::from([((pipeline("a"), State::Queued), 1)]));
}

pub async fn pruning_keeps_to_its_limit(bench: &Bench) {
    let entry = AuditEntry {
        at: bench.now(),
        actor: "local".to_owned(),
        action: "flag.set".to_owned(),
        subject: "PAUSE".to_owned(),
        reason: None,
        detail: serde_json::Value::Null,
    };
    for _ in 0..5 {
        bench.queued("a").await;
        bench.finish(bench.store.local_node(), "a").await;
        bench.store.apply(Vec::new(), Some(entry.clone())).await.unwrap();
    }
    let mut all = Pruned::default();
    for round in 0.. {
        let pruned = bench.store.prune(everything(bench), 2).await.unwrap();
        assert!(pruned.jobs <= 2 && pruned.prompts <= 2 && pruned.attempts <= 2 && pruned.audit <= 2, "{pruned:?}");
        if pruned == Pruned::default() {
            break;
        }
        all.jobs += pruned.jobs;
        all.attempts += pruned.attempts;
        all.audit += pruned.audit;
        assert!(round < 20);
    }
    assert_eq!((all.jobs, all.attempts, all.audit), (5, 5, 5));
}
