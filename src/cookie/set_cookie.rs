//! `Set-Cookie` lines: written from a template that was checked once, each in one allocation.

use std::time::Duration;

use bytes::Bytes;
use http::HeaderValue;
use smallvec::SmallVec;

use super::{CookieName, MAX_AGE_CAP, MAX_CHUNKS, MAX_NAME_VALUE};
use crate::error::{Error, Kind};

/// What is the same in every `Set-Cookie` of one session cookie. Can only come from options that fit together.
#[derive(Debug)]
pub(crate) struct CookieTemplate {
    name: CookieName,
    attributes: Box<str>,
    max_age: Option<Duration>,
    secure: bool,
    max_chunks: u8,
}

/// The lines of one cookie: one, or as many as it has chunks.
pub(crate) type SetCookies = SmallVec<[HeaderValue; 1]>;

/// RFC 6265bis section 5.5 gives Max-Age precedence; Expires is for user agents that only know it.
const REMOVED: &str = "; Max-Age=0; Expires=Thu, 01 Jan 1970 00:00:00 GMT";

impl CookieTemplate {
    pub(super) fn new(
        name: CookieName,
        attributes: &str,
        max_age: Option<Duration>,
        secure: bool,
        max_chunks: u8,
    ) -> Self {
        Self { name, attributes: attributes.into(), max_age, secure, max_chunks }
    }

    pub(crate) fn name(&self) -> &CookieName {
        &self.name
    }

    pub(crate) fn is_secure(&self) -> bool {
        self.secure
    }

    /// How many bytes of token fit in the cookie `name` (0) or `name.n`.
    pub(crate) fn chunk_size(&self, number: u8) -> usize {
        let suffix = if number == 0 { 0 } else { 2 };
        MAX_NAME_VALUE - self.name.as_str().len() - suffix
    }

    /// The longest token that can be set.
    fn max_token(&self) -> usize {
        self.token_len(self.max_chunks)
    }

    /// The longest token that any options could have set: what a lower `max_chunks` of today does not refuse.
    pub(crate) fn longest_token(&self) -> usize {
        self.token_len(MAX_CHUNKS)
    }

    fn token_len(&self, chunks: u8) -> usize {
        (0..chunks).map(|number| self.chunk_size(number)).sum()
    }

    /// Checks that a token of this many bytes can be set.
    ///
    /// # Errors
    ///
    /// [`is_too_large`](Error::is_too_large), with both sizes as names and values together.
    pub(crate) fn check_size(&self, token: usize) -> Result<(), Error> {
        if token <= self.max_token() {
            return Ok(());
        }
        let limit = usize::from(self.max_chunks) * MAX_NAME_VALUE;
        let names = limit - self.max_token();
        Err(Error::new(Kind::TooLarge { size: token + names, limit }))
    }

    /// Sets the cookie to `token`, for `lifetime` or Max-Age, whichever is shorter. `held` tells the further chunks that
    /// the client has: those that the token no longer fills are removed.
    ///
    /// # Errors
    ///
    /// As [`check_size`](Self::check_size).
    pub(crate) fn set(&self, token: &[u8], lifetime: Duration, held: u8) -> Result<SetCookies, Error> {
        self.set_until(token, self.max_age.map(|max_age| max_age.min(lifetime)), held)
    }

    /// As [`set`](Self::set), with this Max-Age, or without one.
    pub(crate) fn set_until(
        &self,
        token: &[u8],
        max_age: Option<Duration>,
        held: u8,
    ) -> Result<SetCookies, Error> {
        self.check_size(token.len())?;
        let seconds = max_age.map(|max_age| max_age.min(MAX_AGE_CAP).as_secs());
        let mut lines = SetCookies::new();
        let mut rest = token;
        let mut number = 0;
        loop {
            let (chunk, after) = rest.split_at_checked(self.chunk_size(number)).unwrap_or((rest, &[]));
            lines.push(self.line(number, chunk, seconds.as_ref().map_or("", |_| "; Max-Age="), seconds)?);
            rest = after;
            number += 1;
            if rest.is_empty() {
                break;
            }
        }
        self.remove_tails(number, held, &mut lines)?;
        Ok(lines)
    }

    /// Removes the cookie and the chunks that the client holds, with the attributes they were set with.
    pub(crate) fn remove(&self, held: u8) -> Result<SetCookies, Error> {
        let mut lines = SetCookies::new();
        lines.push(self.line(0, b"", REMOVED, None)?);
        self.remove_tails(1, held, &mut lines)?;
        Ok(lines)
    }

    fn remove_tails(&self, from: u8, held: u8, lines: &mut SetCookies) -> Result<(), Error> {
        for number in from..MAX_CHUNKS {
            if held & (1 << number) != 0 {
                lines.push(self.line(number, b"", REMOVED, None)?);
            }
        }
        Ok(())
    }

    /// `name[.n]=value{age}[seconds]{attributes}`
    fn line(&self, number: u8, value: &[u8], age: &str, seconds: Option<u64>) -> Result<HeaderValue, Error> {
        let name = self.name.as_str();
        let suffix = [b'.', b'0' + number];
        let suffix = if number == 0 { &[][..] } else { &suffix[..] };
        let mut digits = [0; 20];
        let digits = seconds.map_or(&[][..], |seconds| decimal(seconds, &mut digits));

        let parts =
            [name.as_bytes(), suffix, b"=", value, age.as_bytes(), digits, self.attributes.as_bytes()];
        let mut line = Vec::with_capacity(parts.iter().map(|part| part.len()).sum());
        for part in parts {
            line.extend_from_slice(part);
        }

        let mut line = HeaderValue::from_maybe_shared(Bytes::from(line))
            .map_err(|_| Error::new(Kind::Internal("a token is not a header value")))?;
        line.set_sensitive(true);
        Ok(line)
    }
}

/// The decimal digits of `number`, at the end of `buffer`.
fn decimal(mut number: u64, buffer: &mut [u8; 20]) -> &[u8] {
    let mut start = buffer.len();
    for (at, slot) in buffer.iter_mut().enumerate().rev() {
        *slot = b'0' + (number % 10) as u8;
        number /= 10;
        start = at;
        if number == 0 {
            break;
        }
    }
    buffer.get(start..).unwrap_or_default()
}

/// The cookie name that a `Set-Cookie` line sets.
pub(crate) fn cookie_name_of(line: &[u8]) -> &[u8] {
    let end = line.iter().position(|&byte| matches!(byte, b'=' | b';')).unwrap_or(line.len());
    line.get(..end).unwrap_or_default().trim_ascii()
}

#[cfg(test)]
mod tests {
    use super::super::{CookieOptions, SameSite};
    use super::*;

    const HOUR: Duration = Duration::from_secs(3_600);

    fn text(lines: &SetCookies) -> Vec<&str> {
        lines.iter().map(|line| line.to_str().unwrap()).collect()
    }

    #[test]
    fn the_default_cookie() {
        let template = CookieOptions::new().validate().unwrap();
        let day = Duration::from_secs(24 * 3_600);
        assert_eq!(
            text(&template.set(b"tok", day, 0).unwrap()),
            ["__Host-session=tok; Max-Age=86400; Path=/; Secure; HttpOnly; SameSite=Lax"]
        );
        assert_eq!(
            text(&template.remove(0).unwrap()),
            [
                "__Host-session=; Max-Age=0; Expires=Thu, 01 Jan 1970 00:00:00 GMT; Path=/; Secure; HttpOnly; SameSite=Lax"
            ]
        );
        assert!(template.set(b"tok", day, 0).unwrap()[0].is_sensitive());
        assert!(template.is_secure() && !CookieOptions::development().validate().unwrap().is_secure());
    }

    #[test]
    fn every_attribute() {
        let template = CookieOptions::new()
            .name("__Secure-s")
            .path("/app")
            .domain("example.com")
            .same_site(SameSite::None)
            .partitioned(true)
            .http_only(false)
            .max_age(HOUR)
            .validate()
            .unwrap();
        assert_eq!(
            text(&template.set(b"v", HOUR * 9, 0).unwrap()),
            ["__Secure-s=v; Max-Age=3600; Path=/app; Domain=example.com; Secure; SameSite=None; Partitioned"]
        );
        // What is left of the session is the shorter one; a removal carries the same attributes.
        assert!(text(&template.set(b"v", Duration::from_secs(9), 0).unwrap())[0].contains("; Max-Age=9;"));
        assert!(
            text(&template.remove(0).unwrap())[0]
                .ends_with("; Path=/app; Domain=example.com; Secure; SameSite=None; Partitioned")
        );
        let until_closed = CookieOptions::new().max_age(None).validate().unwrap();
        assert!(!text(&until_closed.set(b"v", HOUR, 0).unwrap())[0].contains("Max-Age"));
    }

    #[test]
    fn t69_large_tokens_are_split_and_shrinking_removes_the_tail() {
        let template = CookieOptions::development().name("s").max_chunks(8).validate().unwrap();
        assert_eq!((template.chunk_size(0), template.chunk_size(1)), (4095, 4093));
        for (size, chunks) in [(4095, 1), (4096, 2), (8188, 2), (8189, 3), (4095 + 7 * 4093, 8)] {
            let token = vec![b'x'; size];
            let lines = template.set(&token, HOUR, 0).unwrap();
            assert_eq!(lines.len(), chunks, "{size}");
            let mut total = 0;
            for (number, line) in text(&lines).iter().enumerate() {
                let pair = line.split_once(';').unwrap().0;
                let (name, value) = pair.split_once('=').unwrap();
                assert!(name.len() + value.len() <= 4096);
                assert_eq!(name, if number == 0 { "s".to_owned() } else { format!("s.{number}") });
                total += value.len();
            }
            assert_eq!(total, size);
        }
        let lines = template.set(b"small", HOUR, 0b1010).unwrap();
        let names: Vec<_> = text(&lines).iter().map(|line| line.split_once('=').unwrap().0).collect();
        assert_eq!(names, ["s", "s.1", "s.3"]);
        assert!(text(&lines)[1].starts_with("s.1=; Max-Age=0"));
        assert_eq!(template.remove(0b10).unwrap().len(), 2);
    }

    #[test]
    fn too_large_names_size_and_limit() {
        let template = CookieOptions::development().name("s").max_chunks(2).validate().unwrap();
        assert!(template.check_size(4095 + 4093).is_ok());
        let error = template.set(&[b'x'; 4095 + 4093 + 1], HOUR, 0).unwrap_err();
        assert_eq!(error.size_and_limit(), Some((8193, 8192)));
        let default = CookieOptions::new().validate().unwrap();
        let error = default.set(&[b'x'; 12_288], HOUR, 0).unwrap_err();
        assert_eq!(error.size_and_limit(), Some((12_288 + 3 * 14 + 2 * 2, 12_288)));
    }

    #[test]
    fn decimals() {
        for number in [0, 7, 10, 86_400, u64::MAX] {
            assert_eq!(decimal(number, &mut [0; 20]), number.to_string().as_bytes());
        }
    }

    #[test]
    fn names_of_lines() {
        assert_eq!(cookie_name_of(b"s=v; Path=/"), b"s");
        assert_eq!(cookie_name_of(b" s =v"), b"s");
        assert_eq!(cookie_name_of(b"s; Path=/a=b"), b"s");
        assert_eq!(cookie_name_of(b""), b"");
    }
}
