//! The data of a request that can show that it comes from its session's device.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use http::header::{COOKIE, HeaderMap, HeaderValue};
use smallvec::SmallVec;

use super::fetch_metadata::is_caused_elsewhere;
use crate::config::Config;
use crate::cookie::SetCookies;
use crate::device_bound::Binder;
use crate::device_bound::headers::SKIPPED;
use crate::error::Error;
use crate::event::Refusal;
use crate::session::Record;

/// The data of a request that can show that it comes from the session's device.
pub(super) struct DeviceEvidence {
    /// The `Cookie` fields. Empty if the store binds no sessions. Only reference counts are copied.
    cookies: SmallVec<[HeaderValue; 1]>,
    /// The session, if nothing showed that.
    lapsed: OnceLock<Record>,
    /// The request is about to show it: an honest browser sends it without a bound cookie.
    is_refresh: AtomicBool,
    /// The browser says that it could not refresh the bound cookie, or was not allowed to.
    lacks_refresh: bool,
    /// A cookie of the request may hold a session that this host cannot judge.
    has_unjudged: AtomicBool,
}

impl DeviceEvidence {
    /// Takes the data from the headers of a request. `present`: it has a session's cookie.
    pub(super) fn new(config: &Config, headers: &HeaderMap, present: bool) -> Self {
        let binder = config.device_bound.as_ref();
        let fields = binder.map(|_| headers.get_all(COOKIE).iter().cloned());
        let cookies: SmallVec<_> = fields.into_iter().flatten().collect();
        let lacks_refresh = |binder: &Binder| {
            headers.contains_key(SKIPPED) || is_caused_elsewhere(headers) && !binder.has_given_up(&cookies)
        };
        Self {
            lacks_refresh: present && binder.is_some_and(|binder| lacks_refresh(binder)),
            cookies,
            lapsed: OnceLock::new(),
            is_refresh: AtomicBool::new(false),
            has_unjudged: AtomicBool::new(false),
        }
    }

    /// Notes that the request is one of those by which a device shows that it is there.
    pub(super) fn expect_proof(&self) {
        self.is_refresh.store(true, Ordering::Relaxed);
    }

    /// Takes [`expect_proof`](Self::expect_proof) back: the request is passed on to the handler.
    pub(super) fn expect_no_proof(&self) {
        self.is_refresh.store(false, Ordering::Relaxed);
    }

    /// Notes why a cookie of the request was refused.
    pub(super) fn note_refusal(&self, refusal: Refusal) {
        self.has_unjudged.fetch_or(refusal.may_be_of_another_host(), Ordering::Relaxed);
    }

    /// Returns true if another host of the site may know a session for this request: one with a newer release or key, or
    /// with a clock that is ahead.
    pub(super) fn has_unjudged(&self) -> bool {
        self.has_unjudged.load(Ordering::Relaxed)
    }

    /// Returns the lines that remove the bound cookie, if the request brought one.
    pub(super) fn remove_cookie(&self, config: &Config) -> Result<SetCookies, Error> {
        match &config.device_bound {
            Some(binder) => binder.remove_cookie(&self.cookies),
            None => Ok(SetCookies::new()),
        }
    }

    /// Returns true if the browser may still hold the key, although it sent no valid bound cookie: the one it sent has
    /// expired on its way, or by this host's clock, or the browser could not refresh it this time.
    pub(super) fn may_return(&self, config: &Config) -> bool {
        let binder = config.device_bound.as_ref();
        self.lacks_refresh || binder.is_some_and(|binder| binder.has_cookie(&self.cookies))
    }

    /// Returns the `Cookie` fields.
    pub(super) fn cookies(&self) -> &[HeaderValue] {
        &self.cookies
    }

    /// Notes that nothing showed that the request comes from the device of `session`. Returns true if that is news: the
    /// first time, unless the request is about to show it.
    pub(super) fn note_lapse(&self, session: &Record) -> bool {
        self.lapsed.set(session.clone()).is_ok() && !self.is_refresh.load(Ordering::Relaxed)
    }

    /// Returns the bound session that the request brought without a proof.
    pub(super) fn lapsed(&self) -> Option<&Record> {
        self.lapsed.get()
    }
}
