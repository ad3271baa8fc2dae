//! The description of a session's device, for a page of "my devices".

use super::key::DESCRIPTION;
use super::{Payload, Session, Text, value_codec};
use crate::error::Error;

/// A user agent and a place fit in; a list of sessions stays small.
const MAX_DESCRIPTION: usize = 256;

impl Session {
    /// Describes the device of this session, for a list of sessions that its user looks at:
    /// [`SubjectSession::description`](crate::store::SubjectSession::description). Call it at login, with the user agent and the
    /// place, or whatever the user will recognize. A longer text is cut to 256 bytes, because a client chooses its user agent. An
    /// empty text removes the description.
    ///
    /// The description stays through regenerates and further logins of the same subject. A session with nothing else is not
    /// stored. A [`CookieStore`](crate::CookieStore) keeps it, and has no list to show it on.
    ///
    /// # Errors
    ///
    /// [`is_head_sent`](Error::is_head_sent) if the response is on its way.
    ///
    /// # Security
    ///
    /// A user agent is text that a client chose: escape it where it is shown, and do not rely on it.
    ///
    /// # Examples
    ///
    /// ```
    /// # hyper_session::__example(|session| {
    /// session.login("ada")?;
    /// session.describe("Firefox on Linux, London")?;
    /// assert_eq!(session.description().as_deref(), Some("Firefox on Linux, London"));
    /// session.describe(&"x".repeat(300))?;
    /// assert_eq!(session.description().map_or(0, |text| text.len()), 256);
    /// # Ok(())
    /// # }).unwrap();
    /// ```
    pub fn describe(&self, description: &str) -> Result<(), Error> {
        let mut end = description.len().min(MAX_DESCRIPTION);
        while !description.is_char_boundary(end) {
            end -= 1;
        }
        let shown = description.get(..end).filter(|shown| !shown.is_empty());
        let value = shown.map(|shown| value_codec::encode("the description", &shown)).transpose()?;
        self.lock_open()?.put(DESCRIPTION, value);
        Ok(())
    }

    /// Returns the description of the device, from [`describe`](Self::describe).
    pub fn description(&self) -> Option<Text> {
        Text::from_value(&self.raw(DESCRIPTION)?)
    }
}

impl Payload {
    /// Returns the description of the device.
    pub(crate) fn description(&self) -> Option<String> {
        Text::from_value(&self.get(DESCRIPTION)?).map(|description| description.to_string())
    }
}
