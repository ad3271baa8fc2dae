//! Real Redis servers for tests: started on free ports of the loopback interface, stopped when they are dropped.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU16, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use hyper_session::Revocations;
use hyper_session::store::Builder;
use hyper_session::store::redis::{RedisOptions, RedisRevocations};

use crate::support::UNHURRIED;

/// Waits end with a failure after this time: it tells "never" from "not yet", however busy the machine is.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);

/// The same store with deadlines that it meets on a busy machine.
pub(crate) fn unhurried(builder: Builder<RedisOptions>) -> Builder<RedisOptions> {
    builder.connect_timeout(UNHURRIED).checkout_timeout(UNHURRIED).command_timeout(UNHURRIED)
}

/// The revocations under this prefix, with such deadlines.
pub(crate) fn unhurried_revocations(url: impl Into<String>, prefix: &str) -> RedisRevocations {
    Revocations::redis(url).prefix(prefix).connect_timeout(UNHURRIED).command_timeout(UNHURRIED)
}

/// One `redis-server`. Dropping it kills it and removes its folder.
pub(crate) struct Server {
    child: Option<Child>,
    pub(crate) port: u16,
    dir: PathBuf,
    args: Vec<String>,
}

impl Server {
    /// A server without persistence, on a free port.
    pub(crate) fn start() -> Self {
        Self::with(&[])
    }

    /// With these arguments beside, such as `--maxclients 5`.
    ///
    /// Starts again on another port if a foreign program took the port after it was found free.
    pub(crate) fn with(args: &[&str]) -> Self {
        let args: Vec<_> = args.iter().map(ToString::to_string).collect();
        for _ in 0..20 {
            let mut server =
                Self { child: None, port: free_port(), dir: scratch_folder(), args: args.clone() };
            server.run();
            if server.becomes_ready() {
                return server;
            }
            assert!(server.log().contains("Address already in use"), "redis-server ended:\n{}", server.log());
        }
        panic!("redis-server finds no free port");
    }

    /// Starts the process, and does not wait for it to listen.
    pub(crate) fn run(&mut self) {
        assert!(self.child.is_none(), "it runs already");
        let log = std::fs::File::create(self.dir.join("log")).unwrap();
        let mut command = Command::new(program());
        command
            .args(["--port", &self.port.to_string(), "--bind", "127.0.0.1"])
            .args(["--save", "", "--appendonly", "no", "--enable-debug-command", "local"])
            .args(&self.args)
            .current_dir(&self.dir)
            .stdout(log)
            .stderr(Stdio::null());
        self.child = Some(command.spawn().expect("redis-server is installed (./tests/run installs it)"));
    }

    /// Waits until it accepts connections. Fails if the process ends before.
    pub(crate) fn wait_until_ready(&mut self) {
        assert!(self.becomes_ready(), "redis-server ended:\n{}", self.log());
    }

    /// Waits until the process accepts connections, or has ended. Its log says which: another server could answer on the
    /// port.
    fn becomes_ready(&mut self) -> bool {
        let mut ended = false;
        wait_for("redis-server to accept connections or to end", || {
            ended = !matches!(self.child.as_mut().expect("the server runs").try_wait(), Ok(None));
            ended || self.log().contains("Ready to accept connections")
        });
        if ended {
            self.child = None;
        }
        !ended
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.dir.join("log")).unwrap_or_default()
    }

    pub(crate) fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.as_ref().expect("the server runs").id()
    }

    pub(crate) fn is_running(&self) -> bool {
        self.child.is_some()
    }

    /// Ends it as a crash would.
    pub(crate) fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// For the next start.
    pub(crate) fn add_args(&mut self, args: &[&str]) {
        self.args.extend(args.iter().map(ToString::to_string));
    }

    pub(crate) fn restart(&mut self) {
        self.kill();
        self.run();
        self.wait_until_ready();
    }

    /// Stops the process without ending it: connections stay open, nothing answers.
    pub(crate) fn freeze(&self) {
        signal(self.pid(), "STOP");
    }

    pub(crate) fn thaw(&self) {
        signal(self.pid(), "CONT");
    }

    /// Returns the output of redis-cli for a command, without the line end; nothing if the server cannot be reached.
    pub(crate) fn cli(&self, args: &[&str]) -> String {
        cli(self.port, args)
    }

    /// As this user.
    pub(crate) fn cli_as(&self, user: &str, password: &str, args: &[&str]) -> String {
        self.cli(&[&["--user", user, "--pass", password, "--no-auth-warning"], args].concat())
    }

    /// Waits until the server has this many entries. An entry that Valkey 8 removes is counted for a millisecond more.
    pub(crate) fn has_entries(&self, count: usize) {
        wait_for(&format!("{count} entries"), || self.cli(&["DBSIZE"]) == count.to_string());
    }

    /// How many clients are connected, without the client that asks.
    pub(crate) fn other_clients(&self) -> usize {
        let list = self.cli(&["CLIENT", "LIST", "TYPE", "normal"]);
        // The name of a client's last command differs from server to server.
        list.lines().filter(|line| line.contains("cmd=")).count().saturating_sub(1)
    }

    /// Returns true if the server's own `SET` compares and sets.
    pub(crate) fn compares_and_sets(&self) -> bool {
        self.cli(&["SET", "no-such-key", "x", "IFEQ", "y"]).is_empty()
    }

    pub(crate) fn knows(&self, command: &str) -> bool {
        !self.cli(&["COMMAND", "DOCS", command]).is_empty()
    }

    /// How often each command ran since the statistics were reset, beside those of redis-cli and of connecting.
    pub(crate) fn command_counts(&self) -> std::collections::BTreeMap<String, u64> {
        let stats = self.cli(&["INFO", "commandstats"]);
        let counts = stats.lines().filter_map(|line| {
            let (name, figures) = line.strip_prefix("cmdstat_")?.split_once(":calls=")?;
            Some((name.to_owned(), figures.split_once(',')?.0.parse().ok()?))
        });
        counts.filter(|(name, _): &(String, u64)| !name.starts_with("config") && name != "info").collect()
    }
}

/// The server under test: `redis-server`, or what `HYPER_SESSION_REDIS_SERVER` names. `tests/engines` sets it.
pub(crate) fn program() -> String {
    std::env::var("HYPER_SESSION_REDIS_SERVER").unwrap_or_else(|_| "redis-server".to_owned())
}

/// Returns true if the server under test was built with TLS. Without certificates it ends at once, and says why.
#[cfg(feature = "redis-tls")]
pub(crate) fn speaks_tls() -> bool {
    let output = Command::new(program()).args(["--port", "0", "--tls-port", "1"]).output().unwrap();
    String::from_utf8_lossy(&output.stdout).contains("Failed to configure TLS")
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(child) = &self.child {
            signal(child.id(), "CONT");
        }
        self.kill();
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

pub(crate) fn cli(port: u16, args: &[&str]) -> String {
    let output = Command::new("redis-cli")
        .args(["-h", "127.0.0.1", "-p", &port.to_string()])
        .args(args)
        .stderr(Stdio::null())
        .output()
        .expect("redis-cli is installed (./tests/run installs it)");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    if output.status.success() { text.trim_end().replace("\r\n", "\n") } else { String::new() }
}

pub(crate) fn signal(pid: u32, name: &str) {
    let status = Command::new("kill").args([&format!("-{name}"), &pid.to_string()]).status();
    assert!(status.is_ok(), "kill runs");
}

/// Stops the writes of a master, and waits until its replicas have all that it has confirmed. Writes that they lack are
/// lost with it.
pub(crate) fn stop_writes(master: u16, replicas: &[u16]) {
    assert_eq!(cli(master, &["CLIENT", "PAUSE", "100000", "WRITE"]), "OK");
    let offset = |port: u16, name: &str| {
        let info = cli(port, &["INFO", "replication"]);
        info.lines().find_map(|line| line.strip_prefix(name).map(str::to_owned))
    };
    wait_for("the replicas to have everything", || {
        let written = offset(master, "master_repl_offset:");
        written.is_some() && replicas.iter().all(|port| offset(*port, "slave_repl_offset:") == written)
    });
}

/// Polls until `done`; fails after [`PATIENCE`].
pub(crate) fn wait_for(what: &str, mut done: impl FnMut() -> bool) {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < PATIENCE, "waited too long for {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A port on which no server listens, and whose neighbour 10,000 above can be a cluster's bus.
///
/// Neither tests nor their processes meet, even while a server restarts and its port is free for a moment: each process has a thousand
/// ports, more than it asks for, and claims them by listening on the first one until it ends. All are below 32,768, where the system
/// takes the ports of outgoing connections from.
pub(crate) fn free_port() -> u16 {
    static CLAIM: OnceLock<(TcpListener, u16)> = OnceLock::new();
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let (_, base) = CLAIM.get_or_init(|| {
        let wanted = u16::try_from(std::process::id() % 10).unwrap();
        let mut bases = (0..10).map(|number| 10_000 + (wanted + number) % 10 * 1_000);
        let claim = |base| Some((TcpListener::bind(("127.0.0.1", base)).ok()?, base));
        bases.find_map(claim).expect("one of ten ranges of ports is free")
    });
    loop {
        let port = base + 1 + NEXT.fetch_add(1, Ordering::SeqCst) % 999;
        let free = |port| TcpListener::bind(("127.0.0.1", port)).is_ok();
        if TcpStream::connect(("127.0.0.1", port)).is_err() && free(port) && free(port + 10_000) {
            return port;
        }
    }
}

/// Starts a server that is not Redis. It answers each request as `answer` says, or closes the connection. Returns its port.
pub(crate) fn answering(answer: impl Fn(&str) -> Option<String> + Clone + Send + 'static) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for mut client in listener.incoming().flatten() {
            let answer = answer.clone();
            std::thread::spawn(move || {
                let mut request = [0; 4096];
                while let Ok(len @ 1..) = client.read(&mut request) {
                    let Some(reply) = answer(&String::from_utf8_lossy(&request[..len])) else { return };
                    let _ = client.write_all(reply.as_bytes());
                }
            });
        }
    });
    port
}

/// A reply of these strings.
pub(crate) fn array(strings: &[&str]) -> String {
    let bulks: Vec<_> = strings.iter().map(|text| format!("${}\r\n{text}\r\n", text.len())).collect();
    format!("*{}\r\n{}", strings.len(), bulks.concat())
}

fn scratch_folder() -> PathBuf {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let number = NEXT.fetch_add(1, Ordering::SeqCst);
    let dir = std::env::temp_dir().join(format!("hyper-session-{}-{number}", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    dir
}
