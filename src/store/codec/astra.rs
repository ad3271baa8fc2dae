//! The values that are shared with Astra: plain JSON, told apart by white space behind it.

use bytes::Bytes;

use super::{Codec, Value};
use crate::error::Error;
use crate::session::{Payload, go_json};

/// The mark of a session that goes on under another token. Astra takes what is no object for a broken session, and begins a
/// new one under a new id.
const REGENERATED: &[u8] = b"\"regenerated\"";

impl Codec {
    /// `from` is the stored value that these values came from, if they did.
    pub(super) fn astra_session(&self, payload: &Payload, from: Option<&Bytes>) -> Result<Bytes, Error> {
        let shared = from.and_then(|value| go_json::read(value));
        self.with_revision(go_json::write(payload, shared.as_ref())?)
    }

    pub(super) fn astra_regenerated(&self) -> Result<Bytes, Error> {
        self.with_revision(REGENERATED.to_vec())
    }

    /// Two requests that do the same to one session must not write the same: see the contract of
    /// [`Backend`](crate::store::Backend). JSON has no room for a revision, but white space may follow it, which whoever
    /// reads it skips: 32 spaces and tabs are 32 bits.
    fn with_revision(&self, mut json: Vec<u8>) -> Result<Bytes, Error> {
        let [a, b, c, d, ..] = self.revision()?;
        let revision = u32::from_be_bytes([a, b, c, d]);
        json.extend((0..u32::BITS).map(|bit| if revision >> bit & 1 == 0 { b' ' } else { b'\t' }));
        Ok(json.into())
    }
}

pub(super) fn read(value: &Bytes) -> Option<Value> {
    if value.trim_ascii_end() == REGENERATED {
        return Some(Value::Regenerated);
    }
    go_json::read(value).map(|payload| Value::Session(None, payload))
}
