//! Making a connection to a server, or to the master that the sentinels name.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bb8_redis::redis::aio::{AsyncPushSender, MultiplexedConnection};
use bb8_redis::redis::io::tcp::{TcpSettings, socket2::TcpKeepalive};
use bb8_redis::redis::{
    AsyncConnectionConfig, ConnectionAddr, IntoConnectionInfo, ProtocolVersion, RedisConnectionInfo, Value,
    cmd,
};
use tokio::time::{Instant, timeout};

use super::attempts::{Pauses, side_by_side};
use super::connection::Connection;
use super::credentials::{Credentials, Provider};
use super::fault::{Failure, NO_REPLY, a_cluster_node};
use super::resolver::Resolver;
use super::tls::Tls;

/// An idle connection is probed after this long, and then this often: sooner than a load balancer drops it.
const KEEPALIVE: (Duration, Duration, u32) = (Duration::from_secs(15), Duration::from_secs(5), 3);

/// A connection whose bytes are not acknowledged for this long is closed by the kernel.
const USER_TIMEOUT: Duration = Duration::from_secs(10);

/// How connections to servers of one kind are made.
#[derive(Clone)]
pub(super) struct Access {
    pub(super) credentials: Option<Credentials>,
    /// Asked before each connection, instead of `credentials`.
    pub(super) provider: Option<Provider>,
    pub(super) db: i64,
    pub(super) protocol: ProtocolVersion,
    pub(super) tls: Option<Tls>,
    pub(super) resolver: Resolver,
    /// How long one server may take to accept a connection, log it in and answer the first question.
    pub(super) timeout: Duration,
    /// While attempts are silent, the next ones begin after these times.
    pub(super) pauses: Pauses,
}

/// The destination of a connection, and what the server there must be.
pub(super) enum Target {
    Server(ConnectionAddr),
    ClusterNode(ConnectionAddr),
    Sentinels(Box<Sentinels>),
}

/// A receiver of what a server sends without being asked.
pub(super) type Reports = Arc<dyn AsyncPushSender>;

pub(super) struct Dialer {
    pub(super) target: Target,
    pub(super) access: Arc<Access>,
}

/// A server's description of itself in its reply to HELLO. Empty if it does not support that command.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Greeting {
    pub(super) mode: Option<String>,
    pub(super) role: Option<String>,
}

impl Dialer {
    pub(super) fn new(target: Target, access: Arc<Access>) -> Self {
        Self { target, access }
    }

    /// Makes a connection, and checks that the server is of the kind that the URL names.
    pub(super) async fn dial(&self) -> Result<(Connection, Greeting), Failure> {
        self.dial_as(None, || false).await
    }

    /// Makes a connection. Further attempts begin while earlier ones are silent, and `is_wanted` returns true.
    pub(super) async fn dial_while(
        &self,
        is_wanted: impl Fn() -> bool,
    ) -> Result<(Connection, Greeting), Failure> {
        self.dial_as(None, is_wanted).await
    }

    /// Makes a connection whose pushes `reports` receives. It uses RESP3, which has pushes.
    pub(super) async fn dial_with_reports(&self, reports: Reports) -> Result<Connection, Failure> {
        self.dial_as(Some(&reports), || false).await.map(|(connection, _)| connection)
    }

    /// Returns true if the connections lead to a node of a Cluster.
    pub(super) fn is_to_cluster(&self) -> bool {
        matches!(self.target, Target::ClusterNode(_))
    }

    /// One sentinel may hang, or have an old view: the server that it names is a replica by now, or is gone. So each attempt asks
    /// another sentinel, and they begin sooner after each other.
    async fn dial_as(
        &self,
        reports: Option<&Reports>,
        is_wanted: impl Fn() -> bool,
    ) -> Result<(Connection, Greeting), Failure> {
        let pauses = self.access.pauses;
        match &self.target {
            Target::Server(address) | Target::ClusterNode(address) => {
                side_by_side(1, pauses, is_wanted, |_| self.dial_at(address.clone(), reports)).await
            }
            Target::Sentinels(sentinels) => {
                let (first, count) =
                    (sentinels.first.load(Ordering::Relaxed), sentinels.addresses.len().max(1));
                let attempt = async |number: usize| {
                    let place = (first + number) % count;
                    let dialed = self.dial_at(sentinels.ask(place).await?, reports).await?;
                    sentinels.first.store(place, Ordering::Relaxed);
                    Ok(dialed)
                };
                side_by_side(count, pauses.halved(), is_wanted, attempt).await
            }
        }
    }

    async fn dial_at(
        &self,
        address: ConnectionAddr,
        reports: Option<&Reports>,
    ) -> Result<(Connection, Greeting), Failure> {
        let begun = Instant::now();
        let (connection, greeting) = self.access.connect(address, reports).await?;
        let mode = greeting.mode.as_deref();
        match (&self.target, mode) {
            (Target::Server(_), Some("cluster")) => Err(a_cluster_node()),
            (Target::Server(_) | Target::ClusterNode(_), Some("sentinel")) => Err(Failure::Setup(
                "the server is a Sentinel: write redis+sentinel://host,…/master-name (rediss+sentinel:// with TLS)"
                    .to_owned(),
            )),
            (Target::ClusterNode(_), Some("standalone")) => Err(not_a_cluster()),
            (Target::Sentinels(_), _) if greeting.role.as_deref().is_some_and(|role| role != "master") => Err(
                Failure::Connect("the server that the sentinels name is not the master yet".to_owned()),
            ),
            _ => Ok((Connection::new(connection, begun), greeting)),
        }
    }
}

/// Returns the failure of a Cluster URL that leads to a single server.
pub(super) fn not_a_cluster() -> Failure {
    Failure::Setup(
        "the server is not a node of a Redis Cluster: begin the URL with redis:// (rediss:// with TLS) instead of \
         redis-cluster://, or enable its cluster support"
            .to_owned(),
    )
}

impl Access {
    /// Connects to the server at `address` and logs in.
    async fn connect(
        &self,
        address: ConnectionAddr,
        reports: Option<&Reports>,
    ) -> Result<(MultiplexedConnection, Greeting), Failure> {
        let mut lost = None;
        // HELLO needs no right, so it does not appear in the server's log of denials. Some proxies close the connection at an
        // unknown command, and a network may reset a connection at any command. Only a server that twice closes the connection
        // at HELLO, and then answers PING, counts as one without HELLO.
        for question in ["HELLO", "HELLO", "PING"] {
            let asking = async {
                let mut connection = self.open(address.clone(), reports).await?;
                let reply =
                    connection.send_packed_command(&cmd(question)).await.and_then(Value::extract_error);
                Ok((connection, reply))
            };
            // Each connection has the whole time: a distant server that closes two of them would never be reached otherwise.
            let asked = timeout(self.timeout, asking).await;
            let asked = asked.unwrap_or_else(|_| Err(Failure::Connect(NO_REPLY.to_owned())));
            match asked.map_err(|failure| self.explained(failure))? {
                (connection, Ok(reply)) => return Ok((connection, greeting(&reply))),
                (_, Err(error)) if error.code() == Some("NOAUTH") || refuses_clients(&error) => {
                    return Err(Failure::connecting(&error));
                }
                // Any other reply will do: the server does not support the command, or denies it.
                (connection, Err(error)) if error.code().is_some() => {
                    return Ok((connection, Greeting::default()));
                }
                (_, Err(error)) => lost = lost.or(Some(error)),
            }
        }
        Err(lost.map_or(Failure::NoConnection, |error| Failure::connecting(&error)))
    }

    fn explained(&self, failure: Failure) -> Failure {
        match failure {
            // Such a server waits for the end of the first line, and a TLS handshake has none.
            Failure::Connect(why) if why == NO_REPLY && self.tls.is_some() => Failure::Connect(format!(
                "{NO_REPLY}: a server that does not use TLS never answers a TLS handshake (its URL begins with redis instead of \
                 rediss)"
            )),
            other => other,
        }
    }

    async fn open(
        &self,
        address: ConnectionAddr,
        reports: Option<&Reports>,
    ) -> Result<MultiplexedConnection, Failure> {
        let credentials = match &self.provider {
            // The error's text may hold a secret.
            Some(provider) => Some(provider.provide().await.map_err(|_| {
                Failure::Connect("the credentials provider gave an error instead of credentials".to_owned())
            })?),
            None => self.credentials.clone(),
        };
        let mut settings = RedisConnectionInfo::default()
            .set_db(self.db)
            .set_protocol(if reports.is_some() { ProtocolVersion::RESP3 } else { self.protocol })
            .set_skip_set_lib_name();
        if let Some(Credentials { user, password }) = credentials {
            settings = settings.set_password(password);
            if let Some(user) = user {
                settings = settings.set_username(user);
            }
        }
        let refused = |error| Failure::connecting(&error);
        let info = address.into_connection_info().map_err(refused)?;
        let info = info.set_redis_settings(settings).set_tcp_settings(tcp_settings());
        let client = Tls::client(self.tls.as_ref(), info)?;
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(self.timeout))
            .set_dns_resolver(self.resolver.clone())
            // Each command has its own timer.
            .set_response_timeout(None);
        let config = match reports {
            Some(reports) => config.set_push_sender(Arc::clone(reports)),
            None => config,
        };
        client.get_multiplexed_async_connection_with_config(&config).await.map_err(refused)
    }
}

/// Returns true if the server refuses this client whatever it sends: it has too many, or is in protected mode.
fn refuses_clients(error: &bb8_redis::redis::RedisError) -> bool {
    error.code() == Some("DENIED")
        || error.detail().is_some_and(|detail| detail.contains("max number of clients"))
}

/// Returns the options of every socket.
///
/// Without `TCP_NODELAY` a command waits until earlier ones are acknowledged. A connection that is given up is closed
/// by a reset, so that its unsent commands are not delivered after their repetition.
fn tcp_settings() -> TcpSettings {
    let (time, interval, retries) = KEEPALIVE;
    let keepalive = TcpKeepalive::new().with_time(time).with_interval(interval);
    #[cfg(any(target_os = "linux", target_os = "macos", target_os = "freebsd", target_os = "windows"))]
    let keepalive = keepalive.with_retries(retries);
    let settings =
        TcpSettings::default().set_nodelay(true).set_keepalive(keepalive).set_linger_time(Duration::ZERO);
    #[cfg(any(target_os = "linux", target_os = "android", target_os = "fuchsia"))]
    let settings = settings.set_user_timeout(USER_TIMEOUT);
    settings
}

/// Reads the reply to HELLO.
pub(super) fn greeting(reply: &Value) -> Greeting {
    let pairs: Vec<(&Value, &Value)> = match reply {
        Value::Map(pairs) => pairs.iter().map(|(name, value)| (name, value)).collect(),
        Value::Array(values) => {
            let mut values = values.iter();
            std::iter::from_fn(|| Some((values.next()?, values.next()?))).collect()
        }
        _ => return Greeting::default(),
    };
    let mut greeting = Greeting::default();
    for (name, value) in pairs {
        match text(name).as_deref() {
            Some("mode") => greeting.mode = text(value),
            Some("role") => greeting.role = text(value),
            _ => {}
        }
    }
    greeting
}

pub(super) fn text(value: &Value) -> Option<String> {
    match value {
        Value::BulkString(bytes) => String::from_utf8(bytes.clone()).ok(),
        Value::SimpleString(text) | Value::VerbatimString { text, .. } => Some(text.clone()),
        _ => None,
    }
}

/// The sentinels of a master.
pub(super) struct Sentinels {
    pub(super) addresses: Vec<ConnectionAddr>,
    pub(super) master: String,
    pub(super) access: Access,
    /// True if the connection to the master uses TLS.
    pub(super) tls: bool,
    /// The sentinel that named the master last, which is asked first.
    first: AtomicUsize,
}

impl Sentinels {
    pub(super) fn new(addresses: Vec<ConnectionAddr>, master: &str, access: Access, tls: bool) -> Self {
        Self { addresses, master: master.to_owned(), access, tls, first: AtomicUsize::new(0) }
    }

    /// Asks the sentinel in this place for the address of the master.
    async fn ask(&self, place: usize) -> Result<ConnectionAddr, Failure> {
        let address = self.addresses.get(place).ok_or(Failure::NoConnection)?;
        match self.ask_at(address).await {
            Ok((host, port)) => Ok(server_address(&host, port, self.tls)),
            Err(Failure::Connect(why)) => Err(Failure::Sentinel(why)),
            Err(other) => Err(other),
        }
    }

    async fn ask_at(&self, address: &ConnectionAddr) -> Result<(String, u16), Failure> {
        let (mut connection, greeting) =
            self.access.connect(address.clone(), None).await.map_err(|failure| match failure {
                Failure::Setup(what) if what.contains("authentication failed") => Failure::Setup(format!(
                    "{what}; user and password of the sentinels are set by sentinel_credentials(), those in the URL are for \
                     Redis"
                )),
                Failure::Setup(what) => Failure::Setup(format!("{what} (of the sentinels)")),
                other => other,
            })?;
        match greeting.mode.as_deref() {
            Some("cluster") => return Err(a_cluster_node()),
            Some("standalone") => {
                return Err(Failure::Setup(
                    "the server is not a Sentinel: name the sentinels in the URL, or begin it with redis:// (rediss:// with \
                     TLS) instead of redis+sentinel://"
                        .to_owned(),
                ));
            }
            _ => {}
        }
        let mut question = cmd("SENTINEL");
        question.arg("GET-MASTER-ADDR-BY-NAME").arg(&self.master);
        let asking = timeout(self.access.timeout, connection.send_packed_command(&question)).await;
        let reply = asking.map_err(|_| Failure::Connect(NO_REPLY.to_owned()))?.and_then(Value::extract_error);
        let reply = reply.map_err(|error| match error.code() {
            Some("NOPERM") => Failure::Setup(
                "the user of the sentinels may not run SENTINEL GET-MASTER-ADDR-BY-NAME: give it \
                 +sentinel|get-master-addr-by-name"
                    .to_owned(),
            ),
            _ => Failure::connecting(&error),
        })?;
        match reply {
            Value::Nil => Err(Failure::Setup(format!(
                "the sentinels do not watch a master named {:?}: end the URL with the name in their configuration",
                self.master
            ))),
            Value::Array(parts) => {
                let port = parts.get(1).and_then(text).and_then(|port| port.parse().ok());
                let address = parts.first().and_then(text).zip(port);
                address.ok_or_else(|| Failure::Connect("the reply is not that of a sentinel".to_owned()))
            }
            _ => Err(Failure::Connect("the reply is not that of a sentinel".to_owned())),
        }
    }
}

/// Returns the address of a server.
pub(super) fn server_address(host: &str, port: u16, tls: bool) -> ConnectionAddr {
    if tls {
        ConnectionAddr::TcpTls { host: host.to_owned(), port, insecure: false, tls_params: None }
    } else {
        ConnectionAddr::Tcp(host.to_owned(), port)
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn what_a_server_says_of_itself_reads_from_both_protocols() {
        let bulk = |text: &str| Value::BulkString(text.as_bytes().to_vec());
        let pairs = [("server", "valkey"), ("mode", "cluster"), ("role", "master")];
        let flat = pairs.iter().flat_map(|(name, value)| [bulk(name), bulk(value)]).collect();
        let map = pairs.iter().map(|(name, value)| (bulk(name), bulk(value))).collect();
        let expected = Greeting { mode: Some("cluster".to_owned()), role: Some("master".to_owned()) };
        assert_eq!(greeting(&Value::Array(flat)), expected);
        assert_eq!(greeting(&Value::Map(map)), expected);
        assert_eq!(greeting(&Value::Okay), Greeting::default());
    }

    /// A distant proxy that closes the connection at HELLO: all three connections together take longer than one may.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_server_without_hello_has_the_whole_time_for_each_connection() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            for mut client in listener.incoming().flatten() {
                let mut request = [0; 1_024];
                while let Ok(len @ 1..) = client.read(&mut request) {
                    let request = String::from_utf8_lossy(&request[..len]);
                    if request.contains("HELLO") {
                        break;
                    }
                    let _ =
                        client.write_all(if request.contains("AUTH") { b"+OK\r\n" } else { b"+PONG\r\n" });
                }
            }
        });
        // A busy machine may be late by more than is left of the first times.
        for connect_timeout in [1, 5, 25].map(Duration::from_secs) {
            let begun = Instant::now();
            let provide = move || async move {
                tokio::time::sleep(connect_timeout * 2 / 5).await;
                Ok(Credentials::new("user", "password"))
            };
            let access = Access {
                credentials: None,
                provider: Some(Provider::new(provide)),
                db: 0,
                protocol: ProtocolVersion::RESP2,
                tls: None,
                resolver: Resolver::system(),
                timeout: connect_timeout,
                pauses: Pauses::of(connect_timeout),
            };
            let address = server_address("127.0.0.1", address.port(), false);
            if let Ok((_, greeting)) = access.connect(address, None).await {
                assert_eq!(greeting, Greeting::default());
                assert!(begun.elapsed() > connect_timeout);
                return;
            }
        }
        panic!("it does not connect");
    }
}
