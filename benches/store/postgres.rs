//! The PostgreSQL store, worked by two daemons, beside the same statements in a bare loop on the same server.
//!
//! The bare loop claims, writes intents, closes attempts and moves jobs to history in batches of the same size, with the
//! same tables and indexes; what it lacks is what the store adds: single callers gathered into groups, rows locked and
//! looked at before they are written, sums, receipts, hints.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use landbridge::{
    ids::AttemptId,
    store::{PostgresStore, Store, postgres::PostgresOptions},
};
use tokio::{sync::Semaphore, task::JoinSet};
use tokio_postgres::{Client, NoTls, types::Type};
use uuid::Uuid;

use super::{BODY, IN_FLIGHT, Options, call, job, rate, report, request};

#[path = "../../src/store/postgres/tests/server.rs"]
mod server;

/// The tables of the bare loop: the store's own, without what only steering needs.
const RAW: &str = "CREATE SCHEMA raw;
CREATE TABLE raw.jobs (id uuid PRIMARY KEY, fence bigint NOT NULL DEFAULT 0, order_key bigint NOT NULL, created_at bigint NOT NULL,
  node uuid, pipeline int NOT NULL, state smallint NOT NULL) WITH (fillfactor = 80);
CREATE INDEX ON raw.jobs (pipeline, order_key, id) WHERE state = 0;
CREATE INDEX ON raw.jobs (node) WHERE node IS NOT NULL;
CREATE TABLE raw.contents (id uuid PRIMARY KEY, metadata text, body bytea);
CREATE TABLE raw.calls (job uuid, id uuid, target text, decision text, PRIMARY KEY (job, id));
CREATE TABLE raw.attempts (job uuid, id uuid, ended_at bigint, target text, decision text, cost numeric, PRIMARY KEY (job, id));
CREATE INDEX ON raw.attempts (ended_at);
CREATE TABLE raw.history (id uuid PRIMARY KEY, finished_at bigint, pipeline int, state smallint, result bytea);
CREATE INDEX ON raw.history (pipeline, finished_at);
ALTER TABLE raw.jobs SET (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 1000, autovacuum_vacuum_cost_delay = 0);
ALTER TABLE raw.calls SET (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 1000, autovacuum_vacuum_cost_delay = 0)";

async fn connect(url: &str) -> Client {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await.expect("connects");
    tokio::spawn(connection);
    client
}

async fn fill_raw(client: &Client, jobs: usize) {
    for _ in 0..jobs.div_ceil(512) {
        let ids: Vec<Uuid> = (0..512).map(|_| Uuid::now_v7()).collect();
        let body = vec![b'x'; BODY];
        client.batch_execute("BEGIN").await.expect("begins");
        client
            .execute_typed(
                "WITH c AS (INSERT INTO raw.contents SELECT id, '{}', $2 FROM unnest($1::uuid[]) AS u (id) RETURNING id) \
                 INSERT INTO raw.jobs (id, order_key, created_at, pipeline, state) \
                 SELECT id, row_number() OVER (), 0, 1, 0 FROM c",
                &[(&ids, Type::UUID_ARRAY), (&body, Type::BYTEA)],
            )
            .await
            .expect("filled");
        client.batch_execute("COMMIT").await.expect("commits");
    }
}

/// Works off jobs in batches on one connection.
async fn drain_raw(client: &Client, jobs: usize, batch: usize) {
    let node = Uuid::now_v7();
    let most = i64::try_from(batch).expect("a small number");
    let mut done = 0;
    while done < jobs {
        client.batch_execute("BEGIN").await.expect("begins");
        let rows = client
            .query_typed(
                "WITH heads AS MATERIALIZED (SELECT id FROM raw.jobs WHERE pipeline = 1 AND state = 0 ORDER BY order_key, id \
                 LIMIT $1 FOR NO KEY UPDATE SKIP LOCKED) \
                 UPDATE raw.jobs j SET state = 3, fence = fence + 1, node = $2 FROM heads h WHERE j.id = h.id RETURNING j.id",
                &[(&most, Type::INT8), (&node, Type::UUID)],
            )
            .await
            .expect("claimed");
        let ids: Vec<Uuid> = rows.iter().map(|row| row.get(0)).collect();
        client
            .query_typed("SELECT id, metadata, body FROM raw.contents WHERE id = ANY($1)", &[(&ids, Type::UUID_ARRAY)])
            .await
            .expect("read");
        client.batch_execute("COMMIT").await.expect("commits");
        if ids.is_empty() {
            break;
        }
        let attempts: Vec<Uuid> = ids.iter().map(|_| Uuid::from_bytes(*AttemptId::generate().as_bytes())).collect();
        client.batch_execute("BEGIN").await.expect("begins");
        client
            .execute_typed(
                "INSERT INTO raw.calls SELECT u.job, u.id, 'openai', repeat('d', 120) FROM unnest($1::uuid[], $2::uuid[]) AS u (job, id)",
                &[(&ids, Type::UUID_ARRAY), (&attempts, Type::UUID_ARRAY)],
            )
            .await
            .expect("begun");
        client.batch_execute("COMMIT").await.expect("commits");
        let result = vec![b'y'; 512];
        client.batch_execute("BEGIN").await.expect("begins");
        client
            .execute_typed(
                "WITH c AS (DELETE FROM raw.calls c USING unnest($1::uuid[], $2::uuid[]) AS u (job, id) \
                 WHERE c.job = u.job AND c.id = u.id RETURNING c.*) \
                 INSERT INTO raw.attempts SELECT job, id, 1, target, decision, 0.000123 FROM c",
                &[(&ids, Type::UUID_ARRAY), (&attempts, Type::UUID_ARRAY)],
            )
            .await
            .expect("closed");
        client
            .execute_typed(
                "WITH g AS (DELETE FROM raw.jobs j USING unnest($1::uuid[]) AS u (id) WHERE j.id = u.id RETURNING j.id, j.pipeline) \
                 INSERT INTO raw.history SELECT id, 1, pipeline, 4, $2 FROM g",
                &[(&ids, Type::UUID_ARRAY), (&result, Type::BYTEA)],
            )
            .await
            .expect("moved");
        client.batch_execute("COMMIT").await.expect("commits");
        done += ids.len();
    }
}

async fn fill(store: &PostgresStore, jobs: usize, body: usize) {
    let mut left = jobs;
    while left > 0 {
        let some = left.min(2_048);
        store.submit((0..some).map(|_| job(body)).collect()).await.expect("accepted");
        left -= some;
    }
}

async fn drain(store: &Arc<PostgresStore>, jobs: usize) {
    let permits = Arc::new(Semaphore::new(IN_FLIGHT));
    let mut tasks = JoinSet::new();
    let mut done = 0;
    while done < jobs {
        let mut held = vec![permits.clone().acquire_owned().await.expect("open")];
        while let Ok(more) = permits.clone().try_acquire_owned() {
            held.push(more);
        }
        let most = held.len().min(jobs - done);
        let claimed = store.claim(request(store.local_node(), most)).await.expect("claimed");
        if claimed.is_empty() {
            break;
        }
        done += claimed.len();
        for (job, permit) in claimed.into_iter().zip(held) {
            let store = store.clone();
            tasks.spawn(async move {
                call(&*store, job).await;
                drop(permit);
            });
        }
        while tasks.try_join_next().is_some() {}
    }
    while tasks.join_next().await.is_some() {}
}

/// Two daemons work off as many jobs; how long it took.
async fn drain_both(stores: &[Arc<PostgresStore>; 2], jobs: usize) -> Duration {
    let started = Instant::now();
    tokio::join!(drain(&stores[0], jobs / 2), drain(&stores[1], jobs / 2));
    started.elapsed()
}

async fn claim_time(store: &PostgresStore, what: &str) -> Duration {
    let mut times = Vec::new();
    for _ in 0..100 {
        let started = Instant::now();
        let claimed = store.claim(request(store.local_node(), 16)).await.expect("claimed");
        times.push(started.elapsed());
        assert_eq!(claimed.len(), 16);
    }
    times.sort();
    println!("claim of 16 with {what:<30} median {:>8.1?}   worst {:>8.1?}", times[50], times[99]);
    times[50]
}

pub async fn postgres(options: &Options) {
    let server = server::Server::start_in(&options.folder, &["-c", "max_wal_size=4GB"]);
    let database = server.database();
    let url = server.url(&database);
    let open = || async { Arc::new(PostgresStore::open(&url, PostgresOptions::default()).await.expect("opens")) };
    let stores = [open().await, open().await];
    let raw = [connect(&url).await, connect(&url).await];
    raw[0].batch_execute(RAW).await.expect("tables");

    let jobs = options.jobs / 4;
    let part = jobs / 4;
    let started = Instant::now();
    fill(&stores[0], jobs, BODY).await;
    println!("{jobs} jobs of 1 KiB in bulk: {:.0}/s", rate(jobs, started.elapsed()));
    fill_raw(&raw[0], jobs).await;
    server.sql(&database, "ANALYZE");
    let (mut ours, mut theirs) = (Duration::ZERO, Duration::ZERO);
    for _ in 0..4 {
        let started = Instant::now();
        tokio::join!(drain_raw(&raw[0], part / 2, IN_FLIGHT), drain_raw(&raw[1], part / 2, IN_FLIGHT));
        theirs += started.elapsed();
        ours += drain_both(&stores, part).await;
    }
    report(
        "PostgreSQL, two daemons: claim, intent, settle",
        rate(part * 4, ours),
        rate(part * 4, theirs),
        10_000.0,
        0.60,
    );

    fill(&stores[0], 2_000, 200).await;
    let few = claim_time(&stores[0], "2,000 queued").await;
    let more = options.jobs * 5;
    fill(&stores[0], more, 200).await;
    let many = claim_time(&stores[0], &format!("{more} queued")).await;
    let ratio = many.as_secs_f64() / few.as_secs_f64();
    println!("claim time, {more} to 2,000 queued: {ratio:.2}   {}", if ratio <= 2.0 { "met" } else { "MISSED" });
    let before = rate(part, drain_both(&stores, part).await);
    println!("work with {more} queued: {before:.0}/s");
}
