//! Days that are past go by dropping; days with something live do not.

use uuid::Uuid;

use super::*;
use crate::store::{PruneCut, postgres::days};

/// A job that was submitted so many days ago.
fn old_job(days: u64) -> NewJob {
    let at = now() - Duration::from_hours(24 * days);
    let millis = u64::try_from(at.as_micros() / 1_000).unwrap();
    let mut bytes = *Uuid::now_v7().as_bytes();
    bytes[..6].copy_from_slice(&millis.to_be_bytes()[2..]);
    NewJob { id: JobId::from_bytes(bytes), created_at: at, ..job() }
}

fn cut(results: Timestamp, ledger: Timestamp) -> PruneCut {
    let never = Timestamp::from_micros(0);
    PruneCut {
        prompts: BTreeMap::new(),
        results: BTreeMap::new(),
        default_prompts: never,
        default_results: results,
        ledger,
        audit: never,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whole_days_are_dropped_and_sums_stay_true() {
    let server = Server::start();
    let database = server.database();
    let store = open(&server.url(&database)).await;
    days::cut_days(store.link(), -60, 0).await.unwrap();
    let mut old: Vec<NewJob> = [40, 41, 41, 42].map(old_job).to_vec();
    old[0].idempotency_key = Some("k".to_owned());
    old[0].batch = None;
    let young = job();
    store.submit(old.iter().cloned().chain([young.clone()]).collect()).await.unwrap();
    // All but one end; the ends are of long ago, too.
    let claimed = store.claim(request(&store, 9)).await.unwrap();
    assert_eq!(claimed.len(), 5);
    for claimed in claimed.iter().filter(|claimed| claimed.id != old[3].id) {
        let intent = intent(claimed);
        store.begin(vec![intent.clone()]).await.unwrap();
        store.settle(vec![success(claimed, Some(intent.attempt))]).await.unwrap();
    }
    let month = 30 * days::DAY;
    server.sql(
        &database,
        &format!(
            "UPDATE landbridge.history SET finished_at = created_at WHERE created_at < {}",
            now().as_micros() - month
        ),
    );
    server.sql(
        &database,
        &format!(
            "UPDATE landbridge.attempts SET ended_at = {} WHERE job <> '{}'",
            now().as_micros() - 35 * days::DAY,
            Uuid::from_bytes(*young.id.as_bytes())
        ),
    );
    let pieces =
        || server.sql(&database, "SELECT count(*) FROM pg_class WHERE relname LIKE 'history%' AND relkind = 'r'");
    let before: u32 = pieces().parse().unwrap();

    let thirty = now() - Duration::from_hours(24 * 30);
    let never = Timestamp::from_micros(0);
    let mut gone = 0;
    for _ in 0..99 {
        let pruned = store.prune(cut(thirty, never), 1_000).await.unwrap();
        gone += pruned.jobs;
        if pruned.jobs == 0 {
            break;
        }
    }
    assert_eq!(gone, 3);
    let after: u32 = pieces().parse().unwrap();
    assert!(before - after >= 2, "{before} {after}: days went as tables");
    for (job, there) in old.iter().zip([false, false, false, true]) {
        assert_eq!(store.job(job.id).await.unwrap().is_some(), there, "a live job keeps its day");
    }
    assert_eq!(store.job_by_key(&pipeline(), "", "k").await.unwrap(), None, "its key is free again");
    let counts = store.counts().await.unwrap();
    assert_eq!(counts, BTreeMap::from([((pipeline(), State::Succeeded), 1), ((pipeline(), State::Running), 1)]));
    let batch = store.batch_counts("batch").await.unwrap();
    assert_eq!(batch, BTreeMap::from([(State::Succeeded, 1), (State::Running, 1)]));
    let spent = store.spending(never).await.unwrap()[&pipeline()].to_string();
    assert_eq!(spent, "0.04", "the ledger outlives its jobs");
    assert_eq!(
        server.sql(&database, "SELECT count(*) FROM landbridge.attempts WHERE decision IS NOT NULL"),
        "1",
        "its reasons do not"
    );

    let mut rows = 0;
    for _ in 0..99 {
        let pruned = store.prune(cut(never, thirty), 1_000).await.unwrap();
        rows += pruned.attempts;
        if pruned.attempts == 0 {
            break;
        }
    }
    assert!(rows >= 3);
    assert_eq!(server.sql(&database, "SELECT count(*) FROM landbridge.attempts"), "1");
}
