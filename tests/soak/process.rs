//! The processes of a row, seen from the soak: started, ordered, paused, killed and measured.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use rustix::process::{Pid, Resource, Rlimit, prlimit};

use crate::host::{Configuration, PLACE, ROW, SITES};
use crate::rows::Row;
use crate::server::signal;

/// One process of a row. Dropping it ends it.
pub(crate) struct Process {
    child: Child,
    orders: ChildStdin,
    replies: BufReader<ChildStdout>,
    pub(crate) ports: Vec<u16>,
}

impl Process {
    /// Starts a process that serves each of the `sites` with its configuration.
    pub(crate) fn start(row: &Row, place: &str, sites: &[Configuration]) -> Self {
        let numbers: Vec<_> = sites.iter().map(|site| number(*site).to_string()).collect();
        let mut child = Command::new(std::env::current_exe().unwrap())
            .env(ROW, row.name)
            .env(PLACE, place)
            .env(SITES, numbers.join(","))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let orders = child.stdin.take().unwrap();
        let mut replies = BufReader::new(child.stdout.take().unwrap());
        let line = reply(&mut replies);
        let ports = line.split(',').map(|port| port.parse().unwrap()).collect();
        Self { child, orders, replies, ports }
    }

    pub(crate) fn set_clock(&mut self, site: usize, wrong_by: i64) {
        self.order(&format!("clock {site} {wrong_by}"));
    }

    pub(crate) fn deploy(&mut self, site: usize, configuration: Configuration) {
        self.order(&format!("deploy {site} {}", number(configuration)));
    }

    fn order(&mut self, order: &str) {
        writeln!(self.orders, "{order}").unwrap();
        assert_eq!(reply(&mut self.replies), "done", "{order}");
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn pause(&self) {
        signal(self.pid(), "STOP");
    }

    pub(crate) fn resume(&self) {
        signal(self.pid(), "CONT");
    }

    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Sets how long its files may grow, in bytes. `None`: no limit.
    pub(crate) fn limit_files(&self, bytes: Option<u64>) {
        let pid = Pid::from_raw(self.pid().try_into().unwrap());
        prlimit(pid, Resource::Fsize, Rlimit { current: bytes, maximum: None }).unwrap();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn number(configuration: Configuration) -> usize {
    Configuration::ALL.iter().position(|known| *known == configuration).unwrap()
}

fn reply(replies: &mut BufReader<ChildStdout>) -> String {
    let mut line = String::new();
    assert!(replies.read_line(&mut line).unwrap() > 0, "the process has ended");
    line.trim_end().to_owned()
}

/// The resident memory of a process in kB, and how many descriptors it has open.
pub(crate) fn measure(pid: u32) -> (u64, u64) {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS")).unwrap();
    let memory = line.split_whitespace().nth(1).unwrap().parse().unwrap();
    (memory, std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count() as u64)
}
