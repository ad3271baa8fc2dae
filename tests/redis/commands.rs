//! The commands that the store sends to Redis: how many, and with which contents.

use std::collections::BTreeMap;
use std::process::{Command, Stdio};
use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use hyper_session::Clock;
use hyper_session::store::{Backend, EntryId, Replaced, Stored};
use hyper_session::testing::FakeClock;

use crate::app::{App, builder};
use crate::server::{Server, wait_for};
use crate::support::Jar;
use crate::values::Raw;

async fn costs(app: &App, server: &Server, path: &str, jar: &mut Jar) -> BTreeMap<String, u64> {
    server.cli(&["CONFIG", "RESETSTAT"]);
    app.ok(path, jar).await;
    server.command_counts()
}

fn commands(counts: &[(&str, u64)]) -> BTreeMap<String, u64> {
    counts.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect()
}

/// One round trip to load, to save, to renew and to end, two to regenerate; what a script does inside is counted, too.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_request_costs_exactly_these_commands() {
    let server = Server::start();
    let clock = FakeClock::at(1_000_000);
    let app = App::with(builder(server.url()).clock(clock.clone()).scripts_only()).await;
    let mut jar = app.jar().await;
    app.ok("/add", &mut jar).await;
    app.ok("/regenerate", &mut jar).await;
    let (none, anyone) = (commands(&[]), &mut Jar::new());

    assert_eq!(costs(&app, &server, "/untouched", &mut jar).await, none);
    assert_eq!(costs(&app, &server, "/untouched", anyone).await, none);
    assert_eq!(costs(&app, &server, "/read", &mut jar).await, commands(&[("get", 1)]));
    assert_eq!(
        costs(&app, &server, "/add", &mut jar).await,
        commands(&[("get", 2), ("evalsha", 1), ("set", 1)])
    );
    // Setting the same value again changes nothing.
    app.ok("/set/same", &mut jar).await;
    assert_eq!(costs(&app, &server, "/set/same", &mut jar).await, commands(&[("get", 1)]));
    assert_eq!(
        costs(&app, &server, "/regenerate", &mut jar).await,
        commands(&[("get", 2), ("evalsha", 2), ("set", 2)])
    );
    // Reading renews after a tenth of the idle timeout, without a rewrite. The server has the script since connecting.
    clock.advance(Duration::from_secs(3 * 3_600));
    assert_eq!(
        costs(&app, &server, "/read", &mut jar).await,
        commands(&[("get", 2), ("evalsha", 1), ("setrange", 1), ("pexpire", 1)])
    );
    let mut twin = jar.clone();
    // It compares, so that it finds a session that has another token by now.
    let ends = commands(&[("get", 2), ("evalsha", 1), ("del", 1)]);
    assert_eq!(costs(&app, &server, "/logout", &mut jar).await, ends);
    assert_eq!(costs(&app, &server, "/read", &mut twin).await, commands(&[("get", 1)]));
    assert_eq!(costs(&app, &server, "/add", anyone).await, commands(&[("evalsha", 1), ("set", 1)]));
    assert_eq!(costs(&app, &server, "/clear", anyone).await, ends);
}

/// The same where the server compares and sets: one command for each write, and two more where another request was first.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_compares_and_sets_runs_one_command_for_each_write() {
    let server = Server::start();
    if !server.compares_and_sets() {
        println!("SKIPPED: the server under test does not compare and set");
        return;
    }
    let clock = FakeClock::at(1_000_000);
    let app = App::with(builder(server.url()).clock(clock.clone())).await;
    let mut jar = app.jar().await;
    assert_eq!(costs(&app, &server, "/add", &mut jar).await, commands(&[("get", 1), ("set", 1)]));
    assert_eq!(costs(&app, &server, "/regenerate", &mut jar).await, commands(&[("get", 1), ("set", 2)]));
    clock.advance(Duration::from_secs(3 * 3_600));
    assert_eq!(costs(&app, &server, "/read", &mut jar).await, commands(&[("get", 1), ("set", 1)]));
    assert_eq!(costs(&app, &server, "/add", &mut Jar::new()).await, commands(&[("set", 1)]));

    let (backend, id, now) = (app.store.backend(), EntryId::from_bytes([7; 16]), clock.now());
    let at = |value: &'static str, seconds| Stored {
        value: value.into(),
        expires: now.saturating_add(Duration::from_secs(seconds)),
    };
    assert!(backend.create(id, at("one", 90), now).await.unwrap());
    let cost = async |seen: Stored, new: Option<Stored>| {
        server.cli(&["CONFIG", "RESETSTAT"]);
        let outcome = backend.exchange(id, seen, new, now).await.unwrap();
        (outcome, server.command_counts())
    };
    // A renewal in between is not a conflict. Another value is.
    let renewed = cost(at("one", 60), Some(at("two", 90))).await;
    assert_eq!(renewed, (Replaced::Done, commands(&[("get", 1), ("set", 2)])));
    let conflict = cost(at("one", 60), Some(at("three", 90))).await;
    assert_eq!(conflict, (Replaced::Conflict(at("two", 90)), commands(&[("get", 1), ("set", 1)])));
    // Valkey 8.1 has no command for it.
    let command = ["delifeq", "delex"].into_iter().find(|name| server.knows(name)).unwrap_or("set");
    let deleted = cost(at("two", 90), None).await;
    assert_eq!(deleted, (Replaced::Done, commands(&[(command, 1)])));
    assert_eq!(cost(at("two", 90), Some(at("four", 90))).await.0, Replaced::Missing);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn t71_anonymous_visitors_write_nothing() {
    let server = Server::start();
    let app = App::connect(server.url()).await;
    server.cli(&["CONFIG", "RESETSTAT"]);
    for path in ["/untouched", "/nothing", "/read", "/regenerate", "/logout", "/clear"] {
        let mut jar = Jar::new();
        app.ok(path, &mut jar).await;
        assert!(jar.0.is_empty(), "{path}");
    }
    assert_eq!(server.command_counts(), commands(&[]));
    assert_eq!(server.cli(&["DBSIZE"]), "0");
}

/// T39, T73 (CVE-2011-0698): what has not the form of a token is refused before any I/O.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn t39_ids_of_odd_forms_never_reach_redis() {
    let server = Server::start();
    let app = App::connect(server.url()).await;
    let jar = app.jar().await;
    let name = jar.0.keys().next().unwrap().clone();
    let good = jar.get(&name).unwrap().to_owned();
    server.cli(&["CONFIG", "RESETSTAT"]);
    let (long, path) = ("A".repeat(4_096), "../".repeat(14));
    for odd in [
        "*",
        "test:*",
        "a:b",
        "",
        "%00",
        "\t",
        "..",
        path.as_str(),
        "\"quoted\"",
        long.as_str(),
        &good[1..],
        &format!("{good}A"),
        &format!("{good}="),
        &good.replace(&good[5..6], "*"),
        &good.replace(&good[5..6], "+"),
        &"A".repeat(42),
        &format!("{}B", "A".repeat(42)),
        "0123456789abcdef0123456789abcdef",
    ] {
        let mut jar = Jar::with(&name, odd);
        assert_eq!(app.ok("/read", &mut jar).await, "none", "{odd}");
    }
    assert_eq!(server.command_counts(), commands(&[]));
    // The right form reaches it, as a hash.
    let mut jar = Jar::with(&name, &"A".repeat(43));
    app.ok("/read", &mut jar).await;
    assert_eq!(server.command_counts(), commands(&[("get", 1)]));
}

/// T6 (CVE-2019-16782), T74 (CVE-2020-26228): an attacker who reads all of Redis, or listens to it, cannot log in as any user.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn t06_t74_no_token_is_in_any_command_key_or_value() {
    let server = Server::start();
    let app = App::with(builder(server.url()).max_sessions_per_subject(3)).await;
    let log = server.dir().join("monitor");
    let mut monitor = Command::new("redis-cli")
        .args(["-h", "127.0.0.1", "-p", &server.port.to_string(), "MONITOR"])
        .stdout(std::fs::File::create(&log).unwrap())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    wait_for("MONITOR to listen", || std::fs::read_to_string(&log).is_ok_and(|text| text.starts_with("OK")));
    let (mut tokens, mut jars) = (Vec::new(), vec![Jar::new(); 3]);
    for jar in &mut jars {
        for path in ["/add", "/read", "/regenerate", "/add", "/set/key", "/regenerate", "/logout", "/add"] {
            app.ok(path, jar).await;
            tokens.extend(jar.0.values().cloned());
        }
    }
    // A guessed token is not passed on either.
    let name = jars[0].0.keys().next().unwrap().clone();
    for guess in ["Zm9yZ2VkLWJ5LXNvbWVib2R5LWVsc2UtZm9yLXN1cmU", "short"] {
        app.ok("/read", &mut Jar::with(&name, guess)).await;
        tokens.push(guess.to_owned());
    }
    tokens.sort();
    tokens.dedup();
    assert!(tokens.len() >= 11, "{}", tokens.len());
    server.cli(&["SET", "the-end", "x"]);
    wait_for("MONITOR to have heard it all", || std::fs::read_to_string(&log).unwrap().contains("the-end"));
    let _ = monitor.kill();
    let _ = monitor.wait();

    let mut raw = Raw::of(&server);
    let mut all = std::fs::read(&log).unwrap();
    assert!(all.len() > 4_000);
    for key in raw.keys() {
        all.extend(key.as_bytes());
        all.extend(raw.get(&key));
        all.extend(raw.dump(&key));
    }
    let has = |needle: &[u8]| all.windows(needle.len()).any(|window| window == needle);
    assert!(has(b"test:") && (has(b"EVALSHA") || has(b"IFEQ")), "the check finds what is there to find");
    for token in &tokens {
        assert!(!has(token.as_bytes()), "{token}");
        if let Ok(bytes) = BASE64_URL_SAFE_NO_PAD.decode(token) {
            let hex = bytes.iter().fold(String::new(), |hex, byte| hex + &format!("{byte:02x}"));
            assert!(!has(&bytes) && !has(&hex.as_bytes()[..32]), "{token}");
            // As MONITOR would escape them.
            let escaped = bytes.iter().fold(String::new(), |text, byte| text + &as_monitor_shows(*byte));
            assert!(!has(escaped.as_bytes()), "{token}");
        }
    }
}

/// Redis' own way of showing bytes.
fn as_monitor_shows(byte: u8) -> String {
    match byte {
        b'\\' | b'"' => format!("\\{}", char::from(byte)),
        b'\n' => "\\n".to_owned(),
        b'\r' => "\\r".to_owned(),
        b'\t' => "\\t".to_owned(),
        7 => "\\a".to_owned(),
        8 => "\\b".to_owned(),
        b' '..=b'~' => char::from(byte).to_string(),
        _ => format!("\\x{byte:02x}"),
    }
}
