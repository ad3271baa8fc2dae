//! A proxy that sees each request and its response, and can answer instead of the server.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

/// A request, and the status of its response.
#[derive(Clone, Debug)]
pub struct Exchange {
    pub method: String,
    pub path: String,
    /// By their names in lower case.
    pub headers: BTreeMap<String, String>,
    pub status: u16,
}

/// The exchanges of a browser with the server, in the order of the responses.
#[derive(Clone, Debug, Default)]
pub struct Exchanges(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    seen: Vec<Exchange>,
    /// The statuses of responses that the server does not get to give, by path.
    faults: BTreeMap<String, u16>,
    /// The paths whose requests wait.
    held: BTreeSet<String>,
}

impl Exchanges {
    /// Returns the exchanges since the last call.
    pub fn take(&self) -> Vec<Exchange> {
        std::mem::take(&mut self.0.lock().expect("exchanges").seen)
    }

    /// Waits until there was an exchange with this path and status, and returns all since the last call.
    pub fn wait_for(&self, path: &str, status: u16) -> Vec<Exchange> {
        for _ in 0..1_200 {
            let seen = |exchange: &Exchange| exchange.path == path && exchange.status == status;
            if self.0.lock().expect("exchanges").seen.iter().any(seen) {
                return self.take();
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        panic!("no {status} of {path} in {:#?}", self.take());
    }

    /// Answers requests to `path` with an empty response of this status. `None`: the server answers them again.
    pub fn answer(&self, path: &str, status: Option<u16>) {
        let faults = &mut self.0.lock().expect("exchanges").faults;
        match status {
            Some(status) => drop(faults.insert(path.to_owned(), status)),
            None => drop(faults.remove(path)),
        }
    }

    /// Lets requests to `path` wait until it is released.
    pub fn hold(&self, path: &str) {
        self.0.lock().expect("exchanges").held.insert(path.to_owned());
    }

    pub fn release(&self, path: &str) {
        self.0.lock().expect("exchanges").held.remove(path);
    }

    async fn released(&self, path: &str) {
        while self.0.lock().expect("exchanges").held.contains(path) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    fn fault(&self, path: &str) -> Option<u16> {
        self.0.lock().expect("exchanges").faults.get(path).copied()
    }

    /// Browsers ask for the icon of a page when they like, so that is left out.
    fn note(&self, exchange: Exchange) {
        if exchange.path != "/favicon.ico" {
            self.0.lock().expect("exchanges").seen.push(exchange);
        }
    }
}

/// Relays one request on each connection.
pub(crate) async fn relay(
    listener: TcpListener,
    acceptor: TlsAcceptor,
    to: Arc<Mutex<SocketAddr>>,
    exchanges: Exchanges,
) {
    while let Ok((stream, _)) = listener.accept().await {
        let (acceptor, to, exchanges) = (acceptor.clone(), Arc::clone(&to), exchanges.clone());
        tokio::spawn(async move {
            let Ok(mut client) = acceptor.accept(stream).await else { return };
            // Browsers open connections that they do not use.
            let Some((head, body)) = read_request(&mut client).await else { return };
            let mut exchange = parse(&head);
            exchanges.released(&exchange.path).await;
            let response = match exchanges.fault(&exchange.path) {
                Some(status) => {
                    format!("HTTP/1.1 {status} Fault\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")
                        .into_bytes()
                }
                None => {
                    let to = *to.lock().expect("an address");
                    let Ok(mut server) = TcpStream::connect(to).await else { return };
                    let head = head.replacen("\r\n", "\r\nConnection: close\r\n", 1);
                    let head = head.replace("Connection: keep-alive\r\n", "");
                    let mut response = Vec::new();
                    let sent = server.write_all(&[head.as_bytes(), &body].concat()).await;
                    if sent.is_err() || server.read_to_end(&mut response).await.is_err() {
                        return;
                    }
                    response
                }
            };
            let status = response.get(9..12).and_then(|digits| std::str::from_utf8(digits).ok());
            exchange.status = status.and_then(|digits| digits.parse().ok()).unwrap_or_default();
            // Noted first, so that whatever follows from the response comes later.
            exchanges.note(exchange);
            let _ = client.write_all(&response).await;
            let _ = client.shutdown().await;
        });
    }
}

async fn read_request(client: &mut (impl AsyncRead + Unpin)) -> Option<(String, Vec<u8>)> {
    let mut read = Vec::new();
    let end = loop {
        if let Some(at) = read.windows(4).position(|bytes| bytes == b"\r\n\r\n") {
            break at + 4;
        }
        let mut buffer = [0; 4096];
        match client.read(&mut buffer).await {
            Ok(0) | Err(_) => return None,
            Ok(count) => read.extend_from_slice(&buffer[..count]),
        }
    };
    let mut body = read.split_off(end);
    let head = String::from_utf8(read).ok()?;
    let length = parse(&head).headers.get("content-length").and_then(|length| length.parse().ok());
    let mut rest = vec![0; length.unwrap_or(0_usize).saturating_sub(body.len())];
    client.read_exact(&mut rest).await.ok()?;
    body.extend_from_slice(&rest);
    Some((head, body))
}

fn parse(head: &str) -> Exchange {
    let mut lines = head.split("\r\n");
    let mut words = lines.next().unwrap_or_default().split(' ');
    let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let headers = lines.filter_map(|line| line.split_once(':'));
    let headers = headers.map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()));
    Exchange { method: method.to_owned(), path: path.to_owned(), headers: headers.collect(), status: 0 }
}
