//! A visitor with a browser, who speaks HTTP over a socket.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

#[derive(Clone)]
pub(crate) struct Visitor {
    site: SocketAddr,
    cookies: BTreeMap<String, String>,
}

impl Visitor {
    pub(crate) fn new(site: SocketAddr) -> Self {
        Self { site, cookies: BTreeMap::new() }
    }

    /// Sends a request, keeps the cookies of the response, and returns its body. Its status must be 200.
    pub(crate) async fn send(&mut self, method: &str, path: &str) -> String {
        let cookies: Vec<_> = self.cookies.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let cookies =
            if cookies.is_empty() { String::new() } else { format!("cookie: {}\r\n", cookies.join("; ")) };
        let site = self.site;
        let request = format!(
            "{method} {path} HTTP/1.1\r\nhost: {site}\r\n{cookies}content-length: 0\r\nconnection: close\r\n\r\n"
        );
        let mut stream = TcpStream::connect(site).await.expect("a connection");
        stream.write_all(request.as_bytes()).await.expect("the request is sent");
        let mut response = String::new();
        stream.read_to_string(&mut response).await.expect("a response");
        let (head, body) = response.split_once("\r\n\r\n").expect("a head");
        assert!(head.starts_with("HTTP/1.1 200 "), "{method} {path}: {response}");
        for line in head.lines() {
            let Some((name, value)) = line.split_once(": ") else { continue };
            if name.eq_ignore_ascii_case("set-cookie") {
                self.receive(value);
            }
        }
        // Node sends chunks.
        match head.to_ascii_lowercase().contains("transfer-encoding: chunked") {
            true => body.lines().nth(1).unwrap_or_default().to_owned(),
            false => body.to_owned(),
        }
    }

    fn receive(&mut self, line: &str) {
        let (pair, attributes) = line.split_once(';').unwrap_or((line, ""));
        let (name, value) = pair.split_once('=').expect("a cookie");
        if attributes.to_ascii_lowercase().contains("max-age=0") {
            self.cookies.remove(name);
        } else {
            self.cookies.insert(name.to_owned(), value.to_owned());
        }
    }

    /// The same browser at another process of the site.
    pub(crate) fn at(&self, site: SocketAddr) -> Self {
        Self { site, cookies: self.cookies.clone() }
    }

    pub(crate) fn holds(&self, cookie: &str) -> bool {
        self.cookies.contains_key(cookie)
    }
}
