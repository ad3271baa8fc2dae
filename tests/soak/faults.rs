//! The faults of the field, and where the sessions of a row are while they happen.

use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use hyper_session::testing::Relay;
use rusqlite::Connection;

use crate::client::Shared;
use crate::deployment::Deployment;
use crate::dice::Dice;
use crate::folder::Folder;
use crate::host::Configuration;
use crate::process::Process;
use crate::rows::{Kind, Row};
use crate::server::{Server, cli, wait_for};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// A site is deployed with this configuration, while the other site goes on with its own.
    Deployment(Configuration),
    /// The clock of a site is set, up to 20 seconds beside the right time.
    ClockStep,
    /// A process does not run for a while.
    PausedProcess,
    /// A process ends at once, and is started again.
    KilledProcess,
    /// Another program holds a lock of the file.
    LockedFile,
    /// No file may grow.
    FullDisk,
    /// The Redis server does not run for a while.
    FrozenServer,
    /// Open connections to Redis are dead: they no longer carry anything.
    DeadLines,
    /// One request to Redis in ten is cut.
    CutLines,
    /// All connections to Redis are reset, for a while.
    ResetLines,
    /// Each byte takes longer, up to 150 ms in each direction.
    SlowLines,
    /// The memory of Redis is full.
    FullMemory,
    /// Redis crashes, and comes back with its data.
    RestartedServer,
    /// The master crashes after its replicas have received all, and one of them takes over.
    FailOver,
}

impl Fault {
    /// Returns true if some requests fail, however well the store copes.
    fn fails_requests(self) -> bool {
        matches!(
            self,
            Self::KilledProcess | Self::LockedFile | Self::FullDisk | Self::FullMemory | Self::ResetLines
        )
    }
}

/// Where the sessions of a row are.
enum Place {
    InTheProcess,
    File(Folder),
    /// With a relay for each process.
    Redis {
        server: Box<Server>,
        relays: Vec<Relay>,
    },
    Sentinel(Deployment),
}

impl Place {
    fn of(row: &Row) -> Self {
        match row.kind {
            Kind::CookieMemory | Kind::Memory => Self::InTheProcess,
            Kind::CookieSqlite | Kind::Sqlite => Self::File(Folder::new()),
            Kind::CookieRedis | Kind::Redis { .. } if row.sentinel => Self::Sentinel(Deployment::start()),
            Kind::CookieRedis | Kind::Redis { .. } => {
                let server = Server::with(&["--appendonly", "yes", "--appendfsync", "no"]);
                let relay = || Relay::before(("127.0.0.1", server.port)).unwrap();
                let relays = vec![relay(), relay()];
                Self::Redis { server: Box::new(server), relays }
            }
        }
    }

    /// The path or the URL for the process of this number.
    fn for_process(&self, number: usize) -> String {
        match self {
            Self::InTheProcess => String::new(),
            Self::File(folder) => folder.file().to_str().unwrap().to_owned(),
            Self::Redis { relays, .. } => format!("redis://{}", relays[number].address()),
            Self::Sentinel(deployment) => deployment.url(),
        }
    }

    fn file(&self) -> PathBuf {
        let Self::File(folder) = self else { panic!("no file") };
        folder.file()
    }

    fn redis(&mut self) -> (&mut Server, &[Relay]) {
        let Self::Redis { server, relays } = self else { panic!("no Redis of its own") };
        (server, relays)
    }
}

/// The processes of a row, and the place of their sessions.
pub(crate) struct TestBed {
    row: &'static Row,
    place: Place,
    processes: Vec<Process>,
    /// The configurations of the two sites.
    deployed: [Configuration; 2],
    dice: Dice,
}

impl TestBed {
    pub(crate) fn start(row: &'static Row, shared: &Shared) -> Self {
        let place = Place::of(row);
        let deployed = [Configuration::Usual; 2];
        let sites = 2 / row.kind.processes();
        let processes: Vec<_> = (0..row.kind.processes())
            .map(|number| Process::start(row, &place.for_process(number), &deployed[..sites]))
            .collect();
        let seed =
            row.name.bytes().fold(7, |seed: u64, byte| seed.wrapping_mul(31).wrapping_add(byte.into()));
        let bed = Self { row, place, processes, deployed, dice: Dice(seed) };
        bed.publish(shared);
        bed
    }

    /// Tells the clients where the sites are.
    fn publish(&self, shared: &Shared) {
        let ports = self.processes.iter().flat_map(|process| &process.ports);
        for (known, port) in shared.ports.iter().zip(ports) {
            known.store(*port, Ordering::SeqCst);
        }
        shared.connections.fetch_add(1, Ordering::SeqCst);
    }

    /// The process that lives as long as the row.
    pub(crate) fn oldest(&self) -> u32 {
        self.processes[0].pid()
    }

    fn roll(&mut self, sides: usize) -> usize {
        usize::try_from(self.dice.roll(sides as u64)).unwrap()
    }

    /// The faults of the row, in another order each time.
    pub(crate) fn round(&mut self) -> Vec<Fault> {
        let mut faults = self.row.faults();
        for place in (1..faults.len()).rev() {
            let other = self.roll(place + 1);
            faults.swap(place, other);
        }
        faults
    }

    /// The process of a site, and the number of the site in it.
    fn process(&mut self, site: usize) -> (&mut Process, usize) {
        if self.processes.len() == 1 {
            (&mut self.processes[0], site)
        } else {
            (&mut self.processes[site], 0)
        }
    }

    /// Brings a fault about, waits until it has shown, and ends it.
    pub(crate) fn suffer(&mut self, fault: Fault, shared: &Shared) {
        let before = shared.failures();
        let site = self.roll(2);
        let shown = |at_least: Duration| {
            let start = Instant::now();
            wait_for("the fault to show", || {
                let enough = !fault.fails_requests() || shared.failures() > before;
                enough && start.elapsed() >= at_least
            });
        };
        let a_while = Duration::from_millis(500 + self.dice.roll(2_000));
        match fault {
            Fault::Deployment(configuration) => {
                self.deployed[site] = configuration;
                let (process, number) = self.process(site);
                process.deploy(number, configuration);
                shared.connections.fetch_add(1, Ordering::SeqCst);
            }
            Fault::ClockStep => {
                let wrong_by = i64::try_from(self.roll(41)).unwrap() - 20;
                let (process, number) = self.process(site);
                process.set_clock(number, wrong_by);
            }
            Fault::PausedProcess => {
                let (process, _) = self.process(site);
                process.pause();
                shown(a_while);
                process.resume();
            }
            Fault::KilledProcess => {
                self.processes[1].kill();
                shown(a_while);
                self.processes[1] = Process::start(self.row, &self.place.for_process(1), &self.deployed[1..]);
                self.publish(shared);
            }
            Fault::LockedFile => {
                let other = Connection::open(self.place.file()).unwrap();
                other.busy_timeout(Duration::from_secs(60)).unwrap();
                other.execute_batch("BEGIN IMMEDIATE").unwrap();
                shown(a_while);
                other.execute_batch("ROLLBACK").unwrap();
            }
            Fault::FullDisk => {
                self.processes.iter().for_each(|process| process.limit_files(Some(4_096)));
                shown(a_while);
                self.processes.iter().for_each(|process| process.limit_files(None));
            }
            Fault::FrozenServer => {
                let (server, _) = self.place.redis();
                server.freeze();
                shown(a_while);
                server.thaw();
            }
            Fault::FullMemory => {
                let (server, _) = self.place.redis();
                assert_eq!(server.cli(&["CONFIG", "SET", "maxmemory", "1"]), "OK");
                shown(a_while);
                assert_eq!(server.cli(&["CONFIG", "SET", "maxmemory", "0"]), "OK");
            }
            Fault::RestartedServer => {
                let (server, _) = self.place.redis();
                server.kill();
                shown(a_while);
                server.run();
                server.wait_until_ready();
            }
            Fault::DeadLines | Fault::CutLines | Fault::ResetLines | Fault::SlowLines => {
                // The lines of one process, or of both.
                let both = self.dice.roll(3) == 0;
                let latency = Duration::from_millis([2, 10, 40, 150][self.roll(4)]);
                let (_, relays) = self.place.redis();
                let relays = if both { relays } else { &relays[site..=site] };
                let set = |wrong: bool| {
                    for relay in relays {
                        match fault {
                            Fault::DeadLines if wrong => relay.silence_open_connections(),
                            Fault::CutLines => relay.cut_one_in(if wrong { 10 } else { 0 }),
                            Fault::ResetLines => relay.set_resets(wrong),
                            Fault::SlowLines if wrong => relay.set_latency(latency),
                            Fault::SlowLines => relay.set_latency(Duration::ZERO),
                            _ => {}
                        }
                    }
                };
                set(true);
                shown(a_while);
                set(false);
            }
            Fault::FailOver => {
                let Place::Sentinel(deployment) = &mut self.place else { panic!("no sentinel") };
                let old = {
                    let _no_step_under_way = shared.gate.blocking_write();
                    kill_master(deployment)
                };
                fail_over(deployment, old);
            }
        }
    }

    /// Entries of sessions that are alive, in the one Redis server of a row that does not seal them. `None` for other rows.
    pub(crate) fn sessions_in_redis(&self) -> Option<usize> {
        let (Place::Redis { server, .. }, Kind::Redis { near_cache: false, .. }) =
            (&self.place, self.row.kind)
        else {
            return None;
        };
        // A deadline of eight bytes comes before the value, whose first byte is its kind.
        let script = "local live = 0 for _, key in ipairs(redis.call('KEYS', 'soak:*')) do \
             if redis.call('GETRANGE', key, 8, 8) == '\\1' and redis.call('PTTL', key) > 900000 then live = live + 1 end \
             end return live";
        Some(server.cli(&["EVAL", script, "0"]).parse().unwrap())
    }
}

/// Kills the master once its replicas have all that it has acknowledged: Redis loses what it has not replicated by then, as
/// documented. Returns its port.
fn kill_master(deployment: &mut Deployment) -> u16 {
    let port = deployment.master_port().unwrap();
    wait_for("the replicas to have everything", || {
        let info = cli(port, &["INFO", "replication"]);
        let after = |line: &str, name: &str| {
            let (_, value) = line.split_once(name)?;
            Some(value.split(',').next()?.trim().to_owned())
        };
        let own = info.lines().find_map(|line| after(line, "master_repl_offset:"));
        let theirs: Vec<_> = info.lines().filter_map(|line| after(line, ",offset=")).collect();
        theirs.len() == 2 && theirs.into_iter().all(|offset| Some(offset) == own)
    });
    deployment.servers.iter_mut().find(|server| server.port == port).unwrap().kill();
    port
}

/// Has a replica take over, and the master that was killed follow it.
fn fail_over(deployment: &mut Deployment, killed: u16) {
    deployment.fail_over();
    let mut master = killed;
    wait_for("a new master", || {
        master = deployment.master_port().unwrap_or(killed);
        master != killed
    });
    let server = deployment.servers.iter_mut().find(|server| server.port == killed).unwrap();
    server.add_args(&["--replicaof", "127.0.0.1", &master.to_string()]);
    server.run();
    server.wait_until_ready();
    wait_for("both others to follow", || {
        cli(master, &["INFO", "replication"]).matches("state=online").count() == 2
    });
}
