//! Opening a session cookie: prints its contents, or why it is refused.

use std::fmt::Write;
use std::io::Read;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http::header::COOKIE;
use http::{HeaderValue, Request, Response};
use hyper::service::Service;
use hyper_session::cookie::{CookieOptions, MAX_CHUNKS};
use hyper_session::{
    Binding, Clock, CookieStore, Error, Event, EventKind, Refusal, Session, SessionHandle, SystemClock,
    Timeouts, Timestamp, session_fn,
};
use serde_json::{Map, Value, json};
use zeroize::Zeroizing;

use crate::arguments::Arguments;
use crate::report::{Failure, Report, time};

/// The facts that events reported.
#[derive(Clone, Default)]
struct Seen(Arc<Mutex<(Option<Refusal>, bool)>>);

struct At(Timestamp);

impl Clock for At {
    fn now(&self) -> Timestamp {
        self.0
    }
}

pub(crate) async fn open(arguments: &Arguments) -> Result<Report, Failure> {
    let name = arguments.cookie_name();
    let header = header(arguments, name)?;
    let seen = Seen::default();
    let told = seen.clone();
    let now = arguments.seconds("at")?.map_or_else(|| SystemClock.now(), Timestamp::from_unix);
    // The sealed deadlines count, not the timeouts of a service.
    let timeouts = Timeouts { idle: Duration::MAX, absolute: Duration::MAX, renewal: Duration::ZERO };
    let store = CookieStore::builder(arguments.keyring()?)
        .cookie(CookieOptions::new().name(name).max_chunks(MAX_CHUNKS))
        .timeouts(timeouts)
        .clock(At(now))
        .observer(move |event: &Event<'_>| {
            let mut seen = told.0.lock().unwrap_or_else(PoisonError::into_inner);
            match event.kind {
                EventKind::Refused { refusal, .. } => seen.0 = Some(refusal),
                EventKind::OldKey { .. } => seen.1 = true,
                _ => {}
            }
        })
        .build()?;
    let heard = seen.clone();
    let service = session_fn(store, move |_: Request<()>, handle: SessionHandle| {
        let heard = heard.clone();
        async move {
            // Loaded here, before the end of the request renews the sealed deadlines.
            let session = handle.load().await?;
            let (_, old_key) = *heard.0.lock().unwrap_or_else(PoisonError::into_inner);
            let report = session.id().map(|_| inside(&session, old_key, now)).transpose()?;
            Ok::<_, Error>(Response::new(report))
        }
    });
    let mut request = Request::new(());
    request.headers_mut().insert(COOKIE, header);
    let report = service.call(request).await?.into_body();
    let (refusal, _) = *seen.0.lock().unwrap_or_else(PoisonError::into_inner);
    match (report, refusal) {
        (Some(report), _) => Ok(report),
        (None, Some(refusal)) => Ok(refused(refusal)),
        (None, None) => Err(Failure::usage(format!("the input has no cookie named {name} (see --name)"))),
    }
}

/// Returns the `Cookie` header from a file or standard input. A token without a name is given the name.
fn header(arguments: &Arguments, name: &str) -> Result<HeaderValue, Failure> {
    let mut input = Zeroizing::new(String::new());
    match arguments.secret("cookie", &[])? {
        Some(file) => input = file.text,
        None => drop(std::io::stdin().read_to_string(&mut input)?),
    }
    let input = input.trim();
    let input = input.strip_prefix("Cookie:").or(input.strip_prefix("cookie:")).unwrap_or(input).trim();
    let header =
        Zeroizing::new(if input.contains('=') { input.to_owned() } else { format!("{name}={input}") });
    header
        .parse()
        .map_err(|_| Failure::usage("the cookie must not contain characters that are invalid in a header"))
}

fn inside(session: &Session, old_key: bool, now: Timestamp) -> Result<Report, Error> {
    let mut values = Map::new();
    for key in session.keys() {
        values.insert(key.clone(), session.get(&key)?.unwrap_or(Value::Null));
    }
    let mut flash = Map::new();
    for key in session.flash_keys() {
        flash.insert(key.clone(), session.peek(&key)?.unwrap_or(Value::Null));
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
    Ok(Report { json, text, yes: true })
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
