//! Application keys: generating one, and checking a keyring before a rotation.

use std::fmt::Write;
use std::time::Duration;

use hyper_session::{AppKey, KeyId, Keyring, Timeouts};
use serde_json::json;

use crate::arguments::{Arguments, file};
use crate::report::{Failure, Report, duration, note};

pub(crate) fn new() -> Result<Report, Failure> {
    let key = AppKey::generate()?;
    let (id, text) = (key.id().to_string(), key.to_text());
    // The id goes to standard error, so that `key new > FILE` writes only the key.
    note(&format!("id {id}"));
    Ok(Report { json: json!({ "id": id, "key": *text }), text: text.to_string(), yes: true })
}

pub(crate) fn check(arguments: &Arguments) -> Result<Report, Failure> {
    let now = arguments.keyring()?;
    let next = arguments.get("next").map(|path| file("next", path)?.keyring()).transpose()?;
    let (since, absolute) = (arguments.duration("since")?, arguments.duration("absolute")?);
    if next.is_none() && (since.is_some() || absolute.is_some()) {
        return Err(Failure::usage("--since and --absolute need --next: they are about keys that it drops"));
    }
    let verdict = next.as_ref().map(|next| Verdict::of(&now, next, since, absolute)).unwrap_or_default();
    let mut text = String::new();
    let mut rings = Vec::new();
    for (title, ring) in [("now", Some(&now)), ("next", next.as_ref())] {
        let Some(ring) = ring else { continue };
        let roles = roles(ring);
        for (id, role) in &roles {
            let _ = writeln!(text, "{title:<5}{id}  {role}");
        }
        let roles = roles.iter().map(|(id, role)| json!({ "id": id.to_string(), "role": role }));
        rings.push((title.to_owned(), roles.collect()));
    }
    let Verdict { problems, unknown } = verdict;
    for problem in &problems {
        let _ = writeln!(text, "problem: {problem}");
    }
    for unknown in &unknown {
        let _ = writeln!(text, "unknown: {unknown}");
    }
    let yes = problems.is_empty();
    if next.is_some() && yes && unknown.is_empty() {
        let _ = writeln!(text, "no user is logged out");
    }
    rings.push(("problems".to_owned(), json!(problems)));
    rings.push(("unknown".to_owned(), json!(unknown)));
    Ok(Report { json: rings.into_iter().collect(), text, yes })
}

/// The effects on users of changing from one keyring to another, with instances that change over one after the other.
#[derive(Default)]
struct Verdict {
    problems: Vec<String>,
    /// The facts that two keyrings do not determine.
    unknown: Vec<String>,
}

impl Verdict {
    /// Compares two keyrings. `since` is how long ago the last instance stopped sealing with a key that `next` drops.
    fn of(now: &Keyring, next: &Keyring, since: Option<Duration>, given: Option<Duration>) -> Self {
        let absolute = given.unwrap_or(Timeouts::default().absolute);
        let mut verdict = Self::default();
        if let Some(new) = next.ids().next().filter(|new| !opens(now, *new)) {
            verdict.problems.push(format!(
                "{new} would seal, and instances that still run with the present keyring refuse it: accept it in a deployment before"
            ));
        }
        for (at, old) in now.ids().enumerate().filter(|(_, id)| opens(now, *id) && !opens(next, *id)) {
            let (seals, revoked) = (at == 0, next.revoked().contains(&old));
            match (seals, revoked, since) {
                (true, true, _) => verdict.problems.push(format!(
                    "{old} seals now and is revoked: all users are logged out, which is right if it leaked"
                )),
                (true, false, _) => verdict.problems.push(format!(
                    "{old} seals now and is dropped: all users are logged out; keep it for as long as sessions last"
                )),
                (false, true, _) => verdict.problems.push(format!(
                    "{old} is revoked: users whose sessions it sealed are logged out, which is right if it leaked"
                )),
                (false, false, None) => verdict.unknown.push(format!(
                    "{old} is dropped, and sessions that it sealed may be alive: it must have stopped sealing for as long as sessions last ({}, see --absolute); if so, say how long ago with --since",
                    duration(absolute)
                )),
                (false, false, Some(since)) if since < absolute => verdict.problems.push(format!(
                    "{old} is dropped too early: sessions that it sealed may be alive for another {}",
                    duration(absolute.saturating_sub(since))
                )),
                (false, false, Some(_)) if given.is_none() => verdict.unknown.push(format!(
                    "{old} is dropped, and sessions that it sealed may be alive if they last longer than the default of {}: say how long they last with --absolute",
                    duration(absolute)
                )),
                (false, false, Some(_)) => {}
            }
        }
        verdict
    }
}

fn opens(ring: &Keyring, id: KeyId) -> bool {
    !ring.revoked().contains(&id) && ring.ids().any(|key| key == id)
}

/// Returns the ids, and the role of each key.
fn roles(ring: &Keyring) -> Vec<(KeyId, &'static str)> {
    let role = |(at, id): (usize, KeyId)| match (opens(ring, id), at) {
        (false, _) => (id, "revoked"),
        (true, 0) => (id, "seals"),
        (true, _) => (id, "opens"),
    };
    let mut roles: Vec<_> = ring.ids().enumerate().map(role).collect();
    let only_revoked = ring.revoked().iter().filter(|id| ring.ids().all(|key| key != **id));
    roles.extend(only_revoked.map(|id| (*id, "revoked")));
    roles
}
