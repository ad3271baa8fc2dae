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
mod tests {
    use super::*;
    use crate::crypto::{SystemRandom, Token};
    use crate::session::{Origin, Payload, SessionId};

    fn at(seconds: u64) -> Timestamp {
        Timestamp::from_unix(seconds)
    }

    fn record(origin: Origin) -> Record {
        Record::new(SessionId::from_bytes([7; 16]), at(0), at(20), Payload::default(), origin)
    }

    fn native() -> Record {
        record(Origin::native(false))
    }

    /// A memo that keeps `token` from second 10 on.
    fn keeping(token: &[u8]) -> Memo {
        let memo = Memo::default();
        memo.keep(token, &native(), at(10));
        memo
    }

    #[test]
    fn the_last_token_is_known_while_its_session_lasts() {
        let memo = keeping(b"token");
        let known = |token: &[u8], now| memo.recall(token, at(now)).map(|record| record.id());
        assert_eq!(known(b"token", 10), Some(native().id()));
        assert!(known(b"token", 19).is_some());
        // A clock that goes back may make it one that is not valid yet; a deadline is a deadline.
        assert!(known(b"token", 9).is_none() && known(b"token", 20).is_none());
        for other in [&b"tokem"[..], b"toke", b"token ", b""] {
            assert!(known(other, 10).is_none(), "{other:?}");
        }
        memo.keep(b"another", &native(), at(10));
        assert!(known(b"token", 10).is_none() && known(b"another", 10).is_some());
        memo.forget();
        assert!(known(b"another", 10).is_none());
    }

    // What a server-side store holds can end at any time: it is asked each time. And a token in chunks is too long to keep.
    #[test]
    fn only_short_sealed_tokens_are_kept() {
        let token = Token::generate(&SystemRandom).unwrap();
        let memo = Memo::default();
        memo.keep(b"token", &record(Origin::Stored { token, value: bytes::Bytes::new() }), at(10));
        assert!(memo.recall(b"token", at(10)).is_none());
        for (len, kept) in [(MAX_TOKEN, true), (MAX_TOKEN + 1, false)] {
            let token = vec![b't'; len];
            assert_eq!(keeping(&token).recall(&token, at(10)).is_some(), kept, "{len}");
        }
    }

    // A proxy's connection carries many users: the memo stops to look, for good.
    #[test]
    fn it_gives_up_after_misses_in_a_row() {
        let memo = keeping(b"token");
        for round in 0..2 {
            for _ in 1..MAX_MISSES {
                assert!(memo.recall(b"other", at(10)).is_none());
            }
            assert!(memo.recall(b"token", at(10)).is_some(), "round {round}: one hit starts the count again");
        }
        for _ in 0..MAX_MISSES {
            assert!(memo.recall(b"other", at(10)).is_none());
        }
        assert!(memo.recall(b"token", at(10)).is_none());
        memo.keep(b"token", &native(), at(10));
        assert!(memo.recall(b"token", at(10)).is_none());
    }
}
