//! The operator's tool, run as an operator does.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs,
    unreachable_pub
)]

#[path = "redis/server.rs"]
#[allow(dead_code)] // of which only a plain server is needed
mod server;

use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use http::Request;
use hyper_session::testing::{FakeClock, with_session};
use hyper_session::{AppKey, CookieStore, Keyring, RedisStore};
use serde_json::{Value, json};

struct Answer {
    status: i32,
    out: String,
    err: String,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap_or_else(|_| panic!("{} {}", self.out, self.err))
    }
}

/// Runs the tool with these arguments, variables, and standard input.
fn run(arguments: &[&str], variables: &[(&str, &str)], input: &str) -> Answer {
    let mut process = Command::new(env!("CARGO_BIN_EXE_hyper-session"))
        .args(arguments)
        .env_clear()
        .envs(variables.iter().copied())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // It may not want any.
    let _ = process.stdin.take().unwrap().write_all(input.as_bytes());
    let output = process.wait_with_output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Answer { status: output.status.code().unwrap(), out: text(output.stdout), err: text(output.stderr) }
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

/// A file that is removed when it is dropped.
struct File(PathBuf);

impl File {
    fn new(name: &str, text: &str) -> Self {
        let path = std::env::temp_dir().join(format!("hyper-session-{}-{name}", std::process::id()));
        std::fs::write(&path, text).unwrap();
        Self(path)
    }

    fn path(&self) -> &str {
        self.0.to_str().unwrap()
    }
}

impl Drop for File {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// The text of a new key, and its id.
fn new_key() -> (String, String) {
    let key = AppKey::generate().unwrap();
    (key.to_text().to_string(), key.id().to_string())
}

const NOW: u64 = 1_700_000_000;

/// The `Cookie` header of a session that was sealed under this key at `NOW`.
fn cookie(key: &str) -> String {
    let clock = FakeClock::at(NOW);
    let store = CookieStore::builder(key.parse::<AppKey>().unwrap()).clock(clock).build().unwrap();
    let request = block_on(with_session(Request::new(()), &store, |session| {
        session.login("user-42")?;
        session.set("cart", ["tea", "milk"])?;
        session.set_flash("notice", "Welcome")
    }));
    request.unwrap().headers()["cookie"].to_str().unwrap().to_owned()
}

#[test]
fn help_is_there_and_mistakes_are_told() {
    for arguments in [&[][..], &["--help"], &["key", "--help"]] {
        let help = run(arguments, &[], "");
        assert!(help.status == 0 && help.out.contains("COMMANDS"), "{}", help.err);
        for line in help.out.lines() {
            assert!(line.chars().count() <= 100, "{line}");
        }
    }
    assert!(run(&["--version"], &[], "").out.contains(env!("CARGO_PKG_VERSION")));
    for arguments in [
        &["no", "such"][..],
        &["--bogus"],
        &["cookie", "open", "--name"],
        &["cookie", "open", "--at=x"],
        &["cookie", "open"],
        &["key", "check", "--keys", "/does/not/exist"],
        &["sessions", "list", "ada"],
        &["sessions", "end", "ada"],
    ] {
        let answer = run(arguments, &[], "");
        assert!(answer.status == 2 && answer.out.is_empty() && !answer.err.is_empty(), "{arguments:?}");
    }
    assert!(run(&["no", "such", "--json"], &[], "").json()["error"].is_string());
}

#[test]
fn secrets_on_the_command_line_are_refused_and_not_repeated() {
    let (key, _) = new_key();
    for secret in [key.as_str(), "redis://:hunter2@localhost"] {
        for arguments in [&["key", "check", "--keys", secret][..], &["cookie", "open", secret], &[secret]] {
            let answer = run(arguments, &[], "");
            assert_eq!(answer.status, 2);
            assert!(answer.err.contains("command line"), "{}", answer.err);
            assert!(!answer.err.contains(secret) && !answer.out.contains(secret));
        }
    }
}

#[test]
fn a_new_key_is_a_key() {
    let answer = run(&["key", "new"], &[], "");
    let key: AppKey = answer.out.trim().parse().unwrap();
    assert_eq!(answer.err.trim(), format!("id {}", key.id()));
    let json = run(&["key", "new", "--json"], &[], "").json();
    assert_eq!(json["key"].as_str().unwrap().parse::<AppKey>().unwrap().id().to_string(), json["id"]);
}

#[test]
fn a_cookie_shows_what_is_inside() {
    let (key, _) = new_key();
    let cookie = cookie(&key);
    let at = format!("--at={}", NOW + 60);
    let answer = run(&["cookie", "open", "--json", &at], &[("SESSION_KEY", &key)], &cookie);
    let mut json = answer.json();
    assert_eq!(json["id"].take().as_str().unwrap().len(), 32);
    let expected = json!({
        "id": null,
        "created": "2023-11-14T22:13:20Z",
        "expires": "2023-11-15T22:13:20Z",
        "seconds_left": 86_400 - 60,
        "old_key": false,
        "subject": "user-42",
        "values": { "cart": ["tea", "milk"] },
        "flash": { "notice": "Welcome" },
    });
    assert_eq!((answer.status, json), (0, expected));

    // The token alone, from a file; in words; and with a keyring whose second key it is.
    let file = File::new("cookie", cookie.split_once('=').unwrap().1);
    let ring = File::new("ring", &format!("{} # seals\n\n{key} # opens\nrevoked:00c0ffee\n", new_key().0));
    let arguments = ["cookie", "open", &at, "--keys", ring.path(), "--cookie", file.path()];
    let answer = run(&arguments, &[], "");
    assert!(answer.out.contains("cart") && answer.out.contains("an old one"), "{}", answer.out);
}

#[test]
fn a_cookie_says_why_it_is_refused() {
    let (key, id) = new_key();
    let cookie = cookie(&key);
    let refused = |arguments: &[&str], keys: &str, cookie: &str| {
        let arguments = [&["cookie", "open", "--json"], arguments].concat();
        let answer = run(&arguments, &[("SESSION_KEYS", keys)], cookie);
        assert_eq!(answer.status, 1, "{}", answer.err);
        answer.json()["refused"].as_str().unwrap().to_owned()
    };
    let at = &["--at", "1700000060"][..];
    assert_eq!(refused(&[], &key, &cookie), "expired");
    assert_eq!(refused(&["--at", "1690000000"], &key, &cookie), "issued_in_future");
    assert_eq!(refused(at, &new_key().0, &cookie), "unknown_key");
    assert_eq!(refused(at, &format!("{} revoked:{id}", new_key().0), &cookie), "revoked_key");
    assert_eq!(refused(at, &key, &format!("{cookie}=")), "encoding");
    let token = cookie.split_once('=').unwrap().1;
    assert_eq!(refused(&["--name=other", "--at=1700000060"], &key, token), "signature");
    let absent = run(&["cookie", "open", "--json"], &[("SESSION_KEY", &key)], "a=1; b=2");
    assert!(absent.status == 2 && absent.json()["error"].as_str().unwrap().contains("__Host-session"));
}

#[test]
fn a_rotation_is_checked_before_it_happens() {
    let ((old, old_id), (new, new_id)) = (new_key(), new_key());
    let check = |now: &str, next: &str| {
        let (now, next) = (File::new("now", now), File::new("next", next));
        let arguments = ["key", "check", "--json", "--keys", now.path(), "--next", next.path()];
        let answer = run(&arguments, &[], "");
        assert!(!answer.out.contains("hsk1_"), "keys are named by their ids");
        (answer.status, answer.json())
    };
    let both = |first: &str, second: &str| format!("{first}\n{second}\n");
    // The three deployments of a rotation, and the first one once more.
    for (now, next) in [
        (old.clone(), both(&old, &new)),
        (both(&old, &new), both(&new, &old)),
        (both(&new, &old), new.clone()),
        (old.clone(), old.clone()),
    ] {
        let (status, json) = check(&now, &next);
        assert_eq!((status, &json["problems"]), (0, &json!([])));
    }
    // A step left out.
    let (status, json) = check(&old, &both(&new, &old));
    let problem = json["problems"][0].as_str().unwrap();
    assert!(status == 1 && problem.contains(&new_id) && problem.contains("accept"), "{problem}");
    let (status, json) = check(&both(&old, &new), &new);
    let problem = json["problems"][0].as_str().unwrap();
    assert!(status == 1 && problem.contains(&old_id) && problem.contains("dropped"), "{problem}");
    let (_, json) = check(&both(&old, &new), &format!("{new} revoked:{old_id}"));
    assert!(json["problems"][0].as_str().unwrap().contains("leaked"));
    assert_eq!(json["next"][1], json!({ "id": old_id, "role": "revoked" }));

    // Rings that no store takes.
    for ring in [format!("{old} revoked:{old_id}"), both(&old, &old), "tooshort".into(), String::new()] {
        let file = File::new("bad", &ring);
        assert_eq!(run(&["key", "check", "--keys", file.path()], &[], "").status, 2, "{ring}");
    }
    let words = run(&["key", "check"], &[("SESSION_KEYS", &both(&old, &new))], "");
    assert_eq!(words.out, format!("now  {old_id}  seals\nnow  {new_id}  opens\n"));
}

#[test]
fn the_sessions_of_a_subject_are_listed_shown_and_ended() {
    let redis = server::Server::start();
    let (key, _) = new_key();
    for sealed in [false, true] {
        let prefix = if sealed { "sealed" } else { "clear" };
        block_on(async {
            let mut builder = RedisStore::builder(redis.url()).prefix(prefix);
            if sealed {
                builder = builder.seal_records(Keyring::new(key.parse().unwrap()));
            }
            let store = builder.connect().await.unwrap();
            for user in ["ada", "ada", "ada", "eve"] {
                with_session(Request::new(()), &store, |session| session.login(user)).await.unwrap();
            }
        });
        let (url, flag) = (redis.url(), if sealed { "--sealed" } else { "--json" });
        let sessions = |arguments: &[&str]| {
            let arguments = [&["sessions"], arguments, &["--prefix", prefix, "--json", flag]].concat();
            run(&arguments, &[("REDIS_URL", &url), ("SESSION_KEY", &key)], "")
        };
        let listed = sessions(&["list", "ada"]).json();
        let listed = listed["sessions"].as_array().unwrap();
        assert_eq!(listed.len(), 3);
        let id = listed[1]["id"].as_str().unwrap();
        let shown = sessions(&["show", "ada", id]).json();
        assert_eq!((&shown["id"], &shown["created"]), (&listed[1]["id"], &listed[1]["created"]));

        assert_eq!(sessions(&["end", "ada", id]).json(), json!({ "ended": 1 }));
        for gone in [sessions(&["end", "ada", id]), sessions(&["show", "ada", id])] {
            assert_eq!((gone.status, gone.json()), (1, json!({ "error": "not found" })));
        }
        // Another subject's id is nobody's.
        let eve = sessions(&["list", "eve"]).json()["sessions"][0]["id"].as_str().unwrap().to_owned();
        assert_eq!(sessions(&["end", "ada", &eve]).status, 1);
        assert_eq!(sessions(&["end", "ada", "--all"]).json(), json!({ "ended": 2 }));
        assert_eq!(sessions(&["list", "ada"]).json(), json!({ "sessions": [] }));
        assert_eq!(sessions(&["list", "eve"]).json()["sessions"].as_array().unwrap().len(), 1);
    }
    let words = run(&["sessions", "list", "eve", "--prefix", "clear"], &[("REDIS_URL", &redis.url())], "");
    assert!(words.status == 0 && words.out.lines().count() == 2, "{}", words.out);
}

#[test]
fn a_redis_that_is_not_there_is_status_3_and_keeps_its_password() {
    let file = File::new("url", "redis://user:hunter2@127.0.0.1:1\n");
    let answer = run(&["sessions", "list", "ada", "--prefix", "p", "--redis", file.path()], &[], "");
    assert_eq!(answer.status, 3, "{}", answer.err);
    assert!(!answer.err.contains("hunter2"), "{}", answer.err);
}
