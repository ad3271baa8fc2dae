//! The options of connections, which a store and a log of revocations share: the servers, logging in, and TLS.

use std::sync::Arc;
use std::time::Duration;

use bb8_redis::redis::ConnectionAddr;

use super::attempts::Pauses;
use super::cluster::Cluster;
use super::credentials::{Credentials, Provider};
use super::dialer::{Access, Dialer, Sentinels, Target};
use super::node::Node;
use super::resolver::Resolver;
use super::stats::Counters;
use super::tls::Tls;
use super::tracker::Tracking;
use super::transport::Transport;
use super::url::{Kind, Url};
use crate::clock::bounded;
use crate::error::Error;

#[derive(Clone)]
pub(super) struct ConnectionOptions {
    url: String,
    pub(super) connections: u32,
    pub(super) connect_timeout: Duration,
    pub(super) credentials: Option<Credentials>,
    pub(super) provider: Option<Provider>,
    pub(super) tls: Tls,
    pub(super) sentinel_credentials: Option<Credentials>,
    pub(super) sentinel_tls: Option<bool>,
    pub(super) sentinel_root: Option<Vec<u8>>,
    pub(super) resolver: Resolver,
}

impl ConnectionOptions {
    pub(super) fn new(url: String) -> Self {
        Self {
            url,
            connections: 2,
            connect_timeout: Duration::from_secs(1),
            credentials: None,
            provider: None,
            tls: Tls::default(),
            sentinel_credentials: None,
            sentinel_tls: None,
            sentinel_root: None,
            resolver: Resolver::system(),
        }
    }

    pub(super) fn check(&self) -> Result<(), Error> {
        if self.connections == 0 || self.connect_timeout.is_zero() {
            return Err(Error::config("connections() and connect_timeout() must be more than zero"));
        }
        Ok(())
    }

    /// Requests wait up to `checkout` for a connection.
    pub(super) fn transport(
        self,
        counters: &Arc<Counters>,
        tracking: Option<Arc<Tracking>>,
        checkout: Duration,
    ) -> Result<Transport, Error> {
        let url = Url::parse(&self.url)?;
        self.check_url(&url)?;
        let connect_timeout = bounded(self.connect_timeout);
        let access = Access {
            credentials: self.credentials.clone().or(url.credentials),
            provider: self.provider.clone(),
            db: url.db,
            protocol: url.protocol,
            tls: url.tls.then(|| self.tls.clone()),
            resolver: self.resolver.clone(),
            timeout: connect_timeout,
            pauses: pauses(connect_timeout, checkout),
        };
        let (connections, counters) = (self.connections, Arc::clone(counters));
        let target = match url.kind {
            Kind::Cluster(seeds) => {
                let cluster = Cluster::new(seeds, Arc::new(access), connections, counters, tracking);
                return Ok(Transport::Cluster(Arc::new(cluster)));
            }
            Kind::Server(address) => Target::Server(address),
            Kind::Sentinels(addresses, master) => {
                Target::Sentinels(Box::new(self.sentinels(addresses, &master, &access)?))
            }
        };
        let dialer = Dialer::new(target, Arc::new(access));
        Ok(Transport::One(Arc::new(Node::new(dialer, connections, counters, tracking))))
    }

    /// Checks the options against the URL.
    fn check_url(&self, url: &Url) -> Result<(), Error> {
        if url.lacks_password && self.credentials.is_none() && self.provider.is_none() {
            return Err(Error::config(
                "the URL names a user but no password: write redis://user:password@host, or redis://:password@host for the default \
                 user, or call credentials(), which also takes an empty password",
            ));
        }
        if url.tls {
            self.tls.check()?;
        } else if self.tls.is_configured() && self.sentinel_tls != Some(true) {
            return Err(Error::config(
                "certificates are given for a Redis without TLS: the URL must begin with rediss://, rediss+sentinel:// or \
                 rediss-cluster://",
            ));
        }
        let about_sentinels = self.sentinel_credentials.is_some()
            || self.sentinel_tls.is_some()
            || self.sentinel_root.is_some();
        if about_sentinels && !matches!(url.kind, Kind::Sentinels(..)) {
            return Err(Error::config(
                "sentinel_credentials(), sentinel_tls() and sentinel_root_certificates() need a URL that names sentinels: \
                 redis+sentinel://host,…/master-name",
            ));
        }
        if self.sentinel_root.is_some() && !self.sentinel_tls.unwrap_or(url.tls) {
            return Err(Error::config(
                "sentinel_root_certificates() is given for sentinels without TLS: call sentinel_tls(true), or begin the URL \
                 with rediss+sentinel://",
            ));
        }
        Ok(())
    }

    /// Returns the sentinels of `master`, which is reached by `access`. They have credentials and TLS of their own.
    fn sentinels(
        self,
        addresses: Vec<ConnectionAddr>,
        master: &str,
        access: &Access,
    ) -> Result<Sentinels, Error> {
        let master_tls = access.tls.is_some();
        let sentinel_tls = self.sentinel_tls.unwrap_or(master_tls);
        let root = self.sentinel_root.or(self.tls.root);
        let tls = sentinel_tls.then_some(Tls { root, client: self.tls.client });
        if let Some(tls) = &tls {
            tls.check()?;
        }
        let addresses = addresses.into_iter().map(|address| with_tls(address, sentinel_tls)).collect();
        let sentinel_access = Access {
            credentials: self.sentinel_credentials,
            provider: None,
            db: 0,
            protocol: access.protocol,
            tls,
            resolver: self.resolver,
            timeout: access.timeout,
            pauses: access.pauses,
        };
        Ok(Sentinels::new(addresses, master, sentinel_access, master_tls))
    }
}

/// Without it, a very short timeout would make attempts without a pause.
const SHORTEST_PAUSE: Duration = Duration::from_millis(10);

/// Returns how long attempts may be silent before the next one begins beside them.
///
/// A request whose connection is swallowed by the network waits for the next attempt, so the first pauses are short. But the attempts
/// after the oldest one must have time to succeed before they make room for newer ones, so the pauses grow.
fn pauses(connect_timeout: Duration, checkout: Duration) -> Pauses {
    let first = (connect_timeout / 4).min(checkout / 2).max(SHORTEST_PAUSE);
    Pauses { first, longest: first.max(connect_timeout / 16) }
}

/// Returns the same address, with TLS or without.
fn with_tls(address: ConnectionAddr, tls: bool) -> ConnectionAddr {
    use ConnectionAddr::{Tcp, TcpTls};
    match address {
        Tcp(host, port) | TcpTls { host, port, .. } => super::dialer::server_address(&host, port, tls),
        other => other,
    }
}

/// Defines the methods of a builder that set its [`ConnectionOptions`], which are in this place of it.
///
/// A macro, because two builders have these methods. A trait would have to be imported by each caller, and would not show on the
/// pages of the builders.
macro_rules! connection_setters {
    ($($place:ident).+) => {
        /// Sets user and password, instead of those in the URL. They are not escaped here.
        pub fn credentials(mut self, credentials: super::Credentials) -> Self {
            self.$($place).+.credentials = Some(credentials);
            self
        }

        /// Sets a function that is asked for user and password before each connection is made: for passwords that change, such
        /// as the tokens of a cloud's IAM.
        ///
        /// A connection stays logged in when the password changes. The function should answer from a cache, within the
        /// [`connect_timeout`](Self::connect_timeout). Up to four attempts, or one for each sentinel if there are more, may ask it at
        /// once, for each connection. The future of an attempt that is given up is dropped, wherever it is. Its error is not logged, since it may hold a secret.
        ///
        /// # Examples
        ///
        /// ```no_run
        /// use hyper_session::RedisStore;
        /// use hyper_session::store::redis::Credentials;
        ///
        /// # async fn iam_token() -> Result<String, std::io::Error> { Ok(String::new()) }
        /// # async fn example() -> Result<(), hyper_session::Error> {
        /// let store = RedisStore::builder("rediss://sessions.example.com")
        ///     .prefix("shop:session")
        ///     .credentials_provider(|| async { Ok(Credentials::new("sessions", iam_token().await?)) })
        ///     .connect()
        ///     .await?;
        /// # Ok(())
        /// # }
        /// ```
        pub fn credentials_provider<F>(mut self, provide: impl Fn() -> F + Send + Sync + 'static) -> Self
        where
            F: std::future::Future<Output = Result<super::Credentials, Box<dyn std::error::Error + Send + Sync>>>
                + Send
                + 'static,
        {
            self.$($place).+.provider = Some(super::credentials::Provider::new(provide));
            self
        }

        /// Sets user and password of the sentinels. Default: none. The URL's are for Redis itself.
        pub fn sentinel_credentials(mut self, credentials: super::Credentials) -> Self {
            self.$($place).+.sentinel_credentials = Some(credentials);
            self
        }

        /// Sets whether the sentinels are asked with TLS. Default: the same as for Redis, by the URL's scheme.
        pub fn sentinel_tls(mut self, yes: bool) -> Self {
            self.$($place).+.sentinel_tls = Some(yes);
            self
        }

        /// Sets the authorities whose certificates the sentinels must have, as PEM. Default: the authorities of
        /// [`root_certificates`](Self::root_certificates).
        pub fn sentinel_root_certificates(mut self, pem: impl Into<Vec<u8>>) -> Self {
            self.$($place).+.sentinel_root = Some(pem.into());
            self
        }

        /// Sets the authorities whose certificates the servers must have, as PEM. Default: the authorities that the system
        /// trusts.
        pub fn root_certificates(mut self, pem: impl Into<Vec<u8>>) -> Self {
            self.$($place).+.tls.root = Some(pem.into());
            self
        }

        /// Sets the certificate that authenticates this client, and its private key, both as PEM.
        pub fn client_certificate(mut self, certificate: impl Into<Vec<u8>>, key: impl Into<Vec<u8>>) -> Self {
            self.$($place).+.tls.client = Some((certificate.into(), key.into()));
            self
        }
    };
}
pub(super) use connection_setters;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_attempt_begins_in_time_for_a_request_and_leaves_the_others_some_time() {
        for (connect_timeout, checkout, first, longest) in [
            (1_000, 500, 250, 250),
            (1_000, 200, 100, 100),
            (1_000, 5_000, 250, 250),
            (30_000, 500, 250, 1_875),
            (16_000, 200, 100, 1_000),
            (1_000, 0, 10, 62),
            (1, 1, 10, 10),
        ] {
            let [connect_timeout, checkout] = [connect_timeout, checkout].map(Duration::from_millis);
            let pauses = pauses(connect_timeout, checkout);
            assert_eq!((pauses.first.as_millis(), pauses.longest.as_millis()), (first, longest));
        }
    }
}
