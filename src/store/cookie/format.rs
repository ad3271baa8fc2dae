//! The seam for another program's cookies beside native ones.

use std::sync::Arc;

use crate::clock::Timestamp;
use crate::config::Config;
use crate::crypto::{Random, Sealer};
use crate::error::Error;
use crate::event::{CookieFormat, Refusal};
use crate::session::{Changes, Record, Saved};

/// The cookie format of another program, which a [`CookieStore`](crate::CookieStore) reads, and may write, beside its own.
pub(crate) trait ForeignFormat: Send + Sync + 'static {
    /// Returns the format that the token has by its form. No other format is tried afterwards.
    fn format_of(&self, token: &[u8], native: &Sealer) -> CookieFormat;

    /// Opens a token of this format.
    fn open(&self, config: &Config, token: &[u8], now: Timestamp) -> Result<Record, Refusal>;

    /// Returns a record that came in a native token, marked if it is to be written in this format.
    fn opened_native(&self, config: &Config, record: Record) -> Record;

    /// Returns true if sessions are saved in this format.
    fn writes(&self) -> bool;

    /// Saves in this format. `None` if the native format is to be written.
    fn save(
        &self,
        config: &Config,
        base: Option<&Record>,
        changes: &Changes,
        now: Timestamp,
    ) -> Option<Result<Saved, Error>>;
}

/// Creates a format when the store is built.
pub(crate) type CreateForeign =
    Box<dyn FnOnce(Arc<dyn Random>) -> Result<Box<dyn ForeignFormat>, Error> + Send + Sync>;
