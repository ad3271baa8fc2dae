//! Which bytes are too few, too regular or too well known for an application key.

use crate::error::Error;

pub(super) const MIN_LEN: usize = 32;

/// Keys that are published in documentation. A service must not use them.
const EXAMPLE_KEYS: [&[u8]; 4] = [
    b"0123456789abcdef0123456789abcdef", // in many tutorials
    b"an example very very secret key.",
    b"change this secret passphrase!!!",
    b"hyper-session example key, public", // docs/WIRE.md
];

/// Refuses bytes that cannot be the secret of a service.
pub(super) fn check_strength(bytes: &[u8]) -> Result<(), Error> {
    if bytes.len() < MIN_LEN {
        return Err(Error::config(format!(
            "an application key must be at least 32 bytes long, this one has {}: make one with AppKey::generate() or `openssl rand -hex 32`",
            bytes.len()
        )));
    }
    if is_regular(bytes) || EXAMPLE_KEYS.iter().any(|example| bytes.starts_with(example)) {
        return Err(Error::config(
            "this application key is a pattern or a published example: make one with AppKey::generate() or `openssl rand -hex 32`",
        ));
    }
    Ok(())
}

/// Returns true for a pattern that repeats (`aaaa…`, `abcabc…`) or counts (`0123…`).
pub(super) fn is_regular(bytes: &[u8]) -> bool {
    let repeats =
        (1..=bytes.len() / 2).any(|period| bytes.iter().zip(bytes.iter().skip(period)).all(|(a, b)| a == b));
    let mut steps = bytes.iter().zip(bytes.iter().skip(1)).map(|(a, b)| b.wrapping_sub(*a));
    let first = steps.next();
    repeats || steps.all(|step| Some(step) == first)
}
