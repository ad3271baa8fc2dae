//! A master with two replicas under three sentinels.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use crate::server::{Server, cli, free_port, program, stop_writes, wait_for};

pub(crate) struct Deployment {
    pub(crate) servers: Vec<Server>,
    /// Each with the port on which it is asked here, and the port for the store.
    pub(crate) sentinels: Vec<(Child, u16, u16)>,
    dir: PathBuf,
    /// Of the sentinels.
    password: String,
}

impl Deployment {
    pub(crate) fn start() -> Self {
        Self::with_sentinels(&[])
    }

    /// With more lines in the configuration of each sentinel.
    pub(crate) fn with_sentinels(lines: &[&str]) -> Self {
        Self::with(lines, &[], None)
    }

    /// With sentinels that are reached over TLS, by these lines of configuration; `everywhere` the servers, too, and then
    /// they reach each other only over TLS.
    #[cfg(feature = "redis-tls")]
    pub(crate) fn with_tls(lines: &[&str], everywhere: bool) -> Self {
        let replication = [lines, &["tls-replication yes"]].concat();
        if everywhere {
            Self::with(&replication, &replication, Some(free_port()))
        } else {
            Self::with(lines, &[], None)
        }
    }

    fn with(lines: &[&str], server_lines: &[&str], tls_port: Option<u16>) -> Self {
        let password = lines.iter().find_map(|line| line.strip_prefix("requirepass ")).unwrap_or_default();
        let common = server_lines.iter().flat_map(|line| {
            let (name, value) = line.split_once(' ').unwrap();
            [format!("--{name}"), value.to_owned()]
        });
        let common: Vec<_> = common.chain(["--repl-diskless-sync-delay", "0"].map(str::to_owned)).collect();
        let server = |own: &[&str], tls_port: Option<u16>| {
            let tls_port =
                tls_port.map_or(Vec::new(), |port| vec!["--tls-port".to_owned(), port.to_string()]);
            let all = common.iter().chain(&tls_port).map(String::as_str).chain(own.iter().copied());
            Server::with(&all.collect::<Vec<_>>())
        };
        let master = server(&[], tls_port);
        let master_port = tls_port.unwrap_or(master.port);
        let replica =
            || server(&["--replicaof", "127.0.0.1", &master_port.to_string()], tls_port.map(|_| free_port()));
        let servers = vec![replica(), replica(), master];
        wait_for("the replicas to follow", || {
            let info = cli(servers[2].port, &["INFO", "replication"]);
            info.matches("state=online").count() == 2
        });
        let dir = servers[2].dir().join("sentinels");
        std::fs::create_dir_all(&dir).unwrap();
        let sentinels: Vec<_> = (0..3).map(|number| sentinel(&dir, number, master_port, lines)).collect();
        let deployment = Self { servers, sentinels, dir, password: password.to_owned() };
        wait_for("the sentinels to know each other and the replicas", || {
            deployment.sentinels.iter().all(|(_, port, _)| {
                let master = deployment.ask(*port, &["SENTINEL", "MASTER", "mymaster"]);
                let fields: Vec<_> = master.lines().collect();
                let field =
                    |name| fields.iter().position(|f| *f == name).and_then(|at| fields.get(at + 1).copied());
                field("num-other-sentinels") == Some("2") && field("num-slaves") == Some("2")
            })
        });
        deployment
    }

    pub(crate) fn servers(&self) -> &[Server] {
        &self.servers
    }

    pub(crate) fn url(&self) -> String {
        let hosts: Vec<_> = self.sentinels.iter().map(|(_, _, port)| format!("127.0.0.1:{port}")).collect();
        format!("redis+sentinel://{}/mymaster", hosts.join(","))
    }

    pub(crate) fn master_port(&self) -> Option<u16> {
        let (_, port, _) = self.sentinels.first()?;
        self.ask(*port, &["SENTINEL", "GET-MASTER-ADDR-BY-NAME", "mymaster"]).lines().nth(1)?.parse().ok()
    }

    pub(crate) fn ask(&self, port: u16, question: &[&str]) -> String {
        let login = ["-a", &self.password, "--no-auth-warning"];
        cli(port, &[if self.password.is_empty() { &[][..] } else { &login[..] }, question].concat())
    }

    pub(crate) fn fail_over(&self) {
        wait_for("the failover to be accepted", || {
            cli(self.sentinels[0].1, &["SENTINEL", "FAILOVER", "mymaster"]) == "OK"
        });
    }

    /// Stops the writes, and waits until the replicas have all that was confirmed.
    pub(crate) fn stop_writes(&self) {
        let master = self.master_port().unwrap();
        let ports = self.servers.iter().map(|server| server.port);
        stop_writes(master, &ports.filter(|port| *port != master).collect::<Vec<_>>());
    }

    /// Kills the master, and waits for a new master. Only meanwhile the sentinels replace a master that does not answer for half a
    /// second: none is replaced because a busy machine does not let it run.
    pub(crate) fn replace_master(&mut self) {
        let killed = self.master_port().unwrap();
        self.take_for_down_after("500");
        self.servers.iter_mut().find(|server| server.port == killed).unwrap().kill();
        wait_for("a new master", || self.master_port().is_some_and(|port| port != killed));
        self.take_for_down_after("60000");
    }

    fn take_for_down_after(&self, millis: &str) {
        for (_, sentinel, _) in &self.sentinels {
            let order = ["SENTINEL", "SET", "mymaster", "down-after-milliseconds", millis];
            assert_eq!(self.ask(*sentinel, &order), "OK");
        }
    }
}

fn sentinel(dir: &std::path::Path, number: u16, master: u16, lines: &[&str]) -> (Child, u16, u16) {
    let port = free_port();
    let uses_tls = lines.iter().any(|line| line.starts_with("tls-"));
    let port_for_store = if uses_tls { free_port() } else { port };
    let file = dir.join(format!("sentinel-{number}.conf"));
    let config = format!(
        "port {port}\nbind 127.0.0.1\nsentinel monitor mymaster 127.0.0.1 {master} 2\n\
         sentinel down-after-milliseconds mymaster 60000\nsentinel failover-timeout mymaster 3000\n{}\n{}\n{}\n",
        if uses_tls { format!("tls-port {port_for_store}") } else { String::new() },
        lines.join("\n"),
        // Among themselves they use the same one.
        lines
            .iter()
            .find_map(|line| line.strip_prefix("requirepass "))
            .map_or(String::new(), |password| format!("sentinel sentinel-pass {password}")),
    );
    std::fs::write(&file, config).unwrap();
    let mut command = Command::new(program());
    command.arg(&file).arg("--sentinel").current_dir(dir).stdout(Stdio::null()).stderr(Stdio::null());
    (command.spawn().unwrap(), port, port_for_store)
}

impl Drop for Deployment {
    fn drop(&mut self) {
        for (sentinel, _, _) in &mut self.sentinels {
            let _ = sentinel.kill();
            let _ = sentinel.wait();
        }
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}
