//! Sessions for services written directly on hyper 1.x.
//!
//! A session is what a server remembers of a browser between requests: who logged in, what is in the cart, a message to
//! show once. This crate keeps it for any [`hyper::service::Service`], with nothing to run beside the service: by default
//! the session travels in its own cookie, encrypted and signed.
//!
//! ```
//! use bytes::Bytes;
//! use http_body_util::Full;
//! use hyper::service::Service;
//! use hyper::{Request, Response};
//! use hyper_session::{AppKey, CookieStore, Error, SessionHandle, session_fn};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Error> {
//! let store = CookieStore::builder(AppKey::generate()?).build()?;
//! let service = session_fn(store, |_: Request<Full<Bytes>>, session: SessionHandle| async move {
//!     let session = session.load().await?;
//!     let visits = session.update("visits", |old: Option<u64>| old.unwrap_or(0) + 1)?;
//!     Ok::<_, Error>(Response::new(Full::<Bytes>::from(format!("visit {visits}"))))
//! });
//! // hyper's `serve_connection(io, service)` would call it for each request:
//! let response = service.call(Request::default()).await?;
//! assert!(response.headers()["set-cookie"].to_str().unwrap().starts_with("__Host-session="));
//! assert_eq!(response.headers()["cache-control"], "no-store");
//! # Ok(())
//! # }
//! ```
//!
//! # Overview
//!
//! - [`SessionService`] wraps a service, and [`SessionExt::session`] reaches the session from the request; or
//!   [`session_fn`] makes a service from a function that takes a [`SessionHandle`] beside the request.
//! - [`Session`] is what a handler reads and changes. Loading is the one `await`; what was changed is saved by itself when
//!   the response head is ready.
//! - [`CookieStore`] keeps sessions in cookies, under an [`AppKey`] or a [`Keyring`] of several.
//! - [`ServerStore`] keeps them on the server, in whatever implements [`Backend`](store::Backend);
//!   `RedisStore` (feature `redis`) is one in Redis, `SqliteStore` (feature `sqlite`) one in a file, `MemoryStore` (feature `memory`) one in this process. What they keep
//!   [can be sealed](store::Builder::seal_records).
//! - [`Session::login`] says who logged in, under a new token; [`ServerStore::sessions_of`] lists the sessions of somebody,
//!   and [`ServerStore::end_sessions_of`] ends them: "log out everywhere".
//! - [`Revocations`] make a logout final for cookie sessions: a copied cookie is refused. In memory, in a SQLite file or in
//!   Redis.
//! - [`Session::set_lifetime`] is "remember me", [`Session::authenticated_within`] says when to ask for the password again, and
//!   [`CrossOriginProtection`] refuses the forms of other sites.
//! - [`SessionWatch`] is the session of a web socket or a stream of events; a [`MigratingStore`](store::MigratingStore) takes over
//!   the sessions of another store.
//! - [`CookieOptions`](cookie::CookieOptions) say how the cookie is set, [`Timeouts`] how long a session lasts.
//! - [`Key`] names a value and its type; [`Session::get_all`] reads all values as a struct of yours.
//! - [`Event`] says what happened and why; give a store an [`Observer`] to hear of it.
//! - [`Error`] is the one error type.
//!
//! # Guides
//!
//! [Choosing a store](guide::choosing_a_store) · [values, keys and flash messages](guide::values) ·
//! [logins](guide::logins) · [a logout that is final](guide::revocation) · [forms](guide::forms) ·
//! [connections that stay open](guide::connections) · [changing the store](guide::changing_stores) ·
//! [key rotation without downtime](guide::key_rotation) · [a security checklist](guide::security), by OWASP ASVS and NIST ·
//! [logs and metrics](guide::observability) · [testing your application](guide::testing) ·
//! [coming from tower-sessions or actix-session](guide::migrating) · [what it cannot do](guide::limits) · with the feature
//! `redis`, `guide::deploying_on_redis`
//!
//! # What a request costs
//!
//! The cookie is found by a substring search in the header as it lies, without a copy. A handler that never asks for its
//! session causes nothing else: no decoding, no store, and its response passes through byte for byte. One that asks has
//! the token decoded, checked and decrypted in one buffer; values are decoded one at a time, when they are asked for.
//!
//! # What happens when the response head is ready
//!
//! | the handler | what happens |
//! |---|---|
//! | never asked for the session | nothing |
//! | read | `Vary: Cookie`; no `Set-Cookie`, unless the idle deadline is worth renewing |
//! | changed a value | saved; one `Set-Cookie`; `Cache-Control: no-store` |
//! | set a value equal to the present one | as if it had read it |
//! | left it empty | destroyed, and the cookie removed |
//! | stored nothing in a new session | nothing is created |
//! | called `regenerate` | new id and token, same values, same absolute deadline |
//! | called `login` | new id and token, bound to a subject, a new absolute deadline; if it was bound to another one, ended, and a new one begun |
//! | called `reauthenticate` | as `regenerate`, with a new absolute deadline |
//! | called `destroy` | ended, and the cookie removed with the attributes it was set with |
//! | called `discard` | what was not saved is forgotten |
//! | answered with a 5xx status, 408, or a failure of gRPC | changed values are dropped, `destroy` and `regenerate` are done ([another rule](store::Builder::discard_changes_on)) |
//! | answered with a 1xx status | no cookie; of all it did, `destroy` alone is done |
//! | returned an [`Error`] | nothing is saved; a 503 with `Retry-After`, or a 500 |
//! | returned another error, panicked, was dropped | nothing is saved |
//! | was told by `save` that it failed | its response is sent, and nothing is tried again unless it asks |
//! | wrote after the head was sent | the write is an error |
//!
//! If a session cannot be saved, the response is replaced by a 503 (a 500 if trying again does not help), and its cookie does
//! not leave. Work that the handler did not ask for, such as a renewal, fails no request. If a session cannot be loaded, the
//! handler gets the error, and no cookie is cleared. A cookie that is not authentic, expired or unknown is an empty session
//! and an event that says why, and is removed; the client cannot tell the reasons apart. One that `regenerate` or `login`
//! replaced on a server-side store within the last minute is an empty session, too, and not removed: the browser has the new
//! one, or is about to get it.
//!
//! # Cancel safety
//!
//! hyper drops a response's future when the client goes away. Before the handler is done, that saves nothing. Afterwards a
//! save is done or not done, never in parts; a `destroy` or `regenerate` goes on to its end in the background, on the tokio
//! runtime where it was dropped. Shutting down gracefully waits for connections, not for those.
//!
//! # Features
//!
//! None is on by default, and none changes what the others do.
//!
//! - `memory`: `MemoryStore`, server-side sessions inside this process, for tests and for services of a single process. Brings
//!   in nothing.
//! - `redis`: `RedisStore`, sessions in Redis: one server, Sentinel or Cluster. Brings in bb8-redis and redis.
//!   `guide::deploying_on_redis` is about deploying it.
//! - `sqlite`: `SqliteStore`, sessions in one SQLite file, which the processes of one machine may share. Brings in rusqlite, and
//!   compiles SQLite, so it needs a C compiler. Without a server beside the service.
//! - `redis-tls`: TLS to Redis, by rustls on aws-lc-rs.
//! - `astra`: reads and writes the cookies and the stored sessions of Astra (Go), to run beside it or to move away from it;
//!   the guide says how. Brings in nothing.
//! - `tower`: `SessionLayer`, and [`SessionService`] as a tower service: the same way in and out, for a stack of tower's
//!   middleware, a hyper-util server, or tonic. Brings in tower's two traits and no middleware.
//! - `axum`: [`Session`], [`SessionView`] and [`SessionHandle`] as extractors, with [`Error`] as their rejection. Contains
//!   `tower`, and brings in axum-core.
//! - `tracing`: every [`Event`] as a line of the log. [Names and levels](guide::observability).
//! - `metrics`: every [`Event`] counted, and the store timed, through the `metrics` facade. [Names and a dashboard](guide::observability).
//! - `cli`: the binary `hyper-session`, for operators: makes keys, says whether a key rotation logs anyone out, opens a cookie
//!   or says why it is refused, lists and ends the sessions of a subject in Redis. Not for libraries.
//! - `testing`: requests that carry a session, the session in a response, a clock to move, a backend that fails on command,
//!   and the suite that holds a [`Backend`](store::Backend) to its contract. [How to use it](guide::testing).
//!
//! # Stability
//!
//! Byte formats are kept within a major version (`docs/WIRE.md` in the repository). Not promised: the words of errors, the
//! type of an error's source, the `Debug` form of anything, default timeouts.
#![forbid(unsafe_code)]
#![cfg_attr(docsrs_hyper_session, feature(doc_cfg))]

// In the order in which a request meets them; each imports only from those above it, and `service` from all.
mod error;

mod clock;
mod id;

mod event;

pub mod cookie;

mod crypto;

mod session;

mod config;
pub mod revocation;

pub mod store;

mod service;

#[cfg(feature = "astra")]
mod astra;

#[cfg(feature = "tower")]
mod tower;

#[cfg(feature = "axum")]
mod axum;

#[cfg(feature = "testing")]
pub mod testing;

#[cfg(any(doc, doctest))]
pub mod guide;

pub use self::clock::{Clock, SystemClock, Timestamp};
pub use self::config::{Config, SiteData, Timeouts};
pub use self::crypto::{AppKey, KeyId, Keyring};
pub use self::error::Error;
#[cfg(feature = "metrics")]
pub use self::event::count::describe_metrics;
pub use self::event::{
    CookieFormat, DropReason, Event, MigrationSource, Observer, Operation, Refusal, RevocationChange,
};
pub use self::revocation::Revocations;
pub use self::service::{
    CrossOriginFuture, CrossOriginProtection, CrossOriginService, FailureResponse, Forbidden, ResponseFuture,
    ServiceUnavailable, SessionExt, SessionFn, SessionHandle, SessionService, SessionWatch, session_fn,
};
#[doc(hidden)]
pub use self::session::__example;
pub use self::session::{
    AsKey, Authentication, Changes, Key, Lifetime, PayloadFormat, ReadKey, Record, Session, SessionId,
    SessionView, Text, WriteKey,
};
#[cfg(feature = "memory")]
pub use self::store::MemoryStore;
#[cfg(feature = "redis")]
pub use self::store::RedisStore;
#[cfg(feature = "sqlite")]
pub use self::store::SqliteStore;
pub use self::store::{CookieStore, ServerStore};
#[cfg(feature = "tower")]
pub use self::tower::SessionLayer;

/// The README's example, compiled and run with the documentation's.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

#[cfg(test)]
mod tests {
    use super::*;

    // T38 begins here: what is shared between threads must be made for it.
    #[test]
    fn public_types_cross_threads_and_panics() {
        fn shared<T: Send + Sync + 'static>() {}
        fn sendable<T: Send>() {}
        shared::<Session>();
        shared::<SessionHandle>();
        shared::<CookieStore>();
        shared::<Keyring>();
        shared::<AppKey>();
        shared::<Error>();
        shared::<Record>();
        shared::<Changes>();
        shared::<SessionService<()>>();
        sendable::<ResponseFuture<std::future::Ready<()>, (), ServiceUnavailable>>();
    }

    #[test]
    fn small_types_stay_small() {
        assert_eq!(size_of::<Session>(), size_of::<usize>());
        assert_eq!(size_of::<SessionHandle>(), size_of::<usize>());
        assert_eq!(size_of::<Option<SessionId>>(), 17);
    }
}
