//! Where a request's session cookie is found, chunks included.

use http::HeaderValue;
use http::header::GetAll;
use memchr::memmem;
use smallvec::SmallVec;

use super::pairs::{split_once, trim_end, trim_start};
use super::{CookieName, MAX_CANDIDATES, MAX_CHUNKS};

/// Finds one cookie, and the chunks `name.1` to `name.7` of it, among all others: a substring search for the name, then
/// a look at what stands before and behind. Equal to filtering [`pairs`] by name, and tested to be.
#[derive(Debug)]
pub(crate) struct CookieFinder {
    name: memmem::Finder<'static>,
}

/// The value of one cookie: a header field, shared by reference count, and where in it the value lies. Without `Debug`, since
/// it is a secret.
#[derive(Clone)]
struct Piece {
    field: HeaderValue,
    start: usize,
    end: usize,
}

/// All that a request says about the session's cookie. Nothing is copied but reference counts.
#[derive(Default)]
pub(crate) struct Found {
    /// Values under the name itself, in order of appearance.
    heads: SmallVec<[Piece; 1]>,
    /// Values under `name.1` to `name.7`, with that number. Empty, and so not allocated, for all but large sessions.
    tails: Vec<(u8, Piece)>,
    overflow: bool,
}

impl CookieFinder {
    pub(crate) fn new(name: &CookieName) -> Self {
        Self { name: memmem::Finder::new(name.as_str().as_bytes()).into_owned() }
    }

    /// Walks all `Cookie` fields.
    //= RFC 9113 section 8.2.3: "the Cookie header field MAY be split into separate header fields, each with one or
    //# more cookie-pairs"
    pub(crate) fn find(&self, fields: GetAll<'_, HeaderValue>) -> Found {
        let mut found = Found::default();
        for field in fields {
            self.find_in(field, &mut found);
        }
        found
    }

    fn find_in(&self, field: &HeaderValue, found: &mut Found) {
        let bytes = field.as_bytes();
        // All before `from` was looked at.
        let mut from = 0;
        while let Some(ahead) = bytes.get(from..).and_then(|rest| self.name.find(rest)) {
            let at = from + ahead;
            from = at + self.name.needle().len();
            if !matches!(bytes.get(..at).map(trim_end), Some([] | [.., b';'])) {
                continue; // inside another name or a value
            }
            let (number, after) = match bytes.get(from..).unwrap_or_default() {
                [b'.', digit @ b'1'..=b'7', rest @ ..] => (digit - b'0', rest),
                after => (0, after),
            };
            let [b'=', value @ ..] = trim_start(after) else {
                continue;
            };
            // `value` is a suffix of what is left, so its place follows from lengths alone.
            let start = bytes.len() - value.len();
            let (value, _) = split_once(value, b';');
            // No other cookie begins inside of this value: it need not be searched.
            from = start + value.len();
            let value = trim_end(value);
            let lead = value.len() - trim_start(value).len();
            found.push(number, Piece { field: field.clone(), start: start + lead, end: start + value.len() });
        }
    }
}

impl Piece {
    fn bytes(&self) -> &[u8] {
        self.field.as_bytes().get(self.start..self.end).unwrap_or_default()
    }
}

impl Found {
    fn push(&mut self, number: u8, piece: Piece) {
        let seen = match number {
            0 => self.heads.len(),
            _ => self.tails.iter().filter(|(n, _)| *n == number).count(),
        };
        match number {
            _ if seen >= MAX_CANDIDATES => self.overflow = true,
            0 => self.heads.push(piece),
            _ => self.tails.push((number, piece)),
        }
    }

    /// True if the request has a cookie of the session's name, or a chunk of one.
    pub(crate) fn is_present(&self) -> bool {
        !self.heads.is_empty() || !self.tails.is_empty()
    }

    /// True if there were more cookies of one name than are looked at.
    pub(crate) fn overflowed(&self) -> bool {
        self.overflow
    }

    /// How many candidates there are to try.
    pub(crate) fn len(&self) -> usize {
        self.heads.len()
    }

    /// The `index`-th token, put together from its chunks in `joined` where it has any.
    ///
    /// A token has a second chunk if and only if its first one fills a cookie ("`chunk` bytes long"), and so on. User agents
    /// order the cookies of each name alike (RFC 6265bis section 5.8.3), so the first token that has an `n`-th chunk owns the
    /// first value under that name, the second one the second. Whether the pieces fit is for the signature over them to
    /// say.
    pub(crate) fn token<'a>(
        &'a self,
        index: usize,
        chunk: impl Fn(u8) -> usize,
        joined: &'a mut Vec<u8>,
    ) -> &'a [u8] {
        let Some(head) = self.heads.get(index).map(Piece::bytes) else { return &[] };
        if self.tails.is_empty() {
            return head;
        }
        // How many values under each further name the tokens before this one own.
        let mut owned = [0; MAX_CHUNKS as usize];
        for piece in self.heads.iter().take(index + 1) {
            joined.clear();
            joined.extend_from_slice(piece.bytes());
            let mut full = piece.bytes().len() == chunk(0);
            for (number, owned) in (1..).zip(owned.iter_mut().skip(1)) {
                let Some(tail) = self.tail(number, *owned).filter(|_| full) else { break };
                *owned += 1;
                joined.extend_from_slice(tail.bytes());
                full = tail.bytes().len() == chunk(number);
            }
        }
        joined
    }

    fn tail(&self, number: u8, index: usize) -> Option<&Piece> {
        self.tails.iter().filter(|(n, _)| *n == number).nth(index).map(|(_, piece)| piece)
    }

    /// Which further chunks the client holds: bit `n` for `name.n`.
    pub(crate) fn tail_mask(&self) -> u8 {
        self.tails.iter().fold(0, |mask, (number, _)| mask | 1 << number)
    }
}

#[cfg(test)]
mod tests {
    use super::super::pairs;
    use super::*;
    use http::{HeaderMap, header::COOKIE};
    use proptest::prelude::*;

    fn find(name: &str, fields: &[&[u8]]) -> Found {
        let mut headers = HeaderMap::new();
        for field in fields {
            headers.append(COOKIE, HeaderValue::from_bytes(field).unwrap());
        }
        CookieFinder::new(&CookieName::new(name).unwrap()).find(headers.get_all(COOKIE))
    }

    fn heads(found: &Found) -> Vec<Vec<u8>> {
        found.heads.iter().map(|piece| piece.bytes().to_vec()).collect()
    }

    // Four values under each name; the names do not share the limit.
    #[test]
    fn candidates_are_limited_name_by_name() {
        let four = find("s", &[b"s.1=a; s.1=b; s.1=c; s.1=d; s.2=e"]);
        assert!(four.is_present() && !four.overflowed());
        assert_eq!((four.len(), four.tails.len(), four.tail_mask()), (0, 5, 0b110));
        assert!(find("s", &[b"s.1=a; s.1=b; s.1=c; s.1=d; s.1=e"]).overflowed());
        // A name that stands twice is removed once all the same.
        assert_eq!(find("s", &[b"s=x; s.3=a; s.3=b"]).tail_mask(), 0b1000);
        let head = find("s", &[b"s=x"]);
        assert!(head.is_present() && !head.overflowed());
    }

    #[test]
    fn finds_the_cookie_wherever_it_stands() {
        for field in
            ["s=v", "a=1; s=v", "s=v; a=1", " s = v ;a=1", "a=s=v;s=v", "\ts\t=\tv\t", ";;s=v;;", "s;s=v"]
        {
            assert_eq!(heads(&find("s", &[field.as_bytes()])), [b"v"], "{field}");
        }
    }

    // T50-T56: what only looks like the cookie never is.
    #[test]
    fn t50_to_t56_lookalikes_do_not_match() {
        for field in [
            &b"%73=v"[..],
            b"S=v",
            b"as=v",
            b"s.8=v",
            b"s1=v",
            b"=s=v",
            b"a=\"x; y=s=v\"",
            b"a=1,s=v",
            b"a=1]s=v",
            b"\xc2\xa0s=v",
            b"\xe2\x80\x80s=v",
            b"s\xc2\x85=v",
            b"\"s\"=v",
            b"..s=v",
            b"s",
            b"",
        ] {
            assert!(!find("s", &[field]).is_present(), "{}", String::from_utf8_lossy(field));
        }
        // T54, T55: quotes do not hide a pair, and are part of a value.
        assert_eq!(heads(&find("s", &[b"$Version=1; a=\"; s=v; b=\""])), [b"v"]);
        assert_eq!(heads(&find("s", &[b"s=\"v\""])), [b"\"v\""]);
    }

    #[test]
    fn t62_all_fields_are_seen() {
        assert_eq!(
            heads(&find("s", &[b"a=1", b"s=one; s=two", b"s=three"])),
            [&b"one"[..], b"two", b"three"]
        );
    }

    #[test]
    fn t60_candidates_are_bounded() {
        let found = find("s", &[b"s=1;s=2;s=3;s=4;s=5;s=6"]);
        assert_eq!((found.len(), found.overflowed()), (4, true));
    }

    #[test]
    fn chunks_are_put_together_by_number_not_by_place() {
        let size = |_| 2;
        let mut joined = Vec::new();
        let found = find("s", &[b"s.2=e; s.1=cd; s=ab; s.3=zz"]);
        assert_eq!(found.token(0, size, &mut joined), b"abcde");
        assert_eq!(found.tail_mask(), 0b1110);
        // A first piece that fills no cookie has no further ones, whatever the client still holds.
        let found = find("s", &[b"s.1=cd; s=a"]);
        assert_eq!(found.token(0, size, &mut joined), b"a");
        let found = find("s", &[b"s.1=x; s=ab; s=cd; s.1=y"]);
        assert_eq!(found.token(0, size, &mut joined), b"abx");
        assert_eq!(found.token(1, size, &mut joined), b"cdy");
        assert_eq!(found.token(2, size, &mut joined), b"");
        // T64: a cookie planted beside a large session takes none of its chunks.
        let found = find("s", &[b"s=x; s=ab; s.1=cd; s.2=e"]);
        assert_eq!(found.token(0, size, &mut joined), b"x");
        assert_eq!(found.token(1, size, &mut joined), b"abcde");
        let found = find("s", &[b"s=ab; s=cd; s.1=x; s.1=yz; s.2=e"]);
        assert_eq!(found.token(0, size, &mut joined), b"abx");
        assert_eq!(found.token(1, size, &mut joined), b"cdyze");
    }

    /// The naive reading: split, trim, compare.
    fn naive(field: &[u8], name: &[u8]) -> Vec<Vec<u8>> {
        pairs(field)
            .filter(|(n, _)| *n == name)
            .map(|(_, value)| value.to_vec())
            .take(MAX_CANDIDATES)
            .collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4096))]

        #[test]
        fn finder_agrees_with_the_naive_reading(field in "[ \t;=\"abs.12]{0,40}") {
            let found = find("ab", &[field.as_bytes()]);
            prop_assert_eq!(heads(&found), naive(field.as_bytes(), b"ab"));
            for number in 1..=7_u8 {
                let tail: Vec<_> = found.tails.iter().filter(|t| t.0 == number).map(|t| t.1.bytes().to_vec()).collect();
                prop_assert_eq!(tail, naive(field.as_bytes(), format!("ab.{number}").as_bytes()));
            }
        }

        #[test]
        fn pairs_are_slices_of_the_field_in_order(field in proptest::collection::vec(any::<u8>(), 0..200)) {
            let range = field.as_ptr_range();
            let mut last = range.start;
            for (name, value) in pairs(&field) {
                prop_assert!(name.as_ptr() >= last && value.as_ptr() >= name.as_ptr_range().end);
                last = value.as_ptr_range().end;
                prop_assert!(last <= range.end && !name.contains(&b'=') && !value.contains(&b';'));
            }
        }
    }
}
