//! Whether a request with a bound session comes from the session's device.

use http::{HeaderName, HeaderValue};

use crate::clock::Timestamp;
use crate::config::Config;
use crate::cookie::{FoundCookies, SetCookies};
use crate::device_bound::Binder;
use crate::device_bound::headers::REGISTRATION;
use crate::error::Error;
use crate::event::EventKind;
use crate::service::cookie_opening::{Candidate, OpenedCookies};
use crate::service::slot::Slot;
use crate::session::{DeviceCheck, Record, Reply, Weight};

/// Returns the binder of a store that requires bound sessions to come with their bound cookie, and offers bindings.
fn enforced(config: &Config) -> Option<&Binder> {
    config.device_bound.as_deref().filter(|binder| binder.enforces())
}

impl Slot {
    /// Checks that the request comes from the device that its session is bound to.
    pub(crate) fn binding_check(&self, record: Option<&Record>, now: Timestamp) -> DeviceCheck {
        let Some(binder) = enforced(self.connection.config()) else { return DeviceCheck::Unchecked };
        let Some(record) = record else { return DeviceCheck::Passed };
        let passed = match record.payload().device_binding() {
            Ok(None) => true,
            Ok(Some(binding)) => {
                let memo = self.connection.bound_cookie_memo();
                binder.is_present(&binding, &self.found, &self.found_retired, memo, now)
            }
            Err(_) => false,
        };
        if passed {
            return DeviceCheck::Passed;
        }
        if self.device.note_lapse(record) {
            self.emit(EventKind::BindingLapsed { id: record.id() });
        }
        DeviceCheck::Failed
    }

    /// Puts the session in front that was offered the registration which this request answers, if it counts. A newer one may have
    /// been planted by another host of the domain.
    pub(crate) fn prefer_expected(&self, opened: &mut OpenedCookies) {
        let Some(id) = self.device.expected_session() else { return };
        let is_expected = |candidate: &Candidate| {
            let record = &candidate.record;
            record.id() == id && opened.hidden.is_none_or(|hidden| record.recency() > hidden)
        };
        let expected = opened.candidates.iter().position(is_expected);
        if let Some(until) = expected.and_then(|at| opened.candidates.get_mut(..=at)) {
            until.rotate_right(1);
        }
    }

    /// Returns the field that offers to bind the session to the browser's device, on a response with this reply: at a login,
    /// and at each renewal while the session is not bound. Also if the request brought a bound cookie: a page that was loading
    /// during the registration may have set the session's former cookie again. A browser that cannot do it ignores the field.
    /// A response that a page of another origin fetched offers nothing.
    pub(crate) fn binding_offer(&self, reply: &Reply) -> Option<(HeaderName, HeaderValue)> {
        let binder = enforced(self.connection.config())?;
        let Reply::Set { weight, .. } = reply else { return None };
        let loaded = self.loaded().filter(|_| self.device.may_offer())?;
        let record = loaded.session.stored_record()?;
        let is_due = *weight == Weight::Renewal || loaded.id != Some(record.id()) || self.has_bound_cookie();
        let payload = record.payload();
        if !is_due || !payload.has_subject() || payload.device_binding() != Ok(None) {
            return None;
        }
        // Without randomness there is no offer, and the next renewal makes one.
        let offer = binder.offer(record.id(), self.now_since(loaded.now)).ok()?;
        Some((REGISTRATION, offer))
    }

    /// Returns true if the request has a bound cookie, under whichever name. It may have expired on its way, or by this host's
    /// clock.
    fn has_bound_cookie(&self) -> bool {
        self.cookies().any(Binder::has_cookie)
    }

    /// Returns true if the request has a bound cookie that this host could check, under whichever name. It may have expired on its
    /// way, or by this host's clock. Other values of that form are planted ones.
    pub(super) fn has_usable_bound_cookie(&self, binder: &Binder) -> bool {
        binder.has_known_key(&self.found, &self.found_retired)
    }

    /// Returns true if the next request of this browser may come with a valid bound cookie, although this one did not.
    ///
    /// If the session was bound moments ago, the browser may have sent this request before, or the handler was slow to ask for its
    /// session. If this release cannot read the binding, it does not know when that was.
    pub(crate) fn bound_cookie_may_follow(&self, now: Timestamp) -> bool {
        let binder = self.connection.config().device_bound.as_deref();
        // The cookie of another device is a planted one.
        let has_cookie_of = |binding: &_| {
            binder.is_some_and(|binder| binder.has_cookie_of(binding, &self.found, &self.found_retired))
        };
        self.device.lacks_refresh()
            || self.device.lapsed().is_some_and(|lapsed| match lapsed.payload().device_binding() {
                Ok(Some(binding)) => Binder::is_new(&binding, now) || has_cookie_of(&binding),
                Ok(None) => false,
                Err(_) => true,
            })
    }

    /// Returns the lines that remove the bound cookie, if the request has one.
    pub(crate) fn remove_bound_cookie(&self) -> Result<SetCookies, Error> {
        match &self.connection.config().device_bound {
            Some(binder) if self.has_bound_cookie() => binder.remove_cookie(),
            _ => Ok(SetCookies::new()),
        }
    }

    /// Returns the cookies of the session's name, and those of each retired one.
    pub(super) fn cookies(&self) -> impl Iterator<Item = &FoundCookies> {
        std::iter::once(&self.found).chain(&self.found_retired)
    }
}
