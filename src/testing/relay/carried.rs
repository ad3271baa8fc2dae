//! One connection through a relay, and the state that all of them share. Bytes of one side are due at the other after the latency.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex, MutexGuard, Weak};
use std::thread;
use std::time::{Duration, Instant};

use socket2::SockRef;

use super::cut::Cut;
use crate::lock::lock;

/// How often a silent connection whose one half has ended looks whether it is heard again.
const LISTEN_EVERY: Duration = Duration::from_millis(1);

/// The part that the connections of a relay share: its settings, and what they have done so far.
pub(super) struct State {
    /// The addresses of the server, tried in this order.
    pub(super) targets: Vec<SocketAddr>,
    pub(super) latency_micros: AtomicU64,
    /// The longest piece in which bytes are passed on.
    pub(super) piece_len: AtomicUsize,
    /// No bytes pass on connections with this number or a lower one.
    pub(super) silent_until: AtomicU64,
    pub(super) all_silent: AtomicBool,
    pub(super) resets: AtomicBool,
    pub(super) opened: AtomicU64,
    pub(super) open: Mutex<Vec<Weak<Carried>>>,
    pub(super) requests: AtomicUsize,
    /// The highest round trip whose reply a client has received.
    pub(super) round_trips: AtomicU64,
    /// The connection of one request in so many is cut. 0 if none is.
    pub(super) cut_one_in: AtomicU64,
    pub(super) random: AtomicU64,
    pub(super) cuts: Mutex<VecDeque<(Vec<u8>, Cut)>>,
    pub(super) ended: AtomicBool,
}

impl State {
    pub(super) fn cuts(&self) -> MutexGuard<'_, VecDeque<(Vec<u8>, Cut)>> {
        lock(&self.cuts)
    }

    /// Returns the connections that are open.
    pub(super) fn open(&self) -> Vec<Arc<Carried>> {
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
}

/// One connection that the relay carries, by two threads for each direction.
pub(super) struct Carried {
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
    /// Connects to the server, and carries what either side sends until the connection ends.
    pub(super) fn begin(state: &Arc<State>, client: TcpStream) {
        let Ok(server) = TcpStream::connect(state.targets.as_slice()) else { return };
        let _ = client.set_nodelay(true);
        let _ = server.set_nodelay(true);
        let number = state.opened.fetch_add(1, Ordering::SeqCst) + 1;
        let carried = Arc::new(Self {
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

    /// Ends the threads that carry it, and with them the connection.
    pub(super) fn close(&self) {
        self.is_closed.store(true, Ordering::SeqCst);
        // Without the end of a connection that is to be reset.
        let end = if self.is_reset.load(Ordering::SeqCst) { Shutdown::Read } else { Shutdown::Both };
        let _ = self.client.shutdown(end);
        let _ = self.server.shutdown(Shutdown::Both);
    }

    pub(super) fn reset(&self) {
        self.is_reset.store(true, Ordering::SeqCst);
        // The kernel resets a connection without linger time when its last handle is dropped.
        let _ = SockRef::from(&self.client).set_linger(Some(Duration::ZERO));
        self.close();
    }

    fn is_silent(&self) -> bool {
        self.state.all_silent.load(Ordering::SeqCst)
            || self.number <= self.state.silent_until.load(Ordering::SeqCst)
    }

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
