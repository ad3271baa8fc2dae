//! The log of revocations of a cookie store, in a file or in Redis: revoking, and looking up.

use std::fmt::Write;
use std::sync::Arc;
use std::time::Duration;

use hyper_session::Revocations;
use hyper_session::revocation::{Entry, RevocationLog, SqliteLog};
use serde_json::{Value, json};

use crate::arguments::{Arguments, PATIENCE};
use crate::named_sessions::Named;
use crate::report::{Failure, Report, note, time};

pub(crate) async fn revoke(arguments: &Arguments, named: &Named) -> Result<Report, Failure> {
    match arguments.get("sqlite") {
        Some(path) => revoke_in(file(path).await?, arguments, named).await,
        None => revoke_in(redis(arguments).await?, arguments, named).await,
    }
}

async fn revoke_in(log: impl RevocationLog, arguments: &Arguments, named: &Named) -> Result<Report, Failure> {
    let revocations = Revocations::open(log).await?;
    // Another prefix or file would look like success.
    let is_new = revocations.is_empty();
    match named {
        Named::Session(id) => revocations.end_session(id.parse()?).await?,
        Named::Subject(subject) => revocations.end_sessions_of(subject).await?,
        Named::Label(namespace, value) if arguments.has("for-good") => {
            revocations.end_labelled_for_good(namespace, value).await?;
        }
        Named::Label(namespace, value) => revocations.end_labelled(namespace, value).await?,
        Named::Everything => revocations.end_all().await?,
    }
    let mut text = format!("revoked: {named}");
    if is_new {
        let hint = "the log held no revocation before: check that it is that of the service";
        if arguments.has("json") {
            note(&format!("hyper-session: {hint}"));
        } else {
            let _ = write!(text, "\n{hint}");
        }
    }
    Ok(Report { json: json!({ "revoked": true, "first": is_new }), text, yes: true })
}

/// Reports the revocations that name these sessions, or the extent of the log.
pub(crate) async fn find(arguments: &Arguments, named: Option<&Named>) -> Result<Report, Failure> {
    named.map_or(Ok(()), Named::check)?;
    let entries = match arguments.get("sqlite") {
        Some(path) => entries(file(path).await?).await?,
        None => entries(redis(arguments).await?).await?,
    };
    let Some(named) = named else { return Ok(summary(&entries)) };
    let mut found = Vec::new();
    for entry in &entries {
        if named.is_named_by(&entry.revocation)? {
            found.push(entry);
        }
    }
    let facts: Vec<Value> = found.iter().map(|entry| facts(entry)).collect();
    let json = json!({ "revocations": facts });
    if found.is_empty() {
        return Ok(Report { json, text: format!("not revoked in this log: {named}"), yes: false });
    }
    let mut text = format!("revoked: {named}\n");
    for entry in found {
        let _ = writeln!(text, "{}  at position {}", time(entry.written), entry.position);
    }
    Ok(Report { json, text, yes: true })
}

fn summary(entries: &[Entry]) -> Report {
    let (oldest, newest) = (entries.first(), entries.last());
    let json = json!({
        "entries": entries.len(),
        "oldest": oldest.map(facts),
        "newest": newest.map(facts),
    });
    let mut text = format!("entries: {}\n", entries.len());
    for (what, entry) in [("oldest", oldest), ("newest", newest)] {
        if let Some(entry) = entry {
            let _ = writeln!(text, "{what}: {}  at position {}", time(entry.written), entry.position);
        }
    }
    Report { json, text, yes: !entries.is_empty() }
}

fn facts(entry: &Entry) -> Value {
    json!({ "written": time(entry.written), "position": entry.position })
}

async fn entries(log: impl RevocationLog) -> Result<Vec<Entry>, Failure> {
    let (mut all, mut after): (Vec<Entry>, u64) = (Vec::new(), 0);
    loop {
        let page = log.read(after, Duration::ZERO).await?;
        after = page.entries.last().map_or(after, |last| last.position);
        all.extend(page.entries);
        if !page.more {
            return Ok(all);
        }
    }
}

async fn file(path: &str) -> Result<Arc<SqliteLog>, Failure> {
    // Opening it would create a log, and a mistyped path would look like success.
    match std::fs::metadata(path) {
        Ok(found) if !found.is_file() => return Err(Failure::usage(format!("{path}: this is not a file"))),
        Ok(found) if found.len() == 0 => return Err(Failure::usage(format!("{path}: the file is empty"))),
        Ok(_) => {}
        Err(error) => return Err(Failure::usage(format!("{path}: {error}"))),
    }
    Ok(Arc::new(SqliteLog::open(path).await?))
}

async fn redis(arguments: &Arguments) -> Result<impl RevocationLog + use<>, Failure> {
    let url = arguments.redis_url(
        "the log of revocations is missing: name a file with --sqlite or --redis, or set REDIS_URL",
    )?;
    let prefix = arguments
        .get("prefix")
        .ok_or_else(|| Failure::usage("the prefix of the revocations is missing: give --prefix"))?;
    let builder = Revocations::redis(url.text.trim()).prefix(prefix);
    Ok(builder.connect_timeout(PATIENCE).command_timeout(PATIENCE).into_log().await?)
}
