//! `Set-Cookie` lines: written from a template that was checked once, with one allocation each.

use std::time::Duration;

use bytes::Bytes;
use http::HeaderValue;
use smallvec::SmallVec;

use super::attributes::{Attributes, SameSite};
#[cfg(feature = "device-bound")]
use super::scopes::path_covers;
use super::scopes::{MAX_SCOPES, Target, elsewhere};
use super::{CookieName, MAX_AGE_CAP, MAX_CHUNKS, MAX_NAME_VALUE};
use crate::error::{Error, Kind};

/// The common part of all `Set-Cookie` lines of one session cookie. Can only be made from options that fit together.
#[derive(Debug)]
pub(crate) struct CookieTemplate {
    name: CookieName,
    attributes: Attributes,
    /// The text of `attributes`.
    text: Box<str>,
    max_age: Option<Duration>,
    max_chunks: u8,
    /// The text of other attributes with which this cookie was set before.
    retired_scopes: Vec<Box<str>>,
    retired_cookies: Vec<RetiredCookie>,
}

/// A cookie that held the session before, under another name.
#[derive(Debug)]
pub(crate) struct RetiredCookie {
    name: CookieName,
    /// Those of the present cookie, as far as a cookie of this name could have them.
    attributes: Attributes,
    /// The text of each set of attributes with which it may have been set.
    scopes: Vec<Box<str>>,
}

impl RetiredCookie {
    /// `present` are the attributes of the present cookie, and `scopes` all with which this one may have been set.
    pub(super) fn new(name: CookieName, present: &Attributes, scopes: &[Attributes]) -> Self {
        let prefix = name.prefix_rules();
        // The line that removes a cookie with a prefix must obey the prefix, too.
        let keep = |scope: &Attributes| Attributes {
            secure: scope.secure || prefix.is_some(),
            http_only: scope.http_only || prefix.is_some_and(|rules| rules.http_only),
            ..scope.clone()
        };
        let mut scopes: Vec<Attributes> = scopes.iter().map(keep).collect();
        let mut attributes = keep(present);
        if prefix.is_some_and(|rules| rules.host_only) {
            // The present cookie may have a scope that the retired one could not have.
            attributes = Attributes { domain: None, path: "/".to_owned(), ..attributes };
            scopes = vec![attributes.clone()];
        }
        Self { name, attributes, scopes: scopes.iter().map(|scope| scope.to_string().into()).collect() }
    }

    pub(crate) fn name(&self) -> &CookieName {
        &self.name
    }
}

/// The lines of one cookie: one, or as many as it has chunks, after the lines that expire it elsewhere.
pub(crate) type SetCookies = SmallVec<[HeaderValue; 1]>;

/// The number of lines that expire cookies in other scopes, from which on only first chunks are expired. A sibling domain can plant
/// seven chunks, which would each add a line for each scope, and some proxies discard a response whose headers exceed 8 kB. A chunk
/// without a first one does no harm.
const MAX_LINES: usize = 24;

/// RFC 6265bis section 5.5 gives Max-Age precedence. Expires is for browsers that do not support Max-Age.
const REMOVED: &str = "; Max-Age=0; Expires=Thu, 01 Jan 1970 00:00:00 GMT";

impl CookieTemplate {
    pub(super) fn new(
        name: CookieName,
        attributes: Attributes,
        max_age: Option<Duration>,
        max_chunks: u8,
        scopes: &[Attributes],
        retired_cookies: Vec<RetiredCookie>,
    ) -> Result<Self, Error> {
        let prefix = name.prefix_rules();
        let others = scopes.iter().filter(|scope| **scope != attributes);
        let impossible = others.clone().find(|scope| !scope.fit(prefix));
        // With a retired name, the scope belongs to that name.
        if let Some(impossible) = impossible.filter(|_| retired_cookies.is_empty()) {
            return Err(Error::config(format!(
                "browsers never kept a cookie named {name} with {}: drop retired_domain() or retired_path(), or name the former cookie with retired_name()",
                impossible.to_string().trim_start_matches("; ")
            )));
        }
        let kept = others.filter(|scope| scope.fit(prefix));
        let retired_scopes = kept.map(|scope| scope.to_string().into()).collect();
        let text = attributes.to_string().into();
        Ok(Self { name, attributes, text, max_age, max_chunks, retired_scopes, retired_cookies })
    }

    pub(crate) fn name(&self) -> &CookieName {
        &self.name
    }

    pub(crate) fn same_site(&self) -> SameSite {
        self.attributes.same_site
    }

    pub(crate) fn is_secure(&self) -> bool {
        self.attributes.secure
    }

    /// Returns the template of a cookie `name.suffix` in the same scope, and in the same retired ones, which is bound to a device.
    ///
    /// # Errors
    ///
    /// [`is_config`](Error::is_config) for attributes that browsers refuse on such a cookie.
    #[cfg(feature = "device-bound")]
    pub(crate) fn companion(&self, suffix: &str, max_age: Duration) -> Result<Self, Error> {
        let Attributes { domain, secure, partitioned, .. } = &self.attributes;
        if !secure {
            return Err(Error::config(
                "device_bound() needs https: do not call it for a cookie that is not Secure, as in development()",
            ));
        }
        if domain.is_some() || *partitioned {
            return Err(Error::config(
                "device_bound() needs a cookie for one host that is not partitioned: do not call domain() or partitioned(true)",
            ));
        }
        // Seen in Chromium 156: the registration fails.
        if self.name.prefix_rules().is_some_and(|rules| rules.http_only) {
            return Err(Error::config(
                "device_bound() cannot be combined with the prefixes \"__Http-\" and \"__Host-Http-\": choose another name()",
            ));
        }
        let named = |name: &CookieName| CookieName::new(&format!("{name}.{suffix}"));
        // A retired name that has no room for the suffix had no companion.
        let retired = self.retired_cookies.iter().filter_map(|retired| {
            let (attributes, scopes) = (retired.attributes.clone(), retired.scopes.clone());
            Some(RetiredCookie { name: named(&retired.name).ok()?, attributes, scopes })
        });
        Ok(Self {
            name: named(&self.name)?,
            attributes: self.attributes.clone(),
            text: self.text.clone(),
            max_age: Some(max_age),
            max_chunks: 1,
            retired_scopes: self.retired_scopes.clone(),
            retired_cookies: retired.collect(),
        })
    }

    /// Returns the lines that remove the cookie of a companion, also in the retired scopes and under the retired names.
    #[cfg(feature = "device-bound")]
    pub(crate) fn remove_everywhere(&self) -> Result<SetCookies, Error> {
        let mut lines = SetCookies::new();
        self.expire_retired(0, |_| 0, &mut lines)?;
        lines.extend(self.remove(0)?);
        Ok(lines)
    }

    /// Returns the attributes by which a browser finds a bound cookie: those of a `Set-Cookie` line, without the age and without
    /// `Priority`, which is not an attribute of RFC 6265bis.
    ///
    /// Chromium refuses a binding whose instructions have any other attribute (`CookieCraving::Create`).
    #[cfg(feature = "device-bound")]
    pub(crate) fn identifying_attributes(&self) -> String {
        let text = Attributes { priority: None, ..self.attributes.clone() }.to_string();
        text.trim_start_matches("; ").to_owned()
    }

    /// Returns true if browsers send this cookie with a request to `path`.
    #[cfg(feature = "device-bound")]
    pub(crate) fn covers_path(&self, path: &str) -> bool {
        path_covers(&self.attributes.path, path)
    }

    /// Returns the cookies that held the session before.
    pub(crate) fn retired_cookies(&self) -> &[RetiredCookie] {
        &self.retired_cookies
    }

    /// Returns true if browsers may hold this cookie, or one of a retired name, in a scope that depends on the host or the path of
    /// a request.
    pub(crate) fn depends_on_target(&self) -> bool {
        let mut names =
            std::iter::once(&self.name).chain(self.retired_cookies.iter().map(RetiredCookie::name));
        names.any(|name| !name.prefix_rules().is_some_and(|rules| rules.host_only))
    }

    /// Returns how many bytes of a token fit in the cookie `name` (0) or `name.n`.
    pub(crate) fn chunk_size(&self, number: u8) -> usize {
        chunk_size(&self.name, number)
    }

    /// Returns the length of the longest token that can be set.
    fn max_token(&self) -> usize {
        token_len(&self.name, self.max_chunks)
    }

    /// Returns the length of the longest token that any options could have set, under any of the names. A token that was
    /// set with a higher `max_chunks` is still read.
    pub(crate) fn longest_token(&self) -> usize {
        let names = std::iter::once(&self.name).chain(self.retired_cookies.iter().map(RetiredCookie::name));
        names.map(|name| token_len(name, MAX_CHUNKS)).max().unwrap_or(0)
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

    /// Returns the lines that set the cookie to `token`, for `lifetime` or Max-Age, whichever is shorter. `held` tells which further chunks the client
    /// has (bit `n` for `name.n`): chunks that the token does not fill are removed. So is the number after a chunk that is exactly
    /// full, since a reader would take what is there for the next chunk.
    ///
    /// # Errors
    ///
    /// The same as [`check_size`](Self::check_size).
    pub(crate) fn set(&self, token: &[u8], lifetime: Duration, held: u8) -> Result<SetCookies, Error> {
        self.set_until(token, self.max_age.map(|max_age| max_age.min(lifetime)), held)
    }

    /// Works as [`set`](Self::set), with this Max-Age, or without one.
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
        let mut full = false;
        while number == 0 || !rest.is_empty() {
            let (chunk, after) = rest.split_at_checked(self.chunk_size(number)).unwrap_or((rest, &[]));
            let age = if seconds.is_some() { "; Max-Age=" } else { "" };
            lines.push(line(&self.name, number, chunk, age, seconds, &self.text)?);
            full = chunk.len() == self.chunk_size(number);
            rest = after;
            number += 1;
        }
        let held = if full { held | 1_u8.checked_shl(number.into()).unwrap_or(0) } else { held };
        remove_tails(&self.name, &self.text, number, held, &mut lines)?;
        Ok(lines)
    }

    /// Returns the lines that remove the cookie and the chunks that the client holds, with the attributes with which they were set.
    pub(crate) fn remove(&self, held: u8) -> Result<SetCookies, Error> {
        let mut lines = SetCookies::new();
        remove(&self.name, &self.text, held, &mut lines)?;
        Ok(lines)
    }

    /// Returns true if `line` is the line that removes the cookie.
    pub(crate) fn is_removal(&self, line: &HeaderValue) -> bool {
        self.remove(0).is_ok_and(|lines| lines.iter().any(|removal| removal == line))
    }

    /// Returns true if browsers send this cookie with a request to `target`, judging by its path.
    pub(crate) fn covers(&self, target: &Target) -> bool {
        target.is_within(&self.attributes.path)
    }

    /// Returns true if there are retired scopes or names.
    pub(crate) fn retires(&self) -> bool {
        !self.retired_scopes.is_empty() || !self.retired_cookies.is_empty()
    }

    /// Removes the cookie in the retired scopes and under the retired names. `held` is the mask of the present name, and
    /// `held_under` that of a retired name, by its index among [`retired_cookies`](Self::retired_cookies).
    pub(crate) fn expire_retired(
        &self,
        held: u8,
        held_under: impl Fn(usize) -> u8,
        lines: &mut SetCookies,
    ) -> Result<(), Error> {
        self.retired_scopes.iter().try_for_each(|scope| remove_bounded(&self.name, scope, held, lines))?;
        for (place, cookie) in self.retired_cookies.iter().enumerate() {
            cookie
                .scopes
                .iter()
                .try_for_each(|scope| remove_bounded(&cookie.name, scope, held_under(place), lines))?;
        }
        Ok(())
    }

    /// Removes the cookies that came with a request to `target` in all other scopes in which a browser may hold them: see
    /// [`scopes`](super::scopes). `held` is the mask of the present name, and `held_under` that of a retired name, by its index.
    /// `None` for a name of which no cookie came. If there are more scopes than may be tried, each name has its likeliest ones.
    pub(crate) fn expire_elsewhere(
        &self,
        target: Option<&Target>,
        several: bool,
        held: Option<u8>,
        held_under: impl Fn(usize) -> Option<u8>,
        lines: &mut SetCookies,
    ) -> Result<(), Error> {
        let present = (&self.name, &self.attributes, &self.retired_scopes, held);
        let retired = self.retired_cookies.iter().enumerate();
        let retired = retired
            .map(|(place, cookie)| (&cookie.name, &cookie.attributes, &cookie.scopes, held_under(place)));
        let mut all_scopes = Vec::new();
        for (name, attributes, named, held) in std::iter::once(present).chain(retired) {
            let Some(held) = held else { continue };
            let scopes = elsewhere(attributes, name.prefix_rules(), target, several);
            let texts = scopes.iter().map(Attributes::to_string);
            let new: Vec<String> = texts.filter(|text| named.iter().all(|named| **named != **text)).collect();
            all_scopes.push((name, held, new));
        }
        // The likeliest scope of each name, then the next one of each.
        let rounds = (0..MAX_SCOPES).map(|round| {
            all_scopes.iter().filter_map(move |(name, held, scopes)| Some((*name, *held, scopes.get(round)?)))
        });
        for (name, held, scope) in rounds.flatten().take(MAX_SCOPES) {
            remove_bounded(name, scope, held, lines)?;
        }
        Ok(())
    }
}

/// Returns how many bytes of a token fit in the cookie `name` (0) or `name.n`.
pub(crate) fn chunk_size(name: &CookieName, number: u8) -> usize {
    let suffix = if number == 0 { 0 } else { 2 };
    MAX_NAME_VALUE - name.as_str().len() - suffix
}

fn token_len(name: &CookieName, chunks: u8) -> usize {
    (0..chunks).map(|number| chunk_size(name, number)).sum()
}

/// Removes a cookie and the chunks that the client holds.
fn remove(name: &CookieName, attributes: &str, held: u8, lines: &mut SetCookies) -> Result<(), Error> {
    lines.push(line(name, 0, b"", REMOVED, None, attributes)?);
    remove_tails(name, attributes, 1, held, lines)
}

/// Works as [`remove`], without the further chunks if there are [`MAX_LINES`] already.
fn remove_bounded(
    name: &CookieName,
    attributes: &str,
    held: u8,
    lines: &mut SetCookies,
) -> Result<(), Error> {
    let held = if lines.len() < MAX_LINES { held } else { 0 };
    remove(name, attributes, held, lines)
}

fn remove_tails(
    name: &CookieName,
    attributes: &str,
    from: u8,
    held: u8,
    lines: &mut SetCookies,
) -> Result<(), Error> {
    for number in from..MAX_CHUNKS {
        if held & (1 << number) != 0 {
            lines.push(line(name, number, b"", REMOVED, None, attributes)?);
        }
    }
    Ok(())
}

/// Writes `name[.n]=value{age}[seconds]{attributes}`.
fn line(
    name: &CookieName,
    number: u8,
    value: &[u8],
    age: &str,
    seconds: Option<u64>,
    attributes: &str,
) -> Result<HeaderValue, Error> {
    let suffix = [b'.', b'0' + number];
    let suffix = if number == 0 { &[][..] } else { &suffix[..] };
    let mut digits = [0; 20];
    let digits = seconds.map_or(&[][..], |seconds| decimal(seconds, &mut digits));

    let name = name.as_str().as_bytes();
    let parts = [name, suffix, b"=", value, age.as_bytes(), digits, attributes.as_bytes()];
    let mut line = Vec::with_capacity(parts.iter().map(|part| part.len()).sum());
    for part in parts {
        line.extend_from_slice(part);
    }

    let mut line = HeaderValue::from_maybe_shared(Bytes::from(line))
        .map_err(|_| Error::new(Kind::Internal("a token is not a header value")))?;
    line.set_sensitive(true);
    Ok(line)
}

/// Writes the decimal digits of `number` at the end of `buffer`.
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

/// Returns the name of the cookie that a `Set-Cookie` line sets.
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
        // The remaining life of the session is shorter than Max-Age. A removal carries the same attributes.
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
        let whole = 4095 + 7 * 4093;
        // (size, chunks, removals): a full chunk is followed by a removal, up to the last number.
        for (size, chunks, removals) in [
            (4094, 1, 0),
            (4095, 1, 1),
            (4096, 2, 0),
            (8188, 2, 1),
            (8189, 3, 0),
            (whole - 4093, 7, 1),
            (whole, 8, 0),
        ] {
            let token = vec![b'x'; size];
            let lines = template.set(&token, HOUR, 0).unwrap();
            assert_eq!(lines.len(), chunks + removals, "{size}");
            for line in &text(&lines)[chunks..] {
                assert!(line.starts_with(&format!("s.{chunks}=; Max-Age=0;")), "{line}");
            }
            let mut total = 0;
            for (number, line) in text(&lines)[..chunks].iter().enumerate() {
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

    fn retired(template: &CookieTemplate, held: u8, held_under: u8) -> Vec<String> {
        let mut lines = SetCookies::new();
        template.expire_retired(held, |_| held_under, &mut lines).unwrap();
        let rest = "; Max-Age=0; Expires=Thu, 01 Jan 1970 00:00:00 GMT";
        text(&lines).iter().map(|line| line.replace(rest, "")).collect()
    }

    #[test]
    fn a_place_that_is_named_twice_is_expired_once() {
        let options = || CookieOptions::new().name("__Secure-s");
        // The present place is not a former one.
        assert!(!options().retired_path("/").retired_host_only().validate().unwrap().retires());
        let twice = options().retired_path("/app").retired_path("/app").retired_host_only();
        assert_eq!(retired(&twice.validate().unwrap(), 0, 0).len(), 1);
        let names = options().retired_name("a").retired_path("/").retired_name("a");
        assert_eq!(retired(&names.validate().unwrap(), 0, 0).len(), 1);
    }

    #[test]
    fn every_retired_scope_is_expired() {
        let options = || CookieOptions::new().name("__Secure-s").http_only(false).same_site(SameSite::Strict);
        let rest = "; Secure; SameSite=Strict";
        let plain = options().validate().unwrap();
        assert!(!plain.retires() && retired(&plain, 0b110, 0).is_empty());
        let domain = options().retired_domain("example.com").validate().unwrap();
        assert_eq!(
            retired(&domain, 0b10, 0),
            ["__Secure-s=", "__Secure-s.1="].map(|pair| format!("{pair}; Path=/; Domain=example.com{rest}"))
        );
        // Each former domain with each former path.
        let both = options().domain("example.com").retired_host_only().path("/app").retired_path("/");
        assert_eq!(
            retired(&both.validate().unwrap(), 0, 0),
            ["; Path=/; Domain=example.com", "; Path=/app", "; Path=/"]
                .map(|scope| format!("__Secure-s={scope}{rest}"))
        );
    }

    #[test]
    fn retired_names_are_expired_with_attributes_that_browsers_accept_for_them() {
        let template = CookieOptions::development()
            .name("s")
            .path("/app")
            .retired_name("old")
            .retired_name("__Host-old")
            .validate()
            .unwrap();
        assert_eq!(
            retired(&template, 0, 0b100),
            [
                "old=; Path=/app; HttpOnly; SameSite=Lax",
                "old.2=; Path=/app; HttpOnly; SameSite=Lax",
                "__Host-old=; Path=/; Secure; HttpOnly; SameSite=Lax",
                "__Host-old.2=; Path=/; Secure; HttpOnly; SameSite=Lax",
            ]
        );
    }

    // A `__Host-` cookie cannot have had another scope, so the option is a mistake.
    #[test]
    fn a_scope_that_browsers_never_kept_is_not_retired() {
        for options in
            [CookieOptions::new().retired_domain("example.com"), CookieOptions::new().retired_path("/app")]
        {
            let error = options.validate().unwrap_err();
            assert!(error.is_config() && error.to_string().contains("retired_name"), "{error}");
        }
        assert!(CookieOptions::new().retired_host_only().validate().is_ok());
        // With a retired name, the scopes belong to that name.
        let moved = CookieOptions::new().retired_name("s").retired_domain("example.com").retired_path("/app");
        let lines = retired(&moved.validate().unwrap(), 0, 0);
        assert_eq!(lines.len(), 4);
        assert!(lines.iter().all(|line| line.starts_with("s=; Path=/")), "{lines:?}");
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
