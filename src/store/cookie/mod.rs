//! Sessions that live in the cookie: encrypted, signed, with their deadlines inside.

pub(crate) mod format;
mod header;

use std::fmt;
use std::sync::Arc;

use self::format::{CreateForeign, ForeignFormat};
use self::header::SealedHeader;
use super::{Builder, Saved, Store, StoreFuture};
use crate::clock::Timestamp;
use crate::config::{Config, MAX_CLOCK_SKEW};
use crate::crypto::{Keyring, Purpose, Random, Sealer, SecretText, SystemRandom};
use crate::error::Error;
use crate::event::{CookieFormat, Event, Refusal};
use crate::session::{Changes, Origin, Payload, Record, SessionId};

/// Keeps each session in its own cookie, so that no server is needed: AES-256-GCM encrypted, HMAC-SHA256 signed, with idle
/// and absolute deadline sealed inside and enforced here.
///
/// A clone is the same store.
///
/// # What it cannot do
///
/// The client holds the only copy. It can present an older one again (undo a purchase, bring back a flash message), and a
/// copy taken before a logout works until its deadline. Of two requests at once, the browser keeps the answer that arrives
/// last, also if it only renews what the other one ended. Where any of that matters, use a server-side store; keep deadlines short in any case.
///
/// # Examples
///
/// ```
/// use hyper_session::{AppKey, CookieStore};
///
/// let store = CookieStore::builder(AppKey::generate()?).build()?;
/// // Over plain http, while developing:
/// let store = CookieStore::builder(AppKey::generate()?).development().build()?;
/// # Ok::<(), hyper_session::Error>(())
/// ```
#[derive(Clone)]
pub struct CookieStore {
    inner: Arc<Inner>,
}

struct Inner {
    config: Config,
    sealer: Sealer,
    random: Arc<dyn Random>,
    foreign: Option<Box<dyn ForeignFormat>>,
}

/// Makes [`Builder`] the builder of a [`CookieStore`].
pub struct CookieKeys {
    keys: Keyring,
    random: Arc<dyn Random>,
    /// Another program's cookies are read, too.
    pub(crate) foreign: Option<CreateForeign>,
}

impl CookieStore {
    /// A builder for a store with these keys: an [`AppKey`](crate::AppKey), or a [`Keyring`] with older ones.
    pub fn builder(keys: impl Into<Keyring>) -> Builder<CookieKeys> {
        let kind = CookieKeys { keys: keys.into(), random: Arc::new(SystemRandom), foreign: None };
        Builder::new(kind).connection_memo(true)
    }
}

impl Builder<CookieKeys> {
    /// Whether each connection keeps its last cookie, so that a request that brings the same one again has it compared
    /// instead of decrypted: several times as fast. Default is true.
    ///
    /// # Security
    ///
    /// The comparison takes constant time; deadlines are looked at each time; nothing that one connection learned is used
    /// for another one. What it costs is that the values of the last session of each connection, and its token, stay in
    /// the server's memory until the connection ends or brings another cookie, instead of until the request ends.
    ///
    /// # Limits
    ///
    /// One token of at most 4096 bytes, and its values, for each connection. A connection that carries many users' requests,
    /// as a proxy's does, gives up after 16 cookies in a row that were not the last one. A store that reads Astra's cookies,
    /// too, keeps none; neither do the services of a
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
        self.options.connection_memo = yes;
        self
    }

    /// Checks the options and builds the store.
    ///
    /// # Errors
    ///
    /// [`is_config`](Error::is_config) if options do not fit together, or the keyring seals with a revoked key or holds one
    /// twice. The message says what to change.
    pub fn build(self) -> Result<CookieStore, Error> {
        let (kind, mut config, _) = self.validate()?;
        if kind.foreign.is_some() {
            config.connection_memo = false; // each opening tells which format came
        }
        let random = kind.random;
        let sealer = Sealer::new(&kind.keys, Purpose::Session, config.cookie_name(), Arc::clone(&random))?;
        let foreign = kind.foreign.map(|create| create(Arc::clone(&random))).transpose()?;
        Ok(CookieStore { inner: Arc::new(Inner { config, sealer, random, foreign }) })
    }

    #[cfg(test)]
    fn random(mut self, random: Arc<dyn Random>) -> Self {
        self.kind.random = random;
        self
    }
}

impl Inner {
    fn open(&self, token: &[u8], now: Timestamp) -> Result<Record, Refusal> {
        // Before a byte of it is decoded: an attacker's megabyte is not worth an allocation.
        if token.len() > self.config.cookie.longest_token() {
            return Err(Refusal::Length);
        }
        match &self.foreign {
            None => self.open_native(token, now),
            Some(foreign) => self.open_either(&**foreign, token, now),
        }
    }

    /// Opens a token by the format that its form says, and by no other.
    fn open_either(
        &self,
        foreign: &dyn ForeignFormat,
        token: &[u8],
        now: Timestamp,
    ) -> Result<Record, Refusal> {
        let format = foreign.format_of(token, &self.sealer);
        let opened = match format {
            CookieFormat::Native => {
                self.open_native(token, now).map(|record| foreign.opened_native(&self.config, record))
            }
            _ => foreign.open(&self.config, token, now),
        };
        let refusal = opened.as_ref().err().copied();
        self.config.emit(&Event::CookieFormat { cookie: self.config.cookie_name(), format, refusal });
        opened
    }

    /// Saves in the foreign format, if that is the one to write.
    fn save_foreign(
        &self,
        base: Option<&Record>,
        changes: &Changes,
        now: Timestamp,
    ) -> Option<Result<Saved, Error>> {
        self.foreign.as_ref()?.save(&self.config, base, changes, now)
    }

    fn open_native(&self, token: &[u8], now: Timestamp) -> Result<Record, Refusal> {
        let opened = self.sealer.open(token)?;
        let old_key = opened.with_old_key();
        let mut plaintext = opened.into_plaintext();
        let header = SealedHeader::take(&mut plaintext).ok_or(Refusal::Payload)?;
        if header.issued > now.saturating_add(MAX_CLOCK_SKEW) {
            return Err(Refusal::IssuedInFuture);
        }
        // The deadline that was sealed, or what the present options allow, whichever comes first: a shorter timeout holds
        // for tokens that are out already.
        if now >= header.expires {
            return Err(Refusal::Expired);
        }
        let payload = Payload::parse(plaintext).ok_or(Refusal::Payload)?;
        let allowed = self.config.deadline(header.created, &payload, header.issued);
        let expires = header.expires.min(allowed);
        #[cfg(hyper_session_planted)] // a second too long
        let now = if planted!("unseal_past_crypto") {
            Timestamp::from_unix(now.as_unix().saturating_sub(1))
        } else {
            now
        };
        if now >= expires {
            return Err(Refusal::Expired);
        }
        Ok(Record::new(header.id, header.created, expires, payload, Origin::native(old_key)))
    }

    fn seal(
        &self,
        id: SessionId,
        created: Timestamp,
        payload: Payload,
        now: Timestamp,
    ) -> Result<Saved, Error> {
        if payload.is_empty() {
            return Ok(Saved::Removed);
        }
        let expires = self.config.deadline(created, &payload, now);
        let header = SealedHeader { id, created, issued: now, expires };
        let body = payload.to_format(self.config.format)?;
        self.config.cookie.check_size(Sealer::token_len(SealedHeader::LEN + body.len()))?;
        let token = self.sealer.seal(now, &[&header.to_bytes(), &body])?;
        let record = Record::new(id, created, expires, payload, Origin::native(false));
        Ok(Saved::Stored { record, token: SecretText::new(token), conflicts: 0 })
    }

    fn save(&self, base: Option<&Record>, changes: &Changes, now: Timestamp) -> Result<Saved, Error> {
        if let Some(saved) = self.save_foreign(base, changes, now) {
            return saved;
        }
        let payload = changes.apply(base.map(Record::payload))?;
        match base {
            Some(base) => self.seal(base.id(), base.created(), payload, now),
            None => self.seal(SessionId::generate(&*self.random)?, now, payload, now),
        }
    }

    fn adopt(&self, record: &Record, changes: &Changes, now: Timestamp) -> Result<Saved, Error> {
        let payload = changes.apply(Some(record.payload()))?;
        self.seal(SessionId::generate(&*self.random)?, record.created(), payload, now)
    }

    fn regenerate(&self, base: &Record, changes: &Changes, now: Timestamp) -> Result<Saved, Error> {
        if let Some(saved) = self.save_foreign(Some(base), changes, now) {
            return saved; // it has a new id in any case: that of its bytes
        }
        let created = if changes.restarts() { now } else { base.created() };
        self.seal(SessionId::generate(&*self.random)?, created, changes.apply(Some(base.payload()))?, now)
    }
}

impl Store for CookieStore {
    fn config(&self) -> &Config {
        &self.inner.config
    }

    fn load(&self, token: &[u8], now: Timestamp) -> StoreFuture<Result<Record, Refusal>> {
        StoreFuture::ready(Ok(self.inner.open(token, now)))
    }

    /// The client has the only copy: what is known of it is its deadline.
    fn reload(&self, base: Record, now: Timestamp) -> StoreFuture<Result<Record, Refusal>> {
        StoreFuture::ready(Ok(if now < base.expires() { Ok(base) } else { Err(Refusal::Expired) }))
    }

    fn save(&self, base: Option<Record>, changes: Arc<Changes>, now: Timestamp) -> StoreFuture<Saved> {
        StoreFuture::ready(self.inner.save(base.as_ref(), &changes, now))
    }

    fn adopt(&self, record: Record, changes: Arc<Changes>, now: Timestamp) -> StoreFuture<Saved> {
        StoreFuture::ready(self.inner.adopt(&record, &changes, now))
    }

    fn supersede(&self, _: Record, _: Timestamp) -> StoreFuture<bool> {
        StoreFuture::ready(Ok(true)) // the only copy is the client's: the response replaces it
    }

    fn destroy(&self, _: Record, _: Timestamp) -> StoreFuture<()> {
        StoreFuture::ready(Ok(())) // the only copy is the client's: the response removes it
    }

    fn regenerate(&self, base: Record, changes: Arc<Changes>, now: Timestamp) -> StoreFuture<Saved> {
        StoreFuture::ready(self.inner.regenerate(&base, &changes, now))
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
