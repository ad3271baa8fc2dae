//! The mapping from redis-rs' errors to remedies and to the caller's errors.

use std::error::Error as StdError;
use std::fmt;

use bb8_redis::redis::{ErrorKind, RedisError};

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
    match (code(error), error.kind()) {
        (Some("MOVED" | "ASK"), _) => Remedy::Redirect,
        // BUSY: the server runs a script of another client.
        (Some("LOADING" | "TRYAGAIN" | "CLUSTERDOWN" | "BUSY"), _) => Remedy::Wait,
        (Some("READONLY" | "MASTERDOWN"), _) => Remedy::Elsewhere,
        (Some(_), _) => Remedy::GiveUp,
        _ if error.is_timeout() => Remedy::TimedOut,
        // A reply that ends too early or is not RESP: the connection is as useless as a closed one.
        (None, ErrorKind::Io | ErrorKind::Parse) => Remedy::Reconnect,
        _ if error.is_connection_dropped() => Remedy::Reconnect,
        _ => Remedy::GiveUp,
    }
}

/// Returns true if another node of the Cluster may be the master now.
///
/// While a master is loading, it accepts no connections from the other nodes, so a replica may take over. While it is busy with a
/// script, or its slot is on the move, it stays the master.
pub(super) fn is_of_a_former_master(error: &RedisError) -> bool {
    match remedy(error) {
        Remedy::Elsewhere => true,
        Remedy::Wait => !matches!(code(error), Some("BUSY" | "TRYAGAIN")),
        _ => false,
    }
}

/// Returns the code of the server's error; `None` if the error is not the server's.
///
/// Before Redis 7, the error of a command in a script is wrapped in one of the script, whose code says nothing:
/// `ERR Error running script (call to f_…): @user_script:3: @user_script: 3: -READONLY You can't write …`, or
/// `@user_script: 1: -OOM command not allowed …` where the script returns it.
pub(super) fn code(error: &RedisError) -> Option<&str> {
    const SCRIPT: &str = "@user_script:";
    let code = error.code()?;
    let detail = error.detail().unwrap_or_default();
    let inner = match code {
        "ERR" if detail.starts_with("Error running script") => {
            detail.rsplit_once(SCRIPT).map(|(_, inner)| inner)
        }
        SCRIPT => Some(detail),
        _ => None,
    };
    // Behind the number of the line.
    let text = inner.and_then(|inner| inner.split_once(": ")).map(|(_, text)| text);
    let wrapped = text.and_then(|text| text.trim_start_matches('-').split(' ').next());
    Some(wrapped.filter(|wrapped| is_code(wrapped)).unwrap_or(code))
}

/// Returns true if no further command should use the connection that this error came from.
pub(super) fn breaks_connection(error: &RedisError) -> bool {
    match remedy(error) {
        Remedy::Reconnect | Remedy::Elsewhere | Remedy::TimedOut => true,
        Remedy::Wait | Remedy::Redirect => false,
        // The connection is no longer authenticated.
        Remedy::GiveUp => error.kind() == ErrorKind::AuthenticationFailed || code(error) == Some("NOAUTH"),
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
    /// No sentinel named the master.
    Sentinel(String),
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

/// Why a connection could not be made, if the server was silent.
pub(super) const NO_REPLY: &str = "no reply in time";

pub(super) const CONNECTION_LOST: &str = "the connection was lost";

impl Failure {
    pub(super) fn of(error: &RedisError) -> Self {
        match code(error) {
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
            _ if error.is_timeout() => Self::Connect(NO_REPLY.to_owned()),
            Some("DENIED") => Self::Setup(
                "the server is in protected mode, which refuses other machines: set a password or a user for this store on the \
                 server, and give both in the URL or by credentials()"
                    .to_owned(),
            ),
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
                         maxclients, is in protected mode, or expects TLS"
                    ))
                }
                ErrorKind::Io => Self::Connect(error.to_string()),
                ErrorKind::Parse => Self::Connect("the reply is not that of a Redis server".to_owned()),
                _ => Self::Connect(error.category().to_owned()),
            },
        }
    }

    /// Returns the failure of two attempts that an operator can do more with. A mistake in the set-up stays. A sentinel that does not
    /// answer matters only if no other one named a server.
    pub(super) fn or_more_useful(self, other: Self) -> Self {
        let use_of = |failure: &Self| match failure {
            Self::NoConnection => 0,
            Self::Sentinel(_) => 1,
            Self::Setup(_) => 3,
            _ => 2,
        };
        if use_of(&other) > use_of(&self) { other } else { self }
    }

    /// Returns true if the server gives the same answer until its set-up is changed.
    pub(super) fn is_lasting(&self) -> bool {
        matches!(self, Self::Refused(code) if matches!(&**code, "NOPERM" | "NOAUTH" | "WRONGPASS" | "ERR"))
    }

    /// Returns true if a server refused a write because it is a replica.
    pub(super) fn is_of_a_replica(&self) -> bool {
        matches!(self, Self::Refused(code) if code == "READONLY")
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
    code(error) == Some("OOM")
}

/// Returns the failure of a URL that leads to a replica. It may be the master later.
pub(super) fn a_replica() -> Failure {
    Failure::Connect(
        "it answered READONLY: the server is a replica, but the URL must lead to the master, or to the sentinels that know it"
            .to_owned(),
    )
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
    if is_code(code) { code.to_owned() } else { "an error of unknown form".to_owned() }
}

fn is_code(code: &str) -> bool {
    (1..=32).contains(&code.len()) && code.bytes().all(|byte| byte.is_ascii_uppercase() || byte == b'_')
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoConnection => {
                f.write_str("no connection to Redis came free in time, or none could be made")
            }
            Self::Connect(why) => write!(f, "could not connect to Redis: {why}"),
            Self::Sentinel(why) => write!(f, "no sentinel named the master: {why}"),
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

impl From<Trouble> for Error {
    fn from(trouble: Trouble) -> Self {
        match trouble {
            Trouble::Reply(error) => Failure::of(&error).into(),
            Trouble::Failed(failure) => failure.into(),
        }
    }
}

impl From<Failure> for Trouble {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

#[cfg(test)]
mod tests {
    use bb8_redis::redis::{Value, parse_redis_value};

    use super::*;

    fn replied(reply: &str) -> RedisError {
        parse_redis_value(format!("-{reply}\r\n").as_bytes()).and_then(Value::extract_error).unwrap_err()
    }

    /// Each error as the server sends it, and as Redis 6.2 wraps it if it comes from a command of a script.
    #[test]
    fn an_error_inside_of_a_script_has_the_remedy_of_its_own_code() {
        for (plain, expected, breaks) in [
            ("READONLY You can't write against a read only replica.", Remedy::Elsewhere, true),
            ("MASTERDOWN Link with MASTER is down", Remedy::Elsewhere, true),
            ("LOADING Redis is loading the dataset in memory", Remedy::Wait, false),
            ("BUSY Redis is busy running a script.", Remedy::Wait, false),
            ("CLUSTERDOWN The cluster is down", Remedy::Wait, false),
            ("TRYAGAIN Multiple keys request during rehashing of slot", Remedy::Wait, false),
            ("NOAUTH Authentication required.", Remedy::GiveUp, true),
            ("OOM command not allowed when used memory > 'maxmemory'.", Remedy::GiveUp, false),
            ("MISCONF Redis is configured to save RDB snapshots", Remedy::GiveUp, false),
            ("NOREPLICAS Not enough good replicas to write.", Remedy::GiveUp, false),
            ("WRONGTYPE Operation against a key holding the wrong kind of value", Remedy::GiveUp, false),
            ("ERR wrong number of arguments for 'get' command", Remedy::GiveUp, false),
        ] {
            let expected_code = plain.split(' ').next();
            for reply in [
                plain.to_owned(),
                format!("ERR Error running script (call to f_0a1b): @user_script:2: {plain}"),
                format!(
                    "ERR Error running script (call to f_0a1b): @user_script:2: @user_script: 2: -{plain}"
                ),
                format!("@user_script: 12: -{plain}"),
            ] {
                let error = replied(&reply);
                assert_eq!(code(&error), expected_code, "{reply}");
                assert_eq!((remedy(&error), breaks_connection(&error)), (expected, breaks), "{reply}");
                assert_eq!(is_out_of_memory(&error), plain.starts_with("OOM"), "{reply}");
            }
        }
        for (reply, expected) in [
            ("NOSCRIPT No matching script.", Remedy::GiveUp),
            ("MOVED 1 127.0.0.1:7000", Remedy::Redirect),
            ("ASK 1 127.0.0.1:7000", Remedy::Redirect),
        ] {
            assert_eq!(remedy(&replied(reply)), expected, "{reply}");
        }
    }

    #[test]
    fn a_master_that_is_busy_stays_the_master() {
        for (reply, expected) in [
            ("READONLY You can't write against a read only replica.", true),
            ("MASTERDOWN Link with MASTER is down", true),
            ("LOADING Redis is loading the dataset in memory", true),
            ("CLUSTERDOWN The cluster is down", true),
            ("BUSY Redis is busy running a script.", false),
            ("TRYAGAIN Multiple keys request during rehashing of slot", false),
            ("MOVED 1 127.0.0.1:7000", false),
            ("OOM command not allowed when used memory > 'maxmemory'.", false),
        ] {
            assert_eq!(is_of_a_former_master(&replied(reply)), expected, "{reply}");
        }
    }

    #[test]
    fn text_of_a_script_or_of_a_value_is_not_taken_for_a_code() {
        for (reply, expected) in [
            ("ERR Error running script (call to f_0a1b): @user_script:1: attempt to call a nil value", "ERR"),
            ("ERR Error running script (call to f_0a1b): @user_script:1: ", "ERR"),
            ("ERR Error running script (call to f_0a1b)", "ERR"),
            ("ERR syntax error near: -OOM", "ERR"),
            ("WRONGPASS @user_script:1: -READONLY x", "WRONGPASS"),
            ("@user_script: 1: no code", "@user_script:"),
        ] {
            let error = replied(reply);
            assert_eq!(code(&error), Some(expected), "{reply}");
            assert_eq!(remedy(&error), Remedy::GiveUp, "{reply}");
            assert!(!breaks_connection(&error) && !is_out_of_memory(&error), "{reply}");
        }
    }
}
