//! A Rust service, a simulated Go process that knows only Astra's formats, a clock, and a browser.

use std::collections::BTreeMap;
use std::sync::Arc;

use hyper::service::Service;
use hyper_session::cookie::CookieOptions;
use hyper_session::store::{Builder, CookieKeys, Store};
use hyper_session::testing::FakeClock;
use hyper_session::{AppKey, CookieStore, Error, Session, SessionHandle, Timestamp, session_fn};
use serde_json::Value;

use crate::independent;
use crate::support::{Body, Events, Jar, block_on, status, visit};

pub(crate) const START: u64 = 1_800_000_000;
pub(crate) const NAME: &str = "astra_session";
pub(crate) const ASTRA_KEY: &[u8] = b"whatever was given to NewCookieStore";
pub(crate) const NATIVE_KEY: &[u8] = b"a key of this crate's, for tests";

pub(crate) struct World {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) clock: FakeClock,
    pub(crate) events: Events,
}

pub(crate) fn key(bytes: &[u8]) -> AppKey {
    AppKey::danger_from_any_bytes(bytes).unwrap()
}

pub(crate) fn builder() -> Builder<CookieKeys> {
    CookieStore::builder(key(NATIVE_KEY)).cookie(CookieOptions::astra())
}

impl World {
    pub(crate) fn of(builder: Builder<CookieKeys>) -> Self {
        let (clock, events) = (FakeClock::at(START), Events::new());
        let store = builder.clock(clock.clone()).observer(events.clone()).build().unwrap();
        Self { store: Arc::new(store), clock, events }
    }

    /// Migrating for the next `seconds`.
    pub(crate) fn migrating(seconds: u64) -> Self {
        Self::of(builder().migrate_from_astra(key(ASTRA_KEY), Timestamp::from_unix(START + seconds)))
    }

    pub(crate) fn beside() -> Self {
        Self::of(builder().beside_astra(key(ASTRA_KEY)))
    }

    /// Without a mode.
    pub(crate) fn native() -> Self {
        Self::of(builder())
    }

    /// One request of this browser, and what its handler does: the status, and the Set-Cookie lines.
    pub(crate) fn visit<A>(&self, jar: &mut Jar, act: A) -> (u16, Vec<String>)
    where
        A: Fn(&Session) -> Result<(), Error> + Clone + Send + Sync + 'static,
    {
        let service =
            session_fn(Arc::clone(&self.store), move |_: http::Request<Body>, session: SessionHandle| {
                let act = act.clone();
                async move {
                    act(&session.load().await?)?;
                    Ok::<_, Error>(status(200))
                }
            });
        let response = block_on(visit(&service, "/", jar));
        (response.status().as_u16(), crate::support::set_cookies(response.headers()))
    }

    /// The values that a handler reads in this browser's session, as JSON.
    pub(crate) fn values(&self, jar: &Jar) -> BTreeMap<String, Value> {
        let seen = Arc::new(std::sync::Mutex::new(BTreeMap::new()));
        let to = Arc::clone(&seen);
        self.visit(&mut jar.clone(), move |session| {
            for key in session.keys() {
                let value = session.get(&key)?.unwrap();
                to.lock().unwrap().insert(key, value);
            }
            Ok(())
        });
        Arc::into_inner(seen).unwrap().into_inner().unwrap()
    }

    /// How the store itself takes this cookie.
    pub(crate) fn load(&self, cookie: &str) -> Result<(), String> {
        let now = hyper_session::Clock::now(&self.clock);
        let loaded = block_on(self.store.load(cookie.as_bytes(), now)).unwrap();
        loaded.map(drop).map_err(|refusal| refusal.to_string())
    }
}

/// A browser with a cookie that Astra made of this JSON.
pub(crate) fn astra_jar(json: &str) -> Jar {
    // Any nonce will do, as long as each JSON has its own.
    let mut nonce = *b"a nonce here";
    json.bytes().enumerate().for_each(|(at, byte)| nonce[at % 12] ^= byte);
    Jar::with(NAME, &independent::seal(ASTRA_KEY, nonce, json.as_bytes()))
}

/// The JSON that Astra reads from this browser's cookie, or nothing if that is not its own.
pub(crate) fn astra_json(jar: &Jar) -> Option<String> {
    let json = independent::open(ASTRA_KEY, jar.get(NAME)?.as_bytes())?;
    Some(String::from_utf8(json).unwrap())
}

/// A handler that does nothing but look.
#[allow(clippy::unnecessary_wraps)] // it is a handler
pub(crate) fn look(session: &Session) -> Result<(), Error> {
    session.keys();
    Ok(())
}

/// Sends a request without looking at anything but the status.
pub(crate) async fn call<S>(service: &S, jar: &mut Jar) -> u16
where
    S: Service<http::Request<Body>, Response = http::Response<Body>>,
    S::Error: std::fmt::Debug,
{
    visit(service, "/", jar).await.status().as_u16()
}
