//! The last session cookie of a connection, so that one which comes again and again is not decrypted again and again.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};

use constant_time_eq::constant_time_eq;
use zeroize::Zeroizing;

use crate::clock::Timestamp;
use crate::session::Record;

/// Tokens that are spread over several cookies are not kept: a connection is to hold a few kilobytes at the most.
const MAX_TOKEN: usize = 4096;

/// After so many cookies in a row that were not the last one, a connection carries the requests of many users (a proxy's
/// does), and keeping the last one is in vain.
const MAX_MISSES: u32 = 16;

/// One entry: the token that was opened or sealed last, and the record in it.
///
/// Not a way around a check: the same bytes were authenticated on this very connection, under keys that a store never
/// changes, and the deadline in the record is looked at each time.
#[derive(Default)]
pub(super) struct Memo {
    entry: Mutex<Option<Entry>>,
    misses: AtomicU32,
}

struct Entry {
    token: Zeroizing<Vec<u8>>,
    record: Record,
    /// When it was opened or sealed. Before that, it may be from a future that is too far away to be believed.
    since: Timestamp,
}

impl Memo {
    /// The record in `token`, if that is the last one. In a time that does not tell how much of it is.
    pub(super) fn recall(&self, token: &[u8], now: Timestamp) -> Option<Record> {
        if self.gave_up() {
            return None;
        }
        // Another request of the same connection has it right now: opening is faster than waiting.
        let entry = self.entry.try_lock().ok()?;
        let recalled = entry.as_ref().filter(|entry| {
            constant_time_eq(&entry.token, token) && entry.since <= now && now < entry.record.expires()
        });
        if recalled.is_some() {
            self.misses.store(0, Ordering::Relaxed);
        } else {
            self.misses.fetch_add(1, Ordering::Relaxed);
        }
        recalled.map(|entry| entry.record.clone())
    }

    /// Takes the place of the entry.
    pub(super) fn keep(&self, token: &[u8], record: &Record, now: Timestamp) {
        if self.gave_up() || token.len() > MAX_TOKEN || !record.is_sealed() {
            return;
        }
        let Ok(mut entry) = self.entry.try_lock() else { return };
        // The buffer of the one before is used again.
        let mut buffer = entry.take().map(|entry| entry.token).unwrap_or_default();
        buffer.clear();
        buffer.extend_from_slice(token);
        *entry = Some(Entry { token: buffer, record: record.clone(), since: now });
    }

    /// Drops the entry: its session was ended.
    pub(super) fn forget(&self) {
        if let Ok(mut entry) = self.entry.try_lock() {
            *entry = None;
        }
    }

    fn gave_up(&self) -> bool {
        self.misses.load(Ordering::Relaxed) >= MAX_MISSES
    }
}

#[cfg(test)]
#[path = "memo_tests.rs"]
mod tests;
