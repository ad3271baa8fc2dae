//! A service that is reached both by http and by https: the cookie has the attributes that the request's scheme allows.

use std::sync::Arc;

use hyper::service::Service;
use hyper_session::cookie::{CookieOptions, SameSite};
use hyper_session::store::{Builder, Memory, Store};
use hyper_session::{AppKey, CookieStore, Error, MemoryStore, Session, SessionHandle, session_fn};

use crate::stores::Act;
use crate::support::{Jar, block_on, request, set_cookies, status};

/// By the authority of HTTP/2, or by a proxy's word.
fn both_ways<K>(builder: Builder<K>, cookie: CookieOptions) -> Builder<K> {
    builder.cookie(cookie).plain_http_on(|uri, headers| {
        uri.scheme_str() == Some("http") || headers.get("x-forwarded-proto").is_some_and(|it| it == "http")
    })
}

fn stores(cookie: &CookieOptions) -> [Arc<dyn Store>; 2] {
    let keys = AppKey::generate().unwrap();
    [
        Arc::new(both_ways(CookieStore::builder(keys), cookie.clone()).build().unwrap()),
        Arc::new(both_ways::<Memory>(MemoryStore::builder(), cookie.clone()).build().unwrap()),
    ]
}

async fn lines(
    store: &Arc<dyn Store>,
    jar: &mut Jar,
    uri: &str,
    proto: Option<&str>,
    act: Act,
) -> Vec<String> {
    let service = session_fn(store.clone(), |_: http::Request<_>, handle: SessionHandle| async move {
        act(&handle.load().await?)?;
        Ok::<_, Error>(status(200))
    });
    let mut request = request(uri, jar.header().as_deref());
    if let Some(proto) = proto {
        request.headers_mut().insert("x-forwarded-proto", proto.parse().unwrap());
    }
    let response = service.call(request).await.unwrap();
    jar.store(response.headers());
    set_cookies(response.headers())
}

#[test]
fn the_cookie_has_the_attributes_that_the_scheme_allows() {
    let cookie =
        CookieOptions::new().name("s").same_site(SameSite::None).partitioned(true).retired_path("/former");
    block_on(async {
        for store in stores(&cookie) {
            for (uri, proto, secure) in [
                ("http://a.example/", None, false),
                ("https://a.example/", None, true),
                ("/", Some("http"), false),
                ("/", Some("https"), true),
                ("/", None, true),
            ] {
                let mut jar = Jar::new();
                let acts: [Act; 3] = [
                    |session| session.login("ada"),
                    |session| session.set("big", "x".repeat(5_000)),
                    Session::destroy,
                ];
                for act in acts {
                    let lines = lines(&store, &mut jar, uri, proto, act).await;
                    assert!(!lines.is_empty());
                    for line in lines {
                        let has = |attribute| line.split("; ").any(|part| part == attribute);
                        assert_eq!(has("Secure"), secure, "{uri} {line}");
                        // A logout also expires the cookie in the other partition.
                        let one_of_two = line.contains("Max-Age=0") && secure;
                        assert!(one_of_two || has("Partitioned") == secure, "{uri} {line}");
                        assert!(has(if secure { "SameSite=None" } else { "SameSite=Lax" }), "{uri} {line}");
                        assert!(has("HttpOnly"), "{line}");
                    }
                }
                assert!(jar.0.is_empty(), "the logout removes what was set: {jar:?}");
            }
        }
    });
}

/// A session that was set over one scheme is valid over the other, where the browser sends it.
#[test]
fn a_session_that_began_over_http_goes_on_over_https() {
    block_on(async {
        for store in stores(&CookieOptions::new().name("s")) {
            let mut jar = Jar::new();
            lines(&store, &mut jar, "/", Some("http"), |session| session.login("ada")).await;
            let set = lines(&store, &mut jar, "/", Some("https"), |session| {
                assert_eq!(session.subject().as_deref(), Some("ada"));
                session.regenerate()
            });
            assert!(set.await[0].contains("; Secure"));
        }
    });
}

#[test]
fn a_name_that_only_https_can_have_does_not_build() {
    for name in ["__Host-s", "__Secure-s"] {
        let error = both_ways(MemoryStore::builder(), CookieOptions::new().name(name)).build().unwrap_err();
        assert!(error.is_config() && error.to_string().contains("Secure"), "{error}");
    }
}
