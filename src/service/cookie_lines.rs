//! The `Set-Cookie` lines of a response: setting and removing the cookie, and expiring it in former scopes.

use super::slot::Slot;
use crate::cookie::{CookieTemplate, FoundCookies, SetCookies};
use crate::error::Error;
use crate::session::CookieLifetime;

impl Slot {
    /// Returns the lines that set the cookie to `token`, after the lines that expire it in other scopes and under other names.
    pub(super) fn set_cookie(
        &self,
        token: &[u8],
        lifetime: std::time::Duration,
        kept: CookieLifetime,
    ) -> Result<SetCookies, Error> {
        let (template, held) = (self.template(), self.found.tail_mask());
        let mut lines = self.expirations()?;
        let setting = match kept {
            CookieLifetime::Configured => template.set(token, lifetime, held)?,
            CookieLifetime::Persistent => template.set_until(token, Some(lifetime), held)?,
            CookieLifetime::BrowserSession => template.set_until(token, None, held)?,
        };
        if lines.is_empty() {
            return Ok(setting);
        }
        lines.extend(setting);
        Ok(lines)
    }

    /// Returns the lines that remove the cookie.
    ///
    /// If the handler ended a session, and the request brought several sessions or more cookies than were tried, a browser
    /// may hold one of them in an unknown scope, and send it again. So a tombstone is set instead, which hides older
    /// sessions.
    pub(super) fn remove_cookie(&self) -> Result<SetCookies, Error> {
        let config = self.connection.config();
        let several = Some(self.several()).filter(|several| !several.is_empty() && self.was_ended());
        let tombstone = several
            .and_then(|several| self.connection.store().tombstone(several, config.now()))
            .transpose()?;
        let mut lines;
        if let Some((token, lifetime)) = tombstone {
            // For as long as a browser may keep what it hides, whatever the options say of the cookies of sessions.
            lines = self.set_cookie(token.expose(), lifetime, CookieLifetime::Persistent)?;
        } else if self.may_lack_cookie && !self.was_ended() {
            // The dead cookie is not the session's, which the browser has kept to itself.
            return Ok(SetCookies::new());
        } else {
            lines = self.expirations()?;
            if !self.may_remove() {
                return Ok(lines);
            }
            lines.extend(self.template().remove(self.found.tail_mask())?);
        }
        lines.extend(self.remove_bound_cookie()?);
        Ok(lines)
    }

    /// Returns false if the cookie to be removed did not come with the request: only one of a retired name did, or its path does not
    /// cover the request's. Then one may be in use where it is sent.
    fn may_remove(&self) -> bool {
        let covers = |target| self.template().covers(target);
        self.was_ended() || self.found.is_present() && self.target.as_deref().is_none_or(covers)
    }

    fn was_ended(&self) -> bool {
        self.loaded.get().is_some_and(|loaded| loaded.session.was_ended_by_handler())
    }

    fn was_logged_out(&self) -> bool {
        self.loaded.get().is_some_and(|loaded| loaded.session.was_logged_out())
    }

    /// Returns the lines that expire the cookie in the scopes of earlier options. They precede the line that sets it, for
    /// clients that do not distinguish scopes.
    fn expirations(&self) -> Result<SetCookies, Error> {
        let template = self.template();
        let held = self.found.tail_mask();
        let mut lines = SetCookies::new();
        let retired = |name| self.found_retired.get(name);
        if template.retires() {
            let held_under = |name| retired(name).map_or(0, FoundCookies::tail_mask);
            template.expire_retired(held, held_under, &mut lines)?;
        }
        // A visitor's notice that was shown is not a logout: it leaves the session of another scope that this host cannot judge.
        let several = !self.several().is_empty();
        if self.was_ended() && (several || self.was_logged_out()) {
            let held = |found: &FoundCookies| found.is_present().then(|| found.tail_mask());
            let held_under = |name| retired(name).and_then(held);
            let target = self.target.as_deref();
            template.expire_elsewhere(target, several, held(&self.found), held_under, &mut lines)?;
        }
        Ok(lines)
    }

    /// Returns what the lines of this request's cookie are made of.
    pub(super) fn template(&self) -> &CookieTemplate {
        let config = self.connection.config();
        match &config.plain_http {
            Some((_, plain)) if self.plain_http => plain,
            _ => &config.cookie,
        }
    }
}
