//! The command line: the command, its operands and options, and the files and variables that hold secrets.

use std::collections::BTreeMap;
use std::env::VarError;
use std::ffi::OsString;
use std::time::Duration;

use hyper_session::{AppKey, Keyring};
use lexopt::Arg;
use zeroize::Zeroizing;

use crate::named_sessions::Named;
use crate::report::Failure;

/// How long each step waits for Redis. It is longer than in a service, where a browser waits for the page.
pub(crate) const PATIENCE: Duration = Duration::from_secs(5);

/// The request of the user.
pub(crate) enum Request {
    Help,
    Version,
    Run(Command, Arguments),
}

/// A command with its operands.
pub(crate) enum Command {
    KeyNew,
    KeyCheck,
    CookieOpen,
    List {
        subject: String,
    },
    Show {
        subject: String,
        id: String,
    },
    End {
        subject: String,
        id: Option<String>,
    },
    Revoke(Named),
    /// Without a name, the whole log.
    Revocations(Option<Named>),
}

/// The options of a command.
pub(crate) struct Arguments {
    options: BTreeMap<&'static str, String>,
}

/// A secret, and the file or variable that it came from.
pub(crate) struct Secret {
    pub(crate) text: Zeroizing<String>,
    pub(crate) source: String,
}

const FLAGS: [&str; 4] = ["json", "sealed", "all", "for-good"];
const OPTIONS: [&str; 11] =
    ["name", "keys", "next", "since", "cookie", "at", "redis", "sqlite", "prefix", "idle", "absolute"];

/// The options that name a file with a secret.
const FILES: [&str; 4] = ["keys", "next", "cookie", "redis"];

/// The options of the commands on sessions.
const SESSIONS: &[&str] = &["json", "name", "keys", "redis", "prefix", "sealed", "idle", "absolute"];

/// The options of the commands on revocations.
const LOG: &[&str] = &["json", "redis", "sqlite", "prefix"];

/// Each command: its words, its operands, its options.
const COMMANDS: [(&str, &str, &[&str], &[&str]); 15] = [
    ("key", "new", &[], &["json"]),
    ("key", "check", &[], &["json", "keys", "next", "since", "absolute"]),
    ("cookie", "open", &[], &["json", "name", "keys", "cookie", "at"]),
    ("sessions", "list", &["SUBJECT"], SESSIONS),
    ("sessions", "show", &["SUBJECT", "ID"], SESSIONS),
    ("sessions", "end", &["SUBJECT", "ID"], SESSIONS),
    ("revoke", "session", &["ID"], LOG),
    ("revoke", "subject", &["SUBJECT"], LOG),
    ("revoke", "label", &["NAMESPACE", "VALUE"], &["json", "redis", "sqlite", "prefix", "for-good"]),
    ("revoke", "everything", &[], LOG),
    ("revocations", "summary", &[], LOG),
    ("revocations", "session", &["ID"], LOG),
    ("revocations", "subject", &["SUBJECT"], LOG),
    ("revocations", "label", &["NAMESPACE", "VALUE"], LOG),
    ("revocations", "everything", &[], LOG),
];

impl Request {
    /// Parses the command line, without the program's name.
    pub(crate) fn parse(arguments: Vec<OsString>) -> Result<Self, Failure> {
        refuse_secrets(&arguments)?;
        let (mut words, mut options) = (Vec::new(), BTreeMap::new());
        let (mut help, mut version) = (arguments.is_empty(), false);
        let mut parser = lexopt::Parser::from_args(arguments);
        while let Some(argument) = parser.next()? {
            match argument {
                Arg::Short('h') | Arg::Long("help") => help = true,
                Arg::Short('V') | Arg::Long("version") => version = true,
                Arg::Value(word) => words.push(text(word)?),
                Arg::Long(given) => {
                    let known = |names: &[&'static str]| names.iter().copied().find(|name| *name == given);
                    if let Some(flag) = known(&FLAGS) {
                        options.insert(flag, String::new());
                    } else if let Some(option) = known(&OPTIONS) {
                        if options.insert(option, text(parser.value()?)?).is_some() {
                            return Err(Failure::usage(format!("--{option} is given twice")));
                        }
                    } else {
                        return Err(Failure::usage(no_such(
                            "option",
                            given,
                            FLAGS.iter().chain(&OPTIONS).chain(&["help", "version"]),
                            "--",
                        )));
                    }
                }
                Arg::Short(_) => {
                    return Err(Failure::usage("there is no such option: long options begin with --"));
                }
            }
        }
        if version && !help {
            return Ok(Self::Version);
        }
        // `help`, `help key` and `key help`: no group has a command of that name.
        if help || words.iter().take(2).any(|word| word == "help") {
            return Ok(Self::Help);
        }
        let (command, allowed) = Command::parse(&words)?;
        let all = matches!(command, Command::End { id: None, .. });
        if let Some(option) =
            options.keys().find(|option| !(allowed.contains(option) || all && **option == "all"))
        {
            let command = words.iter().take(2).map(String::as_str).collect::<Vec<_>>().join(" ");
            return Err(Failure::usage(format!("`{command}` does not take --{option} here")));
        }
        if all && !options.contains_key("all") {
            return Err(Failure::usage("`sessions end SUBJECT` needs an ID, or --all"));
        }
        if options.contains_key("sqlite") {
            if let Some(other) = ["redis", "prefix"].into_iter().find(|option| options.contains_key(option)) {
                return Err(Failure::usage(format!(
                    "--sqlite names a file, and --{other} is for Redis: give one of them"
                )));
            }
        }
        let arguments = Arguments { options };
        let mut read = FILES.iter().filter(|option| arguments.get(option) == Some("-")).count();
        // A cookie comes from there unless an option says otherwise.
        read += usize::from(matches!(command, Command::CookieOpen) && !arguments.has("cookie"));
        if read > 1 {
            return Err(Failure::usage("standard input can be read once: name a file for the other secret"));
        }
        Ok(Self::Run(command, arguments))
    }
}

impl Command {
    /// Returns the command of these words, and the options that it takes. A group has a singular and a plural name.
    fn parse(words: &[String]) -> Result<(Self, &'static [&'static str]), Failure> {
        let mut words = words.iter().map(String::as_str);
        let given = words.next().ok_or_else(|| Failure::usage("which command?"))?;
        let group = match given {
            "keys" => "key",
            "cookies" => "cookie",
            "session" => "sessions",
            "revocation" => "revocations",
            other => other,
        };
        let of_group: Vec<_> = COMMANDS.iter().filter(|command| command.0 == group).collect();
        if of_group.is_empty() {
            let groups = ["key", "cookie", "sessions", "revoke", "revocations", "help"];
            return Err(Failure::usage(no_such("command", given, groups.iter(), "")));
        }
        let verbs = of_group.iter().map(|command| command.1);
        let Some(verb) = words.next() else {
            let verbs = verbs.collect::<Vec<_>>().join(", ");
            return Err(Failure::usage(format!("`{group}` needs one of: {verbs}")));
        };
        let Some((_, verb, operands, options)) = of_group.iter().find(|command| command.1 == verb) else {
            let verbs: Vec<_> = verbs.collect();
            return Err(Failure::usage(no_such(&format!("command of `{group}`"), verb, verbs.iter(), "")));
        };
        let mut given = words.map(str::to_owned);
        // A variable of a script that is not set must not look like success.
        if !operands.is_empty() && given.clone().any(|word| word.is_empty()) {
            return Err(Failure::usage(format!(
                "`{group} {verb}`: {} must not be empty",
                operands.join(" and ")
            )));
        }
        let mut operand = |name: &str| {
            given.next().ok_or_else(|| {
                Failure::usage(format!(
                    "`{group} {verb}` needs {} {name}",
                    if name == "ID" { "an" } else { "a" }
                ))
            })
        };
        let mut named = |verb: &str| {
            Ok::<_, Failure>(match verb {
                "session" => Named::Session(operand("ID")?),
                "subject" => Named::Subject(operand("SUBJECT")?),
                "label" => Named::Label(operand("NAMESPACE")?, operand("VALUE")?),
                _ => Named::Everything,
            })
        };
        let command = match (group, *verb) {
            ("key", "new") => Self::KeyNew,
            ("key", _) => Self::KeyCheck,
            ("cookie", _) => Self::CookieOpen,
            ("revoke", verb) => Self::Revoke(named(verb)?),
            ("revocations", "summary") => Self::Revocations(None),
            ("revocations", verb) => Self::Revocations(Some(named(verb)?)),
            (_, "list") => Self::List { subject: operand("SUBJECT")? },
            (_, "show") => Self::Show { subject: operand("SUBJECT")?, id: operand("ID")? },
            _ => Self::End { subject: operand("SUBJECT")?, id: operand("ID").ok() },
        };
        if given.next().is_some() {
            let takes = if operands.is_empty() { "no operand".to_owned() } else { operands.join(" ") };
            return Err(Failure::usage(format!("`{group} {verb}` takes {takes} and nothing after it")));
        }
        Ok((command, options))
    }
}

impl Arguments {
    pub(crate) fn has(&self, flag: &str) -> bool {
        self.options.contains_key(flag)
    }

    pub(crate) fn get(&self, option: &str) -> Option<&str> {
        self.options.get(option).map(String::as_str)
    }

    pub(crate) fn cookie_name(&self) -> &str {
        self.get("name").unwrap_or("__Host-session")
    }

    /// Returns a moment, in seconds since 1970.
    pub(crate) fn seconds(&self, option: &str) -> Result<Option<u64>, Failure> {
        let number = |text: &str| {
            text.parse()
                .map_err(|_| Failure::usage(format!("--{option} must be a number of seconds since 1970")))
        };
        self.get(option).map(number).transpose()
    }

    /// Returns a duration: seconds, or a number with one of the units s, m, h and d.
    pub(crate) fn duration(&self, option: &str) -> Result<Option<Duration>, Failure> {
        let wrong = || Failure::usage(format!("--{option} must be a duration such as 900, 15m, 24h or 7d"));
        let duration = |text: &str| {
            let digits = text.trim_end_matches(|unit: char| unit.is_ascii_alphabetic());
            let unit = match text.get(digits.len()..) {
                Some("" | "s") => 1,
                Some("m") => 60,
                Some("h") => 3_600,
                Some("d") => 86_400,
                _ => return Err(wrong()),
            };
            let seconds = digits.parse::<u64>().ok().and_then(|number| number.checked_mul(unit));
            seconds.map(Duration::from_secs).ok_or_else(wrong)
        };
        self.get(option).map(duration).transpose()
    }

    /// Returns the contents of the file that `option` names, or of the first of these variables that is set and not empty.
    pub(crate) fn secret(&self, option: &str, variables: &[&str]) -> Result<Option<Secret>, Failure> {
        if let Some(path) = self.get(option) {
            return file(option, path).map(Some);
        }
        for variable in variables {
            match std::env::var(variable) {
                Ok(text) if text.trim().is_empty() => {}
                Ok(text) => {
                    return Ok(Some(Secret { text: Zeroizing::new(text), source: (*variable).to_owned() }));
                }
                Err(VarError::NotPresent) => {}
                Err(VarError::NotUnicode(_)) => {
                    return Err(Failure::usage(format!("{variable}: must be UTF-8 text")));
                }
            }
        }
        Ok(None)
    }

    /// Returns the URL of Redis. `missing` says what to do if there is none.
    pub(crate) fn redis_url(&self, missing: &str) -> Result<Secret, Failure> {
        self.secret("redis", &["REDIS_URL"])?.ok_or_else(|| Failure::usage(missing))
    }

    /// Returns the keyring of the service.
    pub(crate) fn keyring(&self) -> Result<Keyring, Failure> {
        let secret = self.secret("keys", &["SESSION_KEYS", "SESSION_KEY"])?.ok_or_else(|| {
            Failure::usage(
                "the keyring is missing: name a file with --keys, or set SESSION_KEYS or SESSION_KEY",
            )
        })?;
        secret.keyring()
    }
}

impl Secret {
    /// Parses the text as a keyring. An error names the file or variable, and the line.
    pub(crate) fn keyring(&self) -> Result<Keyring, Failure> {
        Keyring::from_text(&self.text).map_err(|error| Failure::usage(format!("{}: {error}", self.source)))
    }
}

/// Returns the text of the file that `option` names, which holds a secret. `-` is standard input.
pub(crate) fn file(option: &str, path: &str) -> Result<Secret, Failure> {
    let source = if path == "-" { "standard input" } else { path };
    let read =
        if path == "-" { std::io::read_to_string(std::io::stdin()) } else { std::fs::read_to_string(path) };
    let mut text = read.map(Zeroizing::new).map_err(|error| {
        Failure::usage(match error.kind() {
            _ if path.is_empty() => "an option needs the name of a file, and got an empty one".to_owned(),
            std::io::ErrorKind::InvalidData => format!("{source}: must be UTF-8 text"),
            _ if may_be_secret(path) => {
                format!("--{option} must name a file, and this one cannot be read: {error}")
            }
            _ => format!("{source}: {error}"),
        })
    })?;
    if text.starts_with('\u{feff}') {
        text.drain(..'\u{feff}'.len_utf8()); // some editors begin a file with it
    }
    Ok(Secret { text, source: source.to_owned() })
}

/// Returns true if this may be a key, a cookie or a password, given by mistake where a file must be named.
fn may_be_secret(path: &str) -> bool {
    path.contains('=') || path.len() > 20 && !path.contains(['/', '.']) || AppKey::from_text(path).is_ok()
}

fn text(argument: OsString) -> Result<String, Failure> {
    argument.into_string().map_err(|_| Failure::usage("arguments must be UTF-8"))
}

/// Returns the error for an unknown word. It does not repeat the word, since a mistyped word may be a secret.
fn no_such<'a>(
    what: &str,
    given: &str,
    known: impl Iterator<Item = &'a &'static str>,
    dashes: &str,
) -> String {
    let nearest = known.map(|name| (distance(given, name), *name)).min();
    match nearest {
        Some((distance, name)) if distance <= 2 => {
            format!("there is no such {what}: did you mean `{dashes}{name}`?")
        }
        _ => format!("there is no such {what}"),
    }
}

/// Returns how many letters to insert, delete or replace to get from `a` to `b` (Levenshtein).
fn distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.chars().count()).collect();
    for (at, letter) in a.chars().enumerate() {
        let mut left = at + 1;
        let next = b.chars().zip(row.windows(2)).map(|(other, above)| {
            let (diagonal, up) = (above.first().copied().unwrap_or(0), above.last().copied().unwrap_or(0));
            left = (diagonal + usize::from(letter != other)).min(up + 1).min(left + 1);
            left
        });
        row = std::iter::once(at + 1).chain(next.collect::<Vec<_>>()).collect();
    }
    row.last().copied().unwrap_or(0)
}

/// Returns true if the text contains a URL with a password. A subject can be a URL, too, with a user or with an `@` in its path. A
/// password of Redis may contain any character, though it should not.
fn has_password(text: &str) -> bool {
    text.match_indices("://").any(|(at, separator)| {
        let (before, after) = text.split_at(at);
        let after = after.get(separator.len()..).unwrap_or_default();
        let is_of_scheme = |c: char| c.is_ascii_alphanumeric() || "+-.".contains(c);
        let scheme = before.rsplit(|c| !is_of_scheme(c)).next().unwrap_or_default().to_ascii_lowercase();
        let is_redis = scheme.starts_with("redis") || scheme.starts_with("valkey");
        let authority = after.split(['/', '?', '#']).next().unwrap_or_default();
        let user = authority.rsplit_once('@').map(|(user, _)| user);
        if is_redis { after.contains('@') } else { user.is_some_and(|user| user.contains(':')) }
    })
}

fn refuse_secrets(arguments: &[OsString]) -> Result<(), Failure> {
    let is_secret = |argument: &OsString| {
        let argument = argument.to_string_lossy();
        argument.contains("hsk1_") || has_password(&argument)
    };
    if arguments.iter().any(is_secret) {
        // Too late for this secret, but in time for the next.
        return Err(Failure::usage(
            "the command line contains a secret, which every process can read: replace the secret, and pass it by environment or file",
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_subject_with_an_at_sign_is_no_password() {
        for secret in [
            "redis://:hunter2@localhost",
            "REDISS://:a/b@localhost",
            "redis+sentinel://:a?b@one,two/main",
            "valkey://user:a#b@localhost",
            "--redis=redis-cluster://:p@host",
            "see https://example.com and redis://:p@host",
            "https://user:hunter2@example.com/path",
        ] {
            assert!(has_password(secret), "{secret}");
        }
        for subject in [
            "https://mastodon.social/@ada",
            "https://idp.example#ada@example.com",
            "https://idp.example?user=ada@example.com",
            "https://ada@example.com:8443/",
            "acct:ada@example.com",
            "redis://localhost",
            "://",
        ] {
            assert!(!has_password(subject), "{subject}");
        }
    }

    #[test]
    fn a_name_that_may_be_a_secret_is_not_repeated() {
        let hex = "0f".repeat(32);
        let token = "A".repeat(60);
        for secret in
            [hex.as_str(), &token, "__Host-session=abc", "abc/def.ghi+jkl=", "correct-horse-battery"]
        {
            assert!(may_be_secret(secret), "{secret}");
        }
        for path in
            ["now.keys", "keys", "/run/secrets/the-keyring-of-the-shop", "production-session-keys.txt"]
        {
            assert!(!may_be_secret(path), "{path}");
        }
    }

    #[test]
    fn distances_count_letters() {
        for (a, b, letters) in [
            ("", "", 0),
            ("key", "key", 0),
            ("kye", "key", 2),
            ("sesions", "sessions", 1),
            ("", "abc", 3),
            ("ab", "xyz", 3),
        ] {
            assert_eq!((distance(a, b), distance(b, a)), (letters, letters), "{a} {b}");
        }
    }
}
