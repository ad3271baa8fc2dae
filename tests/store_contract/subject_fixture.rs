//! A server with subjects, its clock, browsers, and the session lists that the backend holds.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use hyper::service::service_fn;
use hyper_session::store::{Backend, Builder, EntryId, Stored};
use hyper_session::testing::FakeClock;
use hyper_session::{Clock, Error, ServerStore, Session, SessionExt, SessionId, SessionService};
use sha2::Digest as _;

use crate::concurrent_requests::{ABSOLUTE, IDLE, NAME, RENEWAL, START, Watched, run};
use crate::support::{Body, Events, Jar, status, visit};

/// A server whose clock the test moves.
pub(crate) struct World {
    pub(crate) store: ServerStore<Watched>,
    pub(crate) clock: FakeClock,
    pub(crate) events: Events,
}

impl World {
    pub(crate) fn new() -> Self {
        Self::with(|builder| builder)
    }

    pub(crate) fn with(options: impl FnOnce(Builder<Watched>) -> Builder<Watched>) -> Self {
        let (clock, events) = (FakeClock::at(START), Events::new());
        let builder = ServerStore::with_backend(Watched::default())
            .idle_timeout(Duration::from_secs(IDLE))
            .absolute_timeout(Duration::from_secs(ABSOLUTE))
            .renewal_threshold(Duration::from_secs(RENEWAL))
            .clock(clock.clone())
            .observer(events.clone());
        Self { store: options(builder).build().unwrap(), clock, events }
    }

    pub(crate) fn edit(
        &self,
        jar: &mut Jar,
        act: impl Fn(&Session) -> Result<(), Error> + Clone,
    ) -> Response<Body> {
        let handler = service_fn(move |request: Request<Body>| {
            let act = act.clone();
            async move {
                act(&request.session().await?)?;
                Ok::<_, Error>(status(200))
            }
        });
        run(visit(&SessionService::new(handler, self.store.clone()), "/", jar))
    }

    pub(crate) fn look<R: Send + 'static>(&self, jar: &Jar, look: impl Fn(&Session) -> R + Clone) -> R {
        let seen = Arc::new(Mutex::new(None));
        let to_fill = Arc::clone(&seen);
        self.edit(&mut jar.clone(), move |session| {
            *to_fill.lock().unwrap() = Some(look(session));
            Ok(())
        });
        let seen = seen.lock().unwrap().take();
        seen.unwrap()
    }

    pub(crate) fn subject(&self, jar: &Jar) -> Option<String> {
        self.look(jar, |session| session.subject().map(|subject| subject.to_string()))
    }

    pub(crate) fn id(&self, jar: &Jar) -> SessionId {
        self.look(jar, Session::id).expect("a session")
    }

    /// A browser in which `subject` logs in.
    pub(crate) fn login(&self, subject: &'static str) -> Jar {
        let mut jar = Jar::new();
        self.edit(&mut jar, |session| session.login(subject));
        assert!(jar.get(NAME).is_some());
        jar
    }

    pub(crate) fn listed(&self, subject: &str) -> Vec<SessionId> {
        run(self.store.sessions_of(subject)).unwrap().into_iter().map(|session| session.id).collect()
    }

    pub(crate) fn end_all(&self, subject: &str, keep: Option<SessionId>) -> usize {
        run(self.store.end_sessions_of(subject, keep)).unwrap()
    }

    pub(crate) fn end_one(&self, subject: &str, id: SessionId) -> bool {
        run(self.store.end_session_of(subject, id)).unwrap()
    }

    /// Advances in whole seconds.
    pub(crate) fn wait(&self, seconds: u64) {
        self.clock.advance(Duration::from_secs(seconds));
    }

    /// Returns the backend's entry for the list of `subject`'s sessions.
    pub(crate) fn list(&self, subject: &str) -> Option<Stored> {
        run(self.store.backend().memory.fetch(list_id(subject), self.clock.now())).unwrap()
    }

    pub(crate) fn overwrite_list(&self, subject: &str, value: &'static [u8]) {
        let (memory, id, now) = (&self.store.backend().memory, list_id(subject), self.clock.now());
        let expires = now.saturating_add(Duration::from_secs(ABSOLUTE));
        run(memory.delete(id)).unwrap();
        assert!(run(memory.create(id, Stored { value: Bytes::from_static(value), expires }, now)).unwrap());
    }
}

/// As `docs/WIRE.md` has it.
pub(crate) fn list_id(subject: &str) -> EntryId {
    let hash = sha2::Sha256::new()
        .chain_update(b"hyper-session subject v1\0")
        .chain_update(NAME)
        .chain_update([0])
        .chain_update(subject);
    EntryId::from_bytes(hash.finalize()[..16].try_into().unwrap())
}
