//! One suite of behaviours that every store must show. A case gets a [`Bench`] and knows nothing of what is behind it.

mod contents;
mod differential;
mod leading;
mod observing;
mod past;
mod reading;
mod recovery;
mod retention;
mod steering;
mod submitting;
mod telling;
mod transitions;
mod working;

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use super::{
    AttemptEnd, ClaimRequest, Claimed, Fence, Intent, JobRecord, MemoryStore, NewJob, Next, PostgresStore, Settled,
    Settlement, SqliteStore, Store, Submitted,
    postgres::{ClockOption, PostgresOptions},
};
use crate::{
    clock::{Clock, Timestamp},
    ids::{AttemptId, JobId, NodeId},
    job::{Outcome, State},
    names::PipelineName,
};

/// A clock that moves when told.
pub struct TestClock(AtomicI64);

impl TestClock {
    /// 2026-11-22T10:00:00Z.
    pub fn new() -> Arc<Self> {
        Arc::new(Self(AtomicI64::new(1_795_341_600_000_000)))
    }

    pub fn advance(&self, span: Duration) {
        self.0.fetch_add(i64::try_from(span.as_micros()).unwrap(), Ordering::Relaxed);
    }
}

impl Clock for TestClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_micros(self.0.load(Ordering::Relaxed))
    }
}

/// A store and what a case needs around it.
pub struct Bench {
    pub store: Arc<dyn Store>,
    pub clock: Arc<TestClock>,
    _folder: Option<tempfile::TempDir>,
}

/// The server of a suite's run.
pub use super::postgres::tests::server::Server;

/// Seconds, for short cases.
pub fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}

pub fn pipeline(name: &str) -> PipelineName {
    PipelineName::new(name).unwrap()
}

impl Bench {
    pub fn memory() -> Self {
        let clock = TestClock::new();
        Self { store: Arc::new(MemoryStore::new(clock.clone())), clock, _folder: None }
    }

    pub fn sqlite() -> Self {
        Self::sqlite_on(TestClock::new())
    }

    pub fn sqlite_on(clock: Arc<TestClock>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let bench = Self::sqlite_at(&folder.path().join("queue.db"), clock);
        Self { _folder: Some(folder), ..bench }
    }

    pub fn sqlite_at(path: &std::path::Path, clock: Arc<TestClock>) -> Self {
        let store = SqliteStore::open(path, clock.clone()).unwrap();
        Self { store: Arc::new(store), clock, _folder: None }
    }

    /// A store in a database of its own.
    pub async fn postgres(server: &Server) -> Self {
        Self::postgres_on(&server.url(&server.database()), TestClock::new()).await
    }

    pub async fn postgres_on(url: &str, clock: Arc<TestClock>) -> Self {
        let store = Self::open_postgres(url, clock.clone()).await;
        Self { store: Arc::new(store), clock, _folder: None }
    }

    pub async fn open_postgres(url: &str, clock: Arc<TestClock>) -> PostgresStore {
        let options = PostgresOptions { clock: Some(ClockOption(clock)), ..PostgresOptions::default() };
        PostgresStore::open(url, options).await.unwrap()
    }

    pub fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// An ordinary job of a pipeline; a millisecond passes, so that jobs differ in age.
    pub fn new_job(&self, name: &str) -> NewJob {
        self.clock.advance(Duration::from_millis(1));
        NewJob {
            id: JobId::generate(),
            pipeline: pipeline(name),
            caller: String::new(),
            idempotency_key: None,
            digest: [1; 32],
            batch: None,
            priority: 0,
            created_at: self.now(),
            not_before: None,
            deadline: self.now() + secs(3_600),
            expiry_key: self.now() + secs(3_600),
            metadata: BTreeMap::new(),
            body: r#"{"messages":[{"role":"user","content":"hi"}]}"#.to_owned(),
            retry_of: None,
            callback: None,
        }
    }

    /// Submits one job that must be new.
    pub async fn add(&self, job: NewJob) -> JobId {
        let id = job.id;
        let answer = self.store.submit(vec![job]).await.unwrap();
        assert!(matches!(answer.as_slice(), [Submitted::New(_)]), "{answer:?}");
        id
    }

    pub async fn queued(&self, name: &str) -> JobId {
        self.add(self.new_job(name)).await
    }

    pub async fn claim(&self, node: NodeId, name: &str, max: u32) -> Vec<Claimed> {
        self.claim_request(node, &[(name, max)], max, false).await
    }

    pub async fn claim_request(&self, node: NodeId, names: &[(&str, u32)], max: u32, suspects: bool) -> Vec<Claimed> {
        let pipelines = names.iter().map(|(name, limit)| (pipeline(name), *limit)).collect();
        self.store.claim(ClaimRequest { node, pipelines, max, suspects }).await.unwrap()
    }

    /// Claims the one job that must be ready.
    pub async fn claim_one(&self, node: NodeId, name: &str) -> Claimed {
        let mut claimed = self.claim(node, name, 1).await;
        assert_eq!(claimed.len(), 1, "a ready job of {name}");
        claimed.remove(0)
    }

    pub fn intent(&self, job: JobId, fence: Fence, n: u32) -> Intent {
        Intent {
            attempt: AttemptId::generate(),
            job,
            fence,
            n,
            target: "openai".parse().unwrap(),
            provider: "openai".parse().unwrap(),
            model: "gpt-5.4-mini".to_owned(),
            region: None,
            started_at: self.now(),
            generation: 7,
            decision: r#"{"generation":7,"chain":["openai"],"reasons":["the only target"]}"#.to_owned(),
            assignment: None,
            fidelity: Vec::new(),
            most_cost: Some("0.05".parse().unwrap()),
            prompt_estimate: Some(120),
            told: None,
        }
    }

    /// Opens an attempt that must be allowed.
    pub async fn open(&self, job: JobId, fence: Fence, n: u32) -> AttemptId {
        let intent = self.intent(job, fence, n);
        let attempt = intent.attempt;
        assert_eq!(self.store.begin(vec![intent]).await.unwrap(), [true]);
        attempt
    }

    pub fn ended(&self, attempt: AttemptId, outcome: Outcome) -> AttemptEnd {
        AttemptEnd {
            attempt,
            ended_at: self.now(),
            outcome,
            fault: None,
            message: None,
            usage: None,
            cost: None,
            possibly_billed: false,
            provider_request_id: None,
            first_token: None,
        }
    }

    pub async fn settle(&self, job: JobId, fence: Fence, ended: Option<AttemptEnd>, next: Next) -> Settled {
        let settled = self.store.settle(vec![Settlement { job, fence, ended, next, told: None }]).await.unwrap();
        assert_eq!(settled.len(), 1);
        settled[0]
    }

    /// Takes a ready job of the pipeline to its end.
    pub async fn finish(&self, node: NodeId, name: &str) -> JobId {
        let claimed = self.claim_one(node, name).await;
        let attempt = self.open(claimed.id, claimed.fence, 1).await;
        let end = self.ended(attempt, Outcome::Succeeded);
        let settled = self.settle(claimed.id, claimed.fence, Some(end), Next::Succeed("{}".to_owned())).await;
        assert_eq!(settled, Settled::Applied);
        claimed.id
    }

    pub async fn record(&self, id: JobId) -> JobRecord {
        self.store.job(id).await.unwrap().expect("the job is there")
    }

    pub async fn state(&self, id: JobId) -> State {
        self.record(id).await.summary.state
    }
}

macro_rules! suite {
    ($($room:ident { $($case:ident),* $(,)? })*) => {
        mod memory {
            $($(
                #[tokio::test]
                async fn $case() {
                    super::$room::$case(&super::Bench::memory()).await;
                }
            )*)*
        }
        mod sqlite {
            $($(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $case() {
                    super::$room::$case(&super::Bench::sqlite()).await;
                }
            )*)*
        }
        mod postgres {
            /// All cases, each in a database of its own, on one server.
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn every_case() {
                let server = std::sync::Arc::new(super::Server::start());
                let some = std::sync::Arc::new(tokio::sync::Semaphore::new(4));
                let mut cases = Vec::new();
                $($(
                    let (server_of_all, some_at_once) = (server.clone(), some.clone());
                    cases.push((
                        concat!(stringify!($room), "::", stringify!($case)),
                        tokio::spawn(async move {
                            let _turn = some_at_once.acquire().await.unwrap();
                            super::$room::$case(&super::Bench::postgres(&server_of_all).await).await;
                        }),
                    ));
                )*)*
                let mut red = Vec::new();
                for (name, case) in cases {
                    if case.await.is_err() {
                        red.push(name);
                    }
                }
                assert!(red.is_empty(), "these fail on PostgreSQL: {red:?}");
            }
        }
    };
}

suite! {
    submitting {
        a_job_is_kept_as_given,
        any_text_is_kept,
        a_repeated_key_is_the_same_job,
        keys_are_unique_for_pipeline_and_caller,
        the_same_id_is_the_same_job,
        jobs_wait_for_their_time,
        many_jobs_are_answered_in_order,
        a_running_job_is_there_with_its_first_attempt,
    }
    working {
        claims_follow_priority_and_age_over_all_pipelines,
        claims_keep_to_their_limits,
        a_job_is_claimed_once,
        intents_are_written_under_the_fence_alone,
        beginning_twice_is_one_attempt,
        each_settlement_leads_to_its_state,
        a_stale_worker_closes_its_attempt_and_nothing_else,
        a_closed_attempt_stays_as_it_was,
        a_second_claim_brings_the_past,
        the_first_assignment_stays,
        hints_tell_of_ready_and_ended_jobs,
    }
    transitions { every_operation_takes_the_step_of_the_state_machine }
    steering {
        cancel_says_what_it_found,
        held_time_does_not_count,
        release_keeps_to_pipeline_and_limit,
        promotion_moves_what_is_due,
        expiry_judges_each_pipeline_by_its_own_moment,
        expiry_takes_the_fence,
    }
    recovery {
        a_restart_takes_its_jobs_back,
        a_job_that_was_only_claimed_counts_no_crash,
        two_crashes_make_a_suspect_and_the_next_ends_it,
        suspects_run_one_at_a_time,
        a_seen_end_ends_the_row_of_crashes,
        a_clean_stop_leaves_nothing_to_count,
        silent_nodes_lose_their_jobs,
        the_asking_node_is_never_silent,
        a_cancelled_call_is_listed_after_a_crash,
        a_live_job_ends_with_its_daemon,
        a_late_bill_is_taken_over_an_unseen_end,
        nodes_are_known_with_when_they_were_heard,
    }
    telling {
        every_end_has_its_notice,
        who_asked_for_none_gets_none,
        a_quarantined_job_has_its_notice,
        a_notice_outlives_its_job,
    }
    contents {
        a_content_is_read_when_it_is_sealed,
        pieces_come_one_after_another,
        a_deleted_content_is_gone,
    }
    observing {
        observations_are_written_with_the_jobs,
        what_is_no_evidence_leaves_none,
        observations_are_numbered_read_and_forgotten,
    }
    leading {
        one_node_leads_and_its_token_fences,
        a_new_life_leads_anew,
        documents_change_only_under_their_conditions,
        revisions_follow_documents,
    }
    retention {
        prompts_go_first_then_jobs_then_the_ledger,
        live_jobs_are_never_touched,
        a_job_stays_while_a_call_is_open,
        a_pruned_key_is_free_again,
        pruning_keeps_to_its_limit,
    }
    past {
        recorded_jobs_come_in_pages,
        the_ledger_tells_of_every_ended_call,
        the_ledger_comes_in_pages,
        ends_are_counted,
    }
    reading {
        unknown_things_are_none,
        lists_filter_and_page,
        long_filters_hand_out_cursors,
        counts_follow_every_step,
        the_oldest_ready_job_is_known,
        spending_is_exact,
        traffic_is_summed_apart_from_what_was_not_seen,
        spending_is_known_by_caller,
        outcomes_come_in_order,
        documents_and_audit_are_one_change,
        documents_come_in_pages,
    }
}
