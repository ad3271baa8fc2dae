//! Device-bound sessions in a build without them: no session is bound, so each request passes.
#![allow(clippy::unnecessary_wraps, clippy::unused_self)] // the same functions as with the feature

use http::{HeaderMap, HeaderName, HeaderValue};

use crate::clock::Timestamp;
use crate::config::Config;
use crate::cookie::{FoundCookies, SetCookies};
use crate::error::Error;
use crate::event::Refusal;
use crate::service::cookie_opening::OpenedCookies;
use crate::service::slot::Slot;
use crate::session::{DeviceCheck, Record, Reply};

#[derive(Default)]
pub(super) struct DeviceEvidence {}

impl DeviceEvidence {
    pub(super) fn new(_: &Config, _: &HeaderMap, _: &FoundCookies) -> Self {
        Self {}
    }

    pub(super) fn take_failure(&self) -> Option<Error> {
        None
    }

    pub(super) fn note_refusal(&self, _: Refusal) {}

    pub(super) fn lapsed(&self) -> Option<&Record> {
        None
    }
}

impl Slot {
    pub(super) fn binding_check(&self, _: Option<&Record>, _: Timestamp) -> DeviceCheck {
        DeviceCheck::Unchecked
    }

    pub(super) fn prefer_expected(&self, _: &mut OpenedCookies) {}

    pub(super) fn binding_offer(&self, _: &Reply) -> Option<(HeaderName, HeaderValue)> {
        None
    }

    pub(super) fn bound_cookie_may_follow(&self, _: Timestamp) -> bool {
        false
    }

    pub(super) fn remove_bound_cookie(&self) -> Result<SetCookies, Error> {
        Ok(SetCookies::new())
    }
}
