//! Sessions for services written directly on hyper.
#![forbid(unsafe_code)]
#![cfg_attr(
    test,
    allow(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::indexing_slicing
    )
)]

mod clock;
mod config;
pub mod cookie;
mod crypto;
mod error;
mod event;
mod service;
mod session;
pub mod store;
#[cfg(feature = "testing")]
pub mod testing;

pub use self::clock::{Clock, SystemClock, Timestamp};
pub use self::config::{Config, Timeouts};
pub use self::crypto::{AppKey, KeyId, Keyring};
pub use self::error::Error;
pub use self::event::{DropReason, Event, Observer, Refusal};
pub use self::service::{
    FailureResponse, ResponseFuture, ServiceUnavailable, SessionExt, SessionFn, SessionHandle,
    SessionService, session_fn,
};
pub use self::session::{Changes, PayloadFormat, Record, Session, SessionId, Text};
#[cfg(feature = "memory")]
pub use self::store::MemoryStore;
pub use self::store::{CookieStore, ServerStore};
