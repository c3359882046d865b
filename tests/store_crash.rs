//! A real process writes to a store and is killed at random moments; a disk that takes no more. The test starts itself
//! again as the child that is to die. What the child said it had been promised must be there afterwards.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::{BufRead, BufReader, Write},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use landbridge::{
    clock::{Clock, SystemClock},
    ids::{AttemptId, JobId},
    job::{Outcome, State},
    names::PipelineName,
    store::{
        AttemptEnd, ClaimRequest, Claimed, Intent, JobError, JobQuery, NewJob, Next, Settled, Settlement, SqliteStore,
        Store, StoreError, Submitted,
    },
};
use rand::{Rng, SeedableRng, rngs::StdRng};

/// Where the child finds its file.
const FILE: &str = "LANDBRIDGE_CRASH_TEST_FILE";
const ROUNDS: u64 = 10;

fn pipelines() -> [PipelineName; 2] {
    ["a", "b"].map(|name| PipelineName::new(name).unwrap())
}

fn new_job(number: u64, key: Option<String>) -> NewJob {
    let now = SystemClock.now();
    NewJob {
        id: JobId::generate(),
        pipeline: pipelines()[usize::from(number.is_multiple_of(3))].clone(),
        caller: String::new(),
        idempotency_key: key,
        digest: [7; 32],
        batch: number.is_multiple_of(2).then(|| "even".to_owned()),
        priority: 0,
        created_at: now,
        not_before: number.is_multiple_of(10).then(|| now + Duration::from_millis(20)),
        deadline: now + Duration::from_hours(1),
        expiry_key: now + Duration::from_hours(1),
        metadata: BTreeMap::new(),
        body: format!("{{\"n\":{number},\"pad\":\"{}\"}}", "x".repeat(usize::try_from(number % 2_000).unwrap())),
        retry_of: None,
        callback: None,
    }
}

fn open(path: &Path) -> Result<SqliteStore, StoreError> {
    SqliteStore::open(path, Arc::new(SystemClock))
}

/// Tells the parent what the store has promised. One line, at once.
fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}").unwrap();
    out.flush().unwrap();
}

async fn submit_forever(store: Arc<SqliteStore>, numbers: Arc<AtomicU64>) {
    loop {
        let number = numbers.fetch_add(1, Ordering::Relaxed);
        let jobs: Vec<NewJob> = (0..=number % 3)
            .map(|n| new_job(number * 3 + n, (n == 1).then(|| format!("{}-{number}", std::process::id()))))
            .collect();
        let ids: Vec<JobId> = jobs.iter().map(|job| job.id).collect();
        let answers = store.submit(jobs).await.unwrap();
        for (id, answer) in ids.into_iter().zip(answers) {
            assert!(matches!(answer, Submitted::New(_)));
            say(&format!("accepted {id}"));
        }
    }
}

async fn call(store: &SqliteStore, job: &Claimed, rng: &mut StdRng) {
    let attempt = AttemptId::generate();
    let intent = Intent {
        attempt,
        job: job.id,
        fence: job.fence,
        n: u32::try_from(job.attempts.len()).unwrap() + 1,
        target: "openai".parse().unwrap(),
        provider: "openai".parse().unwrap(),
        model: "m".to_owned(),
        region: None,
        started_at: SystemClock.now(),
        generation: 1,
        decision: "{}".to_owned(),
        assignment: None,
        fidelity: Vec::new(),
        most_cost: None,
        prompt_estimate: None,
        told: None,
    };
    assert_eq!(store.begin(vec![intent]).await.unwrap(), [true]);
    let next = match rng.random_range(0..10) {
        0 => Next::Queue,
        1 => Next::Wait(SystemClock.now() + Duration::from_millis(5)),
        2 => Next::Fail(JobError {
            reason_code: "refused".to_owned(),
            message: job.id.to_string(),
            kind: "x".to_owned(),
            code: None,
            param: None,
        }),
        _ => Next::Succeed(format!("\"{}\"", job.id)),
    };
    let word = match next {
        Next::Fail(_) => Some("failed"),
        Next::Succeed(_) => Some("succeeded"),
        _ => None,
    };
    let ended = Some(AttemptEnd {
        attempt,
        ended_at: SystemClock.now(),
        outcome: Outcome::Succeeded,
        fault: None,
        message: None,
        usage: None,
        cost: Some("0.01".parse().unwrap()),
        possibly_billed: false,
        provider_request_id: None,
        first_token: None,
    });
    let settled =
        store.settle(vec![Settlement { job: job.id, fence: job.fence, ended, next, told: None }]).await.unwrap();
    assert_eq!(settled, [Settled::Applied]);
    if let Some(word) = word {
        say(&format!("{word} {}", job.id));
    }
}

async fn work_forever(store: Arc<SqliteStore>, seed: u64) {
    let mut rng = StdRng::seed_from_u64(seed);
    loop {
        store.promote(SystemClock.now(), 50).await.unwrap();
        let pipelines = pipelines().into_iter().map(|name| (name, 4)).collect();
        let suspects = rng.random_range(0..20) == 0;
        let request = ClaimRequest { node: store.local_node(), pipelines, max: 4, suspects };
        for job in store.claim(request).await.unwrap() {
            call(&store, &job, &mut rng).await;
        }
        tokio::task::yield_now().await;
    }
}

#[test]
#[ignore = "the process that the crash test kills"]
fn child_that_is_killed() {
    let path = PathBuf::from(std::env::var(FILE).expect("started by the crash test"));
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let store = Arc::new(open(&path).unwrap());
        store.register(store.local_node()).await.unwrap();
        say("ready");
        let numbers = Arc::new(AtomicU64::new(0));
        let mut tasks = tokio::task::JoinSet::new();
        for seed in 0..4 {
            tasks.spawn(submit_forever(store.clone(), numbers.clone()));
            tasks.spawn(work_forever(store.clone(), seed));
        }
        // Ends by a kill, or by a defect.
        tasks.join_next().await.unwrap().unwrap();
    });
}

fn start(child: &str, path: &Path) -> (Child, BufReader<std::process::ChildStdout>) {
    let mut process = Command::new(std::env::current_exe().unwrap())
        .args([child, "--exact", "--ignored", "--nocapture"])
        .env(FILE, path)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let out = BufReader::new(process.stdout.take().unwrap());
    (process, out)
}

/// What the children were promised, over all rounds.
#[derive(Default)]
struct Promises {
    accepted: BTreeSet<JobId>,
    ended: BTreeMap<JobId, State>,
}

impl Promises {
    fn hear(&mut self, line: &str) {
        let Some((word, id)) = line.split_once(' ') else { return };
        let Ok(id) = id.parse::<JobId>() else { return };
        match word {
            "accepted" => assert!(self.accepted.insert(id), "{id} accepted twice"),
            "succeeded" => assert_eq!(self.ended.insert(id, State::Succeeded), None, "{id} ended twice"),
            "failed" => assert_eq!(self.ended.insert(id, State::Failed), None, "{id} ended twice"),
            _ => {}
        }
    }

    /// Opens the file as a restarted daemon does, and holds it against what was promised.
    async fn check(&mut self, path: &Path) -> u64 {
        let store = open(path).unwrap();
        let recovered = store.register(store.local_node()).await.unwrap();
        let mut counted = BTreeMap::<(PipelineName, State), u64>::new();
        let mut batch = BTreeMap::<State, u64>::new();
        let mut query = JobQuery { limit: 1_000, ..JobQuery::default() };
        let mut found = BTreeSet::new();
        loop {
            let page = store.list(query.clone()).await.unwrap();
            for job in page.jobs {
                assert!(found.insert(job.id), "{} listed twice", job.id);
                assert_ne!(job.state, State::Running, "{} was taken back", job.id);
                *counted.entry((job.pipeline, job.state)).or_default() += 1;
                if job.batch.is_some() {
                    *batch.entry(job.state).or_default() += 1;
                }
                if let Some(state) = self.ended.get(&job.id) {
                    assert_eq!(job.state, *state, "{}", job.id);
                } else if job.state.is_terminal() {
                    // Ended, though the answer did not get out: from now on it must stay so.
                    self.ended.insert(job.id, job.state);
                }
            }
            let Some(next) = page.next else { break };
            query.after = Some(next);
        }
        let lost: Vec<_> = self.accepted.difference(&found).collect();
        assert!(lost.is_empty(), "accepted and lost: {lost:?}");
        assert!(self.ended.keys().all(|id| found.contains(id)));
        assert_eq!(store.counts().await.unwrap(), counted, "kept counts are true");
        assert_eq!(store.batch_counts("even").await.unwrap(), batch, "kept batch counts are true");
        for (id, state) in self.ended.iter().take(200) {
            let record = store.job(*id).await.unwrap().unwrap();
            assert_eq!(record.result.is_some(), *state == State::Succeeded);
            assert_eq!(record.error.is_some(), *state == State::Failed);
            assert!(record.attempts.iter().all(|attempt| attempt.outcome != Outcome::Open), "{id}");
        }
        store.deregister(store.local_node()).await.unwrap();
        drop(store);
        let conn = rusqlite::Connection::open(path).unwrap();
        let sound: String = conn.query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
        assert_eq!(sound, "ok");
        recovered.unknown_attempts
    }
}

#[test]
fn nothing_promised_is_lost_when_the_process_is_killed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("queue.db");
    let mut rng = StdRng::seed_from_u64(20_261_122);
    let mut promises = Promises::default();
    let mut unseen = 0;
    let runtime = tokio::runtime::Runtime::new().unwrap();
    for round in 0..ROUNDS {
        let (mut child, out) = start("child_that_is_killed", &path);
        let mut lines = out.lines().map(Result::unwrap);
        assert!(lines.by_ref().any(|line| line.ends_with("ready")), "round {round}: the child started");
        // Killed after so many promises, wherever it happens to be then.
        let promised = rng.random_range(1..600);
        for line in lines.by_ref().take(promised) {
            promises.hear(&line);
        }
        child.kill().unwrap();
        for line in lines {
            promises.hear(&line);
        }
        assert!(!child.wait().unwrap().success());
        unseen += runtime.block_on(promises.check(&path));
    }
    println!("{} jobs accepted, {} ended, {unseen} calls of unseen end", promises.accepted.len(), promises.ended.len());
    assert!(promises.accepted.len() > 300 && promises.ended.len() > 100, "the rounds were long enough to tell");
}

#[test]
#[ignore = "the process that meets a full disk"]
fn child_whose_files_may_not_grow() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let path = PathBuf::from(std::env::var(FILE).expect("started by the test"));
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        // SIGXFSZ would end the process; with a handler the write fails instead.
        let _quiet = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::from_raw(25)).unwrap();
        let store = open(&path).unwrap();
        let free = getrlimit(Resource::Fsize);
        setrlimit(Resource::Fsize, Rlimit { current: Some(3 << 20), maximum: free.maximum }).unwrap();
        let mut number = 1;
        let error = loop {
            number += 2;
            let job = new_job(number, None);
            let id = job.id;
            match store.submit(vec![job]).await {
                Ok(_) => say(&format!("accepted {id}")),
                Err(error) => break error,
            }
        };
        assert!(matches!(&error, StoreError::Unwritable(text) if text.contains("queue.db")), "{error}");
        setrlimit(Resource::Fsize, free).unwrap();
        for _ in 0..10 {
            number += 2;
            let job = new_job(number, None);
            let id = job.id;
            store.submit(vec![job]).await.expect("there is space again");
            say(&format!("accepted {id}"));
        }
        say("done");
    });
}

#[test]
fn a_file_that_may_not_grow_loses_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("queue.db");
    let (mut child, out) = start("child_whose_files_may_not_grow", &path);
    let mut promises = Promises::default();
    let mut done = false;
    for line in out.lines().map(Result::unwrap) {
        done |= line == "done";
        promises.hear(&line);
    }
    assert!(child.wait().unwrap().success() && done);
    assert!(promises.accepted.len() > 100);
    tokio::runtime::Runtime::new().unwrap().block_on(promises.check(&path));
}

#[test]
#[ignore = "the process on a small disk of its own"]
fn child_on_a_small_disk() {
    let path = PathBuf::from(std::env::var(FILE).expect("started by the test"));
    let filler = path.with_file_name("filler");
    std::fs::write(&filler, vec![1; 1 << 20]).unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let store = open(&path).unwrap();
        let mut accepted = BTreeSet::new();
        let mut number = 1;
        let mut fill = async |until_full: bool| {
            for _ in 0..if until_full { 100_000 } else { 20 } {
                number += 2;
                let job = new_job(number, None);
                let id = job.id;
                match store.submit(vec![job]).await {
                    Ok(_) => accepted.insert(id),
                    Err(error) if until_full => return Some(error),
                    Err(error) => panic!("there is space again: {error}"),
                };
            }
            None
        };
        let error = fill(true).await.expect("the disk is small");
        assert!(matches!(&error, StoreError::Unwritable(text) if text.contains("disk")), "{error}");
        std::fs::remove_file(&filler).unwrap();
        fill(false).await;
        drop(store);
        let store = open(&path).unwrap();
        for id in &accepted {
            assert!(store.job(*id).await.unwrap().is_some(), "{id}");
        }
        say(&format!("done {}", accepted.len()));
    });
}

#[test]
fn a_full_disk_loses_nothing() {
    let folder = tempfile::tempdir().unwrap();
    // A disk of its own, that goes with the process. Needs the right to mount; where that is missing, the limit on file
    // sizes above stands in.
    let script =
        r#"mount -t tmpfs -o size=4m none "$1" && exec "$2" child_on_a_small_disk --exact --ignored --nocapture"#;
    let output = Command::new("unshare")
        .args(["-m", "sh", "-c", script, "sh"])
        .arg(folder.path())
        .arg(std::env::current_exe().unwrap())
        .env(FILE, folder.path().join("queue.db"))
        .output();
    let Ok(output) = output else { return println!("skipped: no unshare command") };
    let (said, complained) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    if !said.contains("running 1 test") {
        return println!("skipped: no disk can be mounted here: {complained}");
    }
    assert!(output.status.success() && said.contains("done "), "{said}{complained}");
}
