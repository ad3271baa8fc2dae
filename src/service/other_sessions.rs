//! Ending the other sessions of a subject from a handler.

use std::sync::Arc;

use super::slot::Slot;
use crate::error::{Error, Kind};
use crate::session::{Committer, Place, Session};

impl Slot {
    /// Saves the session first, which settles its id, and ends the other sessions of its subject. Some stores do both in one
    /// step.
    pub(super) async fn end_other_sessions(
        self: Arc<Self>,
        session: Session,
    ) -> Result<Option<usize>, Error> {
        let Some(subject) = session.subject() else { return Err(Error::new(Kind::NotLoggedIn)) };
        if self.connection.store().ends_others_on_save() {
            session.end_others_on_save()?;
            self.commit_now(session).await?;
            return Ok(None);
        }
        // A session in the old store of a migration moves first: that store may be unable to keep it.
        if session.stored_record().is_some_and(|record| record.place() == Some(Place::OldStore)) {
            session.regenerate()?;
        }
        Arc::clone(&self).commit_now(session.clone()).await?;
        self.connection.store().end_sessions_of(&subject, session.id()).await
    }
}
