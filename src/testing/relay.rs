//! A relay before a server, for tests of faulty networks: latency, silence, pieces, cuts and resets.

use std::collections::VecDeque;
use std::fmt;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream, ToSocketAddrs};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex, MutexGuard, Weak};
use std::thread;
use std::time::{Duration, Instant};

use socket2::SockRef;

use crate::lock::lock;

/// How often a silent connection whose one half has ended looks whether it is heard again.
const LISTEN_EVERY: Duration = Duration::from_millis(1);

/// The point at which a [`Relay`] cuts a connection, for [`Relay::cut_next`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Cut {
    /// Before the request: the server never sees it.
    BeforeRequest,
    /// After the request, before its reply: the server has executed it, but the client does not know.
    BeforeReply,
    /// In the middle of the reply.
    InReply,
    /// Like [`BeforeReply`](Self::BeforeReply), but the client's connection is reset (TCP RST) instead of closed.
    Reset,
}

impl Cut {
    /// The cuts of [`Relay::cut_one_in`].
    const AT_RANDOM: [Self; 3] = [Self::BeforeRequest, Self::BeforeReply, Self::InReply];
}

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

struct State {
    /// The addresses of the server, tried in this order.
    targets: Vec<SocketAddr>,
    latency_micros: AtomicU64,
    /// The longest piece in which bytes are passed on.
    piece_len: AtomicUsize,
    /// No bytes pass on connections of this generation and before.
    silent_until: AtomicU64,
    all_silent: AtomicBool,
    resets: AtomicBool,
    opened: AtomicU64,
    open: Mutex<Vec<Weak<Carried>>>,
    requests: AtomicUsize,
    /// The highest round trip whose reply a client has received.
    round_trips: AtomicU64,
    /// The connection of one request in so many is cut. 0 if none is.
    cut_one_in: AtomicU64,
    random: AtomicU64,
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

/// One connection that the relay carries.
struct Carried {
    state: Arc<State>,
    number: u64,
    /// The round trip of the last request that the server has received.
    round_trip: AtomicU64,
    /// The cut for the reply to the last request.
    armed: Mutex<Option<Cut>>,
    client: TcpStream,
    server: TcpStream,
    is_reset: AtomicBool,
    is_closed: AtomicBool,
}

impl Carried {
    /// Ends the threads that carry it, and with them the connection.
    fn close(&self) {
        self.is_closed.store(true, Ordering::SeqCst);
        // Without the end of a connection that is to be reset.
        let end = if self.is_reset.load(Ordering::SeqCst) { Shutdown::Read } else { Shutdown::Both };
        let _ = self.client.shutdown(end);
        let _ = self.server.shutdown(Shutdown::Both);
    }

    fn reset(&self) {
        self.is_reset.store(true, Ordering::SeqCst);
        // The kernel resets a connection without linger time when its last handle is dropped.
        let _ = SockRef::from(&self.client).set_linger(Some(Duration::ZERO));
        self.close();
    }

    fn is_silent(&self) -> bool {
        self.state.all_silent.load(Ordering::SeqCst)
            || self.number <= self.state.silent_until.load(Ordering::SeqCst)
    }
}

impl State {
    fn cuts(&self) -> MutexGuard<'_, VecDeque<(Vec<u8>, Cut)>> {
        lock(&self.cuts)
    }

    /// Returns the connections that are open.
    fn open(&self) -> Vec<Arc<Carried>> {
        let mut open = lock(&self.open);
        open.retain(|carried| carried.strong_count() > 0);
        open.iter().filter_map(Weak::upgrade).collect()
    }

    /// Takes the cut that is meant for a request of these bytes.
    fn cut_for(&self, bytes: &[u8]) -> Option<Cut> {
        let one_in = self.cut_one_in.load(Ordering::SeqCst);
        if one_in > 0 && self.random() % one_in == 0 {
            let place = usize::try_from(self.random() % Cut::AT_RANDOM.len() as u64).unwrap_or_default();
            return Cut::AT_RANDOM.get(place).copied();
        }
        let mut cuts = self.cuts();
        let (wanted, _) = cuts.front()?;
        let found = wanted.is_empty() || bytes.windows(wanted.len()).any(|window| window == wanted);
        if found { cuts.pop_front().map(|(_, cut)| cut) } else { None }
    }

    /// splitmix64.
    fn random(&self) -> u64 {
        let mut z = self.random.fetch_add(0x9E37_79B9_7F4A_7C15, Ordering::Relaxed);
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    fn carry(state: &Arc<Self>, client: TcpStream) {
        let Ok(server) = TcpStream::connect(state.targets.as_slice()) else { return };
        let _ = client.set_nodelay(true);
        let _ = server.set_nodelay(true);
        let number = state.opened.fetch_add(1, Ordering::SeqCst) + 1;
        let carried = Arc::new(Carried {
            state: Arc::clone(state),
            number,
            round_trip: AtomicU64::new(0),
            armed: Mutex::new(None),
            client,
            server,
            is_reset: AtomicBool::new(false),
            is_closed: AtomicBool::new(false),
        });
        lock(&state.open).push(Arc::downgrade(&carried));
        // After it is listed, so that it is reset here or by the call that says so.
        if state.resets.load(Ordering::SeqCst) {
            return carried.reset();
        }
        if state.ended.load(Ordering::SeqCst) {
            return carried.close();
        }
        for up in [true, false] {
            let (sender, receiver) = mpsc::channel();
            let (reading, writing) = (Arc::clone(&carried), Arc::clone(&carried));
            thread::spawn(move || reading.read(up, &sender));
            thread::spawn(move || writing.write(up, &receiver));
        }
    }
}

/// Bytes that are under way.
struct Piece {
    /// When they must arrive.
    due: Instant,
    /// Empty at the end of one half of the connection.
    bytes: Vec<u8>,
    round_trip: u64,
    /// The connection is cut behind these bytes.
    is_cut: bool,
}

impl Carried {
    /// Reads until the end, and passes on the bytes.
    fn read(&self, up: bool, arrivals: &Sender<Piece>) {
        let mut from = if up { &self.client } else { &self.server };
        let mut buffer = vec![0; 1 << 16];
        loop {
            let len = match from.read(&mut buffer) {
                Ok(0) => {
                    // The pieces that are under way still arrive, and the other half of the connection goes on.
                    let piece = Piece { due: self.due(), bytes: Vec::new(), round_trip: 0, is_cut: false };
                    let _ = arrivals.send(piece);
                    return;
                }
                Ok(len) => len,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(_) => break,
            };
            let mut bytes = buffer.get(..len).unwrap_or_default().to_vec();
            if self.is_silent() {
                continue;
            }
            let mut armed = lock(&self.armed);
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
                    Some(Cut::Reset) => return self.reset(),
                    Some(_) => break,
                    None => {}
                }
            }
            let is_cut = !up && armed.is_some();
            drop(armed);
            let round_trip = if up {
                self.state.round_trips.load(Ordering::SeqCst) + 1
            } else {
                self.round_trip.load(Ordering::SeqCst)
            };
            let piece = Piece { due: self.due(), bytes, round_trip, is_cut };
            if arrivals.send(piece).is_err() || is_cut {
                // The pieces that were passed on still arrive: the writer closes the connection.
                return;
            }
        }
        self.close();
    }

    /// Writes each piece when it is due.
    fn write(&self, up: bool, arrivals: &Receiver<Piece>) {
        let mut to = if up { &self.server } else { &self.client };
        for Piece { due, bytes, round_trip, is_cut } in arrivals {
            thread::sleep(due.saturating_duration_since(Instant::now()));
            if self.is_silent() {
                if is_cut {
                    return self.close();
                }
                continue;
            }
            let reached = if up { &self.round_trip } else { &self.state.round_trips };
            reached.fetch_max(round_trip, Ordering::SeqCst);
            let piece_len = self.state.piece_len.load(Ordering::SeqCst);
            if bytes.chunks(piece_len).any(|piece| to.write_all(piece).is_err()) || is_cut {
                return self.close();
            }
        }
        // A silent connection ends when it is heard again: TCP sends the end of a half until it is acknowledged.
        while self.is_silent() && !self.is_closed.load(Ordering::SeqCst) {
            thread::sleep(LISTEN_EVERY);
        }
        // The client of a connection that is to be reset must not see an end.
        if !self.is_reset.load(Ordering::SeqCst) {
            let _ = to.shutdown(Shutdown::Write);
        }
    }

    /// Returns when bytes that are read now must arrive.
    fn due(&self) -> Instant {
        Instant::now() + Duration::from_micros(self.state.latency_micros.load(Ordering::SeqCst))
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

    /// Reads once. A process that was stopped and goes on interrupts a read that has a timeout.
    fn read(mut client: &TcpStream, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            match client.read(buffer) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                done => return done,
            }
        }
    }

    fn ask(client: &mut TcpStream, byte: u8) -> usize {
        client.set_read_timeout(Some(Duration::from_secs(120))).unwrap();
        if client.write_all(&[byte]).is_err() {
            return 0;
        }
        let (mut reply, mut got) = ([0; 10], 0);
        while got < 10 {
            match read(client, &mut reply[got..]) {
                Ok(len @ 1..) => got += len,
                _ => break,
            }
        }
        got
    }

    #[test]
    fn cuts_come_where_they_are_told_to() {
        let relay = Relay::before(server()).unwrap();
        let cuts = [(Cut::BeforeRequest, 0), (Cut::BeforeReply, 0), (Cut::InReply, 5), (Cut::Reset, 0)];
        for (cut, expected) in cuts {
            let mut client = TcpStream::connect(relay.address()).unwrap();
            assert_eq!(ask(&mut client, b'a'), 10);
            relay.cut_next("b", cut);
            assert_eq!(ask(&mut client, b'a'), 10);
            assert_eq!(ask(&mut client, b'b'), expected, "{cut:?}");
            assert!(relay.is_done());
        }
        let start = Instant::now();
        while relay.connections() > 0 {
            assert!(start.elapsed() < Duration::from_secs(120));
            thread::sleep(Duration::from_millis(1));
        }
        assert!(relay.requests() >= 6);
    }

    /// A side that ends its half of a connection has said everything: nothing of it may be lost.
    #[test]
    fn the_last_bytes_arrive_before_the_end() {
        for latency in [0, 40].map(Duration::from_millis) {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let relay = Relay::before(listener.local_addr().unwrap()).unwrap();
            relay.set_latency(latency);
            let server = thread::spawn(move || {
                let (mut request, mut client) = (Vec::new(), listener.accept().unwrap().0);
                client.read_to_end(&mut request).unwrap();
                client.write_all(&vec![b'r'; 200_000]).unwrap();
                request
            });
            let mut client = TcpStream::connect(relay.address()).unwrap();
            client.set_read_timeout(Some(Duration::from_secs(120))).unwrap();
            client.write_all(&vec![b'q'; 100_000]).unwrap();
            client.shutdown(Shutdown::Write).unwrap();
            let mut reply = Vec::new();
            client.read_to_end(&mut reply).unwrap();
            assert_eq!((server.join().unwrap().len(), reply.len()), (100_000, 200_000), "{latency:?}");
        }
    }

    #[test]
    fn open_connections_end_with_the_relay() {
        let relay = Relay::before(server()).unwrap();
        let mut client = TcpStream::connect(relay.address()).unwrap();
        assert_eq!(ask(&mut client, b'a'), 10);
        drop(relay);
        assert_eq!(ask(&mut client, b'a'), 0);
    }

    #[test]
    fn every_address_of_the_server_is_tried() {
        let no_port = SocketAddr::from(([127, 0, 0, 1], 0));
        let relay = Relay::before(&[no_port, server()][..]).unwrap();
        assert_eq!(ask(&mut TcpStream::connect(relay.address()).unwrap(), b'a'), 10);
        assert!(Relay::before(&[][..]).is_err());
    }

    #[test]
    fn resets_are_resets_and_end_when_they_are_told_to() {
        let relay = Relay::before(server()).unwrap();
        let mut clients: Vec<_> = (0..2).map(|_| TcpStream::connect(relay.address()).unwrap()).collect();
        for client in &mut clients {
            assert_eq!(ask(client, b'a'), 10);
        }
        let is_reset = |client: &TcpStream| {
            client.set_read_timeout(Some(Duration::from_secs(120))).unwrap();
            read(client, &mut [0]).unwrap_err().kind() == io::ErrorKind::ConnectionReset
        };
        relay.cut_next("b", Cut::Reset);
        clients[0].write_all(b"b").unwrap();
        assert!(is_reset(&clients[0]));
        relay.set_resets(true);
        assert!(is_reset(&clients[1]));
        // It may be reset before the client knows that it was accepted.
        assert!(TcpStream::connect(relay.address()).as_ref().map_or(true, is_reset));
        relay.set_resets(false);
        assert_eq!(ask(&mut TcpStream::connect(relay.address()).unwrap(), b'a'), 10);
    }

    #[test]
    fn pieces_arrive_whole_and_one_request_in_so_many_is_cut() {
        let relay = Relay::before(server()).unwrap();
        relay.set_piece_len(1);
        assert_eq!(ask(&mut TcpStream::connect(relay.address()).unwrap(), b'a'), 10);
        relay.set_piece_len(usize::MAX);
        relay.cut_one_in(10);
        let whole = |_: &usize| ask(&mut TcpStream::connect(relay.address()).unwrap(), b'a') == 10;
        let survivors = (0..200).filter(whole).count();
        assert!((150..200).contains(&survivors), "{survivors}");
        relay.cut_one_in(0);
        assert_eq!((0..20).filter(whole).count(), 20);
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

    /// Neither side of a silent connection learns that the other one has ended its half, until bytes pass again.
    #[test]
    fn a_silent_connection_passes_on_no_end_until_it_is_heard_again() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let relay = Relay::before(listener.local_addr().unwrap()).unwrap();
        let client = TcpStream::connect(relay.address()).unwrap();
        let server = listener.accept().unwrap().0;
        relay.set_silent(true);
        client.shutdown(Shutdown::Write).unwrap();
        server.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
        let error = read(&server, &mut [0]).unwrap_err();
        assert!(matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut), "{error}");
        relay.set_silent(false);
        server.set_read_timeout(Some(Duration::from_secs(120))).unwrap();
        assert_eq!(read(&server, &mut [0]).unwrap(), 0);
        drop((client, server));
        let start = Instant::now();
        while relay.connections() > 0 {
            assert!(start.elapsed() < Duration::from_secs(120));
            thread::sleep(Duration::from_millis(1));
        }
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
