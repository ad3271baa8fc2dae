//! The steps that Redis does atomically, and the frame that every entry has there.
//!
//! An entry is a string under `{prefix}:{id}`: eight bytes of deadline, then the value. The deadline is in the entry so that
//! one GET tells all there is to know, and so that what has expired is not returned even where Redis has not removed it yet;
//! Redis' own time to live ends later, so that a request which loaded a session in time can still save it. Touching rewrites those eight bytes alone.

use std::time::Duration;

use bb8_redis::redis::{Cmd, Script, Value};
use bytes::{Buf, BufMut, Bytes};

use crate::clock::Timestamp;
use crate::store::Stored;
use crate::store::backend::RETENTION;

const DEADLINE_LEN: usize = 8;

/// The longest time to live that is asked for, about 272 years: more overflows what Redis counts in.
const LONGEST: Duration = Duration::from_secs(1 << 33);

// In all of them: KEYS[1] the entry, ARGV[1] the present moment. A value too short for a deadline is not ours: as good as
// none for reading, and never overwritten. Each script touches one key, as Cluster demands.

/// ARGV: now, frame, milliseconds to live. 1 if it is there now, 0 if another one is.
const CREATE: &str = "\
local new = redis.call('SET', KEYS[1], ARGV[2], 'NX', 'PX', ARGV[3])
if new then return 1 end
local old = redis.call('GET', KEYS[1])
if old == ARGV[2] then return 1 end
if #old >= 8 and struct.unpack('>I8', old) <= tonumber(ARGV[1]) then
  redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
  return 1
end
return 0";

/// ARGV: now, expected value, frame or nothing, milliseconds to live. 1 if done, 0 if there is none, else the entry.
const REPLACE: &str = "\
local old = redis.call('GET', KEYS[1])
if not old or #old < 8 or struct.unpack('>I8', old) <= tonumber(ARGV[1]) then return 0 end
local value = string.sub(old, 9)
if value ~= ARGV[2] then
  if ARGV[3] == '' or value ~= string.sub(ARGV[3], 9) then return old end
elseif ARGV[3] == '' then
  redis.call('DEL', KEYS[1])
else
  redis.call('SET', KEYS[1], ARGV[3], 'PX', ARGV[4])
end
return 1";

/// ARGV: now, deadline, milliseconds to live. 1 if done, 0 if there is none.
const TOUCH: &str = "\
local old = redis.call('GETRANGE', KEYS[1], 0, 7)
if #old < 8 or struct.unpack('>I8', old) <= tonumber(ARGV[1]) then return 0 end
redis.call('SETRANGE', KEYS[1], 0, ARGV[2])
redis.call('PEXPIRE', KEYS[1], ARGV[3])
return 1";

/// How an entry lies in Redis, and the scripts that know it.
pub(crate) struct Framing {
    pub(crate) create: &'static str,
    pub(crate) replace: &'static str,
    pub(crate) touch: &'static str,
    /// Reads an entry, where GET does not tell all there is to know.
    pub(crate) fetch: Option<&'static str>,
    /// For how long an expired entry is kept. The deadline in the frame says that it has expired.
    pub(crate) retention: Duration,
    /// The bytes of an entry.
    pub(crate) frame: fn(&Stored) -> Bytes,
    /// The entry in an answer of the scripts. `None` if the answer is not of this framing.
    pub(crate) unframe: fn(Value, Timestamp) -> Option<Stored>,
}

/// The native framing: the deadline in front of the value.
pub(super) const NATIVE: Framing = Framing {
    create: CREATE,
    replace: REPLACE,
    touch: TOUCH,
    fetch: None,
    retention: RETENTION,
    frame,
    unframe: |answer, _| match answer {
        Value::BulkString(bytes) => unframe(bytes),
        _ => None,
    },
};

/// The scripts of a framing, with their hashes.
pub(super) struct Scripts {
    framing: &'static Framing,
    create: Step,
    replace: Step,
    touch: Step,
    fetch: Option<Step>,
}

/// A script and its hash: sent by its hash, and whole if the server does not have it.
struct Step {
    source: &'static str,
    hash: String,
}

impl Step {
    fn new(source: &'static str) -> Self {
        Self { source, hash: Script::new(source).get_hash().to_owned() }
    }
}

/// One call of a script.
pub(super) struct Call<'a> {
    step: &'a Step,
    args: Vec<Bytes>,
}

impl Scripts {
    pub(super) fn new(framing: &'static Framing) -> Self {
        Self {
            framing,
            create: Step::new(framing.create),
            replace: Step::new(framing.replace),
            touch: Step::new(framing.touch),
            fetch: framing.fetch.map(Step::new),
        }
    }

    /// Reads an entry, where GET does not tell all there is to know.
    pub(super) fn fetch(&self, key: &str) -> Option<Call<'_>> {
        Some(Call { step: self.fetch.as_ref()?, args: vec![text(key)] })
    }

    /// The entry in an answer.
    pub(super) fn entry(&self, answer: Value, now: Timestamp) -> Option<Stored> {
        (self.framing.unframe)(answer, now)
    }

    /// How long Redis is to keep an entry.
    fn lifetime(&self, expires: Timestamp, now: Timestamp) -> Bytes {
        millis(expires.saturating_add(self.framing.retention), now)
    }

    pub(super) fn create(&self, key: &str, entry: &Stored, now: Timestamp) -> Call<'_> {
        let lifetime = self.lifetime(entry.expires, now);
        Call {
            step: &self.create,
            args: vec![text(key), seconds(now), (self.framing.frame)(entry), lifetime],
        }
    }

    pub(super) fn replace(
        &self,
        key: &str,
        expected: Bytes,
        entry: Option<&Stored>,
        now: Timestamp,
    ) -> Call<'_> {
        let (frame, lifetime) = entry.map_or_else(Default::default, |entry| {
            ((self.framing.frame)(entry), self.lifetime(entry.expires, now))
        });
        Call { step: &self.replace, args: vec![text(key), seconds(now), expected, frame, lifetime] }
    }

    pub(super) fn touch(&self, key: &str, expires: Timestamp, now: Timestamp) -> Call<'_> {
        let deadline = Bytes::copy_from_slice(&expires.as_unix().to_be_bytes());
        Call { step: &self.touch, args: vec![text(key), seconds(now), deadline, self.lifetime(expires, now)] }
    }
}

impl Call<'_> {
    pub(super) fn by_hash(&self) -> Cmd {
        self.command("EVALSHA", &self.step.hash)
    }

    /// Runs it, and leaves it with the server that the key is on.
    pub(super) fn whole(&self) -> Cmd {
        self.command("EVAL", self.step.source)
    }

    fn command(&self, name: &str, script: &str) -> Cmd {
        let len = self.args.iter().map(Bytes::len).sum::<usize>();
        let mut command = Cmd::with_capacity(3 + self.args.len(), name.len() + script.len() + 1 + len);
        command.arg(name).arg(script).arg(1);
        for arg in &self.args {
            command.arg(&**arg);
        }
        command
    }
}

/// An entry behind its deadline.
fn frame(entry: &Stored) -> Bytes {
    let mut frame = Vec::with_capacity(DEADLINE_LEN + entry.value.len());
    frame.put_u64(entry.expires.as_unix());
    frame.put_slice(&entry.value);
    frame.into()
}

/// What a frame holds, unless it is too short to be one.
pub(super) fn unframe(frame: Vec<u8>) -> Option<Stored> {
    let mut value = Bytes::from(frame);
    let expires = value.try_get_u64().ok()?;
    Some(Stored { value, expires: Timestamp::from_unix(expires) })
}

/// How long until `expires`. Redis takes no 0: what is over is there for a millisecond more, for nobody to see.
fn millis(expires: Timestamp, now: Timestamp) -> Bytes {
    text(&expires.saturating_since(now).min(LONGEST).as_millis().max(1).to_string())
}

fn seconds(time: Timestamp) -> Bytes {
    text(&time.as_unix().to_string())
}

fn text(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}
