//! The way out: from the handler's response to the one that is sent.

use std::sync::Arc;

use http::header::HeaderName;
use http::{Response, StatusCode};

use super::commit::Commit;
use super::head;
use super::slot::{Loaded, Slot};
use crate::error::Error;
use crate::event::{DropReason, Event};
use crate::session::{CookieLifetime, Disposition, Reply};

const CLEAR_SITE_DATA: HeaderName = HeaderName::from_static("clear-site-data");

/// How an answer of this status treats what the handler did to its session.
fn disposition(status: StatusCode, slot: &Slot) -> Disposition {
    if status.is_informational() {
        // RFC 9110 section 15.2: a 1xx is no final response, and carries no cookie of ours.
        Disposition::NoCookie
    } else if status.is_server_error() && !slot.connection.config().keep_values_on_server_error {
        Disposition::DropValues
    } else {
        Disposition::Accept
    }
}

/// The commit of what the handler left.
pub(super) fn commit(slot: &Arc<Slot>, loaded: &Loaded, status: StatusCode) -> Commit {
    Commit::last(Arc::clone(slot), loaded.clone(), disposition(status, slot))
}

/// What the response has to tell the client, once.
pub(super) fn reply(slot: &Slot) -> Reply {
    slot.loaded().map_or(Reply::Nothing, |loaded| loaded.session.take_reply())
}

/// What the session says of its cookie, as it was saved.
fn cookie_lifetime(slot: &Slot) -> CookieLifetime {
    slot.loaded().map_or(CookieLifetime::Configured, |loaded| loaded.session.stored_cookie_lifetime())
}

/// As [`write_head`], for a response that stands in for one whose session could not be saved. What an earlier
/// [`save`](crate::Session::save) of the same request was promised still reaches the client: its old token may be dead.
pub(super) fn write_failure_head<R>(slot: &Slot, response: &mut Response<R>) {
    // What cannot be written now was not promised either.
    let _ = write_head(slot, reply(slot), response);
}

/// Writes into the head what a client and a cache must know. The head is changed once, and only after the store has
/// acknowledged.
///
/// # Errors
///
/// If the cookie cannot be set: then the head is as it was.
pub(super) fn write_head<R>(slot: &Slot, reply: Reply, response: &mut Response<R>) -> Result<(), Error> {
    let template = &slot.connection.config().cookie;
    let held = slot.found.tail_mask();
    let cookie = slot.cookie_name();
    let lines = match reply {
        Reply::Nothing => None,
        Reply::Set { .. } if response.status().is_informational() => {
            let id = slot.loaded().and_then(|loaded| loaded.session.id());
            slot.emit(&Event::ChangesDropped { cookie, id, reason: DropReason::Informational });
            None
        }
        Reply::Remove if response.status().is_informational() => None,
        Reply::Set { token, lifetime } => Some(match cookie_lifetime(slot) {
            CookieLifetime::Configured => template.set(token.expose(), lifetime, held)?,
            CookieLifetime::Persistent => template.set_until(token.expose(), Some(lifetime), held)?,
            CookieLifetime::BrowserSession => template.set_until(token.expose(), None, held)?,
        }),
        Reply::Remove => Some(template.remove(held)?),
    };
    let forget = slot.connection.config().clear_site_data.as_ref().filter(|_| {
        let ended = slot.loaded().is_some_and(|loaded| loaded.session.was_ended_by_handler());
        ended && !response.status().is_informational()
    });
    let headers = response.headers_mut();
    head::vary_on_cookie(headers);
    if let Some(kinds) = forget {
        headers.entry(CLEAR_SITE_DATA).or_insert_with(|| kinds.clone());
    }
    if let Some(lines) = lines {
        if head::replace_set_cookie(headers, template.name(), lines) {
            slot.emit(&Event::SetCookieReplaced { cookie });
        }
        if head::forbid_storing(headers) {
            slot.emit(&Event::CacheControlReplaced { cookie });
        }
    }
    Ok(())
}
