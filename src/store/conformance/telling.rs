//! Notices of ends: one for each job that asked for it, whoever ended it, and none before.

use super::{Bench, secs};
use crate::{
    ids::{JobId, NodeId},
    job::{Outcome, State},
    store::{DocumentKind, Due, JobError, NewJob, Next, Notice},
};

const URL: &str = "https://hooks.example.com/in?token=1";

async fn asking(bench: &Bench, name: &str) -> JobId {
    bench.add(NewJob { callback: Some(URL.to_owned()), ..bench.new_job(name) }).await
}

/// The notices that the store has, in the order in which they are due.
async fn notices(bench: &Bench) -> Vec<(Due, Notice)> {
    let kept = bench.store.documents(DocumentKind::Callback).await.unwrap();
    let line = bench.store.documents(DocumentKind::CallbackDue).await.unwrap();
    assert_eq!(kept.len(), line.len());
    line.iter()
        .map(|(key, value)| {
            let due = Due::read(key, value).expect("a place in the line");
            let notice = serde_json::from_value(kept[&due.id].clone()).expect("its notice");
            (due, notice)
        })
        .collect()
}

pub async fn every_end_has_its_notice(bench: &Bench) {
    let node = bench.store.local_node();
    let error = JobError {
        reason_code: "refused".to_owned(),
        message: "no".to_owned(),
        kind: "invalid_request_error".to_owned(),
        code: None,
        param: None,
    };
    let mut expected = Vec::new();
    for (next, state) in [
        (Next::Succeed("{}".to_owned()), State::Succeeded),
        (Next::Fail(error), State::Failed),
        (Next::Expire, State::Expired),
    ] {
        let id = asking(bench, "a").await;
        let claimed = bench.claim_one(node, "a").await;
        let attempt = bench.open(claimed.id, claimed.fence, 1).await;
        assert!(notices(bench).await.len() == expected.len(), "a job that runs has nothing to tell");
        let end = bench.ended(attempt, Outcome::Succeeded);
        bench.settle(claimed.id, claimed.fence, Some(end.clone()), next.clone()).await;
        // A settlement that comes twice tells nothing twice.
        bench.settle(claimed.id, claimed.fence, Some(end), next).await;
        expected.push((id, state, bench.now()));
        bench.clock.advance(secs(1));
    }
    let cancelled = asking(bench, "a").await;
    bench.store.cancel(vec![cancelled]).await.unwrap();
    bench.store.cancel(vec![cancelled]).await.unwrap();
    expected.push((cancelled, State::Cancelled, bench.now()));
    bench.clock.advance(secs(1));
    let late = asking(bench, "a").await;
    let moment = [(super::pipeline("a"), bench.now() + secs(7_200))].into();
    assert_eq!(bench.store.expire(moment, 9).await.unwrap(), [late]);
    expected.push((late, State::Expired, bench.now()));

    let found = notices(bench).await;
    assert_eq!(found.len(), expected.len());
    for ((due, notice), (id, state, at)) in found.into_iter().zip(expected) {
        assert_eq!((due.id.as_str(), due.at, due.since), (Notice::id_of_job(id).as_str(), at, at));
        assert_eq!(due.to, "https://hooks.example.com");
        assert_eq!((notice.url.as_str(), notice.kind.as_str()), (URL, format!("job.{state}").as_str()));
        assert_eq!((notice.job, notice.tries, notice.body), (Some(id), 0, None));
        assert_eq!(notice.data["state"], state.to_string().as_str());
        assert_eq!(bench.record(id).await.callback.as_deref(), Some(URL));
    }
}

pub async fn who_asked_for_none_gets_none(bench: &Bench) {
    let id = bench.queued("a").await;
    bench.finish(bench.store.local_node(), "a").await;
    assert_eq!(bench.record(id).await.callback, None);
    assert_eq!(notices(bench).await, []);
}

pub async fn a_quarantined_job_has_its_notice(bench: &Bench) {
    let node = NodeId::generate();
    let id = asking(bench, "a").await;
    for crash in 0..3 {
        bench.store.register(node).await.unwrap();
        assert_eq!(notices(bench).await, [], "after {crash} crashes");
        let claimed = bench.claim_request(node, &[("a", 1)], 1, crash == 2).await.remove(0);
        bench.open(id, claimed.fence, crash + 1).await;
    }
    assert_eq!(bench.store.register(node).await.unwrap().quarantined, [id]);
    let found = notices(bench).await;
    assert_eq!((found.len(), found[0].1.kind.as_str()), (1, "job.failed"));
}

pub async fn a_notice_outlives_its_job(bench: &Bench) {
    let id = asking(bench, "a").await;
    bench.store.cancel(vec![id]).await.unwrap();
    bench.clock.advance(secs(10));
    let never = crate::clock::Timestamp::from_micros(0);
    let cut = crate::store::PruneCut {
        prompts: [].into(),
        results: [].into(),
        default_prompts: bench.now(),
        default_results: bench.now(),
        ledger: never,
        audit: never,
    };
    assert_eq!(bench.store.prune(cut, 9).await.unwrap().jobs, 1);
    let found = notices(bench).await;
    assert_eq!((found.len(), &found[0].1.data["id"]), (1, &serde_json::json!(id)));
}
