//! How fast the SQLite store is, beside the least that SQLite itself could do for a queue on the same disk in the same run.
//!
//! `cargo bench --bench store [-- SECTION… --jobs N --folder DIR]`; sections: submit, work, claim, and postgres, on a server
//! of its own from Debian's package. The folder must lie on a disk (not a tmpfs), or the figures say nothing about durability.

mod postgres;
mod raw;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use landbridge::{
    clock::{Clock, SystemClock},
    ids::{AttemptId, JobId, NodeId},
    job::Outcome,
    names::PipelineName,
    store::{AttemptEnd, ClaimRequest, Claimed, Intent, NewJob, Next, Settled, Settlement, SqliteStore, Store},
    usage::Usage,
};
use tokio::{sync::Semaphore, task::JoinSet};

/// Submitters at once, as the target says.
const SUBMITTERS: usize = 64;
/// Jobs in flight in the no-op loop.
const IN_FLIGHT: usize = 256;
const BODY: usize = 1_024;

struct Options {
    sections: Vec<String>,
    jobs: usize,
    folder: PathBuf,
}

fn options() -> Options {
    let mut options =
        Options { sections: Vec::new(), jobs: 200_000, folder: PathBuf::from(env!("CARGO_TARGET_TMPDIR")) };
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "--jobs" => options.jobs = args.next().and_then(|n| n.parse().ok()).expect("--jobs N"),
            "--folder" => options.folder = args.next().expect("--folder DIR").into(),
            "--bench" => {}
            section => options.sections.push(section.to_owned()),
        }
    }
    options
}

fn pipeline() -> PipelineName {
    PipelineName::new("bench").expect("a name")
}

fn job(body: usize) -> NewJob {
    let now = SystemClock.now();
    NewJob {
        id: JobId::generate(),
        pipeline: pipeline(),
        caller: String::new(),
        idempotency_key: None,
        digest: [0; 32],
        batch: None,
        priority: 0,
        created_at: now,
        not_before: None,
        deadline: now + Duration::from_hours(24),
        expiry_key: now + Duration::from_hours(24),
        metadata: BTreeMap::from([("customer".to_owned(), "c-1".to_owned())]),
        body: "x".repeat(body),
        retry_of: None,
        callback: None,
    }
}

fn open(folder: &Path) -> SqliteStore {
    SqliteStore::open(&folder.join("queue.db"), Arc::new(SystemClock)).expect("the store opens")
}

fn rate(jobs: usize, took: Duration) -> f64 {
    jobs as f64 / took.as_secs_f64()
}

/// Has `SUBMITTERS` tasks do `jobs` awaited things in all; how long it took.
async fn submitters<F, W>(jobs: usize, one: impl Fn() -> F + Clone + Send + 'static) -> Duration
where
    F: Future<Output = W> + Send,
    W: Send + 'static,
{
    let left = Arc::new(AtomicUsize::new(jobs));
    let started = Instant::now();
    let mut tasks = JoinSet::new();
    for _ in 0..SUBMITTERS {
        let (left, one) = (left.clone(), one.clone());
        tasks.spawn(async move {
            while left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| n.checked_sub(1)).is_ok() {
                one().await;
            }
        });
    }
    while tasks.join_next().await.is_some() {}
    started.elapsed()
}

async fn submit(options: &Options) {
    let folder = tempfile::tempdir_in(&options.folder).expect("a folder");
    let raw = Arc::new(raw::Queue::open(&folder.path().join("raw.db")));
    let store = Arc::new(open(folder.path()));
    let text: Arc<str> = "x".repeat(BODY).into();
    // In turns, so that a noisy neighbour on the disk meets both alike.
    let (mut ours, mut theirs) = (Duration::ZERO, Duration::ZERO);
    let part = options.jobs / 4;
    for _ in 0..4 {
        let (queue, text) = (raw.clone(), text.clone());
        theirs += submitters(part, move || {
            let (queue, text) = (queue.clone(), text.clone());
            async move { queue.submit(text).await }
        })
        .await;
        let store = store.clone();
        ours += submitters(part, move || {
            let store = store.clone();
            async move { store.submit(vec![job(BODY)]).await.expect("accepted") }
        })
        .await;
    }
    report("durable submit, 64 submitters, 1 KiB", rate(part * 4, ours), rate(part * 4, theirs), 30_000.0, 0.70);
}

fn report(what: &str, ours: f64, raw: f64, target: f64, share: f64) {
    let met = ours >= target.min(raw * share);
    println!(
        "{what:<44} {ours:>9.0}/s   raw {raw:>9.0}/s   {:>4.0} %   {}",
        100.0 * ours / raw,
        if met { "met" } else { "MISSED" }
    );
}

async fn call(store: &impl Store, job: Claimed) {
    let attempt = AttemptId::generate();
    let intent = Intent {
        attempt,
        job: job.id,
        fence: job.fence,
        n: 1,
        target: "openai".parse().expect("a name"),
        provider: "openai".parse().expect("a name"),
        model: "gpt-5.4-mini".to_owned(),
        region: None,
        started_at: SystemClock.now(),
        generation: 1,
        decision: r#"{"generation":1,"rule":"migrate","chain":["openai","bedrock"],"reasons":["rule 2 `migrate` matched","bucket 4420 is below 25 %"]}"#
            .to_owned(),
        assignment: None,
        fidelity: Vec::new(),
        most_cost: None,
        prompt_estimate: Some(1_200),
        told: None,
    };
    assert_eq!(store.begin(vec![intent]).await.expect("begun"), [true]);
    let ended = AttemptEnd {
        attempt,
        ended_at: SystemClock.now(),
        outcome: Outcome::Succeeded,
        fault: None,
        message: None,
        usage: Some(Usage { input: 100, output: 20, ..Usage::default() }),
        cost: Some("0.000123".parse().expect("an amount")),
        possibly_billed: false,
        provider_request_id: Some("req_0123456789".to_owned()),
        first_token: None,
    };
    let settlement = Settlement {
        job: job.id,
        fence: job.fence,
        ended: Some(ended),
        next: Next::Succeed("y".repeat(512)),
        told: None,
    };
    assert_eq!(store.settle(vec![settlement]).await.expect("settled"), [Settled::Applied]);
}

fn request(node: NodeId, max: usize) -> ClaimRequest {
    let max = u32::try_from(max).expect("a small number");
    ClaimRequest { node, pipelines: vec![(pipeline(), max)], max, suspects: false }
}

async fn drain_ours(store: &Arc<SqliteStore>, jobs: usize) -> Duration {
    let permits = Arc::new(Semaphore::new(IN_FLIGHT));
    let started = Instant::now();
    let mut tasks = JoinSet::new();
    let mut done = 0;
    while done < jobs {
        let first = permits.clone().acquire_owned().await.expect("open");
        let mut held = vec![first];
        while let Ok(more) = permits.clone().try_acquire_owned() {
            held.push(more);
        }
        let most = held.len().min(jobs - done);
        let claimed = store.claim(request(store.local_node(), most)).await.expect("claimed");
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
    started.elapsed()
}

async fn drain_raw(queue: &Arc<raw::Queue>, jobs: usize) -> Duration {
    let permits = Arc::new(Semaphore::new(IN_FLIGHT));
    let started = Instant::now();
    let mut tasks = JoinSet::new();
    let mut done = 0;
    while done < jobs {
        let first = permits.clone().acquire_owned().await.expect("open");
        let mut held = vec![first];
        while let Ok(more) = permits.clone().try_acquire_owned() {
            held.push(more);
        }
        let claimed = queue.claim(held.len().min(jobs - done)).await;
        done += claimed.len();
        for ((id, _body), permit) in claimed.into_iter().zip(held) {
            let queue = queue.clone();
            tasks.spawn(async move {
                let attempt = queue.begin(id).await;
                queue.settle(id, attempt, "y".repeat(512)).await;
                drop(permit);
            });
        }
        while tasks.try_join_next().is_some() {}
    }
    while tasks.join_next().await.is_some() {}
    started.elapsed()
}

async fn fill(store: &SqliteStore, jobs: usize, body: usize) {
    let mut left = jobs;
    while left > 0 {
        let some = left.min(2_048);
        store.submit((0..some).map(|_| job(body)).collect()).await.expect("accepted");
        left -= some;
    }
}

async fn work(options: &Options) {
    let folder = tempfile::tempdir_in(&options.folder).expect("a folder");
    let store = Arc::new(open(folder.path()));
    let raw = Arc::new(raw::Queue::open(&folder.path().join("raw.db")));
    let jobs = options.jobs / 2;
    fill(&store, jobs, BODY).await;
    raw.fill(jobs, BODY).await;
    let (mut ours, mut theirs) = (Duration::ZERO, Duration::ZERO);
    let part = jobs / 4;
    for _ in 0..4 {
        theirs += drain_raw(&raw, part).await;
        ours += drain_ours(&store, part).await;
    }
    report("no-op work: claim, intent, settle", rate(part * 4, ours), rate(part * 4, theirs), 20_000.0, 0.60);
}

fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<u64>().ok()).unwrap_or(0) / 1_024
}

/// Median and worst of 200 claims of one job and of 64.
async fn claim_times(store: &SqliteStore, what: &str) -> Duration {
    let mut medians = Vec::new();
    for size in [1, 64] {
        let mut times = Vec::new();
        for _ in 0..200 {
            if size * 201 > 1_000 && times.len() * size >= 640 {
                break;
            }
            let started = Instant::now();
            let claimed = store.claim(request(store.local_node(), size)).await.expect("claimed");
            times.push(started.elapsed());
            assert_eq!(claimed.len(), size);
        }
        times.sort();
        let (median, worst) = (times[times.len() / 2], times[times.len() - 1]);
        println!("claim of {size:>2} with {what:<24} median {median:>10.1?}   worst {worst:>10.1?}");
        medians.push(median);
    }
    medians[0]
}

async fn claim(options: &Options) {
    let few = tempfile::tempdir_in(&options.folder).expect("a folder");
    let store = open(few.path());
    fill(&store, 1_000, 200).await;
    let small = claim_times(&store, "1,000 queued").await;
    drop(store);

    let many = tempfile::tempdir_in(&options.folder).expect("a folder");
    let store = open(many.path());
    fill(&store, 10_000, 200).await;
    let before = resident();
    let started = Instant::now();
    fill(&store, 990_000, 200).await;
    println!("990,000 jobs in bulk: {:.1?}; memory {before} MiB before, {} MiB after", started.elapsed(), resident());
    let large = claim_times(&store, "1,000,000 queued").await;
    let ratio = large.as_secs_f64() / small.as_secs_f64();
    println!("claim time, 1,000,000 to 1,000 queued: {ratio:.2}   {}", if ratio <= 2.0 { "met" } else { "MISSED" });
    drop(store);
    let started = Instant::now();
    let store = open(many.path());
    let opened = started.elapsed();
    let recovered = store.register(store.local_node()).await.expect("registered");
    let claimed = store.claim(request(store.local_node(), 1)).await.expect("claimed");
    let ready = started.elapsed();
    assert!(recovered.requeued > 0 && claimed.len() == 1);
    println!(
        "restart with 1,000,000 queued: open {opened:.1?}, {} taken back and first claim {ready:.1?}   {}",
        recovered.requeued,
        if ready < Duration::from_secs(2) { "met" } else { "MISSED" }
    );
}

fn main() {
    let options = options();
    let wanted = |section: &str| options.sections.is_empty() || options.sections.iter().any(|one| one == section);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        if wanted("submit") {
            submit(&options).await;
        }
        if wanted("work") {
            work(&options).await;
        }
        if wanted("claim") {
            claim(&options).await;
        }
        if wanted("postgres") {
            postgres::postgres(&options).await;
        }
    });
}
