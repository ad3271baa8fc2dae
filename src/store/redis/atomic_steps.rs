//! Creating, replacing and deleting an entry in one step: by the server's own compare-and-set, or by scripts.
//!
//! The server's own way needs no right to run scripts and costs it a third of the time. It compares whole entries,
//! deadline included: if a renewal has moved the deadline, the step is tried again with the new one.

use bb8_redis::redis::{Cmd, Value};
use bytes::Bytes;

use super::backend::Redis;
use super::commands::{expire, get, set};
use super::compare_and_set::{Removal, Way};
use super::fault::{Failure, Trouble, is_out_of_memory, unexpected};
use super::limits::Limits;
use super::scripts::{Call, DEADLINE_LEN, Frame, unframe};
use crate::store::{Replaced, Stored};

/// A renewal of another request can move the deadline between two attempts. This many in a row are not expected.
const MAX_ATTEMPTS: u32 = 32;

impl Redis {
    /// Runs a script by its hash, or sends the whole script if the server does not have it.
    pub(super) async fn run(&self, call: &Call<'_>, limits: &Limits) -> Result<Value, Trouble> {
        match self.send(call.key, &call.by_hash(), limits).await {
            Err(Trouble::Reply(error)) if error.code() == Some("NOSCRIPT") => {
                Box::pin(self.send(call.key, &call.whole(), limits)).await
            }
            answered => answered,
        }
    }

    /// Stores `frame` if there is no entry. Returns true if this frame is there now.
    pub(super) async fn create_frame(
        &self,
        way: Way,
        key: &str,
        frame: &Frame,
        lifetime: Bytes,
        limits: &Limits,
    ) -> Result<bool, Trouble> {
        if way == Way::Scripts {
            let call = self.scripts.create(key, frame.clone(), lifetime);
            return match self.run(&call, limits).await? {
                Value::Int(answer @ (0 | 1)) => Ok(answer == 1),
                _ => Err(unexpected().into()),
            };
        }
        let mut set = set(key, frame);
        set.arg("NX").arg("GET").arg("PX").arg(&*lifetime);
        match self.send(key, &set, limits).await? {
            Value::Nil => Ok(true),
            Value::BulkString(present) => Ok(frame.is(&present)),
            _ => Err(unexpected().into()),
        }
    }

    /// Replaces an entry that has the value `seen` by `new`. Returns `None` if it has done so, and otherwise the entry that is there,
    /// or nil.
    pub(super) async fn replace_frame(
        &self,
        way: Way,
        key: &str,
        seen: &Stored,
        new: &Stored,
        lifetime: &Bytes,
        limits: &Limits,
    ) -> Result<Option<Value>, Trouble> {
        let frame = self.scripts.frame(new);
        if way == Way::Scripts {
            let renewal = if seen.value == new.value {
                self.scripts.renew(key, seen.value.clone(), new.expires, lifetime.clone())
            } else {
                None
            };
            let call = match renewal {
                Some(call) => call,
                None => self.scripts.replace(key, seen.value.clone(), frame, lifetime.clone()),
            };
            return self.run(&call, limits).await.map(Some);
        }
        let mut expected = self.scripts.frame(seen);
        for _ in 0..MAX_ATTEMPTS {
            let mut set = set(key, &frame);
            set.arg("IFEQ").arg(&expected).arg("PX").arg(&**lifetime);
            // Without GET, the reply to a write that succeeds is short. A write that fails costs another round trip.
            match self.send(key, &set, limits).await? {
                Value::Okay => return Ok(None),
                Value::Nil => {}
                _ => return Err(unexpected().into()),
            }
            let present = match Box::pin(self.send(key, &get(key), limits)).await? {
                Value::BulkString(present) => present,
                answer => return Ok(Some(answer)),
            };
            let value = present.get(DEADLINE_LEN..);
            // The first attempt wrote it, and its reply was lost.
            if frame.is(&present) || value == Some(&*new.value) && seen.value != new.value {
                return Ok(None);
            }
            if value != Some(&*seen.value) {
                return Ok(Some(Value::BulkString(present)));
            }
            expected.set_deadline_of(&present);
        }
        Err(Failure::Lost("the entry was renewed at each attempt").into())
    }

    /// Deletes an entry that has the value `seen`. Returns what [`replace_frame`](Self::replace_frame) returns.
    pub(super) async fn remove_frame(
        &self,
        way: Way,
        key: &str,
        seen: &Stored,
        limits: &Limits,
    ) -> Result<Option<Value>, Trouble> {
        let Way::CompareAndSet(removal) = way else {
            return self.run(&self.scripts.remove(key, seen.value.clone()), limits).await.map(Some);
        };
        let mut expected = self.scripts.frame(seen);
        for _ in 0..MAX_ATTEMPTS {
            let mut command = Cmd::with_capacity(8, key.len() + expected.len() + 32);
            match removal {
                Removal::DelIfEq => command.arg("DELIFEQ").arg(key).arg(&expected),
                Removal::DelEx => command.arg("DELEX").arg(key).arg("IFEQ").arg(&expected),
                Removal::Overwrite => {
                    command.arg("SET").arg(key).arg("").arg("IFEQ").arg(&expected).arg("GET").arg("PX").arg(1)
                }
            };
            let present = match self.send(key, &command, limits).await {
                // A server without memory for a write still runs a script that deletes, if the user may.
                Err(Trouble::Reply(error)) if is_out_of_memory(&error) => {
                    let removed = self.run(&self.scripts.remove(key, seen.value.clone()), limits).await;
                    return removed.map(Some).map_err(|_| Trouble::Reply(error));
                }
                answer => answer?,
            };
            let present = match present {
                Value::Int(1) => return Ok(None),
                Value::Int(0) => match Box::pin(self.send(key, &get(key), limits)).await? {
                    Value::BulkString(present) => present,
                    answer => return Ok(Some(answer)),
                },
                Value::BulkString(present) if expected.is(&present) => return Ok(None),
                // The first attempt left this, and its reply was lost.
                Value::BulkString(present) if present.is_empty() && limits.repetition.is_noted() => {
                    return Ok(None);
                }
                Value::BulkString(present) => present,
                answer => return Ok(Some(answer)),
            };
            if present.get(DEADLINE_LEN..) != Some(&*seen.value) {
                return Ok(Some(Value::BulkString(present)));
            }
            expected.set_deadline_of(&present);
        }
        Err(Failure::Lost("the entry was renewed at each attempt").into())
    }

    /// Moves the time to live of an entry that has the value `expected`, but not the copy in front of the value. A
    /// server without memory for a write allows nothing else.
    pub(super) async fn extend(
        &self,
        key: &str,
        expected: &Bytes,
        lifetime: &Bytes,
        limits: &Limits,
    ) -> Result<Replaced, Trouble> {
        let Value::BulkString(present) = self.send(key, &get(key), limits).await? else {
            return Ok(Replaced::Missing);
        };
        let Some(present) = unframe(present) else { return Ok(Replaced::Missing) };
        if present.value != *expected {
            return Ok(Replaced::Conflict(present));
        }
        match self.send(key, &expire(key, lifetime), limits).await? {
            Value::Int(1) => Ok(Replaced::Done),
            _ => Ok(Replaced::Missing),
        }
    }
}
