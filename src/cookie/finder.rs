//! Finds a request's session cookie, including its chunks.

use http::HeaderValue;
use memchr::memmem;
use smallvec::SmallVec;

use super::pairs::{split_once, trim_end, trim_start};
use super::{CookieName, MAX_ASSEMBLIES, MAX_CHUNKS, MAX_LOOKS};

/// Finds one cookie, and the chunks `name.1` to `name.7` of it, among all others: a substring search for the name, then
/// a look at the bytes before and behind it. Equal to filtering [`pairs`](super::pairs::pairs) by name, and tested to be.
#[derive(Debug)]
pub(crate) struct CookieFinder {
    name: memmem::Finder<'static>,
    /// The endings of its companions: cookies `name.ending`, which the same search finds.
    #[cfg(feature = "device-bound")]
    companions: &'static [&'static str],
}

/// The number of companions that a cookie can have.
#[cfg(feature = "device-bound")]
pub(crate) const COMPANIONS: usize = 2;

/// The value of one cookie: a shared header field, and the range of the value in it. Without `Debug`, because it is a
/// secret.
#[derive(Clone)]
struct Piece {
    field: HeaderValue,
    start: usize,
    end: usize,
}

/// All cookies of one name in a request. Only reference counts are copied.
#[derive(Default)]
pub(crate) struct FoundCookies {
    /// Values under the name itself, in order of appearance.
    heads: SmallVec<[Piece; 1]>,
    /// Values under `name.1` to `name.7`, with that number. Only large sessions have any, so the vector is usually not
    /// allocated.
    tails: Vec<(u8, Piece)>,
    /// Values of companions, with the places of their endings among those of the finder.
    #[cfg(feature = "device-bound")]
    companions: SmallVec<[(u8, Piece); 1]>,
    /// The number of values of each companion.
    #[cfg(feature = "device-bound")]
    companion_counts: [u8; COMPANIONS],
    overflow: bool,
}

/// The cookie to which a value belongs.
#[derive(Clone, Copy)]
enum Part {
    /// The cookie itself (0), or its chunk of this number.
    Chunk(u8),
    #[cfg(feature = "device-bound")]
    Companion(u8),
}

/// One way to join a token from chunks: a head, and an index in `tails` for each further chunk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Assembly {
    head: usize,
    tails: SmallVec<[usize; 2]>,
}

impl Assembly {
    /// Returns true if the token has more than one chunk.
    pub(crate) fn is_joined(&self) -> bool {
        !self.tails.is_empty()
    }
}

/// The ways to join a token from chunks.
pub(crate) struct Assemblies {
    /// The ways to try, the likeliest first.
    pub(crate) ways: SmallVec<[Assembly; 1]>,
    /// There are further ways: too many, or too unlikely.
    pub(crate) has_more: bool,
}

/// The number of chunks that may deviate from the likeliest way to join a token.
const MAX_DEVIATIONS: usize = 2;

impl CookieFinder {
    pub(crate) fn new(name: &CookieName) -> Self {
        Self {
            name: memmem::Finder::new(name.as_str().as_bytes()).into_owned(),
            #[cfg(feature = "device-bound")]
            companions: &[],
        }
    }

    /// Makes the search find the cookies `name.ending` with these endings, too.
    #[cfg(feature = "device-bound")]
    pub(crate) fn find_companions(&mut self, endings: &'static [&'static str; COMPANIONS]) {
        self.companions = endings;
    }

    /// Searches all `Cookie` fields.
    //= RFC 9113 section 8.2.3: "the Cookie header field MAY be split into separate header fields, each with one or
    //# more cookie-pairs"
    pub(crate) fn find<'a>(&self, fields: impl IntoIterator<Item = &'a HeaderValue>) -> FoundCookies {
        let mut found = FoundCookies::default();
        for field in fields {
            self.find_in(field, &mut found);
        }
        found
    }

    fn find_in(&self, field: &HeaderValue, found: &mut FoundCookies) {
        let bytes = field.as_bytes();
        // The bytes before `from` were searched.
        let mut from = 0;
        while let Some(ahead) = bytes.get(from..).and_then(|rest| self.name.find(rest)) {
            let at = from + ahead;
            from = at + self.name.needle().len();
            if !matches!(bytes.get(..at).map(trim_end), Some([] | [.., b';'])) {
                continue; // inside another name or a value
            }
            let (part, after) = self.part(bytes.get(from..).unwrap_or_default());
            let [b'=', value @ ..] = trim_start(after) else {
                continue;
            };
            // `value` is a suffix of the field, so its place follows from lengths.
            let start = bytes.len() - value.len();
            let (value, _) = split_once(value, b';');
            // Another cookie cannot begin inside this value, so it is not searched.
            from = start + value.len();
            let value = trim_end(value);
            let lead = value.len() - trim_start(value).len();
            found.push(part, Piece { field: field.clone(), start: start + lead, end: start + value.len() });
        }
    }

    /// Splits what follows the name in a field: the end of the cookie's own name, and the rest.
    #[cfg_attr(not(feature = "device-bound"), allow(clippy::unused_self))] // which has no companions then
    fn part<'a>(&self, after: &'a [u8]) -> (Part, &'a [u8]) {
        match after {
            [b'.', digit @ b'1'..=b'7', rest @ ..] => (Part::Chunk(digit - b'0'), rest),
            #[cfg(feature = "device-bound")]
            [b'.', rest @ ..] => {
                let mut endings = (0..).zip(self.companions);
                let companion = endings.find_map(|(place, ending)| {
                    Some((Part::Companion(place), rest.strip_prefix(ending.as_bytes())?))
                });
                companion.unwrap_or((Part::Chunk(0), after))
            }
            _ => (Part::Chunk(0), after),
        }
    }
}

impl Piece {
    fn bytes(&self) -> &[u8] {
        self.field.as_bytes().get(self.start..self.end).unwrap_or_default()
    }

    /// Returns true if this could be a part of a token: base64url, padded or not.
    fn is_plausible(&self) -> bool {
        let fine = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'=');
        !self.bytes().is_empty() && self.bytes().iter().all(fine)
    }
}

impl FoundCookies {
    fn push(&mut self, part: Part, piece: Piece) {
        match part {
            Part::Chunk(number) => {
                let seen = if number == 0 { self.heads.len() } else { self.tails.len() };
                match number {
                    _ if seen >= MAX_LOOKS => self.overflow = true,
                    0 => self.heads.push(piece),
                    _ => self.tails.push((number, piece)),
                }
            }
            // Each has a limit of its own, so that none is crowded out by another.
            #[cfg(feature = "device-bound")]
            Part::Companion(place) => {
                let count = self.companion_counts.get_mut(usize::from(place));
                if let Some(count) = count.filter(|count| usize::from(**count) < MAX_LOOKS) {
                    *count += 1;
                    self.companions.push((place, piece));
                }
            }
        }
    }

    /// Returns true if the request has a cookie of this name, or a chunk of one.
    pub(crate) fn is_present(&self) -> bool {
        !self.heads.is_empty() || !self.tails.is_empty()
    }

    /// Returns true if there were more cookies of this name, or chunks, than are examined.
    pub(crate) fn overflowed(&self) -> bool {
        self.overflow
    }

    /// Returns how many values there are under the name itself.
    pub(crate) fn len(&self) -> usize {
        self.heads.len()
    }

    /// Returns the values of the companion with the ending at `place` among those of the finder, at most as many as are examined
    /// of the session's name.
    #[cfg(feature = "device-bound")]
    pub(crate) fn companions(&self, place: u8) -> impl Iterator<Item = &[u8]> {
        self.companions.iter().filter(move |(of, _)| *of == place).map(|(_, piece)| piece.bytes())
    }

    /// Returns true if the values of two heads are equal: one cookie in two scopes.
    pub(crate) fn are_equal(&self, head: usize, other: usize) -> bool {
        let bytes = |index| self.heads.get(index).map(Piece::bytes);
        bytes(head) == bytes(other)
    }

    /// Returns true if a chunk comes twice. One of them belongs to another cookie, but the header does not reveal which.
    pub(crate) fn has_twins(&self) -> bool {
        let mut seen = 0_u8;
        self.tails.iter().any(|(number, _)| {
            let twice = seen & 1 << number != 0;
            seen |= 1 << number;
            twice
        })
    }

    /// Returns the ways to join a token that begins with the `head`-th value, the likeliest first. `chunk` is the number of
    /// characters that fill a cookie.
    ///
    /// A token goes on in the next number if its last chunk fills its cookie. User agents order the cookies of each name alike
    /// (RFC 6265bis section 5.8.3), so the first token that has an `n`-th chunk owns the first value under that name, the second
    /// one the second. But a chunk may have been planted or left behind, and a token may end with a full chunk. So ways that
    /// deviate from that in one place follow, then ways that deviate in two. Only the signature tells which is right.
    pub(crate) fn assemblies(&self, head: usize, chunk: impl Fn(u8) -> usize) -> Assemblies {
        let mut ways = SmallVec::new();
        let Some(piece) = self.heads.get(head) else { return Assemblies { ways, has_more: false } };
        let alone = Assembly { head, tails: SmallVec::new() };
        if self.tails.is_empty() || piece.bytes().len() != chunk(0) {
            ways.push(alone);
            return Assemblies { ways, has_more: false };
        }
        let options = self.options(head, &chunk);
        for deviations in 0..=MAX_DEVIATIONS {
            self.extend(&options, &chunk, deviations, &mut alone.clone(), MAX_ASSEMBLIES + 1, &mut ways);
        }
        let tried = ways.len().min(MAX_ASSEMBLIES);
        // A way that deviates in even more chunks shows that there is one that deviates in just one more.
        self.extend(&options, &chunk, MAX_DEVIATIONS + 1, &mut alone.clone(), tried + 1, &mut ways);
        let has_more = ways.len() > tried;
        ways.truncate(tried);
        Assemblies { ways, has_more }
    }

    /// Returns which values may continue a token, for each further number. The value that `head` owns comes first.
    fn options(
        &self,
        head: usize,
        chunk: &impl Fn(u8) -> usize,
    ) -> [SmallVec<[usize; 2]>; MAX_CHUNKS as usize] {
        let mut options: [SmallVec<[usize; 2]>; MAX_CHUNKS as usize] = Default::default();
        for (place, (number, _)) in self.tails.iter().enumerate() {
            if let Some(places) = options.get_mut(usize::from(*number)) {
                places.push(place);
            }
        }
        for places in options.iter_mut().filter(|places| places.len() > 1) {
            places.retain(|place| self.tails.get(*place).is_some_and(|(_, piece)| piece.is_plausible()));
        }
        // How many values under each further name the heads before this one own.
        let mut owned = [0; MAX_CHUNKS as usize];
        for piece in self.heads.iter().take(head) {
            let mut full = piece.bytes().len() == chunk(0);
            for ((number, owned), places) in (0..).zip(&mut owned).zip(&options).skip(1) {
                let Some((_, tail)) = places.get(*owned).filter(|_| full).and_then(|at| self.tails.get(*at))
                else {
                    break;
                };
                *owned += 1;
                full = tail.bytes().len() == chunk(number);
            }
        }
        for (places, owned) in options.iter_mut().zip(owned) {
            if let Some(front) = places.get_mut(..=owned) {
                front.rotate_right(1);
            }
        }
        options
    }

    /// Adds the ways to continue `assembly` that deviate from the likeliest in exactly `deviations` chunks, until there are `most`.
    fn extend(
        &self,
        options: &[SmallVec<[usize; 2]>; MAX_CHUNKS as usize],
        chunk: &impl Fn(u8) -> usize,
        deviations: usize,
        assembly: &mut Assembly,
        most: usize,
        ways: &mut SmallVec<[Assembly; 1]>,
    ) {
        if ways.len() >= most {
            return;
        }
        let next = assembly.tails.len() + 1;
        let full = match assembly.tails.last() {
            None => true,
            Some(place) => self.tails.get(*place).is_some_and(|(n, piece)| piece.bytes().len() == chunk(*n)),
        };
        let places = options.get(next).filter(|_| full).map_or(&[][..], SmallVec::as_slice);
        for (rank, place) in places.iter().enumerate() {
            let Some(left) = deviations.checked_sub(rank.min(1)) else { break };
            assembly.tails.push(*place);
            self.extend(options, chunk, left, assembly, most, ways);
            assembly.tails.pop();
        }
        // The token ends here, although it could continue.
        let stops = usize::from(!places.is_empty());
        if deviations == stops && ways.len() < most {
            ways.push(assembly.clone());
        }
    }

    /// Returns the token of an assembly. If it has several chunks, they are joined in `joined`.
    pub(crate) fn token<'a>(&'a self, assembly: &Assembly, joined: &'a mut Vec<u8>) -> &'a [u8] {
        let head = self.heads.get(assembly.head).map(Piece::bytes).unwrap_or_default();
        if !assembly.is_joined() {
            return head;
        }
        joined.clear();
        joined.extend_from_slice(head);
        for (_, piece) in assembly.tails.iter().filter_map(|place| self.tails.get(*place)) {
            joined.extend_from_slice(piece.bytes());
        }
        joined
    }

    /// Returns which further chunks the client holds: bit `n` for `name.n`.
    pub(crate) fn tail_mask(&self) -> u8 {
        self.tails.iter().fold(0, |mask, (number, _)| mask | 1 << number)
    }
}

#[cfg(test)]
mod tests {
    use super::super::pairs::pairs;
    use super::*;
    use http::{HeaderMap, header::COOKIE};
    use proptest::prelude::*;

    fn find(name: &str, fields: &[&[u8]]) -> FoundCookies {
        let mut headers = HeaderMap::new();
        for field in fields {
            headers.append(COOKIE, HeaderValue::from_bytes(field).unwrap());
        }
        CookieFinder::new(&CookieName::new(name).unwrap()).find(headers.get_all(COOKIE))
    }

    fn heads(found: &FoundCookies) -> Vec<Vec<u8>> {
        found.heads.iter().map(|piece| piece.bytes().to_vec()).collect()
    }

    #[test]
    fn looks_are_limited_and_heads_and_chunks_do_not_share_the_limit() {
        let many = |unit: &str, count: usize| unit.repeat(count).into_bytes();
        let heads = find("s", &[&many("s=v;", MAX_LOOKS)]);
        assert_eq!((heads.len(), heads.overflowed()), (MAX_LOOKS, false));
        let both = find("s", &[&many("s=v;", MAX_LOOKS), &many("s.3=v;", MAX_LOOKS)]);
        assert!(both.is_present() && !both.overflowed());
        for more in ["s=v", "s.7=v"] {
            let found = find("s", &[&many("s=v;s.1=v;", MAX_LOOKS), more.as_bytes()]);
            assert!(found.overflowed(), "{more}");
            assert_eq!((found.len(), found.tails.len()), (MAX_LOOKS, MAX_LOOKS));
        }
        // A name that occurs twice is still removed only once.
        assert_eq!(find("s", &[b"s=x; s.3=a; s.3=b"]).tail_mask(), 0b1000);
    }

    #[test]
    fn chunks_that_come_twice_are_noticed() {
        for (field, twins) in [
            ("s=a", false),
            ("s=a; s=b", false),
            ("s=a; s.1=b; s.2=c", false),
            ("s=a; s.1=b; s.2=c; s.1=d", true),
            ("s.7=a; s.7=a", true),
        ] {
            assert_eq!(find("s", &[field.as_bytes()]).has_twins(), twins, "{field}");
        }
    }

    #[test]
    fn finds_the_cookie_wherever_it_stands() {
        for field in
            ["s=v", "a=1; s=v", "s=v; a=1", " s = v ;a=1", "a=s=v;s=v", "\ts\t=\tv\t", ";;s=v;;", "s;s=v"]
        {
            assert_eq!(heads(&find("s", &[field.as_bytes()])), [b"v"], "{field}");
        }
    }

    // T50-T56: text that is only similar to the cookie is never taken for it.
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

    #[cfg(feature = "device-bound")]
    fn companions(fields: &[&[u8]]) -> [Vec<Vec<u8>>; 2] {
        let mut headers = HeaderMap::new();
        for field in fields {
            headers.append(COOKIE, HeaderValue::from_bytes(field).unwrap());
        }
        let mut finder = CookieFinder::new(&CookieName::new("ab").unwrap());
        finder.find_companions(&["a", "b.a"]);
        let found = finder.find(headers.get_all(COOKIE));
        assert_eq!(found.is_present(), !found.heads.is_empty() || !found.tails.is_empty());
        [0, 1].map(|place| found.companions(place).map(<[u8]>::to_vec).collect())
    }

    #[cfg(feature = "device-bound")]
    #[test]
    fn companions_do_not_crowd_each_other_out() {
        let many = "ab.a=1; ".repeat(100);
        let [first, second] = companions(&[format!("{many}ab.b.a=2; ab.a=3").as_bytes(), b"ab.b.a=4"]);
        assert_eq!((first.len(), second), (MAX_LOOKS, vec![b"2".to_vec(), b"4".to_vec()]));
    }

    #[test]
    fn t62_all_fields_are_seen() {
        assert_eq!(
            heads(&find("s", &[b"a=1", b"s=one; s=two", b"s=three"])),
            [&b"one"[..], b"two", b"three"]
        );
    }

    /// Returns the tokens of the `head`-th value, if two characters fill a cookie.
    fn tokens(found: &FoundCookies, head: usize) -> Vec<String> {
        let mut joined = Vec::new();
        let assemblies = found.assemblies(head, |_| 2).ways;
        let text = |assembly| String::from_utf8(found.token(assembly, &mut joined).to_vec()).unwrap();
        assemblies.iter().map(text).collect()
    }

    #[test]
    fn chunks_are_put_together_by_number_not_by_place() {
        let found = find("s", &[b"s.2=e; s.1=cd; s=ab; s.3=zz"]);
        assert_eq!(tokens(&found, 0)[0], "abcde");
        assert_eq!(found.tail_mask(), 0b1110);
        // A first chunk that does not fill a cookie has no further chunks, whatever the client still holds.
        assert_eq!(tokens(&find("s", &[b"s.1=cd; s=a"]), 0), ["a"]);
        let found = find("s", &[b"s.1=x; s=ab; s=cd; s.1=y"]);
        assert_eq!([0, 1].map(|head| tokens(&found, head)[0].clone()), ["abx", "cdy"]);
        assert_eq!(tokens(&found, 2), [""; 0]);
        // T64: a cookie that was planted beside a large session takes none of its chunks.
        let found = find("s", &[b"s=x; s=ab; s.1=cd; s.2=e"]);
        assert_eq!([0, 1].map(|head| tokens(&found, head)[0].clone()), ["x", "abcde"]);
        let found = find("s", &[b"s=ab; s=cd; s.1=x; s.1=yz; s.2=e"]);
        assert_eq!([0, 1].map(|head| tokens(&found, head)[0].clone()), ["abx", "cdyze"]);
    }

    // T64: one chunk that was planted or left behind does not hide a session.
    #[test]
    fn t64_every_way_with_one_wrong_chunk_is_tried() {
        // Planted before and after each chunk, short and full; `name.1` beside a token that ends full.
        for (field, genuine) in [
            ("s=ab; s.1=xx; s.1=cd; s.2=e", "abcde"),
            ("s=ab; s.1=x; s.1=cd; s.2=e", "abcde"),
            ("s=ab; s.1=cd; s.2=xx; s.2=e", "abcde"),
            ("s=ab; s.1=cd; s.2=e; s.2=xx; s.2=yy; s.2=zz", "abcde"),
            ("s=ab; s.1=xx", "ab"),
            ("s=ab; s.1=x", "ab"),
            ("s=ab; s.1=cd; s.2=x", "abcd"),
            ("s=ab; s.1=cd; s.2=ef; s.3=x", "abcdef"),
            ("s=ab; s.1=xx; s.1=cd; s.2=yy; s.2=e", "abcde"),
        ] {
            assert!(tokens(&find("s", &[field.as_bytes()]), 0).contains(&genuine.to_owned()), "{field}");
        }
        // A value with characters that no token has is left out where there is a choice.
        assert_eq!(tokens(&find("s", &[b"s=ab; s.1=*!; s.1=; s.1=cd"]), 0), ["abcd", "ab"]);
    }

    #[test]
    fn t60_ways_to_put_a_token_together_are_bounded() {
        let tails: String =
            (1..=7).flat_map(|number| (0..9).map(move |n| format!("; s.{number}={n}{n}"))).collect();
        let found = find("s", &[format!("s=ab{tails}").as_bytes()]);
        assert!(!found.overflowed());
        let tokens = tokens(&found, 0);
        assert_eq!(tokens.len(), MAX_ASSEMBLIES);
        // The likeliest first, and none twice.
        assert_eq!(tokens[0], "ab00000000000000");
        let distinct: std::collections::BTreeSet<_> = tokens.iter().collect();
        assert_eq!(distinct.len(), tokens.len());
    }

    #[test]
    fn t60_ways_that_are_left_out_are_noticed() {
        let list = |texts: &mut dyn Iterator<Item = String>| -> String { texts.collect() };
        let twice = |last: u8| list(&mut (1..=last).map(|number| format!("; s.{number}=xx; s.{number}=yy")));
        let many = |count: u8| list(&mut (10..10 + count).map(|n| format!("; s.1={n}")));
        for (tails, ways, has_more) in [
            (String::new(), 1, false),
            ("; s.1=cd; s.2=e".to_owned(), 3, false),
            (twice(2), 7, false),
            // Each of these chunks may be the planted one, all three at once too.
            (twice(3), 13, true),
            (many(15), 16, false),
            (many(16), 16, true),
        ] {
            let found = find("s", &[format!("s=ab{tails}").as_bytes()]);
            let assemblies = found.assemblies(0, |_| 2);
            assert_eq!((assemblies.ways.len(), assemblies.has_more), (ways, has_more), "{tails}");
        }
    }

    /// A naive implementation: split, trim, compare.
    fn naive(field: &[u8], name: &[u8]) -> Vec<Vec<u8>> {
        pairs(field).filter(|(n, _)| *n == name).map(|(_, value)| value.to_vec()).take(MAX_LOOKS).collect()
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

        #[cfg(feature = "device-bound")]
        #[test]
        fn companions_are_found_as_the_naive_reading_finds_them(field in "[ \t;=\"ab.1]{0,40}") {
            let found = companions(&[field.as_bytes()]);
            for (name, values) in ["ab.a", "ab.b.a"].iter().zip(found) {
                prop_assert_eq!(values, naive(field.as_bytes(), name.as_bytes()), "{}", name);
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
