//! The pairs of a `Cookie` header, read without copying.

use memchr::memchr;

/// Iterates over the pairs of one `Cookie` field value, in order, as slices of it.
///
/// The policy is that of the [module](crate::cookie): text without `=` is skipped, nothing is decoded. One pass, linear in the
/// length of the field, no allocation.
///
/// # Examples
///
/// ```
/// use hyper_session::__internals::pairs;
///
/// let mut pairs = pairs(b"a=1; flag; =nameless;  b = \"2;3\"; a=4");
/// assert_eq!(pairs.next(), Some((&b"a"[..], &b"1"[..])));
/// assert_eq!(pairs.next(), Some((&b"b"[..], &b"\"2"[..]))); // quotes never span a semicolon
/// assert_eq!(pairs.next(), Some((&b"a"[..], &b"4"[..]))); // duplicates are all there
/// assert_eq!(pairs.next(), None);
/// ```
pub fn pairs(field: &[u8]) -> Pairs<'_> {
    Pairs { rest: Some(field) }
}

/// The iterator that [`pairs`] returns.
#[derive(Clone)]
pub struct Pairs<'a> {
    rest: Option<&'a [u8]>,
}

impl<'a> Iterator for Pairs<'a> {
    type Item = (&'a [u8], &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let (segment, rest) = split_once(self.rest?, b';');
            self.rest = rest;
            if let (name, Some(value)) = split_once(segment, b'=') {
                let name = trim(name);
                if !name.is_empty() {
                    return Some((name, trim(value)));
                }
            }
        }
    }
}

impl std::fmt::Debug for Pairs<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pairs").finish_non_exhaustive()
    }
}

/// Returns the bytes before the first `separator`, and the bytes after it, if it is there.
pub(super) fn split_once(input: &[u8], separator: u8) -> (&[u8], Option<&[u8]>) {
    match memchr(separator, input).and_then(|at| input.split_at_checked(at)) {
        Some((before, after)) => (before, after.get(1..)),
        None => (input, None),
    }
}

/// Removes SP and HTAB at both ends, which are also the optional white space of RFC 9110 section 5.6.3. No other byte is
/// white space here: see "Cookie Chaos" (T53).
pub(crate) fn trim(bytes: &[u8]) -> &[u8] {
    trim_start(trim_end(bytes))
}

pub(super) fn trim_start(mut bytes: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] = bytes {
        bytes = rest;
    }
    bytes
}

pub(super) fn trim_end(mut bytes: &[u8]) -> &[u8] {
    while let [rest @ .., b' ' | b'\t'] = bytes {
        bytes = rest;
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_keep_to_the_policy() {
        let read: Vec<_> = pairs(b"a=1; flag; =nameless;\t b = \"2;3\"; a==4;;c=").collect();
        let expected: [(&[u8], &[u8]); 4] = [(b"a", b"1"), (b"b", b"\"2"), (b"a", b"=4"), (b"c", b"")];
        assert_eq!(read, expected);
    }
}
