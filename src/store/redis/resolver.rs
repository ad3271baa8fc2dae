//! Looking up the addresses of a server's name.

use std::collections::HashMap;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex};

use bb8_redis::redis::RedisFuture;
use bb8_redis::redis::io::AsyncDNSResolver;
use tokio::sync::watch;

use crate::lock::lock;

type Found = io::Result<Vec<SocketAddr>>;
type LookUp = dyn Fn(String, u16) -> Pin<Box<dyn Future<Output = Found> + Send>> + Send + Sync;

/// A host and a port.
type Name = (String, u16);
/// The result of a look-up, for all tasks that wait for it. An error is its kind and its text. `None` while the look-up is under
/// way.
type Answer = Option<Result<Vec<SocketAddr>, (io::ErrorKind, String)>>;
type UnderWay = Mutex<HashMap<Name, watch::Receiver<Answer>>>;

/// A function that is asked for the addresses of a host and a port before each connection is made.
///
/// A name is looked up once at a time, for all tasks that ask meanwhile. The resolver of the operating system holds a thread of
/// tokio for as long as it takes, even if no task waits for it. While it hangs, each attempt to connect would hold a thread.
#[derive(Clone)]
pub(super) struct Resolver {
    look_up: Arc<LookUp>,
    under_way: Arc<UnderWay>,
}

impl Resolver {
    pub(super) fn new<F>(look_up: impl Fn(String, u16) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Found> + Send + 'static,
    {
        Self { look_up: Arc::new(move |host, port| Box::pin(look_up(host, port))), under_way: Arc::default() }
    }

    /// Returns the resolver of the operating system.
    pub(super) fn system() -> Self {
        Self::new(|host, port| async move { Ok(tokio::net::lookup_host((host, port)).await?.collect()) })
    }

    /// Looks the name up, or waits for the look-up that is under way.
    async fn addresses(&self, name: Name) -> Found {
        let mut answer = self.answer(name);
        match answer.wait_for(Option::is_some).await.as_deref() {
            Ok(Some(Ok(addresses))) => Ok(addresses.clone()),
            Ok(Some(Err((kind, text)))) => Err(io::Error::new(*kind, text.clone())),
            _ => Err(io::Error::other("the runtime of the task that looked the name up has ended")),
        }
    }

    fn answer(&self, name: Name) -> watch::Receiver<Answer> {
        let (sender, receiver) = watch::channel(None);
        {
            let mut under_way = lock(&self.under_way);
            if let Some(answer) = under_way.get(&name) {
                return answer.clone();
            }
            under_way.insert(name.clone(), receiver.clone());
        }
        let looking_up = LookingUp { under_way: Arc::clone(&self.under_way), name, answer: sender };
        let found = (self.look_up)(looking_up.name.0.clone(), looking_up.name.1);
        // A task of its own: the look-up goes on when the attempt to connect has given up. Not under the lock: a runtime that is
        // shutting down drops the task at once.
        drop(tokio::spawn(async move {
            let found = found.await.map_err(|error| (error.kind(), error.to_string()));
            looking_up.answer.send_replace(Some(found));
        }));
        receiver
    }
}

/// A look-up that is under way, until it is dropped.
struct LookingUp {
    under_way: Arc<UnderWay>,
    name: Name,
    answer: watch::Sender<Answer>,
}

impl Drop for LookingUp {
    fn drop(&mut self) {
        lock(&self.under_way).remove(&self.name);
    }
}

impl AsyncDNSResolver for Resolver {
    fn resolve<'a, 'b: 'a>(
        &'a self,
        host: &'b str,
        port: u16,
    ) -> RedisFuture<'a, Box<dyn Iterator<Item = SocketAddr> + Send + 'a>> {
        Box::pin(async move {
            let addresses = self.addresses((host.to_owned(), port)).await?;
            // redis-rs panics if there is no address to connect to.
            if addresses.is_empty() {
                return Err(io::Error::new(io::ErrorKind::NotFound, "the name has no address").into());
            }
            Ok(Box::new(addresses.into_iter()) as Box<dyn Iterator<Item = SocketAddr> + Send>)
        })
    }
}
