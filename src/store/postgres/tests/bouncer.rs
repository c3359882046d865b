//! Behind PgBouncer in transaction mode: every transaction may be on another connection.

use super::{server::Bouncer, *};
use crate::store::{DocumentChange, DocumentKind};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_work_is_done_behind_a_pooler() {
    let server = Server::start();
    let database = server.database();
    let bouncer = Bouncer::start(&server);
    let url = bouncer.url(&database);
    let direct = PostgresOptions { direct: Some(server.url(&database)), ..PostgresOptions::default() };
    let stores = [Arc::new(PostgresStore::open(&url, direct).await.unwrap()), open(&url).await];
    let promises = Arc::new(Promises::default());
    // One works through few server connections, the other disturbs it.
    let disturbing = {
        let store = stores[1].clone();
        tokio::spawn(async move {
            for n in 0..40_u32 {
                let change = DocumentChange { kind: DocumentKind::Flag, key: "x".to_owned(), value: Some(n.into()) };
                store.apply(vec![change], None).await.unwrap();
                store.heartbeat(store.local_node()).await.unwrap();
                store.counts().await.unwrap();
                store.reclaim(Duration::from_secs(30)).await.unwrap();
            }
        })
    };
    promises.work(&stores[0], 600).await;
    disturbing.await.unwrap();
    promises.check(&stores[1]).await;
    assert_eq!(leftovers(&server, &database), "0 0");
    assert_eq!(stores[0].documents(DocumentKind::Flag).await.unwrap()["x"], 39);
    let connections = format!("SELECT count(*) FROM pg_stat_activity WHERE datname = '{database}'");
    let connections: u32 = server.sql("postgres", &connections).parse().unwrap();
    assert!(connections <= 4 + 1, "{connections}: the pooler's, and one that listens");
}
