//! Submitting to a daemon that keeps jobs by key, and that can be made to misbehave.

use std::{
    collections::{BTreeMap, VecDeque},
    fmt::Write as _,
    path::PathBuf,
    sync::{Arc, Mutex},
};

use axum::{
    Router,
    body::{Body, Bytes},
    extract::{Path as Segment, State as Shared},
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::{get, post},
};
use serde_json::{Value, json};

use crate::cli::{
    exit::Exit,
    tests::{Ended, Server, landbridge},
};

/// What the daemon does to a submit.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Fate {
    Answer,
    /// Keeps the jobs, and cuts the answer off in the middle.
    CutOff,
    /// Keeps the jobs, and answers for half of them.
    Half,
    Busy,
    /// Answers for one line that the store was busy.
    LineBusy,
    Refuse,
}

#[derive(Default)]
struct Kept {
    /// Jobs by key, in the order of their coming.
    jobs: BTreeMap<String, (usize, Value)>,
    fates: VecDeque<Fate>,
    /// Lines and bytes of each request.
    requests: Vec<(usize, usize)>,
    /// Requests with more lines are refused as too large.
    most_lines: Option<usize>,
}

type State = Arc<Mutex<Kept>>;

fn id(n: usize) -> String {
    format!("job_{n:032x}")
}

async fn submit(Shared(state): Shared<State>, body: Bytes) -> Response {
    let mut kept = state.lock().unwrap();
    let lines: Vec<Value> = body
        .split(|byte| *byte == b'\n')
        .filter(|line| !line.is_empty())
        .map(|line| serde_json::from_slice(line).unwrap())
        .collect();
    kept.requests.push((lines.len(), body.len()));
    if kept.most_lines.is_some_and(|most| lines.len() > most) {
        let error = json!({"error": {"message": "the body is too large"}});
        return (StatusCode::PAYLOAD_TOO_LARGE, error.to_string()).into_response();
    }
    let fate = kept.fates.pop_front().unwrap_or(Fate::Answer);
    match fate {
        Fate::Busy => {
            let error = json!({"error": {"message": "the store is busy"}});
            return (StatusCode::SERVICE_UNAVAILABLE, [("retry-after", "0")], error.to_string()).into_response();
        }
        Fate::Refuse => {
            return (StatusCode::FORBIDDEN, json!({"error": {"message": "not with this key"}}).to_string())
                .into_response();
        }
        _ => {}
    }
    let mut answer = String::new();
    for (place, job) in lines.into_iter().enumerate() {
        let line = if fate == Fate::LineBusy && place == 0 {
            json!({"line": 1, "error": {"message": "the store is busy", "type": "service_unavailable_error"}})
        } else if job["body"]["messages"].is_array() {
            let key = job["idempotency_key"].as_str().unwrap().to_owned();
            let n = kept.jobs.len() + 1;
            let (n, _) = kept.jobs.entry(key).or_insert((n, job));
            json!({"line": place + 1, "id": id(*n), "state": "queued"})
        } else {
            json!({"line": place + 1, "error": {"message": "is missing", "type": "invalid_request_error", "param": "body.messages"}})
        };
        writeln!(answer, "{line}").unwrap();
    }
    if fate == Fate::Half {
        let lines: Vec<&str> = answer.split_inclusive('\n').collect();
        return lines[..lines.len() / 2].concat().into_response();
    }
    if fate == Fate::CutOff {
        let half = answer[..answer.len() / 2].to_owned();
        let parts = [Ok(half), Err(std::io::Error::other("cut off"))];
        return Response::new(Body::from_stream(futures_util::stream::iter(parts)));
    }
    answer.into_response()
}

/// Every job whose prompt says so fails.
async fn job(Shared(state): Shared<State>, Segment(wanted): Segment<String>) -> Response {
    let kept = state.lock().unwrap();
    let Some((key, (_, job))) = kept.jobs.iter().find(|(_, (n, _))| id(*n) == wanted) else {
        return (StatusCode::NOT_FOUND, json!({"error": {"message": "no such job"}}).to_string()).into_response();
    };
    let fails = job["body"]["messages"].to_string().contains("fail");
    let answer = if fails {
        json!({"id": wanted, "state": "failed", "error": {"message": "it was to fail", "type": "invalid_request_error", "code": null}})
    } else {
        json!({"id": wanted, "state": "succeeded", "result": {"echo": key}})
    };
    answer.to_string().into_response()
}

struct Scene {
    server: Server,
    state: State,
    folder: tempfile::TempDir,
}

impl Scene {
    fn new(fates: &[Fate]) -> Self {
        let state: State = Arc::default();
        state.lock().unwrap().fates = fates.iter().copied().collect();
        let router = Router::new()
            .route("/v1/jobs", post(submit))
            .route("/v1/jobs/{id}", get(job))
            .layer(axum::extract::DefaultBodyLimit::disable())
            .with_state(Arc::clone(&state));
        Self { server: Server::start(router), state, folder: tempfile::tempdir().unwrap() }
    }

    fn file(&self, text: &str) -> PathBuf {
        let path = self.folder.path().join("jobs.jsonl");
        std::fs::write(&path, text).unwrap();
        path
    }

    fn submit(&self, text: &str, options: &[&str]) -> Ended {
        let path = self.file(text);
        let mut arguments = vec!["submit", path.to_str().unwrap(), "--url", &self.server.url];
        arguments.extend(options);
        landbridge(&arguments)
    }

    fn keys(&self) -> Vec<String> {
        self.state.lock().unwrap().jobs.keys().cloned().collect()
    }

    fn requests(&self) -> Vec<(usize, usize)> {
        self.state.lock().unwrap().requests.clone()
    }
}

fn line(key: &str, prompt: &str) -> String {
    format!(
        "{{\"custom_id\":\"{key}\",\"method\":\"POST\",\"url\":\"/v1/chat/completions\",\"body\":{{\"messages\":[{{\"role\":\"user\",\"content\":\"{prompt}\"}}]}}}}\n"
    )
}

fn many(count: usize, prompt: &str) -> String {
    (1..=count).map(|n| line(&format!("k{n:05}"), prompt)).collect()
}

#[test]
fn a_large_file_goes_in_bounded_requests() {
    let scene = Scene::new(&[]);
    let ended = scene.submit(&many(2_500, "hi"), &[]);
    assert_eq!((ended.exit, ended.out.as_str()), (Exit::Success, "2,500 lines accepted\n"), "{}", ended.err);
    assert_eq!(scene.keys().len(), 2_500);
    let mut lines: Vec<usize> = scene.requests().into_iter().map(|(lines, _)| lines).collect();
    lines.sort_unstable();
    assert_eq!(lines, [500, 1_000, 1_000]);

    let scene = Scene::new(&[]);
    let big = "x".repeat(1 << 20);
    let ended = scene.submit(&format!("{}{}", many(9, &big), line("huge", &"y".repeat(5 << 20))), &[]);
    assert_eq!(ended.exit, Exit::Success, "{}", ended.err);
    assert_eq!(scene.keys().len(), 10);
    let requests = scene.requests();
    let within = |(lines, bytes): &(usize, usize)| *lines == 1 || *bytes <= (4 << 20) + 1024;
    assert!(requests.len() >= 4 && requests.iter().all(within), "{requests:?}");
}

#[test]
fn a_lost_answer_is_asked_for_again_without_doubling() {
    let scene = Scene::new(&[Fate::CutOff, Fate::Busy, Fate::Half, Fate::LineBusy]);
    let ended = scene.submit(&many(20, "hi"), &[]);
    assert_eq!(ended.exit, Exit::Success, "{}", ended.err);
    assert_eq!(scene.keys().len(), 20);
    assert_eq!(scene.requests().len(), 5);
    // A whole second run changes nothing either.
    let ended = scene.submit(&many(20, "hi"), &[]);
    assert_eq!(ended.exit, Exit::Success);
    assert_eq!(scene.keys().len(), 20);
}

#[test]
fn patience_has_an_end() {
    let scene = Scene::new(&[Fate::Busy; 100]);
    let ended = scene.submit(&many(2, "hi"), &["--retry-for", "0s"]);
    assert_eq!(ended.exit, Exit::Failed);
    assert!(ended.err.contains("the store is busy") && ended.err.contains("0 lines accepted so far"), "{}", ended.err);
    assert_eq!(scene.requests().len(), 1);

    let url = scene.server.url.clone();
    let path = scene.file(&many(1, "hi"));
    drop(scene.server);
    let ended = landbridge(&["submit", path.to_str().unwrap(), "--url", &url, "--retry-for", "300ms"]);
    assert_eq!(ended.exit, Exit::Unreachable, "{}", ended.err);
}

#[test]
fn a_refusal_of_the_whole_is_not_repeated() {
    let scene = Scene::new(&[Fate::Refuse]);
    let ended = scene.submit(&many(2, "hi"), &[]);
    assert_eq!(ended.exit, Exit::Failed);
    assert!(ended.err.contains("not with this key"), "{}", ended.err);
    assert_eq!(scene.requests().len(), 1);
}

#[test]
fn a_request_that_is_too_large_is_halved() {
    let scene = Scene::new(&[]);
    scene.state.lock().unwrap().most_lines = Some(3);
    let ended = scene.submit(&many(10, "hi"), &["--format", "json"]);
    assert_eq!(ended.exit, Exit::Success, "{}", ended.err);
    assert_eq!(scene.keys().len(), 10);
    let lines: Vec<u64> =
        ended.out.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()["line"].as_u64().unwrap()).collect();
    assert_eq!(lines, (1..=10).collect::<Vec<u64>>(), "in the order of the file");
}

#[test]
fn bad_lines_are_named_and_stop_no_other() {
    let scene = Scene::new(&[]);
    let text = format!(
        "{}not json\n\n{}{{\"custom_id\":\"c\",\"body\":{{}}}}\n[1]\n{}",
        line("a", "hi"),
        line("b", "hi"),
        line("d", "hi")
    );
    let ended = scene.submit(&text, &[]);
    assert_eq!((ended.exit, ended.out.as_str()), (Exit::Failed, "3 lines accepted, 3 refused\n"));
    for expected in
        ["jobs.jsonl:2: not JSON", "jobs.jsonl:5: body.messages: is missing", "jobs.jsonl:6: not a JSON object"]
    {
        assert!(ended.err.contains(expected), "{expected} is not in {}", ended.err);
    }
    assert_eq!(scene.keys(), ["a", "b", "d"]);

    let ended = scene.submit(&text, &["--format", "json"]);
    let lines: Vec<Value> = ended.out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.iter().map(|line| line["line"].as_u64().unwrap()).collect::<Vec<_>>(), [1, 2, 4, 5, 6, 7]);
    assert_eq!(lines[0], json!({"line": 1, "id": id(1), "key": "a", "state": "queued"}));
    assert!(lines[1]["error"]["message"].is_string());
}

#[test]
fn results_are_written_once_for_each_key_in_order() {
    let scene = Scene::new(&[]);
    let text = [line("z", "hi"), line("a", "fail"), line("z", "hi"), line("m", "hi")].concat();
    let out = scene.folder.path().join("out.jsonl");
    let ended = scene.submit(&text, &["--wait", "-o", out.to_str().unwrap()]);
    assert_eq!(ended.exit, Exit::JobsFailed, "{}", ended.err);
    assert_eq!(ended.out, "4 lines accepted (1 repeated key)\n2 jobs succeeded, 1 without a result\n");
    assert!(ended.err.contains("it was to fail"), "{}", ended.err);
    let lines: Vec<Value> =
        std::fs::read_to_string(&out).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let keys: Vec<&str> = lines.iter().map(|line| line["custom_id"].as_str().unwrap()).collect();
    assert_eq!(keys, ["z", "a", "m"]);
    assert_eq!(lines[0]["response"]["body"], json!({"echo": "z"}));
    assert_eq!(lines[1]["error"]["message"], "it was to fail");

    let ended = scene.submit(&line("z", "hi"), &["--wait", "-o", "-"]);
    assert_eq!(ended.exit, Exit::Success);
    assert_eq!(ended.out.lines().count(), 1, "{}", ended.out);
    assert!(ended.err.contains("1 line accepted"), "{}", ended.err);
}

#[test]
fn input_that_cannot_be_read_says_so() {
    let scene = Scene::new(&[]);
    for (path, expected) in [("/no/such/file.jsonl", "No such file"), ("/", "it is a folder")] {
        let ended = landbridge(&["submit", path, "--url", &scene.server.url]);
        assert_eq!(ended.exit, Exit::Failed);
        assert!(ended.err.contains(expected) && ended.err.contains(path), "{}", ended.err);
    }
    let ended = scene.submit("", &[]);
    assert_eq!((ended.exit, ended.out.as_str()), (Exit::Success, "0 lines accepted\n"));
}
