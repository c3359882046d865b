//! Several daemons on one database.

use super::*;
use crate::store::{Fence, postgres::schema};

async fn open_at(url: &str, folder: &std::path::Path) -> Arc<PostgresStore> {
    let options = PostgresOptions { folder: Some(folder.to_owned()), ..PostgresOptions::default() };
    Arc::new(PostgresStore::open(url, options).await.unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_may_shape_an_empty_database_at_once() {
    let server = Server::start();
    let url = server.url(&server.database());
    let stores = futures_util::future::join_all((0..6).map(|_| open(&url))).await;
    for store in &stores {
        store.submit(vec![job()]).await.unwrap();
    }
    assert_eq!(stores[0].counts().await.unwrap()[&(pipeline(), State::Queued)], 6);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_of_a_newer_program_is_left_alone() {
    let server = Server::start();
    let database = server.database();
    let url = server.url(&database);
    drop(open(&url).await);
    // A newer shape that this program can work with, and one that it cannot.
    server.sql(&database, "UPDATE landbridge.meta SET value = 99 WHERE key = 'shape'");
    let store = open(&url).await;
    assert_eq!(server.sql(&database, "SELECT value FROM landbridge.meta WHERE key = 'shape'"), "99");
    store.submit(vec![job()]).await.unwrap();
    server.sql(&database, "UPDATE landbridge.meta SET value = 98 WHERE key = 'oldest'");
    let trouble = schema::ensure(store.link()).await.unwrap_err();
    let error = trouble.describe("x");
    assert!(matches!(&error, StoreError::Unusable(text) if text.contains("newer landbridge")), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn daemons_share_the_work_and_each_job_is_done_once() {
    let server = Server::start();
    let database = server.database();
    let url = server.url(&database);
    let stores = [open(&url).await, open(&url).await, open(&url).await];
    let jobs: Vec<NewJob> = (0..900).map(|_| job()).collect();
    stores[0].submit(jobs).await.unwrap();
    let mut workers = tokio::task::JoinSet::new();
    for store in stores.iter().flat_map(|store| [store.clone(), store.clone()]) {
        workers.spawn(async move {
            let mut mine = Vec::new();
            loop {
                let claimed = insist(|| store.claim(request(&store, 16))).await;
                if claimed.is_empty() && !store.counts().await.unwrap().contains_key(&(pipeline(), State::Queued)) {
                    return mine;
                }
                for claimed in claimed {
                    let settled = insist(|| store.settle(vec![success(&claimed, None)])).await;
                    assert_eq!(settled, [Settled::Applied]);
                    mine.push(claimed.id);
                }
            }
        });
    }
    let mut all = Vec::new();
    while let Some(mine) = workers.join_next().await {
        all.extend(mine.unwrap());
    }
    assert_eq!(all.len(), 900);
    assert_eq!(all.into_iter().collect::<BTreeSet<_>>().len(), 900);
    assert_eq!(stores[1].counts().await.unwrap(), BTreeMap::from([((pipeline(), State::Succeeded), 900)]));
    assert_eq!(leftovers(&server, &database), "0 0");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restarted_daemon_takes_its_own_work_at_once_and_others_wait_for_the_lease() {
    let server = Server::start();
    let url = server.url(&server.database());
    let (home, other_home) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let other = open_at(&url, other_home.path()).await;
    other.register(other.local_node()).await.unwrap();
    let lease = Duration::from_secs(2);
    let mut expected_fence = 0;
    for restarted in [true, false] {
        let store = open_at(&url, home.path()).await;
        let node = store.local_node();
        store.register(node).await.unwrap();
        if restarted {
            store.submit(vec![job()]).await.unwrap();
        }
        let claimed = store.claim(request(&store, 1)).await.unwrap().remove(0);
        expected_fence += 1;
        assert_eq!(claimed.fence, Fence(expected_fence));
        let intent = intent(&claimed);
        store.begin(vec![intent.clone()]).await.unwrap();
        assert_eq!(other.reclaim(lease).await.unwrap().requeued, 0, "it has just been heard of");
        if restarted {
            drop(store);
            let started = std::time::Instant::now();
            let again = open_at(&url, home.path()).await;
            assert_eq!(again.local_node(), node);
            let recovered = again.register(node).await.unwrap();
            assert_eq!((recovered.requeued, recovered.unknown_attempts), (1, 1));
            assert!(started.elapsed() < Duration::from_secs(5));
            expected_fence += 1;
        } else {
            // It lives, but is not heard of: its lease runs out by the server's clock.
            let recovered = loop {
                let recovered = other.reclaim(lease).await.unwrap();
                if recovered.requeued > 0 {
                    break recovered;
                }
                tokio::time::sleep(Duration::from_millis(100)).await;
            };
            assert_eq!((recovered.requeued, recovered.unknown_attempts), (1, 1));
            // Its write comes too late; its bill does not.
            let late = store.settle(vec![success(&claimed, Some(intent.attempt))]).await.unwrap();
            assert_eq!(late, [Settled::Stale]);
            let record = store.job(claimed.id).await.unwrap().unwrap();
            assert_eq!((record.summary.state, record.attempts[1].outcome), (State::Queued, Outcome::Succeeded));
            assert!(store.begin(vec![super::intent(&claimed)]).await.unwrap() == [false], "its fence is void");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_transaction_held_open_elsewhere_stops_nobody() {
    let server = Arc::new(Server::start());
    let database = server.database();
    let store = open(&server.url(&database)).await;
    store.submit((0..50).map(|_| job()).collect()).await.unwrap();
    let holding = tokio::task::spawn_blocking({
        let (server, database) = (server.clone(), database.clone());
        move || {
            let read = "BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM landbridge.jobs; SELECT pg_sleep(600); COMMIT";
            server.sql(&database, read)
        }
    });
    let open_reader =
        "SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%pg_sleep(600)%' AND pid <> pg_backend_pid()";
    while server.sql(&database, open_reader) == "0" {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let promises = Arc::new(Promises::default());
    let claimed = store.claim(request(&store, 50)).await.unwrap();
    assert_eq!(claimed.len(), 50);
    for claimed in &claimed {
        store.settle(vec![success(claimed, None)]).await.unwrap();
    }
    promises.work(&store, 200).await;
    assert!(!holding.is_finished(), "the reader was there all the time");
    server.sql(
        &database,
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE '%pg_sleep(600)%' AND pid <> pg_backend_pid()",
    );
    let _cut_off = holding.await;
}
