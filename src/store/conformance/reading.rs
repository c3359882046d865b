//! What can be asked.

use std::collections::BTreeMap;

use super::{Bench, pipeline, secs};
use crate::{
    ids::JobId,
    job::{Outcome, State},
    store::{
        AttemptEnd, AuditEntry, DocumentChange, DocumentKind, DocumentPage, JobQuery, NewJob, Next, Traffic, TrafficKey,
    },
    usage::Usage,
};

pub async fn unknown_things_are_none(bench: &Bench) {
    assert_eq!(bench.store.job(JobId::generate()).await.unwrap(), None);
    assert_eq!(bench.store.job_by_key(&pipeline("a"), "", "k").await.unwrap(), None);
    assert!(bench.store.batch_counts("none").await.unwrap().is_empty());
    assert!(bench.store.counts().await.unwrap().is_empty());
    assert!(bench.store.oldest_queued().await.unwrap().is_empty());
    assert!(bench.store.documents(DocumentKind::Flag).await.unwrap().is_empty());
    let query = JobQuery { batch: Some("none".to_owned()), pipeline: Some(pipeline("z")), ..JobQuery::default() };
    assert!(bench.store.list(query).await.unwrap().jobs.is_empty());
    assert_eq!(bench.store.now().await.unwrap(), bench.now());
}

/// Reads all pages.
async fn all(bench: &Bench, query: JobQuery) -> Vec<JobId> {
    let mut query = query;
    let mut found = Vec::new();
    for _ in 0..100 {
        let page = bench.store.list(query.clone()).await.unwrap();
        assert!(page.jobs.len() <= query.limit as usize);
        found.extend(page.jobs.into_iter().map(|job| job.id));
        let Some(next) = page.next else { return found };
        query.after = Some(next);
    }
    panic!("a list without an end: {query:?}");
}

pub async fn lists_filter_and_page(bench: &Bench) {
    let mut jobs = Vec::new();
    for n in 0..12_u32 {
        let job = NewJob {
            idempotency_key: Some(format!("k{}", n % 6)),
            caller: format!("key-{}", n / 6),
            batch: (n % 2 == 0).then(|| "even".to_owned()),
            metadata: BTreeMap::from([("n".to_owned(), (n % 3).to_string())]),
            ..bench.new_job(if n % 4 == 0 { "a" } else { "b" })
        };
        jobs.push(bench.add(job).await);
    }
    bench.store.cancel(vec![jobs[3], jobs[4]]).await.unwrap();
    let base = || JobQuery { limit: 5, ..JobQuery::default() };
    let pick = |which: &[usize]| which.iter().map(|place| jobs[*place]).collect::<Vec<_>>();
    for (query, expected) in [
        (base(), pick(&[11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0])),
        (JobQuery { pipeline: Some(pipeline("a")), ..base() }, pick(&[8, 4, 0])),
        (JobQuery { states: vec![State::Cancelled], ..base() }, pick(&[4, 3])),
        (
            JobQuery { states: vec![State::Cancelled, State::Queued], limit: 1, ..base() },
            pick(&[11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0]),
        ),
        (JobQuery { batch: Some("even".to_owned()), limit: 2, ..base() }, pick(&[10, 8, 6, 4, 2, 0])),
        (JobQuery { batch: Some("even".to_owned()), states: vec![State::Cancelled], ..base() }, pick(&[4])),
        (JobQuery { idempotency_key: Some("k2".to_owned()), ..base() }, pick(&[8, 2])),
        (JobQuery { idempotency_key: Some("k2".to_owned()), pipeline: Some(pipeline("a")), ..base() }, pick(&[8])),
        (JobQuery { metadata: BTreeMap::from([("n".to_owned(), "1".to_owned())]), ..base() }, pick(&[10, 7, 4, 1])),
        (JobQuery { metadata: BTreeMap::from([("m".to_owned(), "1".to_owned())]), ..base() }, vec![]),
        (JobQuery { after: Some(jobs[2]), ..base() }, pick(&[1, 0])),
    ] {
        assert_eq!(all(bench, query.clone()).await, expected, "{query:?}");
    }
    let exact = bench.store.list(JobQuery { limit: 12, ..base() }).await.unwrap();
    assert_eq!((exact.jobs.len(), exact.next), (12, None), "no cursor at the end");
}

pub async fn long_filters_hand_out_cursors(bench: &Bench) {
    let first = NewJob { metadata: BTreeMap::from([("n".to_owned(), "1".to_owned())]), ..bench.new_job("a") };
    bench.add(first.clone()).await;
    let many: Vec<NewJob> = (0..10_500).map(|_| bench.new_job("a")).collect();
    bench.store.submit(many).await.unwrap();
    let query = JobQuery { metadata: first.metadata.clone(), limit: 5, ..JobQuery::default() };
    let page = bench.store.list(query.clone()).await.unwrap();
    assert!(page.jobs.is_empty() && page.next.is_some(), "a page looks at a bounded number of rows");
    assert_eq!(all(bench, query).await, [first.id]);
    let huge = JobQuery { limit: u32::MAX, ..JobQuery::default() };
    assert_eq!(bench.store.list(huge).await.unwrap().jobs.len(), 1_000);
}

pub async fn counts_follow_every_step(bench: &Bench) {
    let node = bench.store.local_node();
    let batch = Some("monday".to_owned());
    for _ in 0..3 {
        bench.add(NewJob { batch: batch.clone(), ..bench.new_job("a") }).await;
    }
    bench.queued("b").await;
    let claimed = bench.claim_one(node, "a").await;
    bench.settle(claimed.id, claimed.fence, None, Next::Wait(bench.now())).await;
    bench.claim_one(node, "a").await;
    let a = |state| (pipeline("a"), state);
    let counts = bench.store.counts().await.unwrap();
    let expected =
        [(a(State::Queued), 1), (a(State::Waiting), 1), (a(State::Running), 1), ((pipeline("b"), State::Queued), 1)];
    assert_eq!(counts, BTreeMap::from(expected));
    let batch = bench.store.batch_counts("monday").await.unwrap();
    assert_eq!(batch, BTreeMap::from([(State::Queued, 1), (State::Waiting, 1), (State::Running, 1)]));
}

pub async fn the_oldest_ready_job_is_known(bench: &Bench) {
    let node = bench.store.local_node();
    let oldest = bench.now() + std::time::Duration::from_millis(1);
    bench.queued("a").await;
    let second = bench.now() + std::time::Duration::from_millis(1);
    bench.queued("a").await;
    bench.add(NewJob { not_before: Some(bench.now() + secs(60)), ..bench.new_job("b") }).await;
    assert_eq!(bench.store.oldest_queued().await.unwrap(), BTreeMap::from([(pipeline("a"), oldest)]));
    bench.claim_one(node, "a").await;
    assert_eq!(bench.store.oldest_queued().await.unwrap(), BTreeMap::from([(pipeline("a"), second)]));
    bench.claim_one(node, "a").await;
    assert!(bench.store.oldest_queued().await.unwrap().is_empty());
}

pub async fn spending_is_exact(bench: &Bench) {
    let node = bench.store.local_node();
    let start = bench.now();
    // Ends at 0, 25, 50, 75, 100, 125 minutes after a full hour.
    for (n, cost) in ["0.1", "0.2", "0.0000001", "1000000", "0.3", "0.7"].into_iter().enumerate() {
        bench.queued(if n == 5 { "b" } else { "a" }).await;
        let claimed = bench.claim_one(node, if n == 5 { "b" } else { "a" }).await;
        let attempt = bench.open(claimed.id, claimed.fence, 1).await;
        let end = crate::store::AttemptEnd {
            cost: Some(cost.parse().unwrap()),
            ended_at: start + secs(60 * 25 * n as u64),
            ..bench.ended(attempt, Outcome::Succeeded)
        };
        bench.settle(claimed.id, claimed.fence, Some(end), Next::Succeed("{}".to_owned())).await;
    }
    for (minutes, a, b) in [
        (0, Some("1000000.6000001"), Some("0.7")),
        (1, Some("1000000.5000001"), Some("0.7")),
        (25, Some("1000000.5000001"), Some("0.7")),
        (26, Some("1000000.3000001"), Some("0.7")),
        (60, Some("1000000.3"), Some("0.7")),
        (76, Some("0.3"), Some("0.7")),
        (110, None, Some("0.7")),
        (126, None, None),
        (600, None, None),
    ] {
        let spent = bench.store.spending(start + secs(60 * minutes)).await.unwrap();
        let of = |name| spent.get(&pipeline(name)).map(|usd| usd.0.normalize().to_string());
        assert_eq!((of("a").as_deref(), of("b").as_deref()), (a, b), "{minutes} minutes");
    }
}

pub async fn documents_and_audit_are_one_change(bench: &Bench) {
    let change = |key: &str, value: Option<serde_json::Value>| DocumentChange {
        kind: DocumentKind::Flag,
        key: key.to_owned(),
        value,
    };
    let entry = |subject: &str| AuditEntry {
        at: bench.now(),
        actor: "local".to_owned(),
        action: "flag.set".to_owned(),
        subject: subject.to_owned(),
        reason: Some("because".to_owned()),
        detail: serde_json::json!({ "n": 1 }),
    };
    let start = bench.now();
    let changes =
        vec![change("a", Some(serde_json::json!({"b": [1, null]}))), change("b", Some(serde_json::Value::Null))];
    bench.store.apply(changes, Some(entry("first"))).await.unwrap();
    bench.clock.advance(secs(1));
    let changes = vec![change("a", Some(serde_json::json!(2))), change("b", None), change("c", None)];
    bench.store.apply(changes, Some(entry("second"))).await.unwrap();
    let other = DocumentChange { kind: DocumentKind::Counter, ..change("a", Some(serde_json::json!("x"))) };
    bench.store.apply(vec![other], None).await.unwrap();
    let flags = bench.store.documents(DocumentKind::Flag).await.unwrap();
    assert_eq!(flags, BTreeMap::from([("a".to_owned(), serde_json::json!(2))]));
    assert_eq!(bench.store.documents(DocumentKind::Counter).await.unwrap().len(), 1);
    let subjects = |entries: Vec<AuditEntry>| entries.into_iter().map(|entry| entry.subject).collect::<Vec<_>>();
    assert_eq!(subjects(bench.store.audit(start, 9).await.unwrap()), ["first", "second"]);
    assert_eq!(subjects(bench.store.audit(start, 1).await.unwrap()), ["first"]);
    let late = bench.store.audit(start + secs(1), 9).await.unwrap();
    assert_eq!(late, [entry("second")]);
}

pub async fn traffic_is_summed_apart_from_what_was_not_seen(bench: &Bench) {
    let node = bench.store.local_node();
    let start = bench.now();
    let usage = Usage { input: 100, output: 10, cache_read: 5, cache_write: 1, reasoning: 4 };
    let cost = Some("0.25".parse().unwrap());
    for (hours, outcome, usage, cost, possibly_billed) in [
        (0, Outcome::Succeeded, Some(usage), cost, false),
        (0, Outcome::Succeeded, Some(usage), None, false),
        (1, Outcome::Failed, None, None, false),
        (1, Outcome::Unknown, None, None, true),
        (2, Outcome::Succeeded, Some(usage), cost, false),
    ] {
        bench.queued("a").await;
        let claimed = bench.claim_one(node, "a").await;
        let attempt = bench.open(claimed.id, claimed.fence, 1).await;
        let ended_at = start + secs(3_600 * hours);
        let end = crate::store::AttemptEnd { ended_at, usage, cost, possibly_billed, ..bench.ended(attempt, outcome) };
        let settled = bench.settle(claimed.id, claimed.fence, Some(end.clone()), Next::Succeed("{}".to_owned())).await;
        assert_eq!(settled, crate::store::Settled::Applied);
        // A second report of the same end is no second call.
        bench.settle(claimed.id, claimed.fence, Some(end), Next::Queue).await;
    }
    let all = bench.store.traffic(start).await.unwrap();
    let key = TrafficKey {
        pipeline: pipeline("a"),
        target: "openai".parse().unwrap(),
        provider: "openai".parse().unwrap(),
        model: "gpt-5.4-mini".to_owned(),
    };
    let expected = Traffic {
        attempts: 5,
        answered: 3,
        possibly_billed: 1,
        usage: Usage { input: 300, output: 30, cache_read: 15, cache_write: 3, reasoning: 12 },
        cost: "0.50".parse().unwrap(),
        unpriced: 1,
        possible_cost: "0.05".parse().unwrap(),
        unbounded: 0,
    };
    assert_eq!(all, BTreeMap::from([(key.clone(), expected)]));
    let later = bench.store.traffic(start + secs(3_600)).await.unwrap();
    assert_eq!((later[&key].attempts, later[&key].answered), (3, 1));
    assert!(bench.store.traffic(start + secs(3 * 3_600)).await.unwrap().is_empty());
}

pub async fn spending_is_known_by_caller(bench: &Bench) {
    let node = bench.store.local_node();
    for (caller, cost) in [("", "1"), ("key-1", "0.25"), ("key-1", "0.5"), ("key-2", "2")] {
        bench.add(NewJob { caller: caller.to_owned(), ..bench.new_job("a") }).await;
        let claimed = bench.claim_one(node, "a").await;
        assert_eq!(claimed.caller, caller);
        let attempt = bench.open(claimed.id, claimed.fence, 1).await;
        let end = AttemptEnd { cost: Some(cost.parse().unwrap()), ..bench.ended(attempt, Outcome::Succeeded) };
        bench.settle(claimed.id, claimed.fence, Some(end), Next::Succeed("{}".to_owned())).await;
    }
    let spent = bench.store.spending_by_caller(bench.now() - secs(60)).await.unwrap();
    let spent: Vec<(String, String)> =
        spent.into_iter().map(|(caller, usd)| (caller, usd.0.normalize().to_string())).collect();
    assert_eq!(spent, [("key-1".to_owned(), "0.75".to_owned()), ("key-2".to_owned(), "2".to_owned())]);
    assert!(bench.store.spending_by_caller(bench.now() + secs(1)).await.unwrap().is_empty());
}

pub async fn outcomes_come_in_order(bench: &Bench) {
    let node = bench.store.local_node();
    let done = bench.queued("a").await;
    let claimed = bench.claim_one(node, "a").await;
    for n in 1..=2 {
        let attempt = bench.open(done, claimed.fence, n).await;
        let usage = Usage { input: 10, output: 5, ..Usage::default() };
        let end = AttemptEnd { usage: Some(usage), ..bench.ended(attempt, Outcome::Succeeded) };
        let next = if n == 1 { Next::Keep } else { Next::Succeed("{\"x\":1}".to_owned()) };
        bench.settle(done, claimed.fence, Some(end), next).await;
    }
    let queued = bench.queued("a").await;
    let outcomes = bench.store.outcomes(vec![queued, JobId::generate(), done]).await.unwrap();
    let queued = outcomes[0].clone().unwrap();
    assert_eq!(
        (queued.state, queued.result, queued.error, queued.usage),
        (State::Queued, None, None, Usage::default())
    );
    assert_eq!(outcomes[1], None);
    let done = outcomes[2].clone().unwrap();
    assert_eq!((done.state, done.result.as_deref()), (State::Succeeded, Some("{\"x\":1}")));
    assert_eq!((done.usage.input, done.usage.output), (20, 10));
}

pub async fn documents_come_in_pages(bench: &Bench) {
    let change = |key: &str| DocumentChange {
        kind: DocumentKind::File,
        key: key.to_owned(),
        value: Some(serde_json::json!({ "id": key })),
    };
    bench.store.apply(["a", "b", "c", "d"].map(change).to_vec(), None).await.unwrap();
    let document = bench.store.document(DocumentKind::File, "b").await.unwrap();
    assert_eq!(document, Some(serde_json::json!({ "id": "b" })));
    assert_eq!(bench.store.document(DocumentKind::Batch, "b").await.unwrap(), None);
    for (after, descending, limit, expected) in [
        (None, false, 2, "ab"),
        (Some("b"), false, 9, "cd"),
        (None, true, 3, "dcb"),
        (Some("b"), true, 9, "a"),
        (Some("bb"), true, 1, "b"),
        (Some("d"), false, 9, ""),
    ] {
        let page = DocumentPage { kind: DocumentKind::File, after: after.map(str::to_owned), descending, limit };
        let keys: String = bench.store.documents_page(page).await.unwrap().into_iter().map(|(key, _)| key).collect();
        assert_eq!(keys, expected, "{after:?} {descending}");
    }
}
