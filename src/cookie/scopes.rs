//! The scopes in which a browser may hold a cookie that came with a request.
//!
//! A `Cookie` header has names and values only. So a cookie that was set with a `Domain`, `Path` or `Partitioned` other than
//! the present ones cannot be told from the present one. Only the host and the path of the request are known: the scope
//! of every cookie that came with it covers both.

use std::net::IpAddr;

use http::header::HOST;
use http::{HeaderMap, HeaderValue, Uri};

use super::attributes::{Attributes, validate_domain, validate_path};
use super::name::PrefixRules;

/// A host and its parent domains: the number that is tried at most.
const MAX_DOMAINS: usize = 4;
/// The root, and the prefixes of the request's path.
const MAX_PATHS: usize = 4;
/// The number of scopes that are tried in all. Each is a line in the response, and some proxies accept only 4 kB of them.
pub(super) const MAX_SCOPES: usize = 16;

/// The host and the path that a request was sent to.
pub(crate) struct Target {
    uri: Uri,
    host: Option<HeaderValue>,
}

impl Target {
    /// Creates the target of a request with this URI and these headers. Copies nothing.
    pub(crate) fn of(uri: &Uri, headers: &HeaderMap) -> Self {
        Self { uri: uri.clone(), host: headers.get(HOST).cloned() }
    }

    /// Returns true if this path of a cookie matches the path of the request (RFC 6265bis section 5.1.4).
    pub(super) fn is_within(&self, cookie_path: &str) -> bool {
        // A request to `*`, or to an authority only, has no path.
        path_covers(cookie_path, self.uri.path()) || !self.uri.path().starts_with('/')
    }

    /// Returns the host, in lower case and without the port, if the request has one that is not an address.
    fn host(&self) -> Option<String> {
        let authority = self.uri.host().map(str::to_owned).or_else(|| {
            let host = self.host.as_ref()?.to_str().ok()?;
            // An IPv6 address is in brackets and has more colons: it is not a domain either way.
            Some(host.split(':').next().unwrap_or_default().to_owned())
        })?;
        let host = authority.trim_end_matches('.').to_ascii_lowercase();
        host.parse::<IpAddr>().is_err().then_some(host)
    }

    /// Returns the values of `Domain` that cover the host: itself, then its parents, the shortest first, except for names of one
    /// label. (A browser refuses a public suffix such as `co.uk` anyway.) A former `Domain` is rarely one of the longer parents.
    ///
    /// A host with an underscore has parents without one.
    fn domains(&self) -> Vec<String> {
        let host = self.host().unwrap_or_default();
        let parents =
            std::iter::successors(Some(host.as_str()), |name| name.split_once('.').map(|(_, up)| up));
        let can_be_set = |name: &&str| name.contains('.') && validate_domain(name).is_ok();
        let mut domains: Vec<String> = parents.filter(can_be_set).map(str::to_owned).collect();
        if let Some(parents) = domains.get_mut(1..) {
            parents.reverse();
        }
        domains.truncate(MAX_DOMAINS);
        domains
    }

    /// Returns the values of `Path` that cover the path of the request (RFC 6265bis section 5.1.4), the shortest first.
    fn paths(&self) -> Vec<String> {
        let path = self.uri.path();
        let ends = path.match_indices('/').skip(1).flat_map(|(at, _)| [at, at + 1]);
        let beginnings = std::iter::once(1).chain(ends).chain([path.len()]);
        // A path that begins with one that cannot be set cannot be set either.
        let settable = beginnings.map_while(|end| path.get(..end).filter(|path| validate_path(path).is_ok()));
        let mut paths: Vec<String> = Vec::new();
        // A path may have thousands of slashes, so only as many are copied as are needed.
        for path in settable {
            if paths.len() == MAX_PATHS {
                break;
            }
            if paths.last().is_none_or(|last| last != path) {
                paths.push(path.to_owned());
            }
        }
        paths
    }
}

/// Returns true if this path of a cookie matches the path of a request (RFC 6265bis section 5.1.4).
pub(super) fn path_covers(cookie_path: &str, path: &str) -> bool {
    path.strip_prefix(cookie_path)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with('/') || cookie_path.ends_with('/'))
}

/// Returns the attributes other than `present` with which a cookie of this name may have been set, if it came with a
/// request to `target`.
///
/// Browsers keep a partitioned and a plain cookie of one name side by side, and each has to be removed separately.
///
/// Two cookies are removed by one line each, unless `several` came: that of `__Host-`, if no other site embeds it, and that of
/// development servers, which is not `Secure` and was hardly deployed with another path.
pub(super) fn elsewhere(
    present: &Attributes,
    prefix: Option<PrefixRules>,
    target: Option<&Target>,
    several: bool,
) -> Vec<Attributes> {
    let host_only = prefix.is_some_and(|rules| rules.host_only);
    let mut domains = vec![present.domain.clone()];
    let mut paths = vec![present.path.clone()];
    if !host_only {
        domains.push(None);
        domains.extend(target.iter().flat_map(|target| target.domains()).map(Some));
        if several || present.secure {
            paths.extend(target.iter().flat_map(|target| target.paths()));
        }
    }
    let mut scopes = vec![present.clone()];
    let embeds = present.partitioned || present.same_site == super::SameSite::None;
    if several || embeds || present.secure && !host_only {
        scopes.push(Attributes { partitioned: !present.partitioned, ..present.clone() });
    }
    for path in &paths {
        for domain in &domains {
            scopes.push(Attributes { path: path.clone(), domain: domain.clone(), ..present.clone() });
        }
    }
    let mut distinct: Vec<Attributes> = Vec::new();
    for scope in scopes {
        if scope != *present && scope.fit(prefix) && !distinct.contains(&scope) {
            distinct.push(scope);
        }
    }
    distinct.truncate(MAX_SCOPES);
    distinct
}

#[cfg(test)]
mod tests {
    use super::super::{CookieName, SameSite};
    use super::*;

    fn target(uri: &str, host: Option<&str>) -> Target {
        let mut headers = HeaderMap::new();
        if let Some(host) = host {
            headers.insert(HOST, host.parse().unwrap());
        }
        Target::of(&uri.parse().unwrap(), &headers)
    }

    #[test]
    fn domains_are_those_that_cover_the_host() {
        let domains = |uri, host| target(uri, host).domains();
        assert_eq!(domains("/", Some("app.example.com")), ["app.example.com", "example.com"]);
        assert_eq!(domains("/", Some("EXAMPLE.com:8443")), ["example.com"]);
        // The registrable domain is the likeliest.
        assert_eq!(
            domains("/", Some("pr-12.review.eu.app.example.com")),
            ["pr-12.review.eu.app.example.com", "example.com", "app.example.com", "eu.app.example.com"]
        );
        assert_eq!(domains("/", Some("my_app.example.com")), ["example.com"]);
        // HTTP/2 has the host in the URI.
        assert_eq!(domains("https://app.example.com/x", None), ["app.example.com", "example.com"]);
        for none in [
            "localhost",
            "localhost:8080",
            "127.0.0.1:80",
            "[::1]:80",
            "a b.com",
            "com",
            "",
            "ex;.com",
            "my_app.com",
            "[::ffff:1.2.3.4]",
        ] {
            assert_eq!(domains("/", Some(none)), [""; 0], "{none:?}");
        }
        assert_eq!(domains("/", None), [""; 0]);
    }

    #[test]
    fn paths_are_those_that_cover_the_path() {
        let paths = |uri| target(uri, None).paths();
        assert_eq!(paths("/"), ["/"]);
        assert_eq!(paths("/app"), ["/", "/app"]);
        assert_eq!(paths("/app/?q"), ["/", "/app", "/app/"]);
        assert_eq!(paths("/app/x/y"), ["/", "/app", "/app/", "/app/x"]);
        // A beginning that no cookie of ours could have as its path is left out.
        assert_eq!(paths("/a;b/c"), ["/"]);
        assert_eq!(paths("*"), [""; 0]);
    }

    #[test]
    fn a_path_covers_itself_and_what_is_below() {
        for (cookie, path, within) in [
            ("/", "/", true),
            ("/", "/app", true),
            ("/app", "/app", true),
            ("/app", "/app/x", true),
            ("/app/", "/app/x", true),
            ("/app", "/apple", false),
            ("/app", "/", false),
            ("/app/", "/app", false),
            ("/app", "*", true),
        ] {
            assert_eq!(target(path, None).is_within(cookie), within, "{cookie} {path}");
        }
    }

    fn present(domain: Option<&str>, path: &str, same_site: SameSite) -> Attributes {
        let domain = domain.map(str::to_owned);
        let path = path.to_owned();
        Attributes {
            path,
            domain,
            secure: true,
            http_only: true,
            same_site,
            partitioned: false,
            priority: None,
        }
    }

    fn texts(scopes: &[Attributes]) -> Vec<String> {
        let rest = "; Secure; HttpOnly; SameSite=Lax";
        scopes.iter().map(|scope| scope.to_string().replace(rest, "")).collect()
    }

    #[test]
    fn one_cookie_may_have_been_set_with_another_domain_path_or_partition() {
        let target = target("/app", Some("app.example.com"));
        let host_only = present(None, "/", SameSite::Lax);
        let scopes = elsewhere(&host_only, None, Some(&target), false);
        let below = ["; Path=/app", "; Path=/app; Domain=app.example.com", "; Path=/app; Domain=example.com"];
        let mut expected =
            vec!["; Path=/; Partitioned", "; Path=/; Domain=app.example.com", "; Path=/; Domain=example.com"];
        expected.extend(below);
        assert_eq!(texts(&scopes), expected);
        let shared = present(Some("example.com"), "/", SameSite::Lax);
        let scopes = texts(&elsewhere(&shared, None, Some(&target), false));
        for expected in ["; Path=/", "; Path=/; Domain=app.example.com", "; Path=/app; Domain=example.com"] {
            assert!(scopes.contains(&expected.to_owned()), "{expected} in {scopes:?}");
        }
        assert_eq!(
            texts(&elsewhere(&shared, None, None, false)),
            ["; Path=/; Domain=example.com; Partitioned", "; Path=/"]
        );
        assert_eq!(texts(&elsewhere(&host_only, None, None, false)), ["; Path=/; Partitioned"]);
    }

    #[test]
    fn the_number_of_scopes_is_bounded() {
        let target = target("/app/x/y/z", Some("a.b.c.example.com"));
        let scopes = elsewhere(&present(None, "/", SameSite::Lax), None, Some(&target), false);
        assert_eq!(scopes.len(), MAX_SCOPES);
        let texts = texts(&scopes);
        for expected in ["; Path=/; Partitioned", "; Path=/; Domain=example.com", "; Path=/app"] {
            assert!(texts.contains(&expected.to_owned()), "{expected} in {texts:?}");
        }
    }

    // A browser would not have kept a `__Host-` cookie in another domain or path: there is nothing to expire.
    #[test]
    fn a_prefix_rules_scopes_out() {
        let prefix = CookieName::new("__Host-s").unwrap().prefix_rules();
        let target = target("/app/x", Some("app.example.com"));
        let host = present(None, "/", SameSite::Lax);
        assert_eq!(elsewhere(&host, prefix, Some(&target), false), []);
        assert_eq!(texts(&elsewhere(&host, prefix, Some(&target), true)), ["; Path=/; Partitioned"]);
        let embedded = present(None, "/", SameSite::None);
        assert_eq!(elsewhere(&embedded, prefix, Some(&target), false).len(), 1);
    }
}
