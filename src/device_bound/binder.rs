//! The checked options of device-bound sessions, with their keys: what a store and its services ask.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use http::Method;
use http::header::{HeaderMap, HeaderValue};
use serde_json::json;
use smallvec::SmallVec;

use super::answered::Answered;
use super::bound_cookie::{self, Untested};
use super::challenge::{Age, Challenge, IssuedFor, WINDOW};
use super::jws::{self, Proof};
use super::{BoundCookieMemo, DeviceBound, headers};
use crate::clock::{MAX_CLOCK_SKEW, Timestamp};
use crate::cookie::{
    COMPANIONS, CookieName, CookieTemplate, FoundCookies, MAX_CANDIDATES, RetiredCookie, SetCookies,
};
use crate::crypto::{Keyring, PublicKey, Purpose, Sealer, SystemRandom, Tagger, encode_base64url, hashed_id};
use crate::error::Error;
use crate::event::ProofRefusal;
use crate::session::{DeviceBinding, SUPERSEDED_FOR, SessionId};

/// Chromium signs six times in nine minutes for a site, and refreshes up to two minutes early.
const SHORTEST_LIFETIME: Duration = Duration::from_secs(300);
const LONGEST_LIFETIME: Duration = Duration::from_secs(24 * 3_600);

const IDENTIFIER_DOMAIN: &[u8] = b"hyper-session device binding v1\0";
/// The end of the bound cookie's name, after that of the session's cookie, and its place in [`Binder::COOKIES`].
const SUFFIX: &str = "bound";
const BOUND: u8 = 0;
/// The same of the mark that a page was shown which asks again, and how long it lasts: longer than a refresh can take.
const RETRY_SUFFIX: &str = "retry";
const RETRY: u8 = 1;
const RETRY_LIFETIME: Duration = Duration::from_secs(60);
/// The mark that the page was shown, and the mark that the browser then came without a bound cookie.
const ASKED: &[u8] = b"1";
const GAVE_UP: &[u8] = b"2";
/// The longest text that can be an identifier: a letter and 16 bytes.
const MAX_IDENTIFIER: usize = 23;

/// Binds the sessions of one store to devices, and checks what devices prove.
pub(crate) struct Binder {
    paths: Paths,
    /// Paths that are answered, and not offered.
    accepted: Vec<Paths>,
    enforces: bool,
    lifetime: Duration,
    keys: NamedKeys,
    cookie: CookieTemplate,
    /// The mark that a page was shown which asks again.
    retry: CookieTemplate,
    /// Those of the session's retired names. Another host may use one of them for now.
    retired: Vec<NamedKeys>,
    answered: Answered,
}

/// The keys for one name of the session's cookie.
struct NamedKeys {
    challenges: Sealer,
    tagger: Tagger,
}

/// The paths below one path of the options.
#[derive(Debug)]
struct Paths {
    register: Box<str>,
    refresh: Box<str>,
    present: Box<str>,
}

/// A kind of request that the session service answers itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Endpoint {
    /// A browser registers the key of its device.
    Register,
    /// A browser proves that its device still holds the key.
    Refresh,
    /// A page of this site makes a request, so that its browser refreshes the bound cookie before it.
    Present,
}

/// The result of a refresh.
pub(crate) enum Refreshed {
    /// The device proved that it holds the key, in response to a challenge of this time.
    Proved(Timestamp),
    /// There was no proof, or none that this challenge would not set right.
    Challenged(HeaderValue, Option<ProofRefusal>),
    /// The proof answers the challenge of a host whose clock is ahead, so this host cannot judge it.
    Unjudged(ProofRefusal),
    Refused(ProofRefusal),
}

/// The reason why a proof does not count.
enum Flaw {
    /// This host cannot judge its challenge, because the clock of the host that issued it is ahead.
    Ahead,
    Refused(ProofRefusal),
}

impl Binder {
    /// The ends of the names of its cookies, after that of the session's cookie and a dot.
    pub(crate) const COOKIES: [&'static str; COMPANIONS] = [SUFFIX, RETRY_SUFFIX];

    /// Checks the options. `keys` are those of the store.
    pub(crate) fn new(
        options: DeviceBound,
        keys: Option<&Keyring>,
        session_cookie: &CookieTemplate,
    ) -> Result<Self, Error> {
        let DeviceBound { path, accepted_paths, answer_only, lifetime, keys: own } = options;
        let keys = own.as_ref().or(keys).ok_or_else(|| {
            Error::config(
                "device_bound() needs an application key: give it to DeviceBound::keys(), or call seal_records()",
            )
        })?;
        if !(SHORTEST_LIFETIME..=LONGEST_LIFETIME).contains(&lifetime) {
            return Err(Error::config(
                "the lifetime of the bound cookie must be five minutes to one day: change DeviceBound::lifetime()",
            ));
        }
        let cookie = session_cookie.companion(SUFFIX, lifetime)?;
        let accepted: Result<_, _> = accepted_paths.iter().map(|path| Paths::below(path, &cookie)).collect();
        let retired = session_cookie.retired_cookies().iter().map(RetiredCookie::name);
        let retired = retired.map(|name| NamedKeys::new(keys, name)).collect::<Result<_, Error>>()?;
        let name = session_cookie.name();
        let retry = session_cookie.companion(RETRY_SUFFIX, RETRY_LIFETIME)?;
        let binder = Self {
            paths: Paths::below(&path, &cookie)?,
            accepted: accepted?,
            enforces: !answer_only,
            lifetime,
            keys: NamedKeys::new(keys, name)?,
            retired,
            cookie,
            retry,
            answered: Answered::default(),
        };
        let retired = session_cookie.retired_cookies().iter().map(RetiredCookie::name);
        binder.check_names(std::iter::once(name).chain(retired).map(CookieName::as_str))?;
        Ok(binder)
    }

    /// Checks that none of these cookies of sessions is one of its own.
    pub(crate) fn check_names<'a>(&self, names: impl IntoIterator<Item = &'a str>) -> Result<(), Error> {
        match names.into_iter().find(|name| self.sets_cookie(name)) {
            None => Ok(()),
            Some(name) => Err(Error::config(format!(
                "device_bound() sets a cookie named {name:?} beside that of the session, so no session can be in it: choose another name(), retired_name() or linked_cookie()"
            ))),
        }
    }

    /// Returns true if one of its cookies has this name.
    pub(crate) fn sets_cookie(&self, name: &str) -> bool {
        [&self.cookie, &self.retry].into_iter().any(|own| {
            let retired = own.retired_cookies().iter().map(RetiredCookie::name);
            std::iter::once(own.name()).chain(retired).any(|own| own.as_str() == name)
        })
    }

    /// Returns false if the store only answers browsers.
    pub(crate) fn enforces(&self) -> bool {
        self.enforces
    }

    /// Returns the endpoint that answers requests with this method and path.
    pub(crate) fn endpoint(&self, method: &Method, path: &str) -> Option<Endpoint> {
        let endpoint = self.all_paths().find_map(|paths| match path {
            _ if *path == *paths.register => Some(Endpoint::Register),
            _ if *path == *paths.refresh => Some(Endpoint::Refresh),
            _ if *path == *paths.present => Some(Endpoint::Present),
            _ => None,
        })?;
        let expected = if endpoint == Endpoint::Present { Method::GET } else { Method::POST };
        (*method == expected).then_some(endpoint)
    }

    /// Returns true if both stores of these binders answer requests with one method and path.
    pub(crate) fn shares_paths(&self, other: &Self) -> bool {
        let of = |paths: &Paths| other.all_paths().any(|others| others.register == paths.register);
        self.all_paths().any(of)
    }

    fn all_paths(&self) -> impl Iterator<Item = &Paths> {
        std::iter::once(&self.paths).chain(&self.accepted)
    }

    /// Returns true if a request with these cookies comes from the device of the session, as far as a cookie can show that.
    /// `retired` are the cookies under each retired name of the session's, and `memo` is that of its connection.
    pub(crate) fn is_present(
        &self,
        binding: &DeviceBinding,
        cookies: &FoundCookies,
        retired: &[FoundCookies],
        memo: Option<&BoundCookieMemo>,
        now: Timestamp,
    ) -> bool {
        // If the clock of the host that bound the session is ahead, its minute is not told from hours here.
        let in_grace = now.saturating_since(binding.since) < SUPERSEDED_FOR
            && binding.since.saturating_since(now) <= MAX_CLOCK_SKEW;
        let is_valid = |keys: &NamedKeys, cookies: &_| keys.has_valid(cookies, &binding.key, memo, now);
        in_grace || self.any_name(cookies, retired, is_valid)
    }

    /// Returns true if one of these bound cookies is of the device that the session is bound to. It may have expired on its way.
    pub(crate) fn has_cookie_of(
        &self,
        binding: &DeviceBinding,
        cookies: &FoundCookies,
        retired: &[FoundCookies],
    ) -> bool {
        let epoch = Timestamp::from_unix(0);
        self.any_name(cookies, retired, |keys, cookies| keys.has_valid(cookies, &binding.key, None, epoch))
    }

    /// Returns true if a session was bound moments ago, by whichever clock. Its browser may have sent a request before that, and
    /// another host may bind sessions by a clock that differs.
    pub(crate) fn is_new(binding: &DeviceBinding, now: Timestamp) -> bool {
        let apart = now.saturating_since(binding.since).max(binding.since.saturating_since(now));
        apart.as_secs() < WINDOW
    }

    /// Returns true if one of these bound cookies could show here that a device is present: its key is known, and it has not
    /// expired. Its tag is not checked. `retired` are the cookies under each retired name of the session's.
    pub(crate) fn may_count(&self, cookies: &FoundCookies, retired: &[FoundCookies], now: Timestamp) -> bool {
        self.any_name(cookies, retired, |keys, cookies| {
            keys.has_readable(cookies, |untested| now < untested.until())
        })
    }

    /// Returns true if one of these bound cookies has a key that is known here. It may have expired on its way. Its tag is not
    /// checked.
    pub(crate) fn has_known_key(&self, cookies: &FoundCookies, retired: &[FoundCookies]) -> bool {
        self.any_name(cookies, retired, |keys, cookies| keys.has_readable(cookies, |_| true))
    }

    /// Returns true if `has` is true of the keys for one name of the session's cookie, and the cookies under that name.
    fn any_name(
        &self,
        cookies: &FoundCookies,
        retired: &[FoundCookies],
        has: impl Fn(&NamedKeys, &FoundCookies) -> bool,
    ) -> bool {
        has(&self.keys, cookies) || self.retired.iter().zip(retired).any(|(keys, cookies)| has(keys, cookies))
    }

    /// Returns the field that offers the registration of a key for the session `id`.
    pub(crate) fn offer(&self, id: SessionId, now: Timestamp) -> Result<HeaderValue, Error> {
        let issued_for = IssuedFor::Registration(id.to_bytes());
        let challenge = Challenge { issued_for, issued: now }.seal(&self.keys.challenges)?;
        headers::registration(&self.paths.register, &challenge)
    }

    /// Returns the session to which the registration was offered that this request answers. The proof is not checked.
    pub(crate) fn offered_to(&self, fields: &HeaderMap) -> Option<SessionId> {
        let text = headers::text(fields, &headers::RESPONSE, jws::MAX_LEN)?;
        let challenge = self.open(&Proof::read(&text)?.challenge)?;
        match challenge.issued_for {
            IssuedFor::Registration(id) => Some(SessionId::from_bytes(id)),
            IssuedFor::Refresh(_) => None,
        }
    }

    /// Checks the proof of a registration for the session `id`, which is bound to the key `bound`. Returns the key of the proof, and
    /// the time of the challenge.
    ///
    /// For a bound session, the same proof is accepted again: if the response was lost, the browser or a proxy may send the request
    /// once more. It gains nothing, because the end of the bound cookie counts from the challenge.
    pub(crate) fn registered(
        &self,
        fields: &HeaderMap,
        id: SessionId,
        bound: Option<PublicKey>,
        now: Timestamp,
    ) -> Result<(PublicKey, Timestamp), ProofRefusal> {
        let text = headers::text(fields, &headers::RESPONSE, jws::MAX_LEN).ok_or(ProofRefusal::Malformed)?;
        let proof = Proof::read(&text).ok_or(ProofRefusal::Malformed)?;
        let key = proof.key.ok_or(ProofRefusal::Malformed)?;
        let issued_for = IssuedFor::Registration(id.to_bytes());
        let checked = self.check(&proof, issued_for, &key, now);
        let answered = match bound {
            None => checked.and_then(|challenge| self.use_up(&proof, challenge, now)),
            Some(bound) if bound == key => checked.map(|challenge| challenge.issued),
            Some(_) => return Err(ProofRefusal::AlreadyBound),
        };
        match answered {
            Ok(issued) => Ok((key, issued)),
            Err(Flaw::Ahead) => Err(ProofRefusal::Challenge),
            Err(Flaw::Refused(refusal)) => Err(refusal),
        }
    }

    /// Returns the identifier of the binding that a refresh is about.
    pub(crate) fn identifier(fields: &HeaderMap) -> Option<String> {
        headers::text(fields, &headers::IDENTIFIER, MAX_IDENTIFIER)
    }

    /// Returns true if a request has an identifier that this release cannot read.
    pub(crate) fn has_unreadable_identifier(fields: &HeaderMap) -> bool {
        fields.contains_key(headers::IDENTIFIER) && Self::identifier(fields).is_none()
    }

    /// Returns true if a request brings a proof, of whatever quality.
    pub(crate) fn has_proof(fields: &HeaderMap) -> bool {
        fields.contains_key(headers::RESPONSE)
    }

    /// Checks the proof of a refresh of the binding to `key`.
    pub(crate) fn refreshed(
        &self,
        fields: &HeaderMap,
        key: &PublicKey,
        now: Timestamp,
    ) -> Result<Refreshed, Error> {
        let id = binding_id(key);
        let issued_for = IssuedFor::Refresh(id);
        let refusal = if Self::has_proof(fields) {
            let text = headers::text(fields, &headers::RESPONSE, jws::MAX_LEN);
            let Some(proof) = text.as_deref().and_then(Proof::read) else {
                return Ok(Refreshed::Refused(ProofRefusal::Malformed));
            };
            let checked = self.check(&proof, issued_for, key, now);
            // Last, so that only the device can use up its challenge.
            match checked.and_then(|challenge| self.use_up(&proof, challenge, now)) {
                Ok(issued) => return Ok(Refreshed::Proved(issued)),
                // Another challenge would not help: the next proof may reach a host whose clock is behind this one's. A browser
                // that is asked for a fifth proof ends the binding.
                Err(Flaw::Ahead) => return Ok(Refreshed::Unjudged(ProofRefusal::Challenge)),
                // Another challenge helps.
                Err(Flaw::Refused(refusal @ (ProofRefusal::Challenge | ProofRefusal::Replayed))) => {
                    Some(refusal)
                }
                Err(Flaw::Refused(refusal)) => return Ok(Refreshed::Refused(refusal)),
            }
        } else {
            None
        };
        let challenge = Challenge { issued_for, issued: now }.seal(&self.keys.challenges)?;
        Ok(Refreshed::Challenged(headers::challenge(&challenge, &identifier_of(id))?, refusal))
    }

    /// Opens a challenge that was issued under the present name of the session's cookie, or under a retired one.
    fn open(&self, text: &str) -> Option<Challenge> {
        let all_keys = std::iter::once(&self.keys).chain(&self.retired);
        all_keys.map(|keys| &keys.challenges).find_map(|challenges| Challenge::open(text, challenges))
    }

    /// Returns the challenge that the proof answers.
    fn check(
        &self,
        proof: &Proof<'_>,
        issued_for: IssuedFor,
        key: &PublicKey,
        now: Timestamp,
    ) -> Result<Challenge, Flaw> {
        let challenge = self.open(&proof.challenge);
        let challenge = challenge.filter(|challenge| challenge.issued_for == issued_for);
        let challenge = challenge.ok_or(Flaw::Refused(ProofRefusal::Challenge))?;
        match challenge.age(now) {
            Age::Fresh => {}
            Age::Old => return Err(Flaw::Refused(ProofRefusal::Challenge)),
            Age::Ahead => return Err(Flaw::Ahead),
        }
        if proof.is_signed_by(key) { Ok(challenge) } else { Err(Flaw::Refused(ProofRefusal::Signature)) }
    }

    /// Notes that a challenge was answered. Returns its time.
    fn use_up(&self, proof: &Proof<'_>, challenge: Challenge, now: Timestamp) -> Result<Timestamp, Flaw> {
        if self.answered.first(&proof.challenge, challenge.end(), now) {
            Ok(challenge.issued)
        } else {
            Err(Flaw::Refused(ProofRefusal::Replayed))
        }
    }

    /// Returns the lines that set the bound cookie, after a challenge of the time `issued` was answered.
    ///
    /// Its end counts from the challenge. So an answer that is replayed, here or on another host, is not worth more than it
    /// was the first time.
    pub(crate) fn set_cookie(
        &self,
        key: &PublicKey,
        issued: Timestamp,
        now: Timestamp,
    ) -> Result<SetCookies, Error> {
        let until = issued.saturating_add(self.lifetime);
        let value = bound_cookie::write(&self.keys.tagger, key, until)?;
        self.cookie.set(value.as_bytes(), until.saturating_since(now), 0)
    }

    /// Returns the lines that remove the bound cookie, under the retired names of the session's, too.
    pub(crate) fn remove_cookie(&self) -> Result<SetCookies, Error> {
        self.cookie.remove_everywhere()
    }

    /// Returns true if there is a bound cookie among these, of whichever binding and key. A value that cannot be one, as that of
    /// another service's cookie, does not count.
    pub(crate) fn has_cookie(cookies: &FoundCookies) -> bool {
        cookies.companions(BOUND).any(bound_cookie::has_form)
    }

    /// Returns true if the mark is among these cookies that a page was shown which asks again.
    pub(crate) fn was_asked(cookies: &FoundCookies) -> bool {
        cookies.companions(RETRY).any(|mark| mark == ASKED || mark == GAVE_UP)
    }

    /// Returns a page that makes the browser refresh its bound cookie, and then opens itself again: HTML, and the lines that mark
    /// that it was shown.
    ///
    /// A browser refreshes for requests that a page of this origin causes, as the image is. The page is loaded when that has an
    /// answer.
    pub(crate) fn retry_page(&self) -> Result<(String, SetCookies), Error> {
        let image = self.paths.present.replace('&', "&amp;");
        let page = format!(
            "<!doctype html><title></title><img alt=\"\" src=\"{image}\"><script>onload = () => location.reload()</script>"
        );
        Ok((page, self.retry.set(ASKED, RETRY_LIFETIME, 0)?))
    }

    /// Returns the lines that mark a browser which was asked to refresh, but did not.
    pub(crate) fn give_up(&self) -> Result<SetCookies, Error> {
        self.retry.set(GAVE_UP, RETRY_LIFETIME, 0)
    }

    /// Returns true if a browser that sends these cookies was asked to refresh moments ago, and did not.
    pub(crate) fn has_given_up(cookies: &FoundCookies) -> bool {
        cookies.companions(RETRY).any(|mark| mark == GAVE_UP)
    }

    /// Returns what the browser is told about the binding: JSON.
    pub(crate) fn instructions(&self, key: &PublicKey) -> String {
        json!({
            "session_identifier": identifier_of(binding_id(key)),
            "refresh_url": &*self.paths.refresh,
            "scope": { "include_site": false, "scope_specification": [] },
            "credentials": [{
                "type": "cookie",
                "name": self.cookie.name().as_str(),
                "attributes": self.cookie.identifying_attributes(),
            }],
        })
        .to_string()
    }
}

impl NamedKeys {
    fn new(keys: &Keyring, name: &CookieName) -> Result<Self, Error> {
        let name = name.as_str();
        Ok(Self {
            challenges: Sealer::new(keys, Purpose::Challenge, name, Arc::new(SystemRandom))?,
            tagger: Tagger::new(keys, Purpose::BoundCookie, name)?,
        })
    }

    /// Returns true if one of these bound cookies is of the device that holds `key`, and has not expired at `now`.
    ///
    /// A sibling subdomain can plant some. A cookie that is refused before its tag is checked, or that came before, does not count
    /// among the cookies that are tried.
    fn has_valid(
        &self,
        cookies: &FoundCookies,
        key: &PublicKey,
        memo: Option<&BoundCookieMemo>,
        now: Timestamp,
    ) -> bool {
        let mut tried = SmallVec::<[&[u8]; MAX_CANDIDATES]>::new();
        cookies.companions(BOUND).any(|value| {
            if let Some(until) = memo.and_then(|memo| memo.recall(key, value)) {
                return now < until;
            }
            let Some(untested) = Untested::read(&self.tagger, value) else { return false };
            let until = untested.until();
            if until <= now || tried.len() == MAX_CANDIDATES || tried.contains(&value) {
                return false;
            }
            tried.push(value);
            let is_of_device = untested.is_of(&self.tagger, key);
            if let Some(memo) = memo.filter(|_| is_of_device) {
                memo.keep(key, value, until);
            }
            is_of_device
        })
    }

    /// Returns true if one of these bound cookies has a key that is known here, and `counts`. Its tag is not checked.
    fn has_readable(&self, cookies: &FoundCookies, counts: impl Fn(&Untested) -> bool) -> bool {
        let mut values = cookies.companions(BOUND);
        values.any(|value| Untested::read(&self.tagger, value).as_ref().is_some_and(&counts))
    }
}

impl Paths {
    fn below(path: &str, cookie: &CookieTemplate) -> Result<Self, Error> {
        if !is_sent_unchanged(path) {
            return Err(Error::config(
                "the path of device_bound() must start with one \"/\", must not have segments \".\" or \"..\", and must have visible ASCII characters other than ?#;,\"<>\\{}^`|: change DeviceBound::path() or accept_path()",
            ));
        }
        let path = path.trim_end_matches('/');
        let below = |name: &str| format!("{path}/{name}").into();
        let paths =
            Self { register: below("register"), refresh: below("refresh"), present: below("present") };
        if !cookie.covers_path(&paths.refresh) {
            return Err(Error::config(
                "the path of device_bound() must be within the path of the session cookie: change DeviceBound::path() or accept_path(), or the cookie's path()",
            ));
        }
        Ok(paths)
    }
}

/// Returns true if browsers send a request to a path as it is: they resolve segments of dots, take what follows two slashes for a
/// host, and encode some characters.
fn is_sent_unchanged(path: &str) -> bool {
    let is_dots = |segment: &str| {
        let segment = segment.to_ascii_lowercase().replace("%2e", ".");
        segment == "." || segment == ".."
    };
    path.starts_with('/')
        && !path.starts_with("//")
        && path.bytes().all(|byte| byte.is_ascii_graphic() && !b"\"\\?#;,<>{}^`|".contains(&byte))
        && !path.split('/').any(is_dots)
}

/// Returns true if the identifier is that of the binding to `key`.
pub(crate) fn is_named(identifier: &str, key: &PublicKey) -> bool {
    identifier == identifier_of(binding_id(key))
}

/// Returns the public id of the binding to this key. It does not depend on the name of the cookie, which can change: a browser
/// makes a key for each registration.
fn binding_id(key: &PublicKey) -> [u8; 16] {
    hashed_id(IDENTIFIER_DOMAIN, "", key.as_bytes())
}

/// Returns the identifier by which the browser names the binding. It begins with a letter, so that it can be sent with and
/// without quotes.
fn identifier_of(id: [u8; 16]) -> String {
    format!("b{}", encode_base64url(&id))
}

impl fmt::Debug for Binder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Binder")
            .field("paths", &self.paths)
            .field("accepted", &self.accepted)
            .field("enforces", &self.enforces)
            .field("lifetime", &self.lifetime)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
#[path = "binder_tests.rs"]
mod tests;
