//! The mapping from redis-rs' errors to remedies and to the caller's errors.

use std::error::Error as StdError;
use std::fmt;

use bb8_redis::redis::{ErrorKind, RedisError, ServerErrorKind};

use crate::error::Error;

/// The reason why one attempt to send a command returned no value.
#[derive(Debug)]
pub(super) enum Trouble {
    /// The server answered with an error.
    Reply(RedisError),
    /// The server did not answer, or could not be reached.
    Failed(Failure),
}

/// The remedy for an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Remedy {
    /// The server does not have the script: send the whole script.
    SendScript,
    /// The connection is lost: use another connection, at once.
    Reconnect,
    /// The server cannot do it now: wait, and ask it again.
    Wait,
    /// The server is no longer the master: wait, and ask the present master.
    Elsewhere,
    /// The slot is on another node of the Cluster.
    Redirect,
    /// The server did not answer in time. Whether it executed the command is unknown.
    TimedOut,
    /// Trying again does not help.
    GiveUp,
}

pub(super) fn remedy(error: &RedisError) -> Remedy {
    match error.kind() {
        ErrorKind::Server(ServerErrorKind::NoScript) => Remedy::SendScript,
        ErrorKind::Server(ServerErrorKind::Moved | ServerErrorKind::Ask) => Remedy::Redirect,
        ErrorKind::Server(
            ServerErrorKind::BusyLoading | ServerErrorKind::TryAgain | ServerErrorKind::ClusterDown,
        ) => Remedy::Wait,
        ErrorKind::Server(ServerErrorKind::ReadOnly | ServerErrorKind::MasterDown) => Remedy::Elsewhere,
        ErrorKind::Server(_) => Remedy::GiveUp,
        // The server runs a script of another client.
        _ if error.code() == Some("BUSY") => Remedy::Wait,
        _ if error.is_timeout() => Remedy::TimedOut,
        // A reply that ends too early or is not RESP: the connection is as useless as a closed one.
        ErrorKind::Io | ErrorKind::Parse => Remedy::Reconnect,
        _ if error.is_connection_dropped() => Remedy::Reconnect,
        _ => Remedy::GiveUp,
    }
}

/// Returns true if no further command should use the connection that this error came from.
pub(super) fn breaks_connection(error: &RedisError) -> bool {
    match remedy(error) {
        Remedy::Reconnect | Remedy::Elsewhere | Remedy::TimedOut => true,
        Remedy::SendScript | Remedy::Wait | Remedy::Redirect => false,
        // The connection is no longer authenticated.
        Remedy::GiveUp => error.kind() == ErrorKind::AuthenticationFailed || error.code() == Some("NOAUTH"),
    }
}

/// The reason why Redis did not execute a step. It reveals neither keys nor values: the server's own text may quote
/// them.
#[derive(Clone, Debug)]
pub(super) enum Failure {
    /// No connection was ready in time.
    NoConnection,
    /// No connection could be made.
    Connect(String),
    /// The options or the server's set-up must be changed first. The text says how.
    Setup(String),
    /// The command was not answered in time.
    TimedOut,
    /// The server answered with this error code.
    Refused(String),
    /// The connection was lost, or its reply was not understood.
    Lost(&'static str),
    /// An entry is longer than the limit.
    TooLarge(usize),
}

pub(super) const CONNECTION_LOST: &str = "the connection was lost";

impl Failure {
    pub(super) fn of(error: &RedisError) -> Self {
        match error.code() {
            _ if error.is_timeout() => Self::TimedOut,
            Some(code) => Self::Refused(known(code)),
            None => match error.kind() {
                ErrorKind::Io => Self::Lost(CONNECTION_LOST),
                ErrorKind::AuthenticationFailed => Self::Refused("WRONGPASS".to_owned()),
                _ => Self::Lost("the reply was not understood"),
            },
        }
    }

    /// Returns the reason why a connection could not be made. Of the server's own text only the code is kept: it may
    /// quote the password.
    pub(super) fn connecting(error: &RedisError) -> Self {
        let detail = error.detail().unwrap_or_default();
        if detail.contains("max number of clients") {
            return Self::Connect(
                "the server has as many clients as it allows: raise maxclients, or lower connections()"
                    .to_owned(),
            );
        }
        // This error has no type of its own in redis-rs, and its code is not that of the server.
        if error.to_string().contains("refused to switch database") {
            if detail.contains("cluster mode") {
                return a_cluster_node();
            }
            if detail.contains("busy running a script") {
                return Self::Connect("it answered BUSY".to_owned());
            }
            return Self::Setup(
                "the server does not have the database whose number ends the URL: use a lower number, raise `databases` \
                 on the server, or allow SELECT"
                    .to_owned(),
            );
        }
        let refused = |what: &str| {
            Self::Setup(format!(
                "could not connect to Redis: authentication failed ({what}): check the user and the password"
            ))
        };
        match error.code() {
            _ if error.is_timeout() => Self::Connect("no reply in time".to_owned()),
            Some(code @ ("WRONGPASS" | "NOAUTH")) => refused(code),
            Some("NOPERM") => Self::Setup("could not connect to Redis: it answered NOPERM".to_owned()),
            _ if detail.contains("WRONGPASS") => refused("WRONGPASS"),
            Some(code) => Self::Connect(format!("it answered {}", known(code))),
            None => match error.kind() {
                ErrorKind::AuthenticationFailed => refused("the password was refused"),
                ErrorKind::InvalidClientConfig | ErrorKind::RESP3NotSupported => {
                    Self::Setup(format!("could not connect to Redis: {}", error.category()))
                }
                ErrorKind::Io if error.is_connection_dropped() && !error.is_connection_refusal() => {
                    Self::Connect(format!(
                        "{error}: the connection was closed before the first reply, as a server does that has reached \
                         maxclients, or that expects TLS"
                    ))
                }
                ErrorKind::Io => Self::Connect(error.to_string()),
                ErrorKind::Parse => Self::Connect("the reply is not that of a Redis server".to_owned()),
                _ => Self::Connect(error.category().to_owned()),
            },
        }
    }

    /// Returns true if the server gives the same answer until its set-up is changed.
    pub(super) fn is_lasting(&self) -> bool {
        matches!(self, Self::Refused(code) if matches!(&**code, "NOPERM" | "NOAUTH" | "WRONGPASS" | "ERR"))
    }

    /// Returns the error of [`connect`](crate::store::Builder::connect).
    pub(super) fn at_startup(self) -> Error {
        match self {
            Self::Setup(message) => Error::config(message),
            other => other.into(),
        }
    }
}

pub(super) fn is_out_of_memory(error: &RedisError) -> bool {
    // Before Redis 7, a script wraps the server's error.
    error.code() == Some("OOM") || error.detail().is_some_and(|detail| detail.contains("-OOM"))
}

/// Returns the failure of a URL for one server that leads to a node of a Cluster.
pub(super) fn a_cluster_node() -> Failure {
    Failure::Setup(
        "the server is a node of a Redis Cluster: begin the URL with redis-cluster:// (rediss-cluster:// with TLS)"
            .to_owned(),
    )
}

/// A reply of another type than the command has.
pub(super) fn unexpected() -> Failure {
    Failure::Lost("the reply was not of the kind that was asked for")
}

/// Returns an error code in the form that Redis uses. Text of another form is not repeated in logs.
fn known(code: &str) -> String {
    let is_code = code.len() <= 32 && code.bytes().all(|byte| byte.is_ascii_uppercase() || byte == b'_');
    if is_code { code.to_owned() } else { "an error of unknown form".to_owned() }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoConnection => f.write_str("no connection to Redis came free in time"),
            Self::Connect(why) => write!(f, "could not connect to Redis: {why}"),
            Self::Setup(what) => f.write_str(what),
            Self::TimedOut => f.write_str("Redis did not answer in time"),
            Self::Refused(code) => write!(f, "Redis answered {code}"),
            Self::Lost(what) => write!(f, "Redis: {what}"),
            Self::TooLarge(len) => write!(f, "an entry of {len} bytes in Redis is larger than any session"),
        }
    }
}

impl StdError for Failure {}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Self {
        match &failure {
            Failure::TooLarge(_) => Self::unreadable(failure),
            Failure::Refused(code) if code == "WRONGTYPE" => Self::unreadable(failure),
            _ => Self::unavailable(failure),
        }
    }
}

impl From<Failure> for Trouble {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}
