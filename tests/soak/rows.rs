//! The stores of the soak, one a row, with the faults of the field that each can meet.

use std::time::Duration;

use crate::faults::Fault;
use crate::host::Configuration;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Sessions in cookies, with revocations in the places that follow.
    CookieMemory,
    CookieSqlite,
    CookieRedis,
    Memory,
    Sqlite,
    Redis {
        near_cache: bool,
        check_list: bool,
    },
}

impl Kind {
    pub(crate) fn is_cookie(self) -> bool {
        matches!(self, Self::CookieMemory | Self::CookieSqlite | Self::CookieRedis)
    }

    /// How many processes share the sessions. In the memory of one process, two sites do.
    pub(crate) fn processes(self) -> usize {
        if matches!(self, Self::CookieMemory | Self::Memory) { 1 } else { 2 }
    }
}

pub(crate) struct Row {
    pub(crate) name: &'static str,
    pub(crate) kind: Kind,
    /// Where Redis has them: behind Sentinel, or in one server.
    pub(crate) sentinel: bool,
    /// How long an ended session may still be accepted.
    pub(crate) bound: Duration,
    pub(crate) faults: &'static [&'static [Fault]],
}

const EVERY_STORE: &[Fault] = &[
    Fault::Deployment(Configuration::OtherKey),
    Fault::Deployment(Configuration::ShorterTimeouts),
    Fault::Deployment(Configuration::Json),
    Fault::Deployment(Configuration::FewerChunks),
    Fault::Deployment(Configuration::Usual),
    Fault::ClockStep,
];
const PROCESSES: &[Fault] = &[Fault::PausedProcess, Fault::KilledProcess];
const FILE: &[Fault] = &[Fault::LockedFile, Fault::FullDisk];
const LINES: &[Fault] = &[
    Fault::FrozenServer,
    Fault::DeadLines,
    Fault::CutLines,
    Fault::ResetLines,
    Fault::SlowLines,
    Fault::FullMemory,
    Fault::RestartedServer,
];
const FAIL_OVER: &[Fault] = &[Fault::FailOver];

const ONE_PROCESS: &[&[Fault]] = &[EVERY_STORE];
const IN_A_FILE: &[&[Fault]] = &[EVERY_STORE, PROCESSES, FILE];
const IN_REDIS: &[&[Fault]] = &[EVERY_STORE, PROCESSES, LINES];
const BEHIND_SENTINEL: &[&[Fault]] = &[EVERY_STORE, PROCESSES, FAIL_OVER];

/// The bound of revocations. More than the default of a second, so that a busy machine keeps it.
const REVOKED: Duration = Duration::from_secs(5);
/// The default bound of the near-cache. A busy machine that misses it reads from Redis.
const NEAR: Duration = Duration::from_millis(100);

const fn row(name: &'static str, kind: Kind, bound: Duration, faults: &'static [&'static [Fault]]) -> Row {
    Row { name, kind, sentinel: false, bound, faults }
}

const fn behind_sentinel(name: &'static str, kind: Kind, bound: Duration) -> Row {
    Row { sentinel: true, ..row(name, kind, bound, BEHIND_SENTINEL) }
}

const fn redis(near_cache: bool, check_list: bool) -> Kind {
    Kind::Redis { near_cache, check_list }
}

pub(crate) static ROWS: [Row; 11] = [
    row("cookie-memory", Kind::CookieMemory, Duration::ZERO, ONE_PROCESS),
    row("cookie-sqlite", Kind::CookieSqlite, REVOKED, IN_A_FILE),
    row("cookie-redis", Kind::CookieRedis, REVOKED, IN_REDIS),
    behind_sentinel("cookie-sentinel", Kind::CookieRedis, REVOKED),
    row("memory", Kind::Memory, Duration::ZERO, ONE_PROCESS),
    row("sqlite", Kind::Sqlite, Duration::ZERO, IN_A_FILE),
    row("redis", redis(false, false), Duration::ZERO, IN_REDIS),
    row("redis-list", redis(false, true), Duration::ZERO, IN_REDIS),
    row("redis-near-cache", redis(true, false), NEAR, IN_REDIS),
    row("redis-near-cache-list", redis(true, true), NEAR, IN_REDIS),
    behind_sentinel("redis-sentinel", redis(true, false), NEAR),
];

impl Row {
    pub(crate) fn named(name: &str) -> &'static Self {
        let found = ROWS.iter().find(|row| row.name == name);
        found.unwrap_or_else(|| panic!("no such store: {name}"))
    }

    pub(crate) fn faults(&self) -> Vec<Fault> {
        self.faults.concat()
    }
}
