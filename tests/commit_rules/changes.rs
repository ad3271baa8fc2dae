//! Values of a session that a handler did not ask for, read, changed, emptied, or showed once.

use std::fmt::Debug;

use http::header::{CACHE_CONTROL, HeaderValue, SET_COOKIE, VARY};
use http::{Response, Version};
use hyper_session::{Clock, Error, Refusal, Session};

use crate::spy_store::{
    Act, Ask, IDLE, RENEWAL, START, Verb, assert_no_cookie, assert_removed, assert_set, everywhere, ordered,
    pairs,
};
use crate::support::{Body, Jar, refused, set_cookies, status, text};

// Never asked.

/// "never asked for the session | no decode, no store call, response untouched byte for byte"
#[test]
fn never_asked_leaves_the_response_as_it_is() {
    #[derive(Clone, Debug, PartialEq)]
    struct Marker(u32);

    fn original() -> Response<Body> {
        Response::builder()
            .status(203)
            .version(Version::HTTP_10)
            .header("set-cookie", "a=1; Path=/")
            .header("vary", " Accept ,\tx")
            .header("set-cookie", "__Host-s=handler")
            .header("cache-control", "public, max-age=60")
            .header("x-bytes", HeaderValue::from_bytes(b"\xff\tq").unwrap())
            .extension(Marker(7))
            .body(Body::from("exactly this"))
            .unwrap()
    }

    everywhere(|world| async move {
        let valid = world.jar().await;
        for jar in [valid, Jar::new(), Jar::with(world.name(), "garbage")] {
            let response = world.visit(&mut jar.clone(), |_| async { Ok(original()) }).await;
            assert_eq!(response.status(), 203);
            assert_eq!(response.version(), Version::HTTP_10);
            assert_eq!(ordered(response.headers()), ordered(original().headers()));
            assert_eq!(response.extensions().get::<Marker>(), Some(&Marker(7)));
            assert_eq!(text(response).await, "exactly this");
        }
        assert_eq!(world.calls(), [] as [Verb; 0]);
        assert_eq!(world.events.take(), [""; 0]);
    });
}

// Read only.

/// "read only | `Vary: Cookie` merged in; no `Set-Cookie` unless the renewal threshold is passed"
#[test]
fn read_only_sets_no_cookie_until_the_renewal_threshold_then_one() {
    everywhere(|world| async move {
        let mut jar = world.jar().await;
        let read = |session: &Session| {
            assert_eq!(session.get::<u64>("a")?, Some(1));
            Ok(())
        };
        for seconds in [0, 1, 99] {
            world.clock.set(START + seconds);
            let response = world.edit(&mut jar, read).await;
            assert_no_cookie(&response);
            assert_eq!(response.headers()[VARY], "Cookie");
            assert!(!response.headers().contains_key(CACHE_CONTROL));
        }
        assert!(world.calls().iter().all(|verb| *verb == Verb::Fetch));

        world.clock.set(START + RENEWAL.as_secs());
        assert_set(&world, &world.edit(&mut jar, read).await);
        assert_no_cookie(&world.edit(&mut jar, read).await);
        if world.server.is_some() {
            let calls = [Verb::Fetch, Verb::Touch, Verb::Fetch, Verb::Fetch];
            assert_eq!(world.calls(), calls, "renewed without a rewrite, and looked at once more");
        }
        let (_, created, expires) = world.facts(&jar).await;
        assert_eq!(created.as_unix(), START);
        assert_eq!(expires, world.clock.now().saturating_add(IDLE));
    });
}

/// "read only | `Vary: Cookie` merged in"
#[test]
fn vary_is_merged_not_replaced() {
    let cases: [(&[&str], &[&str]); 7] = [
        (&[], &["Cookie"]),
        (&["Accept"], &["Accept", "Cookie"]),
        (&["Accept", "X-A, x-b"], &["Accept", "X-A, x-b", "Cookie"]),
        (&["cookie"], &["cookie"]),
        (&["Accept,\tCOOKIE ,x"], &["Accept,\tCOOKIE ,x"]),
        (&["*"], &["*"]),
        (&["X-Cookie, Cookies"], &["X-Cookie, Cookies", "Cookie"]),
    ];
    everywhere(|world| async move {
        let jar = world.jar().await;
        for (given, expected) in cases {
            let handler = move |ask: Ask| async move {
                ask.session().await?;
                let mut response = status(200);
                for field in given {
                    response.headers_mut().append(VARY, field.parse().unwrap());
                }
                Ok(response)
            };
            let response = world.visit(&mut jar.clone(), handler).await;
            let vary: Vec<_> = response.headers().get_all(VARY).iter().map(|v| v.to_str().unwrap()).collect();
            assert_eq!(vary, expected, "{given:?}");
        }
    });
}

// Changed.

/// "changed a value | saved; one `Set-Cookie` for this name; `Cache-Control: no-store` unless the handler set something
/// at least as strict"
#[test]
fn a_changed_value_is_saved_with_one_cookie() {
    everywhere(|world| async move {
        let mut jar = world.jar().await;
        assert_set(&world, &world.edit(&mut jar, |session| session.set("b", 2_u64)).await);
        assert_eq!(world.values(&jar).await, pairs(&[("a", 1), ("b", 2)]));
        assert_set(&world, &world.edit(&mut jar, |session| session.delete("a").map(drop)).await);
        assert_eq!(world.values(&jar).await, pairs(&[("b", 2)]));
        let add = |session: &Session| session.update("b", |old: Option<u64>| old.unwrap_or(0) + 5).map(drop);
        assert_set(&world, &world.edit(&mut jar, add).await);
        assert_eq!(world.values(&jar).await, pairs(&[("b", 7)]));
        if world.server.is_some() {
            assert_eq!(world.rows().await, 1);
        }
    });
}

/// "`Cache-Control: no-store` unless the handler set something at least as strict"
#[test]
fn a_response_with_our_cookie_is_stored_by_no_cache() {
    let cases: [(&[&str], &[&str], bool); 7] = [
        (&[], &["no-store"], false),
        (&["no-store"], &["no-store"], false),
        (&["private, No-Store , max-age=0"], &["private, No-Store , max-age=0"], false),
        (&["max-age=0", "no-store"], &["max-age=0", "no-store"], false),
        (&["public, max-age=60"], &["no-store"], true),
        (&["private"], &["no-store"], true),
        (&["private=\"x, no-store\""], &["no-store"], true),
    ];
    everywhere(|world| async move {
        for (given, expected, replaced) in cases {
            let handler = move |ask: Ask| async move {
                ask.session().await?.set("a", 1_u64)?;
                let mut response = status(200);
                for field in given {
                    response.headers_mut().append(CACHE_CONTROL, field.parse().unwrap());
                }
                Ok(response)
            };
            let response = world.visit(&mut Jar::new(), handler).await;
            let fields: Vec<_> =
                response.headers().get_all(CACHE_CONTROL).iter().map(|v| v.to_str().unwrap()).collect();
            assert_eq!(fields, expected, "{given:?}");
            let told = world.events.take().contains(&"cache_control_replaced".to_owned());
            assert_eq!(told, replaced, "{given:?}");
        }
    });
}

/// "one `Set-Cookie` for this name"
#[test]
fn the_handlers_cookie_of_our_name_is_replaced_and_others_stay() {
    everywhere(|world| async move {
        let handler = |ask: Ask| async move {
            ask.session().await?.set("a", 1_u64)?;
            let mut response = status(200);
            for line in ["x=1", "__Host-s=mine; Path=/", "__Host-sx=2", " __Host-s =mine", "y=3, z=4"] {
                response.headers_mut().append(SET_COOKIE, line.parse().unwrap());
            }
            Ok(response)
        };
        let mut jar = Jar::new();
        let response = world.visit(&mut jar, handler).await;
        let lines = set_cookies(response.headers());
        assert_eq!(lines[..3], ["x=1", "__Host-sx=2", "y=3, z=4"]);
        assert_eq!(lines.len(), 4, "{lines:?}");
        assert!(world.events.take().contains(&"set_cookie_replaced".to_owned()));
        assert_eq!(world.values(&jar).await, pairs(&[("a", 1)]));
    });
}

/// "set a value equal to the present one | not a change"
#[test]
fn an_equal_value_is_no_change() {
    everywhere(|world| async move {
        let mut jar = world.jar().await;
        let edits: [Act; 6] = [
            |session| session.set("a", 1_u64),
            |session| session.set("a", 2_u64).and_then(|()| session.set("a", 1_u64)),
            |session| session.delete("a").and_then(|_| session.set("a", 1_u64)),
            |session| session.update("a", |old: Option<u64>| old.unwrap()).map(drop),
            |session| session.set("b", 2_u64).and_then(|()| session.delete("b")).map(drop),
            |session| session.delete("absent").map(drop),
        ];
        for (number, edit) in edits.into_iter().enumerate() {
            assert_no_cookie(&world.edit(&mut jar, edit).await);
            assert!(world.calls().iter().all(|verb| *verb == Verb::Fetch), "edit {number}");
        }
    });
}

// Left empty.

/// "left it empty (clear, last delete) | destroyed, cookie removed"
#[test]
fn left_empty_is_destroyed() {
    everywhere(|world| async move {
        let edits: [Act; 3] = [
            Session::clear,
            |session| session.delete("a").map(drop),
            |session| session.set("b", 2_u64).and_then(|()| session.clear()),
        ];
        for edit in edits {
            let mut jar = world.jar().await;
            let old = jar.clone();
            assert_removed(&world, &world.edit(&mut jar, edit).await);
            assert!(jar.0.is_empty());
            if world.server.is_some() {
                assert_eq!(world.rows().await, 0);
                assert!(world.look(&old, Session::is_empty).await);
                assert_eq!(world.events.take(), [refused(Refusal::UnknownId)]);
            }
        }
        // The last flash value, taken, leaves it empty, too.
        let mut jar = Jar::new();
        world.edit(&mut jar, |session| session.set_flash("f", 1_u64)).await;
        assert_removed(&world, &world.edit(&mut jar, |session| session.flash::<u64>("f").map(drop)).await);
    });
}

/// "never stored anything (anonymous) | nothing is created, anywhere" (T71)
#[test]
fn t71_anonymous_requests_create_nothing_anywhere() {
    everywhere(|world| async move {
        let edits: [(&str, Act); 13] = [
            ("nothing", |_| Ok(())),
            ("get", |session| session.get::<u64>("a").map(drop)),
            ("has, keys, is_empty", |session| {
                assert!(!session.has("a") && session.keys().is_empty() && session.is_empty());
                Ok(())
            }),
            ("id", |session| {
                assert_eq!((session.id(), session.created_at(), session.expires_at()), (None, None, None));
                Ok(())
            }),
            ("peek", |session| session.peek::<u64>("f").map(drop)),
            ("flash", |session| session.flash::<u64>("f").map(drop)),
            ("regenerate", Session::regenerate),
            ("destroy", Session::destroy),
            ("destroy, regenerate", |session| session.destroy().and_then(|()| session.regenerate())),
            ("clear", Session::clear),
            ("delete", |session| session.delete("a").map(drop)),
            ("set, delete", |session| session.set("a", 1).and_then(|()| session.delete("a")).map(drop)),
            ("set, destroy", |session| session.set("a", 1).and_then(|()| session.destroy())),
        ];
        for (name, edit) in edits {
            for code in [200, 500] {
                let response = world.answer(&mut Jar::new(), code, edit).await;
                assert_no_cookie(&response);
                assert_eq!(response.headers()[VARY], "Cookie", "{name}");
                assert_eq!(world.calls(), [] as [Verb; 0], "{name}");
                assert_eq!(world.events.take(), [""; 0], "{name}");
            }
        }
        let save = |ask: Ask| async move {
            let session = ask.session().await?;
            session.save().await?;
            session.regenerate()?;
            session.save().await?;
            assert_eq!(session.id(), None);
            Ok(status(200))
        };
        assert_no_cookie(&world.visit(&mut Jar::new(), save).await);
        assert_eq!(world.calls(), [] as [Verb; 0]);
    });
}

// Flash values.

#[test]
fn a_flash_value_is_seen_once() {
    everywhere(|world| async move {
        let mut jar = world.jar().await;
        assert_set(&world, &world.edit(&mut jar, |session| session.set_flash("f", 3_u64)).await);
        let peek = |session: &Session| {
            assert_eq!(session.peek::<u64>("f")?, Some(3));
            assert_eq!(
                (session.keys(), session.has("f")),
                (vec!["a".to_owned()], false),
                "a namespace of its own"
            );
            Ok(())
        };
        assert_no_cookie(&world.edit(&mut jar, peek).await);
        let take = |session: &Session| {
            assert_eq!(session.flash::<u64>("f")?, Some(3));
            assert_eq!(session.flash::<u64>("f")?, None);
            Ok(())
        };
        assert_set(&world, &world.edit(&mut jar, take).await);
        assert_eq!(world.look(&jar, |session| session.peek::<u64>("f").unwrap()).await, None);
        assert_eq!(world.values(&jar).await, pairs(&[("a", 1)]));
    });
}

/// "returned a 5xx | data changes dropped": a flash value that the user did not see is still there.
#[test]
fn a_flash_value_is_kept_when_the_handler_fails() {
    everywhere(|world| async move {
        let mut jar = world.jar().await;
        world.edit(&mut jar, |session| session.set_flash("f", 3_u64)).await;
        let take = |session: &Session| {
            assert_eq!(session.flash::<u64>("f")?, Some(3));
            Ok(())
        };
        assert_no_cookie(&world.answer(&mut jar, 500, take).await);
        let fails = |ask: Ask| async move {
            assert_eq!(ask.session().await?.flash::<u64>("f")?, Some(3));
            Err(Error::unavailable("the handler's own trouble"))
        };
        assert_no_cookie(&world.visit(&mut jar, fails).await);
        assert_set(&world, &world.edit(&mut jar, take).await);
        assert_eq!(world.look(&jar, |session| session.peek::<u64>("f").unwrap()).await, None);
    });
}
