//! The seam for formats of stored sessions: tokens, ids and values of a server-side store.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::session_list::SessionList;
use crate::clock::Timestamp;
use crate::crypto::{Random, ServerToken};
use crate::error::Error;
use crate::event::Refusal;
use crate::id::EntryId;
use crate::session::{Payload, Recency, SessionId};

/// How a server-side store writes its tokens and the values of its entries.
///
/// The store decides what is written and when. A format only decides about bytes.
pub(crate) trait StoredFormat: Send + Sync + 'static {
    /// Reads a token of the cookie of this name. `None` if the text does not have the form of a token: such a text never reaches the backend
    /// (T39).
    fn parse_token(&self, cookie_name: &str, text: &[u8]) -> Option<ServerToken>;

    /// Generates a token for the cookie of this name.
    fn generate_token(&self, cookie_name: &str) -> Result<ServerToken, Error>;

    /// Encodes a session. `from` is the stored value that its values came from, if there is one. `written` counts among the
    /// sessions of one request.
    fn encode_session(
        &self,
        id: EntryId,
        created: Timestamp,
        payload: &Payload,
        from: Option<&Bytes>,
        written: Recency,
        now: Timestamp,
    ) -> Result<Bytes, Error>;

    /// Encodes the tombstone that is left under an old id. `next` is the id under which the session continues, if the tombstone is
    /// to name it. A shared format names none.
    fn encode_tombstone(&self, id: EntryId, next: Option<SessionId>, now: Timestamp) -> Result<Bytes, Error>;

    /// Encodes the session list of a subject.
    fn encode_list(&self, id: EntryId, list: &SessionList, now: Timestamp) -> Result<Bytes, Error>;

    /// Decodes the value of the entry `id`. `None` if this format did not write it there.
    fn decode(&self, id: EntryId, value: &Bytes) -> Option<EntryValue>;

    /// Returns why [`decode`](Self::decode) could not read this value of the entry `id`.
    fn refusal(&self, id: EntryId, value: &[u8]) -> Refusal {
        let _ = (id, value);
        Refusal::Payload
    }

    /// Returns true for a value that was decoded, and that would be sealed if it was written now.
    fn is_to_be_sealed(&self, value: &Bytes) -> bool {
        let _ = value;
        false
    }

    /// Returns true if subjects have session lists. Without them, sessions of a subject cannot be listed or ended.
    fn has_session_lists(&self) -> bool;
}

/// The age of a session, as its entry records it. A shared format records nothing.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct EntryAge {
    /// When the session began.
    pub(crate) created: Option<Timestamp>,
    /// When its values were last written.
    pub(crate) written: Option<Recency>,
    /// The lifetime that the entry was given when the session was last used.
    pub(crate) lifetime: Option<Duration>,
}

/// The contents of an entry.
pub(crate) enum EntryValue {
    /// A session: its age and its values.
    Session(EntryAge, Payload),
    /// A tombstone: the browser was given another token. It names the id under which the session continues, if the end of the
    /// session is to be found from here.
    Tombstone(Option<SessionId>),
    /// The session list of a subject.
    List(SessionList),
}

/// A format that is shared with another program, and what a store must know of it before it is built.
#[derive(Clone, Copy)]
pub(crate) struct SharedFormat {
    /// The name of the other program, for messages.
    pub(crate) program: &'static str,
    /// Creates the format.
    pub(crate) create: fn(Arc<dyn Random>) -> Box<dyn StoredFormat>,
    /// Where the other program keeps its sessions in Redis.
    #[cfg(feature = "redis")]
    pub(crate) redis_prefix: &'static str,
    /// How the other program frames its entries in Redis.
    #[cfg(feature = "redis")]
    pub(crate) redis_framing: &'static crate::store::redis::Framing,
}
