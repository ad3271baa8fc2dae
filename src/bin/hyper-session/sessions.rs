//! The sessions of a subject, in Redis: listing, showing, ending.

use std::fmt::Write;
use std::time::Duration;

use hyper_session::cookie::CookieOptions;
use hyper_session::store::SubjectSession;
use hyper_session::{Clock, RedisStore, SystemClock, Timeouts};
use serde_json::{Value, json};

use crate::arguments::{Arguments, PATIENCE};
use crate::report::{Failure, Report, note, time};

/// A store with the service's sessions, and how to show them.
struct Sessions<'a> {
    store: RedisStore,
    arguments: &'a Arguments,
    /// The idle timeout of the service, if it was given: the last use of a session is computed from it.
    idle: Option<Duration>,
}

impl<'a> Sessions<'a> {
    async fn open(arguments: &'a Arguments) -> Result<Self, Failure> {
        let url =
            arguments.redis_url("the URL of Redis is missing: name a file with --redis, or set REDIS_URL")?;
        let prefix = arguments
            .get("prefix")
            .ok_or_else(|| Failure::usage("the prefix of the store is missing: give --prefix"))?;
        let idle = arguments.duration("idle")?;
        // A missing option must not hide a session: then the deadlines in Redis count.
        let absolute = arguments.duration("absolute")?.unwrap_or(Duration::MAX);
        let timeouts =
            Timeouts { idle: idle.unwrap_or(Duration::MAX).min(absolute), absolute, renewal: Duration::ZERO };
        let mut builder = RedisStore::builder(url.text.trim())
            .prefix(prefix)
            .connections(1)
            .connect_timeout(PATIENCE)
            .checkout_timeout(PATIENCE)
            .command_timeout(PATIENCE)
            .cookie(CookieOptions::new().name(arguments.cookie_name()))
            .timeouts(timeouts);
        if arguments.has("sealed") {
            builder = builder.seal_records(arguments.keyring()?);
        }
        Ok(Self { store: builder.connect().await?, arguments, idle })
    }

    async fn of(&self, subject: &str) -> Result<Vec<SubjectSession>, Failure> {
        Ok(self.store.sessions_of(subject).await?)
    }

    fn last_seen(&self, session: &SubjectSession) -> Option<String> {
        self.idle.filter(|_| session.readable).map(|_| time(session.last_seen))
    }

    fn facts(&self, session: &SubjectSession) -> Value {
        json!({
            "id": session.id.to_string(),
            "readable": session.readable,
            "created": time(session.created),
            "last_seen": self.last_seen(session),
            "expires": time(session.expires),
            "seconds_left": session.expires.saturating_since(SystemClock.now()).as_secs(),
        })
    }

    fn line(&self, session: &SubjectSession) -> String {
        let last_seen = self.last_seen(session).unwrap_or_else(|| "unknown".to_owned());
        let mut line =
            format!("{}  {}  {last_seen:<20}  {}", session.id, time(session.created), time(session.expires));
        if !session.readable {
            line.push_str("  unreadable: check that --sealed and --keys are those of the service");
        }
        line
    }

    /// Reports that the subject has "no session", or "no such session". Names the prefix and the cookie name, since others have other
    /// lists.
    fn none(&self, no_session: &str, subject: &str, json: Value) -> Report {
        let (prefix, name) = (self.arguments.get("prefix").unwrap_or_default(), self.arguments.cookie_name());
        let text = format!(
            "{no_session} of {subject:?} is listed for the prefix {prefix:?} and the cookie name {name:?}: check that they are those of the service"
        );
        if self.arguments.has("json") {
            note(&format!("hyper-session: {text}"));
        }
        Report { json, text, yes: false }
    }
}

const COLUMNS: &str = "id                                created               last seen             expires";

pub(crate) async fn list(arguments: &Arguments, subject: &str) -> Result<Report, Failure> {
    let sessions = Sessions::open(arguments).await?;
    let listed = sessions.of(subject).await?;
    let facts: Vec<_> = listed.iter().map(|session| sessions.facts(session)).collect();
    let json = json!({ "sessions": facts });
    if listed.is_empty() {
        return Ok(sessions.none("no session", subject, json));
    }
    let mut text = format!("{COLUMNS}\n");
    for session in &listed {
        let _ = writeln!(text, "{}", sessions.line(session));
    }
    Ok(Report { json, text, yes: true })
}

pub(crate) async fn show(arguments: &Arguments, subject: &str, id: &str) -> Result<Report, Failure> {
    let id = id.parse()?;
    let sessions = Sessions::open(arguments).await?;
    let listed = sessions.of(subject).await?;
    Ok(match listed.iter().find(|session| session.id == id) {
        Some(session) => Report {
            json: sessions.facts(session),
            text: format!("{COLUMNS}\n{}", sessions.line(session)),
            yes: true,
        },
        None => sessions.absent(subject),
    })
}

pub(crate) async fn end(arguments: &Arguments, subject: &str, id: &str) -> Result<Report, Failure> {
    let id = id.parse()?;
    let sessions = Sessions::open(arguments).await?;
    if !sessions.store.end_session_of(subject, id).await? {
        return Ok(sessions.absent(subject));
    }
    Ok(Report { json: json!({ "ended": 1 }), text: format!("session {id} ended"), yes: true })
}

pub(crate) async fn end_all(arguments: &Arguments, subject: &str) -> Result<Report, Failure> {
    let sessions = Sessions::open(arguments).await?;
    let ended = sessions.store.end_sessions_of(subject, None).await?;
    let json = json!({ "ended": ended });
    if ended == 0 {
        return Ok(sessions.none("no session", subject, json));
    }
    let text = if ended == 1 { "1 session ended".to_owned() } else { format!("{ended} sessions ended") };
    Ok(Report { json, text, yes: true })
}

impl Sessions<'_> {
    fn absent(&self, subject: &str) -> Report {
        self.none("no such session", subject, json!({ "error": "not found" }))
    }
}
