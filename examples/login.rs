//! Login, a counter of visits, logout: a plain hyper server whose sessions are in encrypted cookies or in Redis.
//!
//! ```text
//! cargo run --example login
//! REDIS_URL=redis://127.0.0.1 cargo run --features redis --example login
//! ```
//!
//! Environment:
//!
//! - `ADDR`: default `127.0.0.1:3000`.
//! - `SESSION_KEY`: a key (`openssl rand -hex 32`), or several: see `Keyring::from_text`. Default: a new key on each start.
//! - `SECURE_COOKIE=1`: uses the production cookie, which browsers send only over https.
//! - `REDIS_URL`: keeps sessions in Redis. `redis://`, `redis+sentinel://host,host/master` or `redis-cluster://host,host`.
//! - `REVOCATIONS`: remembers logouts from cookie sessions at a path (feature `sqlite`) or in Redis at a URL (feature `redis`);
//!   default: in memory.
//! - `DEVICE_BOUND=1`: binds sessions to the devices of their browsers (feature `device-bound`). Needs `SECURE_COOKIE=1`, and
//!   with Redis `SESSION_KEY`.
//!
//! A switch that is not empty, 0 or 1, or a setting that is not UTF-8, stops it. Ctrl-C and SIGTERM let the requests that are under way finish; the
//! second one does not.
#![allow(clippy::print_stdout, clippy::print_stderr)] // it is a program

use std::convert::Infallible;
use std::env::VarError;
use std::error::Error as StdError;
use std::io;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::Incoming;
use hyper::header::{CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderValue, LOCATION};
use hyper::{Method, Request, Response, StatusCode};
use hyper_session::cookie::{CookieOptions, MAX_CHUNKS};
use hyper_session::store::{Builder, Store};
use hyper_session::{
    AppKey, CookieStore, CrossOriginProtection, Error, Keyring, Revocations, Session, SessionHandle,
    SiteData, session_fn,
};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::GracefulShutdown;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::time::{sleep, timeout};

type Page = Response<Full<Bytes>>;

const PAGE: &str = include_str!("assets/login.html");
/// Deleted by the browser at logout. The pages of users who are logged in say `no-store`, so that the back button does not
/// show them in any browser: see `private_pages_no_store` below. This covers what was cached before that option was set.
const FORGET: [SiteData; 1] = [SiteData::Cache];
const MAX_BODY: usize = 64 * 1024;
const MAX_HEADERS: u32 = 64 * 1024;
/// How long the body of a request may take.
const BODY_TIME: Duration = Duration::from_secs(30);
/// How long requests that are under way may take when the server stops.
const GRACE: Duration = Duration::from_secs(10);

#[tokio::main]
async fn main() -> ExitCode {
    match serve().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn serve() -> Result<(), Box<dyn StdError>> {
    let store = store().await?;
    let address = text("ADDR").unwrap_or_else(|| "127.0.0.1:3000".to_owned());
    let listener = TcpListener::bind(&address).await.map_err(|error| format!("ADDR={address}: {error}"))?;
    let mut stop = Stop::new()?;
    println!("listening on http://{}", listener.local_addr()?);

    let graceful = GracefulShutdown::new();
    loop {
        let stream = tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    eprintln!("accept: {error}");
                    sleep(Duration::from_millis(50)).await; // too many open files, for example
                    continue;
                }
            },
            () = stop.signal() => break,
        };
        let store = store.clone();
        let service = session_fn(store, |request, session| async {
            Ok::<_, Infallible>(route(request, session).await.unwrap_or_else(|error| failed(&error)))
        });
        #[cfg(feature = "device-bound")]
        let service = service.device_bound(Full::new); // nothing, unless the store binds sessions
        // Forms of other sites, sibling subdomains among them, do not reach the handler.
        let service = CrossOriginProtection::new()
            .wrap(service)
            .on_refusal(|_: &Error| answer(StatusCode::FORBIDDEN, "text/plain", "another site sent this"));
        let mut server = auto::Builder::new(TokioExecutor::new());
        // With a timer, hyper limits the time that the headers of a request may take, once the version of HTTP is known. The time
        // until a connection has sent enough to tell that is not limited here.
        server.http1().timer(TokioTimer::new());
        server.http2().timer(TokioTimer::new()).max_header_list_size(MAX_HEADERS);
        let connection = server.serve_connection(TokioIo::new(stream), service).into_owned();
        let connection = graceful.watch(connection);
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                eprintln!("connection: {error}");
            }
        });
    }
    drop(listener);
    eprintln!("stopping; a second signal does not wait for the requests that are under way");
    tokio::select! {
        () = graceful.shutdown() => {}
        () = sleep(GRACE) => eprintln!("warning: some requests were not finished"),
        () = stop.signal() => {}
    }
    Ok(())
}

/// The signals that stop the server: Ctrl-C, and on Unix SIGTERM, which service managers send.
#[cfg(unix)]
struct Stop {
    interrupt: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
}

#[cfg(unix)]
impl Stop {
    fn new() -> io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Self { interrupt: signal(SignalKind::interrupt())?, terminate: signal(SignalKind::terminate())? })
    }

    /// Waits for the next signal.
    async fn signal(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

#[cfg(not(unix))]
struct Stop;

#[cfg(not(unix))]
impl Stop {
    fn new() -> io::Result<Self> {
        Ok(Self)
    }

    /// Waits for the next signal.
    async fn signal(&mut self) {
        let _ = tokio::signal::ctrl_c().await;
    }
}

/// Returns the environment variable of this name.
fn text(name: &str) -> Option<String> {
    match std::env::var(name) {
        Ok(text) => Some(text),
        Err(VarError::NotPresent) => None,
        Err(VarError::NotUnicode(_)) => refuse(&format!("{name} is not UTF-8")),
    }
}

/// Returns true if the environment variable of this name is 1. A value such as `true` must not pass for 0.
fn flag(name: &str) -> bool {
    match text(name).as_deref() {
        None | Some("" | "0") => false,
        Some("1") => true,
        Some(_) => refuse(&format!("{name} must be 0 or 1")),
    }
}

fn refuse(why: &str) -> ! {
    eprintln!("error: {why}");
    std::process::exit(2);
}

/// Builds the store that the environment asks for.
async fn store() -> Result<Arc<dyn Store>, Error> {
    let secure = flag("SECURE_COOKIE");
    if !secure {
        eprintln!(
            "warning: using the development cookie, which works over plain http; set SECURE_COOKIE=1 behind https"
        );
    }
    let cookie = if secure { CookieOptions::new() } else { CookieOptions::development() };
    match text("REDIS_URL") {
        Some(url) => redis_store(url, cookie).await,
        None => cookie_store(cookie).await,
    }
}

#[cfg(feature = "redis")]
async fn redis_store(url: String, cookie: CookieOptions) -> Result<Arc<dyn Store>, Error> {
    let store = hyper_session::RedisStore::builder(url)
        .prefix("login-example")
        .cookie(cookie)
        .private_pages_no_store(true)
        .clear_site_data(&FORGET);
    let store = if wants_device_bound() { device_bound(store, Some(keys()?)) } else { store };
    let store = store.connect().await?;
    Ok(Arc::new(store))
}

#[cfg(not(feature = "redis"))]
#[allow(clippy::unused_async)] // the version with the feature awaits
async fn redis_store(_: String, _: CookieOptions) -> Result<Arc<dyn Store>, Error> {
    refuse("REDIS_URL is set; run this with --features redis");
}

fn wants_device_bound() -> bool {
    flag("DEVICE_BOUND")
}

/// Binds sessions to devices, under `keys` or under those of the store.
#[cfg(feature = "device-bound")]
fn device_bound<K>(store: Builder<K>, keys: Option<Keyring>) -> Builder<K> {
    let options = hyper_session::DeviceBound::new();
    store.device_bound(match keys {
        Some(keys) => options.keys(keys),
        None => options,
    })
}

#[cfg(not(feature = "device-bound"))]
fn device_bound<K>(_: Builder<K>, _: Option<Keyring>) -> Builder<K> {
    refuse("DEVICE_BOUND is set; run this with --features device-bound");
}

fn keys() -> Result<Keyring, Error> {
    if let Some(text) = text("SESSION_KEY") {
        return Keyring::from_text(&text);
    }
    eprintln!("warning: SESSION_KEY is not set: using a new key, so everyone is logged out when this stops");
    Ok(AppKey::generate()?.into())
}

async fn cookie_store(cookie: CookieOptions) -> Result<Arc<dyn Store>, Error> {
    // Large sessions may take the maximum number of cookies. `serve` raises HTTP/2's limit on headers to match; that of HTTP/1 is
    // larger.
    let store = CookieStore::builder(keys()?)
        .cookie(cookie.max_chunks(MAX_CHUNKS))
        .private_pages_no_store(true)
        .clear_site_data(&FORGET)
        .revocations(revocations().await?);
    let store = if wants_device_bound() { device_bound(store, None) } else { store };
    Ok(Arc::new(store.build()?))
}

/// Where a logout is remembered, so that a cookie that was copied before it is refused.
#[cfg_attr(not(feature = "redis"), allow(clippy::unused_async))]
async fn revocations() -> Result<Revocations, Error> {
    match text("REVOCATIONS") {
        #[cfg(feature = "redis")]
        Some(url) if url.contains("://") => Revocations::redis(url).prefix("login-example").connect().await,
        #[cfg(feature = "sqlite")]
        Some(path) if !path.contains("://") => Revocations::sqlite(path).await,
        Some(_) => refuse("REVOCATIONS needs --features sqlite for a path, or --features redis for a URL"),
        None => Ok(Revocations::in_memory()),
    }
}

async fn route(request: Request<Incoming>, session: SessionHandle) -> Result<Page, Error> {
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let key = request.uri().query().and_then(|query| field(query.as_bytes(), "key"));
    match (method, path.as_str()) {
        (Method::GET | Method::HEAD, "/") => home(&session.load().await?),
        (Method::GET | Method::HEAD, "/ping") => Ok(answer(StatusCode::OK, "text/plain", "pong")),
        (Method::POST, "/login") => login(request, &session.load().await?).await,
        (Method::POST, "/logout") => {
            session.load().await?.destroy()?;
            Ok(see_home())
        }
        (Method::POST, "/visits") => {
            count_visit(&session.load().await?)?;
            Ok(see_home())
        }
        (Method::GET, "/api/session") => show(&session.load().await?),
        (Method::POST, "/api/visits") => {
            let visits = count_visit(&session.load().await?)?;
            Ok(json_answer(StatusCode::OK, &json!({ "visits": visits })))
        }
        (Method::POST, "/api/set") => match (key, body(request).await) {
            (Some(key), Ok(value)) => {
                set(&session.load().await?, &key, &String::from_utf8_lossy(&value)).await
            }
            (None, _) => Ok(problem(StatusCode::BAD_REQUEST, "say which ?key=")),
            (_, Err((status, why))) => Ok(problem(status, why)),
        },
        (Method::GET, "/api/get") => match key {
            Some(key) => {
                let value: Option<Value> = session.load().await?.get(&key)?;
                Ok(json_answer(StatusCode::OK, &json!({ "key": key, "value": value })))
            }
            None => Ok(problem(StatusCode::BAD_REQUEST, "say which ?key=")),
        },
        (
            _,
            "/" | "/ping" | "/login" | "/logout" | "/visits" | "/api/session" | "/api/visits" | "/api/set"
            | "/api/get",
        ) => Ok(problem(StatusCode::METHOD_NOT_ALLOWED, "another method, please")),
        _ => Ok(problem(StatusCode::NOT_FOUND, "there is no such page")),
    }
}

/// Logs the user in. `Session::login` gives the session a new token, so a token that was planted before is worthless.
async fn login(request: Request<Incoming>, session: &Session) -> Result<Page, Error> {
    let form = body(request).await.unwrap_or_default();
    let user = field(&form, "user").map(|user| user.trim().to_owned()).filter(|user| !user.is_empty());
    let Some(user) = user.filter(|user| user.chars().count() <= 64) else {
        return Ok(answer(StatusCode::UNPROCESSABLE_ENTITY, "text/plain", "a name has 1 to 64 characters"));
    };
    session.login(&user)?;
    session.set_flash("notice", format!("Welcome, {user}"))?;
    Ok(see_home())
}

fn home(session: &Session) -> Result<Page, Error> {
    let notice = session.flash::<String>("notice")?.map_or(String::new(), |notice| {
        format!("<p class=\"notice\" role=\"status\">{}</p>", escape(&notice))
    });
    // The user is who logged in. A value could come from any handler: here, from /api/set.
    let user = session.subject();
    let page = PAGE
        .replace("{state}", if user.is_some() { "in" } else { "out" })
        .replace("{visits}", &session.get_i64("visits")?.unwrap_or(0).to_string())
        .replace("{notice}", &notice)
        .replace("{user}", &user.as_deref().map_or("nobody yet".to_owned(), escape));
    let mut page = answer(StatusCode::OK, "text/html; charset=utf-8", page);
    let policy = "default-src 'none'; style-src 'unsafe-inline'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'";
    page.headers_mut().insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static(policy));
    Ok(page)
}

fn count_visit(session: &Session) -> Result<u64, Error> {
    session.update("visits", |visits: Option<u64>| visits.unwrap_or(0) + 1)
}

/// Shows the session without changing it: the flash message stays.
fn show(session: &Session) -> Result<Page, Error> {
    let shown = json!({
        "id": session.id().map(|id| id.to_string()),
        "user": session.subject().as_deref(),
        "visits": session.get_i64("visits")?.unwrap_or(0),
        "flash": session.peek::<String>("notice")?,
        "bound": is_bound(session),
    });
    Ok(json_answer(StatusCode::OK, &shown))
}

/// Returns true if only the user's device can use the session.
#[cfg(feature = "device-bound")]
fn is_bound(session: &Session) -> bool {
    session.binding().is_bound()
}

#[cfg(not(feature = "device-bound"))]
fn is_bound(_: &Session) -> bool {
    false
}

/// Saves at once, so that the handler can respond to a session that is too large.
async fn set(session: &Session, key: &str, value: &str) -> Result<Page, Error> {
    let saved = match session.set(key, value) {
        Ok(()) => session.save().await,
        Err(error) => Err(error),
    };
    match saved {
        Ok(()) => Ok(json_answer(StatusCode::OK, &json!({ "key": key, "value": value }))),
        Err(error) if error.is_too_large() => {
            session.discard()?; // what was there stays
            Ok(problem(StatusCode::PAYLOAD_TOO_LARGE, &error.to_string()))
        }
        Err(error) if error.is_value() => Ok(problem(StatusCode::BAD_REQUEST, &error.to_string())),
        Err(error) => Err(error),
    }
}

/// Reads the body, or returns why it was refused.
async fn body(request: Request<Incoming>) -> Result<Bytes, (StatusCode, &'static str)> {
    match timeout(BODY_TIME, Limited::new(request.into_body(), MAX_BODY).collect()).await {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => {
            Err((StatusCode::PAYLOAD_TOO_LARGE, "the value is larger than any session"))
        }
        Ok(Err(_)) => Err((StatusCode::BAD_REQUEST, "the body could not be read")),
        Err(_) => Err((StatusCode::REQUEST_TIMEOUT, "the body took too long")),
    }
}

/// Returns a field of a form or a query.
fn field(form: &[u8], name: &str) -> Option<String> {
    form_urlencoded::parse(form).find(|(field, _)| field == name).map(|(_, value)| value.into_owned())
}

fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            '{' => escaped.push_str("&#123;"),
            _ => escaped.push(c),
        }
    }
    escaped
}

fn answer(status: StatusCode, kind: &'static str, body: impl Into<Bytes>) -> Page {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}

fn json_answer(status: StatusCode, body: &Value) -> Page {
    answer(status, "application/json", body.to_string())
}

fn problem(status: StatusCode, why: &str) -> Page {
    json_answer(status, &json!({ "error": why }))
}

fn see_home() -> Page {
    let mut response = answer(StatusCode::SEE_OTHER, "text/plain", "");
    response.headers_mut().insert(LOCATION, HeaderValue::from_static("/"));
    response
}

fn failed(error: &Error) -> Page {
    let status = if error.is_transient() {
        StatusCode::SERVICE_UNAVAILABLE
    } else if error.is_forgery() {
        StatusCode::FORBIDDEN
    } else {
        StatusCode::INTERNAL_SERVER_ERROR
    };
    eprintln!("request: {error}");
    problem(status, error.label()) // the text of an error may name keys of the session
}
