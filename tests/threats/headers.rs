//! Headers of the response: caches that must not keep it, and one line of ours among those of others.

use std::sync::Arc;

use http::header::{CACHE_CONTROL, HeaderValue, VARY};
use http::{Method, Request, Response};
use hyper::service::{Service, service_fn};
use hyper_session::cookie::CookieOptions;
use hyper_session::{Error, Session, SessionExt, SessionService};

use crate::attack_fixture::{Act, Kind, NAME, Options, Rows, VALUE, on_both};
use crate::support::{Body, Jar, block_on, request, set_cookies, status};

/// A way to look at a session, and what it saw.
type Look = fn(&Session) -> String;

#[test]
fn t41_every_way_to_look_at_a_session_sets_vary() {
    let looks: [(&str, Look); 16] = [
        ("session() alone", |_| String::new()),
        ("get", |session| format!("{:?}", session.get::<String>("a"))),
        ("get of another type", |session| format!("{:?}", session.get::<u64>("a"))),
        ("get_str", |session| format!("{:?}", session.get_str("a"))),
        ("get_bytes", |session| format!("{:?}", session.get_bytes("a"))),
        ("get_i64", |session| format!("{:?}", session.get_i64("a"))),
        ("get_bool", |session| format!("{:?}", session.get_bool("a"))),
        ("has", |session| format!("{:?}", session.has("a"))),
        ("keys", |session| format!("{:?}", session.keys())),
        ("is_empty", |session| format!("{:?}", session.is_empty())),
        ("id", |session| format!("{:?}", session.id())),
        ("created_at", |session| format!("{:?}", session.created_at())),
        ("expires_at", |session| format!("{:?}", session.expires_at())),
        ("peek", |session| format!("{:?}", session.peek::<String>("f"))),
        ("flash of nothing", |session| format!("{:?}", session.flash::<String>("f"))),
        ("delete of nothing", |session| format!("{:?}", session.delete("absent"))),
    ];
    on_both(|_, world| async move {
        for jar in [world.jar().await, Jar::new(), Jar::with(NAME, "garbage")] {
            for (name, look) in looks {
                for code in [200, 304, 404, 500] {
                    let request = request("/", jar.header().as_deref());
                    let response = world
                        .send(request, |session| {
                            let mut response = status(code);
                            *response.body_mut() = look(session).into();
                            Ok(response)
                        })
                        .await;
                    let vary: Vec<_> = response.headers().get_all(VARY).iter().collect();
                    assert_eq!(vary, ["Cookie"], "{name}, {code}");
                }
            }
        }
    });
}

/// The response that stands for one that could not be saved was chosen by the session, too.
#[test]
fn t41_the_response_of_the_failure_hook_sets_vary() {
    block_on(async {
        let world = Options::with_cookie(CookieOptions::new().max_chunks(1)).build(Kind::Cookie);
        let handler = service_fn(|request: Request<Body>| async move {
            request.session().await?.set("a", "x".repeat(5_000))?;
            Ok::<_, Error>(status(200))
        });
        let hook = |_: &Error| Response::builder().status(404).body(Body::default()).unwrap();
        let service = SessionService::new(handler, Arc::clone(&world.store)).on_failure(hook);
        let response = service.call(request("/", None)).await.unwrap();
        assert_eq!(response.status(), 404);
        assert_eq!(response.headers().get(VARY).map(HeaderValue::as_bytes), Some(&b"Cookie"[..]));
    });
}

/// Whatever made us set a cookie.
const SETTERS: [Act; 5] = [
    |session| session.set("a", "other"),
    |session| session.set_flash("f", 1),
    Session::regenerate,
    Session::destroy,
    Session::clear,
];

#[test]
fn t43_t44_no_cache_may_keep_a_response_with_our_cookie() {
    let laxer = [
        "public",
        "public, max-age=3600",
        "s-maxage=60",
        "private",
        "max-age=0",
        "no-cache",
        "no-store-x",
        "",
    ];
    let strict = ["no-store", "NO-STORE", "private, no-store", "public, no-store"];
    on_both(|_, world| async move {
        for setter in SETTERS {
            for (given, kept) in
                laxer.map(|given| (given, false)).into_iter().chain(strict.map(|given| (given, true)))
            {
                let jar = world.jar().await;
                let response = world
                    .send(request("/", jar.header().as_deref()), |session| {
                        setter(session)?;
                        Ok(Response::builder().header(CACHE_CONTROL, given).body(Body::default()).unwrap())
                    })
                    .await;
                assert_eq!(set_cookies(response.headers()).len(), 1);
                let fields: Vec<_> = response.headers().get_all(CACHE_CONTROL).iter().collect();
                assert_eq!(fields, [if kept { given } else { "no-store" }], "{given}");
                let told = world.events.take().iter().any(|event| event == "cache_control_replaced");
                assert_eq!(told, !kept, "{given}");
            }
        }
    });
}

#[test]
fn t45_t46_t47_one_line_of_ours_and_all_else_untouched() {
    let given = [
        ("x-first", "1"),
        ("set-cookie", "theme=dark; Path=/"),
        ("set-cookie", "__Host-session=the handler's"),
        ("link", "</a>; rel=preload, </b>"),
        ("set-cookie", "__Host-Session=another name"),
        ("link", "</c>"),
        ("set-cookie", "a=b, c=d"),
        ("vary", "accept"),
    ];
    on_both(|_, world| async move {
        for setter in SETTERS {
            let jar = world.jar().await;
            let response = world
                .send(request("/", jar.header().as_deref()), |session| {
                    setter(session)?;
                    let mut response = status(200);
                    for (name, value) in given {
                        response.headers_mut().append(name, value.parse().unwrap());
                    }
                    Ok(response)
                })
                .await;
            let headers = response.headers();
            let lines = set_cookies(headers);
            assert_eq!(lines[..3], ["theme=dark; Path=/", "__Host-Session=another name", "a=b, c=d"]);
            assert_eq!(lines.len(), 4, "{lines:?}");
            assert!(
                lines[3].starts_with("__Host-session=") && lines[3].contains("; Path=/; Secure; HttpOnly")
            );
            assert!(world.events.take().contains(&"set_cookie_replaced".to_owned()));
            assert_eq!(headers["x-first"], "1");
            assert_eq!(
                headers.get_all("link").iter().collect::<Vec<_>>(),
                ["</a>; rel=preload, </b>", "</c>"]
            );
            assert_eq!(headers.get_all(VARY).iter().collect::<Vec<_>>(), ["accept", "Cookie"]);
            assert_eq!(headers.keys().len(), 5, "{:?}", headers.keys());
        }
    });
}

#[test]
fn t48_secure_is_not_inferred_from_the_request() {
    on_both(|_, world| async move {
        for uri in ["/", "http://example.com/", "https://example.com/", "http://localhost/"] {
            let mut request = request(uri, None);
            request.headers_mut().insert("x-forwarded-proto", "http".parse().unwrap());
            let response = world.send(request, |session| session.set("a", 1).map(|()| status(200))).await;
            let lines = set_cookies(response.headers());
            assert!(lines[0].contains("; Secure;") && lines[0].contains("; HttpOnly;"), "{lines:?}");
        }
    });
}

#[test]
fn t49_statuses_and_methods() {
    on_both(|_, world| async move {
        for method in [Method::GET, Method::HEAD, Method::OPTIONS, Method::POST] {
            for code in [100, 101, 103, 199, 200, 204, 205, 206, 304, 404] {
                let send = async |jar: &mut Jar, act: Act| {
                    let mut request = request("/", jar.header().as_deref());
                    *request.method_mut() = method.clone();
                    let response = world.send(request, |session| act(session).map(|()| status(code))).await;
                    jar.store(response.headers());
                    assert_eq!(response.status(), code);
                    set_cookies(response.headers()).len()
                };
                let informational = code < 200;
                let expected = usize::from(!informational);
                let case = format!("{method} {code}");

                // A new session, a changed one, a regenerated one: with the cookie, or not at all.
                let mut jar = Jar::new();
                assert_eq!(send(&mut jar, |session| session.set("a", VALUE)).await, expected, "{case}");
                let told = if informational { vec!["dropped:informational".to_owned()] } else { vec![] };
                assert_eq!(world.events.take(), told, "{case}");
                let mut jar = world.jar().await;
                assert_eq!(send(&mut jar, |session| session.set("a", "changed")).await, expected, "{case}");
                let value = if informational { VALUE } else { "changed" };
                assert_eq!(world.value(&jar).await.as_deref(), Some(value), "{case}");
                assert_eq!(send(&mut jar, Session::regenerate).await, expected, "{case}");
                assert_eq!(
                    world.value(&jar).await.as_deref(),
                    Some(value),
                    "{case}: no client is locked out"
                );
                assert_eq!(send(&mut jar, Session::destroy).await, expected, "{case}");
                let garbage = Jar::with(NAME, "garbage"); // another application's, perhaps
                assert_eq!(send(&mut garbage.clone(), |_| Ok(())).await, 0, "{case}");
                world.events.take();
            }
        }
    });
}

#[test]
fn t49_a_destroy_under_1xx_is_done_in_the_store() {
    block_on(async {
        let rows = Rows::default();
        let world = Options::default().over(&rows);
        let jar = world.jar().await;
        let request = request("/", jar.header().as_deref());
        let response = world.send(request, |session| session.destroy().map(|()| status(101))).await;
        assert_eq!(set_cookies(response.headers()), [""; 0]);
        assert_eq!(rows.ids(), []);
    });
}
