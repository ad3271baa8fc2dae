//! The connection memo: what it recalls, until when, and when it gives up.

use super::*;
use crate::crypto::{ServerToken, SystemRandom};
use crate::session::{EntryLifetime, Origin, Payload, Place, SessionId};

fn at(seconds: u64) -> Timestamp {
    Timestamp::from_unix(seconds)
}

fn record(origin: Origin) -> Record {
    Record::new(SessionId::from_bytes([7; 16]), at(0), at(20), Payload::default(), origin)
}

fn native() -> Record {
    record(Origin::native(false))
}

/// Returns a memo that keeps `token` from second 10 on.
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
    // If the clock goes back, the token may count as not yet valid. A deadline is exact.
    assert!(known(b"token", 9).is_none() && known(b"token", 20).is_none());
    for other in [&b"tokem"[..], b"toke", b"token ", b""] {
        assert!(known(other, 10).is_none(), "{other:?}");
    }
    memo.keep(b"another", &native(), at(10));
    assert!(known(b"token", 10).is_none() && known(b"another", 10).is_some());
    memo.forget();
    assert!(known(b"another", 10).is_none());
}

// Only tokens of this crate: a session of another store is still to be taken over. And a token in chunks is too long to keep.
// A session of a server-side store is kept, and the connection asks the store each time whether it still vouches for it.
#[test]
fn only_short_native_tokens_are_kept() {
    let token = ServerToken::generate(&SystemRandom, "s").unwrap();
    let stored = Origin::Stored {
        token,
        value: bytes::Bytes::new(),
        deadline: at(20),
        lifetime: EntryLifetime::NotDecoded,
    };
    for (origin, kept) in [
        (stored, true),
        (Origin::Elsewhere(Place::OldStore, native()), false),
        (Origin::Foreign { rewrite: false }, false),
    ] {
        let memo = Memo::default();
        memo.keep(b"token", &record(origin), at(10));
        assert_eq!(memo.recall(b"token", at(10)).is_some(), kept);
    }
    for (len, kept) in [(MAX_TOKEN, true), (MAX_TOKEN + 1, false)] {
        let token = vec![b't'; len];
        assert_eq!(keeping(&token).recall(&token, at(10)).is_some(), kept, "{len}");
    }
}

// A proxy's connection carries many users, so the memo stops, for good.
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

#[cfg(feature = "device-bound")]
#[test]
fn a_memo_that_gave_up_keeps_no_bound_cookie() {
    let memo = keeping(b"token");
    for _ in 0..MAX_MISSES {
        assert!(memo.bound_cookie().is_some());
        assert!(memo.recall(b"other", at(10)).is_none());
    }
    assert!(memo.bound_cookie().is_none());
}

// The entry is some user's session: it must not stay in memory for the life of the connection.
#[test]
fn giving_up_drops_the_entry() {
    let memo = keeping(b"token");
    for round in 1..=MAX_MISSES {
        assert!(memo.entry.lock().unwrap().is_some(), "before miss {round}");
        assert!(memo.recall(b"other", at(10)).is_none());
    }
    assert!(memo.entry.lock().unwrap().is_none());
    memo.keep(b"token", &native(), at(10));
    assert!(memo.entry.lock().unwrap().is_none(), "kept after giving up");
}
