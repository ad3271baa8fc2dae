//! The sessions that a revocation names, from the command line.

use std::fmt;

use hyper_session::SessionId;
use hyper_session::revocation::Revocation;

use crate::report::Failure;

/// The sessions that a revocation names.
pub(crate) enum Named {
    Session(String),
    Subject(String),
    Label(String, String),
    Everything,
}

impl Named {
    /// Fails if a session is named by what is not an id, which no log would have.
    pub(crate) fn check(&self) -> Result<(), Failure> {
        match self {
            Self::Session(id) => Ok(id.parse::<SessionId>().map(drop)?),
            Self::Subject(_) | Self::Label(..) | Self::Everything => Ok(()),
        }
    }

    /// Returns true if `revocation` names these sessions.
    pub(crate) fn is_named_by(&self, revocation: &Revocation) -> Result<bool, Failure> {
        Ok(match self {
            Self::Session(id) => revocation.names_session(id.parse()?),
            Self::Subject(subject) => revocation.names_subject(subject),
            Self::Label(namespace, value) => revocation.names_label(namespace, value),
            Self::Everything => revocation.names_everything(),
        })
    }
}

impl fmt::Display for Named {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Session(id) => write!(f, "session {id}"),
            Self::Subject(subject) => write!(f, "all sessions of {subject:?}"),
            Self::Label(namespace, value) => write!(f, "all sessions with the label {namespace:?} {value:?}"),
            Self::Everything => f.write_str("all sessions"),
        }
    }
}
