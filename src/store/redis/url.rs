//! Parsing the URL: the servers, their kind, and the credentials.

use bb8_redis::redis::{ConnectionAddr, ConnectionInfo, IntoConnectionInfo, ProtocolVersion};

use super::credentials::Credentials;
use crate::error::Error;

/// The contents of a URL. Every part of it may be secret: it is never printed.
pub(super) struct Url {
    pub(super) kind: Kind,
    pub(super) tls: bool,
    pub(super) credentials: Option<Credentials>,
    /// True if there is a user without a password. Such a URL needs credentials from elsewhere.
    pub(super) lacks_password: bool,
    pub(super) db: i64,
    pub(super) protocol: ProtocolVersion,
}

pub(super) enum Kind {
    Server(ConnectionAddr),
    /// The sentinels, and the name of the master that they watch.
    Sentinels(Vec<ConnectionAddr>, String),
    /// Some nodes of a Cluster.
    Cluster(Vec<(String, u16)>),
}

const FORMS: &str = "the forms are redis://[user:password@]host[:port][/db], rediss://… for TLS, \
unix:///path[?db=…&user=…&pass=…], redis+sentinel://[user:password@]host[:port],…/master-name[/db], \
redis-cluster://[user:password@]host[:port],…; with rediss+sentinel:// and rediss-cluster:// for TLS; ?protocol=resp3 at the end \
of any; and valkey instead of redis in any";

fn malformed() -> Error {
    Error::config(format!("this is not the URL of a Redis: {FORMS}"))
}

impl Url {
    pub(super) fn parse(url: &str) -> Result<Self, Error> {
        // From a file or the environment it comes with a line end.
        let url = url.trim();
        let (scheme, rest) = url.split_once("://").ok_or_else(malformed)?;
        let scheme = scheme.to_ascii_lowercase().replacen("valkey", "redis", 1);
        let tls = scheme.starts_with("rediss");
        let is_unix = matches!(scheme.as_str(), "unix" | "redis+unix");
        let is_list = matches!(
            scheme.as_str(),
            "redis+sentinel" | "rediss+sentinel" | "redis-cluster" | "rediss-cluster"
        );
        if !is_unix {
            check_escapes(rest)?;
        }
        if rest.contains('#') {
            return Err(Error::config("the URL of a Redis must not have a # in it: write %23 instead"));
        }
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        check_query(query, is_unix)?;
        if !is_list {
            if !is_unix && !matches!(scheme.as_str(), "redis" | "rediss") {
                return Err(malformed());
            }
            if !is_unix && rest.split('/').next().is_some_and(|authority| hosts(authority).contains(',')) {
                return Err(Error::config(
                    "a URL that names several hosts must begin with redis-cluster:// for a Cluster, or with redis+sentinel:// for \
                     sentinels (rediss-cluster:// and rediss+sentinel:// with TLS)",
                ));
            }
            // Without the feature, redis-rs refuses the scheme. `Tls::check` names the missing feature.
            let plain = if tls && !cfg!(feature = "redis-tls") {
                url.replacen("s://", "://", 1)
            } else {
                url.to_owned()
            };
            let info = plain.as_str().into_connection_info().map_err(|_| malformed())?;
            return Ok(Self::of(Kind::Server(info.addr().clone()), tls, &info));
        }
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        let (user_info, hosts) = authority.rsplit_once('@').unwrap_or(("", authority));
        let is_cluster = scheme.ends_with("-cluster");
        if is_cluster {
            if !matches!(path, "" | "0") {
                return Err(Error::config(
                    "a Redis Cluster has one database, number 0: the URL must end after the hosts",
                ));
            }
            let nodes = nodes(tls, user_info, hosts, 6379, "", query)?;
            let first = nodes.first().ok_or_else(malformed)?.clone();
            let addresses = nodes.iter().map(|node| host_and_port(node.addr())).collect::<Option<_>>();
            return Ok(Self::of(Kind::Cluster(addresses.ok_or_else(malformed)?), tls, &first));
        }
        let (master, db) = path.split_once('/').unwrap_or((path, ""));
        if master.is_empty() {
            return Err(Error::config(
                "the URL of a Sentinel must end with the name of the master that it watches: \
                 redis+sentinel://host/mymaster",
            ));
        }
        let nodes = nodes(tls, user_info, hosts, 26379, db, query)?;
        let first = nodes.first().ok_or_else(malformed)?.clone();
        let addresses = nodes.iter().map(|node| node.addr().clone()).collect();
        Ok(Self::of(Kind::Sentinels(addresses, decoded(master).ok_or_else(malformed)?), tls, &first))
    }

    fn of(kind: Kind, tls: bool, info: &ConnectionInfo) -> Self {
        let settings = info.redis_settings();
        let (user, password) = (settings.username().unwrap_or_default(), settings.password());
        Self {
            kind,
            tls,
            credentials: password.map(|password| Credentials::new(user, password)),
            lacks_password: password.is_none() && !user.is_empty(),
            db: settings.db(),
            protocol: settings.protocol(),
        }
    }
}

/// Returns the hosts of an authority, without user and password.
fn hosts(authority: &str) -> &str {
    authority.rsplit_once('@').map_or(authority, |(_, hosts)| hosts)
}

/// Returns the text without escapes. `None` if they do not stand for UTF-8. A % that begins no escape stands for itself, as in the
/// other parts of a URL.
fn decoded(text: &str) -> Option<String> {
    let mut parts = text.split('%');
    let mut bytes = parts.next().unwrap_or_default().as_bytes().to_vec();
    for part in parts {
        let digits = part.get(..2).filter(|digits| digits.bytes().all(|digit| digit.is_ascii_hexdigit()));
        if let Some(byte) = digits.and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
            bytes.push(byte);
            bytes.extend(part.bytes().skip(2));
        } else {
            bytes.push(b'%');
            bytes.extend(part.bytes());
        }
    }
    String::from_utf8(bytes).ok()
}

/// Returns one entry for each host, as redis-rs parses it: it handles escapes and IPv6.
fn nodes(
    tls: bool,
    user_info: &str,
    hosts: &str,
    default_port: u16,
    db: &str,
    query: &str,
) -> Result<Vec<ConnectionInfo>, Error> {
    let scheme = if tls && cfg!(feature = "redis-tls") { "rediss" } else { "redis" };
    let at = if user_info.is_empty() { "" } else { "@" };
    hosts
        .split(',')
        .map(str::trim)
        .map(|host| {
            let has_port = host.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
            let port = if has_port { String::new() } else { format!(":{default_port}") };
            let url = format!("{scheme}://{user_info}{at}{host}{port}/{db}?{query}");
            if host.is_empty() {
                return Err(malformed());
            }
            url.into_connection_info().map_err(|_| malformed())
        })
        .collect()
}

fn host_and_port(address: &ConnectionAddr) -> Option<(String, u16)> {
    match address {
        ConnectionAddr::Tcp(host, port) | ConnectionAddr::TcpTls { host, port, .. } => {
            Some((host.clone(), *port))
        }
        _ => None,
    }
}

/// Refuses a URL whose password ends it early: `redis://:pa/ss@host` would name no host and the database `ss@host`.
fn check_escapes(rest: &str) -> Result<(), Error> {
    let authority = rest.split(['/', '?', '#']).next().unwrap_or(rest);
    let after = rest.get(authority.len()..).unwrap_or_default();
    if after.contains('@') {
        return Err(Error::config(
            "the user or the password in the URL has a / ? or # in it: write %2F, %3F or %23 instead, and %25 for a % and \
             %40 for an @, or give them with credentials()",
        ));
    }
    Ok(())
}

/// Refuses an option that would be ignored. The URL of a socket has user, password and database there.
fn check_query(query: &str, is_unix: bool) -> Result<(), Error> {
    for part in query.split('&').filter(|part| !part.is_empty()) {
        let is_protocol = matches!(part, "protocol=2" | "protocol=3" | "protocol=resp2" | "protocol=resp3");
        let is_of_a_socket = is_unix && ["db=", "user=", "pass="].iter().any(|name| part.starts_with(name));
        if !is_protocol && !is_of_a_socket {
            return Err(Error::config(if is_unix {
                "the only options after the ? of a unix:// URL must be db, user, pass, and protocol=resp2 or protocol=resp3"
            } else {
                "the only option after the ? of a Redis URL must be protocol=resp2 or protocol=resp3"
            }));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind(url: &str) -> Result<&'static str, String> {
        match Url::parse(url) {
            Ok(Url { kind: Kind::Server(_), .. }) => Ok("server"),
            Ok(Url { kind: Kind::Sentinels(..), .. }) => Ok("sentinels"),
            Ok(Url { kind: Kind::Cluster(_), .. }) => Ok("cluster"),
            Err(error) => Err(error.to_string()),
        }
    }

    #[test]
    fn the_scheme_names_the_kind() {
        for (url, expected) in [
            ("redis://127.0.0.1", "server"),
            ("redis://:p%40ss@host:7000/3", "server"),
            ("redis://:p@ss@host:7000/3", "server"),
            ("valkey://host", "server"),
            ("redis://:a,b@host", "server"),
            ("redis://host/?protocol=resp3", "server"),
            ("unix:///run/redis.sock", "server"),
            ("unix:///run/redis@1.sock?db=3&user=ada&pass=p%23w&protocol=resp3", "server"),
            ("valkey+unix:///run/valkey.sock", "server"),
            ("rediss://host", "server"),
            ("redis+sentinel://host/mymaster", "sentinels"),
            ("redis+sentinel://user:pw@a:1,b,[::1]:2/mymaster/5?protocol=resp3", "sentinels"),
            ("redis-cluster://a:7000,b:7001,c", "cluster"),
            ("redis-cluster://user:pw@a", "cluster"),
            ("valkey+sentinel://host/mymaster", "sentinels"),
            ("valkeys+sentinel://host/mymaster", "sentinels"),
            ("valkey-cluster://a,b", "cluster"),
            ("valkeys-cluster://a,b", "cluster"),
        ] {
            assert_eq!(kind(url).as_deref(), Ok(expected), "{url}");
        }
    }

    #[test]
    fn hosts_have_the_default_port_of_their_kind() {
        let addresses = |url: &str| match Url::parse(url).unwrap().kind {
            Kind::Server(address) => vec![host_and_port(&address).unwrap()],
            Kind::Sentinels(addresses, _) => addresses.iter().map(|at| host_and_port(at).unwrap()).collect(),
            Kind::Cluster(addresses) => addresses,
        };
        for (url, expected) in [
            ("redis://a", &[("a", 6379)][..]),
            ("redis://a:7000", &[("a", 7000)]),
            ("redis+sentinel://a,[::1]:7,b:1/m", &[("a", 26379), ("::1", 7), ("b", 1)]),
            ("redis-cluster://a, b:7001", &[("a", 6379), ("b", 7001)]),
        ] {
            let expected: Vec<_> = expected.iter().map(|(host, port)| ((*host).to_owned(), *port)).collect();
            assert_eq!(addresses(url), expected, "{url}");
        }
        let path = ConnectionAddr::Unix("/run/redis.sock".into());
        assert_eq!(host_and_port(&path), None);
        let Kind::Server(address) = Url::parse("unix:///run/redis.sock").unwrap().kind else {
            panic!("a server")
        };
        assert_eq!(address, path);
    }

    #[cfg(feature = "redis-tls")]
    #[test]
    fn only_a_url_for_tls_has_addresses_for_tls() {
        for (scheme, tls) in [("redis", false), ("rediss", true), ("valkeys", true)] {
            let Kind::Server(address) = Url::parse(&format!("{scheme}://a")).unwrap().kind else {
                panic!("a server")
            };
            assert_eq!(matches!(address, ConnectionAddr::TcpTls { insecure: false, .. }), tls, "{scheme}");
        }
        for (scheme, tls) in [
            ("redis+sentinel", false),
            ("rediss+sentinel", true),
            ("valkey+sentinel", false),
            ("valkeys+sentinel", true),
        ] {
            let Kind::Sentinels(addresses, _) = Url::parse(&format!("{scheme}://a/m")).unwrap().kind else {
                panic!("sentinels")
            };
            let secure =
                |address: &ConnectionAddr| matches!(address, ConnectionAddr::TcpTls { insecure: false, .. });
            assert_eq!(addresses.iter().all(secure), tls, "{scheme}");
        }
    }

    #[test]
    fn every_kind_reads_user_password_database_and_protocol() {
        for (url, db) in [
            ("redis://ada:p%2Fw@h/5?protocol=resp3", 5),
            ("redis+sentinel://ada:p%2Fw@h,i/m/5?protocol=resp3", 5),
            ("redis-cluster://ada:p%2Fw@h,i?protocol=resp3", 0),
            ("unix:///s?user=ada&pass=p%2Fw&db=5&protocol=resp3", 5),
        ] {
            let url = Url::parse(url).unwrap();
            let credentials = url.credentials.unwrap();
            assert_eq!((credentials.user.as_deref(), &*credentials.password), (Some("ada"), "p/w"));
            assert_eq!((url.db, url.protocol), (db, ProtocolVersion::RESP3));
            assert!(!url.lacks_password);
        }
    }

    #[test]
    fn a_user_without_a_password_is_noticed() {
        for forms in [
            ["redis://", "redis://:pw@", "redis://:@", "redis://ada:pw@"]
                .map(|begin| (format!("{begin}h"), false)),
            ["redis://ada@", "redis://ada:@", "redis://secret@", "valkey://ada@"]
                .map(|begin| (format!("{begin}h"), true)),
            [("h,i", false), (":pw@h,i", false), ("ada@h,i", true), ("ada:@h,i", true)]
                .map(|(rest, lacks)| (format!("redis-cluster://{rest}"), lacks)),
            [("h,i", false), (":pw@h,i", false), ("ada@h,i", true), ("ada:@h,i", true)]
                .map(|(rest, lacks)| (format!("redis+sentinel://{rest}/m"), lacks)),
            [("", false), ("?pass=pw", false), ("?user=ada", true), ("?user=ada&pass=", false)]
                .map(|(query, lacks)| (format!("unix:///s{query}"), lacks)),
        ] {
            for (text, lacks_password) in forms {
                assert_eq!(Url::parse(&text).unwrap().lacks_password, lacks_password, "{text}");
            }
        }
    }

    #[test]
    fn the_name_of_a_master_has_no_escapes() {
        for (text, expected) in [
            ("m", "m"),
            ("a%2Fb/5", "a/b"),
            ("%23%25%c3%A4", "#%ä"),
            ("100%", "100%"),
            ("%zz%2", "%zz%2"),
            ("m?protocol=resp3", "m"),
        ] {
            let Kind::Sentinels(_, master) = Url::parse(&format!("redis+sentinel://h/{text}")).unwrap().kind
            else {
                panic!("sentinels")
            };
            assert_eq!(master, expected, "{text}");
        }
    }

    #[test]
    fn what_is_no_url_is_refused_without_repeating_it() {
        for (url, says) in [
            ("", "URL"),
            ("host:6379", "URL"),
            ("http://:hunter2@host", "URL"),
            ("redis-cluster://:hunter2@a,,b", "URL"),
            ("redis-cluster://:hunter2@a/3", "database"),
            ("redis+sentinel://:hunter2@a", "name of the master"),
            ("redis+sentinel://:hunter2@/mymaster", "URL"),
            ("redis://:hunter2@host/notanumber", "URL"),
            ("redis://:hunter2/@host", "%2F"),
            ("redis://:hun?ter2@host/3", "%3F"),
            ("redis://ada:hunter2#@host", "%23"),
            ("redis+sentinel://:hunter2/@a,b/mymaster", "%2F"),
            ("redis-cluster://:hunter2#@a", "%23"),
            ("redis://:hunter2@host?protcol=resp3", "protocol=resp3"),
            ("redis-cluster://:hunter2@host?protocol=4", "protocol=resp3"),
            ("unix:///s?password=hunter2", "pass"),
            ("unix:///s?protcol=resp3&pass=hunter2", "protocol=resp3"),
            ("redis://:hunter2@a,b", "redis-cluster://"),
            ("rediss://:hunter2@a:1,b:2/3", "redis+sentinel://"),
            ("valkey://a,b", "redis-cluster://"),
            ("redis+sentinel://:hunter2@a/m#x", "%23"),
            ("redis+sentinel://:hunter2@a/%ff", "URL"),
            ("redis://:hunter2@a/3#x", "%23"),
            ("unix:///s#hunter2", "%23"),
            ("redis+other://:hunter2@a", "URL"),
            ("unixvalkey:///s", "URL"),
        ] {
            let message = kind(url).unwrap_err();
            assert!(!message.contains("hunter2") && message.contains(says), "{url}: {message}");
        }
    }
}
