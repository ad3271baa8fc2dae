//! A second attempt for a browser that comes by a link of another site, and was not allowed to refresh its bound cookie first.
//!
//! Browsers refresh a bound cookie only for requests that a page of its origin has caused (section 8.3 of the draft). After
//! some minutes, a link in a mail would lead to a page that shows its user as logged out. The draft's remedy, a list of other
//! origins, does not help: the browser then refreshes without cookies that are `SameSite=Lax`, so without the session.

use std::sync::Arc;

use bytes::Bytes;
use http::header::{CACHE_CONTROL, HeaderMap, HeaderValue, REFRESH};
use http::{Response, StatusCode, Uri};

use super::other_origin::is_caused_elsewhere;
use super::response;
use crate::cookie::FoundCookies;
use crate::device_bound::Binder;
use crate::device_bound::headers::SKIPPED;
use crate::error::Error;
use crate::service::slot::Slot;

/// Returns the value of a `Refresh` field that opens this page again. The page's script is faster, and keeps the fragment of the
/// address, but a policy of the site may forbid it.
///
/// It names only the query: an address that begins with two slashes would lead to another host.
pub(super) fn again(uri: &Uri) -> HeaderValue {
    let value = format!("1; url=?{}", uri.query().unwrap_or_default());
    // A query has the characters of a header's value.
    HeaderValue::try_from(value).unwrap_or_else(|_| HeaderValue::from_static("1"))
}

impl Slot {
    /// Answers the image of the page: the browser had the opportunity to refresh. If another origin has caused the request, it is
    /// not that image, and the browser had none.
    pub(super) fn answer_image(&self, binder: &Binder, fields: &HeaderMap) -> Result<Response<Bytes>, Error> {
        let mut response = response::empty(StatusCode::NO_CONTENT);
        let is_of_page = Binder::was_asked(&self.found) && !is_caused_elsewhere(fields);
        if is_of_page && !self.has_usable_bound_cookie(binder) && !fields.contains_key(SKIPPED) {
            response::set_cookies(&mut response, binder.give_up()?);
        }
        Ok(response)
    }

    /// Returns true if the request has a cookie of the session's name, and its browser may still refresh the bound cookie. A bound
    /// cookie that cannot count here does not prevent that: it has expired on its way, or another program has set it.
    pub(super) fn may_retry(&self, binder: &Binder) -> bool {
        binder.enforces()
            && self.cookies().any(FoundCookies::is_present)
            && !Binder::was_asked(&self.found)
            && !binder.may_count(&self.found, &self.found_retired, self.connection.config().now())
    }

    /// Returns a page that refreshes the bound cookie and opens itself again, if the session of the request lacks it.
    pub(super) async fn retry(
        self: Arc<Self>,
        binder: Arc<Binder>,
        again: HeaderValue,
    ) -> Option<Response<Bytes>> {
        self.device.expect_proof();
        let looked = self.look().await.map(drop);
        let failed = looked.is_err();
        if let Err(error) = looked {
            // The handler gets it if it asks for its session, instead of another wait for the same store.
            self.device.keep_failure(error);
        }
        if failed || self.device.lapsed().is_none() {
            self.device.expect_no_proof();
            return None;
        }
        self.note_asked();
        let (page, lines) = binder.retry_page().ok()?;
        let mut response = response::text(page, "text/html; charset=utf-8", lines);
        response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        response.headers_mut().insert(REFRESH, again);
        Some(response)
    }
}
