//! Sessions for services written directly on hyper 1.x.
//!
//! A session is the data that a server keeps for a browser between requests: the user, the cart, a message to show once.
//! This crate adds sessions to any [`hyper::service::Service`]. The default store needs no server: the session is in its
//! own cookie, encrypted and signed.
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
//! [Words](#words) explains the terms.
//!
//! - [`SessionService`] wraps a service, and [`SessionExt::session`] gets the session from the request.
//!   [`session_fn`] makes a service from a function that takes the request and a [`SessionHandle`]. For tower, there is
//!   [`SessionLayer`] (feature `tower`).
//! - [`Session`] holds the values that a handler reads and changes. Loading it is asynchronous. Reading and writing
//!   values is not. Changes are saved automatically when the response head is ready.
//! - [`CookieStore`] keeps sessions in cookies, under one [`AppKey`] or a [`Keyring`].
//! - [`ServerStore`] keeps sessions on the server, in a [`Backend`](store::Backend): [`RedisStore`] (feature `redis`) in Redis,
//!   [`SqliteStore`] (feature `sqlite`) in a file, [`MemoryStore`] (feature `memory`) in this process. Their entries
//!   [can be sealed](store::Builder::seal_records).
//! - [`Session::login`] records the user and gives the session a new token. [`ServerStore::sessions_of`] lists a user's sessions,
//!   and [`ServerStore::end_sessions_of`] ends them: "log out everywhere".
//! - [`Revocations`] make a logout final for cookie sessions that `login` began: a copied cookie is refused. They are kept in
//!   memory, in an SQLite file or in Redis.
//! - [`Session::set_lifetime`] implements "remember me", [`Session::authenticated_within`] says when to ask for the password again, and
//!   [`CrossOriginProtection`] refuses the forms of other sites.
//! - `device_bound` (feature `device-bound`) binds sessions to the devices of their browsers, so that stolen cookies stop
//!   working within minutes.
//! - [`SessionWatch`] is the session of a WebSocket or a stream of events.
//! - [`MigratingStore`](store::MigratingStore) takes over the sessions of another store.
//! - [`CookieOptions`](cookie::CookieOptions) say how the cookie is set, [`Timeouts`] how long a session lasts.
//!   [`plain_http_on`](store::Builder::plain_http_on) is for services that are reached both by http and by https.
//! - [`Key`] names a value and its type; [`Session::get_all`] reads all values as a struct of yours. [`Session::update`] and
//!   [`Session::try_update`] change a value that depends on its previous one, [`Session::get_lenient`] reads a value that may not decode,
//!   and [`Session::update_flash`] adds to the messages for the next page.
//! - [`Event`] reports what happened and why, to the [`Observer`] of a store.
//! - [`Error`] is the one error type.
//!
//! # Words
//!
//! | word | meaning |
//! |---|---|
//! | token | the text in the session cookie; secret |
//! | session id | the public name of a session, safe to log |
//! | seal | encrypt and sign, with a key that is derived from the [`AppKey`] |
//! | idle timeout | how long a session lasts if no handler loads it; its deadline is moved in steps, by default of a tenth of the timeout |
//! | absolute timeout | how long it lasts after it began, or its user last authenticated |
//! | renew | move the idle deadline, because the session was used |
//! | regenerate | give a session a new token and a new id |
//! | subject | the user whom `login` bound a session to |
//! | entry | the bytes of one session in a server-side store |
//! | session list | the list of a subject's sessions, which server-side stores keep |
//! | flash value | a value for the next page, which is read once |
//! | label | a name by which sessions in cookies can be ended later |
//! | revocation | a record that a session in a cookie has ended, for as long as a copy of the cookie could live |
//! | superseded token | a token that `regenerate` or `login` replaced moments ago |
//! | tombstone | what `regenerate` leaves under the old id for a minute |
//! | response head | the status and the header fields of a response, which are sent before its body |
//! | end, destroy | what an administrator or a handler does to a session |
//! | commit | what happens to the session when the response head is ready: it is saved, renewed, ended or left as it is |
//!
//! # Guides
//!
//! [Choosing a store](guide::choosing_a_store) · [values, keys and flash messages](guide::values) ·
//! [the cookie: http and https, other sites, proxies](guide::cookies) ·
//! [logins: remember me, two steps, devices](guide::logins) · [a logout that is final](guide::revocation) ·
//! [stolen cookies that stop working][`guide::device_bound`] (feature `device-bound`) ·
//! [forms, and payment providers](guide::forms) · [hyper servers, axum, tower and tonic](guide::frameworks) ·
//! [connections that stay open: sockets and streams of events](guide::connections) ·
//! [changing the store](guide::changing_stores) · [key rotation without downtime](guide::key_rotation) ·
//! [a security checklist](guide::security), by OWASP ASVS and NIST ·
//! [logs and metrics](guide::observability) · [testing your application](guide::testing) ·
//! [coming from tower-sessions, actix-session, axum-login or express-session](guide::migrating) · [limits](guide::limits) ·
//! [deploying on Redis][`guide::deploying_on_redis`] (feature `redis`) ·
//! [moving from Astra][`guide::moving_from_astra`] (feature `astra`)
//!
//! # What a request costs
//!
//! The cookie is found by a substring search in the header, without a copy. If the handler does not ask for its session,
//! nothing else happens: no decoding, no call of the store, and the response is passed through unchanged. When a handler
//! asks for its session, the token is decoded, checked and decrypted in one buffer. Each value is decoded when it is read.
//!
//! # What happens when the response head is ready
//!
//! | the handler | what happens |
//! |---|---|
//! | never asked for the session | nothing |
//! | read | `Vary: Cookie`; no `Set-Cookie`, unless the renewal threshold is reached, or the key, the format or the name of the cookie is a former one |
//! | changed a value | the session is saved; one `Set-Cookie`; `Cache-Control: no-store` |
//! | set a value equal to the present one | as if it had read it |
//! | deleted the last value of a session without a subject | the session is destroyed, and the cookie removed |
//! | stored nothing in a new session | nothing is created |
//! | called `regenerate` | new id and token, same values, same absolute deadline |
//! | called `login` | new id and token, bound to a subject, with a new absolute deadline; a session that was bound to a different subject ends, and a new one begins |
//! | called `reauthenticate` | as `regenerate`, with a new absolute deadline |
//! | called `destroy` | ended, and the cookie removed with the attributes it was set with |
//! | called `discard` | changes that were not saved are dropped |
//! | answered with a 5xx status, 408, or a failed `grpc-status` | changed values are dropped, `destroy` and `regenerate` are done ([another rule](store::Builder::discard_changes_on)) |
//! | answered with a 1xx status | no cookie; only `destroy` takes effect, on a cookie store only with revocations |
//! | returned an [`Error`] | changed values are dropped, `destroy` and `regenerate` are done; a 503 with `Retry-After`, a 403 for a forged form, or a 500 |
//! | returned another error, panicked, was dropped before it returned | nothing more is saved; a `destroy` before it is lost, too |
//! | called `save`, which failed | the handler's response is sent; the session is saved again only if the handler calls `save` again |
//! | wrote after the head was sent | the write returns an error |
//!
//! If a session cannot be saved, the response is replaced by a 503 (a 500 if a later attempt cannot help), and the session's
//! cookie is not sent. A failure of work that the handler did not ask for, such as a renewal, does not fail the request. If a
//! session cannot be loaded, the handler gets the error, and no cookie is removed.
//!
//! If a cookie is forged, expired or unknown, the handler gets an empty session and the cookie is removed. The client does not
//! learn the reason, but an [`Event`] reports it. On a server-side store or with revocations, a superseded token gives an
//! empty session, too. Its cookie is not removed: the browser has the new token, or is about to get it. Cookies that may be
//! valid elsewhere are not removed either, for example those under an unknown key: see [`Refusal::removes_cookie`].
//!
//! # Cancel safety
//!
//! hyper drops a response's future when the client goes away. If that happens before the handler is done, nothing is saved.
//! If it happens afterwards, a save is done completely or not at all. A `destroy` or `regenerate` is completed in the
//! background, on the tokio runtime where the future was dropped. A graceful shutdown waits for connections, not for this
//! work.
//!
//! # Features
//!
//! No feature is on by default, and no feature changes the behaviour of another.
//!
//! - `memory`: [`MemoryStore`], server-side sessions inside this process, for tests and for services of a single process. No
//!   further dependencies.
//! - `redis`: [`RedisStore`], sessions in Redis: one server, Sentinel or Cluster. Depends on bb8-redis, redis and
//!   `quick_cache`.
//!   See [`guide::deploying_on_redis`].
//! - `sqlite`: [`SqliteStore`], sessions in one SQLite file, which the processes of one machine may share. It needs no
//!   server. Depends on rusqlite and rustix, and compiles SQLite with the C compiler that aws-lc-rs needs, too.
//! - `redis-tls`: TLS to Redis, with rustls on aws-lc-rs.
//! - `astra`: reads and writes the cookies and the stored sessions of Astra (Go), to run beside it or to move away from it:
//!   see [`guide::moving_from_astra`]. No further dependencies.
//! - `tower`: [`SessionLayer`], and [`SessionService`] as a tower service, for a stack of tower middleware, a hyper-util
//!   server, or tonic. Depends on the crates of tower's two traits, without middleware.
//! - `axum`: [`Session`], [`SessionView`] and [`SessionHandle`] as extractors, with [`Error`] as their rejection. Turns on
//!   `tower`, and depends on axum-core.
//! - `tracing`: every [`Event`] as a log line. [Names and levels](guide::observability).
//! - `metrics`: every [`Event`] counted, and the store timed, through the `metrics` facade. [Names and a dashboard](guide::observability).
//! - `cli`: the binary `hyper-session`, for operators. It makes keys, and checks whether a key rotation logs users out.
//!   It opens a cookie, or prints why it is refused. It lists and ends the sessions of a subject in Redis, and revokes
//!   sessions in cookies. Turns on `device-bound`, `redis-tls` and `sqlite`, and depends on lexopt. Not for libraries.
//! - `device-bound`: sessions that only one device can use (Device Bound Session Credentials):
//!   see [`guide::device_bound`]. Depends on sfv and `serde_json`.
//! - `testing`: requests that carry a session, the session in a response, a fake clock, and a backend that fails on
//!   command. Also test suites for the contracts of a [`Backend`](store::Backend) and of a
//!   [`RevocationLog`](revocation::RevocationLog). Depends on socket2. [How to use it](guide::testing).
//!
//! # Stability
//!
//! Byte formats are kept within a major version (`docs/WIRE.md` in the repository). The text of errors, the type of an error's
//! source, `Debug` output and default timeouts may change in any version.
//!
#![cfg_attr(
    not(feature = "memory"),
    doc = "[`MemoryStore`]: https://docs.rs/hyper-session/latest/hyper_session/type.MemoryStore.html"
)]
#![cfg_attr(
    not(feature = "redis"),
    doc = "[`RedisStore`]: https://docs.rs/hyper-session/latest/hyper_session/type.RedisStore.html"
)]
#![cfg_attr(
    not(feature = "sqlite"),
    doc = "[`SqliteStore`]: https://docs.rs/hyper-session/latest/hyper_session/type.SqliteStore.html"
)]
#![cfg_attr(
    not(feature = "tower"),
    doc = "[`SessionLayer`]: https://docs.rs/hyper-session/latest/hyper_session/struct.SessionLayer.html"
)]
#![cfg_attr(
    not(feature = "redis"),
    doc = "[`guide::deploying_on_redis`]: https://docs.rs/hyper-session/latest/hyper_session/guide/deploying_on_redis/index.html"
)]
#![cfg_attr(
    not(feature = "device-bound"),
    doc = "[`guide::device_bound`]: https://docs.rs/hyper-session/latest/hyper_session/guide/device_bound/index.html"
)]
#![cfg_attr(
    not(feature = "astra"),
    doc = "[`guide::moving_from_astra`]: https://docs.rs/hyper-session/latest/hyper_session/guide/moving_from_astra/index.html"
)]
#![forbid(unsafe_code)]
#![cfg_attr(docsrs_hyper_session, feature(doc_cfg))]

// From the lowest layer to the highest. Each imports only from modules above it; `.ci/layering` has the table.
mod error;

mod clock;
#[cfg(feature = "sqlite")]
mod file_identity;
mod id;
mod join;
mod lock;
mod runtime;
#[cfg(feature = "sqlite")]
mod sqlite_file;

mod event;

pub mod cookie;

mod crypto;

mod session;

#[cfg(feature = "device-bound")]
mod device_bound;

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

#[doc(hidden)]
#[path = "internals.rs"]
pub mod __internals;

#[cfg(any(doc, doctest))]
pub mod guide;

pub use self::clock::{Clock, SystemClock, Timestamp};
pub use self::config::{SiteData, Timeouts};
pub use self::crypto::{AppKey, KeyId, Keyring};
#[cfg(feature = "device-bound")]
pub use self::device_bound::DeviceBound;
pub use self::error::Error;
#[cfg(feature = "metrics")]
pub use self::event::count::describe_metrics;
pub use self::event::{
    CookieFormat, CrossOriginReason, DropReason, Event, EventKind, MigrationSource, NearCacheEmptied,
    Observer, Operation, ProofRefusal, Refusal, RevocationChange,
};
pub use self::revocation::revocations::Revocations;
pub use self::service::{
    CrossOriginFuture, CrossOriginProtection, CrossOriginService, FailureResponse, ResponseFuture,
    SessionExt, SessionFn, SessionHandle, SessionService, SessionWatch, StatusOnly, session_fn,
};
#[cfg(feature = "device-bound")]
pub use self::service::{DeviceBoundFuture, DeviceBoundService, HandlerService};
#[doc(hidden)]
pub use self::session::__example;
#[cfg(feature = "device-bound")]
pub use self::session::Binding;
pub use self::session::{
    AsKey, Authentication, Key, Lifetime, PayloadFormat, ReadKey, Session, SessionId, SessionView, Text,
    WriteKey,
};
pub use self::store::cookie::CookieStore;
#[cfg(feature = "memory")]
pub use self::store::memory::MemoryStore;
#[cfg(feature = "redis")]
pub use self::store::redis::options::RedisStore;
pub use self::store::server::ServerStore;
#[cfg(feature = "sqlite")]
pub use self::store::sqlite::options::SqliteStore;
#[cfg(all(feature = "tower", feature = "device-bound"))]
pub use self::tower::DeviceBoundLayer;
#[cfg(feature = "tower")]
pub use self::tower::SessionLayer;

/// The example of the README, compiled and run with the examples of the documentation.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

#[cfg(test)]
mod tests {
    use super::*;

    // T38: types that are shared between threads must be `Send` and `Sync`.
    #[test]
    fn public_types_are_send_and_sync() {
        fn shared<T: Send + Sync + 'static>() {}
        fn sendable<T: Send>() {}
        shared::<Session>();
        shared::<SessionHandle>();
        shared::<CookieStore>();
        shared::<Keyring>();
        shared::<AppKey>();
        shared::<Error>();
        shared::<__internals::Record>();
        shared::<__internals::Changes>();
        shared::<SessionService<()>>();
        sendable::<ResponseFuture<std::future::Ready<()>, (), StatusOnly>>();
    }

    // `docs/public-api.txt` lists no derived implementations.
    #[test]
    fn types_that_users_clone_are_clone_and_debug() {
        fn cloned<T: Clone + std::fmt::Debug>() {}
        cloned::<Session>();
        cloned::<SessionView>();
        cloned::<SessionHandle>();
        cloned::<CookieStore>();
        cloned::<store::MigratingStore>();
        cloned::<Keyring>();
        cloned::<Revocations>();
        cloned::<Lifetime>();
        cloned::<Authentication>();
        cloned::<Text>();
        cloned::<cookie::CookieOptions>();
        cloned::<store::SubjectSession>();
        cloned::<store::Stored>();
        cloned::<store::Replaced>();
        cloned::<CrossOriginProtection>();
        cloned::<SessionService<()>>();
        cloned::<StatusOnly>();
        cloned::<Event<'static>>();
        cloned::<SystemClock>();
        #[cfg(feature = "memory")]
        cloned::<MemoryStore>();
        #[cfg(feature = "redis")]
        cloned::<RedisStore>();
        #[cfg(feature = "sqlite")]
        cloned::<SqliteStore>();
        #[cfg(feature = "device-bound")]
        cloned::<DeviceBound>();
    }

    #[test]
    fn small_types_stay_small() {
        assert_eq!(size_of::<Session>(), size_of::<usize>());
        assert_eq!(size_of::<SessionHandle>(), size_of::<usize>());
        assert_eq!(size_of::<Option<SessionId>>(), 17);
    }
}
