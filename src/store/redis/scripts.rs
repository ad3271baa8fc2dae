//! The scripts that compare and set, and the framing of entries in Redis.
//!
//! An entry is a string under `{prefix}:{id}`: eight bytes of deadline, then the value. The deadline is by the server's
//! clock, so that one GET is enough. Redis' own time to live ends later, so that a request which loaded a session in
//! time can still save it.

use std::io::Write as _;
use std::time::Duration;

use bb8_redis::redis::{Cmd, RedisWrite, Script, ToRedisArgs, Value};
use bytes::{Buf, Bytes};

use crate::clock::Timestamp;
use crate::store::Stored;
use crate::store::backend::RETENTION;

pub(super) const DEADLINE_LEN: usize = 8;

/// The longest time to live that is set, about 272 years: Redis' counter would overflow with more.
const LONGEST: Duration = Duration::from_secs(1 << 33);

// In all of them, KEYS[1] is the entry. A value too short for a deadline was not written by this store: it is read as
// missing, and never overwritten. Each script touches one key, as a Cluster requires.

/// ARGV: frame, milliseconds to live. Returns 1 if the entry is there now, 0 if there is a different one.
const CREATE: &str = "\
if redis.call('SET', KEYS[1], ARGV[1], 'NX', 'PX', ARGV[2]) then return 1 end
return redis.call('GET', KEYS[1]) == ARGV[1] and 1 or 0";

/// ARGV: expected value, frame or nothing, milliseconds to live. Returns 1 if done, 0 if there is no entry, else the
/// entry.
pub const REPLACE: &str = "\
local old = redis.call('GET', KEYS[1])
if not old or #old < 8 then return 0 end
local value = string.sub(old, 9)
if value ~= ARGV[1] then
  if ARGV[2] == '' or value ~= string.sub(ARGV[2], 9) then return old end
elseif ARGV[2] == '' then
  redis.call('DEL', KEYS[1])
else
  redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
end
return 1";

/// ARGV: expected value, deadline, milliseconds to live. Like REPLACE by the same value, which is sent only once.
const RENEW: &str = "\
local old = redis.call('GET', KEYS[1])
if not old or #old < 8 then return 0 end
if string.sub(old, 9) ~= ARGV[1] then return old end
redis.call('SETRANGE', KEYS[1], 0, ARGV[2])
redis.call('PEXPIRE', KEYS[1], ARGV[3])
return 1";

/// ARGV: deadline, milliseconds to live. Returns 1 if done, 0 if there is no entry.
const TOUCH: &str = "\
local old = redis.call('GET', KEYS[1])
if not old or #old < 8 then return 0 end
redis.call('SETRANGE', KEYS[1], 0, ARGV[1])
redis.call('PEXPIRE', KEYS[1], ARGV[2])
return 1";

/// How an entry is laid out in Redis, and the scripts for that layout.
pub(crate) struct Framing {
    pub(crate) create: &'static str,
    pub(crate) replace: &'static str,
    /// Replaces only the deadline of an entry, if it has the expected value.
    pub(crate) renew: Option<&'static str>,
    pub(crate) touch: &'static str,
    /// Reads an entry, if GET is not enough.
    pub(crate) fetch: Option<&'static str>,
    /// A deadline precedes the value. Redis keeps the entry for [`RETENTION`] longer.
    pub(crate) has_deadline: bool,
    /// Returns the entry in a reply of the scripts. `None` if the reply is not of this framing.
    pub(crate) unframe: fn(Value, Timestamp) -> Option<Stored>,
}

/// The native framing: the deadline in front of the value.
pub(super) const NATIVE: Framing = Framing {
    create: CREATE,
    replace: REPLACE,
    renew: Some(RENEW),
    touch: TOUCH,
    fetch: None,
    has_deadline: true,
    unframe: |answer, _| match answer {
        Value::BulkString(bytes) => unframe(bytes),
        _ => None,
    },
};

/// The scripts of a framing, with their hashes.
pub(super) struct Scripts {
    pub(super) framing: &'static Framing,
    create: HashedScript,
    replace: HashedScript,
    renew: Option<HashedScript>,
    touch: HashedScript,
    fetch: Option<HashedScript>,
}

/// A script and its hash. It is sent by its hash, and whole if the server does not have it.
pub(super) struct HashedScript {
    source: &'static str,
    hash: String,
}

impl HashedScript {
    pub(super) fn new(source: &'static str) -> Self {
        Self { source, hash: Script::new(source).get_hash().to_owned() }
    }

    pub(super) fn call<'a>(&'a self, key: &'a str, args: Vec<Frame>) -> Call<'a> {
        Call { script: self, key, args }
    }
}

/// One call of a script.
pub(super) struct Call<'a> {
    script: &'a HashedScript,
    pub(super) key: &'a str,
    args: Vec<Frame>,
}

/// An entry as Redis has it, or another argument of a command. It is written into a command without being put together first.
#[derive(Clone, Debug)]
pub(super) struct Frame {
    deadline: Option<[u8; DEADLINE_LEN]>,
    value: Bytes,
}

impl Frame {
    fn with_deadline(expires: Timestamp, value: Bytes) -> Self {
        Self { deadline: Some(expires.as_unix().to_be_bytes()), value }
    }

    pub(super) fn len(&self) -> usize {
        self.deadline.map_or(0, |deadline| deadline.len()) + self.value.len()
    }

    /// Returns true if these are the bytes of `present`.
    pub(super) fn is(&self, present: &[u8]) -> bool {
        let value = match &self.deadline {
            Some(deadline) => present.strip_prefix(deadline),
            None => Some(present),
        };
        value == Some(&*self.value)
    }

    /// Takes over the deadline of `present`, a frame with the same value.
    pub(super) fn set_deadline_of(&mut self, present: &[u8]) {
        self.deadline = present.first_chunk().copied();
    }
}

impl From<Bytes> for Frame {
    fn from(value: Bytes) -> Self {
        Self { deadline: None, value }
    }
}

impl ToRedisArgs for Frame {
    fn write_redis_args<W: ?Sized + RedisWrite>(&self, out: &mut W) {
        let Some(deadline) = &self.deadline else { return out.write_arg(&self.value) };
        let mut arg = out.writer_for_next_arg();
        // The buffer of a command takes everything.
        let _ = arg.write_all(deadline).and_then(|()| arg.write_all(&self.value));
    }
}

impl Scripts {
    pub(super) fn new(framing: &'static Framing) -> Self {
        Self {
            framing,
            create: HashedScript::new(framing.create),
            replace: HashedScript::new(framing.replace),
            renew: framing.renew.map(HashedScript::new),
            touch: HashedScript::new(framing.touch),
            fetch: framing.fetch.map(HashedScript::new),
        }
    }

    /// Returns the bytes of an entry.
    pub(super) fn frame(&self, entry: &Stored) -> Frame {
        let value = entry.value.clone();
        if self.framing.has_deadline { Frame::with_deadline(entry.expires, value) } else { value.into() }
    }

    pub(super) fn fetch<'a>(&'a self, key: &'a str) -> Option<Call<'a>> {
        Some(self.fetch.as_ref()?.call(key, Vec::new()))
    }

    pub(super) fn create<'a>(&'a self, key: &'a str, frame: Frame, lifetime: Bytes) -> Call<'a> {
        self.create.call(key, vec![frame, lifetime.into()])
    }

    pub(super) fn replace<'a>(
        &'a self,
        key: &'a str,
        expected: Bytes,
        frame: Frame,
        lifetime: Bytes,
    ) -> Call<'a> {
        self.replace.call(key, vec![expected.into(), frame, lifetime.into()])
    }

    pub(super) fn remove<'a>(&'a self, key: &'a str, expected: Bytes) -> Call<'a> {
        self.replace(key, expected, Bytes::new().into(), Bytes::new())
    }

    pub(super) fn renew<'a>(
        &'a self,
        key: &'a str,
        expected: Bytes,
        expires: Timestamp,
        lifetime: Bytes,
    ) -> Option<Call<'a>> {
        let args = vec![expected.into(), Frame::with_deadline(expires, Bytes::new()), lifetime.into()];
        Some(self.renew.as_ref()?.call(key, args))
    }

    pub(super) fn touch<'a>(&'a self, key: &'a str, expires: Timestamp, lifetime: Bytes) -> Call<'a> {
        let args = vec![Frame::with_deadline(expires, Bytes::new()), lifetime.into()];
        self.touch.call(key, args)
    }
}

impl Call<'_> {
    pub(super) fn by_hash(&self) -> Cmd {
        self.command("EVALSHA", &self.script.hash)
    }

    /// Returns the command that sends the whole script, which the server then keeps.
    pub(super) fn whole(&self) -> Cmd {
        self.command("EVAL", self.script.source)
    }

    fn command(&self, name: &str, script: &str) -> Cmd {
        let len = self.args.iter().map(Frame::len).sum::<usize>();
        let room = name.len() + script.len() + 1 + self.key.len() + len;
        let mut command = Cmd::with_capacity(4 + self.args.len(), room);
        command.arg(name).arg(script).arg(1).arg(self.key);
        for arg in &self.args {
            command.arg(arg);
        }
        command
    }
}

/// Returns the entry in a frame, unless it is too short.
pub(super) fn unframe(frame: Vec<u8>) -> Option<Stored> {
    let mut value = Bytes::from(frame);
    let expires = value.try_get_u64().ok()?;
    Some(Stored { value, expires: Timestamp::from_unix(expires) })
}

impl Framing {
    /// Returns for how many milliseconds Redis must keep an entry that expires at `expires`. `None` if it has expired.
    pub(super) fn lifetime(&self, expires: Timestamp, now: Timestamp) -> Option<Bytes> {
        let left = expires.saturating_since(now);
        let retention = if self.has_deadline { RETENTION } else { Duration::ZERO };
        (!left.is_zero()).then(|| left.saturating_add(retention).min(LONGEST).as_millis().to_string().into())
    }
}

#[cfg(test)]
mod tests {
    use bb8_redis::redis::Arg;

    use super::*;

    /// It is one argument, and has the bytes that `unframe` reads.
    #[test]
    fn an_entry_is_written_as_its_deadline_and_its_value() {
        let entry = Stored { value: Bytes::from_static(b"value"), expires: Timestamp::from_unix(0x0102) };
        let with_deadline = Scripts::new(&NATIVE).frame(&entry);
        let plain = Frame::from(entry.value.clone());
        for (frame, expected) in [(with_deadline, &b"\0\0\0\0\0\0\x01\x02value"[..]), (plain, b"value")] {
            let mut command = Cmd::new();
            command.arg(&frame).arg("next");
            let args: Vec<_> = command.args_iter().collect();
            assert!(
                matches!(args[..], [Arg::Simple(arg), Arg::Simple(b"next")] if arg == expected),
                "{args:?}"
            );
            assert!(frame.len() == expected.len() && frame.is(expected));
            for other in [&expected[1..], &expected[..expected.len() - 1], b""] {
                assert!(!frame.is(other), "{other:?}");
            }
        }
        let mut frame = Scripts::new(&NATIVE).frame(&entry);
        assert_eq!(unframe(frame.to_redis_args().remove(0)).unwrap(), entry);
        frame.set_deadline_of(b"deadlinevalue");
        assert!(frame.is(b"deadlinevalue"));
    }
}
