//! How entries are named, how large they may be, and how long a step may take.

use std::time::Duration;

use crate::clock::bounded;
use crate::error::Error;

/// The default of `checkout_timeout` and of `command_timeout`.
pub(super) const TIMEOUT: Duration = Duration::from_millis(500);

/// 1 MiB: a hundred times the size that a session should have, and small enough to be read by mistake.
pub(super) const MAX_ENTRY_LEN: usize = 1 << 20;

/// Redis refuses longer strings.
const LONGEST_ENTRY: usize = 512 << 20;

/// The settings of a [`Redis`](super::Redis) that do not concern its connections.
pub(super) struct EntrySettings {
    pub(super) prefix: String,
    pub(super) checkout_timeout: Duration,
    pub(super) command_timeout: Duration,
    pub(super) max_entry_len: usize,
}

impl EntrySettings {
    pub(super) fn new(
        prefix: &str,
        checkout_timeout: Duration,
        command_timeout: Duration,
        max_entry_len: usize,
    ) -> Result<Self, Error> {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b":_-./".contains(&byte);
        if prefix.is_empty() || prefix.len() > 64 || !prefix.bytes().all(allowed) {
            return Err(Error::config("prefix() must be 1 to 64 letters, digits, and : _ - . /"));
        }
        if checkout_timeout.is_zero() || command_timeout.is_zero() {
            return Err(Error::config("checkout_timeout() and command_timeout() must be more than zero"));
        }
        if max_entry_len == 0 || max_entry_len > LONGEST_ENTRY {
            return Err(Error::config("max_entry_len() must be more than zero and at most 512 MiB"));
        }
        let (checkout_timeout, command_timeout) = (bounded(checkout_timeout), bounded(command_timeout));
        Ok(Self { prefix: prefix.to_owned(), checkout_timeout, command_timeout, max_entry_len })
    }
}
