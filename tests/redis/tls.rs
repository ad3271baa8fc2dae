//! TLS to Redis and to sentinels: which certificates the store trusts, and its own certificate.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use hyper_session::Error;

use crate::app::{App, builder, hurried};
use crate::deployment::Deployment;
use crate::server::{Server, free_port, speaks_tls, wait_for};

fn openssl(dir: &Path, args: &str) {
    let mut command = Command::new("openssl");
    let status =
        command.args(args.split(' ')).current_dir(dir).stdout(Stdio::null()).stderr(Stdio::null()).status();
    assert!(status.expect("openssl is installed (./tests/run installs it)").success(), "openssl {args}");
}

/// An authority, a certificate for 127.0.0.1, one for a client, and a second authority that neither side trusts.
fn certificates(dir: &Path) {
    std::fs::write(dir.join("san"), "subjectAltName=IP:127.0.0.1,DNS:localhost\n").unwrap();
    for authority in ["ca", "other"] {
        openssl(
            dir,
            &format!(
                "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN={authority} \
                 -keyout {authority}.key -out {authority}.crt"
            ),
        );
    }
    for (name, authority) in [("server", "ca"), ("client", "ca"), ("stranger", "other")] {
        openssl(
            dir,
            &format!(
                "req -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -subj /CN={name} -keyout {name}.key \
                 -out {name}.csr"
            ),
        );
        openssl(
            dir,
            &format!(
                "x509 -req -in {name}.csr -CA {authority}.crt -CAkey {authority}.key -CAcreateserial -days 2 \
                 -extfile san -out {name}.crt"
            ),
        );
    }
}

/// The certificates, in a folder that is removed in the end.
struct Certificates(PathBuf);

impl Certificates {
    fn new(name: &str) -> Self {
        let dir = std::env::temp_dir().join(format!("hyper-session-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        certificates(&dir);
        Self(dir)
    }

    fn read(&self, name: &str) -> Vec<u8> {
        std::fs::read(self.0.join(name)).unwrap()
    }

    /// The configuration of a server that has them.
    fn lines(&self, clients_are_asked: &str) -> [String; 4] {
        let path = |name: &str| self.0.join(name).to_str().unwrap().to_owned();
        [
            format!("tls-cert-file {}", path("server.crt")),
            format!("tls-key-file {}", path("server.key")),
            format!("tls-ca-cert-file {}", path("ca.crt")),
            format!("tls-auth-clients {clients_are_asked}"),
        ]
    }
}

impl Drop for Certificates {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn words(error: &Error) -> String {
    format!("{error} {error:?}")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tls_trusts_whom_it_is_told_to_and_proves_who_calls() {
    if !speaks_tls() {
        println!("SKIPPED: the server under test was built without TLS");
        return;
    }
    let certificates = Certificates::new("tls");
    let read = |name: &str| certificates.read(name);
    for clients_are_asked in ["no", "yes"] {
        let port = free_port();
        let tls = certificates.lines(clients_are_asked).map(|line| format!("--{line}"));
        let args: Vec<_> = tls.iter().flat_map(|line| line.split(' ')).collect();
        let server = Server::with(&[&["--tls-port", &port.to_string()], &args[..]].concat());
        let url = format!("rediss://127.0.0.1:{port}");
        let trusting = || builder(url.clone()).root_certificates(read("ca.crt"));
        let known = || trusting().client_certificate(read("client.crt"), read("client.key"));

        let mut app = App::with(known()).await;
        if clients_are_asked == "no" {
            app = App::with(trusting()).await;
        } else {
            for unknown in
                [trusting(), trusting().client_certificate(read("stranger.crt"), read("stranger.key"))]
            {
                let error = unknown.connect().await.unwrap_err();
                assert!(error.is_unavailable(), "{}", words(&error));
            }
        }
        let mut jar = app.jar().await;
        assert_eq!(app.ok("/add", &mut jar).await, "2");
        app.ok("/big", &mut jar).await;

        // A store without the authority, or with a foreign one, does not trust the server's certificate.
        for stranger in [builder(url.clone()), builder(url.clone()).root_certificates(read("other.crt"))] {
            let error = stranger.connect().await.unwrap_err();
            assert!(error.is_unavailable() && words(&error).contains("certificate"), "{}", words(&error));
        }
        // No host name that is not in the certificate; the port without TLS does not answer in TLS, and the other way round.
        let crossed =
            hurried(format!("rediss://127.0.0.1:{}", server.port)).root_certificates(read("ca.crt"));
        assert!(crossed.connect().await.unwrap_err().is_unavailable());
        let crossed = hurried(format!("redis://:hunter2@127.0.0.1:{port}")).connect().await.unwrap_err();
        assert!(!words(&crossed).contains("hunter2"), "{}", words(&crossed));
        let broken = builder(url.clone()).root_certificates("hunter2").connect().await.unwrap_err();
        assert!(broken.is_config() && !words(&broken).contains("hunter2"), "{}", words(&broken));

        server.cli(&["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"]);
        wait_for("the connections to be closed", || server.other_clients() == 0);
        assert_eq!(app.recovers("/add", &mut jar).await, "3");
    }
}

/// A10: only the sentinels have TLS, or the servers, too; before a failover and after it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a10_sentinels_are_asked_over_tls() {
    if !speaks_tls() {
        println!("SKIPPED: the server under test was built without TLS");
        return;
    }
    let certificates = Certificates::new("tls-of-sentinels");
    let (authority, other) = (certificates.read("ca.crt"), certificates.read("other.crt"));
    let lines = certificates.lines("no");
    let lines: Vec<_> = lines.iter().map(String::as_str).collect();
    for everywhere in [false, true] {
        let deployment = tokio::task::block_in_place(|| Deployment::with_tls(&lines, everywhere));
        let options = || {
            if everywhere {
                builder(deployment.url().replace("redis+", "rediss+")).root_certificates(authority.clone())
            } else {
                builder(deployment.url()).sentinel_tls(true)
            }
        };
        let trusting =
            || if everywhere { options() } else { options().sentinel_root_certificates(authority.clone()) };
        let app = App::with(trusting()).await;
        let mut jar = app.jar().await;
        assert_eq!(app.ok("/add", &mut jar).await, "2");

        // Not trusted: the authorities of the system (Redis' own, where they are given), or a foreign one.
        let mut strangers = vec![options().sentinel_root_certificates(other.clone())];
        if !everywhere {
            strangers.push(options());
        }
        for stranger in strangers {
            let error = stranger.connect().await.unwrap_err();
            assert!(error.is_unavailable() && words(&error).contains("certificate"), "{}", words(&error));
        }
        // Certificates for sentinels without TLS are a mistake; without certificates for them, TLS is what they miss.
        let without = trusting().sentinel_tls(false).connect().await.unwrap_err();
        let says_so = words(&without).contains("sentinel_tls(true)");
        assert_eq!((without.is_unavailable(), says_so), (everywhere, !everywhere), "{}", words(&without));
        let broken = options().sentinel_root_certificates("hunter2").connect().await.unwrap_err();
        assert!(
            broken.is_config() && words(&broken).contains("sentinel_root_certificates()"),
            "{}",
            words(&broken)
        );
        assert!(!words(&broken).contains("hunter2"), "{}", words(&broken));

        let before = tokio::task::block_in_place(|| deployment.master_port()).unwrap();
        tokio::task::block_in_place(|| {
            deployment.fail_over();
            wait_for("the new master", || deployment.master_port().is_some_and(|port| port != before));
        });
        assert_eq!(app.recovers("/set/x", &mut jar).await, "2");
        App::with(trusting()).await.ok("/read", &mut jar).await;
    }
}

/// A server without TLS takes the beginning of a handshake for a line that goes on, and waits for its end.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a13_tls_to_a_server_without_it_is_named() {
    let server = Server::start();
    let error = hurried(server.url().replace("redis://", "rediss://")).connect().await.unwrap_err();
    assert!(error.is_unavailable() && words(&error).contains("does not use TLS"), "{}", words(&error));
}
