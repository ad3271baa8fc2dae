//! The session itself: what a handler reads and changes. Synchronous, and free of stores and HTTP.

mod changes;
mod flash;
mod handle;
mod id;
mod outcome;
mod payload;
mod record;
mod text;
mod values;
mod wire;

pub use self::changes::Changes;
pub use self::handle::Session;
pub use self::id::SessionId;
pub use self::payload::PayloadFormat;
pub use self::record::Record;
pub use self::text::Text;

pub(crate) use self::handle::{Committed, Committer, Reply};
pub(crate) use self::outcome::{Disposition, Outcome};
pub(crate) use self::payload::Payload;
pub(crate) use self::record::Origin;
pub(crate) use self::wire::{SealedHeader, StoredHeader};
