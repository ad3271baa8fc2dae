//! Hints beside the cookies, from the browser and to it: requests made ahead, `Clear-Site-Data`, countdowns.

use std::time::Duration;

use http::{HeaderMap, Request, Response};
use hyper::service::Service;
use hyper_session::store::{Builder, Store};
use hyper_session::testing::{Cookies, FakeClock, with_session};
use hyper_session::{
    AppKey, CookieStore, Error, Lifetime, MemoryStore, Session, SessionHandle, SiteData, session_fn,
};

use crate::support::block_on;

type Answer = Response<String>;

/// One request, whose handler is `act`.
async fn visit<S: Store + Clone>(
    store: &S,
    request: Request<()>,
    act: impl Fn(&Session) -> Result<Answer, Error>,
) -> Answer {
    let act = &act;
    let service = session_fn(store.clone(), |_: Request<()>, handle: SessionHandle| async move {
        act(&handle.load().await?)
    });
    service.call(request).await.unwrap()
}

#[allow(clippy::unnecessary_wraps)] // handlers end with it
fn empty() -> Result<Answer, Error> {
    Ok(Response::new(String::new()))
}

#[allow(clippy::unnecessary_wraps)] // as above
fn answer(status: u16) -> Result<Answer, Error> {
    Ok(Response::builder().status(status).body(String::new()).unwrap())
}

fn notice(session: &Session) -> Result<Answer, Error> {
    Ok(Response::new(session.flash::<String>("notice")?.unwrap_or_default()))
}

fn ahead(purpose: &str) -> Request<()> {
    Request::builder().header("sec-purpose", purpose).body(()).unwrap()
}

/// R7: a page that a user may never see shows no flash value, and uses none up.
async fn flash_waits_for_eyes<S: Store + Clone>(store: S) {
    let fill = |session: &Session| session.set_flash("notice", "Saved.");
    for (name, purpose) in [
        ("sec-purpose", "prefetch"),
        ("sec-purpose", "prefetch;prerender"),
        ("sec-purpose", "prefetch;anonymous-client-ip"),
        ("sec-purpose", "prefetch, prerender"),
        // Scripts, and browsers before `Sec-Purpose`.
        ("x-sec-purpose", "prefetch"),
        ("x-sec-purpose", "prerender"),
        ("purpose", "prefetch"),
        ("x-moz", "prefetch"),
        ("x-purpose", "preview"),
    ] {
        let request = Request::builder().header(name, purpose).body(()).unwrap();
        let request = with_session(request, &store, fill).await.unwrap();
        let cookie = request.headers()["cookie"].clone();
        let looked = visit(&store, request, notice).await;
        assert_eq!(looked.body(), "", "{purpose}");
        assert!(!looked.headers().contains_key("set-cookie"), "{purpose}: nothing changed");

        let seen = Request::builder().header("cookie", cookie).body(()).unwrap();
        let seen = visit(&store, seen, notice).await;
        assert_eq!(seen.body(), "Saved.", "{purpose}: it was kept");
        assert!(seen.headers().contains_key("set-cookie"), "and is used up now");
    }
    for purpose in ["", "prefetched", "previewed", "PREFETCH", "navigate;prefetch"] {
        let request = with_session(ahead(purpose), &store, fill).await.unwrap();
        assert_eq!(visit(&store, request, notice).await.body(), "Saved.", "{purpose}");
    }
    // Any other header may have such a value.
    for name in ["purposes", "sec-fetch-dest", "x-requested-with", "user-agent"] {
        let request = Request::builder().header(name, "prefetch").body(()).unwrap();
        let request = with_session(request, &store, fill).await.unwrap();
        assert_eq!(visit(&store, request, notice).await.body(), "Saved.", "{name}");
    }
    // `peek` shows the value in a prefetch, too, because it uses nothing up.
    let request = with_session(ahead("prefetch"), &store, fill).await.unwrap();
    let peeked = visit(&store, request, |session| {
        Ok(Response::new(session.peek::<String>("notice")?.unwrap_or_default()))
    });
    assert_eq!(peeked.await.body(), "Saved.");
}

#[test]
fn b20_r7_a_request_made_ahead_uses_up_no_flash_value() {
    block_on(async {
        flash_waits_for_eyes(CookieStore::builder(AppKey::generate().unwrap()).build().unwrap()).await;
        flash_waits_for_eyes(MemoryStore::builder().build().unwrap()).await;
    });
}

fn told(headers: &HeaderMap) -> Option<&str> {
    headers.get("clear-site-data").map(|value| value.to_str().unwrap())
}

type Fill = fn(&Session) -> Result<(), Error>;

async fn logout_clears<S: Store + Clone>(store: S, plain: S) {
    let user = |session: &Session| session.set("user", "Ada");
    let logged_in = || async { with_session(Request::new(()), &store, user).await.unwrap() };
    let forgets = Some(r#""cache", "storage""#);

    for ending in [Session::destroy, Session::clear, |session: &Session| session.delete("user").map(drop)] {
        let response = visit(&store, logged_in().await, |session| ending(session).and_then(|()| empty()));
        assert_eq!(told(response.await.headers()), forgets);
    }
    // A logout that fails halfway is still one; so is one that leaves a notice behind, or comes too late.
    let failed = |session: &Session| session.destroy().and_then(|()| answer(500));
    assert_eq!(told(visit(&store, logged_in().await, failed).await.headers()), forgets);
    let notice = |session: &Session| {
        session.destroy()?;
        session.set_flash("notice", "Goodbye.").and_then(|()| empty())
    };
    assert_eq!(told(visit(&store, logged_in().await, notice).await.headers()), forgets);
    let user_id = |session: &Session| session.login("ada");
    let request = with_session(Request::new(()), &store, user_id).await.unwrap();
    let cleared = |session: &Session| {
        session.clear()?;
        session.set_flash("notice", "Goodbye.").and_then(|()| empty())
    };
    assert_eq!(told(visit(&store, request, cleared).await.headers()), forgets);
    let late = |session: &Session| session.destroy().and_then(|()| empty());
    assert_eq!(told(visit(&store, Request::new(()), late).await.headers()), forgets);

    // These responses are not a logout.
    let kept = |session: &Session| session.set("user", "Eve").and_then(|()| empty());
    assert_eq!(told(visit(&store, logged_in().await, kept).await.headers()), None);
    assert_eq!(told(visit(&store, logged_in().await, cleared).await.headers()), None, "a visitor's");
    // With a lifetime of its own, a visitor's session is replaced by another.
    let persistent = |session: &Session| {
        session.set("cart", 1)?;
        session.set_lifetime(Lifetime::persistent(Duration::from_secs(90 * 24 * 3_600)))
    };
    let request = with_session(Request::new(()), &store, persistent).await.unwrap();
    let response = visit(&store, request, cleared).await;
    assert_eq!(told(response.headers()), None, "a visitor's that is replaced");
    let lines: Vec<_> = response.headers().get_all("set-cookie").iter().collect();
    assert!(lines.len() == 1 && !lines[0].to_str().unwrap().contains("Max-Age=0"), "{lines:?}");
    let dropped = |session: &Session| session.clear().and_then(|()| answer(500));
    assert_eq!(told(visit(&store, logged_in().await, dropped).await.headers()), None);
    let switched = |session: &Session| session.destroy().and_then(|()| answer(101));
    assert_eq!(told(visit(&store, logged_in().await, switched).await.headers()), None);
    let refused = Request::builder().header("cookie", "__Host-session=x").body(()).unwrap();
    assert_eq!(told(visit(&store, refused, |_| empty()).await.headers()), None);

    // Nor is the page that shows a visitor's last flash value, although the session ends with it.
    let visitors: [Fill; 2] = [
        |session| session.set_flash("n", 1),
        |session| session.describe("a browser").and_then(|()| session.set_flash("n", 1)),
    ];
    for visitor in visitors {
        let request = with_session(Request::new(()), &store, visitor).await.unwrap();
        let shown = |session: &Session| session.flash::<u8>("n").and_then(|_| empty());
        let response = visit(&store, request, shown).await;
        assert_eq!(told(response.headers()), None);
        assert!(response.headers()["set-cookie"].to_str().unwrap().contains("Max-Age=0"));
    }
    // Unless it shows it at a logout.
    let fill = |session: &Session| session.set_flash("n", 1);
    let request = with_session(Request::new(()), &store, fill).await.unwrap();
    let shown =
        |session: &Session| session.flash::<u8>("n").and_then(|_| session.destroy()).and_then(|()| empty());
    assert_eq!(told(visit(&store, request, shown).await.headers()), forgets);

    // The handler's own word stands, and without the option there is none.
    let own = |session: &Session| {
        session.destroy()?;
        Ok(Response::builder().header("clear-site-data", r#""*""#).body(String::new()).unwrap())
    };
    assert_eq!(told(visit(&store, logged_in().await, own).await.headers()), Some(r#""*""#));
    let request = with_session(Request::new(()), &plain, user).await.unwrap();
    assert_eq!(told(visit(&plain, request, late).await.headers()), None);
}

#[test]
fn a_logout_tells_the_browser_what_to_forget() {
    let kinds = [SiteData::Cache, SiteData::Storage];
    let cookies = || CookieStore::builder(AppKey::generate().unwrap());
    block_on(async {
        logout_clears(cookies().clear_site_data(&kinds).build().unwrap(), cookies().build().unwrap()).await;
        let memory = MemoryStore::builder();
        logout_clears(
            memory.clear_site_data(&kinds).build().unwrap(),
            MemoryStore::builder().clear_site_data(&[]).build().unwrap(),
        )
        .await;
    });
}

#[test]
fn remaining_counts_down_to_the_deadline() {
    fn with<K>(builder: Builder<K>, clock: &FakeClock) -> Builder<K> {
        let (minute, never) = (Duration::from_secs(60), Duration::from_secs(540));
        builder.idle_timeout(10 * minute).renewal_threshold(never).clock(clock.clone())
    }
    async fn counts<S: Store + Clone>(store: S, clock: FakeClock) {
        let mut cookies = Cookies::new();
        let response = visit(&store, Request::new(()), |session| {
            assert_eq!(session.remaining(), None);
            session.set("user", "Ada").and_then(|()| empty())
        });
        cookies.receive(response.await.headers());
        clock.advance(Duration::from_secs(240));
        let request = Request::builder().header("cookie", cookies.header().unwrap()).body(()).unwrap();
        let response = visit(&store, request, |session| {
            assert_eq!(session.remaining(), session.view().remaining());
            Ok(Response::new(format!("{:?}", session.remaining())))
        });
        assert_eq!(response.await.body(), "Some(360s)");
    }
    block_on(async {
        let clock = FakeClock::at(1_000_000);
        let cookies = CookieStore::builder(AppKey::generate().unwrap());
        counts(with(cookies, &clock).build().unwrap(), clock.clone()).await;
        counts(with(MemoryStore::builder(), &clock).build().unwrap(), clock).await;
    });
}
