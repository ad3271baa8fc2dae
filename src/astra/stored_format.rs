//! Sessions as Astra stores them: ids of 32 hexadecimal digits, and plain JSON.

use std::sync::Arc;

use bytes::Bytes;
use zeroize::Zeroizing;

use super::{astra_id, go_json};
use crate::clock::Timestamp;
use crate::crypto::{Random, ServerToken};
use crate::error::{Error, Kind};
use crate::id::EntryId;
use crate::session::{Payload, Recency, SessionId};
use crate::store::{EntryAge, EntryValue, SessionList, SharedFormat, StoredFormat};

/// The stored format that a store shares with Astra.
pub(super) const FORMAT: SharedFormat = SharedFormat {
    program: "Astra",
    create: |random| Box::new(AstraFormat { random }),
    #[cfg(feature = "redis")]
    redis_prefix: "astra:session",
    #[cfg(feature = "redis")]
    redis_framing: &super::redis_framing::PLAIN,
};

/// The tombstone. Astra treats a value that is not an object as a broken session, and begins a new one under a new id.
const TOMBSTONE: &[u8] = b"\"regenerated\"";

struct AstraFormat {
    random: Arc<dyn Random>,
}

impl StoredFormat for AstraFormat {
    fn parse_token(&self, cookie_name: &str, text: &[u8]) -> Option<ServerToken> {
        parse(text, cookie_name)
    }

    fn generate_token(&self, cookie_name: &str) -> Result<ServerToken, Error> {
        generate(&*self.random, cookie_name)
    }

    fn encode_session(
        &self,
        _: EntryId,
        _: Timestamp,
        payload: &Payload,
        from: Option<&Bytes>,
        _: Recency,
        _: Timestamp,
    ) -> Result<Bytes, Error> {
        let shared = from.and_then(|value| go_json::read(value));
        self.with_revision(go_json::write(payload, shared.as_ref())?)
    }

    fn encode_tombstone(&self, _: EntryId, _: Option<SessionId>, _: Timestamp) -> Result<Bytes, Error> {
        self.with_revision(TOMBSTONE.to_vec())
    }

    fn encode_list(&self, _: EntryId, _: &SessionList, _: Timestamp) -> Result<Bytes, Error> {
        Err(Error::new(Kind::Internal("Astra has no session lists")))
    }

    fn decode(&self, _: EntryId, value: &Bytes) -> Option<EntryValue> {
        if value.trim_ascii_end() == TOMBSTONE {
            return Some(EntryValue::Tombstone(None));
        }
        go_json::read(value).map(|payload| EntryValue::Session(EntryAge::default(), payload))
    }

    /// Returns false: Astra would not maintain the lists, and its ids in a list could be used to log in.
    fn has_session_lists(&self) -> bool {
        false
    }
}

impl AstraFormat {
    /// Makes each write unique: two requests with the same change must not write the same value, see the contract of
    /// [`Backend`](crate::store::Backend). JSON has no room for a revision, but every reader skips white space after
    /// it: 32 spaces and tabs are 32 bits.
    fn with_revision(&self, mut json: Vec<u8>) -> Result<Bytes, Error> {
        let [a, b, c, d, ..] = self.random.nonce([0; 4])?;
        let revision = u32::from_be_bytes([a, b, c, d]);
        json.extend((0..u32::BITS).map(|bit| if revision >> bit & 1 == 0 { b' ' } else { b'\t' }));
        Ok(json.into())
    }
}

/// Generates an id as Astra's `newSessionID` does: 128 random bits.
fn generate(random: &dyn Random, cookie_name: &str) -> Result<ServerToken, Error> {
    let mut id = Zeroizing::new([0; 16]);
    random.fill(&mut *id)?;
    let text = Zeroizing::new(format!("{:032x}", u128::from_be_bytes(*id)));
    parse(text.as_bytes(), cookie_name)
        .ok_or_else(|| Error::new(Kind::Internal("a generated id that is not canonical")))
}

/// Reads 32 hexadecimal digits in lower case, Astra's form of an id, and nothing else. Astra itself adopts any text.
/// The entry id is the secret itself, the session id a hash of it.
fn parse(text: &[u8], cookie_name: &str) -> Option<ServerToken> {
    let digits = text.len() == 32 && text.iter().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    let digits = std::str::from_utf8(text).ok().filter(|_| digits)?;
    let id = Zeroizing::new(u128::from_str_radix(digits, 16).ok()?.to_be_bytes());
    ServerToken::new(text, astra_id(cookie_name, &*id), *id)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::{NoRandom, SystemRandom};

    #[test]
    fn t39_astra_ids_have_one_spelling_and_their_names_do_not_tell_them() {
        let token = generate(&SystemRandom, "s").unwrap();
        let text = String::from_utf8(token.to_text().expose().to_vec()).unwrap();
        assert_eq!(text.len(), 32);
        let again = parse(text.as_bytes(), "s").unwrap();
        assert_eq!(again.to_text().expose(), text.as_bytes());
        assert_eq!(u128::from_be_bytes(again.entry_id()), u128::from_str_radix(&text, 16).unwrap());
        assert_ne!(again.session_id(), again.entry_id());
        assert_ne!(again.session_id(), parse(text.as_bytes(), "t").unwrap().session_id());
        assert_eq!(format!("{token:?}"), "ServerToken(..)");
        let digits = "0123456789abcdef0123456789abcdef";
        assert!(parse(digits.as_bytes(), "s").is_some());
        for bad in [
            "",
            &digits[1..],
            &format!("{digits}0"),
            &digits.to_uppercase(),
            &digits.replacen('0', "+", 1),
            &digits.replacen('0', " ", 1),
            &digits.replacen('0', "g", 1),
            &digits.replacen("01", "é", 1),
            "admin",
            "../../../../../../../etc/passwd0",
        ] {
            assert!(parse(bad.as_bytes(), "s").is_none(), "{bad:?}");
        }
        assert!(generate(&NoRandom, "s").unwrap_err().is_random());
    }
}
