//! The session itself: what a handler reads and changes. Synchronous, and free of stores and HTTP.

mod changes;
mod flash;
#[cfg(feature = "astra")]
pub(crate) mod go_json;
mod handle;
mod id;
mod key;
mod key_map;
mod label;
mod lifecycle;
mod outcome;
mod payload;
mod record;
mod standing;
mod state;
mod subject;
mod text;
mod undecoded;
mod values;
mod view;
mod whole;
mod wire;

pub use self::changes::Changes;
pub use self::handle::Session;
pub use self::key::{AsKey, Key, ReadKey, WriteKey};
pub use self::payload::PayloadFormat;
pub use self::record::Record;
pub use self::standing::Position;
pub use self::text::Text;
pub use self::view::SessionView;
pub use crate::id::SessionId;

pub(crate) use self::handle::{Circumstances, Committer};
pub(crate) use self::label::check_label;
pub(crate) use self::outcome::{Disposition, Outcome};
pub(crate) use self::payload::Payload;
pub(crate) use self::record::Origin;
pub(crate) use self::standing::{Labels, Name, Standing};
pub(crate) use self::state::{Committed, Reply};
pub(crate) use self::wire::{SealedHeader, StoredHeader};

/// Runs an example of the documentation on an empty session that no store knows.
#[doc(hidden)]
#[allow(clippy::missing_errors_doc)]
pub fn __example(example: impl FnOnce(&Session) -> Result<(), crate::Error>) -> Result<(), crate::Error> {
    let now = crate::clock::Timestamp::from_unix(0);
    let circumstances = Circumstances { now, speculative: false, shared_flash: false, revocable: true };
    let committer = std::sync::Weak::<handle::NoCommitter>::new();
    example(&Session::new(None, false, false, Reply::Nothing, circumstances, committer))
}
