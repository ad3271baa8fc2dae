//! The attributes of a `Set-Cookie` line that follow the value and the age.

use std::fmt;

use super::name::PrefixRules;
use crate::error::Error;

/// RFC 6265bis section 5.6: user agents ignore an attribute value longer than this.
const MAX_ATTRIBUTE: usize = 1024;

/// The rule for sending the cookie with requests that another site caused (RFC 6265bis section 4.1.2.7). It is set with
/// [`same_site`](crate::cookie::CookieOptions::same_site).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum SameSite {
    /// Never.
    Strict,
    /// Only when the user follows a link to this site. The default: anything stricter logs users out of links in mail. A form of
    /// another site comes without the cookie: see [payment
    /// providers](crate::guide::forms#payment-providers-that-come-back-by-post).
    Lax,
    /// Always. It needs `Secure`, and an application that protects itself from forged requests.
    None,
}

impl SameSite {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Strict => "Strict",
            Self::Lax => "Lax",
            Self::None => "None",
        }
    }
}

/// The order in which a browser drops cookies when a site has set too many: the `Priority` attribute.
///
/// It was proposed in draft-west-cookie-priority and is known to Chromium; other browsers ignore it. It is set with
/// [`priority`](crate::cookie::CookieOptions::priority), which has an example.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Priority {
    /// Dropped before cookies of other priorities.
    Low,
    /// The default of a cookie without the attribute.
    Medium,
    /// Dropped after cookies of other priorities.
    High,
}

impl Priority {
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Low => "Low",
            Self::Medium => "Medium",
            Self::High => "High",
        }
    }
}

/// The attributes of a cookie other than its age. Path, domain and partition are its scope. A browser keeps cookies of one
/// name with different scopes side by side (RFC 6265bis section 5.7, step 23), and sends all that match, without their
/// scopes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Attributes {
    pub(super) path: String,
    /// `None`: only this host.
    pub(super) domain: Option<String>,
    pub(super) secure: bool,
    pub(super) http_only: bool,
    pub(super) same_site: SameSite,
    pub(super) partitioned: bool,
    pub(super) priority: Option<Priority>,
}

impl Attributes {
    /// Returns true if browsers keep a cookie with these attributes under a name with this prefix.
    pub(super) fn fit(&self, prefix: Option<PrefixRules>) -> bool {
        let partition = !self.partitioned || self.secure;
        partition
            && prefix.is_none_or(|rules| {
                let host_only = self.domain.is_none() && self.path == "/";
                self.secure && (host_only || !rules.host_only) && (self.http_only || !rules.http_only)
            })
    }
}

impl fmt::Display for Attributes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "; Path={}", self.path)?;
        if let Some(domain) = &self.domain {
            write!(f, "; Domain={domain}")?;
        }
        for (wanted, attribute) in [(self.secure, "; Secure"), (self.http_only, "; HttpOnly")] {
            f.write_str(if wanted { attribute } else { "" })?;
        }
        write!(f, "; SameSite={}", self.same_site.as_str())?;
        f.write_str(if self.partitioned { "; Partitioned" } else { "" })?;
        self.priority.map_or(Ok(()), |priority| write!(f, "; Priority={}", priority.as_str()))
    }
}

/// Checks a `path-value` of RFC 6265bis section 4.1.1: no control character, no semicolon. A space, quote, angle bracket or
/// backslash is refused, too, because such a text was not meant as a path.
pub(super) fn validate_path(path: &str) -> Result<(), Error> {
    let fine = |byte: u8| byte.is_ascii_graphic() && !b";,\"<>\\".contains(&byte);
    if !path.starts_with('/') || path.len() > MAX_ATTRIBUTE || !path.bytes().all(fine) {
        return Err(Error::config(
            "a cookie path must start with \"/\" and must be at most 1,024 characters long, all of them visible ASCII characters other than ;,\"<>\\: change path() or retired_path()",
        ));
    }
    Ok(())
}

/// Checks a host name of letters, digits and hyphens (RFC 1034 section 3.5, RFC 1123 section 2.1).
pub(super) fn validate_domain(domain: &str) -> Result<(), Error> {
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    if domain.len() > 253 || !domain.split('.').all(label) {
        return Err(Error::config(
            "a cookie domain must be a plain host name such as \"example.com\", without a leading dot, port or space, and non-ASCII names in their xn-- form: change domain() or retired_domain()",
        ));
    }
    Ok(())
}
