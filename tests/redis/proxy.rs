//! A TCP proxy before Redis that misbehaves on demand: for a while, or once, on the next request of a kind.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// A request that writes an entry, in whichever way the server does it.
pub(crate) const WRITE: &str = "a write";
const WRITES: [&str; 4] = ["EVALSHA", "IFEQ", "DELEX", "\r\nNX\r\n"];

/// How the line is, for all connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Line {
    Good,
    /// Every reply comes this much later.
    Slow(Duration),
    /// Every byte is a segment of its own, both ways.
    Slices,
    /// Connections are accepted and kept, and nothing comes through: a half-open line.
    BlackHole,
    /// Connections are accepted and reset at once. Open connections are reset, too.
    Reset,
    /// Of so many requests, the connection of one is cut: before it, after it, or in the middle of its reply.
    Breaks {
        one_in: u64,
    },
}

/// A fault that happens once, to one connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The connection is closed and the request not passed on: it is never done.
    CutBefore,
    /// The request is done, the reply never comes: the connection is closed.
    CutAfter,
    /// Half of the reply comes, then the connection is closed.
    HalfReply,
    /// The request is done, and the connection is reset.
    ResetAfter,
}

struct State {
    line: watch::Sender<Line>,
    faults: Mutex<VecDeque<(Vec<u8>, Fault)>>,
    random: AtomicU64,
    open: AtomicUsize,
    target: u16,
}

pub(crate) struct Proxy {
    pub(crate) port: u16,
    state: Arc<State>,
    accepting: JoinHandle<()>,
}

impl Proxy {
    pub(crate) async fn before(target: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let state = Arc::new(State {
            line: watch::Sender::new(Line::Good),
            faults: Mutex::default(),
            random: AtomicU64::new(0x9E37_79B9_7F4A_7C15),
            open: AtomicUsize::new(0),
            target,
        });
        let shared = Arc::clone(&state);
        let accepting = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let state = Arc::clone(&shared);
                tokio::spawn(async move {
                    state.open.fetch_add(1, Ordering::SeqCst);
                    state.carry(client).await;
                    state.open.fetch_sub(1, Ordering::SeqCst);
                });
            }
        });
        Self { port, state, accepting }
    }

    pub(crate) fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    pub(crate) fn line(&self, line: Line) {
        self.state.line.send_replace(line);
    }

    /// Does this to the next request that holds these bytes; for `WRITE`, to the next that writes an entry.
    pub(crate) fn once(&self, request: &str, fault: Fault) {
        self.state.faults.lock().unwrap().push_back((request.as_bytes().to_vec(), fault));
    }

    /// True if all that was to happen once has happened.
    pub(crate) fn is_done(&self) -> bool {
        self.state.faults.lock().unwrap().is_empty()
    }

    pub(crate) fn open(&self) -> usize {
        self.state.open.load(Ordering::SeqCst)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

impl State {
    async fn carry(&self, mut client: TcpStream) {
        let Ok(mut server) = TcpStream::connect(("127.0.0.1", self.target)).await else { return };
        let _ = client.set_nodelay(true);
        let _ = server.set_nodelay(true);
        let mut line = self.line.subscribe();
        let (mut request, mut reply) = (vec![0; 1 << 16], vec![0; 1 << 16]);
        let mut armed = None;
        loop {
            if *line.borrow_and_update() == Line::Reset {
                let _ = client.set_zero_linger();
                return;
            }
            tokio::select! {
                changed = line.changed() => if changed.is_err() { return },
                read = client.read(&mut request) => {
                    let Ok(len @ 1..) = read else { return };
                    let bytes = &request[..len];
                    match self.line_now() {
                        Line::BlackHole => continue,
                        Line::Breaks { one_in } if self.one_in(one_in) => {
                            armed = Some([Fault::CutBefore, Fault::CutAfter, Fault::HalfReply][self.one_of(3)]);
                        }
                        _ => armed = armed.or_else(|| self.fault_for(bytes)),
                    }
                    if armed == Some(Fault::CutBefore) || self.pass(&mut server, bytes).await.is_err() {
                        return;
                    }
                }
                read = server.read(&mut reply) => {
                    let Ok(len @ 1..) = read else { return };
                    match armed {
                        Some(Fault::HalfReply) => {
                            let _ = client.write_all(&reply[..len / 2]).await;
                            return;
                        }
                        Some(Fault::ResetAfter) => {
                            let _ = client.set_zero_linger();
                            return;
                        }
                        Some(_) => return,
                        None => {}
                    }
                    match self.line_now() {
                        Line::BlackHole => continue,
                        Line::Slow(by) => tokio::time::sleep(by).await,
                        _ => {}
                    }
                    if self.pass(&mut client, &reply[..len]).await.is_err() {
                        return;
                    }
                }
            }
        }
    }

    async fn pass(&self, to: &mut TcpStream, bytes: &[u8]) -> std::io::Result<()> {
        if self.line_now() != Line::Slices {
            return to.write_all(bytes).await;
        }
        for byte in bytes {
            to.write_all(&[*byte]).await?;
            tokio::task::yield_now().await;
        }
        Ok(())
    }

    fn line_now(&self) -> Line {
        *self.line.borrow()
    }

    fn fault_for(&self, bytes: &[u8]) -> Option<Fault> {
        let mut faults = self.faults.lock().unwrap();
        let (wanted, fault) = (faults.front()?.0.clone(), faults.front()?.1);
        let holds =
            |wanted: &[u8]| wanted.is_empty() || bytes.windows(wanted.len()).any(|window| window == wanted);
        let found = if wanted == WRITE.as_bytes() {
            WRITES.iter().any(|wanted| holds(wanted.as_bytes()))
        } else {
            holds(&wanted)
        };
        found.then(|| faults.pop_front()).flatten().map(|_| fault)
    }

    fn one_in(&self, n: u64) -> bool {
        self.next() % n == 0
    }

    fn one_of(&self, n: u64) -> usize {
        usize::try_from(self.next() % n).unwrap()
    }

    /// splitmix64: the same sequence in each run.
    fn next(&self) -> u64 {
        let mut z = self.random.fetch_add(0x9E37_79B9_7F4A_7C15, Ordering::Relaxed);
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }
}
