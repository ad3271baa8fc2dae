//! How the browser of each engine is started, spoken to and ended.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use serde_json::{Value, json};

use crate::Server;
use crate::marionette::Marionette;
use crate::webdriver::WebDriver;

/// A browser engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Engine {
    /// Chromium, headless, through chromedriver.
    Chromium,
    /// The same, and it binds sessions to keys. They are in software, because the machine may have no hardware for them.
    ChromiumWithKeys,
    /// Firefox ESR, headless, through Marionette.
    Firefox,
    /// WebKitGTK's MiniBrowser under Xvfb, through WebKitWebDriver.
    WebKit,
}

impl Engine {
    /// All engines.
    pub const ALL: [Self; 3] = [Self::Chromium, Self::Firefox, Self::WebKit];
}

/// Both are needed where there is no hardware for keys.
const DEVICE_KEYS: &str =
    "--enable-features=DeviceBoundSessions,EnableBoundSessionCredentialsSoftwareKeysForManualTesting";

/// The file in the profile in which a browser with keys logs what its network stack does.
pub(crate) const NET_LOG: &str = "net-log.json";

/// A browser that runs, and the way to speak to it.
pub(crate) struct Launched {
    /// From the last one that was started to the first.
    processes: Vec<Child>,
    profile: PathBuf,
    /// Another browser is to use the profile.
    keeps_profile: bool,
    link: Option<Link>,
}

enum Link {
    Driver(WebDriver),
    Firefox(Marionette),
}

impl Launched {
    /// Starts a browser with an empty profile that trusts the server's certificate.
    pub(crate) fn start(engine: Engine, server: &Server) -> Self {
        Self::start_in(Self::empty_profile(), engine, server)
    }

    /// Ends the browser as its user does, and returns its profile.
    pub(crate) fn close(mut self) -> PathBuf {
        self.keeps_profile = true;
        self.profile.clone()
    }

    /// Returns a folder of its own.
    fn empty_profile() -> PathBuf {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let profile =
            std::env::temp_dir().join(format!("hyper-session-browser-{}-{number}", std::process::id()));
        fs::create_dir(&profile).expect("an empty profile");
        profile
    }

    /// Starts a browser with this profile.
    pub(crate) fn start_in(profile: PathBuf, engine: Engine, server: &Server) -> Self {
        let mut launched = Self { processes: Vec::new(), profile, keeps_profile: false, link: None };
        let link = match engine {
            Engine::Chromium => launched.chromium(server, &[]),
            Engine::ChromiumWithKeys => {
                let log = format!("--log-net-log={}", launched.profile.join(NET_LOG).display());
                launched.chromium(server, &[DEVICE_KEYS, &log])
            }
            Engine::Firefox => launched.firefox(),
            Engine::WebKit => launched.webkit(),
        };
        launched.link = Some(link);
        launched
    }

    pub(crate) fn command(&self, name: &str, params: Value) -> Result<Value, String> {
        match self.link.as_ref().expect("it was started") {
            Link::Driver(driver) => driver.command(name, &params),
            Link::Firefox(firefox) => firefox.command(name, &params),
        }
    }

    /// Trusts the server's key, and does not merely overlook that the certificate is invalid: what comes with an invalid
    /// certificate is never cached, and the back button would have nothing to show in any case.
    fn chromium(&mut self, server: &Server, flags: &[&str]) -> Link {
        let mut driver = spawn(Command::new("chromedriver").arg("--port=0").stdout(Stdio::piped()));
        let output = BufReader::new(driver.stdout.take().expect("it is piped"));
        self.processes.push(driver);
        let started =
            |line: String| line.split_once("started successfully on port ").map(|(_, port)| port.to_owned());
        let port = output.lines().map_while(Result::ok).find_map(started).expect("the driver tells its port");
        let port: u16 = port.trim_end_matches('.').parse().expect("a number");
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
            &format!("--user-data-dir={}", self.profile.display()),
        ];
        let arguments: Vec<&str> = arguments.into_iter().chain(flags.iter().copied()).collect();
        let capabilities = json!({ "goog:chromeOptions": { "args": arguments } });
        Link::Driver(WebDriver::connect(local(port), &capabilities).expect("a session with Chromium"))
    }

    fn firefox(&mut self) -> Link {
        // Port 0 is any free port. Firefox writes its number into the profile.
        let preferences = "user_pref(\"marionette.port\", 0);\n\
                           user_pref(\"datareporting.policy.dataSubmissionEnabled\", false);\n\
                           user_pref(\"toolkit.telemetry.enabled\", false);\n\
                           user_pref(\"app.normandy.enabled\", false);\n\
                           user_pref(\"network.captive-portal-service.enabled\", false);\n\
                           user_pref(\"network.connectivity-service.enabled\", false);\n\
                           user_pref(\"services.settings.server\", \"data:,#remote-settings-dummy/v1\");\n\
                           user_pref(\"browser.safebrowsing.downloads.enabled\", false);\n\
                           user_pref(\"extensions.update.enabled\", false);\n\
                           user_pref(\"app.update.enabled\", false);\n";
        fs::write(self.profile.join("user.js"), preferences).expect("preferences");
        let firefox = spawn(
            Command::new("firefox-esr")
                .args([
                    "--headless",
                    "--marionette",
                    "--no-remote",
                    "--remote-allow-system-access",
                    "--profile",
                ])
                .arg(&self.profile)
                .env("HOME", &self.profile)
                .stdout(Stdio::null()),
        );
        self.processes.push(firefox);
        let port = wait_for(|| {
            let port = fs::read_to_string(self.profile.join("MarionetteActivePort")).ok()?;
            port.trim().parse::<u16>().ok()
        });
        Link::Firefox(Marionette::connect(local(port)).expect("a session with Firefox"))
    }

    fn webkit(&mut self) -> Link {
        // WebKitGTK has no headless mode: Xvfb takes a free display and tells which.
        let mut screen = spawn(
            Command::new("Xvfb")
                .args(["-displayfd", "1", "-screen", "0", "1280x800x24", "-nolisten", "tcp"])
                .stdout(Stdio::piped()),
        );
        let mut display = String::new();
        BufReader::new(screen.stdout.take().expect("it is piped"))
            .read_line(&mut display)
            .expect("a display");
        self.processes.insert(0, screen);
        let binary = minibrowser().expect("WebKitGTK's MiniBrowser is installed (./tests/run does that)");
        let capabilities = json!({
            "acceptInsecureCerts": true,
            "browserName": "MiniBrowser",
            "webkitgtk:browserOptions": { "binary": binary, "args": ["--automation"] },
        });
        // The driver takes no port of its own choice: where another program was faster, the next one is tried.
        for _ in 0..20 {
            let free =
                TcpListener::bind(local(0)).and_then(|listener| listener.local_addr()).expect("a port");
            let mut driver = spawn(
                Command::new("WebKitWebDriver")
                    .arg(format!("--port={}", free.port()))
                    .env("DISPLAY", format!(":{}", display.trim()))
                    .env("HOME", &self.profile)
                    .env("XDG_DATA_HOME", &self.profile)
                    .env("XDG_CACHE_HOME", &self.profile)
                    .env("WEBKIT_DISABLE_SANDBOX_THIS_IS_DANGEROUS", "1")
                    .stdout(Stdio::null()),
            );
            let up = wait_for(|| match driver.try_wait() {
                Ok(None) => std::net::TcpStream::connect(free).ok().map(|_| true),
                _ => Some(false),
            });
            self.processes.insert(0, driver);
            if up {
                return Link::Driver(WebDriver::connect(free, &capabilities).expect("a session with WebKit"));
            }
        }
        panic!("WebKitWebDriver finds no port");
    }

    /// Every process that has this profile among its arguments or its environment: those of the browser.
    fn of_profile(&self) -> Vec<u32> {
        let profile = self.profile.to_string_lossy().into_owned();
        let names_it = |path: PathBuf| {
            let mut text = Vec::new();
            let read = fs::File::open(path).and_then(|mut file| file.read_to_end(&mut text));
            read.is_ok() && text.windows(profile.len()).any(|part| part == profile.as_bytes())
        };
        fs::read_dir("/proc")
            .into_iter()
            .flatten()
            .flatten()
            .filter(|entry| names_it(entry.path().join("cmdline")) || names_it(entry.path().join("environ")))
            .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
            .filter(|process| *process != std::process::id())
            .collect()
    }
}

impl Drop for Launched {
    fn drop(&mut self) {
        match &self.link {
            Some(Link::Driver(driver)) => driver.quit(),
            Some(Link::Firefox(firefox)) => drop(firefox.command("Marionette:Quit", &json!({}))),
            None => {}
        }
        for process in &mut self.processes {
            let _ = process.kill();
            let _ = process.wait();
        }
        // A driver ends its browser; where it could not, this does.
        for process in self.of_profile() {
            let _ = Command::new("kill").args(["-KILL", &process.to_string()]).status();
        }
        if !self.keeps_profile {
            let _ = fs::remove_dir_all(&self.profile);
        }
    }
}

fn spawn(command: &mut Command) -> Child {
    let program = command.get_program().to_string_lossy().into_owned();
    let started = command.stderr(Stdio::null()).spawn();
    started.unwrap_or_else(|error| panic!("{program}: {error}; ./tests/run installs it"))
}

fn local(port: u16) -> SocketAddr {
    ([127, 0, 0, 1], port).into()
}

/// Debian keeps it in a folder of the library's version.
fn minibrowser() -> Option<PathBuf> {
    let libraries = Path::new("/usr/lib").read_dir().ok()?.flatten().map(|entry| entry.path());
    libraries
        .filter_map(|folder| folder.read_dir().ok())
        .flat_map(|folder| folder.flatten().map(|entry| entry.path().join("MiniBrowser")))
        .find(|path| path.is_file())
}

/// Waits until there is something; the limit only tells "late" from "never".
fn wait_for<T>(mut what: impl FnMut() -> Option<T>) -> T {
    for _ in 0..2_400 {
        if let Some(there) = what() {
            return there;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    panic!("it does not start");
}
