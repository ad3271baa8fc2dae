//! The stored session list of a subject: any bytes under its id.

use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::{Request, Response};
use hyper::service::Service;
use hyper_session::store::{Backend, EntryId, Memory, Replaced, Stored};
use hyper_session::testing::{FakeClock, Faulty, Primitive};
use hyper_session::{Error, ServerStore, SessionHandle, Timestamp, session_fn};

use crate::{NOW, run};

const SUBJECT: &str = "ada";

/// The length of a listed session: id, two times, and a flag.
const ENTRY: usize = 33;

/// A backend that has one value for the list, and one session under all other ids.
#[derive(Clone)]
struct Listed {
    list: EntryId,
    value: Stored,
    session: Stored,
}

impl Backend for Listed {
    async fn fetch(&self, id: EntryId, _: Timestamp) -> Result<Option<Stored>, Error> {
        Ok(Some(if id == self.list { self.value.clone() } else { self.session.clone() }))
    }

    async fn create(&self, _: EntryId, _: Stored, _: Timestamp) -> Result<bool, Error> {
        Ok(false)
    }

    async fn replace(
        &self,
        _: EntryId,
        _: Bytes,
        _: Option<Stored>,
        _: Timestamp,
    ) -> Result<Replaced, Error> {
        Ok(Replaced::Missing)
    }

    async fn touch(&self, _: EntryId, _: Timestamp, _: Timestamp) -> Result<bool, Error> {
        Ok(false)
    }

    async fn delete(&self, _: EntryId) -> Result<(), Error> {
        Ok(())
    }
}

/// The list of a user who has just logged in, and the session.
fn genuine() -> Listed {
    let (backend, created) = (Faulty::new(Memory::new()), Arc::new(Mutex::new(Vec::new())));
    let notes = Arc::clone(&created);
    backend.intercept(move |call| {
        if let (Primitive::Create, Some(entry)) = (call.primitive, &call.entry) {
            notes.lock().unwrap().push((call.id, entry.clone()));
        }
        None
    });
    let store = ServerStore::with_backend(backend).clock(FakeClock::at(NOW)).development().build().unwrap();
    let service = session_fn(store, |_: Request<()>, handle: SessionHandle| async move {
        handle.load().await?.login(SUBJECT)?;
        Ok::<_, Error>(Response::new(()))
    });
    run(service.call(Request::new(()))).unwrap();
    let [(list, value), (_, session)] =
        created.lock().unwrap().clone().try_into().expect("a list and a session");
    Listed { list, value, session }
}

/// A stored list is unreadable, or has exactly the sessions that another reader finds in it, in their order; both readers
/// agree on which. Nothing is allocated for a claimed length, and ending all of them reports no more than there are.
pub fn session_list(data: &[u8]) {
    thread_local! {
        static GENUINE: Listed = genuine();
    }
    let mut backend = GENUINE.with(Clone::clone);
    backend.value.value = Bytes::copy_from_slice(data);
    let store = ServerStore::with_backend(backend).clock(FakeClock::at(NOW)).development().build().unwrap();
    let mut listed = Ok(Vec::new());
    let counted = allocation_counter::measure(|| listed = run(store.sessions_of(SUBJECT)));
    let bound = 256 * data.len() as u64 + 16_384;
    assert!(counted.bytes_max <= bound, "{} bytes for {}", counted.bytes_max, data.len());
    match (listed, naive(data)) {
        (Ok(listed), Some(expected)) => {
            assert!(listed.iter().map(|session| session.id.to_bytes()).eq(expected.iter().copied()));
            // The backend refuses each write of the list, so only sessions that are flagged already can end.
            let flagged = data.get(9..).unwrap_or_default().chunks(ENTRY).all(|entry| entry[32] == 1);
            match run(store.end_sessions_of(SUBJECT, None)) {
                Ok(ended) => assert!(flagged && ended <= expected.len(), "{ended}"),
                Err(error) => assert!(!expected.is_empty(), "{error}"),
            }
        }
        (Err(error), None) => assert!(error.is_unavailable(), "{error}"),
        (listed, expected) => panic!("{listed:?} of {expected:?}"),
    }
}

/// The ids on a list, by other hands: kind 3, eight bytes, and the sessions.
fn naive(data: &[u8]) -> Option<Vec<[u8; 16]>> {
    let [3, rest @ ..] = data else { return None };
    let entries = rest.get(8..)?;
    if entries.len() % ENTRY != 0 {
        return None;
    }
    let read = |entry: &[u8]| (entry[32] <= 1).then(|| entry[..16].try_into().unwrap());
    entries.chunks(ENTRY).map(read).collect()
}
