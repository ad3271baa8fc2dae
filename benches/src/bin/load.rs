//! Loads each arm over loopback sockets, the server on one core and this generator on another, each between two runs of the
//! bare service. Prints one JSON object a line.
//!
//! `load [--quick] [h1|h2]`; pin it to a core (`taskset -c 1`), servers pin themselves to core 0.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use hyper_session_benches::client::{Client, Protocol};
use hyper_session_benches::results::Load;
use hyper_session_benches::services::{Action, MEMO, WITH_HEAD};

const ARMS: [&str; 8] = [
    "bare",
    WITH_HEAD,
    "hyper-session",
    "hyper-session-fn",
    MEMO,
    "tower-sessions-memory",
    "tower-sessions-cookie-store",
    "seshcookie",
];

/// A server process, and a connected client for each action.
struct Arm {
    name: &'static str,
    server: Child,
    actions: Vec<(Action, Client)>,
}

struct Window {
    per_second: f64,
    /// Microseconds for one request.
    server_cpu: f64,
    generator: f64,
}

/// A window, and its two ratios to those of the bare service before and after it.
struct Round {
    window: Window,
    ratio: f64,
    cpu_ratio: f64,
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let quick = arguments.iter().any(|argument| argument == "--quick");
    let names = if cfg!(feature = "peers") && !quick { &ARMS[..] } else { &ARMS[..5] };
    for (name, protocol) in [("h1", Protocol::Http1), ("h2", Protocol::Http2)] {
        if arguments.iter().any(|argument| argument.starts_with('h') && argument != name) {
            continue;
        }
        let arms = names.iter().map(|arm| Arm::start(arm, name, protocol)).collect();
        run(name, arms, if quick { (1, 0.2) } else { (5, 0.6) });
    }
}

fn run(protocol: &str, mut arms: Vec<Arm>, (rounds, seconds): (usize, f64)) {
    let duration = Duration::from_secs_f64(seconds);
    let mut results: Vec<Vec<Vec<Round>>> =
        arms.iter().map(|arm| arm.actions.iter().map(|_| Vec::new()).collect()).collect();
    for arm in &mut arms {
        for action in 0..arm.actions.len() {
            arm.window(action, duration / 4); // warm
        }
    }
    let mut bare_all = Vec::new();
    for _ in 0..rounds {
        let mut before = arms[0].window(0, duration);
        for place in 1..arms.len() {
            for action in 0..arms[place].actions.len() {
                let window = arms[place].window(action, duration);
                let bare = arms[0].window(0, duration);
                let ratio = window.per_second * 2.0 / (before.per_second + bare.per_second);
                let cpu_ratio = (before.server_cpu + bare.server_cpu) / 2.0 / window.server_cpu;
                results[place][action].push(Round { window, ratio, cpu_ratio });
                bare_all.push(Round {
                    window: std::mem::replace(&mut before, bare),
                    ratio: 1.0,
                    cpu_ratio: 1.0,
                });
            }
        }
    }
    results[0][0] = bare_all;
    // Half of what the bare service can do, and no arm is overloaded unless it costs more than hyper itself.
    let rate = median(results[0][0].iter().map(|round| round.window.per_second)) / 2.0;
    for (arm, results) in arms.iter_mut().zip(results) {
        for ((action, client), windows) in arm.actions.iter_mut().zip(results) {
            let mut latencies: Vec<u64> = (0..rounds).flat_map(|_| client.pace(rate, duration)).collect();
            latencies.sort_unstable();
            let percentile = |share: f64| {
                latencies
                    .get((latencies.len() as f64 * share) as usize)
                    .map_or(f64::NAN, |&ns| ns as f64 / 1e3)
            };
            let load = Load {
                protocol: protocol.to_owned(),
                arm: arm.name.to_owned(),
                action: format!("{action:?}").to_lowercase(),
                ratios: windows.iter().map(|round| round.ratio).collect(),
                cpu_ratios: windows.iter().map(|round| round.cpu_ratio).collect(),
                per_second: median(windows.iter().map(|round| round.window.per_second)),
                server_cpu: median(windows.iter().map(|round| round.window.server_cpu)),
                generator: median(windows.iter().map(|round| round.window.generator)),
                rate,
                latency: [percentile(0.5), percentile(0.99), percentile(0.999)],
            };
            println!("{}", serde_json::to_string(&load).unwrap());
        }
    }
}

impl Arm {
    fn start(name: &'static str, protocol_name: &str, protocol: Protocol) -> Self {
        let server = std::env::current_exe().unwrap().with_file_name("server");
        let mut server = Command::new("taskset")
            .args(["-c", "0"])
            .arg(server)
            .args([name, protocol_name])
            .stdout(Stdio::piped())
            .spawn()
            .expect("taskset and the server");
        let mut line = String::new();
        BufReader::new(server.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let [port, kept, changed] = line.split_whitespace().collect::<Vec<_>>()[..] else {
            panic!("a port and two cookies");
        };
        let address = ([127, 0, 0, 1], port.parse().unwrap()).into();
        // The bare service gets a cookie to ignore that is as long as the others.
        let ignored = format!("__Host-session={}", "A".repeat(487));
        let actions: &[Action] = match name {
            "bare" => &[Action::Untouched],
            WITH_HEAD => &[Action::Change],
            _ => &[Action::Untouched, Action::Read, Action::Change],
        };
        let actions = actions.iter().map(|&action| {
            let changes = action == Action::Change;
            let cookie = match (name, action) {
                ("bare" | WITH_HEAD, _) => &ignored,
                (_, Action::Change) => changed,
                _ => kept,
            };
            (action, Client::connect(address, protocol, action.path(), cookie, changes))
        });
        Self { name, actions: actions.collect(), server }
    }

    fn window(&mut self, action: usize, duration: Duration) -> Window {
        let pid = self.server.id();
        let (server, own, start) = (cpu(pid), cpu(std::process::id()), Instant::now());
        let answered = self.actions[action].1.saturate(duration);
        let elapsed = start.elapsed();
        assert!(answered > 0, "{}: no answer", self.name);
        Window {
            per_second: answered as f64 / duration.as_secs_f64(),
            server_cpu: (cpu(pid) - server).as_secs_f64() * 1e6 / answered as f64,
            generator: (cpu(std::process::id()) - own).as_secs_f64() / elapsed.as_secs_f64(),
        }
    }
}

impl Drop for Arm {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

/// The processor time of a process with one thread.
fn cpu(pid: u32) -> Duration {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/schedstat")).unwrap();
    Duration::from_nanos(stat.split(' ').next().unwrap().parse().unwrap())
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
