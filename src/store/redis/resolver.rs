//! Looking up the addresses of a server's name.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;

use bb8_redis::redis::RedisFuture;
use bb8_redis::redis::io::AsyncDNSResolver;

type Found = io::Result<Vec<SocketAddr>>;
type LookUp = dyn Fn(String, u16) -> Pin<Box<dyn Future<Output = Found> + Send>> + Send + Sync;

/// A function that is asked for the addresses of a host and a port before each connection is made.
#[derive(Clone)]
pub(super) struct Resolver(Arc<LookUp>);

impl Resolver {
    pub(super) fn new<F>(look_up: impl Fn(String, u16) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Found> + Send + 'static,
    {
        Self(Arc::new(move |host, port| Box::pin(look_up(host, port))))
    }

    /// Returns the resolver of the operating system.
    pub(super) fn system() -> Self {
        Self::new(|host, port| async move { Ok(tokio::net::lookup_host((host, port)).await?.collect()) })
    }
}

impl AsyncDNSResolver for Resolver {
    fn resolve<'a, 'b: 'a>(
        &'a self,
        host: &'b str,
        port: u16,
    ) -> RedisFuture<'a, Box<dyn Iterator<Item = SocketAddr> + Send + 'a>> {
        let looking_up = (self.0)(host.to_owned(), port);
        Box::pin(async move {
            let addresses = looking_up.await?;
            // redis-rs panics if there is no address to connect to.
            if addresses.is_empty() {
                return Err(io::Error::new(io::ErrorKind::NotFound, "the name has no address").into());
            }
            Ok(Box::new(addresses.into_iter()) as Box<dyn Iterator<Item = SocketAddr> + Send>)
        })
    }
}
