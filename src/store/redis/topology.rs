//! From a URL to whom to connect to: one server, whoever Sentinel says is the master, or a cluster.

use std::time::Duration;

use bb8_redis::redis::cluster::ClusterClient;
use bb8_redis::redis::sentinel::{SentinelClient, SentinelClientBuilder, SentinelServerType};
use bb8_redis::redis::{Client, ConnectionAddr, ConnectionInfo, IntoConnectionInfo, TlsMode};
use tokio::sync::Mutex;

use super::fault::Failure;
use super::tls::Tls;
use crate::error::Error;

/// Whom connections are made to.
pub(super) enum Target {
    One(Client),
    /// Asking takes turns: the client remembers which sentinels answered.
    Sentinel(Mutex<SentinelClient>),
    Cluster(ClusterClient),
}

impl Target {
    /// How many servers one after the other may have to be asked before a connection is there.
    pub(super) fn hops(&self) -> u32 {
        match self {
            Self::One(_) => 1,
            Self::Sentinel(_) | Self::Cluster(_) => 4,
        }
    }
}

const FORMS: &str = "the forms are redis://[user:password@]host[:port][/db], rediss://… for TLS, unix:///path, \
redis+sentinel://[user:password@]host[:port],…/master-name[/db], redis-cluster://[user:password@]host[:port],…; with \
rediss+sentinel:// and rediss-cluster:// for TLS";

/// What a URL says. Every part of it may be secret: it is never printed.
struct Url<'a> {
    tls: bool,
    user_info: &'a str,
    hosts: &'a str,
    path: &'a str,
}

impl<'a> Url<'a> {
    /// Splits what follows the scheme: `[user:password@]host[:port],…[/path]`.
    fn parse(tls: bool, rest: &'a str) -> Self {
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        let (user_info, hosts) =
            authority.rsplit_once('@').map_or(("", authority), |(user, hosts)| (user, hosts));
        Self { tls, user_info, hosts, path }
    }

    /// One URL for each host, as the library reads them: it knows of escapes, of default ports and of IPv6.
    fn nodes(&self, default_port: u16, db: &str) -> Result<Vec<ConnectionInfo>, Error> {
        let scheme = if self.tls { "rediss" } else { "redis" };
        let at = if self.user_info.is_empty() { "" } else { "@" };
        self.hosts
            .split(',')
            .map(|host| {
                let has_port = host.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
                let port = if has_port { String::new() } else { format!(":{default_port}") };
                let url = format!("{scheme}://{}{at}{host}{port}/{db}", self.user_info);
                if host.is_empty() {
                    Err(malformed())
                } else {
                    url.into_connection_info().map_err(|_| malformed())
                }
            })
            .collect()
    }
}

fn malformed() -> Error {
    Error::config(format!("this is not the URL of a Redis: {FORMS}"))
}

/// Reads `url` and prepares to connect; connects to nobody yet.
pub(super) fn target(url: &str, tls: &Tls, connect: Duration, command: Duration) -> Result<Target, Error> {
    let (scheme, rest) = url.split_once("://").ok_or_else(malformed)?;
    let scheme = scheme.to_ascii_lowercase();
    let secure = matches!(scheme.as_str(), "rediss" | "valkeys" | "rediss+sentinel" | "rediss-cluster");
    if secure {
        tls.check()?;
    } else if tls.is_configured() {
        return Err(Error::config(
            "certificates are given for a Redis without TLS: write rediss:// in its URL",
        ));
    }
    match scheme.as_str() {
        "redis" | "rediss" | "valkey" | "valkeys" | "unix" | "redis+unix" | "valkey+unix" => {
            let info = url.into_connection_info().map_err(|_| malformed())?;
            tls.client(info).map(Target::One)
        }
        "redis+sentinel" | "rediss+sentinel" => {
            sentinel(&Url::parse(secure, rest), tls).map(|client| Target::Sentinel(Mutex::new(client)))
        }
        "redis-cluster" | "rediss-cluster" => {
            cluster(&Url::parse(secure, rest), tls, connect, command).map(Target::Cluster)
        }
        _ => Err(malformed()),
    }
}

fn sentinel(url: &Url<'_>, tls: &Tls) -> Result<SentinelClient, Error> {
    let (master, db) = url.path.split_once('/').unwrap_or((url.path, ""));
    if master.is_empty() {
        return Err(Error::config(
            "the URL of a Sentinel ends with the name of the master it watches: redis+sentinel://host/mymaster",
        ));
    }
    let nodes = url.nodes(26379, db)?;
    let addresses: Vec<ConnectionAddr> = nodes.iter().map(|node| node.addr().clone()).collect();
    let settings = nodes.first().ok_or_else(malformed)?.redis_settings().clone();
    let refused = |_| malformed();
    let mut builder =
        SentinelClientBuilder::new(addresses, master, SentinelServerType::Master).map_err(refused)?;
    builder = builder.set_client_to_redis_db(settings.db());
    if let Some(user) = settings.username() {
        builder = builder.set_client_to_redis_username(user);
    }
    if let Some(password) = settings.password() {
        builder = builder.set_client_to_redis_password(password);
    }
    if url.tls {
        builder = builder.set_client_to_redis_tls_mode(TlsMode::Secure);
        builder = tls.sentinel(builder);
    }
    builder.build().map_err(|error| Error::config(Failure::connecting(&error).to_string()))
}

fn cluster(url: &Url<'_>, tls: &Tls, connect: Duration, command: Duration) -> Result<ClusterClient, Error> {
    if !matches!(url.path, "" | "0") {
        return Err(Error::config("a Redis Cluster has one database, number 0: leave it out of the URL"));
    }
    let mut builder = ClusterClient::builder(url.nodes(6379, "")?)
        .connection_timeout(connect)
        .response_timeout(command)
        // A redirection or two after a resharding; what takes longer is for the caller's deadline to end.
        .retries(3)
        .min_retry_wait(10)
        .max_retry_wait(100);
    if url.tls {
        builder = tls.cluster(builder);
    }
    builder.build().map_err(|error| Error::config(Failure::connecting(&error).to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind(url: &str) -> Result<&'static str, String> {
        let second = Duration::from_secs(1);
        match target(url, &Tls::default(), second, second) {
            Ok(Target::One(_)) => Ok("one"),
            Ok(Target::Sentinel(_)) => Ok("sentinel"),
            Ok(Target::Cluster(_)) => Ok("cluster"),
            Err(error) => Err(error.to_string()),
        }
    }

    #[test]
    fn the_scheme_says_whom_to_ask() {
        for (url, expected) in [
            ("redis://127.0.0.1", "one"),
            ("redis://:p%40ss@host:7000/3", "one"),
            ("valkey://host", "one"),
            ("unix:///run/redis.sock", "one"),
            ("redis+sentinel://host/mymaster", "sentinel"),
            ("redis+sentinel://user:pw@a:1,b,[::1]:2/mymaster/5", "sentinel"),
            ("redis-cluster://a:7000,b:7001,c", "cluster"),
            ("redis-cluster://user:pw@a", "cluster"),
        ] {
            assert_eq!(kind(url).as_deref(), Ok(expected), "{url}");
        }
    }

    #[test]
    fn what_is_no_url_is_refused_without_repeating_it() {
        for url in [
            "",
            "host:6379",
            "http://:hunter2@host",
            "redis-cluster://:hunter2@a,,b",
            "redis-cluster://:hunter2@a/3",
            "redis+sentinel://:hunter2@a",
            "redis+sentinel://:hunter2@/mymaster",
            "redis://:hunter2@host/notanumber",
        ] {
            let message = kind(url).unwrap_err();
            assert!(!message.contains("hunter2") && message.len() > 20, "{url}: {message}");
        }
    }

    #[test]
    fn tls_needs_its_feature() {
        assert_eq!(kind("rediss://host").is_ok(), cfg!(feature = "redis-tls"));
        assert_eq!(kind("rediss-cluster://host").is_ok(), cfg!(feature = "redis-tls"));
        assert_eq!(kind("rediss+sentinel://host/m").is_ok(), cfg!(feature = "redis-tls"));
        if !cfg!(feature = "redis-tls") {
            assert!(kind("rediss://host").unwrap_err().contains("redis-tls"));
        }
    }
}
