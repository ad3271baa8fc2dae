//! Whether a request with a bound session comes from the session's device.

use http::HeaderValue;

use super::slot::Slot;
use crate::clock::Timestamp;
use crate::config::Config;
use crate::device_bound::Binder;
use crate::event::EventKind;
use crate::session::{DeviceCheck, Record, Reply, Weight};

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
                binder.is_present(&binding, self.device.cookies(), self.connection.bound_cookie_memo(), now)
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
            || binder.has_cookie(self.device.cookies());
        let payload = record.payload();
        if !is_due || !payload.has_subject() || payload.device_binding() != Ok(None) {
            return None;
        }
        // Without randomness there is no offer, and the next renewal makes one.
        binder.offer(record.id(), self.now_since(loaded.now)).ok()
    }
}
