//! Keys, sealing and randomness. Only this module, and `astra` for Astra's formats, use the cryptographic library.

mod app_key;
mod base64url;
mod derive;
mod envelope;
mod hour_keys;
mod key_strength;
mod key_text;
mod keyring;
pub(crate) mod masked_secret;
mod name_hash;
#[cfg(feature = "device-bound")]
mod p256;
mod random;
mod seal;
mod secret_text;
mod server_token;
#[cfg(feature = "device-bound")]
mod tagger;

pub use self::app_key::AppKey;
pub use self::keyring::Keyring;
pub use self::secret_text::SecretText;
pub use crate::id::KeyId;

pub(crate) use self::envelope::EPOCH_SECONDS;
pub(crate) use self::name_hash::{NAMESPACE_LEN, label_name, subject_name};
#[cfg(feature = "testing")]
pub(crate) use self::random::ChosenBytes;
#[cfg(test)]
pub(crate) use self::random::tests::{CountingRandom, NoRandom};
pub(crate) use self::random::{Random, SystemRandom, warm_up};
pub(crate) use self::seal::{LAST_SECOND, Purpose, Sealer, key_of};
pub(crate) use self::server_token::{ServerToken, subject_id};

#[cfg(any(feature = "astra", feature = "device-bound"))]
pub(crate) use self::{base64url::decode as decode_base64url, server_token::hashed_id};
#[cfg(feature = "device-bound")]
pub(crate) use self::{
    base64url::{decode_array as decode_base64url_array, encode as encode_base64url},
    p256::{COORDINATE_LEN, PublicKey, SIGNATURE_LEN},
    tagger::{TAG_LEN as BOUND_TAG_LEN, Tagger},
};

// The building blocks of a foreign format.
#[cfg(feature = "astra")]
pub(crate) use self::{
    base64url::{Fastest, fastest},
    envelope::{MAC_LEN, TAG_LEN, VERSION},
    random::NONCE_LEN,
};

#[cfg(test)]
mod vectors;
