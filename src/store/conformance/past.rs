//! Reading back what happened.

use std::collections::{BTreeMap, BTreeSet};

use super::{Bench, pipeline, secs};
use crate::{
    ids::JobId,
    job::{Fault, Outcome, State},
    store::{
        AttemptEnd, Intent, JobError, LedgerQuery, LedgerRow, NewJob, Next, PruneCut, RecordedJob, RecordedQuery,
        TrafficKey,
    },
    usage::Usage,
};

async fn all_recorded(bench: &Bench, mut query: RecordedQuery) -> Vec<RecordedJob> {
    let mut found = Vec::new();
    for _ in 0..1_000 {
        let page = bench.store.recorded(query.clone()).await.unwrap();
        assert!(page.jobs.len() <= query.limit as usize);
        found.extend(page.jobs);
        let Some(next) = page.next else { return found };
        query.after = Some(next);
    }
    panic!("recorded jobs without an end");
}

fn prune_prompts(bench: &Bench) -> PruneCut {
    let never = bench.now() - secs(86_400);
    PruneCut {
        prompts: BTreeMap::from([(pipeline("a"), bench.now() + secs(1))]),
        results: BTreeMap::new(),
        default_prompts: never,
        default_results: never,
        ledger: never,
        audit: never,
    }
}

pub async fn recorded_jobs_come_in_pages(bench: &Bench) {
    let node = bench.store.local_node();
    let mut ids: Vec<JobId> = Vec::new();
    for n in 0..7 {
        if n == 4 {
            bench.clock.advance(secs(3_600));
        }
        let metadata = BTreeMap::from([("n".to_owned(), n.to_string())]);
        let job = NewJob { metadata, priority: n, ..bench.new_job(if n % 2 == 0 { "a" } else { "b" }) };
        ids.push(bench.add(job).await);
    }
    let newest_first: Vec<JobId> = ids.iter().rev().copied().collect();
    let base = RecordedQuery { limit: 3, ..RecordedQuery::default() };
    let found = all_recorded(bench, base.clone()).await;
    assert_eq!(found.iter().map(|job| job.id).collect::<Vec<_>>(), newest_first);
    assert!(found.iter().all(|job| job.body.is_none() && !job.blanked), "bodies come only where asked for");
    assert_eq!((found[0].priority, found[0].metadata["n"].as_str()), (6, "6"));

    let bodies = BTreeSet::from([pipeline("a")]);
    for job in all_recorded(bench, RecordedQuery { bodies: bodies.clone(), ..base.clone() }).await {
        assert_eq!(job.body.is_some(), job.pipeline == pipeline("a"));
    }
    let only = RecordedQuery { within: vec![pipeline("b"), pipeline("z")], ..base.clone() };
    let only: Vec<JobId> = all_recorded(bench, only).await.iter().map(|job| job.id).collect();
    assert_eq!(only, [ids[5], ids[3], ids[1]]);
    let none = RecordedQuery { within: vec![pipeline("z")], ..base.clone() };
    assert!(all_recorded(bench, none).await.is_empty());
    let late = RecordedQuery { since: Some(bench.now() - secs(60)), ..base.clone() };
    assert_eq!(all_recorded(bench, late).await.len(), 3);
    assert_eq!(bench.store.recorded(RecordedQuery { limit: 1, ..base.clone() }).await.unwrap().jobs.len(), 1);

    bench.finish(node, "a").await;
    bench.store.prune(prune_prompts(bench), 100).await.unwrap();
    let blanked: Vec<RecordedJob> =
        all_recorded(bench, RecordedQuery { bodies, ..base }).await.into_iter().filter(|job| job.blanked).collect();
    assert_eq!(blanked.len(), 1, "a prompt whose time is over is told to be gone");
    assert_eq!((blanked[0].body.as_ref(), blanked[0].metadata.len()), (None, 1));
}

async fn all_rows(bench: &Bench, mut query: LedgerQuery) -> Vec<(TrafficKey, LedgerRow)> {
    let mut found = Vec::new();
    for _ in 0..1_000 {
        let page = bench.store.ledger(query).await.unwrap();
        assert!(page.rows.len() <= query.limit as usize);
        found.extend(page.rows.into_iter().map(|row| (page.places[row.place].clone(), row)));
        let Some(next) = page.next else { return found };
        query.after = Some(next);
    }
    panic!("a ledger without an end");
}

pub async fn the_ledger_tells_of_every_ended_call(bench: &Bench) {
    let node = bench.store.local_node();
    let start = bench.now();
    let usage = Usage { input: 100, output: 20, cache_read: 3, cache_write: 1, reasoning: 5 };
    let job = bench.queued("a").await;
    let claimed = bench.claim_one(node, "a").await;
    let first = bench.open(job, claimed.fence, 1).await;
    bench.clock.advance(secs(2));
    let end =
        AttemptEnd { fault: Some(Fault::Unavailable), possibly_billed: true, ..bench.ended(first, Outcome::Failed) };
    bench.settle(job, claimed.fence, Some(end), Next::Keep).await;
    let intent = Intent {
        target: "bedrock".parse().unwrap(),
        provider: "bedrock".parse().unwrap(),
        prompt_estimate: None,
        ..bench.intent(job, claimed.fence, 2)
    };
    let second = intent.attempt;
    assert_eq!(bench.store.begin(vec![intent]).await.unwrap(), [true]);
    bench.clock.advance(secs(3));
    let end = AttemptEnd {
        usage: Some(usage),
        cost: Some("0.0125".parse().unwrap()),
        first_token: Some(std::time::Duration::from_millis(250)),
        ..bench.ended(second, Outcome::Succeeded)
    };
    bench.settle(job, claimed.fence, Some(end), Next::Succeed("{}".to_owned())).await;
    // A call that is still open is no ended one.
    bench.queued("a").await;
    let open = bench.claim_one(node, "a").await;
    bench.open(open.id, open.fence, 1).await;

    let query = LedgerQuery { since: start, after: None, limit: 1 };
    let rows = all_rows(bench, query).await;
    assert_eq!(rows.len(), 2);
    let (key, row) = &rows[0];
    assert_eq!((key.target.as_str(), row.outcome, row.fault), ("openai", Outcome::Failed, Some(Fault::Unavailable)));
    assert_eq!((row.took, row.prompt_estimate, row.usage, row.cost), (secs(2), Some(120), None, None));
    assert_eq!((row.possibly_billed, row.possible_cost), (true, Some("0.05".parse().unwrap())));
    assert!(!row.rescued);
    let (key, row) = &rows[1];
    assert_eq!((key.target.as_str(), key.provider.as_str(), key.pipeline.as_str()), ("bedrock", "bedrock", "a"));
    assert_eq!((row.took, row.prompt_estimate, row.usage), (secs(3), None, Some(usage)));
    assert_eq!((row.cost, row.possible_cost), (Some("0.0125".parse().unwrap()), None));
    assert_eq!(row.first_token, Some(std::time::Duration::from_millis(250)));
    assert!(row.rescued, "another target answered after the first had failed");
    assert_eq!(all_rows(bench, LedgerQuery { since: bench.now() - secs(1), ..query }).await.len(), 1);
    assert!(all_rows(bench, LedgerQuery { since: bench.now() + secs(1), ..query }).await.is_empty());
}

pub async fn the_ledger_comes_in_pages(bench: &Bench) {
    let node = bench.store.local_node();
    let start = bench.now();
    for n in 0..23_u64 {
        let name = if n % 3 == 0 { "a" } else { "b" };
        bench.queued(name).await;
        let claimed = bench.claim_one(node, name).await;
        let attempt = bench.open(claimed.id, claimed.fence, 1).await;
        // Many calls end in the same moment.
        let end = AttemptEnd { ended_at: start + secs(10 + n / 10), ..bench.ended(attempt, Outcome::Succeeded) };
        bench.settle(claimed.id, claimed.fence, Some(end), Next::Succeed("{}".to_owned())).await;
    }
    for limit in [1, 4, 10, 23, 24] {
        let rows = all_rows(bench, LedgerQuery { since: start, after: None, limit }).await;
        assert_eq!(rows.len(), 23, "in pages of {limit}");
        assert!(rows.is_sorted_by_key(|(_, row)| row.ended_at));
        assert_eq!(rows.iter().filter(|(key, _)| key.pipeline == pipeline("a")).count(), 8);
    }
    assert_eq!(all_rows(bench, LedgerQuery { since: start + secs(11), after: None, limit: 5 }).await.len(), 13);
}

pub async fn ends_are_counted(bench: &Bench) {
    let node = bench.store.local_node();
    let start = bench.now();
    for _ in 0..3 {
        bench.queued("a").await;
        bench.finish(node, "a").await;
    }
    let cancelled = bench.queued("b").await;
    bench.store.cancel(vec![cancelled]).await.unwrap();
    bench.queued("b").await;
    let claimed = bench.claim_one(node, "b").await;
    let error = JobError {
        reason_code: "refused".to_owned(),
        message: "no".to_owned(),
        kind: "x".to_owned(),
        code: None,
        param: None,
    };
    bench.settle(claimed.id, claimed.fence, None, Next::Fail(error)).await;
    bench.queued("b").await;
    // Blanked jobs count as well.
    bench.store.prune(prune_prompts(bench), 2).await.unwrap();
    let ends = bench.store.ends(start).await.unwrap();
    let expected = BTreeMap::from([
        ((pipeline("a"), State::Succeeded), 3),
        ((pipeline("b"), State::Cancelled), 1),
        ((pipeline("b"), State::Failed), 1),
    ]);
    assert_eq!(ends, expected);
    assert!(bench.store.ends(bench.now() + secs(1)).await.unwrap().is_empty());
}
