//! The OpenAI form in front: what a chat request costs over calling the upstream directly, and what a large batch costs,
//! measured on the real binary against a no-latency endpoint on loopback.
//!
//! `cargo bench --bench front` prints a table. Beside the daemon, in the same run: the endpoint called directly; a commit
//! of the disk that the daemon's store is on; nginx as a bare reverse proxy, if `nginx` is there (`apt-get install
//! nginx-light`); Portkey's gateway, if it is there (`npm ci --prefix benches/peers`). `-- NAME…` runs parts alone: latency,
//! saturation, batch.

use std::{
    io::{BufRead, BufReader, Write},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use serde_json::{Value, json};

/// What is measured for so long, after so many requests that warm it.
const MEASURED: Duration = Duration::from_secs(15);
const WARMING: u64 = 400;
/// The rate at which latency is read.
const RATE: u32 = 200;
/// Requests under way at once when the most is wanted.
const MOST_UNDER_WAY: usize = 64;
/// Lines of the large batch.
const LINES: usize = 50_000;

fn main() {
    landbridge::provider::install_crypto();
    let wanted: Vec<String> = std::env::args().skip(1).filter(|argument| !argument.starts_with("--")).collect();
    let is_wanted = |name: &str| wanted.is_empty() || wanted.iter().any(|part| part == name);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let upstream = endpoints();
        let folder = folder();
        let daemon = daemon(folder.path(), &upstream.address);
        println!("commit of this disk: {:.3} ms (median of 200)", commit(folder.path()).as_secs_f64() * 1e3);
        let nginx = nginx(folder.path(), &upstream.address);
        let portkey = portkey();
        let way = |name, process, headers| Way { name, process, headers };
        let mut ways = vec![way("upstream alone", &upstream, Vec::new()), way("landbridge", &daemon, Vec::new())];
        match &nginx {
            Some(nginx) => ways.push(way("nginx", nginx, Vec::new())),
            None => println!("nginx is not here: its row is missing (Debian: apt-get install nginx-light)"),
        }
        match &portkey {
            Some(portkey) => {
                let host = format!("{}/v1", upstream.address);
                let headers = vec![("x-portkey-provider", "openai".to_owned()), ("x-portkey-custom-host", host)];
                ways.push(way("Portkey's gateway", portkey, headers));
            }
            None => println!("Portkey's gateway is not here: its row is missing (npm ci --prefix benches/peers)"),
        }
        if is_wanted("latency") {
            println!("\n{RATE} requests a second          p50 ms   p99 ms   CPU ms a request");
            for way in &ways {
                latency(way).await;
            }
        }
        if is_wanted("saturation") {
            println!("\n{MOST_UNDER_WAY} requests at once          requests/s   CPU s for 1,000");
            for way in &ways {
                saturation(way).await;
            }
        }
        if is_wanted("batch") {
            batch(&daemon).await;
        }
    });
}

fn chat() -> String {
    json!({ "model": "bench", "messages": [{ "role": "user", "content": "some words of a prompt. ".repeat(20) }] })
        .to_string()
}

/// One way to the upstream.
struct Way<'a> {
    name: &'static str,
    process: &'a Process,
    headers: Vec<(&'static str, String)>,
}

impl Way<'_> {
    /// A client that keeps its connections, and says what this way wants to hear.
    fn client(&self) -> reqwest::Client {
        let headers = self.headers.iter().map(|(name, value)| {
            let name = reqwest::header::HeaderName::from_static(name);
            (name, reqwest::header::HeaderValue::from_str(value).unwrap())
        });
        reqwest::Client::builder().default_headers(headers.collect()).build().unwrap()
    }

    fn url(&self) -> String {
        format!("{}/v1", self.process.address)
    }
}

async fn ask(client: &reqwest::Client, url: &str, body: &str) {
    let request = client.post(format!("{url}/chat/completions")).header("content-type", "application/json");
    let response = request.header("authorization", "Bearer x").body(body.to_owned()).send().await.unwrap();
    assert_eq!(response.status(), 200, "{url}");
    response.bytes().await.unwrap();
}

/// Requests at a fixed rate, each begun when it is due, whatever became of those before.
async fn latency(way: &Way<'_>) {
    let (client, url, body) = (way.client(), way.url(), Arc::new(chat()));
    for _ in 0..WARMING {
        ask(&client, &url, &body).await;
    }
    let before = way.process.cpu();
    let mut ticks = tokio::time::interval(Duration::from_secs(1) / RATE);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Burst);
    let count = u64::from(RATE) * MEASURED.as_secs();
    let mut under_way = tokio::task::JoinSet::new();
    for _ in 0..count {
        let due = ticks.tick().await;
        let (client, url, body) = (client.clone(), url.clone(), body.clone());
        under_way.spawn(async move {
            ask(&client, &url, &body).await;
            due.elapsed()
        });
    }
    let mut took: Vec<Duration> = under_way.join_all().await;
    took.sort_unstable();
    let at = |percent: usize| took[(took.len() - 1) * percent / 100].as_secs_f64() * 1e3;
    let cpu = way.process.cpu_since(before) * 1e3 / count as f64;
    println!("{:26} {:8.3} {:8.3}   {cpu:.3}", way.name, at(50), at(99));
}

async fn saturation(way: &Way<'_>) {
    let (client, url, body) = (way.client(), way.url(), Arc::new(chat()));
    let before = way.process.cpu();
    let done = Arc::new(AtomicU64::new(0));
    let end = Instant::now() + MEASURED;
    let mut workers = tokio::task::JoinSet::new();
    for _ in 0..MOST_UNDER_WAY {
        let (client, url, body, done) = (client.clone(), url.clone(), body.clone(), done.clone());
        workers.spawn(async move {
            while Instant::now() < end {
                ask(&client, &url, &body).await;
                done.fetch_add(1, Ordering::Relaxed);
            }
        });
    }
    workers.join_all().await;
    let done = done.load(Ordering::Relaxed) as f64;
    let cpu = way.process.cpu_since(before) * 1e3 / done;
    println!("{:26} {:12.0}   {cpu:.3}", way.name, done / MEASURED.as_secs_f64());
}

/// A batch of 50,000 lines: until it is durable and validated, until its output is there, and the most memory meanwhile.
async fn batch(daemon: &Process) {
    let client = reqwest::Client::new();
    let lines: String = (0..LINES)
        .map(|n| {
            let body: Value = serde_json::from_str(&chat()).unwrap();
            json!({ "custom_id": format!("r-{n}"), "method": "POST", "url": "/v1/chat/completions", "body": body })
                .to_string()
                + "\n"
        })
        .collect();
    let form = format!(
        "--b\r\nContent-Disposition: form-data; name=\"purpose\"\r\n\r\nbatch\r\n--b\r\nContent-Disposition: form-data; name=\"file\"; filename=\"in.jsonl\"\r\n\r\n{lines}\r\n--b--\r\n"
    );
    let began = Instant::now();
    let upload =
        client.post(format!("{}/v1/files", daemon.address)).header("content-type", "multipart/form-data; boundary=b");
    let file: Value = upload.body(form).send().await.unwrap().json().await.unwrap();
    let asked = json!({ "input_file_id": file["id"], "endpoint": "/v1/chat/completions", "completion_window": "24h" });
    let made: Value =
        client.post(format!("{}/v1/batches", daemon.address)).json(&asked).send().await.unwrap().json().await.unwrap();
    let url = format!("{}/v1/batches/{}", daemon.address, made["id"].as_str().unwrap());
    let (mut accepted, mut most) = (None, 0.0_f64);
    let ended = loop {
        most = most.max(daemon.memory());
        let batch: Value = client.get(&url).send().await.unwrap().json().await.unwrap();
        match batch["status"].as_str().unwrap() {
            "validating" => {}
            "completed" => break batch,
            "in_progress" | "finalizing" => {
                accepted.get_or_insert_with(|| began.elapsed());
            }
            other => panic!("the batch is {other}: {batch}"),
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    assert_eq!(ended["request_counts"]["completed"], LINES);
    println!(
        "\na batch of {LINES} lines: accepted after {:.1} s, done after {:.1} s, {most:.0} MiB at most",
        accepted.unwrap_or_else(|| began.elapsed()).as_secs_f64(),
        began.elapsed().as_secs_f64(),
    );
}

/// What one small durable write costs on the disk that the store is on.
fn commit(folder: &Path) -> Duration {
    let mut file = std::fs::File::create(folder.join("commit")).unwrap();
    let mut took: Vec<Duration> = (0..200)
        .map(|_| {
            let began = Instant::now();
            file.write_all(&[7; 4_096]).unwrap();
            file.sync_data().unwrap();
            began.elapsed()
        })
        .collect();
    took.sort_unstable();
    took[took.len() / 2]
}

/// A process that ends with us.
struct Process {
    child: Child,
    address: String,
}

impl Process {
    /// Starts the program and waits for the first line of its output that `find` understands.
    fn start(mut command: Command, find: fn(&str) -> Option<String>) -> Self {
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let (send, receive) = std::sync::mpsc::channel();
        let streams: [Box<dyn std::io::Read + Send>; 2] =
            [Box::new(child.stdout.take().unwrap()), Box::new(child.stderr.take().unwrap())];
        for stream in streams {
            let send = send.clone();
            std::thread::spawn(move || {
                for line in BufReader::new(stream).lines().map_while(Result::ok) {
                    if let Some(found) = find(&line) {
                        let _heard = send.send(found);
                    }
                }
            });
        }
        let address = receive.recv_timeout(Duration::from_mins(1)).expect("the process said where it is");
        Self { child, address }
    }

    /// User and system time so far, of the process and of the children that it waited for or still has.
    fn cpu(&self) -> Duration {
        let of = |pid: u32| -> u64 {
            let Ok(stat) = std::fs::read_to_string(format!("/proc/{pid}/stat")) else { return 0 };
            let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
            fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
        };
        let pid = self.child.id();
        let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
        let ticks = of(pid) + children.split_whitespace().filter_map(|child| child.parse().ok()).map(of).sum::<u64>();
        Duration::from_millis(ticks * 10)
    }

    /// Seconds of it since then.
    fn cpu_since(&self, before: Duration) -> f64 {
        self.cpu().saturating_sub(before).as_secs_f64()
    }

    /// Resident memory in MiB.
    fn memory(&self) -> f64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmRSS")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<f64>().unwrap() / 1024.0
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _gone = self.child.kill();
        let _reaped = self.child.wait();
    }
}

fn endpoints() -> Process {
    let mut command = Command::new(env!("CARGO_BIN_EXE_landbridge"));
    command.args(["simulate", "--openai-latency", "0ms", "--bedrock-latency", "0ms", "--journal", "0", "--port", "0"]);
    Process::start(command, |line| line.strip_prefix("Bedrock:").map(|address| address.trim().to_owned()))
}

fn daemon(folder: &Path, endpoints: &str) -> Process {
    let settings = format!(
        "listen: 127.0.0.1:0\npipelines: {0}/pipelines\nmodels: {0}/models\nstore: sqlite:{0}/data/landbridge.db\n\
         providers:\n  openai: {{ api: openai, base_url: \"{1}/v1\" }}\n",
        folder.display(),
        endpoints,
    );
    std::fs::write(folder.join("landbridge.yaml"), settings).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_landbridge"));
    command.args(["run", "--log", "json", "--config"]).arg(folder.join("landbridge.yaml"));
    command.env("RUST_LOG", "landbridge=info");
    Process::start(command, |line| {
        let entry: Value = serde_json::from_str(line).ok()?;
        Some(format!("http://{}", entry.pointer("/fields/address")?.as_str()?))
    })
}

/// A bare reverse proxy with kept connections, where nginx is installed.
fn nginx(folder: &Path, upstream: &str) -> Option<Process> {
    let found = Command::new("nginx").arg("-v").stderr(Stdio::null()).status();
    found.ok().filter(std::process::ExitStatus::success)?;
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let path = folder.display();
    let config = format!(
        "daemon off; master_process off; pid {path}/nginx.pid; error_log {path}/nginx.log;\nevents {{ worker_connections 1024; }}\nhttp {{\n  \
         access_log off; client_body_temp_path {path}/a; proxy_temp_path {path}/b; fastcgi_temp_path {path}/c; uwsgi_temp_path {path}/d; scgi_temp_path {path}/e;\n  \
         upstream up {{ server {}; keepalive 64; }}\n  server {{ listen 127.0.0.1:{port}; location / {{ proxy_pass http://up; proxy_http_version 1.1; proxy_set_header Connection \"\"; }} }}\n}}\n",
        upstream.trim_start_matches("http://"),
    );
    std::fs::write(folder.join("nginx.conf"), config).unwrap();
    let mut command = Command::new("nginx");
    command.arg("-c").arg(folder.join("nginx.conf")).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    Some(listening(command, port))
}

/// Portkey's gateway, where it is installed.
fn portkey() -> Option<Process> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("benches/peers/node_modules/@portkey-ai/gateway/build/start-server.js");
    if !script.exists() {
        return None;
    }
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let mut command = Command::new("node");
    command.arg(script).arg(format!("--port={port}")).arg("--headless").env("NODE_ENV", "production");
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    Some(listening(command, port))
}

/// Starts a program and waits until it listens.
fn listening(mut command: Command, port: u16) -> Process {
    let process = Process { child: command.spawn().unwrap(), address: format!("http://127.0.0.1:{port}") };
    let deadline = Instant::now() + Duration::from_secs(30);
    while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
        assert!(Instant::now() < deadline, "{command:?} does not listen");
        std::thread::sleep(Duration::from_millis(20));
    }
    process
}

/// A folder with one spec of one target, on the disk that the build is on.
fn folder() -> tempfile::TempDir {
    let scratch = PathBuf::from(env!("CARGO_TARGET_TMPDIR"));
    std::fs::create_dir_all(&scratch).unwrap();
    let folder = tempfile::tempdir_in(scratch).unwrap();
    std::fs::create_dir_all(folder.path().join("pipelines")).unwrap();
    let spec = "version: 1\nname: bench\ntargets:\n  only: { provider: openai, model: gpt-5.4-mini }\nlimits: { concurrency: 512 }\n";
    std::fs::write(folder.path().join("pipelines/bench.yaml"), spec).unwrap();
    folder
}
