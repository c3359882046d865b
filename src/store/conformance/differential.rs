//! Two stores, the same questions, the same answers: random histories on memory and on a file, and on a server.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::{Bench, Server, pipeline, secs};
use crate::{
    clock::Timestamp,
    ids::{AttemptId, JobId, NodeId},
    job::{HoldReason, Outcome, State},
    store::{
        AttemptEnd, ClaimRequest, DocumentKind, Fence, Intent, JobError, JobQuery, NewJob, Next, PruneCut, Settlement,
    },
};

#[derive(Debug, Clone)]
enum Act {
    Submit { pipeline: u8, key: Option<u8>, digest: u8, priority: i8, wait: u8, batch: bool },
    Claim { node: u8, max: u8, suspects: bool },
    Begin { which: u8 },
    Settle { which: u8, close: bool, next: u8 },
    Cancel { which: u8 },
    Release { pipeline: u8 },
    Promote,
    Expire { pipeline: u8, ahead: u16 },
    Register { node: u8 },
    Deregister { node: u8 },
    Reclaim,
    Heartbeat { node: u8 },
    Pass { seconds: u8 },
    Prune { prompts: bool, jobs: bool },
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        8 => (0..3u8, proptest::option::of(0..3u8), 0..2u8, -2..3i8, 0..40u8, any::<bool>()).prop_map(
            |(pipeline, key, digest, priority, wait, batch)| Act::Submit { pipeline, key, digest, priority, wait, batch }
        ),
        8 => (0..2u8, 0..4u8, proptest::bool::weighted(0.2)).prop_map(|(node, max, suspects)| Act::Claim { node, max, suspects }),
        8 => any::<u8>().prop_map(|which| Act::Begin { which }),
        8 => (any::<u8>(), any::<bool>(), 0..7u8).prop_map(|(which, close, next)| Act::Settle { which, close, next }),
        1 => any::<u8>().prop_map(|which| Act::Cancel { which }),
        1 => (0..3u8).prop_map(|pipeline| Act::Release { pipeline }),
        2 => Just(Act::Promote),
        1 => (0..3u8, 0..120u16).prop_map(|(pipeline, ahead)| Act::Expire { pipeline, ahead }),
        2 => (0..2u8).prop_map(|node| Act::Register { node }),
        1 => (0..2u8).prop_map(|node| Act::Deregister { node }),
        1 => Just(Act::Reclaim),
        1 => (0..2u8).prop_map(|node| Act::Heartbeat { node }),
        2 => (0..60u8).prop_map(|seconds| Act::Pass { seconds }),
        1 => (any::<bool>(), any::<bool>()).prop_map(|(prompts, jobs)| Act::Prune { prompts, jobs }),
    ]
}

/// Both stores on one clock, and what a worker would remember.
struct Pair {
    left: Bench,
    right: Bench,
    nodes: [NodeId; 2],
    jobs: Vec<JobId>,
    claims: Vec<(JobId, Fence, Vec<AttemptId>)>,
}

/// Asks both, compares, gives the answer.
macro_rules! both {
    ($pair:expr, $method:ident($argument:expr $(, $limit:expr)?)) => {{
        let argument = $argument;
        let left = $pair.left.store.$method(argument.clone() $(, $limit)?).await.unwrap();
        let right = $pair.right.store.$method(argument $(, $limit)?).await.unwrap();
        assert_eq!(left, right, stringify!($method));
        left
    }};
    ($pair:expr, $method:ident()) => {{
        let left = $pair.left.store.$method().await.unwrap();
        assert_eq!(left, $pair.right.store.$method().await.unwrap(), stringify!($method));
        left
    }};
}

fn name(number: u8) -> crate::names::PipelineName {
    pipeline(["a", "b", "c"][usize::from(number)])
}

impl Pair {
    fn with_file() -> Self {
        let left = Bench::memory();
        let right = Bench::sqlite_on(left.clock.clone());
        Self::of(left, right)
    }

    async fn with_server(url: &str) -> Self {
        let left = Bench::memory();
        let right = Bench::postgres_on(url, left.clock.clone()).await;
        Self::of(left, right)
    }

    fn of(left: Bench, right: Bench) -> Self {
        Self { left, right, nodes: [NodeId::generate(), NodeId::generate()], jobs: Vec::new(), claims: Vec::new() }
    }

    fn new_job(&self, act: &Act) -> NewJob {
        let Act::Submit { pipeline, key, digest, priority, wait, batch } = act else { unreachable!() };
        let base = self.left.new_job(name(*pipeline).as_str());
        NewJob {
            idempotency_key: key.map(|key| format!("k{key}")),
            digest: [*digest; 32],
            priority: i32::from(*priority),
            not_before: Some(base.created_at + secs(u64::from(*wait))).filter(|_| *wait > 20),
            expiry_key: base.created_at + secs(60),
            batch: batch.then(|| "batch".to_owned()),
            callback: batch.then(|| "https://hooks.example.com/in".to_owned()),
            metadata: BTreeMap::from([("p".to_owned(), priority.to_string())]),
            ..base
        }
    }

    async fn run(&mut self, act: Act) {
        let now = self.left.now();
        match act {
            Act::Submit { .. } => {
                let job = self.new_job(&act);
                self.jobs.push(job.id);
                both!(self, submit(vec![job]));
            }
            Act::Claim { node, max, suspects } => {
                let pipelines = (0..3).map(|number| (name(number), 2)).collect();
                let request =
                    ClaimRequest { node: self.nodes[usize::from(node)], pipelines, max: u32::from(max), suspects };
                let claimed = both!(self, claim(request));
                self.claims.extend(claimed.into_iter().map(|job| (job.id, job.fence, Vec::new())));
            }
            Act::Begin { which } if !self.claims.is_empty() => {
                let place = usize::from(which) % self.claims.len();
                let (job, fence, attempts) = &self.claims[place];
                let intent: Intent = self.left.intent(*job, *fence, u32::try_from(attempts.len()).unwrap() + 1);
                let attempt = intent.attempt;
                if both!(self, begin(vec![intent])) == [true] {
                    self.claims[place].2.push(attempt);
                }
            }
            Act::Settle { which, close, next } if !self.claims.is_empty() => {
                let (job, fence, attempts) = &self.claims[usize::from(which) % self.claims.len()];
                let ended = attempts.last().filter(|_| close).map(|attempt| AttemptEnd {
                    cost: Some("0.125".parse().unwrap()),
                    ..self.left.ended(*attempt, Outcome::Failed)
                });
                let next = match next {
                    0 => Next::Keep,
                    1 => Next::Queue,
                    2 => Next::Wait(now + secs(10)),
                    3 => Next::Hold(HoldReason::Budget),
                    4 => Next::Succeed("{}".to_owned()),
                    5 => Next::Fail(JobError {
                        reason_code: "refused".to_owned(),
                        message: String::new(),
                        kind: String::new(),
                        code: None,
                        param: None,
                    }),
                    _ => Next::Expire,
                };
                both!(self, settle(vec![Settlement { job: *job, fence: *fence, ended, next, told: None }]));
            }
            Act::Cancel { which } if !self.jobs.is_empty() => {
                both!(self, cancel(vec![self.jobs[usize::from(which) % self.jobs.len()]]));
            }
            Act::Begin { .. } | Act::Settle { .. } | Act::Cancel { .. } => {}
            Act::Release { pipeline } => {
                both!(self, release(Some(name(pipeline)), 2));
            }
            Act::Promote => {
                both!(self, promote(now, 2));
            }
            Act::Expire { pipeline, ahead } => {
                both!(self, expire(BTreeMap::from([(name(pipeline), now + secs(u64::from(ahead)))]), 2));
            }
            Act::Register { node } => {
                both!(self, register(self.nodes[usize::from(node)]));
            }
            Act::Deregister { node } => both!(self, deregister(self.nodes[usize::from(node)])),
            Act::Reclaim => {
                both!(self, reclaim(secs(60)));
            }
            Act::Heartbeat { node } => both!(self, heartbeat(self.nodes[usize::from(node)])),
            Act::Pass { seconds } => self.left.clock.advance(secs(u64::from(seconds))),
            Act::Prune { prompts, jobs } => {
                let never = Timestamp::from_micros(0);
                let cut = PruneCut {
                    prompts: BTreeMap::new(),
                    results: BTreeMap::new(),
                    default_prompts: if prompts { now } else { never },
                    default_results: if jobs { now } else { never },
                    ledger: never,
                    audit: never,
                };
                both!(self, prune(cut, 1_000));
            }
        }
    }

    async fn compare(&self) {
        let counts = both!(self, counts());
        both!(self, oldest_queued());
        both!(self, documents(DocumentKind::Callback));
        both!(self, documents(DocumentKind::CallbackDue));
        both!(self, batch_counts("batch"));
        both!(self, spending(Timestamp::from_micros(0)));
        both!(self, traffic(Timestamp::from_micros(0)));
        let mut recount = BTreeMap::<_, u64>::new();
        for job in &self.jobs {
            if let Some(record) = both!(self, job(*job)) {
                *recount.entry((record.summary.pipeline, record.summary.state)).or_default() += 1;
                let running = record.summary.state == State::Running;
                assert!(!running || self.claims.iter().any(|(id, ..)| id == job));
            }
        }
        assert_eq!(counts, recount);
        let query = JobQuery { limit: 1_000, batch: Some("batch".to_owned()), ..JobQuery::default() };
        both!(self, list(query));
        let query = JobQuery { limit: 1_000, idempotency_key: Some("k1".to_owned()), ..JobQuery::default() };
        both!(self, list(query));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, max_shrink_iters: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn memory_and_file_agree(acts in proptest::collection::vec(act(), 1..90)) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let mut pair = Pair::with_file();
            for act in acts {
                pair.run(act).await;
            }
            pair.compare().await;
        });
    }
}

/// Everything that a history leaves, and nothing of the shape.
const EMPTY: &str = "TRUNCATE landbridge.nodes, landbridge.receipts, landbridge.jobs, landbridge.contents, landbridge.history, \
    landbridge.keys, landbridge.calls, landbridge.attempts, landbridge.deltas, landbridge.counts, landbridge.batch_counts, \
    landbridge.spending, landbridge.documents, landbridge.audit, landbridge.leads, landbridge.traffic, landbridge.traffic_deltas, landbridge.shelf, landbridge.pieces";

#[test]
fn memory_and_postgres_agree() {
    let server = Server::start();
    let database = server.database();
    let url = server.url(&database);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(Pair::with_server(&url));
    let config =
        ProptestConfig { cases: 32, max_shrink_iters: 200, failure_persistence: None, ..ProptestConfig::default() };
    let mut runner = proptest::test_runner::TestRunner::new(config);
    let histories = proptest::collection::vec(act(), 1..90);
    let outcome = runner.run(&histories, |acts| {
        server.sql(&database, EMPTY);
        runtime.block_on(async {
            let mut pair = Pair::with_server(&url).await;
            for act in acts {
                pair.run(act).await;
            }
            pair.compare().await;
        });
        Ok(())
    });
    outcome.unwrap();
}
