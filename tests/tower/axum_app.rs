//! A whole axum application on a real port: the extractors, their rejections, and the rules of the commit.

use axum::Router;
use axum::http::StatusCode;
use axum::routing::{get, post};
use hyper_session::testing::{Fault, Faulty, Primitive};
use hyper_session::{
    AppKey, CookieStore, Error, Key, ServerStore, Session, SessionHandle, SessionLayer, SessionView,
    store::Memory,
};
use tokio::net::TcpListener;

use crate::stacks::{Browser, serving};
use crate::support::block_on;

const USER: Key<String> = Key::new("user");

async fn login(session: Session, user: String) -> Result<String, Error> {
    session.regenerate()?;
    session.set(USER, &user)?;
    Ok(format!("welcome, {user}"))
}

async fn show(session: SessionView) -> Result<String, Error> {
    Ok(session.get(USER)?.unwrap_or_else(|| "nobody".to_owned()))
}

async fn lazy(handle: SessionHandle) -> String {
    format!("cookie {}", handle.cookie_name())
}

async fn broken(session: Session) -> Result<String, Error> {
    session.set("half", "done")?;
    session.get::<u64>(USER.name()).map(|number| format!("{number:?}"))
}

async fn logout(session: Session) -> Result<(), Error> {
    session.destroy()
}

async fn lenient(session: Result<Session, Error>) -> String {
    session.map_or_else(|error| format!("no session: {}", error.label()), |_| "a session".to_owned())
}

fn routes() -> Router {
    Router::new()
        .route("/", get(show))
        .route("/login", post(login))
        .route("/logout", post(logout))
        .route("/lazy", get(lazy))
        .route("/lenient", get(lenient))
        .route("/broken", get(broken))
}

async fn serve(app: Router) -> Browser {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    serving(async move { axum::serve(listener, app).await.unwrap() });
    Browser::http1(address)
}

fn cookie_layer() -> SessionLayer {
    SessionLayer::new(CookieStore::builder(AppKey::generate().unwrap()).build().unwrap())
}

async fn fails_after_logout(session: Session) -> Result<(), Error> {
    session.destroy()?;
    session.get::<u64>(USER.name()).map(drop)?;
    Err(Error::unavailable("the handler's own trouble"))
}

async fn fails_after_a_change(session: Session) -> Result<(), Error> {
    session.set("user", "bob")?;
    Err(Error::unavailable("the handler's own trouble"))
}

/// axum makes the response of an error itself. The layer treats it as the error: no value is saved, a logout is a logout, and an
/// event tells of it.
#[test]
fn b9_an_error_through_axum_is_told_and_only_a_logout_counts() {
    block_on(async {
        let events = crate::support::Events::new();
        let store =
            CookieStore::builder(AppKey::generate().unwrap()).observer(events.clone()).build().unwrap();
        let app = routes()
            .route("/changes", get(fails_after_a_change))
            .route("/fails", get(fails_after_logout))
            .layer(SessionLayer::new(store));
        let mut browser = serve(app).await;
        browser.post("/login", "ada").await;
        let failed = browser.get("/changes").await;
        assert_eq!(failed.status, StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(failed.headers["retry-after"], "1");
        assert_eq!(events.take(), ["handler_failed:unavailable", "dropped:server_error"]);
        let broken = browser.get("/broken").await;
        assert_eq!(broken.status, StatusCode::INTERNAL_SERVER_ERROR);
        assert_eq!(events.take(), ["handler_failed:value", "dropped:server_error"]);
        assert_eq!(browser.get("/").await.body, "ada", "not logged out, and still there");
        let failed = browser.get("/fails").await;
        assert_eq!(failed.status, StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(events.take(), ["handler_failed:unavailable"]);
        assert_eq!(browser.get("/").await.body, "nobody", "logged out");
    });
}

/// The layer applied twice, to a router and to the one around it: one session, saved once.
#[test]
fn b8_a_layer_applied_twice_is_one_session() {
    block_on(async {
        for layers in [1, 2] {
            let layer = cookie_layer();
            let app = match layers {
                1 => routes().layer(layer.clone()).layer(layer),
                _ => Router::new().merge(routes().layer(layer.clone())).layer(layer),
            };
            let mut browser = serve(app).await;
            let login = browser.post("/login", "ada").await;
            assert_eq!(login.headers.get_all("set-cookie").iter().count(), 1);
            assert_eq!(browser.get("/").await.body, "ada");
            let logout = browser.post("/logout", "").await;
            assert_eq!(logout.headers.get_all("set-cookie").iter().count(), 1);
            assert_eq!(browser.get("/").await.body, "nobody");
        }
    });
}

#[test]
fn login_and_logout() {
    block_on(async {
        let mut browser = serve(routes().layer(cookie_layer())).await;
        let untouched = browser.get("/lazy").await;
        assert_eq!(untouched.body, "cookie __Host-session");
        assert!(!untouched.headers.contains_key("vary"), "taking the handle does not read the session");

        assert_eq!(browser.get("/").await.body, "nobody");
        let answer = browser.post("/login", "Ada").await;
        assert_eq!((answer.status, answer.body.as_str()), (StatusCode::OK, "welcome, Ada"));
        assert_eq!(answer.headers["cache-control"], "no-store");
        let seen = browser.get("/").await;
        assert_eq!(seen.body, "Ada");
        assert_eq!(seen.headers["vary"], "Cookie");
        assert!(!seen.headers.contains_key("set-cookie"), "reading sets no cookie");

        assert_eq!(browser.post("/logout", "").await.status, StatusCode::OK);
        assert_eq!(browser.cookies.header(), None);
        assert_eq!(browser.get("/").await.body, "nobody");
    });
}

#[test]
fn an_error_is_an_answer_that_tells_nothing_and_drops_what_was_half_done() {
    block_on(async {
        let mut browser = serve(routes().layer(cookie_layer())).await;
        browser.post("/login", "Ada").await;
        let before = browser.cookies.clone();
        let answer = browser.get("/broken").await;
        assert_eq!((answer.status, answer.body.as_str()), (StatusCode::INTERNAL_SERVER_ERROR, ""));
        assert!(!answer.headers.contains_key("set-cookie") && !answer.headers.contains_key("retry-after"));
        assert_eq!(browser.cookies.header(), before.header());
    });
}

#[test]
fn a_store_that_is_down_is_a_503_and_no_logout() {
    block_on(async {
        let backend = Faulty::new(Memory::new());
        let store = ServerStore::with_backend(backend.clone()).build().unwrap();
        let mut browser = serve(routes().layer(SessionLayer::new(store))).await;
        browser.post("/login", "Ada").await;
        backend.fail(Primitive::Fetch, Fault::Unreachable);
        let answer = browser.get("/").await;
        assert_eq!((answer.status, answer.body.as_str()), (StatusCode::SERVICE_UNAVAILABLE, ""));
        assert_eq!(answer.headers["retry-after"], "1");
        assert_eq!(browser.get("/lenient").await.body, "no session: unavailable");
        backend.repair();
        assert_eq!(browser.get("/").await.body, "Ada", "and no user was logged out");
    });
}

#[test]
fn without_a_layer_the_rejection_says_so() {
    block_on(async {
        let mut browser = serve(routes()).await;
        assert_eq!(browser.get("/").await.status, StatusCode::INTERNAL_SERVER_ERROR);
        assert_eq!(browser.get("/lazy").await.status, StatusCode::INTERNAL_SERVER_ERROR);
        assert_eq!(browser.get("/lenient").await.body, "no session: not_wrapped");
    });
}
