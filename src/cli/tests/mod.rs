//! Commands as a user types them, against a daemon that the test plays.

mod ahead;
mod asking;

use std::{
    collections::VecDeque,
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use axum::{
    Router,
    body::Bytes,
    extract::State as Shared,
    http::{Method, StatusCode, Uri},
};
use clap::CommandFactory;
use serde_json::{Value, json};

use super::*;

/// What a command said and how it ended.
pub(super) struct Ended {
    pub(super) exit: Exit,
    pub(super) out: String,
    pub(super) err: String,
}

/// Runs the program with these arguments.
pub(super) fn landbridge(arguments: &[&str]) -> Ended {
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let arguments = std::iter::once("landbridge").chain(arguments.iter().copied()).map(OsString::from);
    let exit = run_with(arguments, &mut Console { out: &mut out, err: &mut err, progress: false });
    Ended { exit, out: String::from_utf8(out).unwrap(), err: String::from_utf8(err).unwrap() }
}

/// A server in the background, stopped when it is dropped.
pub(super) struct Server {
    pub(super) url: String,
    stop: Option<tokio::sync::oneshot::Sender<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Server {
    pub(super) fn start(router: Router) -> Self {
        let (started, address) = std::sync::mpsc::channel::<SocketAddr>();
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
                started.send(listener.local_addr().unwrap()).unwrap();
                let serve = axum::serve(listener, router);
                tokio::select! { _ = serve => {}, _ = stopped => {} }
            });
        });
        let url = format!("http://{}", address.recv().unwrap());
        Self { url, stop: Some(stop), thread: Some(thread) }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.stop.take());
        self.thread.take().map(std::thread::JoinHandle::join);
    }
}

/// A daemon that answers from a script: each entry is a request as it must come, and its answer.
struct Script {
    expected: Mutex<VecDeque<(String, StatusCode, Value)>>,
    problems: Mutex<Vec<String>>,
}

/// `request` is `METHOD /path?query BODY`, the body as JSON without spaces; nothing behind the path when there is none.
fn scripted(steps: &[(&str, u16, Value)]) -> (Server, Arc<Script>) {
    let expected = steps
        .iter()
        .map(|(request, status, answer)| {
            ((*request).to_owned(), StatusCode::from_u16(*status).unwrap(), answer.clone())
        })
        .collect();
    let script = Arc::new(Script { expected: Mutex::new(expected), problems: Mutex::default() });
    let router = Router::new().fallback(answer).with_state(Arc::clone(&script));
    (Server::start(router), script)
}

async fn answer(Shared(script): Shared<Arc<Script>>, method: Method, uri: Uri, body: Bytes) -> (StatusCode, String) {
    let mut request = format!("{method} {uri}");
    if !body.is_empty() {
        request = format!("{request} {}", String::from_utf8_lossy(&body));
    }
    match script.expected.lock().unwrap().pop_front() {
        Some((expected, status, answer)) if expected == request => (status, answer.to_string()),
        other => {
            let expected = other.map_or("nothing".to_owned(), |(expected, ..)| expected);
            script.problems.lock().unwrap().push(format!("expected {expected}\n but got {request}"));
            (StatusCode::BAD_REQUEST, json!({"error": {"message": "not in the script"}}).to_string())
        }
    }
}

/// Plays a script and returns what the command said.
fn play(arguments: &[&str], steps: &[(&str, u16, Value)]) -> Ended {
    let (server, script) = scripted(steps);
    let mut arguments = arguments.to_vec();
    arguments.extend(["--url", &server.url]);
    let ended = landbridge(&arguments);
    let problems = script.problems.lock().unwrap().join("\n");
    assert_eq!(problems, "", "{}{}", ended.out, ended.err);
    assert_eq!(script.expected.lock().unwrap().len(), 0, "requests that never came; said: {}{}", ended.out, ended.err);
    ended
}

const JOB_1: &str = "job_00000000000000000000000000000001";
const JOB_2: &str = "job_00000000000000000000000000000002";

#[test]
fn the_arguments_are_well_formed() {
    Cli::command().debug_assert();
}

#[test]
fn every_command_has_help_with_examples() {
    fn visit(command: &clap::Command, path: &mut Vec<String>) {
        let mut arguments: Vec<&str> = path.iter().map(String::as_str).collect();
        arguments.push("--help");
        let ended = landbridge(&arguments);
        assert_eq!(ended.exit, Exit::Success, "{path:?}");
        assert!(ended.err.is_empty() && ended.out.contains("Usage: landbridge"), "{path:?}: {}", ended.out);
        if command.get_subcommands().next().is_none() {
            assert!(ended.out.contains("Example"), "{path:?} has no example");
        }
        for argument in command.get_arguments() {
            assert!(argument.get_help().is_some(), "{path:?}: {} has no help", argument.get_id());
        }
        for sub in command.get_subcommands().filter(|sub| sub.get_name() != "help") {
            path.push(sub.get_name().to_owned());
            visit(sub, path);
            path.pop();
        }
    }
    let mut command = Cli::command();
    command.build();
    visit(&command, &mut Vec::new());
    assert!(landbridge(&["--version"]).out.starts_with("landbridge "));
}

#[test]
fn wrong_usage_ends_with_64() {
    for arguments in [
        &[][..],
        &["fly"],
        &["submit"],
        &["submit", "x.jsonl", "--pipeline", "Not A Name"],
        &["submit", "x.jsonl", "-o", "out.jsonl"],
        &["submit", "x.jsonl", "--key-from", "custom_id"],
        &["submit", "x.jsonl", "--metadata", "novalue"],
        &["submit", "x.jsonl", "--retry-for", "soon"],
        &["submit", "-", "--wait", "-o", "-", "--format", "json"],
        &["jobs"],
        &["jobs", "show"],
        &["jobs", "show", "job_12"],
        &["jobs", "show", JOB_1, "--batch", "b"],
        &["jobs", "list", "--state", "sleeping"],
        &["jobs", "list", "--where", "order=7"],
        &["jobs", "list", "--limit", "0"],
        &["jobs", "retry", "--batch", "b", "--state", "queued"],
        &["flag", "set", "PAUSE"],
        &["flag", "set", "PAWS", "--reason", "r"],
        &["flag", "set", "PAUSE", "perhaps", "--reason", "r"],
        &["rollback", "--reason", "r"],
        &["rollback", "p", "--all", "--reason", "r"],
        &["resume", "p"],
        &["audit", "--since", "yesterday"],
        &["completions", "tcsh"],
        &["jobs", "list", "--url", "ftp://127.0.0.1"],
    ] {
        let ended = landbridge(arguments);
        assert_eq!(ended.exit, Exit::Usage, "{arguments:?}: {}{}", ended.out, ended.err);
        assert!(ended.out.is_empty() && !ended.err.is_empty(), "{arguments:?}");
    }
}

#[test]
fn a_daemon_that_is_not_there_ends_with_69() {
    // Bound and closed again: nobody listens there.
    let address = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let ended = landbridge(&["jobs", "list", "--url", &format!("http://{address}")]);
    assert_eq!(ended.exit, Exit::Unreachable);
    assert!(ended.err.contains("is it running"), "{}", ended.err);
}

#[test]
fn settings_that_cannot_be_used_end_with_78() {
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("landbridge.yaml");
    for text in ["listen: [", "listen: nowhere", "listen: 7"] {
        std::fs::write(&config, text).unwrap();
        let ended = landbridge(&["audit", "--config", config.to_str().unwrap()]);
        assert_eq!(ended.exit, Exit::Settings, "{text}: {}", ended.err);
        assert!(ended.err.contains("landbridge.yaml"), "{}", ended.err);
    }
}

#[test]
fn refusals_are_told_in_the_daemons_words() {
    for (status, answer, expected) in [
        (404, json!({"error": {"message": "no such job"}}), "no such job"),
        (401, json!({"error": {"message": "a key is needed"}}), "LANDBRIDGE_KEY"),
        (404, json!("nginx"), "not like landbridge"),
        (503, json!({"error": {"message": "the store is busy"}}), "the store is busy"),
    ] {
        let ended = play(&["jobs", "show", JOB_1], &[(&format!("GET /v1/jobs/{JOB_1}"), status, answer)]);
        assert_eq!(ended.exit, Exit::Failed);
        assert!(ended.err.contains(expected), "{}", ended.err);
    }
}

#[test]
fn init_writes_a_folder_once() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("new");
    let arguments = ["init", path.to_str().unwrap()];
    let ended = landbridge(&arguments);
    assert_eq!(ended.exit, Exit::Success, "{}", ended.err);
    for (name, text) in init::STARTER {
        assert_eq!(std::fs::read_to_string(path.join(name)).unwrap(), *text);
    }
    assert_eq!(std::fs::read_to_string(path.join(init::SCHEMA)).unwrap(), landbridge(&["schema"]).out);
    std::fs::remove_file(path.join("config/flags.yaml")).unwrap();
    let again = landbridge(&arguments);
    assert_eq!(again.exit, Exit::Failed);
    assert!(again.err.contains("example.yaml") && again.err.contains("nothing was written"), "{}", again.err);
    assert!(!path.join("config/flags.yaml").exists(), "all or nothing");
}

/// The starter files are valid, without so much as a warning.
#[test]
fn the_starter_folder_is_valid() {
    use crate::{catalog::Catalog, settings::Settings, spec};
    let text = |wanted: &str| init::STARTER.iter().find(|(name, _)| *name == wanted).unwrap().1.as_bytes();
    let path = std::path::Path::new("config/landbridge.yaml");
    let loaded = Settings::read(path, text("config/landbridge.yaml"), &[].into(), &[]).unwrap();
    assert!(loaded.warnings.is_empty(), "{:?}", loaded.warnings);
    let read = spec::read(
        "pipelines/example.yaml",
        text("pipelines/example.yaml"),
        &spec::Context {
            providers: &loaded.settings.provider_facts(),
            models: &spec::ModelDefinitions::default(),
            catalog: &Catalog::builtin(),
            today: jiff::civil::date(2026, 11, 22),
        },
    );
    let problems: Vec<String> = read.diagnostics.iter().map(ToString::to_string).collect();
    assert!(problems.is_empty(), "{}", problems.join("\n"));
    assert_eq!(read.pipeline.unwrap().tests.len(), 2);
}

#[test]
fn models_are_listed_with_their_substitutes_and_uses() {
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("landbridge.yaml");
    let (specs, models) = (folder.path().join("specs"), folder.path().join("models"));
    let text = format!("pipelines: {}\nmodels: {}\nproviders: [broken\n", specs.display(), models.display());
    std::fs::write(&config, text.replace("[broken", "7")).unwrap();
    std::fs::create_dir(&specs).unwrap();
    std::fs::write(
        specs.join("a.yaml"),
        "targets:\n  # model: gpt-4o-mini\n  x: { model: gpt-4o-mini-2024-07-18 }\n  y: { model: gpt-4o }\n",
    )
    .unwrap();
    let run = |arguments: &[&str]| landbridge(&[&["models", "--config", config.to_str().unwrap()], arguments].concat());

    let all = run(&[]);
    assert_eq!(all.exit, Exit::Success, "{}", all.err);
    assert!(all.out.lines().any(|line| line.starts_with("gpt-4o-mini ") && line.contains("128,000")), "{}", all.out);
    let json: Value = serde_json::from_str(&run(&["--format", "json"]).out).unwrap();
    assert!(json.as_array().unwrap().iter().any(|model| model["model"] == "gpt-4o-mini"));

    let substitutes = run(&["--substitutes", "gpt-4o-mini"]);
    assert_eq!(substitutes.exit, Exit::Success, "{}", substitutes.err);
    let lines: Vec<&str> = substitutes.out.lines().collect();
    assert!(lines[1].starts_with("gpt-4o-mini ") && lines[1].contains("ends 2027-01-14"), "{}", substitutes.out);
    assert!(lines[2].starts_with("gpt-6-luna ") && lines[2].contains("in ×0.67, out ×0.83"), "{}", substitutes.out);
    assert!(lines[3].contains("us.openai.gpt-6-luna") && lines[3].contains("bedrock"), "{}", substitutes.out);
    let json: Value = serde_json::from_str(&run(&["--substitutes", "gpt-4o-mini", "--format", "json"]).out).unwrap();
    assert_eq!(json["substitutes"][0]["relative_price"]["input"], "0.67");
    let slip = run(&["--substitutes", "gpt-4o-mni"]);
    assert_eq!(slip.exit, Exit::Failed);
    assert!(slip.err.contains("did you mean gpt-4o-mini?"), "{}", slip.err);

    // Nobody listens there: the files are told, and that the traffic is not.
    let nowhere = ["--url", "http://127.0.0.1:1"];
    let run = |arguments: &[&str]| run(&[arguments, &nowhere].concat());
    let uses = run(&["--uses", "gpt-4o-mini"]);
    assert_eq!(uses.exit, Exit::Success, "{}", uses.err);
    let expected = format!("{}:3: x: {{ model: gpt-4o-mini-2024-07-18 }}\n", specs.join("a.yaml").display());
    assert_eq!(uses.out, expected);
    assert!(uses.err.contains("no recorded traffic") && uses.err.contains("127.0.0.1:1"), "{}", uses.err);
    assert_eq!(run(&["--uses", "gpt-5.4-mini"]).exit, Exit::Failed);
    // A definition names it, and a spec names the definition.
    std::fs::create_dir(&models).unwrap();
    std::fs::write(models.join("mini.json"), "{\"name\": \"gpt-5.4-mini\",\n \"provider\": \"openai\"}").unwrap();
    std::fs::write(specs.join("b.yaml"), "targets:\n  x: { use: mini }\n  mini: { model: gpt-4o }\n").unwrap();
    let uses = run(&["--uses", "gpt-5.4-mini"]).out;
    let places: Vec<&str> = uses.lines().filter_map(|line| line.split(": ").next()).collect();
    let expected =
        [format!("{}:2", specs.join("b.yaml").display()), format!("{}:1", models.join("mini.json").display())];
    assert_eq!(places, expected, "{uses}");
}

#[test]
fn the_schema_is_printed() {
    let ended = landbridge(&["schema"]);
    let schema: Value = serde_json::from_str(&ended.out).unwrap();
    assert_eq!(ended.exit, Exit::Success);
    assert!(schema["properties"]["targets"].is_object(), "{}", ended.out);
}

#[test]
fn completions_name_the_commands() {
    for shell in ["bash", "zsh", "fish", "powershell", "elvish"] {
        let ended = landbridge(&["completions", shell]);
        assert_eq!(ended.exit, Exit::Success);
        assert!(ended.out.contains("rollback"), "{shell}");
    }
}

#[test]
fn a_reader_that_goes_away_is_no_failure() {
    struct Gone;
    impl std::io::Write for Gone {
        fn write(&mut self, _: &[u8]) -> std::io::Result<usize> {
            Err(std::io::ErrorKind::BrokenPipe.into())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let mut err = Vec::new();
    let arguments = ["landbridge", "completions", "bash"].map(OsString::from);
    let exit = run_with(arguments, &mut Console { out: &mut Gone, err: &mut err, progress: false });
    assert_eq!((exit, err.len()), (Exit::Success, 0));
}
