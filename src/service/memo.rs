//! The connection memo: the last session cookie of a connection, so that it is not decrypted for each request.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};

use constant_time_eq::constant_time_eq;
use zeroize::Zeroizing;

use crate::clock::Timestamp;
#[cfg(feature = "device-bound")]
use crate::device_bound::BoundCookieMemo;
use crate::session::Record;

/// Tokens that are spread over several cookies are not kept, so that a connection holds only a few kilobytes.
const MAX_TOKEN: usize = 4096;

/// After this many different cookies in a row, the connection is assumed to carry the requests of many users, like that of
/// a proxy. Keeping the last cookie is then useless.
const MAX_MISSES: u32 = 16;

/// A memo of one entry: the token that was opened or sealed last, and its record.
///
/// It skips no check. The same bytes were authenticated on this connection, under keys that a store never changes, and the
/// deadline in the record is checked each time. Whether a session has ended meanwhile, the store is asked each time.
#[derive(Default)]
pub(super) struct Memo {
    entry: Mutex<Option<LastToken>>,
    misses: AtomicU32,
    #[cfg(feature = "device-bound")]
    bound_cookie: BoundCookieMemo,
}

struct LastToken {
    token: Zeroizing<Vec<u8>>,
    record: Record,
    /// When it was opened or sealed. Before that moment, it may count as issued in the future.
    since: Timestamp,
}

impl Memo {
    /// Returns the record in `token`, if it is the last token. The time of the comparison does not depend on how much of
    /// the token matches.
    pub(super) fn recall(&self, token: &[u8], now: Timestamp) -> Option<Record> {
        if self.gave_up() {
            return None;
        }
        // If another request of the same connection holds the lock, opening is faster than waiting.
        let mut entry = self.entry.try_lock().ok()?;
        let recalled = entry.as_ref().filter(|entry| {
            constant_time_eq(&entry.token, token) && entry.since <= now && now < entry.record.expires()
        });
        if let Some(entry) = recalled {
            self.misses.store(0, Ordering::Relaxed);
            return Some(entry.record.clone());
        }
        self.misses.fetch_add(1, Ordering::Relaxed);
        if self.gave_up() {
            // The entry is some user's session, and nothing will ask for it.
            *entry = None;
            #[cfg(feature = "device-bound")]
            self.bound_cookie.forget();
        }
        None
    }

    /// Returns the memo of the bound cookie, which belongs to the session.
    #[cfg(feature = "device-bound")]
    pub(super) fn bound_cookie(&self) -> Option<&BoundCookieMemo> {
        (!self.gave_up()).then_some(&self.bound_cookie)
    }

    /// Replaces the entry.
    pub(super) fn keep(&self, token: &[u8], record: &Record, now: Timestamp) {
        if token.len() > MAX_TOKEN || !record.is_of_native_token() {
            return;
        }
        let Ok(mut entry) = self.entry.try_lock() else { return };
        // Checked under the lock: a request that gives up at the same time has dropped the entry, or will drop it.
        if self.gave_up() {
            return;
        }
        // The buffer of the previous entry is reused.
        let mut buffer = entry.take().map(|entry| entry.token).unwrap_or_default();
        buffer.clear();
        buffer.extend_from_slice(token);
        *entry = Some(LastToken { token: buffer, record: record.clone(), since: now });
    }

    /// Drops the entry, because its session was ended.
    pub(super) fn forget(&self) {
        if let Ok(mut entry) = self.entry.try_lock() {
            *entry = None;
        }
        #[cfg(feature = "device-bound")]
        self.bound_cookie.forget();
    }

    fn gave_up(&self) -> bool {
        self.misses.load(Ordering::Relaxed) >= MAX_MISSES
    }
}

#[cfg(test)]
#[path = "memo_tests.rs"]
mod tests;
