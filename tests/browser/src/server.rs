//! The login example, with the cookie of production, or another service, behind TLS.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rcgen::PublicKeyData;
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::pki_types::PrivateKeyDer;

use crate::exchanges::{self, Exchanges};

pub struct Server {
    example: Option<Child>,
    environment: Vec<(&'static str, String)>,
    address: Arc<Mutex<SocketAddr>>,
    host: &'static str,
    port: u16,
    key_hash: String,
    // Dropped with the server: its tasks end.
    _proxy: Runtime,
}

impl Server {
    /// Builds and starts the example, and ends TLS in front of it with a certificate that is made here.
    pub fn start() -> Self {
        Self::start_with(&[], Vec::new(), spawn_forward)
    }

    /// Starts the example so that it binds sessions to devices, behind a proxy that sees each request.
    pub fn device_bound() -> (Self, Exchanges) {
        let exchanges = Exchanges::default();
        // The example is started again with the same one.
        let key = "b2c1f0437a9d5e8624fb0913ce75a86ddf1ab3709456e2c8130ff6a5427d9be8".to_owned();
        let environment = vec![("DEVICE_BOUND", "1".to_owned()), ("SESSION_KEY", key)];
        let seen = exchanges.clone();
        let server =
            Self::start_with(&["--features", "device-bound"], environment, |listener, acceptor, to| {
                tokio::spawn(exchanges::relay(listener, acceptor, to, seen));
            });
        (server, exchanges)
    }

    /// Ends the example and starts it again. It keeps nothing.
    pub fn restart(&mut self) {
        self.stop();
        let (example, address) = run(&self.environment);
        self.example = Some(example);
        *self.address.lock().expect("an address") = address;
    }

    fn start_with(
        features: &[&str],
        environment: Vec<(&'static str, String)>,
        serve: impl FnOnce(TcpListener, TlsAcceptor, Arc<Mutex<SocketAddr>>),
    ) -> Self {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned());
        let built = Command::new(cargo)
            .args(["build", "--locked", "--quiet", "--example", "login", "--target-dir", "target"])
            .args(features)
            .current_dir(&root)
            .status()
            .expect("cargo runs");
        assert!(built.success(), "the example builds");
        let (example, address) = run(&environment);
        let mut server = Self::proxied("localhost", address, serve);
        server.example = Some(example);
        server.environment = environment;
        server
    }

    /// Ends TLS in front of a service that listens on `address`. Browsers know it as `host`: localhost, or a name below it,
    /// which they all resolve to this machine (RFC 6761 section 6.3).
    pub fn in_front_of(host: &'static str, address: SocketAddr) -> Self {
        Self::proxied(host, address, spawn_forward)
    }

    fn proxied(
        host: &'static str,
        address: SocketAddr,
        serve: impl FnOnce(TcpListener, TlsAcceptor, Arc<Mutex<SocketAddr>>),
    ) -> Self {
        let proxy = Runtime::new().expect("a runtime");
        let listener = proxy.block_on(TcpListener::bind("127.0.0.1:0")).expect("a port");
        let port = listener.local_addr().expect("its number").port();
        let (acceptor, key_hash) = acceptor(host);
        let address = Arc::new(Mutex::new(address));
        proxy.block_on(async { serve(listener, acceptor, Arc::clone(&address)) });
        Self { example: None, environment: Vec::new(), address, host, port, key_hash, _proxy: proxy }
    }

    fn stop(&mut self) {
        if let Some(example) = &mut self.example {
            let _ = example.kill();
            let _ = example.wait();
        }
    }

    /// SHA-256 of the certificate's public key, as base64: what a browser is told to trust.
    pub fn key_hash(&self) -> &str {
        &self.key_hash
    }

    pub fn url(&self, path: &str) -> String {
        format!("https://{}:{}{path}", self.host, self.port)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop();
    }
}

fn spawn_forward(listener: TcpListener, acceptor: TlsAcceptor, address: Arc<Mutex<SocketAddr>>) {
    tokio::spawn(forward(listener, acceptor, address));
}

/// Starts the example that was built, and returns its address.
fn run(environment: &[(&'static str, String)]) -> (Child, SocketAddr) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let mut example = Command::new(root.join("target/debug/examples/login"))
        .env("ADDR", "127.0.0.1:0")
        .env("SECURE_COOKIE", "1")
        .env_remove("SESSION_KEY")
        .env_remove("REDIS_URL")
        .envs(environment.iter().map(|(name, value)| (*name, value)))
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("the example starts");
    let mut line = String::new();
    BufReader::new(example.stdout.take().expect("it is piped")).read_line(&mut line).expect("a line");
    let address = line
        .trim()
        .strip_prefix("listening on http://")
        .and_then(|address| address.parse().ok())
        .unwrap_or_else(|| panic!("the example said {line:?}"));
    (example, address)
}

fn acceptor(host: &str) -> (TlsAcceptor, String) {
    let made = rcgen::generate_simple_self_signed([host.to_owned()]).expect("a certificate");
    let hash = digest(&SHA256, &made.signing_key.subject_public_key_info());
    let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).expect("a key");
    let config = ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .expect("they belong together");
    (TlsAcceptor::from(Arc::new(config)), STANDARD.encode(hash))
}

async fn forward(listener: TcpListener, acceptor: TlsAcceptor, to: Arc<Mutex<SocketAddr>>) {
    while let Ok((stream, _)) = listener.accept().await {
        let acceptor = acceptor.clone();
        let to = *to.lock().expect("an address");
        tokio::spawn(async move {
            // Browsers open connections that they do not use: whatever fails here is theirs to try again.
            let Ok(mut client) = acceptor.accept(stream).await else { return };
            let Ok(mut server) = TcpStream::connect(to).await else { return };
            let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
        });
    }
}
