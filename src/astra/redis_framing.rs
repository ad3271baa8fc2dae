//! Entries as Astra has them: the value alone under its key, and no deadline but Redis' own time to live.

use std::time::Duration;

use bb8_redis::bb8::ManageConnection;
use bb8_redis::redis::aio::ConnectionLike;
use bb8_redis::redis::{RedisError, Value};
use bytes::Bytes;

use crate::clock::Timestamp;
use crate::store::Stored;
use crate::store::redis::{Framing, Redis};

// KEYS[1] the entry; the arguments are those of the scripts for framed entries, and so are the answers, but for an entry,
// which comes with its time to live. "There already" is success as there: no two writes have the same value. A lifetime of
// a millisecond is that of what is over: nobody may see it, so it is not written, or removed.

/// The entry, if there is one.
const FETCH: &str = "\
local old = redis.call('GET', KEYS[1])
if not old then return false end
return {old, redis.call('PTTL', KEYS[1])}";

const CREATE: &str = "\
local old = redis.call('GET', KEYS[1])
if old then return old == ARGV[2] and 1 or 0 end
if ARGV[3] ~= '1' then redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3]) end
return 1";

const REPLACE: &str = "\
local old = redis.call('GET', KEYS[1])
if not old then return 0 end
if old ~= ARGV[2] then
  if ARGV[3] == '' or old ~= ARGV[3] then return {old, redis.call('PTTL', KEYS[1])} end
elseif ARGV[3] == '' or ARGV[4] == '1' then
  redis.call('DEL', KEYS[1])
else
  redis.call('SET', KEYS[1], ARGV[3], 'PX', ARGV[4])
end
return 1";

const TOUCH: &str = "\
if ARGV[3] == '1' then return redis.call('DEL', KEYS[1]) end
return redis.call('PEXPIRE', KEYS[1], ARGV[3])";

/// How entries lie in Redis beside Astra.
pub(super) const PLAIN: Framing = Framing {
    create: CREATE,
    replace: REPLACE,
    touch: TOUCH,
    fetch: Some(FETCH),
    // Go takes an entry that is there for one that lives.
    retention: std::time::Duration::ZERO,
    frame: |entry| entry.value.clone(),
    unframe: entry,
};

impl<M> Redis<M>
where
    M: ManageConnection<Error = RedisError>,
    M::Connection: ConnectionLike + Clone + Sync,
{
    /// Keeps values as they are, with no deadline but Redis' own: for a store that is
    /// [beside Astra](crate::store::Builder::beside_astra). [`RedisStore::builder`](crate::RedisStore::builder) does it
    /// automatically.
    pub fn plain(self) -> Self {
        self.with_framing(&PLAIN)
    }
}

/// The entry in an answer. One without a time to live, which Astra does not write, has no deadline here either.
fn entry(answer: Value, now: Timestamp) -> Option<Stored> {
    let Value::Array(parts) = answer else { return None };
    let Ok([Value::BulkString(value), Value::Int(millis)]) = <[Value; 2]>::try_from(parts) else {
        return None;
    };
    let expires = match u64::try_from(millis) {
        // Rounded up: what Redis still has is there, to its last millisecond.
        Ok(millis) => now.saturating_add(Duration::from_secs(millis.div_ceil(1_000))),
        Err(_) => Timestamp::MAX,
    };
    Some(Stored { value: Bytes::from(value), expires })
}
