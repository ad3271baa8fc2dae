//! OpenID Connect back-channel logout and CAEP `session-revoked`, for sessions in cookies.
//!
//! When a user logs out at the identity provider, or is locked there, the provider posts a signed token to the application.
//! The application verifies it, and ends the sessions that it names by their labels. Here, a small provider runs beside the
//! application, and the program shows what happens:
//!
//! ```text
//! cargo run --example oidc_logout
//! ```
//!
//! The specifications: OpenID Connect Back-Channel Logout 1.0; OpenID Shared Signals Framework 1.0 with CAEP 1.0; RFC 8417
//! (security event tokens) and RFC 8935 (their delivery by POST).
#![allow(clippy::print_stdout)] // it is a program

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard};
use std::time::Duration;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair};
use base64::prelude::{BASE64_URL_SAFE_NO_PAD, Engine};
use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, COOKIE, SET_COOKIE};
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper_session::{AppKey, Clock, CookieStore, Error, Revocations, SessionHandle, SystemClock, session_fn};
use hyper_util::client::legacy::Client;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use jsonwebtoken::jwk::{Jwk, JwkSet};
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::net::TcpListener;

type BoxError = Box<dyn std::error::Error + Send + Sync>;
type Page = Response<Full<Bytes>>;

const BACK_CHANNEL_LOGOUT: &str = "http://schemas.openid.net/event/backchannel-logout";
const SESSION_REVOKED: &str = "https://schemas.openid.net/secevent/caep/event-type/session-revoked";

/// How long after it was signed a token is accepted, in seconds.
const FRESH: u64 = 120;
/// The keys of the provider are fetched again at most once in so many seconds, because anyone can send a token under a new key.
const FETCH_AGAIN_AFTER: u64 = 60;
/// How long that may take.
const FETCH_TIME: Duration = Duration::from_secs(5);

// --- The application ---

/// An application whose users log in at a provider.
pub(crate) struct Application {
    pub(crate) store: CookieStore,
    issuer: String,
    client_id: String,
    keys: ProviderKeys,
    clock: Arc<dyn Clock>,
    accepted: Mutex<HashMap<TokenName, Accepted>>,
}

/// The name of a token: its type and its `jti`.
type TokenName = (&'static str, String);

/// A token that was accepted.
struct Accepted {
    at: u64,
    is_done: bool,
}

/// Whether a token is carried out.
enum Acceptance<'a> {
    New(UnderWay<'a>),
    /// Another request carries it out at this moment.
    UnderWay,
    /// An earlier request has carried it out.
    Done,
}

/// A token that is being carried out. If that fails, or the connection is lost before it is known, the provider may send it again.
struct UnderWay<'a> {
    application: &'a Application,
    name: TokenName,
}

impl UnderWay<'_> {
    fn done(self) {
        if let Some(accepted) = self.application.accepted().get_mut(&self.name) {
            accepted.is_done = true;
        }
    }
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        let mut accepted = self.application.accepted();
        if accepted.get(&self.name).is_some_and(|accepted| !accepted.is_done) {
            accepted.remove(&self.name);
        }
    }
}

/// The keys of the provider. It can change them at any time.
struct ProviderKeys {
    url: String,
    known: RwLock<JwkSet>,
    /// When they were last fetched because a token named an unknown key.
    fetched_again: tokio::sync::Mutex<Option<u64>>,
}

impl ProviderKeys {
    async fn fetch(url: String) -> Result<Self, BoxError> {
        let known = serde_json::from_slice(&fetch(&url).await?)?;
        Ok(Self { url, known: RwLock::new(known), fetched_again: tokio::sync::Mutex::default() })
    }

    /// Returns the key with this id. If it is unknown, fetches the keys again.
    async fn find(&self, kid: &str, now: u64) -> Option<Jwk> {
        if let Some(key) = self.known(kid) {
            return Some(key);
        }
        // Other requests with unknown keys wait, and may find theirs afterwards.
        let mut fetched_again = self.fetched_again.lock().await;
        let known = self.known(kid);
        if known.is_some() || fetched_again.is_some_and(|at| now < at + FETCH_AGAIN_AFTER) {
            return known;
        }
        *fetched_again = Some(now);
        let keys = tokio::time::timeout(FETCH_TIME, fetch(&self.url)).await.ok()?.ok()?;
        *self.known.write().unwrap_or_else(PoisonError::into_inner) = serde_json::from_slice(&keys).ok()?;
        self.known(kid)
    }

    fn known(&self, kid: &str) -> Option<Jwk> {
        self.known.read().unwrap_or_else(PoisonError::into_inner).find(kid).cloned()
    }
}

#[derive(Deserialize)]
struct IdToken {
    sub: String,
    sid: String,
}

#[derive(Deserialize)]
struct LogoutToken {
    jti: String,
    iat: u64,
    sub: Option<String>,
    sid: Option<String>,
    events: HashMap<String, Value>,
    nonce: Option<Value>,
}

#[derive(Deserialize)]
struct SecurityEvent {
    jti: String,
    iat: u64,
    sub_id: SubjectId,
    events: HashMap<String, Value>,
}

/// The subject of a security event (RFC 9493).
#[derive(Deserialize)]
#[serde(tag = "format", rename_all = "snake_case")]
enum SubjectId {
    IssSub {
        iss: String,
        sub: String,
    },
    /// A session of the provider.
    Opaque {
        id: String,
    },
}

/// The reason why a token is refused.
type Refused = &'static str;

impl Application {
    /// Reads the provider's keys.
    pub(crate) async fn new(
        store: CookieStore,
        issuer: String,
        client_id: &str,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, BoxError> {
        let keys = ProviderKeys::fetch(format!("{issuer}/jwks")).await?;
        Ok(Self { store, issuer, client_id: client_id.to_owned(), keys, clock, accepted: Mutex::default() })
    }

    pub(crate) async fn route(
        &self,
        request: Request<Incoming>,
        session: SessionHandle,
    ) -> Result<Page, Error> {
        match (request.method(), request.uri().path()) {
            (&Method::GET, "/callback") => self.callback(&request, session).await,
            (&Method::POST, "/back-channel-logout") => self.back_channel_logout(request).await,
            (&Method::POST, "/events") => self.security_event(request).await,
            (&Method::GET, "/") => {
                let session = session.load().await?;
                let user = session.subject().map_or("nobody".to_owned(), |user| user.to_string());
                Ok(answer(StatusCode::OK, user))
            }
            _ => Ok(answer(StatusCode::NOT_FOUND, "not found")),
        }
    }

    /// The browser returns from the provider with a code.
    async fn callback(&self, request: &Request<Incoming>, session: SessionHandle) -> Result<Page, Error> {
        // Before the provider is asked: a logout that comes in between ends this session, too.
        let position = self.store.revocation_position().await?;
        // An application also checks `state`, and sends a PKCE verifier.
        let code = request.uri().query().unwrap_or_default();
        let token = fetch(&format!("{}/token?{code}", self.issuer)).await.map_err(Error::unavailable)?;
        let token = String::from_utf8_lossy(&token);
        let Ok(token) = self.verify::<IdToken>(&token, None, true).await else {
            return Ok(answer(StatusCode::UNAUTHORIZED, "the provider did not log you in"));
        };
        let session = session.load().await?;
        session.login_at(&format!("{}#{}", self.issuer, token.sub), position)?;
        session.label("oidc-sub", &self.name(&token.sub))?;
        session.label("oidc-sid", &self.name(&token.sid))?;
        Ok(answer(StatusCode::OK, "logged in"))
    }

    /// The provider posts a logout token.
    async fn back_channel_logout(&self, request: Request<Incoming>) -> Result<Page, Error> {
        let body = body(request).await;
        let mut fields = form_urlencoded::parse(&body);
        let token = fields.find(|(name, _)| name == "logout_token").map(|(_, value)| value.into_owned());
        let accepted = match token {
            Some(token) => self.accept_logout(&token).await,
            None => Err("there is no logout_token"),
        };
        let (token, under_way) = match accepted {
            Ok(accepted) => accepted,
            Err(refused) => return Ok(bad_request(refused)),
        };
        let ended = match (token.sid, token.sub) {
            (Some(sid), _) => self.end_session_of_provider(&sid).await,
            (None, Some(sub)) => self.end_sessions_of(&sub).await,
            (None, None) => return Ok(bad_request("it names neither a session nor a subject")),
        };
        Ok(match ended {
            Ok(()) => {
                under_way.done();
                answer(StatusCode::OK, "")
            }
            // "501 or 400 ... the logout was not successful": the provider may try again.
            Err(_) => bad_request("the logout could not be recorded"),
        })
    }

    async fn accept_logout(&self, token: &str) -> Result<(LogoutToken, UnderWay<'_>), Refused> {
        let token: LogoutToken = self.verify(token, Some("logout+jwt"), true).await?;
        if !token.events.contains_key(BACK_CHANNEL_LOGOUT) {
            return Err("it is not a logout token");
        }
        if token.nonce.is_some() {
            return Err("an ID token must not be taken for a logout token");
        }
        // "another Logout Token with the same jti value has not been recently received"
        match self.accept("logout+jwt", &token.jti, token.iat)? {
            Acceptance::New(under_way) => Ok((token, under_way)),
            Acceptance::UnderWay | Acceptance::Done => Err("it was accepted before"),
        }
    }

    /// The provider posts a security event.
    async fn security_event(&self, request: Request<Incoming>) -> Result<Page, Error> {
        let body = body(request).await;
        let token = String::from_utf8_lossy(&body);
        // A security event has no `exp` (RFC 8417, section 2.2).
        let event = match self.verify::<SecurityEvent>(&token, Some("secevent+jwt"), false).await {
            Ok(event) => event,
            Err(refused) => return Ok(not_delivered(refused)),
        };
        let under_way = match self.accept("secevent+jwt", &event.jti, event.iat) {
            Ok(Acceptance::New(under_way)) => under_way,
            // The response to the first delivery was lost, so it is given again.
            Ok(Acceptance::Done) => return Ok(answer(StatusCode::ACCEPTED, "")),
            Ok(Acceptance::UnderWay) => return Ok(answer(StatusCode::SERVICE_UNAVAILABLE, "")),
            Err(refused) => return Ok(not_delivered(refused)),
        };
        if event.events.contains_key(SESSION_REVOKED) {
            match event.sub_id {
                SubjectId::Opaque { id } => self.end_session_of_provider(&id).await?,
                SubjectId::IssSub { iss, sub } if iss == self.issuer => self.end_sessions_of(&sub).await?,
                SubjectId::IssSub { .. } => return Ok(not_delivered("the subject is of another issuer")),
            }
        }
        under_way.done();
        Ok(answer(StatusCode::ACCEPTED, ""))
    }

    /// Ends the session that began by this session of the provider. The logout may overtake the callback, and a `sid` is
    /// never used again: so a later login with it ends, too.
    async fn end_session_of_provider(&self, sid: &str) -> Result<(), Error> {
        self.store.end_labelled_for_good("oidc-sid", &self.name(sid)).await
    }

    /// Ends all sessions of a subject. The user may log in again.
    async fn end_sessions_of(&self, sub: &str) -> Result<(), Error> {
        self.store.end_labelled("oidc-sub", &self.name(sub)).await
    }

    /// A `sub` or `sid` is only unique within its issuer.
    fn name(&self, value: &str) -> String {
        format!("{}#{value}", self.issuer)
    }

    /// Verifies signature, issuer, audience, type and, if it must have one, expiry.
    async fn verify<T: DeserializeOwned>(
        &self,
        token: &str,
        typ: Option<&str>,
        expires: bool,
    ) -> Result<T, Refused> {
        let header = jsonwebtoken::decode_header(token).map_err(|_| "it is not a token")?;
        if typ.is_some_and(|typ| header.typ.as_deref() != Some(typ)) {
            return Err("it is a token of another type");
        }
        let kid = header.kid.ok_or("it names no key")?;
        let key = self.keys.find(&kid, self.clock.now().as_unix()).await.ok_or("its key is unknown")?;
        let key = DecodingKey::from_jwk(&key).map_err(|_| "its key cannot be used")?;
        let mut validation = Validation::new(Algorithm::ES256);
        validation.set_issuer(&[&self.issuer]);
        validation.set_audience(&[&self.client_id]);
        validation.set_required_spec_claims(if expires {
            &["iss", "aud", "exp"][..]
        } else {
            &["iss", "aud"]
        });
        validation.validate_exp = expires;
        validation.leeway = 5;
        let verified = jsonwebtoken::decode(token, &key, &validation);
        verified.map(|token| token.claims).map_err(|_| "it is not valid here")
    }

    /// Accepts each token once, while it is fresh. A token that names a subject would otherwise end later sessions when it
    /// is sent again.
    fn accept(&self, typ: &'static str, jti: &str, iat: u64) -> Result<Acceptance<'_>, Refused> {
        let now = self.clock.now().as_unix();
        if iat > now.saturating_add(FRESH) || iat.saturating_add(FRESH) < now {
            return Err("it was not signed just now");
        }
        let mut accepted = self.accepted();
        accepted.retain(|_, accepted| accepted.at + 2 * FRESH >= now);
        let name = (typ, jti.to_owned());
        Ok(match accepted.get(&name) {
            Some(Accepted { is_done: true, .. }) => Acceptance::Done,
            Some(_) => Acceptance::UnderWay,
            None => {
                accepted.insert(name.clone(), Accepted { at: now, is_done: false });
                Acceptance::New(UnderWay { application: self, name })
            }
        })
    }

    fn accepted(&self) -> MutexGuard<'_, HashMap<TokenName, Accepted>> {
        self.accepted.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn body(request: Request<Incoming>) -> Bytes {
    let limited = Limited::new(request.into_body(), 64 * 1024).collect().await;
    limited.map(http_body_util::Collected::to_bytes).unwrap_or_default()
}

fn answer(status: StatusCode, text: impl Into<Bytes>) -> Page {
    let response = Response::builder().status(status).header(CACHE_CONTROL, "no-store");
    response.body(Full::new(text.into())).unwrap_or_default()
}

fn bad_request(why: Refused) -> Page {
    answer(
        StatusCode::BAD_REQUEST,
        json!({ "error": "invalid_request", "error_description": why }).to_string(),
    )
}

fn not_delivered(why: Refused) -> Page {
    answer(StatusCode::BAD_REQUEST, json!({ "err": "invalid_request", "description": why }).to_string())
}

/// Serves `application` on `listener`.
pub(crate) async fn serve(application: Arc<Application>, listener: TcpListener) {
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(Duration::from_millis(50)).await; // too many open files, for example
            continue;
        };
        let application = Arc::clone(&application);
        let service = session_fn(application.store.clone(), move |request, session| {
            let application = Arc::clone(&application);
            async move { application.route(request, session).await }
        });
        tokio::spawn(async move {
            auto::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(stream), service).await
        });
    }
}

// --- The provider ---

/// A provider that logs in every browser as the user that its code names.
pub(crate) struct Provider {
    pub(crate) issuer: String,
    pub(crate) client_id: String,
    key: RwLock<ProviderKey>,
    /// How often its keys were asked for.
    pub(crate) keys_served: AtomicUsize,
}

struct ProviderKey {
    id: String,
    key: EncodingKey,
    jwks: Value,
}

impl ProviderKey {
    fn generate(id: String) -> Result<Self, BoxError> {
        let pkcs8 = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &SystemRandom::new())?;
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, pkcs8.as_ref())?;
        let (x, y) = pair.public_key().as_ref().split_at(1).1.split_at(32); // behind a 4
        let [x, y] = [x, y].map(|number| BASE64_URL_SAFE_NO_PAD.encode(number));
        let key =
            json!({ "kty": "EC", "crv": "P-256", "use": "sig", "alg": "ES256", "kid": id, "x": x, "y": y });
        let jwks = json!({ "keys": [key] });
        Ok(Self { id, key: EncodingKey::from_ec_der(pkcs8.as_ref()), jwks })
    }
}

impl Provider {
    pub(crate) fn new(issuer: String, client_id: &str) -> Result<Self, BoxError> {
        let key = RwLock::new(ProviderKey::generate("1".to_owned())?);
        Ok(Self { issuer, client_id: client_id.to_owned(), key, keys_served: AtomicUsize::new(0) })
    }

    /// Signs with another key from now on.
    #[allow(dead_code)] // for the tests
    pub(crate) fn rotate(&self, id: &str) -> Result<(), BoxError> {
        *self.key.write().unwrap_or_else(PoisonError::into_inner) = ProviderKey::generate(id.to_owned())?;
        Ok(())
    }

    fn key(&self) -> RwLockReadGuard<'_, ProviderKey> {
        self.key.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Signs `claims`, with issuer, audience, time and a fresh `jti`, which the claims may replace.
    pub(crate) fn sign(&self, typ: &str, claims: &Value) -> Result<String, BoxError> {
        let key = self.key();
        let mut header = Header::new(Algorithm::ES256);
        (header.typ, header.kid) = (Some(typ.to_owned()), Some(key.id.clone()));
        let now = SystemClock.now().as_unix();
        let mut jti = [0; 16];
        aws_lc_rs::rand::fill(&mut jti)?;
        let mut all = json!({
            "iss": self.issuer, "aud": self.client_id, "iat": now, "exp": now + 120,
            "jti": BASE64_URL_SAFE_NO_PAD.encode(jti),
        });
        if let (Some(all), Some(claims)) = (all.as_object_mut(), claims.as_object()) {
            all.extend(claims.clone());
            all.retain(|_, value| !value.is_null());
        }
        Ok(jsonwebtoken::encode(&header, &all, &key.key)?)
    }

    pub(crate) fn logout_token(&self, claims: &Value) -> Result<String, BoxError> {
        let mut all = json!({ "events": { BACK_CHANNEL_LOGOUT: {} } });
        if let (Some(all), Some(claims)) = (all.as_object_mut(), claims.as_object()) {
            all.extend(claims.clone());
        }
        self.sign("logout+jwt", &all)
    }

    pub(crate) fn session_revoked(&self, subject: &Value) -> Result<String, BoxError> {
        let event = json!({ "event_timestamp": SystemClock.now().as_unix(), "initiating_entity": "admin" });
        self.sign(
            "secevent+jwt",
            &json!({ "exp": null, "sub_id": subject, "events": { SESSION_REVOKED: event } }),
        )
    }

    /// Serves the keys, and the token of the code `USER.SID`.
    pub(crate) async fn serve(self: Arc<Self>, listener: TcpListener) {
        loop {
            let Ok((stream, _)) = listener.accept().await else {
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            };
            let provider = Arc::clone(&self);
            let service = hyper::service::service_fn(move |request: Request<Incoming>| {
                let query = request.uri().query().unwrap_or_default();
                let page = match (
                    request.uri().path(),
                    query.strip_prefix("code=").and_then(|code| code.split_once('.')),
                ) {
                    ("/jwks", _) => {
                        provider.keys_served.fetch_add(1, Ordering::Relaxed);
                        answer(StatusCode::OK, provider.key().jwks.to_string())
                    }
                    ("/token", Some((user, sid))) => {
                        let token = provider.sign("JWT", &json!({ "sub": user, "sid": sid }));
                        token.map_or_else(|_| Response::default(), |token| answer(StatusCode::OK, token))
                    }
                    _ => answer(StatusCode::NOT_FOUND, ""),
                };
                async { Ok::<_, Infallible>(page) }
            });
            tokio::spawn(async move {
                auto::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(stream), service).await
            });
        }
    }
}

// --- Both on loopback ---

async fn fetch(url: &str) -> Result<Bytes, BoxError> {
    let client = Client::builder(TokioExecutor::new()).build_http::<Full<Bytes>>();
    let response = client.get(url.parse()?).await?;
    if !response.status().is_success() {
        return Err(format!("{url}: {}", response.status()).into());
    }
    Ok(response.into_body().collect().await?.to_bytes())
}

/// Posts a token to the application. Returns the status and the body of its answer.
pub(crate) async fn post(url: String, kind: &str, body: String) -> Result<(StatusCode, String), BoxError> {
    let client = Client::builder(TokioExecutor::new()).build_http();
    let request = Request::post(url).header(CONTENT_TYPE, kind).body(Full::<Bytes>::from(body))?;
    let response = client.request(request).await?;
    let status = response.status();
    let body = response.into_body().collect().await?.to_bytes();
    Ok((status, String::from_utf8_lossy(&body).into_owned()))
}

/// Requests a page as a browser with this cookie. Returns its text and the cookie that it set.
pub(crate) async fn visit(url: String, cookie: &str) -> Result<(String, Option<String>), BoxError> {
    let client = Client::builder(TokioExecutor::new()).build_http();
    let request = Request::get(url).header(COOKIE, cookie).body(Full::<Bytes>::default())?;
    let response = client.request(request).await?;
    let set = response.headers().get(SET_COOKIE).and_then(|line| line.to_str().ok());
    let set = set.and_then(|line| line.split(';').next()).map(str::to_owned);
    let text = response.into_body().collect().await?.to_bytes();
    Ok((String::from_utf8_lossy(&text).into_owned(), set))
}

/// Starts a provider and an application. Returns the provider, and the address of the application.
pub(crate) async fn start(
    store: CookieStore,
    clock: Arc<dyn Clock>,
) -> Result<(Arc<Provider>, String), BoxError> {
    let (at_provider, at_application) =
        (TcpListener::bind("127.0.0.1:0").await?, TcpListener::bind("127.0.0.1:0").await?);
    let issuer = format!("http://{}", at_provider.local_addr()?);
    let address = format!("http://{}", at_application.local_addr()?);
    let provider = Arc::new(Provider::new(issuer.clone(), "shop")?);
    tokio::spawn(Arc::clone(&provider).serve(at_provider));
    let application = Arc::new(Application::new(store, issuer, "shop", clock).await?);
    tokio::spawn(serve(application, at_application));
    Ok((provider, address))
}

#[tokio::main]
#[allow(dead_code)] // the tests start the parts themselves
async fn main() -> Result<(), BoxError> {
    let revocations = Revocations::in_memory().max_staleness(Duration::from_secs(1));
    let store = CookieStore::builder(AppKey::generate()?).revocations(revocations).development().build()?;
    let (provider, application) = start(store, Arc::new(SystemClock)).await?;
    let log_in = async |code: &str| {
        let (_, cookie) = visit(format!("{application}/callback?code={code}"), "").await?;
        cookie.ok_or_else(|| BoxError::from("the application did not log in"))
    };
    let (phone, laptop, bob) = (log_in("ada.1").await?, log_in("ada.2").await?, log_in("bob.3").await?);
    let show = async |when: &str| {
        for (browser, cookie) in [("phone", &phone), ("laptop", &laptop), ("bob's", &bob)] {
            println!("{when}: {browser} is {}", visit(format!("{application}/"), cookie).await?.0);
        }
        Ok::<_, BoxError>(())
    };
    show("after the logins").await?;
    let token = provider.logout_token(&json!({ "sub": "ada", "sid": "1" }))?;
    let form = "application/x-www-form-urlencoded";
    let (status, _) =
        post(format!("{application}/back-channel-logout"), form, format!("logout_token={token}")).await?;
    println!("the provider logged the phone out: {status}");
    show("after the back-channel logout").await?;
    let subject = json!({ "format": "iss_sub", "iss": provider.issuer, "sub": "ada" });
    let event = provider.session_revoked(&subject)?;
    let (status, _) = post(format!("{application}/events"), "application/secevent+jwt", event).await?;
    println!("the provider locked ada: {status}");
    show("after session-revoked").await
}
