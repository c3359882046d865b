//! Clients that want too much, say nothing, or say it too slowly: each is told, and nobody else waits.

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    time::{Duration, Instant},
};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::site::{Daemon, SPEC, Site, eventually, job};

/// Idle connections of one test.
const IDLE: usize = 10_000;
/// Open files that it takes on this side.
const OPEN_FILES: u64 = 10_500;
/// A minute is what a head or a body has to begin with.
const GRACE: Duration = Duration::from_mins(1);

fn address(daemon: &Daemon) -> SocketAddr {
    daemon.url().trim_start_matches("http://").parse().unwrap()
}

/// Raises the limit of open files of this process, and with it that of the daemons it starts.
fn raise_open_files() {
    let limit = getrlimit(Resource::Nofile);
    assert!(
        limit.maximum.is_none_or(|most| most >= OPEN_FILES),
        "this test opens {IDLE} connections: raise the hard limit of open files (`ulimit -Hn`) to {OPEN_FILES}"
    );
    if limit.current.is_some_and(|now| now < OPEN_FILES) {
        setrlimit(Resource::Nofile, Rlimit { current: Some(OPEN_FILES), maximum: limit.maximum }).unwrap();
    }
}

fn resident_mib(daemon: &Daemon) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", daemon.pid())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() / 1_024
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_idle_connections_leave_room_for_others() {
    raise_open_files();
    let site = Site::new(SPEC).await;
    let daemon = site.start().await;
    let before = resident_mib(&daemon);
    let address = address(&daemon);
    let idle = tokio::task::spawn_blocking(move || {
        (0..IDLE)
            .map(|n| {
                let mut stream = TcpStream::connect(address).unwrap();
                if n % 2 == 0 {
                    // Half of them begin to say something.
                    stream.write_all(b"POST /v1/jobs HTTP/1.1\r\nhost: x\r\n").unwrap();
                }
                stream
            })
            .collect::<Vec<_>>()
    })
    .await
    .unwrap();
    for n in 0..20 {
        let began = Instant::now();
        let id = daemon.post("/v1/jobs", job(n)).await["id"].as_str().unwrap().to_owned();
        assert_eq!(daemon.ended_job(&id).await["state"], "succeeded");
        assert_eq!(daemon.text("/healthz").await, "ok\n");
        assert!(began.elapsed() < Duration::from_secs(20), "others wait {:?}", began.elapsed());
    }
    let grown = resident_mib(&daemon).saturating_sub(before);
    println!("{IDLE} idle connections: {grown} MiB");
    assert!(grown < 300, "{IDLE} idle connections take {grown} MiB");
    drop(idle);
    assert_eq!(daemon.text("/healthz").await, "ok\n");
    daemon.stop();
}

/// Sends a byte now and then until the other side has enough; what it said, and after how long.
fn trickle(address: SocketAddr, beginning: &[u8]) -> (String, Duration) {
    let began = Instant::now();
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
    stream.write_all(beginning).unwrap();
    let mut said = Vec::new();
    let mut buffer = [0; 4_096];
    while began.elapsed() < 2 * GRACE {
        let _sent = stream.write_all(b"x");
        match stream.read(&mut buffer) {
            Ok(0) => break,
            Ok(length) => said.extend_from_slice(&buffer[..length]),
            Err(error) if matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut) => {}
            Err(_) => break,
        }
    }
    (String::from_utf8_lossy(&said).into_owned(), began.elapsed())
}

#[tokio::test(flavor = "multi_thread")]
async fn heads_and_bodies_that_trickle_are_ended_and_others_served() {
    let site = Site::new(SPEC).await;
    let daemon = site.start().await;
    let address = address(&daemon);
    let begin = |text: &'static [u8]| std::thread::spawn(move || trickle(address, text));
    let heads: Vec<_> = (0..20).map(|_| begin(b"GET /healthz HTTP/1.1\r\nx-")).collect();
    let bodies: Vec<_> = (0..20)
        .map(|_| begin(b"POST /v1/jobs HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 100000\r\n\r\n{"))
        .collect();
    for n in 0..20 {
        let began = Instant::now();
        let id = daemon.post("/v1/jobs", job(n)).await["id"].as_str().unwrap().to_owned();
        assert_eq!(daemon.ended_job(&id).await["state"], "succeeded");
        assert!(began.elapsed() < Duration::from_secs(20), "others wait {:?}", began.elapsed());
    }
    let bound = GRACE..GRACE + Duration::from_secs(30);
    for thread in heads {
        let (_, took) = tokio::task::spawn_blocking(|| thread.join().unwrap()).await.unwrap();
        assert!(bound.contains(&took), "a head that trickles lasts {took:?}");
    }
    for thread in bodies {
        let (said, took) = tokio::task::spawn_blocking(|| thread.join().unwrap()).await.unwrap();
        assert!(bound.contains(&took), "a body that trickles lasts {took:?}");
        assert!(said.starts_with("HTTP/1.1 400") && said.contains("too slowly"), "{said}");
    }
    assert_eq!(daemon.jobs("").await.len(), 20, "nothing of a trickle became a job");
    daemon.stop();
}

/// Sends an upload of a GB in pieces until the answer comes; the answer, and how many bytes left.
fn upload_a_gigabyte(address: SocketAddr, chunked: bool) -> (String, u64) {
    const WHOLE: u64 = 1_000_000_000;
    const FORM: &str = "--b\r\nContent-Disposition: form-data; name=\"purpose\"\r\n\r\nbatch\r\n--b\r\nContent-Disposition: \
                        form-data; name=\"file\"; filename=\"in.jsonl\"\r\n\r\n";
    let mut stream = TcpStream::connect(address).unwrap();
    let mut reader = stream.try_clone().unwrap();
    let answer = std::thread::spawn(move || {
        let (mut said, mut buffer) = (Vec::new(), [0; 4_096]);
        // The body of an error ends with two braces.
        while let Ok(length) = reader.read(&mut buffer)
            && length > 0
        {
            said.extend_from_slice(&buffer[..length]);
            if said.ends_with(b"}}") {
                break;
            }
        }
        let _closed = reader.shutdown(std::net::Shutdown::Both);
        String::from_utf8_lossy(&said).into_owned()
    });
    let length = if chunked { "transfer-encoding: chunked".to_owned() } else { format!("content-length: {WHOLE}") };
    let head = format!(
        "POST /v1/files HTTP/1.1\r\nhost: x\r\ncontent-type: multipart/form-data; boundary=b\r\n{length}\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).unwrap();
    let frame = |bytes: &[u8]| {
        if chunked { [format!("{:x}\r\n", bytes.len()).as_bytes(), bytes, b"\r\n"].concat() } else { bytes.to_vec() }
    };
    stream.write_all(&frame(FORM.as_bytes())).unwrap();
    let piece = frame(&[[b'x'; 999].as_slice(), b"\n"].concat().repeat(200));
    let mut sent = 0;
    while sent < WHOLE && stream.write_all(&piece).is_ok() {
        sent += piece.len() as u64;
    }
    (answer.join().unwrap(), sent)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gigabyte_is_refused_early_and_the_disk_is_freed() {
    let site = Site::new(SPEC).await;
    let daemon = site.start().await;
    let address = address(&daemon);
    // One says how large it is; the other does not, and is refused once it is larger than the 200 MB that are taken.
    for (chunked, least, most) in [(false, 0, 150_000_000), (true, 190_000_000, 260_000_000)] {
        let (answer, sent) = tokio::task::spawn_blocking(move || upload_a_gigabyte(address, chunked)).await.unwrap();
        assert!(
            answer.starts_with("HTTP/1.1 413") && answer.contains("file_too_large"),
            "chunked {chunked}: {answer:?}"
        );
        assert!((least..most).contains(&sent), "chunked {chunked}: {sent} bytes were taken before it was refused");
        let id = daemon.post("/v1/jobs", job(usize::from(chunked))).await["id"].as_str().unwrap().to_owned();
        assert_eq!(daemon.ended_job(&id).await["state"], "succeeded");
    }
    let folder = site.path().join("data/landbridge.db-files");
    eventually("the disk is free again", || async { std::fs::read_dir(&folder).map_or(0, Iterator::count) == 0 }).await;
    assert!(resident_mib(&daemon) < 200, "{} MiB", resident_mib(&daemon));
    daemon.stop();
}
