//! Chromium, headless, through its driver: WebDriver (<https://www.w3.org/TR/webdriver2/>), as far as it is needed here.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::Server;

/// No answer takes this long: what does, hangs.
const PATIENCE: Duration = Duration::from_secs(120);

pub struct Browser {
    driver: Child,
    address: SocketAddr,
    session: String,
    profile: PathBuf,
}

/// A cookie as the browser keeps it.
#[derive(Debug, PartialEq)]
pub struct Cookie {
    pub name: String,
    pub value: String,
    pub domain: String,
    pub path: String,
    pub secure: bool,
    pub http_only: bool,
    pub same_site: String,
    /// Seconds since 1970; `None` until the browser is closed.
    pub expiry: Option<u64>,
}

impl Browser {
    /// Starts a driver and a browser with an empty profile that trusts the server's certificate. Both end when this is
    /// dropped.
    ///
    /// Trusts it, and does not merely overlook that it cannot: what comes with an invalid certificate is never cached, and
    /// the back button would have nothing to show in any case.
    pub fn start(server: &Server) -> Self {
        let mut driver = Command::new("chromedriver")
            .arg("--port=0")
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("chromedriver is installed (./tests/run does that)");
        let output = BufReader::new(driver.stdout.take().expect("it is piped"));
        let started =
            |line: String| line.split_once("started successfully on port ").map(|(_, port)| port.to_owned());
        let port = output.lines().map_while(Result::ok).find_map(started).expect("the driver tells its port");
        let port: u16 = port.trim_end_matches('.').parse().expect("a number");
        let profile =
            std::env::temp_dir().join(format!("hyper-session-browser-{}-{port}", std::process::id()));
        // An earlier run that was killed may have left one of that name.
        let _ = fs::remove_dir_all(&profile);
        fs::create_dir(&profile).expect("an empty profile");
        let mut browser =
            Self { driver, address: ([127, 0, 0, 1], port).into(), session: String::new(), profile };

        let arguments = [
            "--headless",
            "--no-sandbox", // root, in containers and CI, has none
            "--disable-gpu",
            "--disable-quic",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            "--window-size=1280,800",
            &format!("--ignore-certificate-errors-spki-list={}", server.key_hash()),
            &format!("--user-data-dir={}", browser.profile.display()),
        ];
        let capabilities = json!({ "goog:chromeOptions": { "args": arguments } });
        let started =
            browser.send("POST", "/session", &json!({ "capabilities": { "alwaysMatch": capabilities } }));
        browser.session = started["sessionId"].as_str().expect("the session's id").to_owned();
        browser
    }

    pub fn open(&self, url: &str) {
        self.post("/url", &json!({ "url": url }));
    }

    pub fn reload(&self) {
        self.post("/refresh", &json!({}));
    }

    pub fn back(&self) {
        self.post("/back", &json!({}));
    }

    /// The text that a person sees.
    pub fn text(&self) -> String {
        let body = self.find("body");
        self.get(&format!("/element/{body}/text")).as_str().expect("text").to_owned()
    }

    /// Waits until a person sees `text`: a click may return before the page that it leads to is there.
    pub fn wait_for(&self, text: &str) {
        let start = Instant::now();
        while start.elapsed() < PATIENCE {
            // While pages change, there may be none to look at.
            let shown = self.run("return document.body ? document.body.innerText : ''");
            if shown.as_str().is_some_and(|shown| shown.contains(text)) {
                return;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        panic!("{text:?} does not appear, but {:?}", self.text());
    }

    /// Types into a field.
    pub fn fill(&self, selector: &str, text: &str) {
        let field = self.find(selector);
        self.post(&format!("/element/{field}/value"), &json!({ "text": text }));
    }

    pub fn click(&self, selector: &str) {
        let element = self.find(selector);
        self.post(&format!("/element/{element}/click"), &json!({}));
    }

    /// What a script of the page gets to see.
    pub fn run(&self, script: &str) -> Value {
        self.post("/execute/sync", &json!({ "script": script, "args": [] }))
    }

    /// All cookies that the browser would send to the page's host.
    pub fn cookies(&self) -> Vec<Cookie> {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let cookie = |cookie: &Value| Cookie {
            name: text(&cookie["name"]),
            value: text(&cookie["value"]),
            domain: text(&cookie["domain"]),
            path: text(&cookie["path"]),
            secure: cookie["secure"] == true,
            http_only: cookie["httpOnly"] == true,
            same_site: text(&cookie["sameSite"]),
            expiry: cookie["expiry"].as_u64(),
        };
        self.get("/cookie").as_array().expect("a list").iter().map(cookie).collect()
    }

    /// The tab that is looked at.
    pub fn tab(&self) -> String {
        self.get("/window").as_str().expect("a handle").to_owned()
    }

    /// Opens another tab, and looks at it.
    pub fn new_tab(&self) -> String {
        let opened = self.post("/window/new", &json!({ "type": "tab" }));
        let tab = opened["handle"].as_str().expect("a handle").to_owned();
        self.switch_to(&tab);
        tab
    }

    pub fn switch_to(&self, tab: &str) {
        self.post("/window", &json!({ "handle": tab }));
    }

    /// Shows the page as on a phone, or, again, as on a desk.
    pub fn pretend_phone(&self, phone: bool) {
        let (command, params) = if phone {
            let metrics = json!({ "width": 390, "height": 844, "deviceScaleFactor": 2, "mobile": true });
            ("Emulation.setDeviceMetricsOverride", metrics)
        } else {
            ("Emulation.clearDeviceMetricsOverride", json!({}))
        };
        self.post("/goog/cdp/execute", &json!({ "cmd": command, "params": params }));
    }

    /// Shows the page as to someone who prefers dark colours, or light ones.
    pub fn prefer_dark(&self, dark: bool) {
        let scheme = if dark { "dark" } else { "light" };
        let features = json!({ "features": [{ "name": "prefers-color-scheme", "value": scheme }] });
        self.post("/goog/cdp/execute", &json!({ "cmd": "Emulation.setEmulatedMedia", "params": features }));
    }

    /// Keeps a picture of the page, for people to look at.
    pub fn screenshot(&self, name: &str) -> PathBuf {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/screenshots");
        fs::create_dir_all(&folder).expect("a folder");
        let path = folder.join(format!("{name}.png"));
        let shot = self.get("/screenshot");
        let png = STANDARD.decode(shot.as_str().expect("base64")).expect("base64");
        fs::write(&path, png).expect("a file");
        path
    }

    fn find(&self, selector: &str) -> String {
        let found = self.post("/element", &json!({ "using": "css selector", "value": selector }));
        let (_, element) = found.as_object().and_then(|object| object.iter().next()).expect("an element");
        element.as_str().expect("its id").to_owned()
    }

    fn get(&self, path: &str) -> Value {
        self.send("GET", &format!("/session/{}{path}", self.session), &Value::Null)
    }

    fn post(&self, path: &str, body: &Value) -> Value {
        self.send("POST", &format!("/session/{}{path}", self.session), body)
    }

    fn send(&self, method: &str, path: &str, body: &Value) -> Value {
        self.try_send(method, path, body).unwrap_or_else(|error| panic!("{method} {path}: {error}"))
    }

    fn try_send(&self, method: &str, path: &str, body: &Value) -> Result<Value, String> {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let answer = exchange(self.address, method, path, &body).map_err(|error| error.to_string())?;
        let mut answer: Value =
            serde_json::from_str(&answer).map_err(|error| format!("{error} in {answer:?}"))?;
        let value = answer["value"].take();
        match value.get("error").and_then(Value::as_str) {
            Some(error) => Err(format!("{error}: {}", value["message"])),
            None => Ok(value),
        }
    }

    /// Everything that descends from the driver: the processes of the browser.
    fn descendants(&self) -> Vec<u32> {
        let mut found = vec![self.driver.id()];
        let parents: Vec<(u32, u32)> = fs::read_dir("/proc")
            .into_iter()
            .flatten()
            .flatten()
            .filter_map(|entry| {
                let process = entry.file_name().to_str()?.parse().ok()?;
                let stat = fs::read_to_string(entry.path().join("stat")).ok()?;
                // `pid (name, which may hold anything) state ppid ...`
                let parent = stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()?;
                Some((process, parent))
            })
            .collect();
        let mut next = 0;
        while let Some(&parent) = found.get(next) {
            found.extend(parents.iter().filter(|(_, of)| *of == parent).map(|(process, _)| process));
            next += 1;
        }
        found.split_off(1)
    }
}

impl Browser {
    /// True while the process runs, and is no other one that was given its number meanwhile.
    fn is_ours(&self, process: u32) -> bool {
        let command = fs::read(format!("/proc/{process}/cmdline")).unwrap_or_default();
        let profile = self.profile.to_string_lossy();
        command.windows(profile.len()).any(|part| part == profile.as_bytes())
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        let descendants = self.descendants();
        if !self.session.is_empty() {
            let _ = self.try_send("DELETE", &format!("/session/{}", self.session), &Value::Null);
        }
        let _ = self.driver.kill();
        let _ = self.driver.wait();
        // The driver ends its browser; where it could not, this does.
        for _ in 0..100 {
            if !descendants.iter().any(|&process| self.is_ours(process)) {
                break;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        for process in descendants.into_iter().filter(|&process| self.is_ours(process)) {
            let _ = Command::new("kill").args(["-KILL", &process.to_string()]).status();
        }
        let _ = fs::remove_dir_all(&self.profile);
    }
}

/// One HTTP exchange on a connection of its own: also what can be done while a panic unwinds.
fn exchange(address: SocketAddr, method: &str, path: &str, body: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let length = body.len();
    write!(
        stream,
        "{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
    )?;
    let mut reader = BufReader::new(stream);
    let mut length = None;
    let mut line = String::new();
    while reader.read_line(&mut line)? > 2 {
        match line.split_once(':') {
            Some((name, value)) if name.eq_ignore_ascii_case("content-length") => {
                length = value.trim().parse().ok();
            }
            _ => {}
        }
        line.clear();
    }
    let mut body = Vec::new();
    reader.take(length.unwrap_or(u64::MAX)).read_to_end(&mut body)?;
    String::from_utf8(body).map_err(|_| std::io::ErrorKind::InvalidData.into())
}
