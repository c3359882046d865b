//! A move from one store to the other, cut off anywhere and held against what was there.

use std::collections::BTreeMap;

use super::*;
use crate::{
    ids::JobId,
    job::{HoldReason, Outcome, State},
    store::{
        AttemptEnd, AuditEntry, DocumentChange, DocumentKind, JobQuery, NewJob, Next, PruneCut, Submitted,
        conformance::{Bench, Server, TestClock, pipeline, secs},
    },
};

/// A file with jobs in every state, ledger rows, documents, entries; and one job that its daemon left running.
async fn filled(folder: &std::path::Path) -> (Bench, Vec<JobId>) {
    let bench = Bench::sqlite_at(&folder.join("queue.db"), TestClock::new());
    let node = bench.store.local_node();
    let mut jobs = Vec::new();
    for n in 0..1_300_u32 {
        let job = NewJob {
            idempotency_key: (n % 3 == 0).then(|| format!("k{n}\0")),
            caller: if n % 2 == 0 { "key-1".to_owned() } else { String::new() },
            batch: (n % 5 == 0).then(|| "monday".to_owned()),
            metadata: BTreeMap::from([("n".to_owned(), n.to_string())]),
            body: format!("body \0 {n}"),
            priority: i32::try_from(n % 3).unwrap(),
            not_before: (n % 7 == 0).then(|| bench.now() + secs(3_600)),
            retry_of: jobs.last().copied().filter(|_| n % 11 == 0),
            callback: (n % 6 == 0).then(|| "https://hooks.example.com/in".to_owned()),
            ..bench.new_job(if n % 4 == 0 { "a" } else { "b" })
        };
        jobs.push(bench.add(job).await);
    }
    for n in 0..60_u32 {
        let claimed = bench.claim_one(node, "a").await;
        let attempt = bench.open(claimed.id, claimed.fence, 1).await;
        let end = AttemptEnd {
            cost: Some("0.10".parse().unwrap()),
            message: Some("a\0b".to_owned()),
            ..bench.ended(attempt, Outcome::Failed)
        };
        let next = match n % 4 {
            0 => Next::Succeed(format!("result \0 {n}")),
            1 => Next::Hold(HoldReason::Budget),
            2 => Next::Expire,
            _ => Next::Queue,
        };
        bench.settle(claimed.id, claimed.fence, Some(end), next).await;
    }
    let cut = PruneCut {
        prompts: BTreeMap::from([(pipeline("a"), bench.now() + secs(1))]),
        results: BTreeMap::new(),
        default_prompts: bench.now() - secs(9),
        default_results: bench.now() - secs(99_999),
        ledger: bench.now() - secs(99_999),
        audit: bench.now() - secs(99_999),
    };
    bench.store.prune(cut, 5).await.unwrap();
    for n in 0..3_u32 {
        let change = DocumentChange { kind: DocumentKind::Flag, key: format!("all/{n}"), value: Some(n.into()) };
        let entry = AuditEntry {
            at: bench.now(),
            actor: "local".to_owned(),
            action: "flag.set".to_owned(),
            subject: format!("{n}"),
            reason: Some("because".to_owned()),
            detail: serde_json::json!({ "n": n }),
        };
        bench.store.apply(vec![change], Some(entry)).await.unwrap();
    }
    for (id, bytes) in [("file-1", vec![7; 3_000_000]), ("file-2", vec![])] {
        if !bytes.is_empty() {
            bench.store.write_content(id, 0, bytes.into()).await.unwrap();
        }
        bench.store.seal_content(id).await.unwrap();
    }
    bench.store.write_content("file-3", 0, bytes::Bytes::from_static(b"half")).await.unwrap();
    let left = bench.claim_one(node, "b").await;
    bench.open(left.id, left.fence, 1).await;
    (bench, jobs)
}

fn reopen(folder: &std::path::Path, bench: &Bench) -> SqliteStore {
    SqliteStore::open(&folder.join("queue.db"), bench.clock.clone()).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everything_moves_and_a_broken_move_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let (mut bench, jobs) = filled(folder.path()).await;
    bench.store = std::sync::Arc::new(crate::store::MemoryStore::new(bench.clock.clone()));
    let source = reopen(folder.path(), &bench);
    let server = Server::start();
    let database = server.database();
    let target = Bench::open_postgres(&server.url(&database), bench.clock.clone()).await;

    // Broken off in the middle: as if the process had been killed after a page.
    let name = source.local_node().to_string();
    source.register(source.local_node()).await.unwrap();
    source.deregister(source.local_node()).await.unwrap();
    target.start_move(&name, &source.fingerprint().await.unwrap()).await.unwrap();
    let (rows, after) = source.export(Part::Jobs, String::new(), PAGE).await.unwrap();
    let progress = Progress { after: after.unwrap(), sum: Sum::default().with(&rows) };
    target.import(&name, Part::Jobs, &rows, &progress).await.unwrap();

    let mut pages = Vec::new();
    let moved = migrate(&source, &target, |step, part, rows| pages.push((step, part.to_owned(), rows))).await.unwrap();
    assert_eq!(pages[0], (Step::Moving, "jobs".to_owned(), 1_000), "the first page was there");
    let rows: BTreeMap<&str, u64> = moved.iter().map(|moved| (moved.part.as_str(), moved.rows)).collect();
    assert_eq!((rows["jobs"], rows["attempts"], rows["documents"], rows["audit"]), (1_300, 61, 3, 3));
    assert_eq!(rows["contents"], 2);
    assert_eq!(target.contents().await.unwrap(), ["file-1", "file-2"]);
    let far = target.read_content("file-1", 2_999_999, 9).await.unwrap();
    assert_eq!(far, Some(bytes::Bytes::from_static(&[7])));
    for id in &jobs {
        assert_eq!(target.job(*id).await.unwrap().map(lossy), source.job(*id).await.unwrap().map(lossy), "{id}");
    }
    let since = crate::clock::Timestamp::from_micros(0);
    assert_eq!(target.counts().await.unwrap(), source.counts().await.unwrap());
    assert_eq!(target.batch_counts("monday").await.unwrap(), source.batch_counts("monday").await.unwrap());
    assert_eq!(target.spending(since).await.unwrap(), source.spending(since).await.unwrap());
    assert_eq!(target.traffic(since).await.unwrap(), source.traffic(since).await.unwrap());
    assert_eq!(target.oldest_queued().await.unwrap(), source.oldest_queued().await.unwrap());
    assert_eq!(target.audit(since, 99).await.unwrap(), source.audit(since, 99).await.unwrap());
    for kind in [DocumentKind::Flag, DocumentKind::Counter] {
        assert_eq!(target.documents(kind).await.unwrap(), source.documents(kind).await.unwrap());
    }
    let query = JobQuery { limit: 1_000, batch: Some("monday".to_owned()), ..JobQuery::default() };
    assert_eq!(target.list(query.clone()).await.unwrap(), source.list(query).await.unwrap());
    let again = migrate(&source, &target, |_, _, _| {}).await.unwrap();
    assert_eq!(again, moved, "once more changes nothing");

    // The queue goes on where it stood: the same order, the same keys.
    let known = NewJob {
        caller: "key-1".to_owned(),
        idempotency_key: Some("k0\0".to_owned()),
        digest: [1; 32],
        ..bench.new_job("a")
    };
    let answer = target.submit(vec![known]).await.unwrap();
    assert!(matches!(answer.as_slice(), [Submitted::Existing(id, _)] if *id == jobs[0]), "{answer:?}");
    let request = crate::store::ClaimRequest {
        node: target.local_node(),
        pipelines: vec![(pipeline("a"), 50), (pipeline("b"), 50)],
        max: 60,
        suspects: false,
    };
    let ids =
        |claimed: Vec<crate::store::Claimed>| claimed.into_iter().map(|job| (job.id, job.fence)).collect::<Vec<_>>();
    let theirs = ids(target.claim(request.clone()).await.unwrap());
    assert_eq!(theirs, ids(source.claim(request).await.unwrap()));

    let refused = migrate(&source, &target, |_, _, _| {}).await.unwrap_err();
    assert!(matches!(&refused, StoreError::Unusable(text) if text.contains("has worked on the source")), "{refused}");
    let other = tempfile::tempdir().unwrap();
    let other = SqliteStore::open(&other.path().join("other.db"), bench.clock.clone()).unwrap();
    let refused = migrate(&other, &target, |_, _, _| {}).await.unwrap_err();
    assert!(matches!(&refused, StoreError::Unusable(text) if text.contains("empty database")), "{refused}");
}

/// Texts for people lose their NULs on the way.
fn lossy(mut record: crate::store::JobRecord) -> crate::store::JobRecord {
    for attempt in &mut record.attempts {
        attempt.message = attempt.message.as_ref().map(|text| text.replace('\0', "\u{fffd}"));
    }
    assert_ne!(record.summary.state, State::Running);
    record
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_changed_on_the_way_is_noticed() {
    let folder = tempfile::tempdir().unwrap();
    let (mut bench, _) = filled(folder.path()).await;
    bench.store = std::sync::Arc::new(crate::store::MemoryStore::new(bench.clock.clone()));
    let source = reopen(folder.path(), &bench);
    let server = Server::start();
    for damage in [
        "UPDATE landbridge.contents SET body = 'x' WHERE id = (SELECT id FROM landbridge.jobs ORDER BY id LIMIT 1)",
        "UPDATE landbridge.attempts SET cost = cost + 1 WHERE id = (SELECT min(id::text)::uuid FROM landbridge.attempts)",
        "DELETE FROM landbridge.audit WHERE seq = 1",
        "UPDATE landbridge.pieces SET bytes = set_byte(bytes, 9, 1) WHERE at = 1048576",
        "DELETE FROM landbridge.keys WHERE job = (SELECT job FROM landbridge.keys LIMIT 1)",
    ] {
        let database = server.database();
        let target = Bench::open_postgres(&server.url(&database), bench.clock.clone()).await;
        migrate(&source, &target, |_, _, _| {}).await.unwrap();
        server.sql(&database, damage);
        let error = migrate(&source, &target, |_, _, _| {}).await.unwrap_err();
        assert!(matches!(&error, StoreError::Damaged(text) if text.contains("read back")), "{damage}: {error}");
    }
}
