//! The sessions of a subject, in Redis: listing, showing, ending.

use std::fmt::Write;

use hyper_session::cookie::CookieOptions;
use hyper_session::store::SubjectSession;
use hyper_session::{Clock, RedisStore, SystemClock, Timeouts};
use serde_json::{Value, json};

use crate::arguments::Arguments;
use crate::keys::Ring;
use crate::report::{Failure, Report, time};

async fn store(arguments: &Arguments) -> Result<RedisStore, Failure> {
    let url = arguments.secret("--redis", &["REDIS_URL"])?;
    let url = url.ok_or_else(|| Failure::usage("which Redis? Name a file with --redis, or set REDIS_URL"))?;
    let prefix = arguments.get("--prefix").ok_or_else(|| Failure::usage("which store? Give its --prefix"))?;
    let usual = Timeouts::default();
    let idle = arguments.duration("--idle")?.unwrap_or(usual.idle);
    let absolute = arguments.duration("--absolute")?.unwrap_or(usual.absolute.max(idle));
    let mut builder = RedisStore::builder(url.trim())
        .prefix(prefix)
        .connections(1)
        .cookie(CookieOptions::new().name(arguments.cookie_name()))
        .timeouts(Timeouts { idle, absolute, renewal: idle / 10 });
    if arguments.has("--sealed") {
        builder = builder.seal_records(Ring::from(arguments)?.into_keyring()?);
    }
    Ok(builder.connect().await?)
}

fn facts(session: &SubjectSession) -> Value {
    json!({
        "id": session.id.to_string(),
        "created": time(session.created),
        "last_seen": time(session.last_seen),
        "expires": time(session.expires),
        "seconds_left": session.expires.saturating_since(SystemClock.now()).as_secs(),
    })
}

fn line(session: &SubjectSession) -> String {
    let SubjectSession { id, created, last_seen, expires, .. } = session;
    format!("{id}  {}  {}  {}", time(*created), time(*last_seen), time(*expires))
}

const COLUMNS: &str = "id                                created               last seen             expires";

pub(crate) async fn list(arguments: &Arguments, subject: &str) -> Result<Report, Failure> {
    let sessions = store(arguments).await?.sessions_of(subject).await?;
    let mut text = String::new();
    if sessions.is_empty() {
        let _ = writeln!(text, "no sessions");
    } else {
        let _ = writeln!(text, "{COLUMNS}");
    }
    for session in &sessions {
        let _ = writeln!(text, "{}", line(session));
    }
    let facts: Vec<_> = sessions.iter().map(facts).collect();
    Ok(Report { json: json!({ "sessions": facts }), text, yes: true })
}

pub(crate) async fn show(arguments: &Arguments, subject: &str, id: &str) -> Result<Report, Failure> {
    let id = id.parse()?;
    let sessions = store(arguments).await?.sessions_of(subject).await?;
    Ok(match sessions.iter().find(|session| session.id == id) {
        Some(session) => {
            Report { json: facts(session), text: format!("{COLUMNS}\n{}", line(session)), yes: true }
        }
        None => absent(),
    })
}

pub(crate) async fn end(arguments: &Arguments, subject: &str, id: &str) -> Result<Report, Failure> {
    let id = id.parse()?;
    if !store(arguments).await?.end_session_of(subject, id).await? {
        return Ok(absent());
    }
    Ok(Report { json: json!({ "ended": 1 }), text: format!("{id} is ended"), yes: true })
}

pub(crate) async fn end_all(arguments: &Arguments, subject: &str) -> Result<Report, Failure> {
    if !arguments.has("--all") {
        return Err(Failure::usage("end which? Give an ID, or --all"));
    }
    let ended = store(arguments).await?.end_sessions_of(subject, None).await?;
    Ok(Report { json: json!({ "ended": ended }), text: format!("{ended} sessions ended"), yes: true })
}

fn absent() -> Report {
    Report {
        json: json!({ "error": "not found" }),
        text: "the subject has no such session".to_owned(),
        yes: false,
    }
}
