//! Work that no handler asked for: renewing, sealing anew, another format. If it fails, the request does not.

use http::StatusCode;
use hyper_session::cookie::CookieOptions;
use hyper_session::{AppKey, CookieStore, Keyring, PayloadFormat, Session};

use crate::spy_store::{Act, IDLE, RENEWAL, Verb, assert_no_cookie, assert_set, on_server, pairs};
use crate::support::{Answer, Body, Events, Jar, block_on, request, set_cookies, status};
use hyper::service::Service;
use hyper_session::__internals::Verbs;
use hyper_session::testing::FakeClock;
use hyper_session::{SessionHandle, session_fn};

/// A cookie store of one service, before or after its options were changed.
fn store(
    keys: &Keyring,
    chunks: u8,
    format: PayloadFormat,
    clock: &FakeClock,
    events: &Events,
) -> CookieStore {
    CookieStore::builder(keys.clone())
        .cookie(CookieOptions::new().name("__Host-s").max_chunks(chunks))
        .payload_format(format)
        .idle_timeout(IDLE)
        .renewal_threshold(RENEWAL)
        .clock(clock.clone())
        .observer(events.clone())
        .build()
        .unwrap()
}

async fn visit(store: &CookieStore, jar: &mut Jar, code: u16, act: Act) -> http::Response<Body> {
    let service =
        session_fn(store.clone(), move |_: http::Request<Body>, handle: SessionHandle| async move {
            act(&handle.load().await?)?;
            Answer::Ok(status(code))
        });
    let response = service.call(request("/", jar.header().as_deref())).await.unwrap();
    jar.store(response.headers());
    response
}

/// Each change of options makes sealing the session anew impossible. Requests that read it go on, until it expires.
#[test]
fn b1_a_session_that_cannot_be_sealed_anew_goes_on_as_it_is() {
    let fill: [(Act, u8, PayloadFormat); 2] = [
        (|session| session.set("big", "x".repeat(6_000)), 1, PayloadFormat::MessagePack),
        (|session| session.set("bytes", bytes::Bytes::from_static(b"\xff")), 3, PayloadFormat::Json),
    ];
    for (fill, chunks, format) in fill {
        block_on(async {
            let (clock, events) = (FakeClock::at(1_700_000_000), Events::new());
            let (old, new) = (AppKey::generate().unwrap().to_text(), AppKey::generate().unwrap().to_text());
            let key = |text: &str| text.parse::<AppKey>().unwrap();
            let before = store(&key(&old).into(), 3, PayloadFormat::MessagePack, &clock, &events);
            // The deadline is due, or the key is an old one, or both.
            let rotated = Keyring::new(key(&new)).accept(key(&old));
            for (keys, wait) in
                [(key(&old).into(), RENEWAL), (rotated.clone(), RENEWAL / 2), (rotated.clone(), RENEWAL)]
            {
                let after = store(&keys, chunks, format, &clock, &events);
                let mut jar = Jar::new();
                visit(&before, &mut jar, 200, fill).await;
                let stored = jar.clone();
                clock.advance(wait);
                for code in [200, 303, 404, 500] {
                    events.take();
                    let response = visit(&after, &mut jar, code, |session| {
                        assert!(!session.is_empty());
                        Ok(())
                    })
                    .await;
                    assert_eq!(response.status(), code);
                    assert_no_cookie(&response);
                    assert_eq!(jar.0, stored.0);
                    let told = events.take();
                    assert_eq!(told.iter().filter(|event| *event == "store_failed").count(), 1, "{told:?}");
                }
                // A change that the handler asks for and does not get is an error.
                let response = visit(&after, &mut jar, 200, |session| session.set("more", 1)).await;
                assert_eq!(response.status(), StatusCode::INTERNAL_SERVER_ERROR);
                assert_eq!(jar.0, stored.0);
                // And what makes it fit again is saved.
                let response = visit(&after, &mut jar, 200, |session| {
                    session.set("more", 1)?;
                    session.delete("big")?;
                    session.delete("bytes").map(drop)
                })
                .await;
                assert_eq!(
                    (response.status().as_u16(), set_cookies(response.headers()).is_empty()),
                    (200, false)
                );
                assert_eq!(after.config().cookie_name(), "__Host-s");
            }
        });
    }
}

/// `save` of an unchanged session asks for no write, so a renewal that fails does not fail it.
#[test]
fn b1_saving_an_unchanged_session_does_not_fail_with_its_renewal() {
    on_server(|world| async move {
        let mut jar = world.jar().await;
        world.clock.advance(RENEWAL);
        world.fail(&[Verb::Touch]);
        let response = world.visit(&mut jar, |ask| async move {
            ask.session().await?.save().await?;
            Ok(status(200))
        });
        let response = response.await;
        assert_eq!(response.status(), 200);
        assert_no_cookie(&response);
        assert_eq!(world.calls(), [Verb::Fetch, Verb::Touch], "and one attempt in a request is enough");
    });
}

/// A change that is asked for beside a renewal that is due is what the handler asked for.
#[test]
fn b1_a_change_is_not_optional_because_a_renewal_is_due() {
    on_server(|world| async move {
        let mut jar = world.jar().await;
        world.clock.advance(RENEWAL);
        for verb in [Verb::Replace, Verb::Create] {
            world.fail(&[verb]);
            let act: Act =
                if verb == Verb::Replace { |session| session.set("a", 2_u64) } else { Session::regenerate };
            assert_eq!(world.edit(&mut jar, act).await.status(), 503);
        }
        world.fail(&[]);
        assert_eq!(world.values(&jar).await, pairs(&[("a", 1)]));
    });
}

/// A logout that fails under an error page: the page is sent. It claims no success, and an event says what failed.
#[test]
fn b1_an_error_page_is_not_replaced_by_another_one() {
    on_server(|world| async move {
        let mut jar = world.jar().await;
        let cases: [(&[Verb], Act); 2] =
            [(&[Verb::Replace, Verb::Delete], Session::destroy), (&[Verb::Create], Session::regenerate)];
        for (verbs, act) in cases {
            world.fail(verbs);
            let response = world.answer(&mut jar, 502, act).await;
            assert_eq!(response.status(), 502);
            assert_no_cookie(&response);
            assert_eq!(world.events.take(), ["store_failed"]);
            assert_eq!(world.answer(&mut jar, 200, act).await.status(), 503);
            world.events.take();
        }
        world.fail(&[]);
        assert_set(&world, &world.edit(&mut jar, |session| session.set("a", 2_u64)).await);
    });
}
