//! Keys, sealing and randomness: the one place that knows which library does the work.

mod app_key;
#[cfg(feature = "astra")]
mod astra;
mod base64url;
mod derive;
mod envelope;
mod keyring;
mod name_hash;
mod random;
mod seal;
mod token;

pub use self::app_key::AppKey;
pub use self::keyring::{KeyId, Keyring};
pub use self::token::SecretText;

#[cfg(feature = "astra")]
pub(crate) use self::astra::{AstraSealer, astra_id, format_of};
pub(crate) use self::name_hash::{NAMESPACE_LEN, label_name, subject_name};
#[cfg(test)]
pub(crate) use self::random::tests::NoRandom;
pub(crate) use self::random::{Random, SystemRandom};
pub(crate) use self::seal::{Purpose, Sealer};
pub(crate) use self::token::{Token, subject_id};

#[cfg(test)]
mod vectors;
