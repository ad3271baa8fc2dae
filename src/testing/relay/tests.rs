//! Each fault of a relay, on real sockets.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::time::Instant;

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
