//! The attributes of the session cookie, checked together when a store is built.

use std::time::Duration;

use super::CookieName;
use super::set_cookie::CookieTemplate;
use crate::error::Error;

/// RFC 6265bis section 5.5: user agents cap the life of a cookie at 400 days.
pub(crate) const MAX_AGE_CAP: Duration = Duration::from_secs(400 * 24 * 3_600);

/// RFC 6265bis section 5.6: user agents ignore an attribute value longer than this.
const MAX_ATTRIBUTE: usize = 1024;

/// When a browser sends the cookie along with requests that another site caused (RFC 6265bis section 4.1.2.7).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum SameSite {
    /// Never.
    Strict,
    /// Only when the user follows a link here: the default, since anything stricter logs users out of links in mail.
    Lax,
    /// Always. Needs `Secure`, and an application with its own protection from forged requests.
    None,
}

/// Which cookies a browser drops first when a site has set too many: the `Priority` attribute.
///
/// It was proposed in draft-west-cookie-priority and is known to Chromium; other browsers ignore it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Priority {
    /// Before others.
    Low,
    /// What a cookie has without the attribute.
    Medium,
    /// After others.
    High,
}

impl Priority {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Low => "Low",
            Self::Medium => "Medium",
            Self::High => "High",
        }
    }
}

/// What a cookie's Max-Age is.
#[derive(Clone, Copy, Debug)]
pub(crate) enum MaxAge {
    /// There is none.
    BrowserSession,
    /// What is left of the session.
    Lifetime,
    /// What is left of the session, or this if it is shorter.
    AtMost(Duration),
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

/// How the session cookie is set.
///
/// The default is the strictest cookie that works for a whole site: `__Host-session`, `Secure`, `HttpOnly`,
/// `SameSite=Lax`, `Path=/`, `Max-Age` of 24 hours. Combinations that a browser would refuse are refused when the store
/// is built, with a message that says what to change.
///
/// # Examples
///
/// ```
/// use hyper_session::{AppKey, CookieStore, cookie::{CookieOptions, SameSite}};
///
/// let cart = CookieOptions::new().name("__Host-cart").same_site(SameSite::Strict);
/// let store = CookieStore::builder(AppKey::generate()?).cookie(cart).build()?;
///
/// // `__Host-` promises that no other host can set the cookie: a Domain would break the promise.
/// let broken = CookieOptions::new().domain("example.com");
/// let error = CookieStore::builder(AppKey::generate()?).cookie(broken).build().unwrap_err();
/// assert!(error.to_string().contains("__Host-"));
/// # Ok::<(), hyper_session::Error>(())
/// ```
#[derive(Clone, Debug)]
#[must_use = "options do nothing until they are given to a store builder"]
pub struct CookieOptions {
    name: String,
    path: String,
    domain: Option<String>,
    max_age: MaxAge,
    secure: bool,
    http_only: bool,
    same_site: SameSite,
    partitioned: bool,
    priority: Option<Priority>,
    max_chunks: u8,
}

impl Default for CookieOptions {
    fn default() -> Self {
        Self {
            name: "__Host-session".to_owned(),
            path: "/".to_owned(),
            domain: None,
            max_age: MaxAge::Lifetime,
            secure: true,
            http_only: true,
            same_site: SameSite::Lax,
            partitioned: false,
            priority: None,
            max_chunks: super::DEFAULT_MAX_CHUNKS,
        }
    }
}

impl CookieOptions {
    /// The production cookie.
    pub fn new() -> Self {
        Self::default()
    }

    /// A cookie for development over plain http: `session`, without `Secure`.
    ///
    /// Anyone on the way can read and copy it. A store built with it says so in an
    /// [`Event::InsecureCookie`](crate::Event::InsecureCookie).
    pub fn development() -> Self {
        Self { name: "session".to_owned(), secure: false, ..Self::default() }
    }

    /// The name. Default is `__Host-session`. It also separates keys: a token never opens under another name.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = name.into();
        self
    }

    /// Send the cookie only for this path and those below. Default is `/`.
    ///
    /// A path is not a security boundary: pages of one origin can read each other.
    pub fn path(mut self, path: impl Into<String>) -> Self {
        self.path = path.into();
        self
    }

    /// Send the cookie also to all subdomains of this domain. Default is none: this host alone.
    pub fn domain(mut self, domain: impl Into<String>) -> Self {
        self.domain = Some(domain.into());
        self
    }

    /// How long the browser keeps the cookie, at most; `None` for "until it closes". Default is what is left of the session,
    /// 24 hours with the default idle timeout. It is capped at 400 days, and is a courtesy: the server enforces its own
    /// deadlines.
    ///
    /// A Max-Age that is shorter than the session may be idle is refused when the store is built: reading would keep the
    /// session alive, and the browser would drop its cookie all the same. Lower the idle timeout in its place.
    pub fn max_age(mut self, max_age: impl Into<Option<Duration>>) -> Self {
        self.max_age = max_age.into().map_or(MaxAge::BrowserSession, MaxAge::AtMost);
        self
    }

    /// Send the cookie over https alone. Default is true. Never inferred from the request: a proxy may end TLS.
    pub fn secure(mut self, yes: bool) -> Self {
        self.secure = yes;
        self
    }

    /// Hide the cookie from scripts. Default is true.
    pub fn http_only(mut self, yes: bool) -> Self {
        self.http_only = yes;
        self
    }

    /// When to send the cookie across sites. Default is [`SameSite::Lax`].
    pub fn same_site(mut self, same_site: SameSite) -> Self {
        self.same_site = same_site;
        self
    }

    /// Keep one cookie jar for each top-level site that embeds this one (CHIPS). Default is false.
    pub fn partitioned(mut self, yes: bool) -> Self {
        self.partitioned = yes;
        self
    }

    /// Sets which cookies a browser drops first when this site has set too many. Default: no attribute, which is
    /// [`Priority::Medium`].
    ///
    /// # Examples
    ///
    /// ```
    /// use hyper_session::cookie::{CookieOptions, Priority};
    /// use hyper_session::{AppKey, CookieStore};
    ///
    /// let login = CookieOptions::new().priority(Priority::High);
    /// let store = CookieStore::builder(AppKey::generate()?).cookie(login).build()?;
    /// # Ok::<(), hyper_session::Error>(())
    /// ```
    pub fn priority(mut self, priority: Priority) -> Self {
        self.priority = Some(priority);
        self
    }

    /// Over how many cookies of 4,096 bytes a large session may be spread, 1 to 8. Default is 3.
    ///
    /// A browser whose cookies are over the header limit of a server or proxy is locked out until they expire. hyper's
    /// HTTP/2 server accepts 16 KiB of headers (`max_header_list_size`), many proxies 8 KiB: behind those, set 1; to
    /// set more than 3, raise the server's limit first.
    pub fn max_chunks(mut self, chunks: u8) -> Self {
        self.max_chunks = chunks;
        self
    }

    /// The Max-Age that was asked for.
    pub(crate) fn explicit_max_age(&self) -> Option<Duration> {
        match self.max_age {
            MaxAge::AtMost(max_age) => Some(max_age.min(MAX_AGE_CAP)),
            MaxAge::BrowserSession | MaxAge::Lifetime => None,
        }
    }

    pub(crate) fn validate(self) -> Result<CookieTemplate, Error> {
        let name = CookieName::new(&self.name)?;
        if let Some(rules) = name.prefix_rules() {
            let prefix = rules.prefix;
            if !self.secure {
                return Err(Error::config(format!(
                    "a cookie named {prefix}… must be Secure: call secure(true), or use CookieOptions::development() for plain http"
                )));
            }
            if rules.http_only && !self.http_only {
                return Err(Error::config(format!(
                    "a cookie named {prefix}… must be HttpOnly: call http_only(true)"
                )));
            }
            if rules.host_only && self.path != "/" {
                return Err(Error::config(format!(
                    "a cookie named {prefix}… must have the path \"/\": drop path(), or use the prefix \"__Secure-\""
                )));
            }
            if rules.host_only && self.domain.is_some() {
                return Err(Error::config(format!(
                    "a cookie named {prefix}… cannot have a Domain: drop domain(), or use the prefix \"__Secure-\""
                )));
            }
        }
        if !self.secure && self.same_site == SameSite::None {
            return Err(Error::config("SameSite=None needs Secure: call secure(true), or use SameSite::Lax"));
        }
        if !self.secure && self.partitioned {
            return Err(Error::config(
                "Partitioned needs Secure: call secure(true), or drop partitioned(true)",
            ));
        }
        validate_path(&self.path)?;
        if let Some(domain) = &self.domain {
            validate_domain(domain)?;
        }
        if matches!(self.max_age, MaxAge::AtMost(max_age) if max_age.as_secs() == 0) {
            return Err(Error::config(
                "a Max-Age under a second removes the cookie: use a longer one, or None for \"until the browser closes\"",
            ));
        }
        if !(1..=super::MAX_CHUNKS).contains(&self.max_chunks) {
            return Err(Error::config("max_chunks is 1 to 8"));
        }
        let max_age = match self.max_age {
            MaxAge::BrowserSession => None,
            MaxAge::Lifetime | MaxAge::AtMost(_) => Some(self.explicit_max_age().unwrap_or(MAX_AGE_CAP)),
        };
        Ok(CookieTemplate::new(name, &self.attributes(), max_age, self.secure, self.max_chunks))
    }

    /// The attributes that are the same in every `Set-Cookie` of this cookie, also when it is removed.
    fn attributes(&self) -> String {
        let mut text = format!("; Path={}", self.path);
        if let Some(domain) = &self.domain {
            text.push_str("; Domain=");
            text.push_str(domain);
        }
        for (wanted, attribute) in [(self.secure, "; Secure"), (self.http_only, "; HttpOnly")] {
            if wanted {
                text.push_str(attribute);
            }
        }
        text.push_str("; SameSite=");
        text.push_str(self.same_site.as_str());
        if self.partitioned {
            text.push_str("; Partitioned");
        }
        if let Some(priority) = self.priority {
            text.push_str("; Priority=");
            text.push_str(priority.as_str());
        }
        text
    }
}

/// `path-value` of RFC 6265bis section 4.1.1: no control character, no semicolon. Also no space, quote, angle bracket
/// or backslash: a path that holds one was not meant as a path.
fn validate_path(path: &str) -> Result<(), Error> {
    #[cfg(hyper_session_planted)] // whatever the application says
    if planted!("set_cookie_build") {
        return Ok(());
    }
    let fine = |byte: u8| byte.is_ascii_graphic() && !b";,\"<>\\".contains(&byte);
    if !path.starts_with('/') || path.len() > MAX_ATTRIBUTE || !path.bytes().all(fine) {
        return Err(Error::config(
            "a cookie path starts with \"/\" and has up to 1024 visible ASCII characters other than ;,\"<>\\",
        ));
    }
    Ok(())
}

/// A host name of letters, digits and hyphens (RFC 1034 section 3.5, RFC 1123 section 2.1).
fn validate_domain(domain: &str) -> Result<(), Error> {
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    if domain.len() > 253 || !domain.split('.').all(label) {
        return Err(Error::config(
            "a cookie domain is a plain host name such as \"example.com\": no leading dot, port or space; non-ASCII names in their xn-- form",
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn why(options: CookieOptions) -> String {
        options.validate().unwrap_err().to_string()
    }

    #[test]
    fn t59_prefix_promises_are_kept() {
        let host = CookieOptions::new;
        assert!(host().validate().is_ok());
        assert!(why(host().secure(false)).contains("Secure"));
        assert!(why(host().path("/app")).contains("path"));
        assert!(why(host().domain("example.com")).contains("Domain"));
        assert!(host().http_only(false).validate().is_ok());
        assert!(why(host().name("__Host-Http-s").http_only(false)).contains("HttpOnly"));
        assert!(why(host().name("__Http-s").http_only(false)).contains("HttpOnly"));
        assert!(why(host().name("__Secure-s").secure(false)).contains("Secure"));
        let shared = host().name("__Secure-s").domain("example.com").path("/app");
        assert!(shared.validate().is_ok());
    }

    #[test]
    fn insecure_combinations_are_refused() {
        let plain = CookieOptions::development;
        assert!(plain().validate().is_ok());
        assert!(why(plain().same_site(SameSite::None)).contains("SameSite=None"));
        assert!(why(plain().partitioned(true)).contains("Partitioned"));
    }

    // T57: nothing can be injected through an attribute.
    #[test]
    fn t57_attributes_cannot_inject() {
        let options = || CookieOptions::new().name("__Secure-s");
        for path in
            ["", "app", "/a;b", "/a\r\nSet-Cookie: x=y", "/a b", "/\u{e9}", "/a,b", "/\"><script>", "/\0"]
        {
            assert!(why(options().path(path)).contains("path"), "{path:?}");
        }
        assert!(options().path(format!("/{}", "p".repeat(1023))).validate().is_ok());
        assert!(options().path(format!("/{}", "p".repeat(1024))).validate().is_err());
        for domain in [
            "",
            ".example.com",
            "a..b",
            "a b.com",
            "example.com;",
            "example.com\n",
            "ex\u{e4}mple.com",
            "-a.com",
            "a:80",
        ] {
            assert!(why(options().domain(domain)).contains("domain"), "{domain:?}");
        }
        for domain in ["example.com", "localhost", "127.0.0.1", "xn--bcher-kva.example"] {
            assert!(options().domain(domain).validate().is_ok(), "{domain:?}");
        }
    }

    // T23: durations saturate.
    #[test]
    fn t23_max_age_is_capped_at_400_days() {
        let template = CookieOptions::new().max_age(Duration::MAX).validate().unwrap();
        let line = template.set(b"v", Duration::MAX, 0).unwrap();
        assert!(line[0].to_str().unwrap().contains("; Max-Age=34560000;"), "{line:?}");
        assert!(why(CookieOptions::new().max_age(Duration::from_millis(999))).contains("Max-Age"));
    }

    #[test]
    fn a_priority_is_in_every_line() {
        let template = CookieOptions::new().priority(Priority::High).validate().unwrap();
        let set = template.set(b"v", Duration::from_secs(9), 0).unwrap();
        for line in [&set[0], &template.remove(0).unwrap()[0]] {
            assert!(line.to_str().unwrap().ends_with("; SameSite=Lax; Priority=High"), "{line:?}");
        }
    }

    #[test]
    fn chunk_counts_are_checked() {
        assert!(CookieOptions::new().max_chunks(0).validate().is_err());
        assert!(CookieOptions::new().max_chunks(9).validate().is_err());
        assert!(CookieOptions::new().max_chunks(1).validate().is_ok());
    }
}
