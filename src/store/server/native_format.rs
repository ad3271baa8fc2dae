//! The native format of a server-side store: four kinds of value, clear or sealed.
//!
//! `docs/WIRE.md` owns these layouts.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, BufMut, Bytes, BytesMut};

use super::format::{EntryAge, EntryValue, StoredFormat};
use super::session_list::SessionList;
use crate::clock::{Clock, Timestamp};
use crate::config::TimeoutLimits;
use crate::crypto::{Random, Sealer, ServerToken};
use crate::error::Error;
use crate::event::Refusal;
use crate::id::EntryId;
use crate::session::{Payload, PayloadFormat, Recency, SessionId};

/// Tokens of 256 random bits, and values behind a header.
pub(super) struct NativeFormat {
    pub(super) payload_format: PayloadFormat,
    /// If present, every written value is sealed and bound to its entry id, and only sealed values are read.
    pub(super) sealer: Option<Sealer>,
    /// Until then, values that were written without sealing are read, too.
    pub(super) accept_unsealed: Option<(Timestamp, Arc<dyn Clock>)>,
    pub(super) random: Arc<dyn Random>,
    pub(super) limits: TimeoutLimits,
}

/// The header that a server-side store keeps before the payload. The backend holds the deadline of the entry, so that
/// it moves without a rewrite. The absolute timeout counts from `created`. Deadline and `lifetime` together give the
/// last use of the session, so that shorter timeouts apply to it.
///
/// ```text
/// offset  bytes  field
///      0      1  kind, 0x01: a session
///      1      5  created, seconds since 1970, big-endian
///      6      4  age: written - created, in seconds
///     10      4  lifetime: seconds from when the session was last used to the deadline of the entry, big-endian;
///                0xffffffff if that does not fit the field
///     14      8  sequence of the write within its second (4 bits), then revision: 60 bits, random and new for each write, so
///                that a write whose reply was lost recognizes its own value
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct StoredHeader {
    pub(super) created: Timestamp,
    pub(super) written: Recency,
    pub(super) lifetime: u32,
    /// The highest four bits are not used.
    pub(super) revision: u64,
}

impl StoredHeader {
    pub(super) const KIND: u8 = 1;
    pub(super) const LEN: usize = 22;

    const REVISION: u64 = u64::MAX >> 4;

    pub(super) fn to_bytes(self) -> [u8; Self::LEN] {
        let Recency { written, sequence } = self.written;
        let age = written.saturating_since(self.created).as_secs();
        let mut bytes = [Self::KIND; Self::LEN];
        let mut out = &mut bytes[1..];
        out.put_uint(self.created.as_unix().min(MAX_CREATED), 5);
        out.put_u32(u32::try_from(age).unwrap_or(u32::MAX));
        out.put_u32(self.lifetime);
        out.put_u64(u64::from(sequence) << 60 | self.revision & Self::REVISION);
        bytes
    }

    /// Takes the header from the front of `value`.
    pub(super) fn take(value: &mut Bytes) -> Option<Self> {
        if value.len() < Self::LEN || value.get_u8() != Self::KIND {
            return None;
        }
        let created = Timestamp::from_unix(value.get_uint(5));
        let written = created.saturating_add(Duration::from_secs(value.get_u32().into()));
        let lifetime = value.get_u32();
        let last = value.get_u64();
        let written = Recency { written, sequence: (last >> 60) as u8 };
        Some(Self { created, written, lifetime, revision: last & Self::REVISION })
    }

    fn age(self) -> EntryAge {
        let known = self.lifetime != u32::MAX;
        let lifetime = known.then(|| Duration::from_secs(self.lifetime.into()));
        EntryAge { created: Some(self.created), written: Some(self.written), lifetime }
    }
}

/// The largest value of five bytes: the year 36,812.
const MAX_CREATED: u64 = (1 << 40) - 1;

/// The first byte of a clear tombstone; 1 is that of [`StoredHeader`].
const TOMBSTONE: u8 = 2;
/// The first byte of a clear session list.
const LIST: u8 = 3;
/// The first byte of a sealed value.
const SEALED: u8 = 4;
/// The first byte of a clear tombstone that names the id under which the session continues. A host of a release that does not know
/// this kind leaves the cookie as it is, unless its handler sets a value: then it begins another session.
const NAMING_TOMBSTONE: u8 = 5;
/// First bytes that are reserved for later releases.
const LATER: std::ops::RangeInclusive<u8> = 6..=0x1f;

impl StoredFormat for NativeFormat {
    fn parse_token(&self, cookie_name: &str, text: &[u8]) -> Option<ServerToken> {
        ServerToken::parse(text, cookie_name)
    }

    fn generate_token(&self, cookie_name: &str) -> Result<ServerToken, Error> {
        ServerToken::generate(&*self.random, cookie_name)
    }

    fn encode_session(
        &self,
        id: EntryId,
        created: Timestamp,
        payload: &Payload,
        _: Option<&Bytes>,
        written: Recency,
        now: Timestamp,
    ) -> Result<Bytes, Error> {
        let body = payload.to_format(self.payload_format)?;
        let lifetime = self.limits.of(payload).deadline(created, now).saturating_since(now).as_secs();
        let lifetime = u32::try_from(lifetime).unwrap_or(u32::MAX);
        let header =
            StoredHeader { created, written, lifetime, revision: u64::from_be_bytes(self.revision()?) };
        self.value(id, now, &[&header.to_bytes(), &body])
    }

    fn encode_tombstone(&self, id: EntryId, next: Option<SessionId>, now: Timestamp) -> Result<Bytes, Error> {
        let revision = self.revision()?;
        match next {
            None => self.value(id, now, &[&[TOMBSTONE], &revision]),
            Some(next) => self.value(id, now, &[&[NAMING_TOMBSTONE], &revision, &next.to_bytes()]),
        }
    }

    fn encode_list(&self, id: EntryId, list: &SessionList, now: Timestamp) -> Result<Bytes, Error> {
        self.value(id, now, &[&[LIST], &self.revision()?, &list.to_bytes()])
    }

    fn decode(&self, id: EntryId, value: &Bytes) -> Option<EntryValue> {
        let mut clear = match (&self.sealer, value.split_first()?) {
            (None, _) => value.clone(),
            (Some(sealer), (&SEALED, token)) => {
                sealer.open_bytes(token, &id.to_bytes()).ok()?.into_plaintext()
            }
            (Some(_), _) if self.accepts_unsealed() => value.clone(),
            // Anyone who can write to the backend could put anything there.
            (Some(_), _) => return None,
        };
        match *clear.first()? {
            StoredHeader::KIND => {
                let header = StoredHeader::take(&mut clear)?;
                Some(EntryValue::Session(header.age(), Payload::parse(clear)?))
            }
            TOMBSTONE => (clear.len() == 9).then_some(EntryValue::Tombstone(None)),
            NAMING_TOMBSTONE => {
                let next = SessionId::from_bytes(clear.get(9..)?.try_into().ok()?);
                Some(EntryValue::Tombstone(Some(next)))
            }
            LIST => SessionList::from_bytes(clear.get(9..)?).map(EntryValue::List),
            _ => None,
        }
    }

    /// Returns the reason. A value of an unknown kind may come from a newer release. A sealed one may come from a host
    /// that has another key, or that seals already.
    fn refusal(&self, id: EntryId, value: &[u8]) -> Refusal {
        match (&self.sealer, value.split_first()) {
            (_, Some((&SEALED, token))) => self.refusal_of_sealed(id, token),
            // From a host that does not seal yet, or planted.
            (Some(_), Some((&(StoredHeader::KIND | TOMBSTONE | NAMING_TOMBSTONE | LIST), _))) => {
                Refusal::Unreadable
            }
            (_, Some((kind, _))) if LATER.contains(kind) => Refusal::Version,
            _ => Refusal::Payload,
        }
    }

    fn has_session_lists(&self) -> bool {
        true
    }

    fn is_to_be_sealed(&self, value: &Bytes) -> bool {
        self.sealer.is_some() && value.first() != Some(&SEALED)
    }
}

impl NativeFormat {
    fn accepts_unsealed(&self) -> bool {
        self.accept_unsealed.as_ref().is_some_and(|(until, clock)| clock.now() < *until)
    }

    /// Returns why the sealed value of the entry `id` could not be read. A plaintext of an unknown kind may come from a newer release,
    /// too. It must open in this entry first, so that a forged or moved value does not count as one.
    fn refusal_of_sealed(&self, id: EntryId, token: &[u8]) -> Refusal {
        let opened = match &self.sealer {
            Some(sealer) => sealer.open_bytes(token, &id.to_bytes()),
            None => Sealer::check_form(token).and(Err(Refusal::UnknownKey)),
        };
        match opened.map(|opened| opened.into_plaintext().first().copied()) {
            Ok(Some(kind)) if LATER.contains(&kind) => Refusal::Version,
            Err(refusal @ (Refusal::Version | Refusal::UnknownKey)) => refusal,
            _ => Refusal::Payload,
        }
    }

    fn value(&self, id: EntryId, now: Timestamp, parts: &[&[u8]]) -> Result<Bytes, Error> {
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

    /// Returns bytes that are public and different for each write: part of a nonce.
    fn revision(&self) -> Result<[u8; 8], Error> {
        let [revision @ .., _, _, _, _] = self.random.nonce([0; 4])?;
        Ok(revision)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_reads_back_and_its_truncations_do_not() {
        let created = Timestamp::from_unix(77);
        let written = Recency { written: Timestamp::from_unix(99), sequence: 15 };
        let header = StoredHeader { created, written, lifetime: 900, revision: 0x0123_4567_89ab_cdef };
        let bytes = header.to_bytes();
        assert_eq!(StoredHeader::take(&mut Bytes::copy_from_slice(&bytes)), Some(header));
        for len in 0..bytes.len() {
            assert_eq!(StoredHeader::take(&mut Bytes::copy_from_slice(&bytes[..len])), None);
        }
        assert_eq!(StoredHeader::take(&mut Bytes::from_static(b"\x02\0\0\0\0\0\0\0\0")), None);
    }
}
