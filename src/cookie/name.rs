//! Cookie names: the token grammar, and the prefixes that browsers enforce.

use std::fmt;

use crate::error::Error;

const MAX_NAME: usize = 256;

/// A valid cookie name.
///
/// # Examples
///
/// ```
/// use hyper_session::__internals::CookieName;
///
/// assert_eq!(CookieName::new("__Host-session")?.as_str(), "__Host-session");
/// // Browsers ignore the case of a prefix, and servers do not. So a name in another case would not protect the cookie.
/// assert!(CookieName::new("__host-session").unwrap_err().is_config());
/// assert!(CookieName::new("session id").unwrap_err().is_config());
/// # Ok::<(), hyper_session::Error>(())
/// ```
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct CookieName(Box<str>);

/// The rules of a name prefix for the cookie's attributes (RFC 6265bis section 4.1.3; draft-ietf-httpbis-layered-cookies
/// for the two `Http` prefixes).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PrefixRules {
    pub(crate) prefix: &'static str,
    pub(crate) http_only: bool,
    pub(crate) host_only: bool,
}

/// Longer prefixes first: `__Host-Http-` starts with `__Host-`.
const PREFIXES: [PrefixRules; 4] = [
    PrefixRules { prefix: "__Host-Http-", http_only: true, host_only: true },
    PrefixRules { prefix: "__Host-", http_only: false, host_only: true },
    PrefixRules { prefix: "__Http-", http_only: true, host_only: false },
    PrefixRules { prefix: "__Secure-", http_only: false, host_only: false },
];

/// Spellings that look like a prefix but are not.
const LOOKALIKES: [&str; 6] = ["host__", "__host_", "secure__", "__secure_", "http__", "__http_"];

impl CookieName {
    /// Checks `name` against the `token` grammar of [RFC 9110 section 5.6.2] and the prefix rules.
    ///
    /// # Errors
    ///
    /// [`is_config`](Error::is_config) if the name is empty, longer than 256 bytes, contains a character that a token must
    /// not contain, is a misspelt prefix, or ends in `.1` to `.7`, which name the further chunks of a large session.
    ///
    /// [RFC 9110 section 5.6.2]: https://www.rfc-editor.org/rfc/rfc9110#section-5.6.2
    pub fn new(name: &str) -> Result<Self, Error> {
        if name.is_empty() || name.len() > MAX_NAME {
            return Err(Error::config("a cookie name must be 1 to 256 bytes long"));
        }
        if let Some(bad) = name.chars().find(|&c| !is_token_char(c)) {
            return Err(Error::config(format!(
                "a cookie name must not contain {bad:?}: use letters, digits and !#$%&'*+-.^_`|~"
            )));
        }
        let lower = name.to_ascii_lowercase();
        for rules in PREFIXES {
            if lower.starts_with(&rules.prefix.to_ascii_lowercase()) && !name.starts_with(rules.prefix) {
                return Err(Error::config(format!(
                    "the cookie name {name:?} must spell the prefix {:?} exactly so",
                    rules.prefix
                )));
            }
        }
        if LOOKALIKES.iter().any(|lookalike| lower.starts_with(lookalike)) {
            return Err(Error::config(format!(
                "the cookie name {name:?} looks like a prefix but is not: use \"__Host-\" or another name"
            )));
        }
        if let [.., b'.', b'1'..=b'7'] = name.as_bytes() {
            return Err(Error::config(format!(
                "the cookie name {name:?} must not end like a further chunk of another cookie: choose another ending"
            )));
        }
        Ok(Self(name.into()))
    }

    /// Returns the name.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    pub(crate) fn prefix_rules(&self) -> Option<PrefixRules> {
        PREFIXES.into_iter().find(|rules| self.0.starts_with(rules.prefix))
    }
}

impl fmt::Debug for CookieName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for CookieName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Returns true for a `tchar` of RFC 9110: any visible ASCII character that is not a delimiter.
fn is_token_char(c: char) -> bool {
    c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn token_grammar_by_byte() {
        for byte in 0..=255_u8 {
            let name: String = ['a', char::from(byte), 'b'].into_iter().collect();
            let expected = byte.is_ascii_graphic() && !b"\"(),/:;<=>?@[\\]{}".contains(&byte);
            assert_eq!(CookieName::new(&name).is_ok(), expected, "{byte:#04x}");
        }
        assert!(CookieName::new("").is_err());
        assert!(CookieName::new(&"n".repeat(256)).is_ok());
        assert!(CookieName::new(&"n".repeat(257)).is_err());
    }

    #[test]
    fn names_are_shown_as_they_are() {
        assert_eq!(CookieName::new("__Host-s").unwrap().to_string(), "__Host-s");
    }

    // T50, T59: prefixes are exact. Similar spellings and other cases are refused.
    #[test]
    fn t59_prefixes_are_exact() {
        for good in ["__Host-s", "__Secure-s", "__Http-s", "__Host-Http-s", "session", "Hostess", "__Hosts"] {
            assert!(CookieName::new(good).is_ok(), "{good}");
        }
        for bad in ["__host-s", "__HOST-s", "__SECURE-s", "__http-s", "__Host-http-s", "Host__s", "__Host_s"]
        {
            assert!(CookieName::new(bad).unwrap_err().is_config(), "{bad}");
        }
    }

    #[test]
    fn longest_prefix_rules_apply() {
        let rules = |name| CookieName::new(name).unwrap().prefix_rules().map(|r| (r.http_only, r.host_only));
        assert_eq!(rules("__Host-Http-s"), Some((true, true)));
        assert_eq!(rules("__Host-s"), Some((false, true)));
        assert_eq!(rules("__Http-s"), Some((true, false)));
        assert_eq!(rules("__Secure-s"), Some((false, false)));
        assert_eq!(rules("session"), None);
    }

    #[test]
    fn chunk_like_endings_are_refused() {
        assert!(CookieName::new("s.1").is_err() && CookieName::new("s.7").is_err());
        assert!(
            CookieName::new("s.0").is_ok() && CookieName::new("s.8").is_ok() && CookieName::new("s1").is_ok()
        );
    }
}
