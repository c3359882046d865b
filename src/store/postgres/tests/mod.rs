//! What only a server can do: vanish, restart, stall, be shared by several daemons and stand behind a pooler.

mod bouncer;
mod daemons;
mod faults;
mod old_days;
mod proxy;
pub mod server;
mod tls;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex},
    time::Duration,
};

use self::server::Server;
use super::{PostgresOptions, PostgresStore};
use crate::{
    clock::{Clock, SystemClock, Timestamp},
    ids::{AttemptId, JobId},
    job::{Outcome, State},
    names::PipelineName,
    store::{
        AttemptEnd, ClaimRequest, Claimed, Intent, JobQuery, NewJob, Next, Settled, Settlement, Store, StoreError,
        Submitted,
    },
};

fn pipeline() -> PipelineName {
    PipelineName::new("a").unwrap()
}

fn now() -> Timestamp {
    SystemClock.now()
}

fn job() -> NewJob {
    NewJob {
        id: JobId::generate(),
        pipeline: pipeline(),
        caller: String::new(),
        idempotency_key: None,
        digest: [0; 32],
        batch: Some("batch".to_owned()),
        priority: 0,
        created_at: now(),
        not_before: None,
        deadline: now() + Duration::from_hours(1),
        expiry_key: now() + Duration::from_hours(1),
        metadata: BTreeMap::new(),
        body: "{}".to_owned(),
        retry_of: None,
        callback: None,
    }
}

async fn open(url: &str) -> Arc<PostgresStore> {
    Arc::new(PostgresStore::open(url, PostgresOptions::default()).await.unwrap())
}

fn request(store: &PostgresStore, max: u32) -> ClaimRequest {
    ClaimRequest { node: store.local_node(), pipelines: vec![(pipeline(), max)], max, suspects: false }
}

fn intent(claimed: &Claimed) -> Intent {
    Intent {
        attempt: AttemptId::generate(),
        job: claimed.id,
        fence: claimed.fence,
        n: 1,
        target: "openai".parse().unwrap(),
        provider: "openai".parse().unwrap(),
        model: "m".to_owned(),
        region: None,
        started_at: now(),
        generation: 1,
        decision: "{}".to_owned(),
        assignment: None,
        fidelity: Vec::new(),
        most_cost: None,
        prompt_estimate: None,
        told: None,
    }
}

fn success(claimed: &Claimed, attempt: Option<AttemptId>) -> Settlement {
    let ended = attempt.map(|attempt| AttemptEnd {
        attempt,
        ended_at: now(),
        outcome: Outcome::Succeeded,
        fault: None,
        message: None,
        usage: None,
        cost: Some("0.01".parse().unwrap()),
        possibly_billed: false,
        provider_request_id: None,
        first_token: None,
    });
    Settlement { job: claimed.id, fence: claimed.fence, ended, next: Next::Succeed("\"done\"".to_owned()), told: None }
}

/// Asks until the store is not busy: as the daemon does with what it has in hand.
async fn insist<T, F: Future<Output = Result<T, StoreError>>>(mut ask: impl FnMut() -> F) -> T {
    for _ in 0..600 {
        match ask().await {
            Ok(answer) => return answer,
            Err(StoreError::Busy(_) | StoreError::Unwritable(_)) => tokio::time::sleep(Duration::from_millis(50)).await,
            Err(error) => panic!("{error}"),
        }
    }
    panic!("the store stayed busy for half a minute");
}

/// What was promised while work was going on.
#[derive(Default)]
struct Promises {
    accepted: Mutex<BTreeSet<JobId>>,
    ended: Mutex<BTreeSet<JobId>>,
}

impl Promises {
    /// Submits and works off `jobs` jobs, whatever happens meanwhile.
    async fn work(self: &Arc<Self>, store: &Arc<PostgresStore>, jobs: usize) {
        let mut tasks = tokio::task::JoinSet::new();
        for _ in 0..4 {
            let (me, submitting) = (self.clone(), store.clone());
            tasks.spawn(async move {
                for _ in 0..jobs / 4 {
                    let new = job();
                    let mut asked = 0;
                    let answer = insist(|| {
                        asked += 1;
                        submitting.submit(vec![new.clone()])
                    })
                    .await;
                    let fine = match answer.as_slice() {
                        [Submitted::New(_)] => true,
                        // After an error the same id may be there.
                        [Submitted::Existing(id, _)] => asked > 1 && *id == new.id,
                        _ => false,
                    };
                    assert!(fine, "{answer:?} after {asked}");
                    assert!(me.accepted.lock().unwrap().insert(new.id));
                }
            });
            let (me, store) = (self.clone(), store.clone());
            tasks.spawn(async move {
                while me.ended.lock().unwrap().len() < jobs / 4 * 4 {
                    let claimed = insist(|| store.claim(request(&store, 8))).await;
                    if claimed.is_empty() {
                        tokio::time::sleep(Duration::from_millis(5)).await;
                    }
                    for claimed in claimed {
                        let intent = intent(&claimed);
                        assert_eq!(insist(|| store.begin(vec![intent.clone()])).await, [true]);
                        let settlement = success(&claimed, Some(intent.attempt));
                        let settled = insist(|| store.settle(vec![settlement.clone()])).await;
                        // A settlement asked for again may have been done before.
                        let done = settled == [Settled::Applied]
                            || store
                                .job(claimed.id)
                                .await
                                .is_ok_and(|job| job.unwrap().summary.state == State::Succeeded);
                        assert!(done, "{settled:?}");
                        assert!(me.ended.lock().unwrap().insert(claimed.id), "{} ended twice", claimed.id);
                    }
                }
            });
        }
        while let Some(task) = tasks.join_next().await {
            task.unwrap();
        }
    }

    /// Holds the database against what was promised.
    async fn check(&self, store: &PostgresStore) {
        let accepted = self.accepted.lock().unwrap().clone();
        assert_eq!(accepted, *self.ended.lock().unwrap());
        let mut query = JobQuery { limit: 1_000, ..JobQuery::default() };
        let mut found = BTreeSet::new();
        loop {
            let page = store.list(query.clone()).await.unwrap();
            for job in page.jobs {
                assert!(found.insert(job.id), "{} listed twice", job.id);
                assert_eq!((job.state, job.attempts), (State::Succeeded, 1), "{}", job.id);
            }
            let Some(next) = page.next else { break };
            query.after = Some(next);
        }
        assert_eq!(found, accepted);
        let n = accepted.len() as u64;
        assert_eq!(store.counts().await.unwrap(), BTreeMap::from([((pipeline(), State::Succeeded), n)]));
        assert_eq!(store.batch_counts("batch").await.unwrap(), BTreeMap::from([(State::Succeeded, n)]));
        let spent = store.spending(Timestamp::from_micros(0)).await.unwrap()[&pipeline()];
        assert_eq!(spent, format!("{}", n as f64 / 100.0).parse().unwrap(), "every call is paid once");
    }
}

/// What a database holds open, or ready, beside what `Promises` looks at.
fn leftovers(server: &Server, database: &str) -> String {
    server.sql(
        database,
        "SELECT (SELECT count(*) FROM landbridge.jobs) || ' ' || (SELECT count(*) FROM landbridge.calls)",
    )
}
