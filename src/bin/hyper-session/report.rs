//! The output of the tool: the same facts in words and as JSON.

use std::borrow::Cow;
use std::fmt::Write;
use std::io::Write as _;
use std::process::ExitCode;
use std::time::Duration;

use hyper_session::{Error, Timestamp};
use serde_json::{Value, json};

/// An answer, as JSON and in words.
pub(crate) struct Report {
    pub(crate) json: Value,
    pub(crate) text: String,
    /// False if the answer is no.
    pub(crate) yes: bool,
}

impl Report {
    pub(crate) fn print(self, json: bool) -> ExitCode {
        let text = if json { format!("{:#}\n", self.json) } else { format!("{}\n", self.text.trim_end()) };
        let printed = print(&text);
        if self.yes { printed } else { ExitCode::from(1) }
    }
}

/// Prints to standard output. A reader that closes the pipe early (`| head`) is not an error.
pub(crate) fn print(text: &str) -> ExitCode {
    let mut out = std::io::stdout().lock();
    match out.write_all(for_terminal(text).as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            note(&format!("hyper-session: standard output: {error}"));
            ExitCode::from(2)
        }
        _ => ExitCode::SUCCESS,
    }
}

/// Prints a line to standard error. The tool goes on if that cannot be written: `eprintln!` would panic.
pub(crate) fn note(line: &str) {
    let _ = writeln!(std::io::stderr(), "{}", for_terminal(line));
}

/// Escapes what a terminal obeys instead of showing it, in a form that JSON has, too. The values of a session may be those of an
/// attacker, and JSON escapes only a part of these characters itself.
fn for_terminal(text: &str) -> Cow<'_, str> {
    // The second part changes the direction of text, so that a line shows something else than it holds.
    let is_obeyed = |c: char| {
        c.is_control() && c != '\n'
            || matches!(c, '\u{61c}' | '\u{200e}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    if !text.contains(is_obeyed) {
        return text.into();
    }
    let mut shown = String::with_capacity(text.len() + 8);
    for c in text.chars() {
        if is_obeyed(c) {
            let _ = write!(shown, "\\u{:04x}", u32::from(c));
        } else {
            shown.push(c);
        }
    }
    shown.into()
}

/// The reason why there is no answer.
pub(crate) struct Failure {
    message: String,
    status: u8,
}

impl Failure {
    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Self { message: message.into(), status: 2 }
    }

    pub(crate) fn print(self, json: bool) -> ExitCode {
        if json {
            print(&format!("{:#}\n", json!({ "error": self.message })));
        } else {
            let hint = if self.status == 2 { "\nTry `hyper-session --help`." } else { "" };
            note(&format!("hyper-session: {}{hint}", self.message));
        }
        ExitCode::from(self.status)
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let mut message = error.to_string();
        let mut cause = std::error::Error::source(&error);
        while let Some(source) = cause {
            let _ = write!(message, ": {source}");
            cause = source.source();
        }
        // The store answered, and holds an entry that these options do not let it read.
        if error.is_unavailable() && !error.is_transient() {
            message.push_str(" (check that --sealed, --keys, --prefix and --name are those of the service)");
        }
        Self { message, status: if error.is_transient() { 3 } else { 2 } }
    }
}

impl From<lexopt::Error> for Failure {
    fn from(error: lexopt::Error) -> Self {
        Self::usage(match error {
            lexopt::Error::MissingValue { option: Some(option) } => format!("{option} needs a value"),
            lexopt::Error::UnexpectedValue { option, .. } => format!("{option} does not take a value"),
            // No other one is printed: it may quote a secret.
            _ => "the command line cannot be read".to_owned(),
        })
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        Self::usage(error.to_string())
    }
}

/// Formats a duration in its largest whole units: `6d 23h`.
pub(crate) fn duration(duration: Duration) -> String {
    let mut seconds = duration.as_secs();
    let mut parts = Vec::new();
    for (unit, length) in [("d", 86_400), ("h", 3_600), ("m", 60), ("s", 1)] {
        if seconds >= length {
            parts.push(format!("{}{unit}", seconds / length));
            seconds %= length;
        }
    }
    if parts.is_empty() { "0s".to_owned() } else { parts.join(" ") }
}

/// Formats a moment for people and programs: `2026-11-22T23:25:47Z`.
pub(crate) fn time(timestamp: Timestamp) -> String {
    let (days, seconds) = (timestamp.as_unix() / 86_400, timestamp.as_unix() % 86_400);
    // Years that begin in March, in eras of 400 years, which are all alike: the leap day comes last.
    let days = days + 719_468;
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let (year, month) = if month < 10 { (year, month + 3) } else { (year + 1, month - 9) };
    let (hour, minute, second) = (seconds / 3_600, seconds / 60 % 60, seconds % 60);
    format!("{:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z", era * 400 + year)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_in_units() {
        for (seconds, text) in [(0, "0s"), (61, "1m 1s"), (604_800, "7d"), (604_799, "6d 23h 59m 59s")] {
            assert_eq!(duration(Duration::from_secs(seconds)), text);
        }
    }

    #[test]
    fn times_read_as_iso_8601() {
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_399, "2000-02-28T23:59:59Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (951_868_800, "2000-03-01T00:00:00Z"),
            (1_000_000_000, "2001-09-09T01:46:40Z"),
            (4_107_542_399, "2100-02-28T23:59:59Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
        ] {
            assert_eq!(time(Timestamp::from_unix(seconds)), text);
        }
    }
}
