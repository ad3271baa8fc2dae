//! Application keys: making one, and checking a keyring before a rotation.

use std::fmt::Write;

use hyper_session::{AppKey, CookieStore, KeyId, Keyring};
use serde_json::json;

use crate::arguments::{Arguments, file};
use crate::report::{Failure, Report};

/// A keyring as it is written in a file: keys, the first of which seals, and ids of revoked ones.
pub(crate) struct Ring {
    keys: Vec<AppKey>,
    revoked: Vec<KeyId>,
}

impl Ring {
    fn parse(text: &str) -> Result<Self, Failure> {
        let mut ring = Self { keys: Vec::new(), revoked: Vec::new() };
        let lines = text.lines().map(|line| line.split('#').next().unwrap_or_default());
        for word in lines.flat_map(str::split_whitespace) {
            if let Some(id) = word.strip_prefix("revoked:") {
                ring.revoked.push(id.parse()?);
            } else if word.starts_with("hsk1_") {
                ring.keys.push(word.parse()?);
            } else {
                ring.keys.push(AppKey::from_bytes(word.as_bytes())?);
            }
        }
        if ring.keys.is_empty() {
            return Err(Failure::usage("the keyring holds no key"));
        }
        Ok(ring)
    }

    pub(crate) fn from(arguments: &Arguments) -> Result<Self, Failure> {
        let text = arguments.secret("--keys", &["SESSION_KEYS", "SESSION_KEY"])?;
        let none =
            || Failure::usage("which keys? Name a file with --keys, or set SESSION_KEYS or SESSION_KEY");
        Self::parse(&text.ok_or_else(none)?)
    }

    pub(crate) fn into_keyring(self) -> Result<Keyring, Failure> {
        let mut keys = self.keys.into_iter();
        let sealing = keys.next().ok_or_else(|| Failure::usage("the keyring holds no key"))?;
        let ring = keys.fold(Keyring::new(sealing), Keyring::accept);
        let ring = self.revoked.into_iter().fold(ring, Keyring::revoke);
        // What only the whole ring can tell is checked when a store is built with it.
        CookieStore::builder(ring.clone()).build()?;
        Ok(ring)
    }

    fn sealing(&self) -> Option<KeyId> {
        self.keys.first().map(AppKey::id)
    }

    fn opens(&self, id: KeyId) -> bool {
        !self.revoked.contains(&id) && self.keys.iter().any(|key| key.id() == id)
    }

    /// Ids and what each key is for.
    fn roles(&self) -> Vec<(KeyId, &'static str)> {
        let role = |(at, key): (usize, &AppKey)| match (self.opens(key.id()), at) {
            (false, _) => (key.id(), "revoked"),
            (true, 0) => (key.id(), "seals"),
            (true, _) => (key.id(), "opens"),
        };
        let mut roles: Vec<_> = self.keys.iter().enumerate().map(role).collect();
        let known: Vec<_> = self.keys.iter().map(AppKey::id).collect();
        roles.extend(self.revoked.iter().filter(|id| !known.contains(id)).map(|id| (*id, "revoked")));
        roles
    }

    /// What goes wrong if services go from this ring to `next`, one after the other.
    fn problems(&self, next: &Self) -> Vec<String> {
        let mut problems = Vec::new();
        if let Some(new) = next.sealing().filter(|new| !self.opens(*new)) {
            problems.push(format!(
                "{new} would seal, and instances that still run with the present keyring refuse it: accept it in a deployment before"
            ));
        }
        if let Some(old) = self.sealing().filter(|old| !next.opens(*old)) {
            problems.push(if next.revoked.contains(&old) {
                format!("{old} seals now and is revoked: everybody is logged out, which is right if it leaked")
            } else {
                format!("{old} seals now and is dropped: everybody is logged out; keep it for as long as sessions last")
            });
        }
        problems
    }
}

pub(crate) fn new(_: &Arguments) -> Result<Report, Failure> {
    let key = AppKey::generate()?;
    let (id, text) = (key.id().to_string(), key.to_text());
    // The id goes beside, so that `key new > FILE` writes the key alone.
    eprintln!("id {id}");
    Ok(Report { json: json!({ "id": id, "key": *text }), text: text.to_string(), yes: true })
}

pub(crate) fn check(arguments: &Arguments) -> Result<Report, Failure> {
    let now = Ring::from(arguments)?;
    let next = arguments.get("--next").map(|path| Ring::parse(&file(path)?)).transpose()?;
    let problems = next.as_ref().map(|next| now.problems(next)).unwrap_or_default();
    let mut text = String::new();
    let mut rings = Vec::new();
    for (title, ring) in [("now", Some(&now)), ("next", next.as_ref())] {
        let Some(ring) = ring else { continue };
        for (id, role) in ring.roles() {
            let _ = writeln!(text, "{title:<5}{id}  {role}");
        }
        let roles: Vec<_> =
            ring.roles().iter().map(|(id, role)| json!({ "id": id.to_string(), "role": role })).collect();
        rings.push((title.to_owned(), json!(roles)));
    }
    for problem in &problems {
        let _ = writeln!(text, "problem: {problem}");
    }
    if next.is_some() && problems.is_empty() {
        let _ = writeln!(text, "nobody whose session is sealed by the present key is logged out");
    }
    let yes = problems.is_empty();
    rings.push(("problems".to_owned(), json!(problems)));
    // Rings that no store would take are errors, not problems.
    now.into_keyring()?;
    next.map(Ring::into_keyring).transpose()?;
    Ok(Report { json: rings.into_iter().collect(), text, yes })
}
