//! Keys, sealing and randomness: the one place that knows which library does the work.

mod app_key;
mod base64url;
mod derive;
mod envelope;
mod key_id;
mod keyring;
pub(crate) mod masked_secret;
mod random;
mod seal;
mod token;

pub use self::app_key::AppKey;
pub use self::key_id::KeyId;
pub use self::keyring::Keyring;
pub use self::token::SecretText;

#[cfg(test)]
pub(crate) use self::random::tests::NoRandom;
pub(crate) use self::random::{Random, SystemRandom};
pub(crate) use self::seal::{Purpose, Sealer};
pub(crate) use self::token::{Token, subject_id};

// What the room of a foreign format is built from.
#[cfg(feature = "astra")]
pub(crate) use self::{
    base64url::decode as decode_base64url,
    envelope::{MAC_LEN, TAG_LEN, VERSION},
    random::NONCE_LEN,
    token::hashed_id,
};

#[cfg(test)]
mod vectors;
