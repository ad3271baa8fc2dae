//! The commands that need no script, built with one allocation.

use bb8_redis::redis::Cmd;

use super::scripts::Frame;

pub(super) fn set(key: &str, frame: &Frame) -> Cmd {
    let mut set = Cmd::with_capacity(8, key.len() + 2 * frame.len() + 48);
    set.arg("SET").arg(key).arg(frame);
    set
}

pub(super) fn get(key: &str) -> Cmd {
    let mut get = Cmd::with_capacity(2, 3 + key.len());
    get.arg("GET").arg(key);
    get
}

/// Sets the time to live, in milliseconds.
pub(super) fn expire(key: &str, lifetime: &[u8]) -> Cmd {
    let mut expire = Cmd::with_capacity(3, key.len() + 32);
    expire.arg("PEXPIRE").arg(key).arg(lifetime);
    expire
}
