//! The login example as a person tries it: the real program, driven by curl with a cookie jar.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::io::{BufRead, BufReader};
#[cfg(unix)]
use std::io::{Read, Write};
#[cfg(unix)]
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::LazyLock;

use hyper_session::AppKey;
use serde_json::{Value, json};

/// The running example, stopped when dropped.
struct Server {
    process: Child,
    url: String,
}

impl Server {
    fn start(environment: &[(&str, &str)]) -> Self {
        let mut process = example().envs(environment.iter().copied()).stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(process.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let url =
            line.trim().strip_prefix("listening on ").expect("the line that tells the address").to_owned();
        assert!(url.starts_with("http://127.0.0.1:"), "{url}");
        Self { process, url }
    }

    fn with_key(key: &str) -> Self {
        Self::start(&[("SESSION_KEY", key)])
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }
}

/// The features of this build. The example is built with the same ones.
const FEATURES: [(&str, bool); 12] = [
    ("astra", cfg!(feature = "astra")),
    ("axum", cfg!(feature = "axum")),
    ("cli", cfg!(feature = "cli")),
    ("device-bound", cfg!(feature = "device-bound")),
    ("memory", cfg!(feature = "memory")),
    ("metrics", cfg!(feature = "metrics")),
    ("redis", cfg!(feature = "redis")),
    ("redis-tls", cfg!(feature = "redis-tls")),
    ("sqlite", cfg!(feature = "sqlite")),
    ("testing", cfg!(feature = "testing")),
    ("tower", cfg!(feature = "tower")),
    ("tracing", cfg!(feature = "tracing")),
];

/// Builds the example by cargo, as this test was built, and returns the path of the program. `cargo test` builds the examples beside
/// the tests, so cargo has nothing to do. `cargo test --test login_example` does not, and an example of an earlier build may be there.
fn build_example() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let folder = test.parent().and_then(Path::parent).unwrap();
    let profile = match folder.file_name().and_then(|name| name.to_str()) {
        Some("debug") => "dev",
        other => other.unwrap(),
    };
    let features: Vec<_> = FEATURES.iter().filter(|feature| feature.1).map(|feature| feature.0).collect();
    let Output { status, stdout, stderr } = Command::new(env!("CARGO"))
        .args(["build", "--offline", "--message-format", "json", "--example", "login"])
        .args(["--profile", profile, "--features", &features.join(","), "--target-dir"])
        .arg(folder.parent().unwrap())
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap();
    assert!(status.success(), "{}", String::from_utf8_lossy(&stderr));
    let messages = stdout.split(|byte| *byte == b'\n').filter_map(|line| serde_json::from_slice(line).ok());
    let mut programs = messages.filter(|message: &Value| message["target"]["kind"] == json!(["example"]));
    programs.find_map(|message| message["executable"].as_str().map(PathBuf::from)).expect("the program")
}

// The next feature must be in the list.
#[test]
fn the_example_has_the_features_of_this_build() {
    let manifest = include_str!("../Cargo.toml");
    let section = manifest.split("[features]\n").nth(1).and_then(|rest| rest.split("\n[").next()).unwrap();
    let names =
        section.lines().filter(|line| !line.starts_with('#')).filter_map(|line| line.split_once(" = "));
    let mut names: Vec<_> = names.map(|(name, _)| name).filter(|name| *name != "default").collect();
    names.sort_unstable();
    assert_eq!(FEATURES.map(|feature| feature.0).to_vec(), names);
}

fn example() -> Command {
    static PATH: LazyLock<PathBuf> = LazyLock::new(build_example);
    let mut command = Command::new(&*PATH);
    command
        .env("ADDR", "127.0.0.1:0")
        .env_remove("SESSION_KEY")
        .env_remove("SECURE_COOKIE")
        .env_remove("DEVICE_BOUND")
        .env_remove("REDIS_URL")
        .env_remove("REVOCATIONS")
        .stderr(Stdio::piped());
    command
}

/// Runs a server that must not start: returns its status and what it says.
fn refusal(mut command: Command) -> (Option<i32>, String) {
    let mut process = command.stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(process.stdout.take().unwrap()).read_line(&mut line).unwrap();
    if !line.is_empty() {
        process.kill().unwrap();
    }
    let output = process.wait_with_output().unwrap();
    assert_eq!(line, "", "it must not start");
    (output.status.code(), String::from_utf8(output.stderr).unwrap())
}

/// A browser: curl with a jar of its own.
struct Browser {
    jar: PathBuf,
}

impl Browser {
    fn new(name: &str) -> Self {
        let jar = std::env::temp_dir().join(format!("hyper-session-{}-{name}.jar", std::process::id()));
        let _ = std::fs::remove_file(&jar);
        Self { jar }
    }

    fn curl(&self, server: &Server, path: &str, arguments: &[&str]) -> String {
        let jar = self.jar.to_str().unwrap();
        let url = format!("{}{path}", server.url);
        let Output { status, stdout, stderr } = Command::new("curl")
            .args(["--silent", "--show-error", "--max-time", "30", "--cookie", jar, "--cookie-jar", jar])
            .args(arguments)
            .arg(url)
            .output()
            .expect("curl is installed (./tests/run does that)");
        assert!(status.success(), "{}", String::from_utf8_lossy(&stderr));
        String::from_utf8(stdout).unwrap()
    }

    fn json(&self, server: &Server, path: &str, arguments: &[&str]) -> Value {
        let body = self.curl(server, path, arguments);
        serde_json::from_str(&body).unwrap_or_else(|_| panic!("{path} answered {body}"))
    }

    fn session(&self, server: &Server) -> Value {
        self.json(server, "/api/session", &[])
    }

    fn login(&self, server: &Server, user: &str) -> String {
        self.curl(server, "/login", &["--include", "--data-urlencode", &format!("user={user}")])
    }

    /// The value of the session cookie in the jar.
    fn cookie(&self) -> Option<String> {
        let jar = std::fs::read_to_string(&self.jar).unwrap();
        let line = jar.lines().find(|line| line.contains("\tsession\t"))?;
        line.split('\t').next_back().map(str::to_owned)
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.jar);
    }
}

fn nobody() -> Value {
    json!({ "id": null, "user": null, "visits": 0, "flash": null, "bound": false })
}

fn new_key() -> String {
    AppKey::generate().unwrap().to_text().to_string()
}

#[test]
fn login_visits_flash_once_logout() {
    let server = Server::with_key(&new_key());
    let browser = Browser::new("scenario");

    // Looking around leaves no trace.
    assert!(browser.curl(&server, "/", &[]).contains("nobody yet"));
    assert_eq!(browser.session(&server), nobody());
    assert_eq!(browser.cookie(), None);

    assert_eq!(browser.json(&server, "/api/visits", &["-X", "POST"]), json!({ "visits": 1 }));
    let before = browser.session(&server)["id"].clone();
    let planted = browser.cookie().unwrap();

    let answer = browser.login(&server, "Ada");
    assert!(
        answer.starts_with("HTTP/1.1 303") && answer.to_lowercase().contains("location: /\r\n"),
        "{answer}"
    );
    let after = browser.session(&server);
    assert_eq!(
        (&after["user"], &after["visits"], &after["flash"]),
        (&json!("Ada"), &json!(1), &json!("Welcome, Ada"))
    );
    assert_ne!(after["id"], before, "a login must change the id");
    assert_ne!(browser.cookie().unwrap(), planted);

    // Reading the API does not consume the flash; the page shows it once.
    assert_eq!(browser.session(&server)["flash"], "Welcome, Ada");
    assert!(browser.curl(&server, "/", &[]).contains("Welcome, Ada"));
    let page = browser.curl(&server, "/", &[]);
    assert!(page.contains(">Ada<") && !page.contains("Welcome, Ada"));
    assert_eq!(browser.session(&server)["flash"], Value::Null);

    for visits in 2..=4 {
        assert_eq!(browser.json(&server, "/api/visits", &["-X", "POST"]), json!({ "visits": visits }));
    }
    assert_eq!(browser.curl(&server, "/ping", &[]), "pong");

    let answer = browser.curl(&server, "/logout", &["--include", "-X", "POST"]);
    assert!(answer.starts_with("HTTP/1.1 303"), "{answer}");
    assert_eq!(browser.session(&server), nobody());
    assert_eq!(browser.cookie(), None);
}

#[test]
fn a_cookie_of_a_dropped_key_or_an_altered_one_is_an_empty_session() {
    let browser = Browser::new("keys");
    let key = new_key();
    let cookie = {
        let server = Server::with_key(&key);
        browser.login(&server, "Ada");
        browser.cookie().unwrap()
    };
    let present = |server: &Server, cookie: &str| {
        Browser::new("presenter").json(
            server,
            "/api/session",
            &["--header", &format!("Cookie: session={cookie}")],
        )
    };
    {
        let server = Server::with_key(&key);
        assert_eq!(present(&server, &cookie)["user"], "Ada", "the same key after a restart");
        for altered in [
            cookie.replacen('A', "B", 1),
            cookie[1..].to_owned(),
            cookie[..cookie.len() - 1].to_owned(),
            format!("{cookie}A"),
            format!("{cookie}="),
            cookie.to_lowercase(),
        ] {
            assert_eq!(present(&server, &altered), nobody(), "{altered}");
        }
    }
    let server = Server::with_key(&new_key());
    assert_eq!(present(&server, &cookie), nobody());
    // A different host may have its key, so the browser keeps it.
    assert_eq!(browser.session(&server), nobody());
    assert_eq!(browser.cookie(), Some(cookie));
}

#[test]
fn values_over_the_api() {
    let server = Server::with_key(&new_key());
    let browser = Browser::new("values");
    let set = |key: &str, value: &str| {
        browser.curl(&server, &format!("/api/set?key={key}"), &["--include", "--data-raw", value])
    };
    let get = |key: &str| browser.json(&server, &format!("/api/get?key={key}"), &[])["value"].clone();

    assert!(set("k", "grüße").starts_with("HTTP/1.1 200"));
    assert_eq!(get("k"), "grüße");
    assert_eq!(get("other"), Value::Null);
    assert!(set("%01f", "x").starts_with("HTTP/1.1 400"), "a reserved key");

    // A value over two cookies, and one that no browser could hold.
    let large = "x".repeat(4000);
    assert!(set("large", &large).starts_with("HTTP/1.1 200"));
    assert_eq!(get("large"), json!(large));
    let refused = set("huge", &"x".repeat(40_000));
    assert!(refused.starts_with("HTTP/1.1 413") && refused.contains("32768"), "{refused}");
    assert_eq!(
        (get("k"), get("large"), get("huge")),
        (json!("grüße"), json!(large), Value::Null),
        "what was there stays"
    );
    assert!(set("k", &"x".repeat(40_000)).starts_with("HTTP/1.1 413"));
    assert_eq!(get("k"), "grüße", "a value that is refused does not delete the one before it");
    assert!(set("large", "small").starts_with("HTTP/1.1 200"));
    let jar = std::fs::read_to_string(&browser.jar).unwrap();
    assert!(!jar.contains("session.1"), "the second cookie is gone");
}

/// Any visitor can set values. Only a login makes a user.
#[test]
fn a_value_named_user_logs_nobody_in() {
    let server = Server::with_key(&new_key());
    let browser = Browser::new("imposter");
    let set = |value: &str| browser.curl(&server, "/api/set?key=user", &["--include", "--data-raw", value]);
    assert!(set("admin").starts_with("HTTP/1.1 200"));
    assert_eq!(browser.session(&server)["user"], Value::Null);
    let page = browser.curl(&server, "/", &[]);
    assert!(page.contains("nobody yet") && !page.contains("admin"), "{page}");

    browser.login(&server, "Ada");
    assert!(set("admin").starts_with("HTTP/1.1 200"));
    assert_eq!(browser.session(&server)["user"], "Ada");
    assert!(browser.curl(&server, "/", &[]).contains(">Ada<"));
}

#[test]
fn what_users_type_is_text() {
    let server = Server::with_key(&new_key());
    let browser = Browser::new("escape");
    browser.login(&server, "<script>alert(1)</script>{visits}");
    let page = browser.curl(&server, "/", &["--include"]);
    assert!(
        !page.contains("<script>") && page.contains("&lt;script&gt;") && page.contains("&#123;visits}"),
        "{page}"
    );
    assert!(page.contains("default-src 'none'") && page.contains("no-store"));
    assert!(browser.login(&server, "").starts_with("HTTP/1.1 422"));
    assert!(browser.login(&server, &"n".repeat(65)).starts_with("HTTP/1.1 422"));
    for forged in ["Sec-Fetch-Site: cross-site", "Sec-Fetch-Site: same-site", "Origin: https://evil.example"]
    {
        let answer = browser.curl(&server, "/logout", &["--include", "-X", "POST", "--header", forged]);
        assert!(answer.starts_with("HTTP/1.1 403"), "{forged}: {answer}");
    }
    assert_eq!(browser.session(&server)["user"], "<script>alert(1)</script>{visits}");
    assert!(browser.curl(&server, "/login", &["--include"]).starts_with("HTTP/1.1 405"));
    assert!(browser.curl(&server, "/nothing", &["--include"]).starts_with("HTTP/1.1 404"));
}

#[test]
fn the_production_cookie_is_a_setting_away() {
    let key = new_key();
    let server = Server::start(&[("SESSION_KEY", &key), ("SECURE_COOKIE", "1")]);
    let answer = Browser::new("secure").login(&server, "Ada");
    let line = answer.lines().find(|line| line.to_lowercase().starts_with("set-cookie:")).unwrap();
    assert!(line.contains("__Host-session="), "{line}");
    assert!(line.contains("; Max-Age=86400; Path=/; Secure; HttpOnly; SameSite=Lax"), "{line}");
}

#[test]
fn http2_works_too() {
    let server = Server::with_key(&new_key());
    let browser = Browser::new("http2");
    let answer =
        browser.curl(&server, "/login", &["--http2-prior-knowledge", "--include", "--data", "user=Ada"]);
    assert!(answer.starts_with("HTTP/2 303"), "{answer}");
    let session = browser.json(&server, "/api/session", &["--http2-prior-knowledge"]);
    assert_eq!(session["user"], "Ada");
}

#[test]
fn a_weak_key_stops_it_with_a_reason_that_does_not_show_the_key() {
    for key in ["tooshort-Zq", "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "hsk1_Zqxw"] {
        let output = example().env("SESSION_KEY", key).output().unwrap();
        let reason = String::from_utf8(output.stderr).unwrap();
        assert!(!output.status.success() && reason.contains("key"), "{reason}");
        assert!(!reason.contains(key), "{reason}");
    }
}

#[test]
fn without_settings_it_starts_and_warns() {
    let output = {
        let mut server = Server::start(&[]);
        let stderr = server.process.stderr.take().unwrap();
        let browser = Browser::new("default");
        browser.login(&server, "Ada");
        assert_eq!(browser.session(&server)["user"], "Ada");
        drop(server);
        BufReader::new(stderr).lines().map(Result::unwrap).collect::<Vec<_>>().join("\n")
    };
    assert!(output.contains("SESSION_KEY is not set") && output.contains("development cookie"), "{output}");
}

/// A setting that says something else than the server understands must not pass for one that is not set.
#[test]
fn a_setting_that_is_not_understood_stops_it() {
    for (name, value, reason) in [
        ("SECURE_COOKIE", "true", "SECURE_COOKIE must be 0 or 1"),
        ("DEVICE_BOUND", "yes", "DEVICE_BOUND must be 0 or 1"),
        ("ADDR", "nowhere", "ADDR=nowhere: "),
    ] {
        let mut command = example();
        command.env(name, value);
        let (_, error) = refusal(command);
        assert!(error.contains(&format!("error: {reason}")), "{error}");
        assert!(!error.contains("Error(") && !error.contains("Custom {"), "{error}");
    }
    #[cfg(unix)]
    for name in ["ADDR", "SESSION_KEY", "SECURE_COOKIE", "DEVICE_BOUND", "REDIS_URL", "REVOCATIONS"] {
        use std::os::unix::ffi::OsStrExt;
        let value = std::ffi::OsStr::from_bytes(b"redis://\xff");
        let mut command = example();
        command.env(name, value);
        let (status, error) = refusal(command);
        assert!(status == Some(2) && error.contains(&format!("{name} is not UTF-8")), "{error}");
    }
    let mut command = example();
    command.env("SESSION_KEY", "tooshort");
    let (_, error) = refusal(command);
    assert!(error.lines().last().unwrap().starts_with("error: line 1: "), "{error}");
}

/// A request that never ends keeps the server only until a second signal, and no new connection is accepted meanwhile.
#[cfg(unix)]
#[test]
fn signals_stop_it_while_an_upload_is_unfinished() {
    for signals in [["INT", "TERM"], ["TERM", "INT"]] {
        let mut server = Server::with_key(&new_key());
        let address = server.url.strip_prefix("http://").unwrap().to_owned();
        let mut upload = TcpStream::connect(&address).unwrap();
        upload
            .write_all(
                b"POST /api/set?key=k HTTP/1.1\r\nHost: h\r\nContent-Length: 9\r\nExpect: 100-continue\r\n\r\n",
            )
            .unwrap();
        let mut line = String::new();
        BufReader::new(&upload).read_line(&mut line).unwrap();
        assert!(line.starts_with("HTTP/1.1 100"), "the handler waits for the body: {line}");
        upload.write_all(b"half").unwrap();

        let mut stderr = BufReader::new(server.process.stderr.take().unwrap()).lines().map(Result::unwrap);
        let [first, second] = signals;
        let signal = |name: &str| {
            let pid = server.process.id().to_string();
            assert!(Command::new("kill").args([&format!("-{name}"), &pid]).status().unwrap().success());
        };
        signal(first);
        assert!(stderr.any(|line| line.starts_with("stopping")), "it says that it stops");
        // The kernel may still take a connection, which the server does not accept.
        let late = TcpStream::connect(&address);
        if let Ok(mut late) = late.as_ref() {
            let _ = late.write_all(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n");
        }
        signal(second);
        assert!(server.process.wait().unwrap().success());
        if let Ok(mut late) = late {
            let mut reply = Vec::new();
            let _ = late.read_to_end(&mut reply);
            assert_eq!(String::from_utf8_lossy(&reply), "", "no new request is answered");
        }
    }
}
