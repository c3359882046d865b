//! The program as a process: exit codes, standard input, standard output.

use std::{
    fmt::Write as _,
    io::{BufRead, BufReader, Read, Write as _},
    net::TcpListener,
    process::{Command, Output, Stdio},
    sync::mpsc,
    time::Duration,
};

fn landbridge() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_landbridge"));
    command.env_remove("LANDBRIDGE_URL").env_remove("LANDBRIDGE_KEY").env_remove("LANDBRIDGE_CONFIG");
    command
}

fn run(arguments: &[&str]) -> Output {
    landbridge().args(arguments).stdin(Stdio::null()).output().unwrap()
}

#[test]
fn exit_codes_are_those_of_the_documentation() {
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let url = format!("http://{address}");
    let folder = tempfile::tempdir().unwrap();
    let broken = folder.path().join("broken.yaml");
    std::fs::write(&broken, "listen: [").unwrap();
    for (arguments, code) in [
        (&["--help"][..], 0),
        (&["--version"], 0),
        (&["completions", "bash"], 0),
        (&["fly"], 64),
        (&["flag", "set", "PAUSE"], 64),
        (&["jobs", "list", "--url", &url], 69),
        (&["submit", "/no/such/file", "--url", &url], 1),
        (&["jobs", "list", "--config", broken.to_str().unwrap()], 78),
    ] {
        let output = run(arguments);
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    }
}

/// One request and an answer, without a library: enough of HTTP for the program's own client.
fn answer_one(listener: &TcpListener, key: &mpsc::Sender<(String, String)>) {
    let (stream, _) = listener.accept().unwrap();
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let (mut head, mut length) = (String::new(), 0);
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).unwrap();
        if line == "\r\n" {
            break;
        }
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().unwrap();
        }
        head.push_str(&line);
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).unwrap();
    let body = String::from_utf8(body).unwrap();
    let mut answer = String::new();
    for n in 1..=body.lines().count() {
        writeln!(answer, "{{\"line\":{n},\"id\":\"job_{n:032x}\",\"state\":\"queued\"}}").unwrap();
    }
    let mut stream = stream;
    write!(stream, "HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{answer}", answer.len()).unwrap();
    key.send((head, body)).unwrap();
}

#[test]
fn lines_of_a_slow_producer_are_sent_as_they_come() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let (seen, requests) = mpsc::channel();
    let server = std::thread::spawn(move || (0..2).for_each(|_| answer_one(&listener, &seen)));
    let mut child = landbridge()
        .args(["submit", "-", "--url", &url, "--format", "json"])
        .env("LANDBRIDGE_KEY", "secret-key")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = child.stdin.take().unwrap();
    let mut output = BufReader::new(child.stdout.take().unwrap());
    for key in ["a", "b"] {
        writeln!(input, "{{\"custom_id\":\"{key}\",\"body\":{{}}}}").unwrap();
        // The input stays open: the line must arrive nevertheless.
        let (head, body) = requests.recv_timeout(Duration::from_mins(1)).unwrap();
        assert!(head.starts_with("POST /v1/jobs HTTP/1.1") && head.contains("Bearer secret-key"), "{head}");
        assert!(body.contains(&format!("\"idempotency_key\":\"{key}\"")), "{body}");
        let mut line = String::new();
        output.read_line(&mut line).unwrap();
        assert!(line.contains(&format!("\"key\":\"{key}\"")), "{line}");
    }
    drop(input);
    assert_eq!(child.wait().unwrap().code(), Some(0));
    server.join().unwrap();
}

#[test]
fn a_failure_does_not_wait_for_standard_input() {
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let mut child = landbridge()
        .args(["submit", "-", "--url", &format!("http://{address}"), "--retry-for", "0s"])
        .stdin(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut input = child.stdin.take().unwrap();
    writeln!(input, "{{\"custom_id\":\"a\",\"body\":{{}}}}").unwrap();
    let (ended, end) = mpsc::channel();
    std::thread::spawn(move || ended.send(child.wait().unwrap().code()));
    assert_eq!(end.recv_timeout(Duration::from_mins(1)), Ok(Some(69)), "the input is still open");
    drop(input);
}

/// A folder in which `ask` finds a definition, a prompt, and an OpenAI account at `url`.
fn folder_to_ask_in(url: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    std::fs::write(at("m.json"), r#"{"name": "gpt-5.4-mini", "provider": "openai"}"#).unwrap();
    std::fs::write(at("prompt.txt"), "Tell me a long story.").unwrap();
    let settings =
        format!("providers:\n  openai: {{ api: openai, base_url: \"{url}\", api_key: {{ env: ASK_TEST_KEY }} }}\n");
    std::fs::write(at("landbridge.yaml"), settings).unwrap();
    folder
}

fn ask_in(folder: &tempfile::TempDir) -> Command {
    let mut command = landbridge();
    command.current_dir(folder.path()).env_remove("ASK_TEST_KEY").stdin(Stdio::null());
    command.args(["--config", "landbridge.yaml", "ask", "-m", "m.json", "-p", "prompt.txt", "--history", "h.json"]);
    command
}

#[test]
fn an_interrupt_stops_the_call_and_keeps_what_was_said_on_the_screen() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let folder = folder_to_ask_in(&format!("http://{}/v1", listener.local_addr().unwrap()));
    // Begins an answer, and then waits for the caller to hang up.
    let server = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut reader = BufReader::new(stream.try_clone().unwrap());
        let mut line = String::new();
        while line != "\r\n" {
            line.clear();
            reader.read_line(&mut line).unwrap();
        }
        let chunk = r#"data: {"id":"c","object":"chat.completion.chunk","created":1,"model":"m","choices":[{"index":0,"delta":{"role":"assistant","content":"Once upon a time"},"finish_reason":null}]}"#;
        write!(stream, "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n{chunk}\n\n").unwrap();
        stream.flush().unwrap();
        let mut rest = Vec::new();
        // The end of the connection, however it comes.
        let _ = reader.read_to_end(&mut rest);
    });
    let mut child =
        ask_in(&folder).env("ASK_TEST_KEY", "k").stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut said = [0; 16];
    child.stdout.as_mut().unwrap().read_exact(&mut said).unwrap();
    assert_eq!(&said, b"Once upon a time");
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    let output = child.wait_with_output().unwrap();
    let err = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{err}");
    assert!(err.contains("stopped; the call may be billed all the same"), "{err}");
    assert!(!folder.path().join("h.json").exists(), "half an answer is not kept");
    server.join().unwrap();
}

#[test]
fn a_missing_key_is_named_and_nothing_is_sent() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let folder = folder_to_ask_in(&format!("http://{}/v1", listener.local_addr().unwrap()));
    let output = ask_in(&folder).output().unwrap();
    let err = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{err}");
    assert!(err.contains("ASK_TEST_KEY"), "{err}");
    listener.set_nonblocking(true).unwrap();
    assert!(listener.accept().is_err(), "somebody was called");
}
