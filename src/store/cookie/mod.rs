//! The cookie store: sessions that live in the cookie, encrypted and signed, with their deadlines inside.

mod end_sessions;
pub(crate) mod format;
mod header;
mod plan;
mod revocable;
mod revoking;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use self::format::{CreateForeign, ForeignFormat};
use self::header::SealedHeader;
use self::revoking::Revoking;
use super::verbs::Sealed;
use super::{Builder, EndedBy, LoadFuture, Store, StoreFuture, SubjectFuture, Verbs};
use crate::clock::{MAX_CLOCK_SKEW, Timestamp};
use crate::config::Config;
use crate::crypto::{KeyId, Keyring, Purpose, Random, Sealer, SecretText, SystemRandom, key_of, warm_up};
use crate::error::Error;
use crate::event::{CookieFormat, EventKind, Refusal};
use crate::revocation::Revocations;
use crate::session::{Changes, Origin, Payload, Recency, Record, Saved, SessionId};

/// The clock of a host that is further ahead counts as faulty: its tokens hide nothing, so that users can log in again once it was
/// set.
const FAULTY_CLOCK: Duration = Duration::from_secs(3600);

/// A store that keeps each session in its own cookie, without a server: AES-256-GCM encrypted and HMAC-SHA256 signed.
/// Idle and absolute deadline are sealed inside and checked on each load.
///
/// A clone is the same store.
///
/// # Limits
///
/// The client holds the only copy. It can present an older one again, for example to undo a purchase. If that matters,
/// use a server-side store. Keep timeouts short in any case.
///
/// Without [`revocations`](Builder::revocations), a copy taken before a logout works until its deadline. Of two
/// concurrent requests, the browser keeps the cookie of the response that arrives last, even if that only renews a
/// session that the other one ended. With revocations, a logout is final.
///
/// # Examples
///
/// ```
/// use hyper_session::cookie::CookieOptions;
/// use hyper_session::{AppKey, CookieStore};
///
/// let store = CookieStore::builder(AppKey::generate()?).build()?;
/// // Over plain http, while developing:
/// let store = CookieStore::builder(AppKey::generate()?).development().build()?;
///
/// // A cookie of this name must have the path `/`.
/// let options = CookieOptions::new().name("__Host-app").path("/app");
/// let error = CookieStore::builder(AppKey::generate()?).cookie(options).build().unwrap_err();
/// assert!(error.is_config());
/// # Ok::<(), hyper_session::Error>(())
/// ```
#[derive(Clone)]
#[doc(alias = "CookieSessionStore")]
pub struct CookieStore {
    inner: Arc<Inner>,
}

struct Inner {
    config: Config,
    sealer: Sealer,
    /// One for each retired name of the cookie.
    retired: Vec<Sealer>,
    random: Arc<dyn Random>,
    revoking: Option<Arc<Revoking>>,
    foreign: Option<Box<dyn ForeignFormat>>,
}

/// The kind of [`Builder`] that makes a [`CookieStore`].
pub struct CookieKeys {
    keys: Keyring,
    random: Arc<dyn Random>,
    revocations: Option<Revocations>,
    /// Creates the format of another program, whose cookies are read, too.
    pub(crate) foreign: Option<CreateForeign>,
}

impl CookieStore {
    /// Returns a builder for a store with these keys: an [`AppKey`](crate::AppKey), or a [`Keyring`] with older ones.
    pub fn builder(keys: impl Into<Keyring>) -> Builder<CookieKeys> {
        let kind = CookieKeys {
            keys: keys.into(),
            random: Arc::new(SystemRandom),
            revocations: None,
            foreign: None,
        };
        Builder::new(kind).connection_memo(true)
    }
}

impl Builder<CookieKeys> {
    /// Sets whether each connection keeps its last cookie. A request with the same cookie then has it compared instead
    /// of decrypted, which is several times as fast. Default: true.
    ///
    /// # Security
    ///
    /// The comparison takes constant time. Deadlines are checked each time. Nothing passes from one connection to
    /// another. The cost: the token, the bound cookie and the values of each connection's last session stay in the
    /// server's memory until the connection ends or brings another cookie, instead of until the request ends.
    ///
    /// # Limits
    ///
    /// One token of at most 4096 bytes, and its values, for each connection. A connection that carries many users'
    /// requests, for example a proxy's, stops after 16 cookies in a row that differ from the one before. A store that
    /// also reads Astra's cookies keeps none; neither do the services of a
    #[cfg_attr(feature = "tower", doc = "[`SessionLayer`](crate::SessionLayer),")]
    #[cfg_attr(not(feature = "tower"), doc = "`SessionLayer` (feature `tower`),")]
    /// since frameworks clone them for each request.
    ///
    /// # Examples
    ///
    /// ```
    /// use hyper_session::{AppKey, CookieStore};
    ///
    /// let store = CookieStore::builder(AppKey::generate()?).connection_memo(false).build()?;
    /// # Ok::<(), hyper_session::Error>(())
    /// ```
    pub fn connection_memo(mut self, yes: bool) -> Self {
        self.options.settings.connection_memo = yes;
        self
    }

    /// Checks the options and builds the store.
    ///
    /// # Errors
    ///
    /// [`is_config`](Error::is_config) if options do not fit together, or the keyring seals with a revoked key or holds one
    /// twice. The message says what to change.
    pub fn build(self) -> Result<CookieStore, Error> {
        let shared = self.kind.foreign.is_some();
        let (kind, mut config, _) = self.validate(|kind, _| Some(kind.keys.clone()), shared)?;
        // With revocations a session can be ended without its cookie.
        config.only_in_cookie = kind.revocations.is_none();
        if kind.foreign.is_some() {
            config.settings.connection_memo = false; // each opening reports the format of the cookie
        }
        let revoking = match kind.revocations {
            None => None,
            Some(_) if kind.foreign.is_some() => {
                return Err(Error::config(
                    "sessions in another program's cookies cannot be revoked: call either revocations() or the methods for Astra",
                ));
            }
            Some(revocations) => {
                config.revocable = true;
                Some(Arc::new(Revoking::new(revocations, &config)?))
            }
        };
        let random = kind.random;
        warm_up(&*random);
        let sealer = |name: &str| Sealer::new(&kind.keys, Purpose::Session, name, Arc::clone(&random));
        let retired = config.cookie.retired_cookies().iter().map(|cookie| sealer(cookie.name().as_str()));
        let retired = retired.collect::<Result<_, _>>()?;
        let sealer = sealer(config.cookie_name())?;
        let foreign = kind.foreign.map(|create| create(Arc::clone(&random))).transpose()?;
        Ok(CookieStore { inner: Arc::new(Inner { config, sealer, retired, random, revoking, foreign }) })
    }

    #[cfg(test)]
    fn random(mut self, random: Arc<dyn Random>) -> Self {
        self.kind.random = random;
        self
    }
}

impl Inner {
    fn open(&self, token: &[u8], now: Timestamp) -> Result<Record, Refusal> {
        self.check_length(token)?;
        match &self.foreign {
            None => self.open_native(&self.sealer, token, now),
            Some(foreign) => self.open_either(&**foreign, token, now),
        }
    }

    /// Opens a token as the host that wrote it did at that time.
    fn open_when_written(&self, token: &[u8]) -> Option<Record> {
        self.sealers().find_map(|sealer| {
            let (header, ..) = unseal(sealer, token).ok()?;
            self.open_native(sealer, token, header.issued.written).ok()
        })
    }

    /// Returns what seals under the present name, then what sealed under the retired ones.
    fn sealers(&self) -> impl Iterator<Item = &Sealer> {
        std::iter::once(&self.sealer).chain(&self.retired)
    }

    /// Opens a token that came under a retired name. It will be written again under the present name.
    fn open_retired(&self, name: usize, token: &[u8], now: Timestamp) -> Result<Record, Refusal> {
        self.check_length(token)?;
        let sealer = self.retired.get(name).ok_or(Refusal::UnknownKey)?;
        let record = self.open_native(sealer, token, now)?;
        Ok(record.to_be_rewritten())
    }

    /// Opens a token that came under the present name or under a retired one.
    fn open_under_any_name(&self, token: &[u8], now: Timestamp) -> Option<Record> {
        let mut under_retired =
            (0..self.retired.len()).filter_map(|name| self.open_retired(name, token, now).ok());
        self.open(token, now).ok().or_else(|| under_retired.next())
    }

    /// Checks the length before a byte is decoded: a token too long for any options is not worth an allocation.
    fn check_length(&self, token: &[u8]) -> Result<(), Refusal> {
        if token.len() > self.config.cookie.longest_token() { Err(Refusal::Length) } else { Ok(()) }
    }

    /// Opens a token in the format that its form indicates, and in no other.
    fn open_either(
        &self,
        foreign: &dyn ForeignFormat,
        token: &[u8],
        now: Timestamp,
    ) -> Result<Record, Refusal> {
        let format = foreign.format_of(token, &self.sealer);
        let opened = match format {
            CookieFormat::Native => self
                .open_native(&self.sealer, token, now)
                .map(|record| foreign.opened_native(&self.config, record)),
            _ => foreign.open(&self.config, token, now),
        };
        let refusal = opened.as_ref().err().copied();
        self.config.emit(EventKind::CookieFormat { format, refusal });
        opened
    }

    /// Saves in the foreign format, if that is the format to write.
    fn save_foreign(
        &self,
        base: Option<&Record>,
        changes: &Changes,
        now: Timestamp,
    ) -> Option<Result<Saved, Error>> {
        self.foreign.as_ref()?.save(&self.config, base, changes, now)
    }

    fn open_native(&self, sealer: &Sealer, token: &[u8], now: Timestamp) -> Result<Record, Refusal> {
        let (header, payload, old_key) = unseal(sealer, token)?;
        if header.issued.written > now.saturating_add(MAX_CLOCK_SKEW) {
            return Err(Refusal::IssuedInFuture);
        }
        // The deadline that was sealed, or what the present options allow, whichever comes first: a shorter timeout holds
        // for tokens that are out already.
        if now >= header.expires {
            return Err(Refusal::Expired);
        }
        if payload.is_empty() {
            return Err(Refusal::Ended); // a tombstone
        }
        let payload = Payload::parse(payload).ok_or(Refusal::Payload)?;
        let allowed = self.config.deadline(header.created, &payload, header.issued.written);
        let expires = header.expires.min(allowed);
        if now >= expires {
            return Err(Refusal::Expired);
        }
        let origin = Origin::native(old_key);
        Ok(Record::written(header.id, header.created, expires, payload, origin, header.issued))
    }

    /// Seals a session that is written at `now`, and is newer than a token that was written at `previous`.
    fn seal(
        &self,
        id: SessionId,
        created: Timestamp,
        payload: Payload,
        previous: Option<Recency>,
        now: Timestamp,
    ) -> Result<Saved, Error> {
        let Some(expires) = self.config.kept_until(created, &payload, now) else {
            return Ok(Saved::Removed);
        };
        let header = header(id, created, previous, expires, now);
        let body = payload.to_format(self.config.settings.format)?;
        self.config.cookie.check_size(Sealer::token_len(SealedHeader::LEN + body.len()))?;
        let token = self.seal_parts(header, &body)?;
        let SealedHeader { created, issued, expires, .. } = header;
        let record = Record::written(id, created, expires, payload, Origin::native(false), issued);
        Ok(Saved::Stored { record, token, conflicts: 0 })
    }

    fn seal_parts(&self, header: SealedHeader, body: &[u8]) -> Result<SecretText, Error> {
        self.sealer.seal_text(header.issued.written, &[&header.to_bytes(), body])
    }

    /// Seals a token without a session. It is needed until the last of `ended` expires.
    fn tombstone(&self, ended: &[Record], now: Timestamp) -> Result<(SecretText, Duration), Error> {
        let newest = ended.iter().map(Record::recency).max();
        let expires = ended.iter().map(Record::expires).max().unwrap_or(now);
        let id = SessionId::generate(&*self.random)?;
        let header = header(id, now, newest, expires.max(now.saturating_add(Duration::from_secs(1))), now);
        Ok((self.seal_parts(header, b"")?, header.expires.saturating_since(now)))
    }

    fn save(&self, base: Option<&Record>, changes: &Changes, now: Timestamp) -> Result<Saved, Error> {
        if let Some(saved) = self.save_foreign(base, changes, now) {
            return saved;
        }
        let payload = changes.apply(base.map(Record::payload))?;
        match base {
            Some(record) => self.seal(record.id(), record.created(), payload, base.map(Record::recency), now),
            None => self.seal(SessionId::generate(&*self.random)?, now, payload, changes.after(), now),
        }
    }

    fn adopt(&self, record: &Record, changes: &Changes, now: Timestamp) -> Result<Saved, Error> {
        let payload = changes.apply(Some(record.payload()))?;
        let created = changes.beginning(record, now);
        self.seal(SessionId::generate(&*self.random)?, created, payload, Some(record.recency()), now)
    }

    fn regenerate(&self, base: &Record, changes: &Changes, now: Timestamp) -> Result<Saved, Error> {
        if let Some(saved) = self.save_foreign(Some(base), changes, now) {
            return saved; // the id of a foreign token is that of its bytes, so it is new in any case
        }
        let created = changes.beginning(base, now);
        let mut payload = changes.apply(Some(base.payload()))?;
        if !changes.logs_in() && !changes.restarts() {
            payload = payload.keeping_root(base.id())?;
        }
        self.seal(SessionId::generate(&*self.random)?, created, payload, Some(base.recency()), now)
    }
}

/// Checks the signature, and splits the token into header, payload, and whether an old key had sealed it.
fn unseal(sealer: &Sealer, token: &[u8]) -> Result<(SealedHeader, Bytes, bool), Refusal> {
    let opened = sealer.open(token)?;
    let (old_key, hour) = (opened.with_old_key(), opened.hour());
    let mut plaintext = opened.into_plaintext();
    let header = SealedHeader::take(&mut plaintext, hour).ok_or(Refusal::Payload)?;
    Ok((header, plaintext, old_key))
}

/// Returns the header of a token that is written at `now`, and that is newer than a token that was written at `previous`.
fn header(
    id: SessionId,
    created: Timestamp,
    previous: Option<Recency>,
    expires: Timestamp,
    now: Timestamp,
) -> SealedHeader {
    // Where `previous` was written by a host whose clock is ahead, the deadline may be nearer than that, and this host may
    // refuse what is written then.
    let fits =
        |issued: &Recency| issued.written < expires && issued.written <= now.saturating_add(MAX_CLOCK_SKEW);
    let issued = Some(Recency::after(previous, now)).filter(fits);
    SealedHeader::new(id, created, issued.unwrap_or(Recency::at(now)), expires)
}

/// Returns the id that the session had at its login.
fn root(record: &Record) -> SessionId {
    record.payload().lineage().root.unwrap_or(record.id())
}

impl Store for CookieStore {
    fn end_sessions_of(&self, subject: &str, keep: Option<SessionId>) -> SubjectFuture<Option<usize>> {
        let (store, subject) = (self.clone(), subject.to_owned());
        Box::pin(async move {
            let revocations = store.revoking()?;
            if keep.is_some() {
                return Err(Error::config(
                    "a CookieStore cannot keep one session by its id: call Session::end_other_sessions() in a request of the session to keep",
                ));
            }
            revocations.end_sessions_of(&subject).await.map(|()| None)
        })
    }
}

impl Sealed for CookieStore {}

impl Verbs for CookieStore {
    fn config(&self) -> &Config {
        &self.inner.config
    }

    fn load(&self, token: &[u8], now: Timestamp) -> LoadFuture {
        match (&self.inner.revoking, self.inner.open(token, now)) {
            (Some(revoking), Ok(record)) => self.load_revocable(revoking, record, now),
            (_, opened) => StoreFuture::ready(Ok(opened)),
        }
    }

    fn key_of(&self, token: &[u8]) -> Option<KeyId> {
        key_of(token)
    }

    /// Checks the deadline and the revocations: the client has the only copy.
    fn reload(&self, base: Record, now: Timestamp) -> LoadFuture {
        match &self.inner.revoking {
            _ if now >= base.expires() => StoreFuture::ready(Ok(Err(Refusal::Expired))),
            Some(revoking) => self.load_revocable(revoking, base, now),
            None => StoreFuture::ready(Ok(Ok(base))),
        }
    }

    fn save(&self, base: Option<Record>, changes: Arc<Changes>, now: Timestamp) -> StoreFuture<Saved> {
        match &self.inner.revoking {
            Some(revoking) => self.save_revocable(revoking, base, &changes, now),
            None => StoreFuture::ready(self.inner.save(base.as_ref(), &changes, now)),
        }
    }

    fn adopt(&self, record: Record, changes: Arc<Changes>, now: Timestamp) -> StoreFuture<Saved> {
        match &self.inner.revoking {
            Some(revoking) => self.adopt_revocable(revoking, &record, &changes, now),
            None => StoreFuture::ready(self.inner.adopt(&record, &changes, now)),
        }
    }

    /// Revokes the session, if sessions can be revoked: the client has the only copy, and the response replaces it.
    fn supersede(&self, base: Record, now: Timestamp) -> StoreFuture<bool> {
        match &self.inner.revoking {
            Some(revoking) => self.supersede_revocable(revoking, &base, now),
            None => StoreFuture::ready(Ok(true)),
        }
    }

    fn destroy(&self, base: Record, now: Timestamp) -> StoreFuture<()> {
        match &self.inner.revoking {
            Some(revoking) => self.destroy_revocable(revoking, &base, now),
            None => StoreFuture::ready(Ok(())), // the response removes the only copy
        }
    }

    fn regenerate(&self, base: Record, changes: Arc<Changes>, now: Timestamp) -> StoreFuture<Saved> {
        match &self.inner.revoking {
            Some(revoking) => self.regenerate_revocable(revoking, &base, &changes, now),
            None => StoreFuture::ready(self.inner.regenerate(&base, &changes, now)),
        }
    }

    /// A session that no user was ever logged in to cannot be revoked.
    fn is_only_copy(&self, record: &Record) -> bool {
        self.inner.config.only_in_cookie || record.payload().lineage().owner.is_none()
    }

    fn ends_others_on_save(&self) -> bool {
        self.inner.revoking.is_some()
    }

    fn end_superseded(
        &self,
        token: &[u8],
        unless: Option<&Record>,
        _: EndedBy,
        now: Timestamp,
    ) -> StoreFuture<()> {
        self.revoke_unless(unless, now, || self.inner.open_under_any_name(token, now))
    }

    fn end_unusable(&self, token: &[u8], unless: Option<&Record>, now: Timestamp) -> StoreFuture<()> {
        self.revoke_unless(unless, now, || self.inner.open_when_written(token))
    }

    /// Of two logins, the token that was written last tells which came later. Tokens of one login are copies.
    fn is_outdated(&self, record: &Record, superseded: &[u8], now: Timestamp) -> bool {
        let superseded = self.inner.open_under_any_name(superseded, now);
        superseded.is_some_and(|other| root(&other) != root(record) && record.recency() < other.recency())
    }

    fn is_still_valid(&self, record: &Record, now: Timestamp) -> bool {
        self.inner.revoking.as_ref().is_none_or(|revoking| revoking.vouches_for(record, now))
    }

    fn load_retired(&self, name: usize, token: &[u8], now: Timestamp) -> LoadFuture {
        match (&self.inner.revoking, self.inner.open_retired(name, token, now)) {
            (Some(revoking), Ok(record)) => self.load_revocable(revoking, record, now),
            (_, opened) => StoreFuture::ready(Ok(opened)),
        }
    }

    fn tombstone(&self, ended: &[Record], now: Timestamp) -> Option<Result<(SecretText, Duration), Error>> {
        // A program that shares the cookies would not know it.
        let is_shared = self.inner.foreign.as_ref().is_some_and(|foreign| foreign.writes());
        if is_shared { None } else { Some(self.inner.tombstone(ended, now)) }
    }

    fn hidden_by(&self, token: &[u8], now: Timestamp) -> Option<Recency> {
        let (header, payload, _) = self.inner.sealers().find_map(|sealer| unseal(sealer, token).ok())?;
        let written = header.issued.written;
        let is_ahead =
            written > now.saturating_add(MAX_CLOCK_SKEW) && written <= now.saturating_add(FAULTY_CLOCK);
        let counts = (payload.is_empty() || is_ahead) && now < header.expires;
        counts.then_some(header.issued)
    }
}

impl fmt::Debug for CookieStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CookieStore")
            .field("config", &self.inner.config)
            .field("sealer", &self.inner.sealer)
            .finish()
    }
}

impl fmt::Debug for CookieKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CookieKeys").field("keys", &self.keys).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
