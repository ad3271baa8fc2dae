//! Astra's cookies beside native ones: which are read and written, and until when.

use std::sync::Arc;

use super::cookie_sealer::{AstraSealer, astra_id, format_of};
use super::go_json;
use crate::clock::Timestamp;
use crate::config::Config;
use crate::cookie::MAX_NAME_VALUE;
use crate::crypto::{AppKey, Random, Sealer, SecretText};
use crate::error::{Error, Kind};
use crate::event::{CookieFormat, Refusal};
use crate::session::{Changes, Origin, Payload, Recency, Record, Saved, SessionId};
use crate::store::{Builder, CookieKeys, ForeignFormat};

/// Both formats are read in each mode.
#[derive(Clone, Copy)]
enum Mode {
    /// Native cookies are written, and Astra's are refused from this moment on.
    MigrateUntil(Timestamp),
    /// Astra's cookies are written.
    Beside,
}

/// Reads Astra's cookies, and writes them in one of the modes.
struct AstraCookies {
    sealer: AstraSealer,
    mode: Mode,
}

impl Builder<CookieKeys> {
    /// Reads Astra's cookies and native ones, writes native ones, and refuses Astra's from `until` on: a migration.
    ///
    /// A session that came in Astra's cookie is written to a native one in the same response, so each browser changes
    /// over with its next request. `key` is the application key of Astra's `NewCookieStore`. The cookie's name must be
    /// Astra's, too: see [`CookieOptions::astra`](crate::cookie::CookieOptions::astra).
    ///
    /// Flash values are plain values, as in Astra: [`Session::flash`](crate::Session::flash) takes the value of that key.
    /// The guide [Moving from Astra](crate::guide::moving_from_astra) has the details.
    ///
    /// # Security
    ///
    /// Astra's cookies never expire automatically. A copy logs in until `until`, and may be turned into a native
    /// session, which then has the deadlines of this store. Set `until` no later than users need to return: a day with
    /// Astra's default Max-Age.
    ///
    /// # Examples
    ///
    /// ```
    /// use hyper_session::cookie::CookieOptions;
    /// use hyper_session::{AppKey, CookieStore, Timestamp};
    ///
    /// # let astra_app_key = b"whatever was given to NewCookieStore";
    /// let astra = AppKey::danger_from_any_bytes(astra_app_key)?;
    /// let store = CookieStore::builder(AppKey::generate()?)
    ///     .cookie(CookieOptions::astra())
    ///     .migrate_from_astra(astra, Timestamp::from_unix(1_798_761_600)) // 2027-01-01 00:00 UTC
    ///     .build()?;
    /// # Ok::<(), hyper_session::Error>(())
    /// ```
    pub fn migrate_from_astra(self, key: AppKey, until: Timestamp) -> Self {
        self.with_astra_cookies(key, Mode::MigrateUntil(until))
    }

    /// Reads Astra's cookies and native ones, and writes Astra's, so that Go and Rust serve the same users side by
    /// side.
    ///
    /// A session that came in a native cookie is written to Astra's in the same response, unless Astra's format cannot
    /// hold it. Astra's cookie is a single one, so a session must fit in it, and hold only what JSON can hold. Saving
    /// anything else is an error that names key and kind; the browser keeps its cookie. The builder's payload format
    /// and number of chunks have no effect.
    ///
    /// As in Astra, reading does not renew the cookie, and flash values are plain values:
    /// [`Session::flash`](crate::Session::flash) takes the value of that key.
    ///
    /// # Security
    ///
    /// Neither deadline is enforced: Astra's cookie contains no time, so only the browser ends it, by `Max-Age`. A
    /// copied cookie works for as long as Astra's application key is in use. All cookies of both fleets are encrypted
    /// under one key with random nonces, which is safe for 2^32 cookies. If that is too few, change over with
    /// [`migrate_from_astra`](Self::migrate_from_astra).
    ///
    /// # Examples
    ///
    /// ```
    /// use hyper_session::cookie::CookieOptions;
    /// use hyper_session::{AppKey, CookieStore};
    ///
    /// # let astra_app_key = b"whatever was given to NewCookieStore";
    /// let astra = AppKey::danger_from_any_bytes(astra_app_key)?;
    /// let store = CookieStore::builder(AppKey::generate()?) // for what a migration wrote, should it be called off
    ///     .cookie(CookieOptions::astra())
    ///     .beside_astra(astra)
    ///     .build()?;
    /// # Ok::<(), hyper_session::Error>(())
    /// ```
    pub fn beside_astra(mut self, key: AppKey) -> Self {
        self.options.renew_on_read = false;
        self.with_astra_cookies(key, Mode::Beside)
    }

    fn with_astra_cookies(mut self, key: AppKey, mode: Mode) -> Self {
        self.kind.foreign = Some(Box::new(move |random: Arc<dyn Random>| {
            Ok(Box::new(AstraCookies { sealer: AstraSealer::new(&key, random)?, mode }) as _)
        }));
        self.options.settings.shared_flash = true;
        self
    }
}

impl ForeignFormat for AstraCookies {
    fn format_of(&self, token: &[u8], native: &Sealer) -> CookieFormat {
        format_of(token, native)
    }

    fn open(&self, config: &Config, token: &[u8], now: Timestamp) -> Result<Record, Refusal> {
        let mut expires = config.timeouts().deadline(now, now);
        if let Mode::MigrateUntil(until) = self.mode {
            if now >= until {
                return Err(Refusal::RetiredFormat);
            }
            expires = expires.min(until);
        }
        let json = self.sealer.open(token)?;
        let payload = go_json::read(&json).ok_or(Refusal::Payload)?;
        Ok(record(config, token, now, expires, payload, !self.writes()))
    }

    /// Marks a native session to be written in Astra's format, if it fits. Reading must not fail because of it.
    fn opened_native(&self, config: &Config, record: Record) -> Record {
        match *record.origin() {
            Origin::Sealed { old_key, .. } if self.writes() => {
                let rewrite = json(config, record.payload(), None).is_ok();
                record.with_origin(Origin::Sealed { old_key, rewrite })
            }
            _ => record,
        }
    }

    fn writes(&self) -> bool {
        matches!(self.mode, Mode::Beside)
    }

    fn save(
        &self,
        config: &Config,
        base: Option<&Record>,
        changes: &Changes,
        now: Timestamp,
    ) -> Option<Result<Saved, Error>> {
        // A native session that Astra's cookie cannot hold stays native for as long as it is only renewed.
        let stays = |base: &Record| matches!(base.origin(), Origin::Sealed { rewrite: false, .. });
        if !self.writes() || changes.is_empty() && base.is_some_and(stays) {
            return None;
        }
        Some(self.seal(config, base, changes, now))
    }
}

impl AstraCookies {
    fn seal(
        &self,
        config: &Config,
        base: Option<&Record>,
        changes: &Changes,
        now: Timestamp,
    ) -> Result<Saved, Error> {
        let payload = changes.apply(base.map(Record::payload))?;
        if payload.is_empty() {
            return Ok(Saved::Removed);
        }
        let from_astra = |base: &&Record| matches!(base.origin(), Origin::Foreign { .. });
        let shared = base.filter(from_astra).map(Record::payload);
        let token = self.sealer.seal(&json(config, &payload, shared)?)?;
        let expires = config.timeouts().deadline(now, now);
        let record = record(config, token.as_bytes(), now, expires, payload, false);
        Ok(Saved::Stored { record, token: SecretText::new(token), conflicts: 0 })
    }
}

/// Returns the session in Astra's cookie. Its beginning is unknown, so it begins at each request.
fn record(
    config: &Config,
    token: &[u8],
    created: Timestamp,
    expires: Timestamp,
    payload: Payload,
    rewrite: bool,
) -> Record {
    let id = SessionId::from_bytes(astra_id(config.cookie_name(), token));
    // Older than any native cookie: a browser with both was given the native one later.
    let recency = Recency::at(Timestamp::from_unix(0));
    Record::written(id, created, expires, payload, Origin::Foreign { rewrite }, recency)
}

/// Returns the JSON for Astra's cookie. `shared` are the values that were read from one.
fn json(config: &Config, payload: &Payload, shared: Option<&Payload>) -> Result<Vec<u8>, Error> {
    let json = go_json::write(payload, shared)?;
    let size = config.cookie_name().len() + AstraSealer::token_len(json.len());
    if size > MAX_NAME_VALUE {
        return Err(Error::new(Kind::TooLarge { size, limit: MAX_NAME_VALUE }));
    }
    Ok(json)
}
