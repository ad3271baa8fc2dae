//! Sessions in storage of your own: a `Backend` has five primitives, and `ServerStore` does the rest.
//!
//! ```text
//! cargo run --example custom_store
//! ```
#![allow(clippy::print_stdout)] // it is a program

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

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
struct Map(Mutex<HashMap<EntryId, Stored>>);

impl Map {
    /// Locks the map, after removing the entries that have expired.
    fn live(&self, now: Timestamp) -> MutexGuard<'_, HashMap<EntryId, Stored>> {
        let mut entries = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        entries.retain(|_, entry| entry.expires > now);
        entries
    }
}

impl Backend for Map {
    async fn fetch(&self, id: EntryId, now: Timestamp) -> Result<Option<Stored>, Error> {
        Ok(self.live(now).get(&id).cloned())
    }

    async fn create(&self, id: EntryId, entry: Stored, now: Timestamp) -> Result<bool, Error> {
        let value = entry.value.clone();
        Ok(self.live(now).entry(id).or_insert(entry).value == value)
    }

    async fn replace(
        &self,
        id: EntryId,
        expected: Bytes,
        entry: Option<Stored>,
        now: Timestamp,
    ) -> Result<Replaced, Error> {
        let mut entries = self.live(now);
        match entries.get(&id) {
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
        Ok(self.live(now).get_mut(&id).map(|entry| entry.expires = expires).is_some())
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
        // It fails if too many files are open, for example. That passes.
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
