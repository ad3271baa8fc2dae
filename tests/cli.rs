//! The operator's tool, run as an operator does.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs,
    unreachable_pub
)]

#[path = "support/device.rs"]
mod device;
#[path = "redis/server.rs"]
#[allow(dead_code)] // of which only a plain server is needed
mod server;
#[path = "support/deadlines.rs"]
mod support;

use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use http::{Request, Response};
use hyper::service::Service;
use hyper_session::__internals::Verbs;
use hyper_session::testing::{Cookies, FakeClock, with_session};
use hyper_session::{
    AppKey, Clock, CookieStore, DeviceBound, Error, Keyring, RedisStore, Refusal, Revocations, Session,
    SessionHandle, SystemClock, session_fn,
};
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
    cookie_of(key, |session| {
        session.login("user-42")?;
        session.set("cart", ["tea", "milk"])?;
        session.set_flash("notice", "Welcome")
    })
}

fn cookie_of(key: &str, deed: impl FnOnce(&Session) -> Result<(), Error>) -> String {
    let clock = FakeClock::at(NOW);
    let store = CookieStore::builder(key.parse::<AppKey>().unwrap()).clock(clock).build().unwrap();
    let request = block_on(with_session(Request::new(()), &store, deed));
    request.unwrap().headers()["cookie"].to_str().unwrap().to_owned()
}

#[test]
fn help_is_printed() {
    for arguments in [
        &[][..],
        &["--help"],
        &["-h"],
        &["help"],
        &["help", "key"],
        &["key", "help"],
        &["key", "--help"],
        &["sessions", "list", "-h"],
        &["--help", "--version"],
    ] {
        let help = run(arguments, &[], "");
        assert!(help.status == 0 && help.out.contains("COMMANDS"), "{}", help.err);
        for line in help.out.lines() {
            assert!(line.chars().count() <= 100, "{line}");
        }
    }
    for flag in ["--version", "-V"] {
        assert!(run(&[flag], &[], "").out.contains(env!("CARGO_PKG_VERSION")));
    }
}

#[test]
fn mistakes_exit_2() {
    for arguments in [
        &["no", "such"][..],
        &["--bogus"],
        &["cookie", "open", "--name"],
        &["cookie", "open", "--at=x"],
        &["cookie", "open"],
        &["key", "check", "--keys", "/does/not/exist"],
        &["sessions", "list", "ada"],
        &["sessions", "end", "ada"],
        &["key"],
        &["key", "new", "--prefix", "shop"],
        &["key", "new", "now"],
        &["sessions", "list", "ada", "--all"],
        &["sessions", "end", "ada", "id", "--all"],
        &["revoke", "subject", "ada"],
        &["revoke", "subject", "ada", "--sqlite", "/does/not/exist"],
        &["revoke", "subject", "ada", "--for-good", "--sqlite", "/does/not/exist"],
        &["revocations", "everything", "else"],
        &["--json=yes", "key", "new"],
        &["-x"],
    ] {
        let answer = run(arguments, &[], "");
        assert!(answer.status == 2 && answer.out.is_empty() && !answer.err.is_empty(), "{arguments:?}");
    }
}

#[test]
fn a_mistake_is_named_with_what_is_missing_or_the_nearest_word() {
    for (arguments, why) in [
        (&["keys", "chek"][..], "did you mean `check`?"),
        (&["sesions", "list", "ada"], "did you mean `sessions`?"),
        (&["sessions", "list", "ada", "--prefx", "p"], "did you mean `--prefix`?"),
        (&["sessions"], "`sessions` needs one of: list, show, end"),
        (&["session", "list"], "`sessions list` needs a SUBJECT"),
        (&["revoke"], "`revoke` needs one of: session, subject, label, everything"),
        (&["revoke", "label", "oidc"], "`revoke label` needs a VALUE"),
        (&["revoke", "subject", "ada"], "give --prefix"),
        (&["revocation", "sumary"], "did you mean `summary`?"),
        (&["sessions", "show", "ada"], "`sessions show` needs an ID"),
        (&["sessions", "end", "ada"], "needs an ID, or --all"),
        (&["cookie", "open", "--name"], "--name needs a value"),
        (&["key", "new", "--sealed"], "`key new` does not take --sealed"),
        (&["sessions", "list", "ada", "--prefix", "p", "--idle", "soon"], "--idle must be a duration"),
        // An unset variable of a script is not a user.
        (&["sessions", "end", "", "--all", "--prefix", "p"], "SUBJECT and ID must not be empty"),
        (&["revoke", "subject", "", "--prefix", "p"], "SUBJECT must not be empty"),
        (&["revoke", "subject", "ada", "--sqlite", "f", "--prefix", "p"], "give one of them"),
        (&["revocations", "summary", "--sqlite", "/"], "/: this is not a file"),
        (&["revocations", "summary", "--sqlite", "/dev/null"], "/dev/null: this is not a file"),
        (&["key", "check", "--keys", ""], "needs the name of a file"),
        (&["-json"], "long options begin with --"),
    ] {
        let answer = run(arguments, &[("REDIS_URL", "redis://127.0.0.1:1")], "");
        assert!(answer.status == 2 && answer.err.contains(why), "{arguments:?} {}", answer.err);
    }
    assert!(run(&["no", "such", "--json"], &[], "").json()["error"].is_string());
}

/// A connection whose reader is gone.
fn closed_pipe() -> Stdio {
    let (ours, _) = std::os::unix::net::UnixStream::pair().unwrap();
    std::os::fd::OwnedFd::from(ours).into()
}

// `eprintln!` panics if standard error cannot be written.
#[test]
fn a_reader_that_goes_away_changes_neither_answer_nor_status() {
    for (arguments, status) in [(&["key", "new"][..], 0), (&["bogus"], 2), (&["revoke", "subject", "ada"], 2)]
    {
        for full in [false, true] {
            let err = if full {
                std::fs::File::options().write(true).open("/dev/full").unwrap().into()
            } else {
                closed_pipe()
            };
            let mut tool = Command::new(env!("CARGO_BIN_EXE_hyper-session"));
            let answer = tool.args(arguments).env_clear().stderr(err).output().unwrap();
            assert_eq!(answer.status.code(), Some(status), "{arguments:?}");
            let answered = arguments == ["key", "new"];
            assert_eq!(answer.stdout.starts_with(b"hsk1_"), answered, "the key is not lost");
        }
        let mut tool = Command::new(env!("CARGO_BIN_EXE_hyper-session"));
        let answer = tool.args(arguments).env_clear().stdout(closed_pipe()).output().unwrap();
        assert_eq!(answer.status.code(), Some(status), "{arguments:?}");
    }
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
    // In the place of the name of a file.
    let hex = "5a".repeat(32);
    let token = cookie(&key);
    let field = format!("__Host-session={token}");
    for (arguments, secret) in [
        (["key", "check", "--keys", &hex], &hex),
        (["key", "check", "--next", &hex], &hex),
        (["cookie", "open", "--cookie", &field], &token),
        (["cookie", "open", "--cookie", &token], &token),
    ] {
        let answer = run(&arguments, &[("SESSION_KEY", &key)], "");
        assert_eq!(answer.status, 2);
        assert!(answer.err.contains(&format!("{} must name a file", arguments[2])), "{}", answer.err);
        assert!(!answer.err.contains(secret) && !answer.out.contains(secret), "{}", answer.err);
    }
    let answer = run(&["key", "check", "--keys", "no/such/file"], &[], "");
    assert!(answer.status == 2 && answer.err.contains("no/such/file: "), "{}", answer.err);
}

#[test]
fn standard_input_holds_one_secret() {
    let (key, _) = new_key();
    for arguments in [&["key", "check", "--keys", "-", "--next", "-"][..], &["cookie", "open", "--keys", "-"]]
    {
        let answer = run(arguments, &[], &key);
        assert!(answer.status == 2 && answer.err.contains("can be read once"), "{}", answer.err);
    }
    assert_eq!(run(&["key", "check", "--keys", "-"], &[], &key).status, 0);
}

/// A subject can be the URL of an account.
#[test]
fn a_subject_that_is_a_url_is_no_secret() {
    for subject in ["https://mastodon.social/@ada", "https://idp.example#ada@example.com"] {
        let answer = run(&["sessions", "list", subject], &[], "");
        assert!(answer.status == 2 && !answer.err.contains("command line contains"), "{}", answer.err);
        assert!(answer.err.contains("REDIS_URL"), "it goes as far as the missing URL: {}", answer.err);
    }
}

#[test]
fn a_bad_key_names_its_file_and_line_and_not_itself() {
    let (key, _) = new_key();
    let ring = File::new("bad-line", &format!("# keys\r\n{key}\r\n\r\ncorrect-horse-battery\r\n"));
    let next = File::new("cut", &format!("{}\n", &key[..30]));
    let utf16 = File::new("utf16", "");
    std::fs::write(utf16.path(), b"\xff\xfeh\0s\0k\0").unwrap();
    for (arguments, variable, why) in [
        (&["key", "check", "--keys", ring.path()][..], "", format!("{}: line 4: ", ring.path())),
        (&["key", "check", "--next", next.path()], key.as_str(), format!("{}: line 1: ", next.path())),
        (&["key", "check"], "correct-horse-battery", "SESSION_KEYS: line 1: ".into()),
        (&["cookie", "open"], "'hsk1_", "SESSION_KEYS: line 1: ".into()),
        (&["key", "check", "--keys", utf16.path()], "", format!("{}: must be UTF-8", utf16.path())),
    ] {
        let answer = run(arguments, &[("SESSION_KEYS", variable)], "");
        assert!(answer.status == 2 && answer.err.contains(&why), "{} lacks {why}", answer.err);
        assert!(!answer.err.contains("battery") && !answer.err.contains(&key[5..20]), "{}", answer.err);
    }
}

#[test]
fn a_new_key_is_a_key() {
    let answer = run(&["key", "new"], &[], "");
    let key: AppKey = answer.out.trim().parse().unwrap();
    assert_eq!(answer.err.trim(), format!("id {}", key.id()));
    // As `key new > FILE` leaves it, and as others hand it on.
    let file = File::new("new", &answer.out);
    for arguments in [&["key", "check", "--keys", file.path()][..], &["keys", "check", "--keys", file.path()]]
    {
        assert_eq!(run(arguments, &[], "").out, format!("now  {}  seals\n", key.id()));
    }
    for text in [format!("\"{}\"", answer.out.trim()), format!("'{}'\r\n", answer.out.trim())] {
        assert_eq!(
            run(&["key", "check"], &[("SESSION_KEY", &text)], "").out,
            format!("now  {}  seals\n", key.id())
        );
    }
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
        "bound": null,
        "values": { "cart": ["tea", "milk"] },
        "flash": { "notice": "Welcome" },
    });
    assert_eq!((answer.status, json), (0, expected));

    // Only the token, from a file; in words; and with a keyring whose second key sealed it.
    let file = File::new("cookie", cookie.split_once('=').unwrap().1);
    let ring = File::new("ring", &format!("{} # seals\n\n{key} # opens\nrevoked:00c0ffee\n", new_key().0));
    let arguments = ["cookie", "open", &at, "--keys", ring.path(), "--cookie", file.path()];
    let answer = run(&arguments, &[], "");
    assert!(answer.out.contains("cart") && answer.out.contains("an old one"), "{}", answer.out);
}

#[test]
fn a_cookie_is_read_as_it_is_copied() {
    let (key, _) = new_key();
    let cookie = cookie(&key);
    let at = format!("--at={}", NOW + 60);
    let arguments = ["cookie", "open", &at];
    for copied in [
        format!("Cookie: a=1; {cookie}\r\n"),
        format!("COOKIE: {cookie}"),
        format!("cookie: a=http://b\ncookie: {cookie}\ncookie: c=3\n"),
        format!("Set-Cookie: {cookie}; Max-Age=86400; Path=/; Secure; HttpOnly; SameSite=Lax"),
        format!("\n  {}\n\n", cookie.split_once('=').unwrap().1),
        format!("\u{feff}Cookie: {cookie}\r\n"),
        format!("\u{feff}{}", cookie.split_once('=').unwrap().1),
        format!("> Cookie: {cookie}\n"),
        format!("< set-cookie: {cookie}; Path=/\n"),
        format!("cookie: a=b\rcookie: {cookie}\r"),
        format!("\"{}\"\n", cookie.split_once('=').unwrap().1),
        format!("'{cookie}'"),
        format!("Cookie: \"{cookie}\""),
    ] {
        let answer = run(&arguments, &[("SESSION_KEY", &key)], &copied);
        assert!(
            answer.status == 0 && answer.out.contains("cart") && answer.err.is_empty(),
            "{copied} {}",
            answer.err
        );
    }
    // Of two sessions, the newest is shown. The user learns that there are others.
    let two = format!("{cookie}; {}", self::cookie(&key));
    let answer = run(&arguments, &[("SESSION_KEY", &key)], &two);
    assert!(answer.status == 0 && answer.err.contains("has 2 sessions"), "{}", answer.err);
    // `-` is standard input, also for the keys.
    let file = File::new("dash", &cookie);
    let answer = run(&["cookie", "open", &at, "--keys", "-", "--cookie", file.path()], &[], &key);
    assert!(answer.status == 0 && answer.out.contains("cart"), "{}", answer.err);
    // An empty variable is one that is not set.
    let answer = run(&arguments, &[("SESSION_KEYS", ""), ("SESSION_KEY", &key)], &cookie);
    assert!(answer.status == 0, "{}", answer.err);
}

// Byte strings, and keys that are not text, have no form in JSON. The rest is shown.
#[test]
fn a_cookie_shows_values_that_json_cannot_hold() {
    let (key, _) = new_key();
    let cookie = cookie_of(&key, |session| {
        session.set("bytes", bytes::Bytes::from_static(b"\xff"))?;
        session.set("numbers", std::collections::BTreeMap::from([(1_u32, "one")]))?;
        session.set("plain", 1)
    });
    let at = format!("--at={}", NOW + 60);
    let answer = run(&["cookie", "open", "--json", &at], &[("SESSION_KEY", &key)], &cookie);
    let json = answer.json();
    assert_eq!((answer.status, &json["values"]["plain"]), (0, &json!(1)), "{}", answer.err);
    assert!(json["values"]["bytes"]["not_json"].as_str().unwrap().contains("byte string"), "{json}");
    assert!(json["values"]["numbers"]["not_json"].as_str().unwrap().contains("a map"), "{json}");
}

/// A user chose these values, and an operator opens the cookie on a terminal: that must not obey them, nor show other text than
/// there is. JSON escapes only the first two of these characters.
#[test]
fn what_a_terminal_obeys_is_printed_escaped() {
    let (key, _) = new_key();
    let hostile = "a\u{1b}]0;x\u{7}b\u{7f}c\u{9b}2Jd\u{202e}e\u{2066}f\u{200f}g\u{2028}h";
    let cookie = cookie_of(&key, |session| {
        session.login(hostile)?;
        session.set(hostile, hostile)?;
        session.set("list", [hostile, "\u{e4}\u{1f600}"])?;
        session.set_flash("notice", hostile)
    });
    let at = format!("--at={}", NOW + 60);
    let variables = [("SESSION_KEY", key.as_str())];
    let shows = |text: &str| {
        text.chars().all(|c| c == '\n' || !c.is_control() && !hostile.contains(c) || c.is_ascii_graphic())
    };
    let words = run(&["cookie", "open", &at], &variables, &cookie);
    assert!(words.status == 0 && shows(&words.out.replace(' ', "")), "{:?}", words.out);
    assert!(words.out.contains("\u{e4}\u{1f600}"), "what is only unusual is shown: {}", words.out);
    let json = run(&["cookie", "open", "--json", &at], &variables, &cookie);
    assert!(shows(&json.out.replace(' ', "")), "{:?}", json.out);
    let json = json.json();
    assert_eq!((&json["subject"], &json["values"][hostile]), (&json!(hostile), &json!(hostile)));
    assert_eq!(json["flash"]["notice"], hostile);
    // Nor is it repeated in an error.
    let refused = run(&["cookie", "open", &at, "--name", "x\u{9b}2J"], &variables, &cookie);
    assert!(refused.status == 2 && shows(&refused.err.replace(' ', "")), "{:?}", refused.err);
}

#[test]
fn a_session_in_eight_cookies_is_opened() {
    let (key, _) = new_key();
    let options = hyper_session::cookie::CookieOptions::new().max_chunks(8);
    let store = CookieStore::builder(key.parse::<AppKey>().unwrap()).cookie(options).build().unwrap();
    let values = "a".repeat(22_000);
    let request =
        block_on(with_session(Request::new(()), &store, |session| session.set("blob", &values))).unwrap();
    let cookies = request.headers()["cookie"].to_str().unwrap();
    assert!(cookies.contains("__Host-session.7="));
    let answer = run(&["cookie", "open"], &[("SESSION_KEY", &key)], cookies);
    assert!(answer.status == 0 && answer.out.contains("blob") && answer.err.is_empty(), "{}", answer.err);
}

#[test]
fn a_cookie_shows_that_its_session_is_bound_to_a_device() {
    let (key, _) = new_key();
    let store = CookieStore::builder(key.parse::<AppKey>().unwrap())
        .clock(FakeClock::at(NOW))
        .device_bound(DeviceBound::new())
        .build()
        .unwrap();
    let service = session_fn(store, |_: Request<()>, session: SessionHandle| async move {
        session.load().await?.login("user-42")?;
        Ok::<_, Error>(Response::new(Vec::new()))
    })
    .device_bound(|json| json.to_vec());
    let mut cookies = Cookies::new();
    let response = block_on(service.call(Request::new(()))).unwrap();
    cookies.receive(response.headers());
    let offer = device::offer(response.headers()).unwrap();
    let proof = device::Device::new().registration(&offer.challenge);
    let request = Request::post(&offer.path)
        .header("secure-session-response", proof)
        .header("cookie", cookies.header().unwrap());
    let response = block_on(service.call(request.body(()).unwrap())).unwrap();
    cookies.receive(response.headers());

    // The bound cookie is not needed to look at a session.
    let token = std::str::from_utf8(cookies.get("__Host-session").unwrap()).unwrap();
    let arguments = ["cookie", "open", &format!("--at={}", NOW + 3600)];
    let answer = run(&arguments, &[("SESSION_KEY", &key)], token);
    assert!(answer.out.contains("\nbound    to a device, 2023-11-14T22:13:20Z\n"), "{}", answer.out);
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
    assert_eq!(refused(at, &key, &format!("{token}=")), "encoding");
    for nothing in ["", " \r\n"] {
        let answer = run(&["cookie", "open"], &[("SESSION_KEY", &key)], nothing);
        assert!(answer.status == 2 && answer.err.contains("the input is empty"), "{}", answer.err);
    }
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
    // Two keyrings do not show whether a key is dropped too early. The tool reports that sessions may be alive, unless --since
    // says when the key stopped sealing.
    let (now, next) = (File::new("unknown-now", &both(&new, &old)), File::new("unknown-next", &new));
    let check_since = |more: &[&str]| {
        run(&[&["key", "check", "--keys", now.path(), "--next", next.path()], more].concat(), &[], "")
    };
    for (more, status, said) in [
        (&[][..], 0, "may be alive"),
        (&["--since", "8d", "--absolute", "7d"], 0, "no user is logged out"),
        // The absolute timeout of the service may be longer than the default one.
        (&["--since", "8d"], 0, "last longer than the default of 7d"),
        (&["--since", "6d"], 1, "alive for another 1d"),
        (&["--since=8d", "--absolute=30d"], 1, "alive for another 22d"),
        (&["--since", "0"], 1, "dropped too early"),
    ] {
        let answer = check_since(more);
        assert!(answer.status == status && answer.out.contains(said), "{more:?} {}", answer.out);
        assert_eq!(answer.out.contains("no user is logged out"), said.starts_with("no user"), "{more:?}");
    }
    assert!(check_since(&["--json"]).json()["unknown"][0].as_str().unwrap().contains(&old_id));

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
            let mut builder = server::unhurried(RedisStore::builder(redis.url()).prefix(prefix));
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
        // The id of another subject's session is not found.
        let eve = sessions(&["list", "eve"]).json()["sessions"][0]["id"].as_str().unwrap().to_owned();
        assert_eq!(sessions(&["end", "ada", &eve]).status, 1);
        assert_eq!(sessions(&["end", "ada", "--all"]).json(), json!({ "ended": 2 }));
        assert_eq!(sessions(&["list", "ada"]).json(), json!({ "sessions": [] }));
        assert_eq!(sessions(&["list", "eve"]).json()["sessions"].as_array().unwrap().len(), 1);
    }
    let words = |arguments: &[&str]| {
        let arguments = [&["sessions"], arguments].concat();
        run(&arguments, &[("REDIS_URL", &redis.url())], "")
    };
    let listed = words(&["list", "eve", "--prefix", "clear"]);
    assert!(listed.status == 0 && listed.out.lines().count() == 2, "{}", listed.out);
    assert!(listed.out.contains("unknown"), "when it was last seen, only the idle timeout tells");
    let listed = words(&["list", "eve", "--prefix", "clear", "--idle", "24h"]);
    assert!(listed.status == 0 && !listed.out.contains("unknown"), "{}", listed.out);

    // Another store's name or prefix does not look like success.
    for wrong in [&["--prefix", "clear", "--name", "other"][..], &["--prefix", "claer"]] {
        for command in [&["list", "eve"][..], &["end", "eve", "--all"]] {
            let answer = words(&[command, wrong].concat());
            assert!(answer.status == 1 && answer.out.contains("the cookie name"), "{}", answer.out);
            let answer = words(&[command, wrong, &["--json"]].concat());
            assert!(answer.status == 1 && answer.err.contains("the cookie name"), "{}", answer.err);
        }
    }
    // A list that the tool has no key for is not an empty one.
    let blind = words(&["list", "eve", "--prefix", "sealed"]);
    assert!(blind.status == 2 && blind.err.contains("--sealed"), "{}", blind.err);

    let ended = words(&["end", "eve", "--prefix", "clear", "--all"]);
    assert_eq!((ended.status, ended.out.as_str()), (0, "1 session ended\n"));
}

#[test]
fn listing_ends_no_session() {
    let redis = server::Server::start();
    let day = Duration::from_secs(86_400);
    let now = SystemClock.now().as_unix();
    let (old, new) = (new_key().0, new_key().0);
    let key = |text: &str| AppKey::from_text(text).unwrap();
    let clock = FakeClock::at(now - 8 * day.as_secs());
    let builder = || {
        server::unhurried(RedisStore::builder(redis.url()))
            .idle_timeout(30 * day)
            .absolute_timeout(30 * day)
            .clock(clock.clone())
    };
    block_on(async {
        // A store whose sessions live for 30 days, and one in the middle of a rotation.
        let month = builder().prefix("month").connect().await.unwrap();
        let before = builder().prefix("ring").seal_records(key(&old)).connect().await.unwrap();
        let rotated = Keyring::new(key(&new)).accept(key(&old));
        let after = builder().prefix("ring").seal_records(rotated).connect().await.unwrap();
        with_session(Request::new(()), &month, |session| session.login("ada")).await.unwrap();
        for store in [&before, &after] {
            with_session(Request::new(()), store, |session| session.login("ada")).await.unwrap();
        }
        clock.set(now);

        let tool = |arguments: &[&str]| {
            let arguments = [&["sessions"], arguments, &["--json"]].concat();
            run(&arguments, &[("REDIS_URL", &redis.url()), ("SESSION_KEYS", &new)], "")
        };
        let listed = tool(&["list", "ada", "--prefix", "month"]).json();
        let id = listed["sessions"][0]["id"].as_str().unwrap().to_owned();
        assert_eq!(tool(&["show", "ada", &id, "--prefix", "month"]).status, 0);
        // Timeouts by which the session has expired do not end it.
        for option in ["--idle=1d", "--absolute=7d"] {
            tool(&["list", "ada", "--prefix", "month", option]);
            tool(&["show", "ada", &id, "--prefix", "month", option]);
        }
        assert_eq!(month.sessions_of("ada").await.unwrap().len(), 1, "it lives");

        // The tool has only the new key. It lists the session that it cannot read as unreadable, and does not end it.
        let listed = tool(&["list", "ada", "--prefix", "ring", "--sealed"]).json();
        let readable = |at: usize| listed["sessions"][at]["readable"].as_bool().unwrap();
        assert_eq!([readable(0), readable(1)], [false, true]);
        let arguments = ["sessions", "list", "ada", "--prefix", "ring", "--sealed"];
        let words = run(&arguments, &[("REDIS_URL", &redis.url()), ("SESSION_KEYS", &new)], "");
        assert!(words.out.contains("unreadable"), "{}", words.out);
        let alive = after.sessions_of("ada").await.unwrap();
        assert_eq!(alive.iter().filter(|session| session.readable).count(), 2);
    });
}

#[test]
fn a_redis_that_is_not_there_is_status_3_and_keeps_its_password() {
    let file = File::new("url", "redis://user:hunter2@127.0.0.1:1\n");
    for command in [["sessions", "list", "ada"], ["revoke", "subject", "ada"]] {
        let answer = run(&[&command[..], &["--prefix", "p", "--redis", file.path()]].concat(), &[], "");
        assert_eq!(answer.status, 3, "{}", answer.err);
        assert!(!answer.err.contains("hunter2"), "{}", answer.err);
    }
}

/// Waits until the store refuses this cookie as revoked.
async fn until_revoked(store: &CookieStore, token: &str) {
    let start = std::time::Instant::now();
    while store.load(token.as_bytes(), SystemClock.now()).await.unwrap().err() != Some(Refusal::Revoked) {
        assert!(start.elapsed() < server::PATIENCE, "the session goes on");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// A revocation of all sessions names none of them.
#[test]
fn the_first_revocation_may_be_that_of_everything() {
    let path = std::env::temp_dir().join(format!("hyper-session-cli-first-{}.db", std::process::id()));
    let path = path.to_str().unwrap();
    block_on(async { drop(Revocations::sqlite(path).await.unwrap()) });
    for (named, is_first) in [(&["everything"][..], true), (&["subject", "ada"], false)] {
        let revoked = run(&[&["revoke"], named, &["--json", "--sqlite", path]].concat(), &[], "");
        assert_eq!(revoked.json(), json!({ "revoked": true, "first": is_first }), "{named:?}");
        assert_eq!(revoked.err.contains("held no revocation before"), is_first, "{named:?}");
    }
    for suffix in ["", "-wal", "-shm"] {
        let _ = std::fs::remove_file(format!("{path}{suffix}"));
    }
}

#[test]
fn sessions_are_revoked_and_revocations_found_in_redis_and_in_a_file() {
    let redis = server::Server::start();
    let url = redis.url();
    let path = std::env::temp_dir().join(format!("hyper-session-cli-{}.db", std::process::id()));
    let path = path.to_str().unwrap();
    for place in [&["--prefix", "shop"][..], &["--sqlite", path]] {
        let tool = |arguments: &[&str]| run(&[arguments, place].concat(), &[("REDIS_URL", &url)], "");
        block_on(async {
            let revocations = if place[0] == "--sqlite" {
                Revocations::sqlite(path).await.unwrap()
            } else {
                server::unhurried_revocations(&*url, "shop").connect().await.unwrap()
            };
            let key = AppKey::danger_from_any_bytes(b"a key for tests").unwrap();
            let revocations = revocations.max_staleness(Duration::from_secs(20));
            let store = CookieStore::builder(key).revocations(revocations).build().unwrap();
            let mut tokens = Vec::new();
            for user in ["ada", "bob", "eve", "joe"] {
                let request = with_session(Request::new(()), &store, |session| {
                    session.login(user)?;
                    session.label("device", &format!("phone of {user}"))
                });
                let cookie = request.await.unwrap().headers()["cookie"].to_str().unwrap().to_owned();
                tokens.push(cookie.strip_prefix("__Host-session=").unwrap().to_owned());
            }
            let bob = store.load(tokens[1].as_bytes(), SystemClock.now()).await.unwrap().unwrap();
            let bob = bob.id().to_string();

            assert_eq!(tool(&["revocations", "summary"]).status, 1, "nothing is revoked");
            assert_eq!(tool(&["revocations", "session", "not-an-id"]).status, 2, "no log has such an id");
            let first = tool(&["revoke", "subject", "ada"]);
            assert!(first.status == 0 && first.out.contains("held no revocation before"), "{}", first.err);
            until_revoked(&store, &tokens[0]).await;
            assert_eq!(tool(&["revoke", "session", &bob]).out, format!("revoked: session {bob}\n"));
            until_revoked(&store, &tokens[1]).await;
            let label = ["label", "device", "phone of eve"];
            let revoked = tool(&[&["revoke"], &label[..], &["--for-good", "--json"]].concat());
            assert_eq!(revoked.json(), json!({ "revoked": true, "first": false }));
            until_revoked(&store, &tokens[2]).await;
            assert!(
                store.load(tokens[3].as_bytes(), SystemClock.now()).await.unwrap().is_ok(),
                "joe's goes on"
            );
            for (named, count) in [
                (&["subject", "ada"][..], 1),
                (&["subject", "joe"], 0),
                (&label, 1),
                (&["label", "device", "phone of joe"], 0),
                (&["session", &bob], 2),
                (&["everything"], 0),
            ] {
                let answer = tool(&[&["revocations"], named, &["--json"]].concat());
                assert_eq!(answer.json()["revocations"].as_array().unwrap().len(), count, "{named:?}");
                assert_eq!(answer.status, i32::from(count == 0));
            }
            assert_eq!(tool(&["revoke", "everything"]).status, 0);
            until_revoked(&store, &tokens[3]).await;
            assert!(tool(&["revocations", "everything"]).out.starts_with("revoked: all sessions\n20"));
            assert_eq!(tool(&["revocations", "summary", "--json"]).json()["entries"], 5);
            assert_eq!(tool(&["revoke", "session", "not-an-id"]).status, 2);
        });
    }
    for suffix in ["", "-wal", "-shm"] {
        let _ = std::fs::remove_file(format!("{path}{suffix}"));
    }
}
