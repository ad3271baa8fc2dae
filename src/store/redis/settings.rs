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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_at_their_limits_are_accepted_and_beyond_are_refused() {
        let [longest, too_long] = [64, 65].map(|len| "x".repeat(len));
        for (prefix, checkout, command, max_entry_len, expected) in [
            (&*longest, TIMEOUT, TIMEOUT, LONGEST_ENTRY, true),
            ("a:b_c-d.e/f", TIMEOUT, TIMEOUT, 1, true),
            (&*too_long, TIMEOUT, TIMEOUT, 1, false),
            ("", TIMEOUT, TIMEOUT, 1, false),
            ("a b", TIMEOUT, TIMEOUT, 1, false),
            ("a", Duration::ZERO, TIMEOUT, 1, false),
            ("a", TIMEOUT, Duration::ZERO, 1, false),
            ("a", TIMEOUT, TIMEOUT, 0, false),
            ("a", TIMEOUT, TIMEOUT, LONGEST_ENTRY + 1, false),
        ] {
            let settings = EntrySettings::new(prefix, checkout, command, max_entry_len);
            assert_eq!(settings.is_ok(), expected, "{prefix} {checkout:?} {command:?} {max_entry_len}");
        }
    }
}
