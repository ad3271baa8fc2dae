//! From the handler's response to the response that is sent.

use std::sync::Arc;

use http::header::HeaderName;
use http::{HeaderMap, Response, StatusCode};

use super::commit::Commit;
use super::error_response;
use super::response_head;
use super::slot::{Loaded, Slot};
use crate::clock::Timestamp;
use crate::cookie::SetCookies;
use crate::error::Error;
use crate::event::{DropReason, EventKind};
use crate::session::{CookieLifetime, Disposition, Record, Reply};

const CLEAR_SITE_DATA: HeaderName = HeaderName::from_static("clear-site-data");

impl Slot {
    /// Returns how a response with this head treats the handler's changes to its session.
    pub(super) fn disposition<R>(&self, response: &Response<R>) -> Disposition {
        let (status, headers) = (response.status(), response.headers());
        if status.is_informational() {
            // RFC 9110 section 15.2: a 1xx is not a final response, so the cookie is not sent with it.
            if self.is_only_copy() { Disposition::Unreachable } else { Disposition::NoCookie }
        } else if self.connection.config().settings.discard_rule.applies(status, headers) {
            Disposition::DropValues
        } else {
            Disposition::Accept
        }
    }

    /// Returns true if the response already contains a statement about the session's cookie. Work that no handler asked for
    /// yields to it.
    pub(super) fn is_spoken_for(&self, headers: &HeaderMap) -> bool {
        response_head::speaks_of(headers, self.connection.config().cookie.name())
    }

    /// Starts the commit at the end of a request, which is `now`.
    pub(super) fn last_commit<R>(
        self: &Arc<Self>,
        loaded: &Loaded,
        now: Timestamp,
        response: &Response<R>,
        disposition: Disposition,
    ) -> Commit {
        let said = response_head::said(response.headers(), self.template());
        Commit::last(Arc::clone(self), loaded.clone(), now, disposition, said)
    }

    /// Takes the reply that the response has to carry.
    pub(super) fn take_reply(&self) -> Reply {
        self.loaded().map_or(Reply::Nothing, |loaded| loaded.session.take_reply())
    }

    /// Replaces `response` with `replacement`. Other sessions were committed by then, so their `Set-Cookie` lines stay. A token that
    /// an earlier [`save`](crate::Session::save) of the same request promised still reaches the client: its old token may be dead.
    pub(super) fn replace<R>(&self, response: &mut Response<R>, mut replacement: Response<R>) {
        if response_head::keep_session_lines(response.headers(), replacement.headers_mut()) {
            response_head::forbid_storing(replacement.headers_mut());
        }
        // The handler failed, whatever else did.
        if let Some(made_from) = error_response::take_mark(response) {
            made_from.mark(&mut replacement);
        }
        *response = replacement;
        // On an error, no token was promised either.
        let _ = self.write_head(self.take_reply(), response);
    }

    /// Writes the headers that clients and caches need. The head is changed once, and only after the store has acknowledged.
    ///
    /// # Errors
    ///
    /// An error if the cookie cannot be set. The head is then unchanged.
    pub(super) fn write_head<R>(&self, reply: Reply, response: &mut Response<R>) -> Result<(), Error> {
        let config = self.connection.config();
        let informational = response.status().is_informational();
        let offer = self.binding_offer(&reply);
        let lines = self.lines_of(reply, response.status(), response.headers())?;
        let sets_cookie = !lines.is_empty();
        let forget = config.settings.clear_site_data.as_ref().filter(|_| {
            let ended = self.loaded().is_some_and(|loaded| loaded.session.was_logged_out());
            ended && !informational
        });
        let headers = response.headers_mut();
        response_head::vary_on_cookie(headers);
        if let Some(kinds) = forget {
            headers.entry(CLEAR_SITE_DATA).or_insert_with(|| kinds.clone());
        }
        if let Some((name, offer)) = offer.filter(|_| sets_cookie) {
            // Beside that of a service inside, for another session.
            headers.append(name, offer);
        }
        if sets_cookie
            && response_head::replace_set_cookie(headers, config.cookie.name(), lines)
            && !self.follows_response()
        {
            self.emit(EventKind::SetCookieReplaced);
        }
        if (sets_cookie || self.is_private()) && response_head::forbid_storing(headers) {
            self.emit(EventKind::CacheControlReplaced);
        }
        Ok(())
    }

    /// Returns the `Set-Cookie` lines by which a response with this head carries the reply.
    fn lines_of(&self, reply: Reply, status: StatusCode, headers: &HeaderMap) -> Result<SetCookies, Error> {
        if status.is_informational() {
            if matches!(reply, Reply::Set { .. }) {
                self.report_withheld();
            }
            return Ok(SetCookies::new());
        }
        match reply {
            Reply::Nothing => Ok(SetCookies::new()),
            // A weaker statement yields to a stronger one.
            Reply::Set { weight, .. } | Reply::Remove { weight }
                if !weight.is_asked_for() && self.is_spoken_for(headers) =>
            {
                Ok(SetCookies::new())
            }
            Reply::Set { token, expires, .. } => {
                let lifetime = expires.saturating_since(self.connection.config().now());
                // A cookie that has expired is worth nothing to the client.
                if lifetime.is_zero() {
                    return Ok(SetCookies::new());
                }
                self.set_cookie(token.expose(), lifetime, self.cookie_lifetime())
            }
            Reply::Remove { .. } => self.remove_cookie(),
        }
    }

    /// Returns the lifetime of the session's cookie, as it was saved.
    fn cookie_lifetime(&self) -> CookieLifetime {
        self.loaded().map_or(CookieLifetime::Configured, |loaded| loaded.session.stored_cookie_lifetime())
    }

    /// Reports a save before a 1xx response, which cannot carry the cookie.
    fn report_withheld(&self) {
        let Some(loaded) = self.loaded() else { return };
        let saved = loaded.session.stored_record();
        let id = saved.as_ref().map(Record::id);
        let keeps_former = loaded.place.is_none() && self.is_only_copy();
        if id != loaded.id && !keeps_former {
            self.emit(EventKind::CookieWithheld { id });
        } else if saved.is_some_and(|saved| saved.is_in_cookie()) {
            // The client keeps the values from before.
            self.emit(EventKind::ChangesDropped { id, reason: DropReason::Informational });
        }
    }
}
