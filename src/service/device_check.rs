//! Whether a request with a bound session comes from the session's device.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use http::header::{COOKIE, HeaderMap, HeaderValue};
use smallvec::SmallVec;

use super::slot::Slot;
use crate::clock::Timestamp;
use crate::config::Config;
use crate::cookie::SetCookies;
use crate::device_bound::Binder;
use crate::error::Error;
use crate::event::{EventKind, Refusal};
use crate::session::{DeviceCheck, Record, Reply, Weight};

/// The data of a request that can show that it comes from the session's device.
pub(super) struct DeviceEvidence {
    /// The `Cookie` fields. Empty if the store binds no sessions. Only reference counts are copied.
    cookies: SmallVec<[HeaderValue; 1]>,
    /// The session, if nothing showed that.
    lapsed: OnceLock<Record>,
    /// The request is about to show it: an honest browser sends it without a bound cookie.
    is_refresh: AtomicBool,
    /// A cookie of the request may hold a session that this host cannot judge.
    has_unjudged: AtomicBool,
}

impl DeviceEvidence {
    pub(super) fn new(config: &Config, headers: &HeaderMap) -> Self {
        let binds = config.device_bound.is_some();
        let fields = binds.then(|| headers.get_all(COOKIE).iter().cloned());
        Self {
            cookies: fields.into_iter().flatten().collect(),
            lapsed: OnceLock::new(),
            is_refresh: AtomicBool::new(false),
            has_unjudged: AtomicBool::new(false),
        }
    }

    /// Notes that the request is one of those by which a device shows that it is there.
    pub(super) fn expect_proof(&self) {
        self.is_refresh.store(true, Ordering::Relaxed);
    }

    /// Notes why a cookie of the request was refused.
    pub(super) fn note_refusal(&self, refusal: Refusal) {
        let of_another_host =
            matches!(refusal, Refusal::Version | Refusal::UnknownKey | Refusal::IssuedInFuture);
        self.has_unjudged.fetch_or(of_another_host, Ordering::Relaxed);
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

    /// Returns the bound session that the request brought without a proof.
    pub(super) fn lapsed(&self) -> Option<&Record> {
        self.lapsed.get()
    }
}

/// Returns the binder of a store that requires bound sessions to come with their bound cookie, and offers bindings.
pub(super) fn enforced(config: &Config) -> Option<&Binder> {
    config.device_bound.as_deref().filter(|binder| binder.enforces())
}

impl Slot {
    /// Checks that the request comes from the device that its session is bound to.
    pub(super) fn binding_check(&self, record: Option<&Record>, now: Timestamp) -> DeviceCheck {
        let Some(binder) = enforced(self.connection.config()) else { return DeviceCheck::Unchecked };
        let Some(record) = record else { return DeviceCheck::Passed };
        let passed = match record.payload().device_binding() {
            Ok(None) => true,
            Ok(Some(binding)) => {
                binder.is_present(&binding, &self.device.cookies, self.connection.bound_cookie_memo(), now)
            }
            Err(_) => false,
        };
        if passed {
            return DeviceCheck::Passed;
        }
        let is_first = self.device.lapsed.set(record.clone()).is_ok();
        if is_first && !self.device.is_refresh.load(Ordering::Relaxed) {
            self.emit(EventKind::BindingLapsed { id: record.id() });
        }
        DeviceCheck::Failed
    }

    /// Returns the field that offers to bind the session to the browser's device, on a response with this reply: at a login,
    /// and at each renewal while the session is not bound. Also if the request brought a bound cookie: a page that was loading
    /// during the registration may have set the session's former cookie again. A browser that cannot do it ignores the field.
    pub(super) fn binding_offer(&self, reply: &Reply) -> Option<HeaderValue> {
        let binder = enforced(self.connection.config())?;
        let Reply::Set { weight, .. } = reply else { return None };
        let loaded = self.loaded().filter(|_| self.connection.offers_binding())?;
        let record = loaded.session.stored_record()?;
        let is_due = *weight == Weight::Renewal
            || loaded.id != Some(record.id())
            || binder.has_cookie(&self.device.cookies);
        let payload = record.payload();
        if !is_due || !payload.has_subject() || payload.device_binding() != Ok(None) {
            return None;
        }
        // Without randomness there is no offer, and the next renewal makes one.
        binder.offer(record.id(), self.now_since(loaded.now)).ok()
    }
}
