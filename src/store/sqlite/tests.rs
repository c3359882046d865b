//! What only a file can do: survive, be locked, be damaged, be full.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    sync::Arc,
};

use rusqlite::{StatementStatus, ffi};

use super::{SqliteStore, home::beside, session::Session, trouble::Trouble};
use crate::{
    clock::SystemClock,
    ids::{JobId, NodeId},
    job::State,
    names::PipelineName,
    store::{
        ClaimRequest, Claimed, DocumentChange, DocumentKind, Fence, JobQuery, NewJob, Next, PruneCut, Result, Settled,
        Settlement, Store, StoreError, Submitted,
    },
};

fn pipeline() -> PipelineName {
    PipelineName::new("a").unwrap()
}

fn job(body: &str) -> NewJob {
    let now = crate::clock::Clock::now(&SystemClock);
    NewJob {
        id: JobId::generate(),
        pipeline: pipeline(),
        caller: String::new(),
        idempotency_key: None,
        digest: [0; 32],
        batch: Some("batch".to_owned()),
        priority: 0,
        created_at: now,
        not_before: None,
        deadline: now,
        expiry_key: now,
        metadata: [("customer".to_owned(), "c-1".to_owned())].into(),
        body: body.to_owned(),
        retry_of: None,
        callback: None,
    }
}

fn open(path: &Path) -> Result<SqliteStore> {
    SqliteStore::open(path, Arc::new(SystemClock))
}

async fn claim(store: &SqliteStore, max: u32) -> Result<Vec<Claimed>> {
    let pipelines = vec![(pipeline(), max)];
    store.claim(ClaimRequest { node: store.local_node(), pipelines, max, suspects: false }).await
}

async fn finish(store: &SqliteStore, claimed: &Claimed) -> Result<Vec<Settled>> {
    let next = Next::Succeed("{}".to_owned());
    store.settle(vec![Settlement { job: claimed.id, fence: claimed.fence, ended: None, next, told: None }]).await
}

fn folder() -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("data").join("queue.db");
    (folder, path)
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[tokio::test]
async fn what_was_acknowledged_is_there_after_a_restart() {
    let (_folder, path) = folder();
    let store = open(&path).unwrap();
    let (node, epoch) = (store.local_node(), store.epoch());
    let jobs: Vec<NewJob> = (0..3).map(|n| NewJob { idempotency_key: Some(format!("k{n}")), ..job("x") }).collect();
    store.submit(jobs.clone()).await.unwrap();
    let claimed = claim(&store, 1).await.unwrap();
    finish(&store, &claimed[0]).await.unwrap();
    let change = DocumentChange { kind: DocumentKind::Flag, key: "PAUSE".to_owned(), value: Some(true.into()) };
    store.apply(vec![change], None).await.unwrap();
    let before = (store.counts().await.unwrap(), store.batch_counts("batch").await.unwrap());
    drop(store);

    let store = open(&path).unwrap();
    assert_eq!((store.local_node(), store.epoch()), (node, epoch + 1));
    assert_eq!((store.counts().await.unwrap(), store.batch_counts("batch").await.unwrap()), before);
    assert_eq!(store.documents(DocumentKind::Flag).await.unwrap()["PAUSE"], true);
    let again = NewJob { id: JobId::generate(), ..jobs[0].clone() };
    assert_eq!(store.submit(vec![again]).await.unwrap(), [Submitted::Existing(jobs[0].id, State::Succeeded)]);
    assert_eq!(claim(&store, 9).await.unwrap().len(), 2);
}

#[tokio::test]
async fn a_second_daemon_is_told_who_has_the_file() {
    let (folder, path) = folder();
    let store = open(&path).unwrap();
    let link = folder.path().join("link.db");
    std::os::unix::fs::symlink(&path, &link).unwrap();
    for way in [&path, &link, &path.parent().unwrap().join("..").join("data").join("queue.db")] {
        let Err(StoreError::Held(message)) = open(way) else { panic!("{} is in use", way.display()) };
        assert!(message.contains(&format!("process {}", std::process::id())), "{message}");
    }
    // The refused ones did no harm to the locks of the first.
    store.submit(vec![job("x")]).await.unwrap();
    drop(store);
    open(&path).unwrap();
}

#[tokio::test]
async fn only_the_owner_may_read() {
    let (_folder, path) = folder();
    let store = open(&path).unwrap();
    store.submit(vec![job("x")]).await.unwrap();
    assert_eq!(mode(path.parent().unwrap()), 0o700);
    for suffix in ["", "-wal", "-shm", ".lock"] {
        assert_eq!(mode(&beside(&path, suffix)), 0o600, "{suffix}");
    }
    drop(store);
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    let _store = open(&path).unwrap();
    assert_eq!(mode(&path), 0o600);
}

#[test]
fn files_that_are_not_for_us_are_refused_with_advice() {
    let (folder, path) = folder();
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    let refusal = |path: &Path| match open(path) {
        Ok(_) => panic!("{} must be refused", path.display()),
        Err(error) => error,
    };
    let sql = |path: &Path, sql: &str| rusqlite::Connection::open(path).unwrap().execute_batch(sql).unwrap();

    sql(&path, "CREATE TABLE theirs (x)");
    let error = refusal(&path);
    assert!(matches!(&error, StoreError::Unusable(text) if text.contains("another program")), "{error}");

    let newer = folder.path().join("newer.db");
    drop(open(&newer).unwrap());
    sql(&newer, "PRAGMA user_version = 999");
    let error = refusal(&newer);
    assert!(
        matches!(&error, StoreError::Unusable(text) if text.contains("newer landbridge") && text.contains("999")),
        "{error}"
    );

    let garbage = folder.path().join("garbage.db");
    fs::write(&garbage, vec![0x5a; 20_000]).unwrap();
    let error = refusal(&garbage);
    assert!(
        matches!(&error, StoreError::Damaged(text) if text.contains("garbage.db") && text.contains("backup")),
        "{error}"
    );

    // A folder that cannot be made: its parent is a file.
    let error = refusal(&garbage.join("deeper").join("queue.db"));
    assert!(matches!(&error, StoreError::Unwritable(text) if text.contains("choose another")), "{error}");
    let error = refusal(folder.path());
    assert!(matches!(&error, StoreError::Unusable(_) | StoreError::Unwritable(_)), "{error}");
    assert!(matches!(refusal(Path::new("/")), StoreError::Unusable(_)));
    // /proc takes no new files, whoever asks.
    let error = refusal(Path::new("/proc/self/queue.db"));
    assert!(matches!(&error, StoreError::Unwritable(text) if text.contains("/proc/")), "{error}");
}

/// Keeps the writer busy until the sender is dropped, so that what is asked meanwhile becomes one group.
async fn busy(store: &Arc<SqliteStore>) -> (std::sync::mpsc::Sender<()>, tokio::task::JoinHandle<Result<()>>) {
    let (release, gate) = std::sync::mpsc::channel::<()>();
    let (started, running) = tokio::sync::oneshot::channel();
    let mut started = Some(started);
    let keeper = store.clone();
    let task = tokio::spawn(async move {
        let wait = move |_: &mut Session| {
            started.take().map(|started| started.send(()));
            let _ = gate.recv();
            Ok(())
        };
        keeper.writer.ask(1, wait).await
    });
    running.await.unwrap();
    (release, task)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failing_command_fails_alone_and_leaves_no_trace() {
    let (_folder, path) = folder();
    let store = Arc::new(open(&path).unwrap());
    let (release, keeper) = busy(&store).await;
    let mut asked = Vec::new();
    for n in 0..9 {
        let store = store.clone();
        asked.push(tokio::spawn(async move {
            if n == 4 {
                let mut bad = job("bad");
                bad.pipeline = PipelineName::new("bad").unwrap();
                bad.batch = Some("bad".to_owned());
                let act = move |session: &mut Session| {
                    session.submit(std::slice::from_ref(&bad))?;
                    session.execute("INSERT INTO nowhere VALUES (1)", []).map(drop)
                };
                store.writer.ask(1, act).await.map(|()| Vec::new())
            } else {
                store.submit(vec![job("good")]).await
            }
        }));
    }
    drop(release);
    keeper.await.unwrap().unwrap();
    for (n, task) in asked.into_iter().enumerate() {
        let answer = task.await.unwrap();
        assert_eq!(answer.is_ok(), n != 4, "{answer:?}");
    }
    let counts = store.counts().await.unwrap();
    assert_eq!(counts.into_iter().collect::<Vec<_>>(), [((pipeline(), State::Queued), 8)]);
    assert!(store.batch_counts("bad").await.unwrap().is_empty());
    // The name that was undone can be used.
    let mut later = job("x");
    later.pipeline = PipelineName::new("bad").unwrap();
    store.submit(vec![later]).await.unwrap();
    assert_eq!(store.oldest_queued().await.unwrap().len(), 2);
}

#[tokio::test]
async fn a_full_disk_loses_nothing_and_work_goes_on_when_there_is_space() {
    let (_folder, path) = folder();
    let store = open(&path).unwrap();
    // SQLite's own limit on pages gives the very error that a full disk does.
    let limit = |pages: i64| {
        store.writer.ask(1, move |session| {
            let now: i64 = session.conn.pragma_query_value(None, "page_count", |row| row.get(0))?;
            let most = if pages == 0 { 1 << 30 } else { now + pages };
            session.conn.pragma_update_and_check(None, "max_page_count", most, |_| Ok(())).map_err(Trouble::from)
        })
    };
    limit(50).await.unwrap();
    let mut kept = Vec::new();
    let error = loop {
        let next = job(&"x".repeat(3_000));
        let id = next.id;
        match store.submit(vec![next]).await {
            Ok(_) => kept.push(id),
            Err(error) => break error,
        }
        assert!(kept.len() < 1_000);
    };
    assert!(
        matches!(&error, StoreError::Unwritable(text) if text.contains("full") && text.contains("queue.db")),
        "{error}"
    );
    assert!(!kept.is_empty());
    assert!(store.submit(vec![job(&"x".repeat(3_000))]).await.is_err());
    for id in &kept {
        assert!(store.job(*id).await.unwrap().is_some(), "reading goes on");
    }
    limit(0).await.unwrap();
    store.submit(vec![job("x")]).await.unwrap();
    assert_eq!(store.counts().await.unwrap()[&(pipeline(), State::Queued)], kept.len() as u64 + 1);
}

async fn fail_next_commit(store: &SqliteStore, code: std::ffi::c_int) {
    // Set by a command whose own commit is the one before.
    store
        .writer
        .ask(1, move |session| {
            session.fail_commit_after = Some((1, code));
            Ok(())
        })
        .await
        .unwrap();
}

#[tokio::test]
async fn after_an_unconfirmed_sync_nothing_is_written_until_a_restart() {
    let (_folder, path) = folder();
    let store = open(&path).unwrap();
    store.submit(vec![job("x")]).await.unwrap();
    fail_next_commit(&store, ffi::SQLITE_IOERR_FSYNC).await;
    for _ in 0..3 {
        let error = store.submit(vec![job("x")]).await.unwrap_err();
        assert!(matches!(&error, StoreError::Unwritable(text) if text.contains("restart")), "{error}");
    }
    assert!(store.heartbeat(NodeId::generate()).await.is_err());
    assert_eq!(
        store.list(JobQuery { limit: 9, ..JobQuery::default() }).await.unwrap().jobs.len(),
        1,
        "reading goes on"
    );
    assert!(beside(&path, "-wal").exists());
    drop(store);
    assert!(beside(&path, "-wal").metadata().unwrap().len() > 0, "the log was left as it is");
    let store = open(&path).unwrap();
    store.submit(vec![job("x")]).await.unwrap();
    assert_eq!(store.counts().await.unwrap()[&(pipeline(), State::Queued)], 2);
}

#[tokio::test]
async fn after_a_failed_write_the_next_one_counts() {
    let (_folder, path) = folder();
    let store = open(&path).unwrap();
    for code in [ffi::SQLITE_IOERR_WRITE, ffi::SQLITE_IOERR_SHMSIZE, ffi::SQLITE_FULL, ffi::SQLITE_BUSY] {
        fail_next_commit(&store, code).await;
        let error = store.submit(vec![job("x")]).await.unwrap_err();
        assert_eq!(matches!(error, StoreError::Busy(_)), code == ffi::SQLITE_BUSY, "{error}");
        store.submit(vec![job("x")]).await.unwrap();
    }
    assert_eq!(store.counts().await.unwrap()[&(pipeline(), State::Queued)], 4);
}

#[tokio::test]
async fn the_log_stays_bounded_and_goes_when_the_store_is_closed() {
    let (_folder, path) = folder();
    let store = open(&path).unwrap();
    let body = "x".repeat(200_000);
    let mut largest = 0;
    for _ in 0..300 {
        store.submit(vec![job(&body)]).await.unwrap();
        largest = largest.max(beside(&path, "-wal").metadata().unwrap().len());
    }
    assert!(largest > 10 << 20, "the test writes enough to tell: {largest}");
    assert!(largest < 24 << 20, "{largest}");
    drop(store);
    assert!(!beside(&path, "-wal").exists());
}

#[tokio::test]
async fn pruned_prompts_are_gone_from_the_disk() {
    let (_folder, path) = folder();
    let store = open(&path).unwrap();
    let secret = "correct horse battery staple".repeat(500);
    store.submit(vec![job(&secret)]).await.unwrap();
    let claimed = claim(&store, 1).await.unwrap();
    finish(&store, &claimed[0]).await.unwrap();
    let never = crate::clock::Timestamp::from_micros(0);
    let later = store.now().await.unwrap() + std::time::Duration::from_secs(1);
    let cut = PruneCut {
        prompts: [].into(),
        results: [].into(),
        default_prompts: later,
        default_results: never,
        ledger: never,
        audit: never,
    };
    assert_eq!(store.prune(cut, 9).await.unwrap().prompts, 1);
    drop(store);
    let bytes = fs::read(&path).unwrap();
    assert!(!bytes.windows(28).any(|window| window == b"correct horse battery staple"));
}

#[tokio::test]
async fn damage_is_an_error_and_never_a_panic() {
    let (folder, path) = folder();
    let store = open(&path).unwrap();
    let jobs: Vec<NewJob> =
        (0..300).map(|n| NewJob { idempotency_key: Some(format!("k{n}")), ..job("body") }).collect();
    store.submit(jobs.clone()).await.unwrap();
    for claimed in claim(&store, 100).await.unwrap() {
        finish(&store, &claimed).await.unwrap();
    }
    drop(store);
    let whole = fs::read(&path).unwrap();
    let mut found = 0;
    for round in 0..40_usize {
        let mut bytes = whole.clone();
        for n in 0..60 {
            let place = (round * 7_919 + n * 104_729 + round * n * 31) % bytes.len();
            bytes[place] = bytes[place].wrapping_add(u8::try_from(1 + (round + n) % 250).unwrap());
        }
        let damaged = folder.path().join(format!("damaged-{round}.db"));
        fs::write(&damaged, bytes).unwrap();
        let Ok(store) = open(&damaged) else {
            found += 1;
            continue;
        };
        let mut wrong = claim(&store, 200).await.is_err();
        wrong |= store.submit(vec![job("x")]).await.is_err();
        wrong |= store.list(JobQuery { limit: 1_000, ..JobQuery::default() }).await.is_err();
        for job in &jobs {
            wrong |= !matches!(store.job(job.id).await, Ok(Some(_)));
        }
        let settled = Settlement { job: jobs[0].id, fence: Fence(1), ended: None, next: Next::Queue, told: None };
        wrong |= store.settle(vec![settled]).await.is_err();
        found += usize::from(wrong);
    }
    assert!(found > 20, "{found} of 40 damaged files were noticed");
}

#[tokio::test]
async fn plans_use_the_indexes_that_keep_claims_flat() {
    let (_folder, path) = folder();
    let store = open(&path).unwrap();
    let plans = store
        .readers
        .ask(|conn| {
            let mut plans = Vec::new();
            for sql in [super::claim::READY, super::claim::SUSPECT] {
                let mut statement = conn.prepare(&format!("EXPLAIN QUERY PLAN {sql}"))?;
                let any = rusqlite::params_from_iter(vec![1; statement.parameter_count()]);
                let mut rows = statement.query(any)?;
                while let Some(row) = rows.next()? {
                    plans.push(row.get::<_, String>(3)?);
                }
            }
            Ok(plans)
        })
        .await
        .unwrap();
    assert_eq!(plans.len(), 2, "no sorting: {plans:?}");
    assert!(plans[0].contains("COVERING INDEX jobs_ready (pipeline=?)"), "{plans:?}");
    assert!(plans[1].contains("INDEX jobs_suspect (pipeline=?)"), "{plans:?}");
}

#[tokio::test]
async fn statements_of_the_hot_path_are_compiled_once() {
    let (_folder, path) = folder();
    let store = open(&path).unwrap();
    store.submit((0..20).map(|n| job(&n.to_string())).collect()).await.unwrap();
    for _ in 0..20 {
        let claimed = claim(&store, 1).await.unwrap();
        assert_eq!(finish(&store, &claimed[0]).await.unwrap(), [Settled::Applied]);
    }
    let counts = store
        .writer
        .ask(1, |session: &mut Session| {
            let mut counts = Vec::new();
            for sql in [super::claim::READY, super::claim::TAKE, super::settle::END] {
                let statement = session.conn.prepare_cached(sql)?;
                let of = |status| statement.get_status(status);
                counts.push((of(StatementStatus::Run) >= 19, of(StatementStatus::RePrepare)));
            }
            Ok(counts)
        })
        .await
        .unwrap();
    assert_eq!(counts, [(true, 0); 3]);
}

#[tokio::test]
async fn an_older_file_is_brought_up_to_date() {
    let (_folder, path) = folder();
    drop(open(&path).unwrap());
    let older = "ALTER TABLE jobs DROP COLUMN calls_back; ALTER TABLE contents DROP COLUMN callback; DROP TABLE traffic; \
                 DROP TABLE observations; ALTER TABLE attempts DROP COLUMN most_cost; ALTER TABLE attempts DROP COLUMN first_token; \
                 ALTER TABLE attempts DROP COLUMN prompt_estimate; PRAGMA user_version = 1";
    rusqlite::Connection::open(&path).unwrap().execute_batch(older).unwrap();
    let store = open(&path).unwrap();
    assert!(store.traffic(crate::clock::Timestamp::from_micros(0)).await.unwrap().is_empty());
}
