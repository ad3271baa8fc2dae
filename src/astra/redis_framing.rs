//! Astra's entries in Redis: only the value under its key, whose deadline is Redis' own time to live.

use std::time::Duration;

use bb8_redis::redis::Value;
use bytes::Bytes;

use crate::clock::Timestamp;
use crate::store::Stored;
use crate::store::redis::{Framing, Redis};

// KEYS[1] is the entry. Arguments and replies are those of the scripts for framed entries, except that an entry is
// returned with its time to live. An entry that is there already counts as success, as in those scripts: no two writes
// have the same value.

/// Returns the entry, if there is one.
const FETCH: &str = "\
local old = redis.call('GET', KEYS[1])
if not old then return false end
return {old, redis.call('PTTL', KEYS[1])}";

const CREATE: &str = "\
local old = redis.call('GET', KEYS[1])
if old then return old == ARGV[1] and 1 or 0 end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 1";

const REPLACE: &str = "\
local old = redis.call('GET', KEYS[1])
if not old then return 0 end
if old ~= ARGV[1] then
  if ARGV[2] == '' or old ~= ARGV[2] then return {old, redis.call('PTTL', KEYS[1])} end
elseif ARGV[2] == '' then
  redis.call('DEL', KEYS[1])
else
  redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
end
return 1";

const RENEW: &str = "\
local old = redis.call('GET', KEYS[1])
if not old then return 0 end
if old ~= ARGV[1] then return {old, redis.call('PTTL', KEYS[1])} end
return redis.call('PEXPIRE', KEYS[1], ARGV[3])";

const TOUCH: &str = "return redis.call('PEXPIRE', KEYS[1], ARGV[2])";

/// The framing of entries beside Astra.
pub(super) const PLAIN: Framing = Framing {
    create: CREATE,
    replace: REPLACE,
    renew: Some(RENEW),
    touch: TOUCH,
    fetch: Some(FETCH),
    has_deadline: false,
    unframe: entry,
};

impl Redis {
    /// Stores values unchanged, with Redis' own time to live as their only deadline: for a store that is [beside
    /// Astra](crate::store::Builder::beside_astra). [`RedisStore::builder`](crate::RedisStore::builder) does it
    /// automatically.
    pub fn plain(self) -> Self {
        self.with_framing(&PLAIN)
    }
}

/// Returns the entry in a reply. An entry without a time to live, which Astra does not write, has no deadline here
/// either.
fn entry(answer: Value, now: Timestamp) -> Option<Stored> {
    let Value::Array(parts) = answer else { return None };
    let Ok([Value::BulkString(value), Value::Int(millis)]) = <[Value; 2]>::try_from(parts) else {
        return None;
    };
    let expires = match u64::try_from(millis) {
        // Rounded up: an entry is alive to its last millisecond.
        Ok(millis) => now.saturating_add(Duration::from_secs(millis.div_ceil(1_000).max(1))),
        Err(_) => Timestamp::MAX,
    };
    Some(Stored { value: Bytes::from(value), expires })
}
