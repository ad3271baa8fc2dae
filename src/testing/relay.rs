//! A relay before a server, for tests of faulty networks: latency, silence, and cuts.

use std::collections::VecDeque;
use std::fmt;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream, ToSocketAddrs};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// The point at which a [`Relay`] cuts a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Cut {
    /// Before the request: the server never sees it.
    BeforeRequest,
    /// After the request, before its reply: the server has executed it, but the client does not know.
    BeforeReply,
    /// In the middle of the reply.
    InReply,
}

/// A relay on a separate port that carries bytes to a server and back, and misbehaves on command.
///
/// It runs on its own threads, whatever runtime the test has, and ends when it is dropped.
///
/// # Examples
///
/// A server behind a round trip of 50 ms, whose connections go dead all at once:
///
/// ```
/// use std::io::{Read, Write};
/// use std::net::{TcpListener, TcpStream};
/// use std::time::{Duration, Instant};
/// use hyper_session::testing::Relay;
///
/// # fn main() -> std::io::Result<()> {
/// let server = TcpListener::bind("127.0.0.1:0")?;
/// let address = server.local_addr()?;
/// std::thread::spawn(move || {
///     for mut client in server.incoming().flatten() {
///         std::thread::spawn(move || {
///             let mut byte = [0];
///             while client.read_exact(&mut byte).and_then(|()| client.write_all(&byte)).is_ok() {}
///         });
///     }
/// });
///
/// let relay = Relay::before(address)?;
/// relay.set_latency(Duration::from_millis(25));
/// let mut client = TcpStream::connect(relay.address())?;
/// let start = Instant::now();
/// let mut reply = [0];
/// client.write_all(b"x")?;
/// client.read_exact(&mut reply)?;
/// assert!(start.elapsed() >= Duration::from_millis(50));
///
/// relay.silence_open_connections();
/// client.write_all(b"y")?;
/// client.set_read_timeout(Some(Duration::from_millis(100)))?;
/// assert!(client.read_exact(&mut reply).is_err(), "nothing comes through, and nothing says so");
/// # Ok(())
/// # }
/// ```
pub struct Relay {
    address: SocketAddr,
    state: Arc<State>,
}

struct State {
    target: SocketAddr,
    latency_micros: AtomicU64,
    /// No bytes pass on connections of this generation and before.
    silent_until: AtomicU64,
    all_silent: AtomicBool,
    opened: AtomicU64,
    open: AtomicUsize,
    requests: AtomicUsize,
    cuts: Mutex<VecDeque<(Vec<u8>, Cut)>>,
    ended: AtomicBool,
}

impl Relay {
    /// Starts a relay on a free port of the loopback interface.
    ///
    /// # Errors
    ///
    /// If `server` is not an address, or no port is free.
    pub fn before(server: impl ToSocketAddrs) -> io::Result<Self> {
        let target = server.to_socket_addrs()?.next().ok_or(io::ErrorKind::InvalidInput)?;
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let address = listener.local_addr()?;
        let state = Arc::new(State {
            target,
            latency_micros: AtomicU64::new(0),
            silent_until: AtomicU64::new(0),
            all_silent: AtomicBool::new(false),
            opened: AtomicU64::new(0),
            open: AtomicUsize::new(0),
            requests: AtomicUsize::new(0),
            cuts: Mutex::default(),
            ended: AtomicBool::new(false),
        });
        let shared = Arc::clone(&state);
        thread::spawn(move || {
            for client in listener.incoming() {
                if shared.ended.load(Ordering::SeqCst) {
                    return;
                }
                if let Ok(client) = client {
                    State::carry(&shared, client);
                }
            }
        });
        Ok(Self { address, state })
    }

    /// Returns the address that clients connect to.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Sets how long bytes take in each direction from now on: half of a round trip. Default: none.
    pub fn set_latency(&self, one_way: Duration) {
        let micros = u64::try_from(one_way.as_micros()).unwrap_or(u64::MAX);
        self.state.latency_micros.store(micros, Ordering::SeqCst);
    }

    /// Makes every open connection silent for good: it stays open, but no bytes pass. Later connections work. This is
    /// how a load balancer behaves that has dropped its connections.
    pub fn silence_open_connections(&self) {
        let opened = self.state.opened.load(Ordering::SeqCst);
        self.state.silent_until.store(opened, Ordering::SeqCst);
    }

    /// Makes all connections silent, later ones included, or lets later bytes pass again.
    pub fn set_silent(&self, yes: bool) {
        self.state.all_silent.store(yes, Ordering::SeqCst);
    }

    /// Cuts the connection of the next request that contains `request`, once.
    pub fn cut_next(&self, request: impl Into<Vec<u8>>, cut: Cut) {
        self.state.cuts().push_back((request.into(), cut));
    }

    /// Returns true if every cut of [`cut_next`](Self::cut_next) has happened.
    pub fn is_done(&self) -> bool {
        self.state.cuts().is_empty()
    }

    /// Returns how many connections are open.
    pub fn connections(&self) -> usize {
        self.state.open.load(Ordering::SeqCst)
    }

    /// Returns how many pieces clients have sent. Bytes that are written and arrive at once are one piece.
    pub fn requests(&self) -> usize {
        self.state.requests.load(Ordering::SeqCst)
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.state.ended.store(true, Ordering::SeqCst);
        // Wakes the thread that accepts.
        let _ = TcpStream::connect(self.address);
    }
}

impl fmt::Debug for Relay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Relay").field("address", &self.address).finish_non_exhaustive()
    }
}

/// One connection that the relay carries.
struct Carried {
    state: Arc<State>,
    number: u64,
    /// The cut for the reply to the last request.
    armed: Mutex<Option<Cut>>,
    client: TcpStream,
    server: TcpStream,
}

impl Carried {
    fn close(&self) {
        let _ = self.client.shutdown(Shutdown::Both);
        let _ = self.server.shutdown(Shutdown::Both);
    }

    fn is_silent(&self) -> bool {
        self.state.all_silent.load(Ordering::SeqCst)
            || self.number <= self.state.silent_until.load(Ordering::SeqCst)
    }
}

impl Drop for Carried {
    fn drop(&mut self) {
        self.state.open.fetch_sub(1, Ordering::SeqCst);
    }
}

impl State {
    fn cuts(&self) -> MutexGuard<'_, VecDeque<(Vec<u8>, Cut)>> {
        self.cuts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the cut that is meant for a request of these bytes.
    fn cut_for(&self, bytes: &[u8]) -> Option<Cut> {
        let mut cuts = self.cuts();
        let (wanted, _) = cuts.front()?;
        let found = wanted.is_empty() || bytes.windows(wanted.len()).any(|window| window == wanted);
        if found { cuts.pop_front().map(|(_, cut)| cut) } else { None }
    }

    fn carry(state: &Arc<Self>, client: TcpStream) {
        let Ok(server) = TcpStream::connect(state.target) else { return };
        let _ = client.set_nodelay(true);
        let _ = server.set_nodelay(true);
        let number = state.opened.fetch_add(1, Ordering::SeqCst) + 1;
        state.open.fetch_add(1, Ordering::SeqCst);
        let armed = Mutex::new(None);
        let carried = Arc::new(Carried { state: Arc::clone(state), number, armed, client, server });
        for up in [true, false] {
            let (sender, receiver) = mpsc::channel();
            let (reading, writing) = (Arc::clone(&carried), Arc::clone(&carried));
            thread::spawn(move || reading.read(up, &sender));
            thread::spawn(move || writing.write(up, &receiver));
        }
    }
}

type Piece = (Instant, Vec<u8>);

impl Carried {
    /// Reads until the end, and passes on the bytes with the moment at which they must arrive.
    fn read(&self, up: bool, arrivals: &Sender<Piece>) {
        let mut from = if up { &self.client } else { &self.server };
        let mut buffer = vec![0; 1 << 16];
        while let Ok(len @ 1..) = from.read(&mut buffer) {
            let mut bytes = buffer.get(..len).unwrap_or_default().to_vec();
            if self.is_silent() {
                continue;
            }
            let mut armed = self.armed.lock().unwrap_or_else(PoisonError::into_inner);
            if up {
                self.state.requests.fetch_add(1, Ordering::SeqCst);
                if let Some(cut) = self.state.cut_for(&bytes) {
                    *armed = Some(cut);
                }
                if *armed == Some(Cut::BeforeRequest) {
                    break;
                }
            } else {
                match *armed {
                    Some(Cut::InReply) => bytes.truncate(len / 2),
                    Some(_) => break,
                    None => {}
                }
            }
            let last = !up && armed.is_some();
            drop(armed);
            let latency = Duration::from_micros(self.state.latency_micros.load(Ordering::SeqCst));
            if arrivals.send((Instant::now() + latency, bytes)).is_err() || last {
                // The pieces that were passed on still arrive: the writer closes the connection.
                return;
            }
        }
        self.close();
    }

    /// Writes each piece when it is due.
    fn write(&self, up: bool, arrivals: &Receiver<Piece>) {
        let mut to = if up { &self.server } else { &self.client };
        for (due, bytes) in arrivals {
            thread::sleep(due.saturating_duration_since(Instant::now()));
            if !self.is_silent() && to.write_all(&bytes).is_err() {
                break;
            }
        }
        self.close();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Starts a server that replies to each byte with ten copies of it.
    fn server() -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        thread::spawn(move || {
            for mut client in listener.incoming().flatten() {
                thread::spawn(move || {
                    let mut byte = [0];
                    while client.read_exact(&mut byte).is_ok() && client.write_all(&[byte[0]; 10]).is_ok() {}
                });
            }
        });
        address
    }

    fn ask(client: &mut TcpStream, byte: u8) -> usize {
        client.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        client.write_all(&[byte]).unwrap();
        let (mut reply, mut got) = ([0; 10], 0);
        while got < 10 {
            match client.read(&mut reply[got..]) {
                Ok(len @ 1..) => got += len,
                _ => break,
            }
        }
        got
    }

    #[test]
    fn cuts_come_where_they_are_told_to() {
        let relay = Relay::before(server()).unwrap();
        for (cut, expected) in [(Cut::BeforeRequest, 0), (Cut::BeforeReply, 0), (Cut::InReply, 5)] {
            let mut client = TcpStream::connect(relay.address()).unwrap();
            assert_eq!(ask(&mut client, b'a'), 10);
            relay.cut_next("b", cut);
            assert_eq!(ask(&mut client, b'a'), 10);
            assert_eq!(ask(&mut client, b'b'), expected, "{cut:?}");
            assert!(relay.is_done());
        }
        let start = Instant::now();
        while relay.connections() > 0 {
            assert!(start.elapsed() < Duration::from_secs(10));
            thread::sleep(Duration::from_millis(1));
        }
        assert!(relay.requests() >= 6);
    }

    #[test]
    fn connections_that_went_silent_stay_so_and_later_ones_work() {
        let relay = Relay::before(server()).unwrap();
        let mut old = TcpStream::connect(relay.address()).unwrap();
        assert_eq!(ask(&mut old, b'a'), 10);
        relay.silence_open_connections();
        old.write_all(b"a").unwrap();
        let mut new = TcpStream::connect(relay.address()).unwrap();
        assert_eq!(ask(&mut new, b'a'), 10);
        old.set_nonblocking(true).unwrap();
        assert_eq!(old.read(&mut [0]).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        assert_eq!(relay.connections(), 2);
    }

    /// Many pieces are under way at once, as on a line: their latencies do not add up.
    #[test]
    fn latency_does_not_add_up() {
        let relay = Relay::before(server()).unwrap();
        relay.set_latency(Duration::from_millis(40));
        let start = Instant::now();
        let clients: Vec<_> = (0..20)
            .map(|_| {
                let mut client = TcpStream::connect(relay.address()).unwrap();
                thread::spawn(move || ask(&mut client, b'a'))
            })
            .collect();
        assert!(clients.into_iter().all(|client| client.join().unwrap() == 10));
        assert!(start.elapsed() >= Duration::from_millis(80));
    }
}
