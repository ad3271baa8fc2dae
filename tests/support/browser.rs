//! A browser's cookies with their scopes, after RFC 6265bis: cookies of one name that differ in domain, path or partition are
//! kept apart, and all that match a request are sent, without saying which is which.
#![allow(dead_code)] // each test file uses a part

use http::HeaderMap;
use http::header::SET_COOKIE;

/// The identity of a cookie (RFC 6265bis section 5.7, step 23, and CHIPS).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Scope {
    pub(crate) name: String,
    pub(crate) domain: String,
    pub(crate) host_only: bool,
    pub(crate) path: String,
    pub(crate) partitioned: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Kept {
    pub(crate) scope: Scope,
    pub(crate) value: String,
}

/// The cookies of one browser, over https.
#[derive(Clone, Debug, Default)]
pub(crate) struct Browser {
    pub(crate) kept: Vec<Kept>,
}

impl Browser {
    /// Takes in the `Set-Cookie` lines of a response to a request to `host` and `path`.
    pub(crate) fn receive(&mut self, host: &str, headers: &HeaderMap) {
        for line in headers.get_all(SET_COOKIE) {
            self.receive_line(host, line.to_str().unwrap());
        }
    }

    pub(crate) fn receive_line(&mut self, host: &str, line: &str) {
        let cookie =
            cookie::Cookie::parse(line.to_owned()).expect("a Set-Cookie line that another library reads");
        let path = cookie.path().unwrap_or("/").to_owned();
        let secure = cookie.secure() == Some(true);
        let partitioned = cookie.partitioned() == Some(true);
        let (domain, host_only) = match cookie.domain() {
            None => (host.to_owned(), true),
            Some(domain) => (domain.to_ascii_lowercase(), false),
        };
        let covers = host == domain || host.ends_with(&format!(".{domain}"));
        // "com" and the like: a public suffix is ignored, unless it is the host itself.
        let public = !domain.contains('.') && !host_only;
        let prefix_kept = !cookie.name().starts_with("__Host-") || secure && host_only && path == "/";
        let secure_kept = !cookie.name().starts_with("__Secure-") || secure;
        if !covers || public || !prefix_kept || !secure_kept || partitioned && !secure {
            return;
        }
        let scope = Scope { name: cookie.name().to_owned(), domain, host_only, path, partitioned };
        let removed = cookie.max_age().is_some_and(cookie::time::SignedDuration::is_zero);
        match self.kept.iter_mut().find(|kept| kept.scope == scope) {
            Some(_) if removed => self.kept.retain(|kept| kept.scope != scope),
            Some(kept) => cookie.value().clone_into(&mut kept.value),
            None if removed => {}
            None => self.kept.push(Kept { scope, value: cookie.value().to_owned() }),
        }
    }

    /// The `Cookie` header of a request to `host` and `path`, in the order in which the cookies were made, or the reverse:
    /// engines differ, so no rule may depend on it.
    pub(crate) fn header(&self, host: &str, path: &str, reverse: bool) -> Option<String> {
        let sent = self.kept.iter().filter(|Kept { scope, .. }| {
            let domain =
                scope.domain == host || !scope.host_only && host.ends_with(&format!(".{}", scope.domain));
            let within = path
                .strip_prefix(&scope.path)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('/') || scope.path.ends_with('/'));
            domain && within
        });
        let mut pairs: Vec<_> = sent.map(|kept| format!("{}={}", kept.scope.name, kept.value)).collect();
        if reverse {
            pairs.reverse();
        }
        (!pairs.is_empty()).then(|| pairs.join("; "))
    }

    pub(crate) fn names(&self) -> Vec<&str> {
        self.kept.iter().map(|kept| kept.scope.name.as_str()).collect()
    }
}
