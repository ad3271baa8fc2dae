//! A relay before a server, for tests of faulty networks: latency, silence, pieces, cuts and resets.

mod carried;
mod cut;

use std::fmt;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, ToSocketAddrs};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

pub use self::cut::Cut;

use self::carried::{Carried, State};

/// A relay on a separate port that carries bytes to a server and back, and misbehaves on command.
///
/// It runs on its own threads, whatever runtime the test has. When it is dropped, it closes its connections and its port.
/// When one side ends its half of a connection, the other side first gets all bytes that are under way, and then the end.
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

impl Relay {
    /// Starts a relay on a free port of the loopback interface.
    ///
    /// # Errors
    ///
    /// If `server` is not an address, or no port is free.
    pub fn before(server: impl ToSocketAddrs) -> io::Result<Self> {
        let targets: Vec<_> = server.to_socket_addrs()?.collect();
        if targets.is_empty() {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let address = listener.local_addr()?;
        let state = Arc::new(State {
            targets,
            latency_micros: AtomicU64::new(0),
            piece_len: AtomicUsize::new(usize::MAX),
            silent_until: AtomicU64::new(0),
            all_silent: AtomicBool::new(false),
            resets: AtomicBool::new(false),
            opened: AtomicU64::new(0),
            open: Mutex::default(),
            requests: AtomicUsize::new(0),
            round_trips: AtomicU64::new(0),
            cut_one_in: AtomicU64::new(0),
            random: AtomicU64::new(0x9E37_79B9_7F4A_7C15),
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
                    Carried::begin(&shared, client);
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

    /// Sets the length of the pieces in which bytes are passed on from now on, in both directions: with 1, each byte is a
    /// segment of its own. Default: as they come.
    ///
    /// # Panics
    ///
    /// If `len` is zero.
    pub fn set_piece_len(&self, len: usize) {
        assert!(len > 0, "the length of a piece must not be zero");
        self.state.piece_len.store(len, Ordering::SeqCst);
    }

    /// Makes every open connection silent for good: it stays open, but no bytes pass. Later connections work. This is
    /// how a load balancer behaves that has dropped its connections.
    pub fn silence_open_connections(&self) {
        let opened = self.state.opened.load(Ordering::SeqCst);
        self.state.silent_until.store(opened, Ordering::SeqCst);
    }

    /// Makes all connections silent, later ones included, or lets later bytes pass again. Bytes that were sent meanwhile are lost.
    /// The end of a connection is not: it is passed on then.
    pub fn set_silent(&self, yes: bool) {
        self.state.all_silent.store(yes, Ordering::SeqCst);
    }

    /// Resets (TCP RST) all open connections, and later ones as soon as they are accepted, or lets later ones work again.
    pub fn set_resets(&self, yes: bool) {
        self.state.resets.store(yes, Ordering::SeqCst);
        if yes {
            for carried in self.state.open() {
                carried.reset();
            }
        }
    }

    /// Cuts the connection of one in `requests` requests from now on: before it, after it, or in its reply. 0 means none,
    /// which is the default. Which requests are cut is the same in each run.
    pub fn cut_one_in(&self, requests: u64) {
        self.state.cut_one_in.store(requests, Ordering::SeqCst);
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
    ///
    /// A silent connection passes on no end, so it is open until both sides have ended it and it is heard again. A connection that
    /// [`silence_open_connections`](Self::silence_open_connections) has silenced is open until the relay is dropped.
    pub fn connections(&self) -> usize {
        self.state.open().len()
    }

    /// Returns how many pieces clients have sent. Bytes that are written and arrive at once are one piece.
    pub fn requests(&self) -> usize {
        self.state.requests.load(Ordering::SeqCst)
    }

    /// Returns how many round trips clients have waited for, one after the other, over all connections.
    ///
    /// A request that is sent while other requests wait for their replies belongs to the same round trip. A request that is
    /// sent after a reply has arrived begins the next one. So the number says how often a client waited, and not how long: a
    /// busy machine changes it only if it holds up a request for longer than the [latency](Self::set_latency).
    ///
    /// # Examples
    ///
    /// ```
    /// # use std::io::{Read, Write};
    /// # use std::net::{TcpListener, TcpStream};
    /// # use std::time::Duration;
    /// # use hyper_session::testing::Relay;
    /// # fn main() -> std::io::Result<()> {
    /// # let server = TcpListener::bind("127.0.0.1:0")?;
    /// # let address = server.local_addr()?;
    /// # std::thread::spawn(move || {
    /// #     let (mut client, mut byte) = (server.accept().unwrap().0, [0]);
    /// #     while client.read_exact(&mut byte).and_then(|()| client.write_all(&byte)).is_ok() {}
    /// # });
    /// let relay = Relay::before(address)?;
    /// relay.set_latency(Duration::from_millis(100));
    /// let mut client = TcpStream::connect(relay.address())?;
    /// client.write_all(b"two requests")?;
    /// client.write_all(b" at once")?;
    /// client.read_exact(&mut [0; 20])?;
    /// assert_eq!(relay.round_trips(), 1);
    /// client.write_all(b"!")?;
    /// client.read_exact(&mut [0])?;
    /// assert_eq!(relay.round_trips(), 2);
    /// # Ok(())
    /// # }
    /// ```
    pub fn round_trips(&self) -> u64 {
        self.state.round_trips.load(Ordering::SeqCst)
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.state.ended.store(true, Ordering::SeqCst);
        for carried in self.state.open() {
            carried.close();
        }
        // Wakes the thread that accepts.
        let _ = TcpStream::connect(self.address);
    }
}

impl fmt::Debug for Relay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Relay").field("address", &self.address).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
