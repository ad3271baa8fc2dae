//! Device-bound sessions: a session that only the device can use that holds a private key (W3C, Device Bound Session
//! Credentials).
//!
//! After a login the response offers a registration. The browser makes a key pair in the hardware of its device and proves
//! that it holds the key. The public key is kept in the session. From then on the session needs a second cookie, which lives
//! for minutes, and for which the browser proves again that it holds the key. A copy of both cookies is worthless after that.
//!
//! `binder` is what the rest of the crate talks to. It keeps nothing that a restart would lose.

mod answered;
mod binder;
mod bound_cookie;
mod bound_cookie_memo;
mod challenge;
pub(crate) mod headers;
mod json_object;
mod jwk;
mod jws;
mod options;

pub use self::options::DeviceBound;

pub(crate) use self::binder::{Binder, Endpoint, Refreshed, is_named};
pub(crate) use self::bound_cookie_memo::BoundCookieMemo;
pub(crate) use crate::crypto::PublicKey;
