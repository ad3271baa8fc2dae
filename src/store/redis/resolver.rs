//! Looking up the addresses of a server's name.

use std::collections::HashMap;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bb8_redis::redis::RedisFuture;
use bb8_redis::redis::io::AsyncDNSResolver;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::lock::lock;

type Found = io::Result<Vec<SocketAddr>>;
type LookUp = dyn Fn(String, u16) -> Pin<Box<dyn Future<Output = Found> + Send>> + Send + Sync;

/// A host and a port.
type Name = (String, u16);
/// The result of a look-up, for all tasks that wait for it. An error is its kind and its text. `None` while the look-up is under
/// way.
type LookedUp = Option<Result<Vec<SocketAddr>, (io::ErrorKind, String)>>;
/// When each look-up began, and its result.
type UnderWay = Mutex<HashMap<Name, (Instant, watch::Receiver<LookedUp>)>>;

/// After this long, another look-up replaces one that is under way: the runtime of its task may be one that no thread drives. The
/// resolver of the operating system gives up sooner, or hangs.
const LONGEST_LOOK_UP: Duration = Duration::from_secs(30);

/// A function that is asked for the addresses of a host and a port before each connection is made.
///
/// A name is looked up once at a time, for all tasks that ask meanwhile. The resolver of the operating system holds a thread of
/// tokio for as long as it takes, even if no task waits for it. While it hangs, each attempt to connect would hold a thread. Now it
/// is one thread for each [`LONGEST_LOOK_UP`].
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
        let mut answer = self.answer(name, Instant::now());
        match answer.wait_for(Option::is_some).await.as_deref() {
            Ok(Some(Ok(addresses))) => Ok(addresses.clone()),
            Ok(Some(Err((kind, text)))) => Err(io::Error::new(*kind, text.clone())),
            _ => Err(io::Error::other("the runtime of the task that looked the name up has ended")),
        }
    }

    fn answer(&self, name: Name, now: Instant) -> watch::Receiver<LookedUp> {
        let (sender, receiver) = watch::channel(None);
        {
            let mut under_way = lock(&self.under_way);
            if let Some((begun, answer)) = under_way.get(&name) {
                if now.saturating_duration_since(*begun) < LONGEST_LOOK_UP {
                    return answer.clone();
                }
            }
            under_way.insert(name.clone(), (now, receiver.clone()));
        }
        let looking_up =
            LookingUp { under_way: Arc::clone(&self.under_way), name, answer: sender, own: receiver.clone() };
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
    answer: watch::Sender<LookedUp>,
    own: watch::Receiver<LookedUp>,
}

impl Drop for LookingUp {
    fn drop(&mut self) {
        let mut under_way = lock(&self.under_way);
        if under_way.get(&self.name).is_some_and(|(_, answer)| answer.same_channel(&self.own)) {
            under_way.remove(&self.name);
        }
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

#[cfg(test)]
mod tests {
    use std::future::pending;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    const ADDRESS: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 6379);

    /// A resolver whose first look-up never ends, and how many it was asked for.
    fn hanging_once() -> (Resolver, Arc<AtomicUsize>) {
        let asked = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&asked);
        let resolver = Resolver::new(move |_, _| {
            let is_first = count.fetch_add(1, Ordering::SeqCst) == 0;
            async move { if is_first { pending().await } else { Ok(vec![ADDRESS]) } }
        });
        (resolver, asked)
    }

    fn name() -> Name {
        ("redis.test".to_owned(), 6379)
    }

    /// The task of the first look-up is never dropped, as in a runtime that is there and that no thread drives.
    #[tokio::test]
    async fn a_look_up_that_does_not_end_is_replaced() {
        let (resolver, asked) = hanging_once();
        let begun = Instant::now();
        let first = resolver.answer(name(), begun);
        let shared = resolver.answer(name(), begun + LONGEST_LOOK_UP / 2);
        assert!(shared.same_channel(&first));
        let mut second = resolver.answer(name(), begun + LONGEST_LOOK_UP);
        let found = second.wait_for(Option::is_some).await.unwrap().clone();
        assert_eq!(found.unwrap().unwrap(), [ADDRESS]);
        assert_eq!(asked.load(Ordering::SeqCst), 2);
    }

    /// The end of a look-up that was replaced does not remove its successor.
    #[tokio::test]
    async fn a_look_up_that_was_replaced_leaves_the_newer_one() {
        let resolver = Resolver::new(|_, _| pending());
        let (under_way, (answer, own)) = (Arc::clone(&resolver.under_way), watch::channel(None));
        let now = Instant::now();
        let newer = resolver.answer(name(), now);
        drop(LookingUp { under_way, name: name(), answer, own });
        assert!(resolver.answer(name(), now).same_channel(&newer));
    }
}
