//! The checks of `connect()`: whether the user may run the commands of the store, how the server compares and sets, and its
//! time.

use bb8_redis::redis::{Value, cmd};
use bytes::Bytes;

use super::backend::Redis;
use super::commands::{expire, get};
use super::compare_and_set::{Removal, Way};
use super::dialer::text;
use super::fault::{CONNECTION_LOST, Failure, a_replica};
use crate::clock::{Clock, Timestamp};
use crate::crypto::{Random, SystemRandom};
use crate::error::Error;
use crate::id::EntryId;
use crate::store::{Backend, Replaced, Stored};

/// So many random ids find a node that has but a hundredth of the slots.
const ATTEMPTS: u32 = 2_000;

impl Redis {
    /// Finds out how the server compares and sets, and writes, renews, reads and deletes a test entry. A missing
    /// permission, or a URL that leads to a replica, thus shows now and not at the first login.
    ///
    /// `clock` is that of the store. It is read when it is needed: connecting may have taken seconds.
    pub(super) async fn check(&self, scripts_only: bool, clock: &dyn Clock) -> Result<(), Error> {
        let id = self.unused_id()?;
        let key = self.key(id);
        if self.scripts.framing.has_deadline {
            self.measure_clock(&key, clock).await;
            if !scripts_only {
                self.set_way(self.best_way(&key).await);
            }
        }
        let lived = self.live(id, clock.now()).await;
        // Also after a failure. An entry that cannot be deleted expires after seconds.
        match self.delete(id).await.and(lived) {
            Ok(()) => Ok(()),
            Err(error) => Err(self.explained(error, &key).await),
        }
    }

    /// Returns the id of no entry, on a server that a connection leads to. A node of a Cluster that is down when a process
    /// starts affects its own sessions only.
    fn unused_id(&self) -> Result<EntryId, Error> {
        let mut bytes = [0; 16];
        for _ in 0..ATTEMPTS {
            SystemRandom.fill(&mut bytes)?;
            if self.transport.is_connected(&self.key(EntryId::from_bytes(bytes))) {
                break;
            }
        }
        Ok(EntryId::from_bytes(bytes))
    }

    async fn live(&self, id: EntryId, now: Timestamp) -> Result<(), Error> {
        let entry = |value: &'static [u8], seconds| Stored {
            value: Bytes::from_static(value),
            expires: now.saturating_add(std::time::Duration::from_secs(seconds)),
        };
        self.create(id, entry(b"1", 5), now).await?;
        self.exchange(id, entry(b"1", 5), Some(entry(b"2", 5)), now).await?;
        let renewed = self.exchange(id, entry(b"2", 5), Some(entry(b"2", 10)), now).await?;
        if self.way() != Way::Scripts {
            // Only a renewal while memory is full needs it. Of the scripts, each renewal does.
            let key = self.key(id);
            let expired = self.send(&key, &expire(&key, b"10000"), &self.limits()).await;
            expired.map_err(|trouble| self.failed(trouble))?;
        }
        let found = self.fetch(id, now).await?;
        if renewed != Replaced::Done || found.is_none_or(|found| found.value != entry(b"2", 10).value) {
            return Err(Failure::Lost("an entry was not found again as it was written").into());
        }
        Ok(())
    }

    /// Finds out what the server supports, on a key that does not exist.
    async fn best_way(&self, key: &str) -> Way {
        let mut set = cmd("SET");
        set.arg(key).arg("").arg("IFEQ").arg("none").arg("GET").arg("PX").arg(1);
        if !matches!(self.send(key, &set, &self.limits()).await, Ok(Value::Nil)) {
            return Way::Scripts;
        }
        let mut del_if_eq = cmd("DELIFEQ");
        del_if_eq.arg(key).arg("none");
        if matches!(self.send(key, &del_if_eq, &self.limits()).await, Ok(Value::Int(0))) {
            return Way::CompareAndSet(Removal::DelIfEq);
        }
        let mut del_ex = cmd("DELEX");
        del_ex.arg(key).arg("IFEQ").arg("none");
        if matches!(self.send(key, &del_ex, &self.limits()).await, Ok(Value::Int(0))) {
            return Way::CompareAndSet(Removal::DelEx);
        }
        Way::CompareAndSet(Removal::Overwrite)
    }

    /// Measures by how much the server's clock is ahead. A user that may not ask for the time relies on the host's
    /// clock.
    async fn measure_clock(&self, key: &str, clock: &dyn Clock) {
        let host = || i64::try_from(clock.now().as_unix()).ok();
        let before = host();
        let Ok(Value::Array(parts)) = self.send(key, &cmd("TIME"), &self.limits()).await else { return };
        let server = parts.first().and_then(text).and_then(|seconds| seconds.parse::<i64>().ok());
        let (Some(before), Some(server), Some(after)) = (before, server, host()) else { return };
        self.set_ahead(difference(server, before, after));
    }

    /// Turns a refusal that lasts until the set-up is changed into a configuration error.
    async fn explained(&self, error: Error, key: &str) -> Error {
        let failure = std::error::Error::source(&error).and_then(|source| source.downcast_ref::<Failure>());
        let Some(failure) = failure else { return error };
        let needs = match self.way() {
            Way::Scripts => {
                "the store needs GET, DEL, EVALSHA and EVAL, and in scripts SET, SETRANGE and PEXPIRE, on keys that begin \
                 with its prefix"
            }
            Way::CompareAndSet(_) => {
                "the store needs GET, SET, PEXPIRE and DEL on keys that begin with its prefix"
            }
        };
        match failure {
            _ if failure.is_lasting() => Error::config(format!("{failure}, but {needs}")),
            Failure::Setup(message) => Error::config(message.clone()),
            _ if failure.is_of_a_replica() => a_replica().into(),
            // A proxy that does not support scripts closes the connection, but passes on other commands.
            Failure::Lost(what) if *what == CONNECTION_LOST && self.way() == Way::Scripts => {
                match self.send(key, &get(key), &self.limits()).await {
                    Ok(Value::Nil) => Error::config(format!(
                        "the server, or a proxy before it, answers GET and closes the connection at EVALSHA, but {needs}: \
                         use a server or a proxy that allows scripts, or one that knows SET with IFEQ"
                    )),
                    _ => error,
                }
            }
            _ => error,
        }
    }
}

/// Returns by how many seconds the server's clock is ahead, which showed `server` at some time between two readings of the host's
/// clock. Zero if both may have shown the same time then: the reply may be late, or this process may have been stopped.
fn difference(server: i64, before: i64, after: i64) -> i64 {
    // All count in whole seconds.
    if server > after.saturating_add(1) {
        server.saturating_sub(after)
    } else if server < before.saturating_sub(1) {
        server.saturating_sub(before)
    } else {
        0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clocks_differ_if_no_moment_of_the_question_has_the_time_of_the_server() {
        for (server, expected) in
            [(97, -3), (98, -2), (99, 0), (100, 0), (105, 0), (111, 0), (112, 2), (113, 3)]
        {
            assert_eq!(difference(server, 100, 110), expected, "{server}");
        }
        assert_eq!([98, 99, 101, 102].map(|server| difference(server, 100, 100)), [-2, 0, 0, 2]);
    }
}
