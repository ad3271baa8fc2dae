//! What a server-side store writes into its backend: three kinds of value, clear or sealed.
//!
//! `docs/WIRE.md` owns these layouts.

#[cfg(feature = "astra")]
mod astra;

use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};

use super::subject_index::Index;
use crate::clock::Timestamp;
use crate::crypto::{Random, Sealer};
use crate::error::Error;
use crate::session::{Payload, PayloadFormat, SessionId, StoredHeader};

/// Values to and from bytes.
pub(super) struct Codec {
    pub(super) format: PayloadFormat,
    /// With it, whatever is written is sealed, bound to its id, and nothing that is not is read.
    pub(super) sealer: Option<Sealer>,
    pub(super) random: Arc<dyn Random>,
    /// Sessions are shared with Astra: plain JSON, and no list of a subject's sessions.
    pub(super) with_astra: bool,
}

/// What an entry holds.
pub(super) enum Value {
    /// When it began, where that is known, and its values.
    Session(Option<Timestamp>, Payload),
    /// There was a session here. It goes on under another token.
    Regenerated,
    Index(Index),
}

/// The first byte of a clear value; 1 is that of [`StoredHeader`].
const REGENERATED: u8 = 2;
const INDEX: u8 = 3;
/// The first byte of a sealed one.
const SEALED: u8 = 4;

impl Codec {
    /// `from` is the stored value that these values came from, if they did.
    #[cfg_attr(not(feature = "astra"), allow(unused_variables))]
    pub(super) fn session(
        &self,
        id: SessionId,
        created: Timestamp,
        payload: &Payload,
        from: Option<&Bytes>,
        now: Timestamp,
    ) -> Result<Bytes, Error> {
        #[cfg(feature = "astra")]
        if self.with_astra {
            return self.astra_session(payload, from);
        }
        let body = payload.to_format(self.format)?;
        let header = StoredHeader { created, revision: self.revision()? };
        self.value(id, now, &[&header.to_bytes(), &body])
    }

    pub(super) fn regenerated(&self, id: SessionId, now: Timestamp) -> Result<Bytes, Error> {
        #[cfg(feature = "astra")]
        if self.with_astra {
            return self.astra_regenerated();
        }
        self.value(id, now, &[&[REGENERATED], &self.revision()?])
    }

    pub(super) fn index(&self, id: SessionId, index: &Index, now: Timestamp) -> Result<Bytes, Error> {
        self.value(id, now, &[&[INDEX], &self.revision()?, &index.to_bytes()])
    }

    /// The value of the entry `id`, or `None` if it is not one that this store wrote there.
    pub(super) fn read(&self, id: SessionId, value: &Bytes) -> Option<Value> {
        #[cfg(feature = "astra")]
        if self.with_astra {
            return astra::read(value);
        }
        let mut clear = match (&self.sealer, value.split_first()?) {
            (None, _) => value.clone(),
            (Some(sealer), (&SEALED, token)) => {
                sealer.open_bytes(token, &id.to_bytes()).ok()?.into_plaintext()
            }
            // Whoever can write to the backend could put anything there.
            (Some(_), _) => return None,
        };
        match *clear.first()? {
            StoredHeader::KIND => {
                let header = StoredHeader::take(&mut clear)?;
                Some(Value::Session(Some(header.created), Payload::parse(clear)?))
            }
            REGENERATED => (clear.len() == 9).then_some(Value::Regenerated),
            INDEX => Index::from_bytes(clear.get(9..)?).map(Value::Index),
            _ => None,
        }
    }

    fn value(&self, id: SessionId, now: Timestamp, parts: &[&[u8]]) -> Result<Bytes, Error> {
        let mut value = BytesMut::with_capacity(parts.iter().map(|part| part.len()).sum());
        match &self.sealer {
            None => parts.iter().for_each(|part| value.put_slice(part)),
            Some(sealer) => {
                value.put_u8(SEALED);
                value.put_slice(&sealer.seal_bytes(now, &id.to_bytes(), parts)?);
            }
        }
        Ok(value.freeze())
    }

    /// Public, and different for each write: a nonce will do.
    fn revision(&self) -> Result<[u8; 8], Error> {
        let [revision @ .., _, _, _, _] = self.random.nonce()?;
        Ok(revision)
    }
}
