//! Challenges: sealed, so that the server need not remember which ones it has set.

use std::time::Duration;

use bytes::Buf;

use crate::clock::Timestamp;
use crate::crypto::{Sealer, encode_base64url};
use crate::error::Error;

/// For this many seconds a challenge can be answered. A device with a slow key store takes a few. The rest is for the clocks of
/// two hosts, of which one issues the challenge and the other one gets the proof.
///
/// It is not longer than the shortest life of a bound cookie, which counts from the challenge: so a proof is always worth a
/// cookie.
pub(super) const WINDOW: u64 = 300;

/// The longest text that can be a challenge.
pub(super) const MAX_LEN: usize = Sealer::token_len(Challenge::LEN);

/// A challenge, which a device signs to prove that it holds its key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Challenge {
    pub(super) issued_for: IssuedFor,
    pub(crate) issued: Timestamp,
}

/// The step of the protocol that a challenge is issued for, and the session or binding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum IssuedFor {
    /// The registration of a key for the session with this id.
    Registration([u8; 16]),
    /// A refresh of the binding with this id.
    Refresh([u8; 16]),
}

impl Challenge {
    const LEN: usize = 25;

    /// Seals the challenge: 1 byte for the step, 16 bytes of an id, and 8 bytes for the time in seconds since 1970.
    pub(super) fn seal(self, sealer: &Sealer) -> Result<String, Error> {
        let (kind, id) = match self.issued_for {
            IssuedFor::Registration(id) => (1, id),
            IssuedFor::Refresh(id) => (2, id),
        };
        let parts: [&[u8]; 3] = [&[kind], &id, &self.issued.as_unix().to_be_bytes()];
        sealer.seal_bytes(self.issued, &[], &parts).map(|token| encode_base64url(&token))
    }

    /// Opens a challenge. `None` if this keyring did not seal it.
    pub(super) fn open(text: &str, sealer: &Sealer) -> Option<Self> {
        if text.len() != MAX_LEN {
            return None;
        }
        let mut plaintext = sealer.open(text.as_bytes()).ok()?.into_plaintext();
        if plaintext.len() != Self::LEN {
            return None;
        }
        let kind = plaintext.get_u8();
        let mut id = [0; 16];
        plaintext.copy_to_slice(&mut id);
        let issued_for = match kind {
            1 => IssuedFor::Registration(id),
            2 => IssuedFor::Refresh(id),
            _ => return None,
        };
        Some(Self { issued_for, issued: Timestamp::from_unix(plaintext.get_u64()) })
    }

    /// Returns whether the challenge can be answered at `now`.
    pub(super) fn age(self, now: Timestamp) -> Age {
        if now.saturating_since(self.issued).as_secs() >= WINDOW {
            Age::Old
        } else if self.issued.saturating_since(now).as_secs() >= WINDOW {
            Age::Ahead
        } else {
            Age::Fresh
        }
    }

    /// Returns the time from which on the challenge is too old.
    pub(super) fn end(self) -> Timestamp {
        self.issued.saturating_add(Duration::from_secs(WINDOW))
    }
}

/// The age of a challenge, by the clock of this host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Age {
    /// It can be answered.
    Fresh,
    /// It is too old.
    Old,
    /// The clock of the host that issued it is too far ahead.
    Ahead,
}
