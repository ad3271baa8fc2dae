//! Opening a session cookie: prints its contents, or why it is refused.

use std::fmt::Write;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http::header::COOKIE;
use http::{HeaderValue, Request, Response};
use hyper::service::Service;
use hyper_session::cookie::CookieOptions;
use hyper_session::{
    Binding, Clock, CookieStore, Error, Event, EventKind, Refusal, Session, SessionHandle, SystemClock,
    Timeouts, Timestamp, session_fn,
};
use serde_json::{Map, Value, json};
use zeroize::Zeroizing;

use crate::arguments::{Arguments, file};
use crate::report::{Failure, Report, note, time};

/// The facts that events reported.
#[derive(Clone, Copy, Default)]
struct Seen {
    refusal: Option<Refusal>,
    old_key: bool,
    /// The number of authentic sessions, if there are several.
    sessions: Option<usize>,
}

struct At(Timestamp);

impl Clock for At {
    fn now(&self) -> Timestamp {
        self.0
    }
}

pub(crate) async fn open(arguments: &Arguments) -> Result<Report, Failure> {
    let name = arguments.cookie_name();
    let keys = arguments.keyring()?;
    let header = header(arguments, name)?;
    let seen = Arc::new(Mutex::new(Seen::default()));
    let told = Arc::clone(&seen);
    let now = arguments.seconds("at")?.map_or_else(|| SystemClock.now(), Timestamp::from_unix);
    // The sealed deadlines count, not the timeouts of a service.
    let timeouts = Timeouts { idle: Duration::MAX, absolute: Duration::MAX, renewal: Duration::ZERO };
    let store = CookieStore::builder(keys)
        .cookie(CookieOptions::new().name(name))
        .timeouts(timeouts)
        .clock(At(now))
        .observer(move |event: &Event<'_>| {
            let mut seen = told.lock().unwrap_or_else(PoisonError::into_inner);
            match event.kind {
                EventKind::Refused { refusal, .. } => seen.refusal = Some(refusal),
                EventKind::OldKey { .. } => seen.old_key = true,
                EventKind::SeveralSessions { sessions, .. } => seen.sessions = Some(sessions),
                _ => {}
            }
        })
        .build()?;
    let heard = Arc::clone(&seen);
    let service = session_fn(store, move |_: Request<()>, handle: SessionHandle| {
        let heard = Arc::clone(&heard);
        async move {
            // Loaded here, before the end of the request renews the sealed deadlines.
            let session = handle.load().await?;
            let seen = *heard.lock().unwrap_or_else(PoisonError::into_inner);
            let report = session.id().map(|_| inside(&session, seen.old_key, now));
            Ok::<_, Error>(Response::new(report))
        }
    });
    let mut request = Request::new(());
    request.headers_mut().insert(COOKIE, header);
    let report = service.call(request).await?.into_body();
    let seen = *seen.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(sessions) = seen.sessions {
        note(&format!("hyper-session: the input has {sessions} sessions of this name: this is the newest"));
    }
    match (report, seen.refusal) {
        (Some(report), _) => Ok(report),
        (None, Some(refusal)) => Ok(refused(refusal)),
        (None, None) => Err(Failure::usage(format!("the input has no cookie named {name} (see --name)"))),
    }
}

/// Returns the `Cookie` header from a file or standard input. A token without a name is given the name.
///
/// The input may have several fields, one on a line: HTTP/2 splits the header, and a large session is set by several lines. The
/// attributes of a `Set-Cookie` line are then cookies of other names.
fn header(arguments: &Arguments, name: &str) -> Result<HeaderValue, Failure> {
    let input = file("cookie", arguments.get("cookie").unwrap_or("-"))?.text;
    let fields = input.split(['\n', '\r']).map(|line| {
        // As tools mark what they sent and received.
        let line = unquoted(line.trim_start_matches(['<', '>']));
        let (field, value) = line.split_once(':').unwrap_or(("", line));
        let is_cookie = ["cookie", "set-cookie"].iter().any(|name| field.trim().eq_ignore_ascii_case(name));
        unquoted(if is_cookie { value } else { line })
    });
    let input = Zeroizing::new(fields.filter(|field| !field.is_empty()).collect::<Vec<_>>().join("; "));
    if input.is_empty() {
        return Err(Failure::usage("the input is empty: it must be a token, or a Cookie header"));
    }
    // The padding of base64 makes no name of a token.
    let is_named = input.starts_with(&format!("{name}=")) || input.trim_end_matches('=').contains('=');
    let header = if is_named { input } else { Zeroizing::new(format!("{name}={}", *input)) };
    header
        .parse()
        .map_err(|_| Failure::usage("the cookie must not contain characters that are invalid in a header"))
}

/// Returns the text without the spaces and the quotation marks around it: it may have been copied from JSON or a shell.
fn unquoted(text: &str) -> &str {
    let text = text.trim();
    let within = |mark| text.strip_prefix(mark).and_then(|text| text.strip_suffix(mark));
    within('"').or_else(|| within('\'')).unwrap_or(text).trim()
}

/// Returns a value as JSON. Some have no such form: byte strings, and maps whose keys are not text.
fn shown(value: Result<Option<Value>, Error>) -> Value {
    match value {
        Ok(value) => value.unwrap_or(Value::Null),
        Err(error) => json!({ "not_json": error.to_string() }),
    }
}

fn inside(session: &Session, old_key: bool, now: Timestamp) -> Report {
    let mut values = Map::new();
    for key in session.keys() {
        values.insert(key.clone(), shown(session.get(&key)));
    }
    let mut flash = Map::new();
    for key in session.flash_keys() {
        flash.insert(key.clone(), shown(session.peek(&key)));
    }
    let id = session.id().map(|id| id.to_string());
    let (created, expires) = (session.created_at().unwrap_or(now), session.expires_at().unwrap_or(now));
    let left = expires.saturating_since(now).as_secs();
    let subject = session.subject().map(String::from);
    let key = if old_key { "an old one: due to be sealed again" } else { "the sealing one" };
    let mut text = format!(
        "id       {}\ncreated  {}\nexpires  {} (in {left} s)\nkey      {key}\n",
        id.as_deref().unwrap_or("none"),
        time(created),
        time(expires),
    );
    if let Some(subject) = &subject {
        let _ = writeln!(text, "subject  {subject:?}");
    }
    let bound = match session.binding() {
        Binding::Bound { since, .. } | Binding::Unchecked { since, .. } => Some(time(since)),
        Binding::Lapsed => Some("in a way that this release cannot read".to_owned()),
        _ => None,
    };
    if let Some(bound) = &bound {
        let _ = writeln!(text, "bound    to a device, {bound}");
    }
    for (title, values) in [("value", &values), ("flash", &flash)] {
        for (key, value) in values {
            let _ = writeln!(text, "{title}    {key:?} = {value}");
        }
    }
    let json = json!({
        "id": id,
        "created": time(created),
        "expires": time(expires),
        "seconds_left": left,
        "old_key": old_key,
        "subject": subject,
        "bound": bound,
        "values": values,
        "flash": flash,
    });
    Report { json, text, yes: true }
}

fn refused(refusal: Refusal) -> Report {
    let why = match refusal {
        Refusal::Encoding => "it is not base64url without padding: copy the whole token, and nothing else",
        Refusal::Length => "it is shorter or longer than any token",
        Refusal::Version => "its version is unknown to this release",
        Refusal::UnknownKey => "the keyring does not hold the key that sealed it",
        Refusal::RevokedKey => "the key that sealed it is revoked",
        Refusal::Signature => {
            "its signature is wrong: altered, forged, or sealed for another cookie name (see --name)"
        }
        Refusal::Expired => "it has expired (see --at)",
        Refusal::IssuedInFuture => "it was issued in the future: compare the clocks of the hosts",
        Refusal::Payload => "its contents are not a session",
        Refusal::Ended => "it says that the session has ended, and hides older cookies",
        _ => "it cannot be opened",
    };
    let json = json!({ "refused": refusal.as_str(), "why": why });
    Report { json, text: format!("refused ({refusal}): {why}"), yes: false }
}
