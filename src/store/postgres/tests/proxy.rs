//! A wire that can be cut at a chosen word: what the client says goes through, or does not; what the server answers is lost.

use std::{
    io::Write as _,
    net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU8, AtomicU32, Ordering},
    },
    thread,
};

use super::server::read_some;

/// What happens at the word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cut {
    /// Nothing.
    Never = 0,
    /// The server hears it; its answer is lost with the connection.
    AfterWord = 1,
    /// The server never hears it.
    BeforeWord = 2,
}

/// A proxy before a server.
pub struct Proxy {
    pub port: u16,
    armed: Arc<AtomicU8>,
    /// How often it has cut.
    pub cuts: Arc<AtomicU32>,
    lines: Arc<Mutex<Vec<TcpStream>>>,
}

impl Proxy {
    /// Starts it. It lives as long as the test's process.
    pub fn start(server: u16) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let proxy = Self {
            port: listener.local_addr().unwrap().port(),
            armed: Arc::default(),
            cuts: Arc::default(),
            lines: Arc::default(),
        };
        let (armed, cuts, lines) = (proxy.armed.clone(), proxy.cuts.clone(), proxy.lines.clone());
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let Ok(server) = TcpStream::connect(SocketAddr::from((Ipv4Addr::LOCALHOST, server))) else { continue };
                let _ = (client.set_nodelay(true), server.set_nodelay(true));
                lines.lock().unwrap().push(client.try_clone().unwrap());
                carry(client, server, armed.clone(), cuts.clone());
            }
        });
        proxy
    }

    /// Cuts at the next commit.
    pub fn arm(&self, cut: Cut) {
        self.armed.store(cut as u8, Ordering::SeqCst);
    }

    /// Cuts every line now.
    pub fn cut_all(&self) {
        for line in self.lines.lock().unwrap().drain(..) {
            let _ = line.shutdown(Shutdown::Both);
        }
    }

    pub fn url(&self, database: &str) -> String {
        format!("postgres://postgres@127.0.0.1:{}/{database}?sslmode=disable", self.port)
    }
}

const WORD: &[u8] = b"COMMIT\0";

fn carry(client: TcpStream, server: TcpStream, armed: Arc<AtomicU8>, cuts: Arc<AtomicU32>) {
    let (mut from_client, mut to_server) = (client.try_clone().unwrap(), server.try_clone().unwrap());
    let (mut from_server, mut to_client) = (server, client);
    let lost = Arc::new(AtomicU8::new(0));
    let losing = lost.clone();
    thread::spawn(move || {
        let mut buffer = vec![0; 1 << 16];
        loop {
            let n = read_some(&mut from_client, &mut buffer);
            let said = &buffer[..n];
            if n == 0 {
                break;
            }
            if said.windows(WORD.len()).any(|window| window == WORD) {
                match armed.swap(0, Ordering::SeqCst) {
                    1 => {
                        cuts.fetch_add(1, Ordering::SeqCst);
                        losing.store(1, Ordering::SeqCst);
                    }
                    2 => {
                        cuts.fetch_add(1, Ordering::SeqCst);
                        break;
                    }
                    _ => {}
                }
            }
            if to_server.write_all(said).is_err() {
                break;
            }
        }
        let _ = (to_server.shutdown(Shutdown::Both), from_client.shutdown(Shutdown::Both));
    });
    thread::spawn(move || {
        let mut buffer = vec![0; 1 << 16];
        loop {
            let n = read_some(&mut from_server, &mut buffer);
            // What answers the word is lost, and the line with it.
            if n == 0 || lost.load(Ordering::SeqCst) == 1 || to_client.write_all(&buffer[..n]).is_err() {
                break;
            }
        }
        let _ = (to_client.shutdown(Shutdown::Both), from_server.shutdown(Shutdown::Both));
    });
}
