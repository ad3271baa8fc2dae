//! Ending the other sessions of a subject from a handler.

use std::sync::Arc;

use super::slot::Slot;
use crate::error::{Error, Kind};
use crate::session::{Committer, Session};

impl Slot {
    /// Saves the session first, which settles its id, and ends the other sessions of its subject.
    pub(super) async fn end_other_sessions(self: Arc<Self>, session: Session) -> Result<usize, Error> {
        let Some(subject) = session.subject() else { return Err(Error::new(Kind::NotLoggedIn)) };
        Arc::clone(&self).commit_now(session.clone()).await?;
        self.connection.store().end_sessions_of(&subject, session.id()).await
    }
}
