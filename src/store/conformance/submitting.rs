//! What goes in is kept, once.

use std::collections::BTreeMap;

use super::{Bench, secs};
use crate::{
    ids::JobId,
    job::{Outcome, State},
    store::{Fence, NewJob, Next, Settled, Submitted},
};

pub async fn a_job_is_kept_as_given(bench: &Bench) {
    let job = NewJob {
        caller: "key-1".to_owned(),
        idempotency_key: Some("order-7".to_owned()),
        batch: Some("monday".to_owned()),
        priority: 3,
        metadata: BTreeMap::from([("region".to_owned(), "eu".to_owned()), ("empty".to_owned(), String::new())]),
        retry_of: Some(JobId::generate()),
        callback: Some("https://hooks.example.com/in".to_owned()),
        ..bench.new_job("a")
    };
    bench.add(job.clone()).await;
    let record = bench.record(job.id).await;
    assert_eq!(record.metadata, job.metadata);
    assert_eq!(record.body.as_deref(), Some(job.body.as_str()));
    assert_eq!(record.callback, job.callback);
    assert_eq!((record.result, record.error, record.assignment), (None, None, None));
    assert!(record.attempts.is_empty() && record.fidelity.is_empty());
    let summary = record.summary;
    assert_eq!((summary.id, &summary.pipeline, summary.state), (job.id, &job.pipeline, State::Queued));
    assert_eq!((summary.created_at, summary.deadline), (job.created_at, job.deadline));
    assert_eq!((summary.priority, summary.batch, summary.retry_of), (3, job.batch, job.retry_of));
    assert_eq!((summary.idempotency_key, summary.finished_at, summary.until), (job.idempotency_key, None, None));
    assert_eq!((summary.attempts, summary.generation, summary.target), (0, 0, None));
    assert_eq!(bench.store.job_by_key(&job.pipeline, "key-1", "order-7").await.unwrap(), Some(job.id));
}

pub async fn any_text_is_kept(bench: &Bench) {
    for text in ["", "\0", "a\0b", "'; DROP TABLE jobs; --", "ünï\u{1F600}\u{202E}", &"x".repeat(1_500_000)] {
        let job = NewJob {
            body: text.to_owned(),
            caller: text.to_owned(),
            idempotency_key: Some(text.to_owned()),
            batch: Some(text.chars().take(100).collect()),
            metadata: BTreeMap::from([(text.to_owned(), text.to_owned())]),
            ..bench.new_job("a")
        };
        bench.add(job.clone()).await;
        let record = bench.record(job.id).await;
        assert_eq!(record.body.as_deref(), Some(text));
        assert_eq!(record.metadata, job.metadata);
        assert_eq!(record.summary.idempotency_key.as_deref(), Some(text));
        assert_eq!(record.summary.batch, job.batch);
    }
}

pub async fn a_repeated_key_is_the_same_job(bench: &Bench) {
    let first = NewJob { idempotency_key: Some("k".to_owned()), ..bench.new_job("a") };
    let again = NewJob { id: JobId::generate(), ..first.clone() };
    let other = NewJob { id: JobId::generate(), digest: [2; 32], ..first.clone() };
    let answers = bench.store.submit(vec![first.clone(), again.clone(), other.clone()]).await.unwrap();
    let expected =
        [Submitted::New(State::Queued), Submitted::Existing(first.id, State::Queued), Submitted::Conflict(first.id)];
    assert_eq!(answers, expected);
    bench.finish(bench.store.local_node(), "a").await;
    let answers = bench.store.submit(vec![again, other]).await.unwrap();
    assert_eq!(answers, [Submitted::Existing(first.id, State::Succeeded), Submitted::Conflict(first.id)]);
    assert_eq!(bench.store.counts().await.unwrap().values().sum::<u64>(), 1);
}

pub async fn keys_are_unique_for_pipeline_and_caller(bench: &Bench) {
    let key = Some("k".to_owned());
    for (name, caller) in [("a", ""), ("b", ""), ("a", "key-1"), ("b", "key-1")] {
        let job = NewJob { idempotency_key: key.clone(), caller: caller.to_owned(), ..bench.new_job(name) };
        let id = bench.add(job.clone()).await;
        assert_eq!(bench.store.job_by_key(&job.pipeline, caller, "k").await.unwrap(), Some(id));
    }
}

pub async fn the_same_id_is_the_same_job(bench: &Bench) {
    let job = bench.new_job("a");
    let answers = bench.store.submit(vec![job.clone(), job.clone()]).await.unwrap();
    assert_eq!(answers, [Submitted::New(State::Queued), Submitted::Existing(job.id, State::Queued)]);
    assert_eq!(bench.claim(bench.store.local_node(), "a", 9).await.len(), 1);
}

pub async fn jobs_wait_for_their_time(bench: &Bench) {
    let later = bench.now() + secs(60);
    let waiting = NewJob { not_before: Some(later), ..bench.new_job("a") };
    let ready = NewJob { not_before: Some(bench.now()), ..bench.new_job("a") };
    let answers = bench.store.submit(vec![waiting.clone(), ready]).await.unwrap();
    assert_eq!(answers, [Submitted::New(State::Waiting), Submitted::New(State::Queued)]);
    assert_eq!(bench.record(waiting.id).await.summary.until, Some(later));
}

pub async fn many_jobs_are_answered_in_order(bench: &Bench) {
    assert_eq!(bench.store.submit(Vec::new()).await.unwrap(), []);
    let mut jobs: Vec<NewJob> = (0..2_500).map(|_| bench.new_job("a")).collect();
    for (place, job) in jobs.iter_mut().enumerate() {
        job.idempotency_key = Some(format!("k{}", place % 1_250));
    }
    let answers = bench.store.submit(jobs.clone()).await.unwrap();
    assert_eq!(answers.len(), jobs.len());
    for (place, answer) in answers.iter().enumerate() {
        let expected = match place.checked_sub(1_250) {
            Some(first) => Submitted::Existing(jobs[first].id, State::Queued),
            None => Submitted::New(State::Queued),
        };
        assert_eq!(*answer, expected, "{place}");
    }
}

pub async fn a_running_job_is_there_with_its_first_attempt(bench: &Bench) {
    let node = bench.store.local_node();
    let job = NewJob { caller: "key-1".to_owned(), ..bench.new_job("a") };
    let intent = bench.intent(job.id, Fence::FIRST, 1);
    bench.store.submit_running(job.clone(), node, intent.clone()).await.unwrap();
    let record = bench.record(job.id).await;
    assert_eq!((record.summary.state, record.summary.caller.as_str()), (State::Running, "key-1"));
    assert_eq!((record.attempts.len(), record.attempts[0].id), (1, intent.attempt));
    assert!(bench.claim(node, "a", 9).await.is_empty());
    // A second intent and the settlement go by the same fence.
    let second = bench.open(job.id, Fence::FIRST, 2).await;
    let end = bench.ended(second, Outcome::Succeeded);
    let next = Next::Succeed("{}".to_owned());
    assert_eq!(bench.settle(job.id, Fence::FIRST, Some(end), next).await, Settled::Applied);
    assert_eq!(bench.state(job.id).await, State::Succeeded);
    assert_eq!(bench.store.counts().await.unwrap().get(&(job.pipeline, State::Succeeded)), Some(&1));
}
