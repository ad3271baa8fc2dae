//! A browser as a person uses it: pages, fields, buttons, tabs, and the cookies that it keeps.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::Server;
use crate::engine::{Engine, Launched, NET_LOG};

/// A running browser with an empty profile. It ends when this is dropped.
pub struct Browser {
    launched: Launched,
}

/// A cookie as the browser keeps it.
#[derive(Clone, Debug, PartialEq)]
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
    /// Starts Chromium.
    pub fn start(server: &Server) -> Self {
        Self::launch(Engine::Chromium, server)
    }

    /// Starts the browser of this engine.
    pub fn launch(engine: Engine, server: &Server) -> Self {
        Self { launched: Launched::start(engine, server) }
    }

    /// Closes the browser and starts it again with the same profile.
    pub fn restart(self, engine: Engine, server: &Server) -> Self {
        let profile = self.launched.close();
        Self { launched: Launched::start_in(profile, engine, server) }
    }

    /// Closes a browser with keys, and returns its network log about bindings: the name of each event, and its parameters.
    pub fn close(self) -> Vec<(String, Value)> {
        let profile = self.launched.close();
        let log = fs::read_to_string(profile.join(NET_LOG)).expect("a network log");
        let _ = fs::remove_dir_all(profile);
        // The first line has the numbers of events, and each event has a line.
        let mut lines = log.lines();
        let constants = lines.next().and_then(|line| line.strip_suffix(',')).expect("constants");
        let constants: Value = serde_json::from_str(&format!("{constants}}}")).expect("an object");
        let types = constants["constants"]["logEventTypes"].as_object().expect("the types of events");
        let named = |line: &str| {
            let event: Value = serde_json::from_str(line.trim_end_matches(',')).ok()?;
            let (name, _) = types.iter().find(|(_, number)| **number == event["type"])?;
            name.starts_with("DBSC_").then(|| (name.clone(), event["params"].clone()))
        };
        lines.filter_map(named).collect()
    }

    /// Removes a cookie, as a browser does when it has expired.
    pub fn remove_cookie(&self, name: &str, url: &str) {
        let cookie = json!({ "name": name, "url": url });
        self.command("chromium:Cdp", json!({ "cmd": "Network.deleteCookies", "params": cookie }));
    }

    /// Lets a cookie expire in `seconds`.
    pub fn age_cookie(&self, cookie: &Cookie, url: &str, seconds: u64) {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970");
        let cookie = json!({
            "name": cookie.name,
            "value": cookie.value,
            "url": url,
            "path": cookie.path,
            "secure": cookie.secure,
            "httpOnly": cookie.http_only,
            "sameSite": cookie.same_site,
            "expires": now.as_secs() + seconds,
        });
        self.command("chromium:Cdp", json!({ "cmd": "Network.setCookie", "params": cookie }));
    }

    pub fn open(&self, url: &str) {
        self.command("WebDriver:Navigate", json!({ "url": url }));
    }

    pub fn reload(&self) {
        self.command("WebDriver:Refresh", json!({}));
    }

    pub fn back(&self) {
        self.command("WebDriver:Back", json!({}));
    }

    /// The text that a person sees.
    pub fn text(&self) -> String {
        let body = self.find("body");
        self.command("WebDriver:GetElementText", json!({ "id": body })).as_str().expect("text").to_owned()
    }

    /// Waits until a person sees `text`: a click may return before the page that it leads to is there.
    pub fn wait_for(&self, text: &str) {
        for _ in 0..2_400 {
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
        self.command("WebDriver:ElementSendKeys", json!({ "id": field, "text": text }));
    }

    pub fn click(&self, selector: &str) {
        let element = self.find(selector);
        self.command("WebDriver:ElementClick", json!({ "id": element }));
    }

    /// Runs a script in the page, and returns its result.
    pub fn run(&self, script: &str) -> Value {
        self.command("WebDriver:ExecuteScript", json!({ "script": script, "args": [] }))
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
        let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("a time after 1970").as_secs();
        self.command("WebDriver:GetCookies", json!({}))
            .as_array()
            .expect("a list")
            .iter()
            .map(cookie)
            // Firefox may list a line that expired a cookie, for as long as it runs.
            .filter(|cookie| cookie.expiry.is_none_or(|expiry| expiry > now))
            .collect()
    }

    /// Puts a cookie of the page's host into the browser, as a person with developer tools can.
    pub fn put_back(&self, cookie: &Cookie) {
        // Without a domain: it then belongs to the host only, as `__Host-` asks for.
        let cookie = json!({
            "name": cookie.name, "value": cookie.value, "path": cookie.path, "secure": cookie.secure,
            "httpOnly": cookie.http_only, "sameSite": cookie.same_site, "expiry": cookie.expiry,
        });
        self.command("WebDriver:AddCookie", json!({ "cookie": cookie }));
    }

    /// Deletes all cookies that the browser would send to this page.
    pub fn forget_cookies(&self) {
        self.command("WebDriver:DeleteAllCookies", json!({}));
        assert_eq!(self.cookies(), []);
    }

    /// The tab that is looked at.
    pub fn tab(&self) -> String {
        self.command("WebDriver:GetWindowHandle", json!({})).as_str().expect("a handle").to_owned()
    }

    /// Opens another tab, and looks at it.
    pub fn new_tab(&self) -> String {
        let opened = self.command("WebDriver:NewWindow", json!({ "type": "tab" }));
        let tab = opened["handle"].as_str().expect("a handle").to_owned();
        self.switch_to(&tab);
        tab
    }

    pub fn switch_to(&self, tab: &str) {
        self.command("WebDriver:SwitchToWindow", json!({ "handle": tab }));
    }

    /// Shows the page as on a phone, or, again, as on a desk.
    pub fn pretend_phone(&self, phone: bool) {
        let (command, params) = if phone {
            let metrics = json!({ "width": 390, "height": 844, "deviceScaleFactor": 2, "mobile": true });
            ("Emulation.setDeviceMetricsOverride", metrics)
        } else {
            ("Emulation.clearDeviceMetricsOverride", json!({}))
        };
        self.command("chromium:Cdp", json!({ "cmd": command, "params": params }));
    }

    /// Forbids pages to run scripts, as their policy can, or allows it again.
    pub fn forbid_scripts(&self, forbids: bool) {
        let params = json!({ "value": forbids });
        self.command(
            "chromium:Cdp",
            json!({ "cmd": "Emulation.setScriptExecutionDisabled", "params": params }),
        );
    }

    /// Shows the page as to someone who prefers dark colours, or light ones.
    pub fn prefer_dark(&self, dark: bool) {
        let scheme = if dark { "dark" } else { "light" };
        let features = json!({ "features": [{ "name": "prefers-color-scheme", "value": scheme }] });
        self.command("chromium:Cdp", json!({ "cmd": "Emulation.setEmulatedMedia", "params": features }));
    }

    /// Keeps a picture of the page, for people to look at.
    pub fn screenshot(&self, name: &str) -> PathBuf {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/screenshots");
        fs::create_dir_all(&folder).expect("a folder");
        let path = folder.join(format!("{name}.png"));
        let shot = self.command("WebDriver:TakeScreenshot", json!({ "full": false }));
        let png = STANDARD.decode(shot.as_str().expect("base64")).expect("base64");
        fs::write(&path, png).expect("a file");
        path
    }

    fn find(&self, selector: &str) -> String {
        let found =
            self.command("WebDriver:FindElement", json!({ "using": "css selector", "value": selector }));
        let (_, element) = found.as_object().and_then(|object| object.iter().next()).expect("an element");
        element.as_str().expect("its id").to_owned()
    }

    fn command(&self, name: &str, params: Value) -> Value {
        self.launched.command(name, params).unwrap_or_else(|error| panic!("{name}: {error}"))
    }
}
