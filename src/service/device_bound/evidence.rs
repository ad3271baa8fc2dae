//! The data of a request that can show that it comes from its session's device.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, OnceLock};

use http::header::HeaderMap;

use super::other_origin::is_caused_elsewhere;
use crate::config::Config;
use crate::cookie::FoundCookies;
use crate::device_bound::Binder;
use crate::device_bound::headers::SKIPPED;
use crate::error::Error;
use crate::event::Refusal;
use crate::lock::lock;
use crate::session::{Record, SessionId};

/// The data of a request that can show that it comes from the session's device.
#[derive(Default)]
pub(crate) struct DeviceEvidence {
    /// A service answers the browsers that bind sessions of this store.
    is_answered: AtomicBool,
    /// A page of another origin fetched the response, so a binding would not last.
    is_fetched_elsewhere: AtomicBool,
    /// The session, if nothing showed that.
    lapsed: OnceLock<Record>,
    /// The request is about to show it: an honest browser sends it without a bound cookie.
    expects_proof: AtomicBool,
    /// The browser says that it could not refresh the bound cookie, or was not allowed to.
    lacks_refresh: bool,
    /// A cookie of the request may hold a session that this host cannot judge.
    has_unjudged: AtomicBool,
    /// The session to which the request answers an offer.
    expected_session: OnceLock<SessionId>,
    /// Why the session could not be loaded, before the handler asked for it.
    failure: Mutex<Option<Error>>,
}

impl DeviceEvidence {
    /// Takes the data from the headers of a request with a session's cookie, among these cookies, if the store binds sessions.
    pub(crate) fn new(config: &Config, headers: &HeaderMap, cookies: &FoundCookies) -> Self {
        if config.device_bound.is_none() {
            return Self::default();
        }
        let lacks_refresh =
            headers.contains_key(SKIPPED) || is_caused_elsewhere(headers) && !Binder::has_given_up(cookies);
        Self { lacks_refresh, ..Self::default() }
    }

    /// Notes that a service answers the browsers that bind sessions of this store, so that one can be offered.
    pub(super) fn note_answered(&self) {
        self.is_answered.store(true, Ordering::Relaxed);
    }

    /// Returns true if a service answers the browsers that bind sessions of this store.
    pub(super) fn is_answered(&self) -> bool {
        self.is_answered.load(Ordering::Relaxed)
    }

    /// Notes that a page of another origin fetched the response, as a part of itself.
    pub(super) fn note_fetched_elsewhere(&self) {
        self.is_fetched_elsewhere.store(true, Ordering::Relaxed);
    }

    /// Returns true if the response can offer a binding.
    ///
    /// Browsers refresh only for requests that a page of the session's own origin has caused. The session of a page of another
    /// origin would lapse, and stay so.
    pub(super) fn may_offer(&self) -> bool {
        self.is_answered() && !self.is_fetched_elsewhere.load(Ordering::Relaxed)
    }

    /// Notes the session to which the request answers an offer.
    pub(super) fn expect_session(&self, id: SessionId) {
        // A request answers one offer.
        let _ = self.expected_session.set(id);
    }

    /// Returns the session to which the request answers an offer.
    pub(super) fn expected_session(&self) -> Option<SessionId> {
        self.expected_session.get().copied()
    }

    /// Keeps the reason why the session could not be loaded, for the handler.
    pub(super) fn keep_failure(&self, error: Error) {
        *lock(&self.failure) = Some(error);
    }

    /// Returns the reason why the session could not be loaded before, once.
    pub(crate) fn take_failure(&self) -> Option<Error> {
        lock(&self.failure).take()
    }

    /// Notes that the request is one of those by which a device shows that it is there.
    pub(super) fn expect_proof(&self) {
        self.expects_proof.store(true, Ordering::Relaxed);
    }

    /// Takes [`expect_proof`](Self::expect_proof) back: the request is passed on to the handler.
    pub(super) fn expect_no_proof(&self) {
        self.expects_proof.store(false, Ordering::Relaxed);
    }

    /// Notes why a cookie of the request was refused.
    pub(crate) fn note_refusal(&self, refusal: Refusal) {
        self.has_unjudged.fetch_or(refusal.may_be_of_another_host(), Ordering::Relaxed);
    }

    /// Returns true if another host of the site may know a session for this request: one with a newer release or key, or
    /// with a clock that is ahead.
    pub(super) fn has_unjudged(&self) -> bool {
        self.has_unjudged.load(Ordering::Relaxed)
    }

    /// Returns true if the browser says that it could not refresh the bound cookie this time, or was not allowed to.
    pub(super) fn lacks_refresh(&self) -> bool {
        self.lacks_refresh
    }

    /// Notes that nothing showed that the request comes from the device of `session`. Returns true if that is news: the
    /// first time, unless the request is about to show it.
    pub(super) fn note_lapse(&self, session: &Record) -> bool {
        self.lapsed.set(session.clone()).is_ok() && !self.expects_proof.load(Ordering::Relaxed)
    }

    /// Returns the bound session that the request brought without a proof.
    pub(crate) fn lapsed(&self) -> Option<&Record> {
        self.lapsed.get()
    }
}
