//! The command line: words, options, and the files and variables that hold secrets.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::time::Duration;

use zeroize::Zeroizing;

use crate::report::Failure;

const FLAGS: [&str; 5] = ["--json", "--help", "--version", "--sealed", "--all"];
const OPTIONS: [&str; 9] =
    ["--name", "--keys", "--next", "--cookie", "--at", "--redis", "--prefix", "--idle", "--absolute"];

pub(crate) struct Arguments {
    pub(crate) words: Vec<String>,
    options: BTreeMap<&'static str, String>,
}

impl Arguments {
    pub(crate) fn parse(arguments: impl IntoIterator<Item = OsString>) -> Result<Self, Failure> {
        let mut parsed = Self { words: Vec::new(), options: BTreeMap::new() };
        let mut arguments = arguments.into_iter();
        while let Some(argument) = arguments.next() {
            let argument = text(argument)?;
            let given = match argument.split_once('=') {
                Some((name, value)) if name.starts_with("--") => (name, Some(value.to_owned())),
                _ => (argument.as_str(), None),
            };
            let known = |names: &[&'static str]| names.iter().copied().find(|known| *known == given.0);
            if let Some(flag) = known(&FLAGS) {
                parsed.options.insert(flag, String::new());
            } else if let Some(option) = known(&OPTIONS) {
                let value = match given.1 {
                    Some(value) => value,
                    None => text(
                        arguments.next().ok_or_else(|| Failure::usage(format!("{option} needs a value")))?,
                    )?,
                };
                if parsed.options.insert(option, value).is_some() {
                    return Err(Failure::usage(format!("{option} is given twice")));
                }
            } else if argument.starts_with('-') {
                // Not repeated: what is mistyped may be a secret.
                return Err(Failure::usage("there is no such option"));
            } else {
                parsed.words.push(argument);
            }
        }
        Ok(parsed)
    }

    pub(crate) fn has(&self, flag: &str) -> bool {
        self.options.contains_key(flag)
    }

    pub(crate) fn get(&self, option: &str) -> Option<&str> {
        self.options.get(option).map(String::as_str)
    }

    pub(crate) fn cookie_name(&self) -> &str {
        self.get("--name").unwrap_or("__Host-session")
    }

    pub(crate) fn seconds(&self, option: &str) -> Result<Option<u64>, Failure> {
        let number =
            |text: &str| text.parse().map_err(|_| Failure::usage(format!("{option} is a number of seconds")));
        self.get(option).map(number).transpose()
    }

    pub(crate) fn duration(&self, option: &str) -> Result<Option<Duration>, Failure> {
        Ok(self.seconds(option)?.map(Duration::from_secs))
    }

    /// The contents of the file that `option` names, or of the first of these variables that is set.
    pub(crate) fn secret(
        &self,
        option: &str,
        variables: &[&str],
    ) -> Result<Option<Zeroizing<String>>, Failure> {
        if let Some(path) = self.get(option) {
            return file(path).map(Some);
        }
        let set = variables.iter().find_map(|variable| std::env::var(variable).ok());
        Ok(set.map(Zeroizing::new))
    }
}

/// The text of a file that holds a secret.
pub(crate) fn file(path: &str) -> Result<Zeroizing<String>, Failure> {
    std::fs::read_to_string(path)
        .map(Zeroizing::new)
        .map_err(|error| Failure::usage(format!("{path}: {error}")))
}

fn text(argument: OsString) -> Result<String, Failure> {
    let argument = argument.into_string().map_err(|_| Failure::usage("an argument is no UTF-8"))?;
    // Too late for this one, and in time for the next.
    if argument.contains("hsk1_") || argument.contains("://") && argument.contains('@') {
        return Err(Failure::usage(
            "a secret is on the command line, where every process can read it: replace it, and give the new one by environment or file",
        ));
    }
    Ok(argument)
}
