//! From the handler's response to the response that is sent.

use std::sync::Arc;

use http::header::HeaderName;
use http::{HeaderMap, Response};

use super::commit::Commit;
use super::error_response;
use super::response_head;
use super::slot::{Loaded, Slot};
use crate::clock::Timestamp;
use crate::error::Error;
use crate::event::{DropReason, EventKind};
use crate::session::{CookieLifetime, Disposition, Record, Reply};

const CLEAR_SITE_DATA: HeaderName = HeaderName::from_static("clear-site-data");

/// Returns how a response with this head treats the handler's changes to its session.
pub(super) fn disposition<R>(slot: &Slot, response: &Response<R>) -> Disposition {
    let (status, headers) = (response.status(), response.headers());
    if status.is_informational() {
        // RFC 9110 section 15.2: a 1xx is not a final response, so the cookie is not sent with it.
        if slot.is_only_copy() { Disposition::Unreachable } else { Disposition::NoCookie }
    } else if slot.connection.config().settings.discard_rule.applies(status, headers) {
        Disposition::DropValues
    } else {
        Disposition::Accept
    }
}

/// Returns true if the response already contains a statement about the session's cookie. Work that no handler asked for
/// yields to it.
pub(super) fn is_spoken_for(slot: &Slot, headers: &HeaderMap) -> bool {
    response_head::speaks_of(headers, slot.connection.config().cookie.name())
}

/// Starts the commit at the end of a request, which is `now`.
pub(super) fn commit<R>(
    slot: &Arc<Slot>,
    loaded: &Loaded,
    now: Timestamp,
    response: &Response<R>,
    disposition: Disposition,
) -> Commit {
    let said = response_head::said(response.headers(), slot.template());
    Commit::last(Arc::clone(slot), loaded.clone(), now, disposition, said)
}

/// Takes the reply that the response has to carry.
pub(super) fn reply(slot: &Slot) -> Reply {
    slot.loaded().map_or(Reply::Nothing, |loaded| loaded.session.take_reply())
}

/// Returns the lifetime of the session's cookie, as it was saved.
fn cookie_lifetime(slot: &Slot) -> CookieLifetime {
    slot.loaded().map_or(CookieLifetime::Configured, |loaded| loaded.session.stored_cookie_lifetime())
}

/// Works as [`write_head`], for a response that stands in for one whose session could not be saved. A token that an earlier
/// [`save`](crate::Session::save) of the same request promised still reaches the client: its old token may be dead.
pub(super) fn write_failure_head<R>(slot: &Slot, reply: Reply, response: &mut Response<R>) {
    // On an error, no token was promised either.
    let _ = write_head(slot, reply, response);
}

/// Replaces `response` with `replacement`. Other sessions were committed by then, so their `Set-Cookie` lines stay.
pub(super) fn replace<R>(slot: &Slot, response: &mut Response<R>, mut replacement: Response<R>) {
    if response_head::keep_session_lines(response.headers(), replacement.headers_mut()) {
        response_head::forbid_storing(replacement.headers_mut());
    }
    // The handler failed, whatever else did.
    if let Some(made_from) = error_response::take_mark(response) {
        made_from.mark(&mut replacement);
    }
    *response = replacement;
    write_failure_head(slot, reply(slot), response);
}

/// Writes the headers that clients and caches need. The head is changed once, and only after the store has acknowledged.
///
/// # Errors
///
/// An error if the cookie cannot be set. The head is then unchanged.
pub(super) fn write_head<R>(slot: &Slot, reply: Reply, response: &mut Response<R>) -> Result<(), Error> {
    let template = &slot.connection.config().cookie;
    let informational = response.status().is_informational();
    let offer = slot.binding_offer(&reply);
    let lines = match reply {
        Reply::Nothing => None,
        Reply::Set { .. } if informational => {
            withheld(slot);
            None
        }
        Reply::Remove { .. } if informational => None,
        // A weaker statement yields to a stronger one.
        Reply::Set { weight, .. } | Reply::Remove { weight }
            if !weight.is_asked_for() && response_head::speaks_of(response.headers(), template.name()) =>
        {
            None
        }
        Reply::Set { token, expires, .. } => {
            let lifetime = expires.saturating_since(slot.connection.config().now());
            // A cookie that has expired is worth nothing to the client.
            if lifetime.is_zero() {
                None
            } else {
                Some(slot.set_cookie(token.expose(), lifetime, cookie_lifetime(slot))?)
            }
        }
        Reply::Remove { .. } => Some(slot.remove_cookie()?),
    };
    let forget = slot.connection.config().settings.clear_site_data.as_ref().filter(|_| {
        let ended = slot.loaded().is_some_and(|loaded| loaded.session.was_logged_out());
        ended && !informational
    });
    let headers = response.headers_mut();
    response_head::vary_on_cookie(headers);
    if let Some(kinds) = forget {
        headers.entry(CLEAR_SITE_DATA).or_insert_with(|| kinds.clone());
    }
    if let Some((name, offer)) = offer.filter(|_| lines.as_ref().is_some_and(|lines| !lines.is_empty())) {
        // Beside that of a service inside, for another session.
        headers.append(name, offer);
    }
    let sets_cookie = lines.as_ref().is_some_and(|lines| !lines.is_empty());
    if let Some(lines) = lines.filter(|_| sets_cookie) {
        if response_head::replace_set_cookie(headers, template.name(), lines) && !slot.follows_response() {
            slot.emit(EventKind::SetCookieReplaced);
        }
    }
    if (sets_cookie || slot.is_private()) && response_head::forbid_storing(headers) {
        slot.emit(EventKind::CacheControlReplaced);
    }
    Ok(())
}

/// Reports a save before a 1xx response, which cannot carry the cookie.
fn withheld(slot: &Slot) {
    let Some(loaded) = slot.loaded() else { return };
    let saved = loaded.session.stored_record();
    let id = saved.as_ref().map(Record::id);
    let keeps_former = loaded.place.is_none() && slot.is_only_copy();
    if id != loaded.id && !keeps_former {
        slot.emit(EventKind::CookieWithheld { id });
    } else if saved.is_some_and(|saved| saved.is_in_cookie()) {
        // The client keeps the values from before.
        slot.emit(EventKind::ChangesDropped { id, reason: DropReason::Informational });
    }
}
