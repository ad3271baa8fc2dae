//! Connecting: a mistake is an error at once, worded for the operator who can mend it, and without the password.

use std::future::Future;
use std::time::{Duration, Instant};

use hyper_session::store::redis::{Credentials, Redis, RedisOptions};
use hyper_session::store::{Backend as _, Builder, EntryId};
use hyper_session::{Clock as _, Error, RedisStore, Revocations, SystemClock};

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use hyper_session::testing::Cut;

use crate::app::{App, BOUND, behind_relay, builder, hurried};
use crate::cluster::Cluster;
use crate::deployment::Deployment;
use crate::server::{Server, answering, array, free_port, unhurried_revocations, wait_for};
use crate::support::UNHURRIED;

/// All that is ever printed of an error.
fn words(error: &Error) -> String {
    let mut words = format!("{error} {error:?} {error:#?}");
    let mut source = std::error::Error::source(error);
    while let Some(error) = source {
        words = format!("{words} {error} {error:?}");
        source = error.source();
    }
    words
}

async fn refused(builder: Builder<RedisOptions>) -> Error {
    let start = Instant::now();
    assert!(!format!("{builder:?}").contains("hunter2"));
    let error = builder.connect().await.unwrap_err();
    assert!(start.elapsed() < BOUND);
    assert!(error.is_config() != error.is_unavailable(), "{error:?}");
    assert!(!words(&error).contains("hunter2"), "{}", words(&error));
    error
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn t72_t75_what_is_wrong_with_the_set_up_is_a_clear_error_without_the_password() {
    let server = Server::with(&["--requirepass", "right"]);
    let port = server.port;
    let at = |userinfo: &str| builder(format!("redis://{userinfo}127.0.0.1:{port}"));
    assert!(at(":right@").connect().await.is_ok());
    for (what, builder, says) in [
        ("wrong password", at(":hunter2@"), "authentication failed"),
        ("wrong user", at("nobody:hunter2@"), "authentication failed"),
        ("no password", at(""), "NOAUTH"),
        (
            "wrong password, RESP3",
            builder(format!("redis://:hunter2@127.0.0.1:{port}?protocol=resp3")),
            "WRONGPASS",
        ),
        ("no prefix", RedisStore::builder(server.url()).development(), "prefix"),
        ("empty prefix", at(":right@").prefix(""), "prefix"),
        ("prefix with braces", at(":right@").prefix("{app}"), "prefix"),
        ("prefix with a star", at(":right@").prefix("app:*"), "prefix"),
        ("prefix with a line end", at(":right@").prefix("app\r\nDEL x"), "prefix"),
        ("long prefix", at(":right@").prefix("x".repeat(65)), "prefix"),
        ("no URL", builder("127.0.0.1:hunter2"), "URL"),
        ("no connections", at(":right@").connections(0), "connections()"),
        ("no time", at(":right@").command_timeout(Duration::ZERO), "command_timeout()"),
        ("certificates without TLS", at(":right@").root_certificates("hunter2"), "rediss://"),
    ] {
        let error = refused(builder).await;
        assert!(error.is_config() && words(&error).contains(says), "{what}: {}", words(&error));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_that_cannot_be_reached_is_unavailable_and_says_why() {
    let closed = free_port();
    for (url, says) in [
        (format!("redis://:hunter2@127.0.0.1:{closed}"), "refused"),
        ("redis://:hunter2@no-such-host.invalid".to_owned(), "could not connect"),
        ("unix:///no/such/socket".to_owned(), "could not connect"),
        (format!("redis+sentinel://:hunter2@127.0.0.1:{closed}/mymaster"), "no sentinel named the master"),
        (format!("redis-cluster://:hunter2@127.0.0.1:{closed}"), "could not connect"),
    ] {
        // A machine that is busy for a second does not get there in the default time.
        let options = if says == "refused" { builder(&url) } else { hurried(&url) };
        let error = refused(options).await;
        assert!(error.is_unavailable() && words(&error).contains(says), "{url}: {}", words(&error));
    }
}

/// Redis quotes what it does not understand: with AUTH renamed, that is the password.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn t75_a_server_that_quotes_the_password_does_not_get_it_into_a_log() {
    let server = Server::with(&["--rename-command", "AUTH", "", "--rename-command", "HELLO", ""]);
    let quoted = server.cli(&["AUTH", "hunter2"]);
    assert!(quoted.contains("hunter2"), "the server quotes: {quoted}");
    for protocol in ["", "?protocol=resp3"] {
        let url = format!("redis://user:hunter2@127.0.0.1:{}{protocol}", server.port);
        refused(builder(url)).await;
    }
}

/// Missing rights are an error when the store connects, not when the first user logs in.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rights_that_are_missing_are_a_config_error_at_connect() {
    let server = Server::start();
    for (number, rules) in
        ["-eval -evalsha", "-eval", "-get", "-set", "-del", "-setrange", "-pexpire", "resetkeys ~other:*"]
            .into_iter()
            .enumerate()
    {
        server.cli(&["SCRIPT", "FLUSH"]);
        let user = format!("user{number}");
        let mut acl = vec!["ACL", "SETUSER", &user, "on", ">hunter2", "~*", "+@all"];
        acl.extend(rules.split(' '));
        assert_eq!(server.cli(&acl), "OK", "{rules}");
        let url = format!("redis://{user}:hunter2@127.0.0.1:{}", server.port);
        let error = refused(builder(url).scripts_only()).await;
        assert!(
            error.is_config() && words(&error).contains("the store needs GET"),
            "{rules}: {}",
            words(&error)
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_is_refused_at_connect_and_checking_leaves_nothing_behind() {
    let server = Server::start();
    App::connect(server.url()).await;
    assert_eq!(server.cli(&["DBSIZE"]), "0");
    server.cli(&["REPLICAOF", "127.0.0.1", "1"]);
    // On a busy machine, the deadline may pass first.
    let start = Instant::now();
    loop {
        let error = refused(hurried(server.url())).await;
        assert!(error.is_unavailable() && start.elapsed() < BOUND, "{error:?}");
        if words(&error).contains("READONLY") {
            assert!(words(&error).contains("the server is a replica"), "{}", words(&error));
            break;
        }
    }
    let error = unhurried_revocations(server.url(), "test").connect().await.unwrap_err();
    assert!(error.is_unavailable() && words(&error).contains("the server is a replica"), "{}", words(&error));
}

/// A user in the URL needs a password. Credentials may have an empty one, and an empty user is the default user.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_user_without_a_password_is_not_the_default_user() {
    let server = Server::with(&["--requirepass", "right"]);
    let acl = ["ACL", "SETUSER", "ada", "on", "nopass", "~test:*", "resetchannels", "+@all"];
    assert_eq!(server.cli_as("default", "right", &acl), "OK");
    App::with(builder(server.url()).credentials(Credentials::new("", "right"))).await;
    for url in [server.url(), format!("redis://ada@127.0.0.1:{}", server.port)] {
        let app = App::with(builder(url).credentials(Credentials::new("ada", ""))).await;
        app.jar().await;
        assert!(server.cli_as("default", "right", &["CLIENT", "LIST"]).contains("user=ada"));
    }
    // Also where the default user needs none.
    for server in [server, Server::start()] {
        for url in ["redis://ada@", "redis://ada:@", "redis-cluster://ada@"] {
            let url = format!("{url}127.0.0.1:{}", server.port);
            let error = refused(builder(url.clone())).await;
            assert!(
                error.is_config() && words(&error).contains("a user but no password"),
                "{}",
                words(&error)
            );
            let error = unhurried_revocations(url, "test").connect().await.unwrap_err();
            assert!(
                error.is_config() && words(&error).contains("a user but no password"),
                "{}",
                words(&error)
            );
        }
    }
}

/// Some proxies close the connection at a command that they do not know.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f18_a_server_that_closes_each_connection_at_hello_is_used_without() {
    let server = Server::start();
    let (relay, url) = behind_relay(&server);
    for _ in 0..200 {
        relay.cut_next("HELLO", Cut::BeforeRequest);
    }
    let app = App::connect(url).await;
    let mut jar = app.jar().await;
    for n in 2..5 {
        server.cli(&["CLIENT", "KILL", "TYPE", "normal"]);
        assert_eq!(app.ok("/add", &mut jar).await, n.to_string());
    }
    // The first connection gets a reply to PING, and the second one a refusal.
    for (refusal, says) in
        [("-ERR max number of clients reached", "raise maxclients"), ("-DENIED x", "protected mode")]
    {
        let pings = Arc::new(AtomicU32::new(0));
        let port = answering(move |request| {
            let reply = || if pings.fetch_add(1, Ordering::SeqCst) == 0 { "+PONG" } else { refusal };
            request.contains("PING").then(|| format!("{}\r\n", reply()))
        });
        let error = refused(builder(format!("redis://127.0.0.1:{port}"))).await;
        assert!(words(&error).contains(says), "{}", words(&error));
    }
}

/// One connection that is cut says nothing about the server.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a9_a_connection_that_is_cut_at_hello_hides_no_server_of_another_kind() {
    let cluster = tokio::task::block_in_place(|| Cluster::of(3, 0));
    for cut in [Cut::BeforeRequest, Cut::BeforeReply, Cut::InReply, Cut::Reset] {
        let (relay, url) = behind_relay(&cluster.servers()[0]);
        relay.cut_next("HELLO", cut);
        let error = refused(builder(url)).await;
        assert!(relay.is_done(), "{cut:?}");
        assert!(
            error.is_config() && words(&error).contains("redis-cluster://"),
            "{cut:?}: {}",
            words(&error)
        );
    }
}

/// A Cluster behind NAT: the seed can be reached, and the addresses that it names cannot.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a13_a_cluster_whose_masters_announce_addresses_that_lead_nowhere_is_named() {
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let (silent, closed) = (silent.local_addr().unwrap().port(), free_port());
    let slots = |first: u16, last: u16, port: u16| {
        format!("*3\r\n:{first}\r\n:{last}\r\n*2\r\n$9\r\n127.0.0.1\r\n:{port}\r\n")
    };
    let slots = format!("*2\r\n{}{}", slots(0, 8_191, silent), slots(8_192, 16_383, closed));
    let seed = answering(move |request| {
        let hello = || array(&["mode", "cluster", "role", "master"]);
        Some(if request.contains("CLUSTER") { slots.clone() } else { hello() })
    });
    let start = Instant::now();
    loop {
        let error = refused(hurried(format!("redis-cluster://127.0.0.1:{seed}"))).await;
        let words = words(&error);
        // On a busy machine, the seed may not answer in time.
        if error.is_unavailable()
            && words.contains("cluster-announce-ip")
            && words.contains("no reply in time")
        {
            break;
        }
        assert!(start.elapsed() < BOUND, "{words}");
    }
}

/// A server in protected mode writes its refusal to other machines before their first command, and closes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a13_protected_mode_is_named() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("redis://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        use std::io::{Read as _, Write as _};
        for mut client in listener.incoming().flatten() {
            let _ = client.write_all(
                b"-DENIED Redis is running in protected mode because protected mode is enabled\r\n",
            );
            let _ = client.shutdown(std::net::Shutdown::Write);
            let _ = client.read_to_end(&mut Vec::new());
        }
    });
    // A client that had not sent its command yet when the refusal came only sees that the connection was closed.
    let start = Instant::now();
    loop {
        let error = refused(builder(url.clone())).await;
        assert!(words(&error).contains("protected mode") && start.elapsed() < BOUND, "{}", words(&error));
        if error.is_config() {
            break;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn resp3_is_spoken_where_the_url_asks_for_it() {
    let server = Server::start();
    let app = App::connect(format!("{}?protocol=resp3", server.url())).await;
    hyper_session::testing::check_backend(
        app.store.backend(),
        hyper_session::Clock::now(&hyper_session::SystemClock),
    )
    .await;
    assert!(server.cli(&["CLIENT", "LIST"]).contains("resp=3"));
    let mut jar = app.jar().await;
    app.ok("/regenerate", &mut jar).await;
    assert_eq!(app.ok("/add", &mut jar).await, "2");
}

/// A9: what leads to servers of another kind says which kind, each time.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a9_a_url_of_another_kind_is_a_config_error_that_names_the_right_one() {
    let server = Server::start();
    let error = refused(builder(format!("redis-cluster://:hunter2@127.0.0.1:{}", server.port))).await;
    // Without a password on the server, the password is the first mistake.
    assert!(error.is_config(), "{}", words(&error));
    let error = refused(builder(format!("redis-cluster://127.0.0.1:{}", server.port))).await;
    assert!(error.is_config() && words(&error).contains("redis://"), "{}", words(&error));
    let cluster = tokio::task::block_in_place(Cluster::start);
    for _ in 0..5 {
        for port in cluster.ports() {
            let error = refused(builder(format!("redis://127.0.0.1:{port}"))).await;
            assert!(error.is_config() && words(&error).contains("redis-cluster://"), "{}", words(&error));
        }
    }
    let deployment = tokio::task::block_in_place(Deployment::start);
    let url = deployment.url();
    let hosts = url.trim_start_matches("redis+sentinel://").split('/').next().unwrap();
    let error = refused(builder(format!("redis://{}", hosts.split(',').next().unwrap()))).await;
    assert!(error.is_config() && words(&error).contains("redis+sentinel://"), "{}", words(&error));
    let error = refused(builder(format!("redis+sentinel://{hosts}/another"))).await;
    assert!(error.is_config() && words(&error).contains("\"another\""), "{}", words(&error));
    let node = cluster.ports()[0];
    let has_databases = !cluster.servers()[0].cli(&["SELECT", "3"]).contains("cluster mode");
    for (url, says) in [
        (format!("redis+sentinel://127.0.0.1:{}/mymaster", server.port), "redis://"),
        (format!("redis+sentinel://127.0.0.1:{node}/mymaster"), "redis-cluster://"),
        (format!("redis-cluster://{hosts}"), "redis+sentinel://"),
        // A node of a Cluster refuses the number before it says what it is. On Valkey 9 a Cluster has databases.
        (format!("redis://127.0.0.1:{node}/3"), if has_databases { "database" } else { "redis-cluster://" }),
    ] {
        let error = refused(builder(url.clone())).await;
        assert!(error.is_config() && words(&error).contains(says), "{url}: {}", words(&error));
        let error = unhurried_revocations(url.clone(), "test").connect().await.unwrap_err();
        assert!(error.is_config() && words(&error).contains(says), "{url}: {}", words(&error));
    }
}

/// As it comes from a file, or from a list that is written with spaces.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a13_white_space_around_a_url_and_its_hosts_is_no_part_of_it() {
    let server = Server::start();
    let cluster = tokio::task::block_in_place(|| Cluster::of(3, 0));
    let deployment = tokio::task::block_in_place(Deployment::start);
    for url in [server.url(), cluster.url().replace(',', ", "), deployment.url().replace(',', " ,")] {
        App::connect(format!(" {url}\n")).await;
    }
}

/// A13: each names its cause.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a13_what_the_server_refuses_at_first_is_named() {
    let server = Server::start();
    let error = refused(builder(format!("{}/99", server.url()))).await;
    assert!(error.is_config() && words(&error).contains("database"), "{}", words(&error));

    let full = Server::with(&["--maxclients", "1"]);
    let held = redis_connection(&full);
    for _ in 0..10 {
        let error = refused(builder(full.url())).await;
        assert!(error.is_unavailable() && words(&error).contains("maxclients"), "{}", words(&error));
    }
    drop(held);

    let (relay, url) = behind_relay(&server);
    for _ in 0..20 {
        relay.cut_next("EVALSHA", Cut::BeforeRequest);
    }
    let error = refused(builder(url).scripts_only()).await;
    assert!(error.is_config() && words(&error).contains("EVALSHA"), "{}", words(&error));

    let cluster = tokio::task::block_in_place(Cluster::start);
    for node in cluster.servers() {
        node.cli(&["CONFIG", "SET", "requirepass", "right"]);
        node.cli_as("default", "right", &["CONFIG", "SET", "masterauth", "right"]);
    }
    for userinfo in ["", ":hunter2@", "nobody:hunter2@"] {
        let error = refused(builder(cluster.url().replace("://", &format!("://{userinfo}")))).await;
        assert!(error.is_config() && words(&error).contains("authentication failed"), "{}", words(&error));
    }
    App::connect(cluster.url().replace("://", "://:right@")).await;
}

/// A server that answers, and cannot work at present: its code is named, and nothing is taken for a mistake in the options.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a13_a_server_in_trouble_at_the_start_is_unavailable_and_named() {
    let server = Server::with(&["--busy-reply-threshold", "20"]);
    let set = |name: &str, value: &str| assert_eq!(server.cli(&["CONFIG", "SET", name, value]), "OK");
    let port = server.port;
    let says = async |code: &str| {
        let start = Instant::now();
        // With a number, a busy server refuses SELECT first.
        for (scripts_only, db) in [(false, ""), (true, ""), (true, "/3")] {
            loop {
                let builder = hurried(server.url() + db);
                let error = refused(if scripts_only { builder.scripts_only() } else { builder }).await;
                assert!(error.is_unavailable(), "{code}: {}", words(&error));
                if words(&error).contains(code) {
                    break;
                }
                // A busy machine may have met a deadline instead.
                assert!(start.elapsed() < BOUND, "{code}: {}", words(&error));
            }
        }
    };
    set("maxmemory", "1");
    says("OOM").await;
    set("maxmemory", "0");
    set("min-replicas-to-write", "1");
    says("NOREPLICAS").await;
    set("min-replicas-to-write", "0");
    let busy = std::thread::spawn(move || crate::server::cli(port, &["EVAL", "while true do end", "0"]));
    wait_for("it to be busy", || server.cli(&["GET", "x"]).contains("BUSY"));
    says("BUSY").await;
    server.cli(&["SCRIPT", "KILL"]);
    let _ = busy.join();
    // It refuses the writes as a replica, before it is asked whether it knows its master.
    server.cli(&["REPLICAOF", "127.0.0.1", "1"]);
    set("replica-serve-stale-data", "no");
    says("READONLY").await;
    server.cli(&["REPLICAOF", "NO", "ONE"]);
    assert_eq!(server.cli(&["DBSIZE"]), "0", "and nothing is left behind");
    App::connect(server.url()).await;
}

fn redis_connection(server: &Server) -> std::net::TcpStream {
    use std::io::{Read as _, Write as _};
    let mut stream = std::net::TcpStream::connect(("127.0.0.1", server.port)).unwrap();
    stream.write_all(b"PING\r\n").unwrap();
    stream.read_exact(&mut [0; 7]).unwrap();
    stream
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a13_resp3_is_spoken_by_every_kind_where_the_url_asks_for_it() {
    let cluster = tokio::task::block_in_place(Cluster::start);
    let app = App::connect(format!("{}?protocol=resp3", cluster.url())).await;
    app.jar().await;
    assert!(cluster.servers()[0].cli(&["CLIENT", "LIST"]).contains("resp=3"));
    let deployment = tokio::task::block_in_place(Deployment::start);
    let app = App::connect(format!("{}?protocol=resp3", deployment.url())).await;
    app.jar().await;
    let master = deployment.master_port().unwrap();
    assert!(crate::server::cli(master, &["CLIENT", "LIST"]).contains("resp=3"));
}

/// A10: the sentinels have a password of their own.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a10_sentinels_are_asked_with_credentials_of_their_own() {
    let deployment = tokio::task::block_in_place(|| Deployment::with_sentinels(&["requirepass right"]));
    for builder in [
        builder(deployment.url()),
        builder(deployment.url()).sentinel_credentials(Credentials::password("hunter2")),
    ] {
        let error = refused(builder).await;
        assert!(error.is_config() && words(&error).contains("sentinel_credentials()"), "{}", words(&error));
    }
    let app = App::with(builder(deployment.url()).sentinel_credentials(Credentials::password("right"))).await;
    let mut jar = app.jar().await;
    assert_eq!(app.ok("/add", &mut jar).await, "2");
    // The log of revocations asks them, too.
    let revocations = || unhurried_revocations(deployment.url(), "test");
    let error = revocations().connect().await.unwrap_err();
    assert!(error.is_config() && words(&error).contains("sentinel_credentials()"), "{}", words(&error));
    let revocations = revocations().sentinel_credentials(Credentials::password("right"));
    revocations.connect().await.unwrap().end_sessions_of("ada").await.unwrap();
    let server = Server::start();
    let error = refused(builder(server.url()).sentinel_credentials(Credentials::password("hunter2"))).await;
    assert!(error.is_config() && words(&error).contains("redis+sentinel://"), "{}", words(&error));
}

/// A10: the password changes while the store is up.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a10_a_provider_is_asked_for_each_connection() {
    let server = Server::with(&["--requirepass", "p/ss#1"]);
    let password = Arc::new(Mutex::new("p/ss#1".to_owned()));
    let provide = {
        let password = Arc::clone(&password);
        move || {
            let password = password.lock().unwrap().clone();
            async move {
                if password.is_empty() {
                    Err("hunter2".into())
                } else {
                    Ok(Credentials::new("default", password))
                }
            }
        }
    };
    // As it is in the options, nothing is to be escaped.
    App::with(builder(server.url()).credentials(Credentials::password("p/ss#1"))).await;
    let app = App::with(builder(server.url()).credentials_provider(provide.clone())).await;
    let log = || unhurried_revocations(server.url(), "test");
    drop(log().credentials(Credentials::password("p/ss#1")).connect().await.unwrap());
    let revocations = log().credentials_provider(provide.clone()).connect().await.unwrap();
    let mut jar = app.jar().await;
    server.cli_as("default", "p/ss#1", &["CONFIG", "SET", "requirepass", "another"]);
    assert_eq!(app.ok("/add", &mut jar).await, "2", "connections stay logged in");
    "another".clone_into(&mut password.lock().unwrap());
    server.cli_as("default", "another", &["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"]);
    assert_eq!(app.ok("/add", &mut jar).await, "3");
    revocations.end_sessions_of("ada").await.unwrap();
    app.is_whole(2).await;
    password.lock().unwrap().clear();
    let error = refused(builder(server.url()).credentials_provider(provide)).await;
    assert!(error.is_unavailable() && words(&error).contains("credentials provider"), "{}", words(&error));
}

/// A provider that panics fails requests as one that gives an error: at once after the first ones, and not for good.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a10_a_provider_that_panics_is_not_asked_all_the_time() {
    let server = Server::with(&["--requirepass", "right"]);
    let (asked, panics) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicBool::new(false)));
    let provide = {
        let (asked, panics) = (Arc::clone(&asked), Arc::clone(&panics));
        move || {
            asked.fetch_add(1, Ordering::SeqCst);
            assert!(!panics.load(Ordering::SeqCst), "the provider panics");
            async { Ok(Credentials::password("right")) }
        }
    };
    let app = App::with(builder(server.url()).credentials_provider(provide)).await;
    let mut jar = app.jar().await;
    panics.store(true, Ordering::SeqCst);
    server.cli_as("default", "right", &["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"]);
    app.names("the credentials provider panicked", &jar).await;
    let before = asked.load(Ordering::SeqCst);
    for _ in 0..100 {
        app.fails("/read", &jar).await;
    }
    let more = asked.load(Ordering::SeqCst) - before;
    assert!(app.store.backend().stats().turned_away > 0 && more < 100, "{more}");
    panics.store(false, Ordering::SeqCst);
    assert_eq!(app.recovers("/read", &mut jar).await, "1");
}

/// A9: a pool of the application's own that leads to a node of a Cluster.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a9_a_pool_to_a_node_of_a_cluster_is_told_apart() {
    let cluster = tokio::task::block_in_place(|| Cluster::of(3, 0));
    let node = format!("redis://127.0.0.1:{}", cluster.ports()[0]);
    let manager = bb8_redis::RedisConnectionManager::new(node).unwrap();
    let pool = bb8_redis::bb8::Pool::builder().max_size(2).build(manager).await.unwrap();
    let backend = Redis::from_pool(pool, "test").unwrap().with_timeouts(UNHURRIED, UNHURRIED).unwrap();
    let mut failed = 0;
    for number in 0..30 {
        if let Err(error) = backend.fetch(EntryId::from_bytes([number; 16]), SystemClock.now()).await {
            assert!(
                error.is_unavailable() && words(&error).contains("redis-cluster://"),
                "{}",
                words(&error)
            );
            failed += 1;
        }
    }
    assert!(failed > 0 && backend.stats().up);
}

#[test]
fn outside_of_a_runtime_connecting_is_a_config_error() {
    let store = at_once(builder("redis://127.0.0.1").connect()).map(drop);
    let log = at_once(Revocations::redis("redis://127.0.0.1").prefix("test").connect()).map(drop);
    for connected in [store, log] {
        let error = connected.unwrap_err();
        assert!(error.is_config() && error.to_string().contains("tokio"), "{error}");
    }
}

/// Connected inside of a runtime, and used by a task of another executor.
#[test]
fn outside_of_a_runtime_a_step_is_an_error() {
    let server = Server::start();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let (store, revocations) = runtime.block_on(async {
        let store = builder(server.url()).connect().await.unwrap();
        (store, unhurried_revocations(server.url(), "test").connect().await.unwrap())
    });
    for error in [
        at_once(store.sessions_of("ada")).map(drop).unwrap_err(),
        at_once(revocations.end_sessions_of("ada")).unwrap_err(),
    ] {
        assert!(error.is_unavailable() && words(&error).contains("tokio"), "{error:?}");
    }
    // Inside of it they work on.
    assert_eq!(runtime.block_on(store.sessions_of("ada")).unwrap().len(), 0);
    runtime.block_on(revocations.end_sessions_of("ada")).unwrap();
}

/// Returns the result of a future that is ready when it is first polled.
fn at_once<T>(future: impl Future<Output = T>) -> T {
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    match std::pin::pin!(future).poll(&mut context) {
        std::task::Poll::Ready(result) => result,
        std::task::Poll::Pending => panic!("it is known at once"),
    }
}
