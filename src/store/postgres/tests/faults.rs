//! Connections, backends and servers that go away, at the worst moment.

use std::sync::atomic::Ordering;

use super::{
    proxy::{Cut, Proxy},
    *,
};
use crate::store::{DocumentChange, DocumentKind};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn work_survives_killed_backends_and_a_crashed_server() {
    let server = Arc::new(Server::start());
    let database = server.database();
    let store = open(&server.url(&database)).await;
    let promises = Arc::new(Promises::default());
    let working = {
        let (promises, store) = (promises.clone(), store.clone());
        tokio::spawn(async move { promises.work(&store, 1_200).await })
    };
    let disturbing = tokio::task::spawn_blocking({
        let (server, database, promises) = (server.clone(), database.clone(), promises.clone());
        move || {
            let ended = || promises.ended.lock().unwrap().len();
            let kill = format!(
                "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE datname = '{database}' AND pid <> pg_backend_pid()"
            );
            let mut killed = 0;
            for round in 0..12 {
                let goal = ended() + 40;
                while ended() < goal.min(1_000) {
                    std::thread::sleep(Duration::from_millis(5));
                }
                if round == 6 {
                    server.crash();
                    server.up(&["-c", "fsync=off"]);
                } else {
                    killed += server.sql("postgres", &kill).parse::<u32>().unwrap();
                }
            }
            killed
        }
    });
    working.await.unwrap();
    assert!(disturbing.await.unwrap() > 10, "backends were killed while they worked");
    promises.check(&store).await;
    assert_eq!(leftovers(&server, &database), "0 0");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_whose_answer_is_lost_is_found_out() {
    let server = Server::start();
    let database = server.database();
    let proxy = Proxy::start(server.port);
    let store = open(&proxy.url(&database)).await;
    store.register(store.local_node()).await.unwrap();
    // What runs besides must not be what is cut.
    let idle = || async { tokio::time::sleep(Duration::from_millis(50)).await };
    for cut in [Cut::AfterWord, Cut::BeforeWord] {
        let cuts = || proxy.cuts.load(Ordering::SeqCst);
        let before = cuts();
        let mut done = 0;
        // The store's own upkeep may meet a cut instead: then it is armed again.
        while done < 4 {
            let met = cuts();
            proxy.arm(cut);
            let new = NewJob { idempotency_key: Some(format!("{cut:?}{met}")), ..job() };
            let answer = store.submit(vec![new.clone(), new.clone()]).await.unwrap();
            let expected = [Submitted::New(State::Queued), Submitted::Existing(new.id, State::Queued)];
            assert_eq!(answer, expected, "{cut:?}");
            proxy.arm(cut);
            let mut claimed = store.claim(request(&store, 9)).await.unwrap();
            assert_eq!(claimed.len(), 1, "{cut:?}: claimed once, and handed over");
            let claimed = claimed.remove(0);
            assert_eq!((claimed.id, claimed.fence.0), (new.id, 1), "{cut:?}");
            proxy.arm(cut);
            let intent = intent(&claimed);
            assert_eq!(store.begin(vec![intent.clone()]).await.unwrap(), [true], "{cut:?}");
            proxy.arm(cut);
            let settled = store.settle(vec![success(&claimed, Some(intent.attempt))]).await.unwrap();
            assert_eq!(settled, [Settled::Applied], "{cut:?}");
            proxy.arm(Cut::Never);
            let record = store.job(new.id).await.unwrap().unwrap();
            assert_eq!((record.summary.state, record.attempts.len()), (State::Succeeded, 1), "{cut:?}");
            done += cuts() - met;
            idle().await;
        }
        assert!(cuts() >= before + 4);
    }
    let n = store.counts().await.unwrap()[&(pipeline(), State::Succeeded)];
    assert_eq!(
        store.spending(Timestamp::from_micros(0)).await.unwrap()[&pipeline()].0 * rust_decimal::Decimal::from(100),
        n.into()
    );
    assert_eq!(leftovers(&server, &database), "0 0");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_finds_no_connection_or_lock_is_told_in_time() {
    let server = Arc::new(Server::start());
    let database = server.database();
    let options = PostgresOptions { connections: Some(2), ..PostgresOptions::default() };
    let store = Arc::new(PostgresStore::open(&server.url(&database), options).await.unwrap());
    let holding = tokio::task::spawn_blocking({
        let (server, database) = (server.clone(), database.clone());
        move || server.sql(&database, "BEGIN; LOCK TABLE landbridge.jobs; SELECT pg_sleep(14); COMMIT")
    });
    let held =
        "SELECT count(*) FROM pg_locks WHERE relation = 'landbridge.jobs'::regclass AND mode = 'AccessExclusiveLock'";
    while server.sql(&database, held) == "0" {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let started = tokio::time::Instant::now();
    let mut asked = tokio::task::JoinSet::new();
    for _ in 0..20 {
        let store = store.clone();
        asked.spawn(async move { store.oldest_queued().await });
    }
    let mut refused = 0;
    while let Some(answer) = asked.join_next().await {
        match answer.unwrap() {
            Ok(_) => {}
            Err(StoreError::Busy(text)) => {
                assert!(text.contains("connections were busy") || text.contains("lock timeout"), "{text}");
                refused += 1;
            }
            Err(error) => panic!("{error}"),
        }
    }
    assert!(refused > 0, "a table was locked for longer than anybody waits");
    assert!(started.elapsed() < Duration::from_secs(40));
    holding.await.unwrap();
    assert!(store.oldest_queued().await.unwrap().is_empty(), "and then all is well again");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hints_come_from_other_daemons_and_losing_them_loses_nothing() {
    let server = Server::start();
    let database = server.database();
    let proxy = Proxy::start(server.port);
    let options = PostgresOptions { direct: Some(proxy.url(&database)), ..PostgresOptions::default() };
    let listener = PostgresStore::open(&server.url(&database), options).await.unwrap();
    let speaker = open(&server.url(&database)).await;
    let (mut wakeups, mut endings, mut documents) =
        (listener.wakeups(), listener.endings(), listener.document_changes());
    let patience = Duration::from_secs(20);
    let mut before = "0".to_owned();
    for round in 0..2_u32 {
        if round > 0 {
            // Listening anew gives both hints, for what may have been missed.
            tokio::time::timeout(patience, wakeups.changed()).await.expect("connected").unwrap();
            tokio::time::timeout(patience, documents.changed()).await.expect("connected").unwrap();
        }
        let listens =
            "SELECT coalesce(max(pid), 0) FROM pg_stat_activity WHERE query = 'LISTEN landbridge' AND pid <> ";
        before = loop {
            let pid = server.sql(&database, &format!("{listens}{before}"));
            if pid != "0" {
                break pid;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        };
        wakeups.mark_unchanged();
        documents.mark_unchanged();
        let new = job();
        speaker.submit(vec![new.clone()]).await.unwrap();
        tokio::time::timeout(patience, wakeups.changed()).await.expect("told of a ready job").unwrap();
        let claimed = speaker.claim(request(&speaker, 1)).await.unwrap().remove(0);
        speaker.settle(vec![success(&claimed, None)]).await.unwrap();
        let ended = tokio::time::timeout(patience, endings.recv()).await.expect("told of an end").unwrap();
        assert_eq!(ended, new.id);
        let change = |n: u32| DocumentChange { kind: DocumentKind::Flag, key: "x".to_owned(), value: Some(n.into()) };
        let before = listener.revision().await.unwrap();
        speaker.apply(vec![change(round)], None).await.unwrap();
        tokio::time::timeout(patience, documents.changed()).await.expect("told of a document").unwrap();
        assert_ne!(listener.revision().await.unwrap(), before);
        wakeups.mark_unchanged();
        documents.mark_unchanged();
        proxy.cut_all();
        // What is said now is not heard, and yet seen.
        speaker.apply(vec![change(round + 10)], None).await.unwrap();
        assert_eq!(listener.documents(DocumentKind::Flag).await.unwrap()["x"], round + 10);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_away_is_named_and_the_password_is_not() {
    let port = server::free_port();
    let url = format!("postgres://me:hunter2@127.0.0.1:{port}/x");
    let error = PostgresStore::open(&url, PostgresOptions::default()).await.err().unwrap();
    let text = error.to_string();
    assert!(matches!(error, StoreError::Busy(_)) && text.contains(&format!("127.0.0.1:{port}/x")), "{text}");
    assert!(!text.contains("hunter2"), "{text}");
    let server = Server::start();
    let error = PostgresStore::open(&server.url("nothing"), PostgresOptions::default()).await.err().unwrap();
    assert!(matches!(&error, StoreError::Unusable(text) if text.contains("createdb")), "{error}");
}
