//! A load generator: one thread, many connections, as few instructions for each request as it takes to know that it was
//! answered. Requests are written ahead; of a response, its end and its status are looked at. A connection keeps the cookie that
//! a response sets, and sends it with its next request, as browsers do.

use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::ops::Range;
use std::time::{Duration, Instant};

use httlib_hpack::Decoder;
use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};

/// The body of each response.
const BODY: usize = "hello, world!".len();

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    Http1,
    Http2,
}

impl Protocol {
    /// Connections, and how many requests each has under way: 32 in all.
    fn shape(self) -> (usize, usize) {
        match self {
            Self::Http1 => (32, 1),
            Self::Http2 => (4, 8),
        }
    }
}

/// The requests of one arm.
pub struct Client {
    poll: Poll,
    events: Events,
    connections: Vec<Connection>,
    /// Any status will do, because the value differs after a change.
    any_status: bool,
}

struct Connection {
    stream: TcpStream,
    protocol: Protocol,
    requests: Requests,
    input: Vec<u8>,
    output: Vec<u8>,
    /// When each request under way was due, by the number of its stream.
    under_way: VecDeque<(u32, Instant)>,
    room: usize,
    next_stream: u32,
    path: &'static str,
    /// Decodes the heads of responses, if the path changes the session: RFC 7541, one table for each connection.
    heads: Option<Decoder<'static>>,
}

/// The bytes of the first request of a connection, and of each further one.
#[derive(Clone)]
struct Requests {
    first: Vec<u8>,
    further: Vec<u8>,
}

impl Client {
    /// Connects. If the path `changes` the session, its responses may set the cookie that the next request brings.
    pub fn connect(
        address: SocketAddr,
        protocol: Protocol,
        path: &'static str,
        cookie: &str,
        changes: bool,
    ) -> Self {
        let poll = Poll::new().unwrap();
        let (count, room) = protocol.shape();
        let requests = match protocol {
            Protocol::Http1 => Requests::http1(path, cookie),
            Protocol::Http2 => Requests::http2(path, cookie),
        };
        let connections = (0..count).map(|number| {
            let stream = std::net::TcpStream::connect(address).unwrap();
            stream.set_nodelay(true).unwrap();
            stream.set_nonblocking(true).unwrap();
            let mut stream = TcpStream::from_std(stream);
            poll.registry().register(&mut stream, Token(number), Interest::READABLE).unwrap();
            let output = if protocol == Protocol::Http2 { preface() } else { Vec::new() };
            Connection {
                stream,
                protocol,
                requests: requests.clone(),
                input: Vec::with_capacity(1 << 16),
                output,
                under_way: VecDeque::new(),
                room,
                next_stream: 1,
                path,
                heads: changes.then(Decoder::default),
            }
        });
        let connections = connections.collect();
        Self { poll, events: Events::with_capacity(64), connections, any_status: changes }
    }

    /// As many requests as are answered in `duration`.
    pub fn saturate(&mut self, duration: Duration) -> u64 {
        let start = Instant::now();
        for connection in &mut self.connections {
            while connection.has_room() {
                connection.send(start);
            }
            connection.flush();
        }
        let mut answered = 0;
        while start.elapsed() < duration {
            let more = Duration::from_millis(10);
            self.poll.poll(&mut self.events, Some(more)).unwrap();
            for event in &self.events {
                let connection = &mut self.connections[event.token().0];
                let done = connection.receive(self.any_status, |_| {});
                answered += done;
                for _ in 0..done {
                    connection.send(start);
                }
                connection.flush();
            }
        }
        self.drain();
        answered
    }

    /// Requests at a fixed rate, whether or not those before were answered: how long each took, in nanoseconds, from
    /// the moment at which it was due.
    pub fn pace(&mut self, per_second: f64, duration: Duration) -> Vec<u64> {
        let start = Instant::now();
        let total = (per_second * duration.as_secs_f64()) as u32;
        let due = |number: u32| start + Duration::from_secs_f64(f64::from(number) / per_second);
        let (mut sent, mut latencies, mut turn) = (0, Vec::with_capacity(total as usize), 0);
        while latencies.len() < total as usize && start.elapsed() < duration * 4 {
            while sent < total && due(sent) <= Instant::now() {
                let count = self.connections.len();
                let free = (0..count).map(|n| (turn + n) % count).find(|&n| self.connections[n].has_room());
                let Some(free) = free else { break };
                turn = free + 1;
                self.connections[free].send(due(sent));
                self.connections[free].flush();
                sent += 1;
            }
            self.poll.poll(&mut self.events, Some(Duration::ZERO)).unwrap();
            for event in &self.events {
                let connection = &mut self.connections[event.token().0];
                connection.receive(self.any_status, |due| latencies.push(due.elapsed().as_nanos() as u64));
            }
        }
        self.drain();
        latencies
    }

    /// Waits for what is under way.
    fn drain(&mut self) {
        let start = Instant::now();
        while self.connections.iter().any(|connection| !connection.under_way.is_empty()) {
            assert!(start.elapsed() < Duration::from_secs(60), "requests without an answer");
            self.poll.poll(&mut self.events, Some(Duration::from_millis(10))).unwrap();
            for event in &self.events {
                self.connections[event.token().0].receive(self.any_status, |_| {});
            }
        }
    }
}

impl Connection {
    fn has_room(&self) -> bool {
        self.under_way.len() < self.room
    }

    fn send(&mut self, due: Instant) {
        let stream = self.next_stream;
        let bytes = if stream == 1 { &self.requests.first } else { &self.requests.further };
        let at = self.output.len();
        self.output.extend_from_slice(bytes);
        if self.protocol == Protocol::Http2 {
            self.output[at + 5..at + 9].copy_from_slice(&stream.to_be_bytes());
        }
        self.next_stream += 2;
        self.under_way.push_back((stream, due));
    }

    fn flush(&mut self) {
        while !self.output.is_empty() {
            match self.stream.write(&self.output) {
                Ok(written) => drop(self.output.drain(..written)),
                // A few hundred bytes for each request under way: buffers of the system have room for them.
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) => panic!("{error}"),
            }
        }
    }

    /// Takes in what is there: how many responses it completes.
    fn receive(&mut self, any_status: bool, mut answered: impl FnMut(Instant)) -> u64 {
        let mut buffer = [0; 1 << 16];
        loop {
            match self.stream.read(&mut buffer) {
                Ok(0) => panic!("the server closed a connection"),
                Ok(read) => {
                    self.input.extend_from_slice(&buffer[..read]);
                    if read < buffer.len() {
                        break;
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => panic!("{error}"),
            }
        }
        let mut done = 0;
        let mut used = 0;
        while let Some((len, ended)) = match self.protocol {
            Protocol::Http1 => response(&self.input[used..], any_status),
            Protocol::Http2 => frame(&self.input[used..], any_status, &mut self.output),
        } {
            if let Some(cookie) = self.cookie_of(used..used + len) {
                self.requests.further = match self.protocol {
                    Protocol::Http1 => Requests::http1(self.path, &cookie).further,
                    Protocol::Http2 => Requests::http2_with(&cookie),
                };
            }
            used += len;
            if let Some(stream) = ended {
                let place = match self.protocol {
                    Protocol::Http1 => 0,
                    Protocol::Http2 => {
                        self.under_way.iter().position(|(number, _)| *number == stream).unwrap()
                    }
                };
                answered(self.under_way.remove(place).unwrap().1);
                done += 1;
            }
        }
        self.input.drain(..used);
        if self.protocol == Protocol::Http2 {
            self.flush(); // acknowledgements
        }
        done
    }
}

impl Connection {
    /// The cookie that this response, or the head in this frame, sets: `name=value`.
    fn cookie_of(&mut self, part: Range<usize>) -> Option<String> {
        let (decoder, part) = (self.heads.as_mut()?, &self.input[part]);
        let line = match self.protocol {
            Protocol::Http1 => {
                let at = memchr::memmem::find(part, b"\r\nset-cookie: ")? + 14;
                part[at..].to_vec()
            }
            Protocol::Http2 if part[3] == 1 => {
                assert!(part[4] & 0x2c == 4, "a whole head, without padding and priority: {part:?}");
                let (mut block, mut head) = (part[9..].to_vec(), Vec::new());
                decoder.decode(&mut block, &mut head).expect("a head");
                head.into_iter().find(|(name, ..)| name == b"set-cookie")?.1
            }
            Protocol::Http2 => return None,
        };
        let pair = line.split(|&byte| byte == b';').next()?;
        Some(str::from_utf8(pair).expect("a cookie").to_owned())
    }
}

/// The length of the first response, if it is whole. Its one request is the one under way.
fn response(input: &[u8], any_status: bool) -> Option<(usize, Option<u32>)> {
    let head = memchr::memmem::find(input, b"\r\n\r\n")? + 4;
    if input.len() < head + BODY {
        return None;
    }
    assert!(any_status || input.starts_with(b"HTTP/1.1 200"), "{:?}", String::from_utf8_lossy(input));
    assert!(input[head..].starts_with(b"hello, world!"));
    Some((head + BODY, Some(0)))
}

/// The length of the first frame, if it is whole, and the stream that it ends. RFC 9113 section 4.1.
fn frame(input: &[u8], any_status: bool, output: &mut Vec<u8>) -> Option<(usize, Option<u32>)> {
    let (&[l0, l1, l2, kind, flags, ref stream @ ..], rest) = input.split_first_chunk::<9>()?;
    let len = usize::from(l0) << 16 | usize::from(l1) << 8 | usize::from(l2);
    let payload = rest.get(..len)?;
    let stream = u32::from_be_bytes(*stream);
    let ended = match kind {
        // DATA, HEADERS; the first field of a response is its status, and 0x88 is 200.
        0 => flags & 1 != 0,
        1 => {
            assert!(any_status || payload[0] == 0x88 || payload[0] & 0xe0 == 0x20, "{payload:?}");
            flags & 1 != 0
        }
        // SETTINGS, PING
        4 if flags & 1 == 0 => {
            output.extend_from_slice(&[0, 0, 0, 4, 1, 0, 0, 0, 0]);
            false
        }
        6 if flags & 1 == 0 => {
            output.extend_from_slice(&[0, 0, 8, 6, 1, 0, 0, 0, 0]);
            output.extend_from_slice(payload);
            false
        }
        3 | 7 => panic!("the server refuses: frame {kind}, {payload:?}"),
        _ => false,
    };
    Some((9 + len, ended.then_some(stream)))
}

/// The first bytes of a client, with windows that are not used up in a run.
fn preface() -> Vec<u8> {
    let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    bytes.extend_from_slice(&[0, 0, 12, 4, 0, 0, 0, 0, 0]);
    bytes.extend_from_slice(&[0, 2, 0, 0, 0, 0]); // ENABLE_PUSH
    bytes.extend_from_slice(&[0, 4, 0x7f, 0xff, 0xff, 0xff]); // INITIAL_WINDOW_SIZE
    bytes.extend_from_slice(&[0, 0, 4, 8, 0, 0, 0, 0, 0, 0x7f, 0, 0, 0]); // WINDOW_UPDATE
    bytes
}

impl Requests {
    fn http1(path: &str, cookie: &str) -> Self {
        let request =
            format!("GET {path} HTTP/1.1\r\nhost: localhost\r\ncookie: {cookie}\r\n\r\n").into_bytes();
        Self { first: request.clone(), further: request }
    }

    /// As a browser does: authority, path and cookie go into the table of the connection once (RFC 7541 section 6.2.1),
    /// and are one byte each from then on.
    fn http2(path: &str, cookie: &str) -> Self {
        let mut first = vec![0x82, 0x86]; // GET, http
        for (name, value) in [(1, "localhost"), (4, path), (32, cookie)] {
            first.push(0x40 | name);
            push_text(&mut first, value);
        }
        let further = [0x82, 0x86, 0xc0, 0xbf, 0xbe]; // entries 64, 63, 62: the newest has the lowest number
        Self { first: headers(&first), further: headers(&further) }
    }

    /// A further request with another cookie, which does not go into the table (RFC 7541 section 6.2.2).
    fn http2_with(cookie: &str) -> Vec<u8> {
        let mut block = vec![0x82, 0x86, 0xc0, 0xbf, 0x0f, 32 - 15];
        push_text(&mut block, cookie);
        headers(&block)
    }
}

/// RFC 7541 section 5.2: a length with a prefix of seven bits, then the text as it is.
fn push_text(block: &mut Vec<u8>, text: &str) {
    match text.len() {
        len @ 0..127 => block.push(len as u8),
        mut len => {
            block.push(127);
            len -= 127;
            while len >= 128 {
                block.push(len as u8 | 0x80);
                len >>= 7;
            }
            block.push(len as u8);
        }
    }
    block.extend_from_slice(text.as_bytes());
}

/// A frame with the whole head of a request without a body.
fn headers(block: &[u8]) -> Vec<u8> {
    let [.., l0, l1, l2] = (block.len() as u32).to_be_bytes();
    let mut frame = vec![l0, l1, l2, 1, 5, 0, 0, 0, 0]; // HEADERS, END_STREAM and END_HEADERS
    frame.extend_from_slice(block);
    frame
}
