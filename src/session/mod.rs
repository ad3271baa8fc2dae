//! The session itself: what a handler reads and changes. Synchronous, and free of stores and HTTP.

mod authentication;
mod changes;
mod commit_table;
mod csrf_token;
mod description;
mod encoded_value;
mod flash;
mod id;
mod key;
mod key_map;
mod lifecycle;
mod lifetime;
pub(crate) mod messagepack;
mod payload;
mod record;
#[allow(clippy::module_inception)] // the type is the module's namesake, and each type has a file of its own
mod session;
mod state;
mod struct_values;
mod subject;
mod text;
pub(crate) mod value_codec;
mod view;

pub use self::authentication::Authentication;
pub use self::changes::Changes;
pub use self::key::{AsKey, Key, ReadKey, WriteKey};
pub use self::lifetime::Lifetime;
pub use self::payload::PayloadFormat;
pub use self::record::Record;
pub use self::session::Session;
pub use self::text::Text;
pub use self::view::SessionView;
pub use crate::id::SessionId;

pub(crate) use self::commit_table::{Disposition, Outcome};
pub(crate) use self::lifetime::CookieLifetime;
pub(crate) use self::payload::Payload;
pub(crate) use self::record::Origin;
pub(crate) use self::session::{Circumstances, Committer};
pub(crate) use self::state::{Committed, Reply};

/// Runs an example of the documentation on an empty session that no store knows.
#[doc(hidden)]
#[allow(clippy::missing_errors_doc)]
pub fn __example(example: impl FnOnce(&Session) -> Result<(), crate::Error>) -> Result<(), crate::Error> {
    let now = crate::clock::Timestamp::from_unix(0);
    let circumstances = Circumstances { now, speculative: false, shared_flash: false };
    let committer = std::sync::Weak::<session::NoCommitter>::new();
    example(&Session::new(None, false, false, Reply::Nothing, circumstances, committer))
}
