//! A PostgreSQL server of one's own, for tests and benchmarks: from Debian's package, on a free port, with its own data,
//! stopped and deleted at the end.
//!
//! It must not know the crate: benchmarks include this file as it is.
#![allow(dead_code, reason = "tests and benchmarks use different parts")]

use std::{
    ffi::OsStr,
    fs,
    io::{Read as _, Write as _},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    os::unix::{fs::chown, process::CommandExt},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    time::{Duration, Instant},
};

/// What to do when something is missing.
const ADVICE: &str = "is not here; `./scripts/test` installs it, or: apt-get install postgresql pgbouncer";

/// A server that runs while this lives.
pub struct Server {
    /// Where it listens.
    pub port: u16,
    folder: tempfile::TempDir,
    user: Option<(u32, u32)>,
    databases: AtomicU32,
}

/// A program of PostgreSQL, from the PATH or from where Debian puts it; the newest.
fn program(name: &str) -> PathBuf {
    let mut found: Vec<PathBuf> = fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .flatten()
        .map(|version| version.path().join("bin").join(name))
        .filter(|path| path.is_file())
        .collect();
    found.sort();
    found.pop().or_else(|| on_path(name)).unwrap_or_else(|| panic!("{name} {ADVICE}"))
}

fn on_path(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).chain([PathBuf::from("/usr/sbin"), PathBuf::from("/usr/local/sbin")]);
    folders.map(|folder| folder.join(name)).find(|path| path.is_file())
}

/// Whom to run servers as: PostgreSQL refuses to run as root.
fn unprivileged() -> Option<(u32, u32)> {
    let root = fs::metadata("/proc/self").is_ok_and(|me| std::os::unix::fs::MetadataExt::uid(&me) == 0);
    if !root {
        return None;
    }
    let users = fs::read_to_string("/etc/passwd").expect("/etc/passwd");
    let find = |wanted: &str| {
        users.lines().find_map(|line| {
            let mut fields = line.split(':');
            (fields.next() == Some(wanted)).then_some(())?;
            Some((fields.nth(1)?.parse().ok()?, fields.next()?.parse().ok()?))
        })
    };
    Some(find("postgres").or_else(|| find("nobody")).expect("a user that is not root"))
}

/// A port that nobody has.
pub fn free_port() -> u16 {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).and_then(|listener| listener.local_addr()).expect("a port").port()
}

impl Server {
    /// Starts a server that does not wait for its disk: for tests, which do not pull the plug.
    pub fn start() -> Self {
        Self::start_in(&std::env::temp_dir(), &["-c", "fsync=off", "-c", "full_page_writes=off"])
    }

    /// Starts a server with its data in a folder, with options of its own.
    pub fn start_in(parent: &Path, options: &[&str]) -> Self {
        let folder = tempfile::Builder::new().prefix("landbridge-postgres").tempdir_in(parent).expect("a folder");
        let user = unprivileged();
        if let Some((user, group)) = user {
            chown(folder.path(), Some(user), Some(group)).expect("the folder is given to the server's user");
        }
        let server = Self { port: free_port(), folder, user, databases: AtomicU32::new(0) };
        let data = server.data();
        let made = server
            .command("initdb")
            .args(["--no-sync", "--auth=trust", "--username=postgres", "--encoding=UTF8", "--locale=C", "-D"])
            .arg(&data)
            .output()
            .expect("initdb runs");
        assert!(made.status.success(), "initdb: {}", String::from_utf8_lossy(&made.stderr));
        let settings = format!(
            "listen_addresses = '127.0.0.1'\nport = {}\nunix_socket_directories = '{}'\nmax_connections = 200\n\
             shared_buffers = 128MB\nlogging_collector = off\n",
            server.port,
            server.folder.path().display()
        );
        fs::OpenOptions::new()
            .append(true)
            .open(data.join("postgresql.conf"))
            .and_then(|mut file| file.write_all(settings.as_bytes()))
            .expect("settings are written");
        server.up(options);
        server
    }

    fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    fn command(&self, name: &str) -> Command {
        let mut command = Command::new(program(name));
        command.current_dir(self.folder.path()).stdin(Stdio::null());
        if let Some((user, group)) = self.user {
            command.uid(user).gid(group);
        }
        command
    }

    fn control(&self, arguments: &[&OsStr]) {
        let log = self.folder.path().join("log");
        let done = self
            .command("pg_ctl")
            .args(["-w", "-t", "60", "-l"])
            .arg(&log)
            .arg("-D")
            .arg(self.data())
            .args(arguments)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .expect("pg_ctl runs");
        assert!(done.success(), "pg_ctl {arguments:?}: {}", fs::read_to_string(&log).unwrap_or_default());
    }

    /// Starts it again.
    pub fn up(&self, options: &[&str]) {
        let options = options.join(" ");
        self.control(&["start".as_ref(), "-o".as_ref(), options.as_ref()]);
    }

    /// Stops it at once, as a power cut would.
    pub fn crash(&self) {
        self.control(&["stop".as_ref(), "-m".as_ref(), "immediate".as_ref()]);
    }

    /// Stops it in good order.
    pub fn down(&self) {
        self.control(&["stop".as_ref(), "-m".as_ref(), "fast".as_ref()]);
    }

    /// The address of one of its databases.
    pub fn url(&self, database: &str) -> String {
        format!("postgres://postgres@127.0.0.1:{}/{database}?sslmode=disable", self.port)
    }

    /// A new empty database.
    pub fn database(&self) -> String {
        let name = format!("d{}", self.databases.fetch_add(1, Ordering::Relaxed));
        self.sql("postgres", &format!("CREATE DATABASE {name}"));
        name
    }

    /// What `psql` says to a statement.
    pub fn sql(&self, database: &str, sql: &str) -> String {
        let port = self.port.to_string();
        let said = self
            .command("psql")
            .args(["-X", "-A", "-t", "-q", "-v", "ON_ERROR_STOP=1", "-U", "postgres", "-h", "127.0.0.1", "-p", &port])
            .args(["-d", database, "-c", sql])
            .output()
            .expect("psql runs");
        assert!(said.status.success(), "{sql}: {}", String::from_utf8_lossy(&said.stderr));
        String::from_utf8_lossy(&said.stdout).trim().to_owned()
    }

    /// Lets the server present a certificate.
    pub fn serve_tls(&self, certificate: &str, key: &str) {
        for (name, text) in [("server.crt", certificate), ("server.key", key)] {
            let path = self.data().join(name);
            fs::write(&path, text).expect("written");
            let owner_only = std::os::unix::fs::PermissionsExt::from_mode(0o600);
            fs::set_permissions(&path, owner_only).expect("made private");
            if let Some((user, group)) = self.user {
                chown(&path, Some(user), Some(group)).expect("given to the server's user");
            }
        }
        self.sql("postgres", "ALTER SYSTEM SET ssl = on");
        self.sql("postgres", "SELECT pg_reload_conf()");
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self
            .command("pg_ctl")
            .args(["stop", "-m", "immediate", "-w", "-t", "30", "-D"])
            .arg(self.data())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
    }
}

/// A PgBouncer in transaction mode before a server.
pub struct Bouncer {
    /// Where it listens.
    pub port: u16,
    process: Child,
    _folder: tempfile::TempDir,
}

impl Bouncer {
    /// Starts one with few server connections.
    pub fn start(server: &Server) -> Self {
        let bouncer = on_path("pgbouncer").unwrap_or_else(|| panic!("pgbouncer {ADVICE}"));
        let folder = tempfile::Builder::new().prefix("landbridge-pgbouncer").tempdir().expect("a folder");
        let port = free_port();
        let (users, settings) = (folder.path().join("users"), folder.path().join("settings"));
        fs::write(&users, "\"postgres\" \"\"\n").expect("written");
        let text = format!(
            "[databases]\n* = host=127.0.0.1 port={}\n[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\n\
             unix_socket_dir =\nauth_type = any\nauth_file = {}\npool_mode = transaction\ndefault_pool_size = 4\n\
             max_client_conn = 200\nlogfile =\n",
            server.port,
            users.display()
        );
        let text =
            text.replace("[databases]\n* = host", "[databases]\n* = user=postgres host").replace("logfile =\n", "");
        fs::write(&settings, text).expect("written");
        let mut command = Command::new(bouncer);
        command.arg("-q").arg(&settings).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        if let Some((user, group)) = server.user {
            for path in [folder.path(), &users, &settings] {
                chown(path, Some(user), Some(group)).expect("given to the server's user");
            }
            command.uid(user).gid(group);
        }
        let process = command.spawn().expect("pgbouncer starts");
        let bouncer = Self { port, process, _folder: folder };
        let until = Instant::now() + Duration::from_secs(20);
        while TcpStream::connect(SocketAddr::from((Ipv4Addr::LOCALHOST, port))).is_err() {
            assert!(Instant::now() < until, "pgbouncer did not start to listen");
            std::thread::sleep(Duration::from_millis(20));
        }
        bouncer
    }

    /// The address of a database behind it.
    pub fn url(&self, database: &str) -> String {
        format!("postgres://postgres@127.0.0.1:{}/{database}?sslmode=disable", self.port)
    }
}

impl Drop for Bouncer {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Reads what is there to read, for proxies.
pub fn read_some(stream: &mut TcpStream, buffer: &mut [u8]) -> usize {
    stream.read(buffer).unwrap_or(0)
}
