//! The way out: from the handler's response to the one that is sent.

use http::{Response, StatusCode};

use super::begin::{Asked, Slot};
use super::commit::Commit;
use super::head;
use crate::error::Error;
use crate::event::Event;
use crate::session::{Disposition, Reply, Session};
use crate::store::Store;

/// How an answer of this status treats what the handler did to its session.
fn disposition(status: StatusCode, store: &dyn Store) -> Disposition {
    if status.is_informational() {
        // RFC 9110 section 15.2: a 1xx is no final response, and carries no cookie of ours.
        Disposition::NoCookie
    } else if status.is_server_error() && !store.config().keep_values_on_server_error {
        Disposition::DropValues
    } else {
        Disposition::Accept
    }
}

/// Starts to commit what the handler left, unless loading failed: then there is nothing to commit.
pub(super) fn begin<R>(asked: Asked, response: &Response<R>) -> Finishing {
    let Asked { slot, loaded } = asked;
    let answer = disposition(response.status(), &*slot.store);
    let commit = loaded.map(|loaded| {
        let session = loaded.session.clone();
        (
            Commit::start(std::sync::Arc::clone(&slot), loaded, answer),
            session,
        )
    });
    Finishing { slot, commit }
}

/// A response that waits for its session.
pub(super) struct Finishing {
    slot: std::sync::Arc<Slot>,
    pub(super) commit: Option<(Commit, Session)>,
}

impl Finishing {
    /// Writes into the head what a client and a cache must know. The head is changed once, and only after the store has
    /// acknowledged.
    ///
    /// # Errors
    ///
    /// If the cookie cannot be set.
    pub(super) fn write_head<R>(self, response: &mut Response<R>) -> Result<(), Error> {
        let Self { slot, commit } = self;
        let template = &slot.store.config().cookie;
        let held = slot.found.tail_mask();
        let lines = match commit.map(|(_, session)| session.reply()) {
            _ if response.status().is_informational() => None,
            None | Some(Reply::Nothing) => None,
            Some(Reply::Set { token, lifetime }) => Some(template.set(&token, lifetime, held)?),
            Some(Reply::Remove) => Some(template.remove(held)?),
        };
        let headers = response.headers_mut();
        head::vary_on_cookie(headers);
        if let Some(lines) = lines {
            let cookie = slot.cookie_name();
            if head::replace_set_cookie(headers, template.name(), lines) {
                slot.emit(&Event::SetCookieReplaced { cookie });
            }
            if head::forbid_storing(headers) {
                slot.emit(&Event::CacheControlReplaced { cookie });
            }
        }
        Ok(())
    }
}
