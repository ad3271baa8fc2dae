//! The options that server-side stores have in common.

use std::sync::Arc;

use super::SessionLimit;
use super::near_cache::RecordCache;
use super::server::format::SharedFormat;
use crate::clock::Timestamp;
use crate::crypto::{Keyring, Random, SystemRandom};
use crate::error::Error;

/// The options that server-side stores have in common.
pub(crate) struct ServerOptions {
    pub(super) record_keys: Option<Keyring>,
    pub(super) accept_unsealed: Option<Timestamp>,
    pub(super) max_sessions_per_subject: usize,
    /// A session of a subject counts only while it is on that subject's list.
    pub(super) check_session_list: bool,
    pub(super) at_session_limit: SessionLimit,
    /// Names of other cookies with the same subjects.
    pub(super) linked: Vec<String>,
    /// Sessions are shared with another program, in its format.
    pub(crate) shared_format: Option<SharedFormat>,
    /// Entries that were read before, of which the backend reports changes.
    pub(super) near_cache: Option<Arc<RecordCache>>,
    /// Tokens are drawn from it, and the numbers by which an entry recognizes its own write.
    pub(crate) random: Arc<dyn Random>,
}

impl Default for ServerOptions {
    fn default() -> Self {
        Self {
            record_keys: None,
            accept_unsealed: None,
            max_sessions_per_subject: 100,
            at_session_limit: SessionLimit::default(),
            check_session_list: false,
            linked: Vec::new(),
            shared_format: None,
            near_cache: None,
            random: Arc::new(SystemRandom),
        }
    }
}

impl ServerOptions {
    /// Checks the options that concern each other, or have a least value.
    pub(super) fn check(&self) -> Result<(), Error> {
        if self.max_sessions_per_subject == 0 {
            return Err(Error::config("max_sessions_per_subject() must be at least 1"));
        }
        if self.accept_unsealed.is_some() && self.record_keys.is_none() {
            return Err(Error::config(
                "accept_unsealed_until() needs seal_records(): call it, or do not call accept_unsealed_until()",
            ));
        }
        Ok(())
    }
}
