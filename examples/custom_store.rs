//! Sessions in storage of your own: a `Backend` has five primitives, and `ServerStore` does the rest.
//!
//! ```text
//! cargo run --example custom_store
//! ```
#![allow(clippy::print_stdout)] // it is a program

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::server::conn::http1;
use hyper::{Request, Response, body::Incoming};
use hyper_session::store::{Backend, EntryId, Replaced, Stored};
use hyper_session::{Error, ServerStore, SessionHandle, Timestamp, session_fn};
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;

/// A map behind a lock. Each method is one atomic step, because it holds the lock while it runs.
#[derive(Default)]
pub(crate) struct Map(Mutex<HashMap<EntryId, Stored>>);

impl Map {
    /// Locks the map, after freeing the entries that expired a quarter of an hour ago.
    fn lock(&self, now: Timestamp) -> MutexGuard<'_, HashMap<EntryId, Stored>> {
        const KEPT: Duration = Duration::from_secs(15 * 60); // a slow request still saves its session
        let mut entries = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        entries.retain(|_, entry| entry.expires.saturating_add(KEPT) > now);
        entries
    }
}

impl Backend for Map {
    async fn fetch(&self, id: EntryId, now: Timestamp) -> Result<Option<Stored>, Error> {
        Ok(self.lock(now).get(&id).filter(|entry| entry.expires > now).cloned())
    }

    async fn create(&self, id: EntryId, entry: Stored, now: Timestamp) -> Result<bool, Error> {
        let mut entries = self.lock(now);
        if let Some(present) = entries.get(&id).filter(|entry| entry.expires > now) {
            return Ok(present.value == entry.value);
        }
        entries.insert(id, entry);
        Ok(true)
    }

    async fn replace(
        &self,
        id: EntryId,
        expected: Bytes,
        entry: Option<Stored>,
        now: Timestamp,
    ) -> Result<Replaced, Error> {
        let mut entries = self.lock(now);
        match entries.get(&id).filter(|entry| entry.expires > now) {
            None => return Ok(Replaced::Missing),
            Some(current) if current.value == expected => {}
            // A step that is repeated because its reply was lost finds its own value: that is success.
            Some(current) if entry.as_ref().is_some_and(|entry| entry.value == current.value) => {}
            Some(current) => return Ok(Replaced::Conflict(current.clone())),
        }
        match entry {
            Some(entry) => entries.insert(id, entry),
            None => entries.remove(&id),
        };
        Ok(Replaced::Done)
    }

    async fn touch(&self, id: EntryId, expires: Timestamp, now: Timestamp) -> Result<bool, Error> {
        let mut entries = self.lock(now);
        let entry = entries.get_mut(&id).filter(|entry| entry.expires > now);
        Ok(entry.map(|entry| entry.expires = expires).is_some())
    }

    async fn delete(&self, id: EntryId) -> Result<(), Error> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&id);
        Ok(())
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let store = ServerStore::with_backend(Map::default()).development().build()?;
    let listener = TcpListener::bind("127.0.0.1:3000").await?;
    println!("listening on http://{}", listener.local_addr()?);
    loop {
        // For example, too many files are open. Wait, and try again.
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
            continue;
        };
        let service = session_fn(store.clone(), count);
        tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
    }
}

async fn count(_: Request<Incoming>, session: SessionHandle) -> Result<Response<Full<Bytes>>, Error> {
    let session = session.load().await?;
    let visits = session.update("visits", |visits: Option<u64>| visits.unwrap_or(0) + 1)?;
    Ok(Response::new(format!("visit number {visits}\n").into()))
}
