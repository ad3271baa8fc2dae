//! The user and the password that connections log in with.

use std::error::Error as StdError;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

/// A user and a password, from the provider that is given to
/// [`credentials_provider`](crate::store::Builder::credentials_provider).
///
/// # Examples
///
/// ```
/// use hyper_session::store::redis::Credentials;
///
/// let credentials = Credentials::new("sessions", "a token that lasts a quarter of an hour");
/// assert!(!format!("{credentials:?}").contains("quarter"));
/// ```
#[derive(Clone)]
pub struct Credentials {
    pub(super) user: Option<String>,
    pub(super) password: String,
}

impl Credentials {
    /// Creates credentials of a user. An empty name means the default user.
    pub fn new(user: impl Into<String>, password: impl Into<String>) -> Self {
        Self { user: Some(user.into()).filter(|user| !user.is_empty()), password: password.into() }
    }

    /// Creates credentials of the default user.
    pub fn password(password: impl Into<String>) -> Self {
        Self { user: None, password: password.into() }
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials").field("user", &self.user).finish_non_exhaustive()
    }
}

type Provided = Result<Credentials, Box<dyn StdError + Send + Sync>>;

/// A function that is asked for credentials before each connection is made.
#[derive(Clone)]
pub(super) struct Provider(Arc<dyn Fn() -> Pin<Box<dyn Future<Output = Provided> + Send>> + Send + Sync>);

impl Provider {
    pub(super) fn new<F>(provide: impl Fn() -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Provided> + Send + 'static,
    {
        Self(Arc::new(move || Box::pin(provide())))
    }

    pub(super) async fn provide(&self) -> Provided {
        (self.0)().await
    }
}
