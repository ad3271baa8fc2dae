//! Connecting: what is wrong is said at once, for whoever can mend it, and without the password.

use std::time::{Duration, Instant};

use hyper_session::store::Builder;
use hyper_session::store::redis::RedisOptions;
use hyper_session::{Error, RedisStore};

use crate::app::{App, BOUND, builder, hurried};
use crate::server::{Server, free_port};

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
        (format!("redis+sentinel://:hunter2@127.0.0.1:{closed}/mymaster"), "could not connect"),
        (format!("redis-cluster://:hunter2@127.0.0.1:{closed}"), "could not connect"),
    ] {
        let error = refused(hurried(url.clone())).await;
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

/// Who may not do what the store needs learns it when connecting, not when the first user logs in.
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
        let error = refused(builder(url)).await;
        assert!(
            error.is_config() && words(&error).contains("the store needs GET"),
            "{rules}: {}",
            words(&error)
        );
    }
    // Exactly what is needed is enough.
    server.cli(&["FLUSHALL"]);
    let needed = "ACL SETUSER app on >right resetkeys ~test:* -@all +get +set +del +getrange +setrange +pexpire +evalsha +eval";
    assert_eq!(server.cli(&needed.split(' ').collect::<Vec<_>>()), "OK");
    let app = App::connect(format!("redis://app:right@127.0.0.1:{}", server.port)).await;
    let mut jar = app.jar().await;
    for path in ["/add", "/regenerate", "/read", "/clear"] {
        app.ok(path, &mut jar).await;
    }
    assert_eq!(server.cli(&["DBSIZE"]), "1", "the mark of regenerate");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_is_refused_at_connect_and_checking_leaves_nothing_behind() {
    let server = Server::start();
    App::connect(server.url()).await;
    assert_eq!(server.cli(&["DBSIZE"]), "0");
    server.cli(&["REPLICAOF", "127.0.0.1", "1"]);
    let error = refused(hurried(server.url())).await;
    assert!(error.is_unavailable() && words(&error).contains("READONLY"), "{error:?}");
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
