//! One builder for all stores: what they share is said, documented and checked once.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::clock::Clock;
use crate::config::{Config, Options, Timeouts};
use crate::cookie::CookieOptions;
use crate::error::Error;
use crate::event::Observer;
use crate::session::PayloadFormat;

/// Builds a store of the kind `K`, which each store's `builder` chooses. Every option has a safe default.
///
/// # Examples
///
/// ```
/// use hyper_session::{AppKey, CookieStore};
/// use std::time::Duration;
///
/// let store = CookieStore::builder(AppKey::generate()?)
///     .idle_timeout(Duration::from_secs(15 * 60))
///     .absolute_timeout(Duration::from_secs(8 * 3600))
///     .build()?;
/// # Ok::<(), hyper_session::Error>(())
/// ```
#[must_use = "a builder does nothing until it is built"]
pub struct Builder<K> {
    pub(super) kind: K,
    options: Options,
}

impl<K> Builder<K> {
    pub(super) fn new(kind: K) -> Self {
        Self { kind, options: Options::default() }
    }

    /// How the cookie is set. Default is [`CookieOptions::new`].
    pub fn cookie(mut self, cookie: CookieOptions) -> Self {
        self.options.cookie = cookie;
        self
    }

    /// Switches to [`CookieOptions::development`]: a cookie that works over plain http, and protects nobody there.
    pub fn development(self) -> Self {
        self.cookie(CookieOptions::development())
    }

    /// A session that is not used for this long is over. Default is 24 hours; counted in whole seconds.
    pub fn idle_timeout(mut self, idle: Duration) -> Self {
        self.options.idle = idle;
        self
    }

    /// A session that began this long ago is over, however busy. Default is seven days, or the idle timeout if that is
    /// longer; counted in whole seconds. A change applies to sessions that exist already, unless it makes them longer.
    pub fn absolute_timeout(mut self, absolute: Duration) -> Self {
        self.options.absolute = Some(absolute);
        self
    }

    /// Reading a session moves its idle deadline once this much can be gained. Default is a tenth of the idle timeout; zero
    /// moves it on every response.
    pub fn renewal_threshold(mut self, renewal: Duration) -> Self {
        self.options.renewal = Some(renewal);
        self
    }

    /// Idle timeout, absolute timeout and renewal threshold at once.
    pub fn timeouts(mut self, timeouts: Timeouts) -> Self {
        self.options.idle = timeouts.idle;
        self.options.absolute = Some(timeouts.absolute);
        self.options.renewal = Some(timeouts.renewal);
        self
    }

    /// How values are written. Default is [`PayloadFormat::MessagePack`]; both are read.
    pub fn payload_format(mut self, format: PayloadFormat) -> Self {
        self.options.format = format;
        self
    }

    /// Whether changed values are saved although the handler answered with a 5xx status. Default is false: what a failed
    /// request did halfway is dropped. `destroy` and `regenerate` are done in any case.
    pub fn keep_values_on_server_error(mut self, yes: bool) -> Self {
        self.options.keep_values_on_server_error = yes;
        self
    }

    /// Where the time comes from. Default is the machine's clock.
    pub fn clock(mut self, clock: impl Clock) -> Self {
        self.options.clock = Arc::new(clock);
        self
    }

    /// Who is told of [events](crate::Event). Default is nobody.
    pub fn observer(mut self, observer: impl Observer) -> Self {
        self.options.observer = Some(Arc::new(observer));
        self
    }

    pub(super) fn validate(self) -> Result<(K, Config), Error> {
        Ok((self.kind, self.options.validate()?))
    }
}

impl<K> fmt::Debug for Builder<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Builder").field("cookie", &self.options.cookie).finish_non_exhaustive()
    }
}
