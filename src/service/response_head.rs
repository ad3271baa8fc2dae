//! The response headers for the session: `Vary`, `Cache-Control` and `Set-Cookie`. Pure functions.

use http::HeaderMap;
use http::header::{CACHE_CONTROL, Entry, HeaderName, HeaderValue, SET_COOKIE, VARY};

use crate::cookie::{CookieName, CookieTemplate, SetCookies, cookie_name_of, trim};

/// Returns true if a header is addressed to some caches, which then ignore `Cache-Control` (RFC 9213 section 2.2, and older
/// headers): `CDN-Cache-Control` and those of one operator, `Surrogate-Control`, Akamai's `Edge-Control`, nginx's
/// `X-Accel-Expires`.
fn is_targeted(name: &HeaderName) -> bool {
    let name = name.as_str();
    // Most names are shorter than the shortest of these.
    if name.len() < "edge-control".len() {
        return false;
    }
    name.ends_with("-cache-control")
        || name.ends_with("edge-control")
        || name.starts_with("akamai-") && name.ends_with("-control")
        || matches!(name, "surrogate-control" | "x-accel-expires")
}

/// Adds `Cookie` to `Vary`, unless it is there already.
//= RFC 9110 section 12.5.5: "A list containing the member "*" signals that other aspects of the request might have
//# played a role in selecting the response representation"
pub(super) fn vary_on_cookie(headers: &mut HeaderMap) {
    let says_so = |field: &HeaderValue| {
        let mut members = field.as_bytes().split(|&byte| byte == b',').map(trim);
        members.any(|member| member == b"*" || member.eq_ignore_ascii_case(b"cookie"))
    };
    let cookie = HeaderValue::from_static("Cookie");
    match headers.entry(VARY) {
        Entry::Vacant(fields) => {
            fields.insert(cookie);
        }
        Entry::Occupied(fields) if fields.iter().any(says_so) => {}
        Entry::Occupied(mut fields) => fields.append(cookie),
    }
}

/// Forbids caches to store a response. Returns true if that replaced a laxer directive of the handler.
//= RFC 9111 section 7.3: "the presence of the Set-Cookie response header field does not inhibit caching"
pub(super) fn forbid_storing(headers: &mut HeaderMap) -> bool {
    let names = headers.keys().filter(|name| is_targeted(name) && !keeps_out(headers, name));
    let laxer: Vec<HeaderName> = names.cloned().collect();
    for name in &laxer {
        headers.remove(name);
    }
    let replaced = !laxer.is_empty();
    let no_store = HeaderValue::from_static("no-store");
    match headers.entry(CACHE_CONTROL) {
        Entry::Vacant(fields) => {
            fields.insert(no_store);
            replaced
        }
        Entry::Occupied(fields) if says_no_store(fields.iter()) => replaced,
        Entry::Occupied(mut fields) => {
            fields.insert(no_store);
            true
        }
    }
}

/// The statement of a response about the session's cookie, before the session service has said anything.
pub(super) enum Said {
    Nothing,
    /// The cookie is set to this text. If it is a token, a session service inside of this one set it, or one behind it to
    /// which the handler passed the request on.
    Session {
        token: Vec<u8>,
    },
    /// The cookie is removed in the present scope.
    EndOfSession {
        /// A session service in this process removed it. Otherwise it is such a service in another process, or the handler.
        by_service: bool,
    },
    /// The handler removed a cookie of that name in another scope.
    Other,
}

/// Returns true if a `Set-Cookie` field sets or removes the cookie `name`, or a chunk of it.
pub(super) fn speaks_of(headers: &HeaderMap, name: &CookieName) -> bool {
    headers.get_all(SET_COOKIE).iter().any(|line| is_of(line, name))
}

fn is_of(line: &HeaderValue, name: &CookieName) -> bool {
    match cookie_name_of(line.as_bytes()).strip_prefix(name.as_str().as_bytes()) {
        Some([] | [b'.', b'1'..=b'7']) => true,
        Some(_) | None => false,
    }
}

/// Returns what the response says about the cookie of `template`.
///
/// Session services mark their fields as sensitive, which keeps tokens out of logs. Handlers rarely do. The mark is lost where
/// a response came over a network. A removal is then known by its text: one in another scope may be a handler's.
pub(super) fn said(headers: &HeaderMap, template: &CookieTemplate) -> Said {
    let name = template.name();
    let mut token = Vec::new();
    let (mut present, mut is_marked, mut is_removal) = (false, false, false);
    for line in headers.get_all(SET_COOKIE).iter().filter(|line| is_of(line, name)) {
        present = true;
        is_marked |= line.is_sensitive();
        is_removal |= template.is_removal(line);
        // Chunks are set in order. Removed chunks are empty.
        token.extend_from_slice(value_of(line));
    }
    match present {
        false => Said::Nothing,
        true if !token.is_empty() => Said::Session { token },
        true if is_marked || is_removal => Said::EndOfSession { by_service: is_marked },
        true => Said::Other,
    }
}

/// Returns the value of the cookie that a line sets. It is empty if the line removes the cookie.
fn value_of(line: &HeaderValue) -> &[u8] {
    let pair = line.as_bytes().split(|&byte| byte == b';').next().unwrap_or_default();
    pair.splitn(2, |&byte| byte == b'=').nth(1).unwrap_or_default()
}

/// Copies the `Set-Cookie` fields of session services from one response to its replacement. Returns true if there were any.
/// See [`said`].
pub(super) fn keep_session_lines(from: &HeaderMap, to: &mut HeaderMap) -> bool {
    let mut kept = false;
    for line in from.get_all(SET_COOKIE).iter().filter(|line| line.is_sensitive()) {
        to.append(SET_COOKIE, line.clone());
        kept = true;
    }
    kept
}

/// Returns true if each cache has to obey `no-store`: beside `must-understand`, caches that know the status ignore it.
//= RFC 9111 section 5.2.2.3: "When a cache that implements the must-understand directive receives a response that includes it,
//# the cache SHOULD ignore the no-store directive if it understands and implements the status code's caching requirements"
fn says_no_store<'a>(fields: impl Iterator<Item = &'a HeaderValue>) -> bool {
    let (mut no_store, mut must_understand) = (false, false);
    for (directive, _) in fields.flat_map(|field| directives(field.as_bytes())) {
        no_store |= directive.eq_ignore_ascii_case(b"no-store");
        must_understand |= directive.eq_ignore_ascii_case(b"must-understand");
    }
    no_store && !must_understand
}

/// Returns true if the caches that obey the targeted header `name` store nothing by it. To nginx, `X-Accel-Expires: 0` says so. In a
/// field with the directives of `Cache-Control` (RFC 9213 section 2.1), so does `private`, because these caches are shared.
/// `X-LiteSpeed-Cache-Control: private` stores a response for its user. `Surrogate-Control` and `Edge-Control` do not have that
/// directive: it is ignored there.
fn keeps_out(headers: &HeaderMap, name: &HeaderName) -> bool {
    if says_no_store(headers.get_all(name).iter()) {
        return true;
    }
    if name == "x-accel-expires" {
        let mut fields = headers.get_all(name).iter();
        return fields.all(|field| matches!(trim(field.as_bytes()), b"0"));
    }
    if !name.as_str().ends_with("-cache-control") || name == "x-litespeed-cache-control" {
        return false;
    }
    let is_private = |field: &HeaderValue| {
        directives(field.as_bytes())
            .any(|(directive, argument)| directive.eq_ignore_ascii_case(b"private") && !argument)
    };
    headers.get_all(name).iter().any(is_private)
}

/// Sets the session's cookies, each line as a header of its own, and removes existing lines of the same names. Returns true
/// if a handler had set one of those, or another session service had set a token. Other cookies stay, in order.
///
/// Several lines of the session service may have one name, in different scopes: one line sets the cookie, and others expire
/// it in the scopes of earlier options. To a browser those are different cookies.
//= RFC 6265bis section 4.1.1: "Servers SHOULD NOT include more than one Set-Cookie header field in the same response with
//# the same cookie-name"
//= RFC 9110 section 5.3: a Set-Cookie field is never combined with another into one line
pub(super) fn replace_set_cookie(headers: &mut HeaderMap, name: &CookieName, lines: SetCookies) -> bool {
    let mut replaces = false;
    // Few responses set another cookie.
    if headers.contains_key(SET_COOKIE) {
        let mut present = headers.get_all(SET_COOKIE).iter();
        replaces =
            present.any(|line| is_of(line, name) && (!line.is_sensitive() || !value_of(line).is_empty()));
        remove_where(headers, &SET_COOKIE, |line| {
            let set = cookie_name_of(line.as_bytes());
            set == name.as_str().as_bytes() || lines.iter().any(|ours| cookie_name_of(ours.as_bytes()) == set)
        });
    }
    for line in lines {
        headers.append(SET_COOKIE, line);
    }
    replaces
}

/// Removes the fields of `name` whose value `unwanted` selects.
fn remove_where(headers: &mut HeaderMap, name: &HeaderName, unwanted: impl Fn(&HeaderValue) -> bool) {
    if !headers.get_all(name).iter().any(&unwanted) {
        return;
    }
    let kept: Vec<HeaderValue> =
        headers.get_all(name).iter().filter(|value| !unwanted(value)).cloned().collect();
    headers.remove(name);
    for value in kept {
        headers.append(name, value);
    }
}

/// Returns the names of the directives of a `Cache-Control` field, and whether each has an argument. Quoted arguments may contain
/// commas, and are not directives.
fn directives(field: &[u8]) -> impl Iterator<Item = (&[u8], bool)> {
    let (mut quoted, mut escaped) = (false, false);
    let separator = move |byte: &u8| {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            b',' => return !quoted,
            _ => {}
        }
        false
    };
    field.split(separator).map(|directive| {
        let mut parts = directive.split(|&byte| byte == b'=');
        (trim(parts.next().unwrap_or_default()), parts.next().is_some())
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cookie::CookieOptions;

    fn headers(name: &HeaderName, values: &[&str]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(name, HeaderValue::from_str(value).unwrap());
        }
        headers
    }

    fn values(headers: &HeaderMap, name: &HeaderName) -> Vec<String> {
        headers.get_all(name).iter().map(|value| value.to_str().unwrap().to_owned()).collect()
    }

    // T42: CVE-2026-48587, CVE-2026-6907.
    #[test]
    fn t42_vary_is_merged() {
        for (before, after) in [
            (&[][..], &["Cookie"][..]),
            (&["Accept"], &["Accept", "Cookie"]),
            (&["cookie"], &["cookie"]),
            (&["Accept,\tCOOKIE "], &["Accept,\tCOOKIE "]),
            (&["Accept", "Cookie, Origin"], &["Accept", "Cookie, Origin"]),
            (&["*"], &["*"]),
            (&["Accept, *"], &["Accept, *"]),
            (&["Cookie-Consent, X-Cookie"], &["Cookie-Consent, X-Cookie", "Cookie"]),
            (&[""], &["", "Cookie"]),
        ] {
            let mut headers = headers(&VARY, before);
            vary_on_cookie(&mut headers);
            assert_eq!(values(&headers, &VARY), after, "{before:?}");
            vary_on_cookie(&mut headers);
            assert_eq!(values(&headers, &VARY), after, "twice: {before:?}");
        }
    }

    #[test]
    fn t43_only_no_store_is_strict_enough() {
        for (before, after, replaced) in [
            (&[][..], &["no-store"][..], false),
            (&["no-store"], &["no-store"], false),
            (&["private, No-Store, max-age=0"], &["private, No-Store, max-age=0"], false),
            (&["private", "no-store"], &["private", "no-store"], false),
            (&["public, max-age=600"], &["no-store"], true),
            (&["s-maxage=10"], &["no-store"], true),
            (&["private"], &["no-store"], true),
            (&["no-cache=\"Set-Cookie, no-store\""], &["no-store"], true),
            (&["private=\"a\\\", no-store\""], &["no-store"], true),
            (&["x=\"a,b\", no-store"], &["x=\"a,b\", no-store"], false),
            // Quoted, also after an escaped quote; and a backslash outside of quotes escapes nothing.
            (&["no-cache=\"a, no-store, b\""], &["no-store"], true),
            (&["x=\"a\\\", no-store, b\""], &["no-store"], true),
            (&["x=\"a\\\\\", no-store"], &["x=\"a\\\\\", no-store"], false),
            (&["x=\\, no-store"], &["x=\\, no-store"], false),
            (&["no-store-please"], &["no-store"], true),
            (&["must-understand, no-store, max-age=600"], &["no-store"], true),
            (&["no-store", "Must-Understand"], &["no-store"], true),
        ] {
            let mut headers = headers(&CACHE_CONTROL, before);
            assert_eq!(forbid_storing(&mut headers), replaced, "{before:?}");
            assert_eq!(values(&headers, &CACHE_CONTROL), after, "{before:?}");
        }
    }

    #[test]
    fn t44_caches_with_a_header_of_their_own_are_told_nothing_else() {
        for name in [
            "cdn-cache-control",
            "cloudflare-cdn-cache-control",
            "vercel-cdn-cache-control",
            "netlify-cdn-cache-control",
            "akamai-cache-control",
            "akamai-edge-control",
            "x-litespeed-cache-control",
            "surrogate-control",
            "edge-control",
            "x-accel-expires",
        ] {
            let mut headers = headers(&CACHE_CONTROL, &["no-store"]);
            headers.insert(name, HeaderValue::from_static("max-age=600"));
            assert!(forbid_storing(&mut headers), "{name}");
            assert_eq!(headers.len(), 1, "{name}");
            // As strict as `no-store`: it stays, and nothing was replaced.
            headers.insert(name, HeaderValue::from_static("private, No-Store"));
            assert!(!forbid_storing(&mut headers), "{name}");
            assert_eq!(headers.len(), 2, "{name}");
        }
        // As strict for a shared cache.
        let strict = [
            ("cdn-cache-control", "private"),
            ("akamai-cache-control", "max-age=0, Private"),
            ("x-accel-expires", "0"),
        ];
        for (name, value) in strict {
            let mut headers = headers(&CACHE_CONTROL, &["no-store"]);
            headers.insert(name, HeaderValue::from_static(value));
            assert!(!forbid_storing(&mut headers), "{name}");
            assert_eq!(headers.len(), 2, "{name}");
        }
        let laxer = [
            ("cdn-cache-control", "private=\"set-cookie\""),
            ("surrogate-control", "private"),
            ("edge-control", "private"),
            ("akamai-edge-control", "private"),
            ("x-litespeed-cache-control", "private"),
            ("x-accel-expires", "00:10"),
            ("x-accel-expires", "@0"),
            ("x-accel-expires", "private"),
        ];
        for (name, value) in laxer {
            let mut headers = headers(&CACHE_CONTROL, &["no-store"]);
            headers.insert(name, HeaderValue::from_static(value));
            assert!(forbid_storing(&mut headers), "{name}: {value}");
        }
        // Names that only look similar.
        let similar = [
            "x-cache",
            "surrogate-key",
            "expires",
            "cache-controls",
            "akamai-cache-status",
            "x-flow-control",
        ];
        for name in similar {
            let mut headers = headers(&CACHE_CONTROL, &["no-store"]);
            headers.insert(name, HeaderValue::from_static("600"));
            assert!(!forbid_storing(&mut headers), "{name}");
            assert_eq!(headers.len(), 2, "{name}");
        }
    }

    // T45, T46, T47.
    #[test]
    fn t45_one_line_for_one_name_and_the_others_as_they_were() {
        let template = CookieOptions::development().name("s").validate().unwrap();
        let ours = template.set(b"new", std::time::Duration::from_secs(9), 0b10).unwrap();
        let mut headers =
            headers(&SET_COOKIE, &["a=1", "s=old; Path=/x", "b=2; Path=/", "s.1=stale", "ss=3"]);
        assert!(replace_set_cookie(&mut headers, template.name(), ours.clone()));
        let lines = values(&headers, &SET_COOKIE);
        assert_eq!(lines[..3], ["a=1", "b=2; Path=/", "ss=3"]);
        assert!(lines[3].starts_with("s=new;") && lines[4].starts_with("s.1=; Max-Age=0"), "{lines:?}");
        assert_eq!(lines.len(), 5);

        let mut headers = super::tests::headers(&SET_COOKIE, &["a=1"]);
        assert!(!replace_set_cookie(&mut headers, template.name(), ours));
        assert_eq!(values(&headers, &SET_COOKIE).len(), 3);
    }

    /// A line of the handler is replaced, also one that removes the cookie. So is a token of another session service, and not the
    /// removal by one.
    #[test]
    fn t45_a_replaced_line_is_reported_unless_a_session_service_removed_the_cookie() {
        let template = CookieOptions::development().name("s").validate().unwrap();
        for (line, by_service, replaced) in [
            ("s=old", false, true),
            ("s=; Max-Age=0", false, true),
            ("s=token", true, true),
            ("s=; Max-Age=0", true, false),
            ("a=1", false, false),
        ] {
            let mut field = HeaderValue::from_static(line);
            field.set_sensitive(by_service);
            let mut headers = HeaderMap::new();
            headers.insert(SET_COOKIE, field);
            let ours = template.set(b"new", std::time::Duration::from_secs(9), 0).unwrap();
            assert_eq!(replace_set_cookie(&mut headers, template.name(), ours), replaced, "{line}");
        }
    }
}
