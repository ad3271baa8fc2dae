//! The session: the values that a handler reads and changes. Synchronous, and independent of stores and HTTP.

mod authentication;
mod changes;
mod circumstances;
mod commit_table;
mod csrf_token;
mod description;
#[cfg(feature = "device-bound")]
mod device_binding;
mod encoded_value;
mod flash;
mod id;
mod integer_array;
pub(crate) mod json_reader;
pub(crate) mod json_writer;
mod key;
mod key_map;
mod label;
mod lifecycle;
mod lifetime;
mod lineage;
mod locked;
pub(crate) mod messagepack;
mod nil_fields;
mod payload;
mod recency;
mod record;
mod saved;
mod saving;
#[allow(clippy::module_inception)] // each type has a file named for it
mod session;
mod state;
mod struct_values;
mod subject;
mod text;
mod times;
mod update;
pub(crate) mod value_codec;
mod value_equality;
mod view;

use std::time::Duration;

pub use self::authentication::Authentication;
pub use self::changes::Changes;
#[cfg(feature = "device-bound")]
pub use self::device_binding::Binding;
pub use self::key::{AsKey, Key, ReadKey, WriteKey};
pub use self::lifetime::Lifetime;
pub use self::lineage::Position;
pub use self::payload::PayloadFormat;
pub use self::recency::Recency;
pub use self::record::Record;
pub use self::saved::Saved;
pub use self::session::Session;
pub use self::text::Text;
pub use self::view::SessionView;
pub use crate::id::SessionId;

pub(crate) use self::circumstances::{Circumstances, DeviceCheck};
pub(crate) use self::commit_table::{Disposition, Outcome, Standing, Weight};
#[cfg(feature = "device-bound")]
pub(crate) use self::device_binding::DeviceBinding;
pub(crate) use self::label::check_label;
pub(crate) use self::lifetime::CookieLifetime;
pub(crate) use self::lineage::{Labels, Lineage, Name};
pub(crate) use self::payload::Payload;
pub(crate) use self::record::{EntryLifetime, Origin, Place};
pub(crate) use self::session::Committer;
pub(crate) use self::state::{Continued, Former, Reply};

/// For how long requests with the previous token of a session may still be on their way, once it was given another. For so long a
/// tombstone lasts, a retiring id is accepted, and a session that was just bound to a device needs no bound cookie.
pub(crate) const SUPERSEDED_FOR: Duration = Duration::from_secs(60);

/// Runs an example of the documentation on an empty session without a store.
#[doc(hidden)]
#[allow(clippy::missing_errors_doc)]
pub fn __example(example: impl FnOnce(&Session) -> Result<(), crate::Error>) -> Result<(), crate::Error> {
    let now = crate::clock::Timestamp::from_unix(0);
    let device = DeviceCheck::Passed;
    let circumstances =
        Circumstances { now, speculative: false, shared_flash: false, revocable: true, device };
    let committer = std::sync::Weak::<session::NoCommitter>::new();
    example(&Session::new(None, Former::None, Reply::Nothing, circumstances, committer))
}
