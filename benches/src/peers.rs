//! The libraries that the crate is compared with, each as its documentation says, with the same values in its session.

use std::convert::Infallible;
use std::time::Duration;

use axum::extract::FromRequestParts;
use biscotti::config::{CryptoAlgorithm, CryptoRule};
use biscotti::{Processor, ProcessorConfig};
use http::{Request, Response};
use serde::{Deserialize, Serialize};
use tower::{Layer, Service, service_fn};
pub use tower_sessions::MemoryStore;
use tower_sessions::SessionManagerLayer;
use tower_sessions_cookie_store::{CookieSessionConfig, CookieSessionManagerLayer};

use crate::services::{Action, Arm, Body, USER, VISITS, checked, hello, text};
use crate::{KEY, ready};

/// A tower service that hyper can serve.
pub trait Peer<B>:
    Service<Request<B>, Response = Response<Body>, Error = Infallible, Future: Send> + Clone + Send + 'static
{
}

impl<B, S> Peer<B> for S where
    S: Service<Request<B>, Response = Response<Body>, Error = Infallible, Future: Send>
        + Clone
        + Send
        + 'static
{
}

/// tower-sessions' handlers, for its two major versions of the session type.
macro_rules! tower_sessions_handler {
    ($session:ty) => {
        |request: Request<_>| async move {
            let action = Action::of(&request);
            if action == Action::Untouched {
                return Ok::<_, Infallible>(hello());
            }
            let session = request.extensions().get::<$session>().unwrap();
            match action {
                Action::Login => {
                    session.insert("user", USER).await.unwrap();
                    session.insert("visits", VISITS).await.unwrap();
                    session.insert("text", text()).await.unwrap();
                }
                Action::Untouched => {}
                Action::Read => return Ok(checked(session.get("visits").await.unwrap())),
                Action::Change => {
                    let visits: Option<u64> = session.get("visits").await.unwrap();
                    session.insert("visits", visits.unwrap_or(0) + 1).await.unwrap();
                    return Ok(checked(visits));
                }
                Action::Destroy => session.flush().await.unwrap(),
            }
            Ok(hello())
        }
    };
}

/// tower-sessions on its memory store: the cookie holds an id.
pub fn tower_sessions<B: Send + 'static>(store: MemoryStore) -> impl Peer<B> {
    let handler = service_fn(tower_sessions_handler!(tower_sessions::Session));
    SessionManagerLayer::new(store).layer(handler)
}

/// tower-sessions-cookie-store, encrypted.
pub fn tower_sessions_cookie<B: Send + 'static>() -> impl Peer<B> {
    let handler = service_fn(tower_sessions_handler!(tower_sessions_cookie_store::Session));
    let key = tower_sessions_cookie_store::Key::from(&KEY);
    CookieSessionManagerLayer::private(key).with_config(CookieSessionConfig::default()).layer(handler)
}

/// seshcookie's session is one value of one type.
#[derive(Clone, Serialize, Deserialize)]
struct Values {
    user: String,
    visits: u64,
    text: String,
}

/// seshcookie: encrypted, with a time inside.
pub fn seshcookie<B: Send + 'static>() -> impl Peer<B> {
    let handler = service_fn(|request: Request<B>| async move {
        let action = Action::of(&request);
        if action == Action::Untouched {
            return Ok::<_, Infallible>(hello());
        }
        let (mut parts, _) = request.into_parts();
        let session = seshcookie::Session::<Values>::from_request_parts(&mut parts, &()).await.unwrap();
        match action {
            Action::Login => {
                session.insert(Values { user: USER.to_owned(), visits: VISITS, text: text() }).await;
            }
            Action::Untouched => {}
            Action::Read => return Ok(checked(session.get().await.map(|values| values.visits))),
            Action::Change => {
                let visits = session.modify(|values| {
                    let values = values.as_mut()?;
                    values.visits += 1;
                    Some(values.visits - 1)
                });
                return Ok(checked(visits.await));
            }
            Action::Destroy => session.clear().await,
        }
        Ok(hello())
    });
    let keys = seshcookie::SessionKeys::new(&KEY).unwrap();
    let config = seshcookie::SessionConfig::default().max_age(Duration::from_secs(86_400));
    seshcookie::SessionLayer::<Values>::new(keys, config).unwrap().layer(handler)
}

fn arm(name: &'static str, mut service: impl Peer<Body>) -> Arm {
    Arm::new(name, move |request| ready(service.call(request)).unwrap())
}

/// The arms that are called in process.
pub fn arms() -> [Arm; 3] {
    [
        arm("tower-sessions-memory", tower_sessions(MemoryStore::default())),
        arm("tower-sessions-cookie-store", tower_sessions_cookie()),
        arm("seshcookie", seshcookie()),
    ]
}

/// Seals and opens encrypted cookies of one name with biscotti.
pub fn biscotti(name: &str) -> Processor {
    let mut config = ProcessorConfig::default();
    config.crypto_rules.push(CryptoRule {
        cookie_names: vec![name.to_owned()],
        algorithm: CryptoAlgorithm::Encryption,
        key: biscotti::Key::from(KEY.to_vec()),
        fallbacks: Vec::new(),
    });
    config.into()
}
