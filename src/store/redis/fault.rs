//! One match from what redis-rs reports to what is done about it, and what the caller is told.

use std::error::Error as StdError;
use std::fmt;

use bb8_redis::redis::{ErrorKind, RedisError, ServerErrorKind};

use crate::error::Error;

/// What to do about a failed command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Remedy {
    /// The script is not there: send it whole.
    SendScript,
    /// The connection is gone: take another one, at once.
    Reconnect,
    /// This server cannot now: wait a little and ask again.
    Wait,
    /// This server is not the one to ask any more: wait a little and ask whoever is by then.
    Elsewhere,
    /// It took too long. Whether it was done is not known.
    TimedOut,
    /// Nothing helps.
    GiveUp,
}

pub(super) fn remedy(error: &RedisError) -> Remedy {
    match error.kind() {
        ErrorKind::Server(ServerErrorKind::NoScript) => Remedy::SendScript,
        ErrorKind::Server(
            ServerErrorKind::BusyLoading | ServerErrorKind::TryAgain | ServerErrorKind::ClusterDown,
        ) => Remedy::Wait,
        ErrorKind::Server(ServerErrorKind::ReadOnly | ServerErrorKind::MasterDown) => Remedy::Elsewhere,
        ErrorKind::Server(_) => Remedy::GiveUp,
        // A script of somebody else's is running.
        _ if error.code() == Some("BUSY") => Remedy::Wait,
        // In cluster mode: of the node in question, which may be about to be replaced by another.
        ErrorKind::ClusterConnectionNotFound => Remedy::Wait,
        _ if error.is_timeout() => Remedy::TimedOut,
        // A reply that ends too early, or that is none: the connection is of no more use than one that is closed.
        ErrorKind::Io | ErrorKind::Parse => Remedy::Reconnect,
        _ if error.is_connection_dropped() => Remedy::Reconnect,
        _ => Remedy::GiveUp,
    }
}

/// True if no further command should go over the connection that this came from.
pub(super) fn breaks_connection(error: &RedisError) -> bool {
    match remedy(error) {
        // What has not been answered blocks what comes behind it.
        Remedy::Reconnect | Remedy::Elsewhere | Remedy::TimedOut => true,
        Remedy::SendScript | Remedy::Wait => false,
        // It does not know any more who we are.
        Remedy::GiveUp => error.kind() == ErrorKind::AuthenticationFailed || error.code() == Some("NOAUTH"),
    }
}

/// Why Redis did not do what it was asked. It says nothing of keys and values: a server's own words may quote them.
#[derive(Clone, Debug)]
pub(super) enum Failure {
    /// No connection came free in time.
    NoConnection,
    /// No connection could be made.
    Connect(String),
    /// The command was not answered in time.
    TimedOut,
    /// The server answered with this error code.
    Refused(String),
    /// The connection was lost, or what came over it was not to be understood.
    Lost(&'static str),
    /// An entry is larger than any session.
    TooLarge(usize),
}

impl Failure {
    pub(super) fn of(error: &RedisError) -> Self {
        match error.code() {
            _ if error.is_timeout() => Self::TimedOut,
            Some(code) => Self::Refused(known(code)),
            None => match error.kind() {
                ErrorKind::Io => Self::Lost("the connection was lost"),
                ErrorKind::ClusterConnectionNotFound => Self::Lost("no connection to the node in question"),
                ErrorKind::AuthenticationFailed => Self::Refused("WRONGPASS".to_owned()),
                _ => Self::Lost("the answer was not understood"),
            },
        }
    }

    /// Why connecting failed. Of a server's own words only the code: they may quote the password that it was sent.
    pub(super) fn connecting(error: &RedisError) -> Self {
        Self::Connect(match error.code() {
            _ if error.is_timeout() => "no answer in time".to_owned(),
            Some(code) => format!("it answered {}", known(code)),
            None if error.kind() == ErrorKind::Io => error.to_string(),
            None if error.kind() == ErrorKind::Parse => "what answers there is not Redis".to_owned(),
            None => error.category().to_owned(),
        })
    }
}

impl Failure {
    /// True if a server that answers this answers it again, until somebody changes the set-up: who may not, who must say
    /// who he is, and what is no command there.
    pub(super) fn is_lasting(&self) -> bool {
        matches!(self, Self::Refused(code) if matches!(&**code, "NOPERM" | "NOAUTH" | "WRONGPASS" | "ERR"))
    }
}

/// An error code as Redis writes them; what is none is not repeated in logs.
fn known(code: &str) -> String {
    let is_code = code.len() <= 32 && code.bytes().all(|byte| byte.is_ascii_uppercase() || byte == b'_');
    if is_code { code.to_owned() } else { "an error of no known kind".to_owned() }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoConnection => f.write_str("no connection to Redis came free in time"),
            Self::Connect(why) => write!(f, "could not connect to Redis: {why}"),
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
        Self::unavailable(failure)
    }
}

/// True where the set-up is wrong, and trying again would not help.
pub(super) fn is_misconfigured(error: &RedisError) -> bool {
    let refused = matches!(error.code(), Some("WRONGPASS" | "NOAUTH" | "NOPERM"))
        || error.detail().is_some_and(|detail| detail.contains("WRONGPASS"));
    refused
        || matches!(
            error.kind(),
            ErrorKind::AuthenticationFailed
                | ErrorKind::InvalidClientConfig
                | ErrorKind::EmptySentinelList
                | ErrorKind::MasterNameNotFoundBySentinel
                | ErrorKind::RESP3NotSupported
                | ErrorKind::Server(ServerErrorKind::NoPerm)
        )
}
