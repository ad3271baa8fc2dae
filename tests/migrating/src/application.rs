//! One application before, while and after it moves from tower-sessions, driven over sockets: a counter of visits, a login that
//! keeps it, and a logout. `express/before.js` is the same on express-session.

use axum::Router;
use std::net::SocketAddr;
use tokio::net::TcpListener;

mod before {
    use axum::extract::Path;
    use axum::routing::{get, post};
    use axum::{Router, http::StatusCode};
    use time::Duration;
    use tower_sessions::{Expiry, MemoryStore, Session, SessionManagerLayer};

    type Answer = Result<String, StatusCode>;

    pub(super) fn failed(_: tower_sessions::session::Error) -> StatusCode {
        StatusCode::INTERNAL_SERVER_ERROR
    }

    pub(super) fn layer(store: MemoryStore) -> SessionManagerLayer<MemoryStore> {
        let expiry = Expiry::OnInactivity(Duration::hours(1));
        SessionManagerLayer::new(store).with_name("id").with_secure(false).with_expiry(expiry)
    }

    pub(super) fn app(store: MemoryStore) -> Router {
        Router::new()
            .route("/visit", post(visit))
            .route("/login/{user}", post(log_in))
            .route("/me", get(me))
            .route("/logout", post(log_out))
            .layer(layer(store))
    }

    async fn visit(session: Session) -> Answer {
        let visits = session.get::<u64>("visits").await.map_err(failed)?.unwrap_or(0) + 1;
        session.insert("visits", visits).await.map_err(failed)?;
        Ok(visits.to_string())
    }

    async fn log_in(session: Session, Path(user): Path<String>) -> Answer {
        session.cycle_id().await.map_err(failed)?;
        session.insert("user", &user).await.map_err(failed)?;
        Ok(format!("hello, {user}"))
    }

    async fn me(session: Session) -> Answer {
        let user: Option<String> = session.get("user").await.map_err(failed)?;
        Ok(user.unwrap_or_else(|| "nobody".to_owned()))
    }

    async fn log_out(session: Session) -> Answer {
        session.flush().await.map_err(failed)?;
        Ok("goodbye".to_owned())
    }
}

mod after {
    use std::time::Duration;

    use axum::Router;
    use axum::extract::Path;
    use axum::routing::{get, post};
    use hyper_session::{Error, MemoryStore, Session, SessionLayer};

    type Answer = Result<String, Error>;

    pub(super) fn store() -> Result<MemoryStore, Error> {
        MemoryStore::builder().development().idle_timeout(Duration::from_secs(3600)).build()
    }

    pub(super) fn routes() -> Router {
        Router::new()
            .route("/visit", post(visit))
            .route("/login/{user}", post(log_in))
            .route("/me", get(me))
            .route("/logout", post(log_out))
    }

    pub(super) fn app(store: MemoryStore) -> Router {
        routes().layer(SessionLayer::new(store))
    }

    async fn visit(session: Session) -> Answer {
        Ok(session.update("visits", |visits: Option<u64>| visits.unwrap_or(0) + 1)?.to_string())
    }

    async fn log_in(session: Session, Path(user): Path<String>) -> Answer {
        session.login(&user)?;
        Ok(format!("hello, {user}"))
    }

    async fn me(session: Session) -> Answer {
        Ok(session.subject().map_or_else(|| "nobody".to_owned(), |user| user.to_string()))
    }

    async fn log_out(session: Session) -> Answer {
        session.destroy()?;
        Ok("goodbye".to_owned())
    }
}

/// The application after, with the former layer around it for as long as its sessions last.
mod both {
    use axum::Router;
    use axum::extract::Request;
    use axum::middleware::{Next, from_fn};
    use axum::response::{IntoResponse, Response};
    use hyper_session::{MemoryStore, Session, SessionLayer};

    use super::{after, before};

    pub(super) fn app(old: tower_sessions::MemoryStore, new: MemoryStore) -> Router {
        after::routes().layer(from_fn(move_in)).layer(SessionLayer::new(new)).layer(before::layer(old))
    }

    /// Takes over the former session, and ends it.
    async fn move_in(
        old: tower_sessions::Session,
        new: Session,
        request: Request,
        next: Next,
    ) -> Result<Response, Response> {
        if new.is_empty() {
            let failed = |error| before::failed(error).into_response();
            if let Some(visits) = old.get::<u64>("visits").await.map_err(failed)? {
                new.set("visits", visits).map_err(IntoResponse::into_response)?;
            }
            if let Some(user) = old.get::<String>("user").await.map_err(failed)? {
                new.login(&user).map_err(IntoResponse::into_response)?;
            }
            if !new.is_empty() {
                old.flush().await.map_err(failed)?;
            }
        }
        Ok(next.run(request).await)
    }
}

/// Serves the application on a free port.
pub(crate) async fn serve(app: Router) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("its address");
    tokio::spawn(async move { axum::serve(listener, app).await });
    address
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::visitor::Visitor;

    /// Checks a form of the application, on either library.
    async fn behaves(site: SocketAddr) {
        let (mut ada, mut bob) = (Visitor::new(site), Visitor::new(site));
        assert_eq!(ada.send("GET", "/me").await, "nobody");
        for visits in ["1", "2"] {
            assert_eq!(ada.send("POST", "/visit").await, visits);
        }
        assert_eq!(bob.send("POST", "/visit").await, "1", "a session of its own");
        let mut planted = ada.clone();
        assert_eq!(ada.send("POST", "/login/ada").await, "hello, ada");
        assert_eq!(ada.send("GET", "/me").await, "ada");
        assert_eq!(ada.send("POST", "/visit").await, "3", "the login kept the values");
        assert_eq!(planted.send("GET", "/me").await, "nobody", "the token is another since the login");
        let mut copy = ada.clone();
        assert_eq!(ada.send("POST", "/logout").await, "goodbye");
        for visitor in [&mut ada, &mut copy] {
            assert_eq!(visitor.send("GET", "/me").await, "nobody");
        }
        assert_eq!(bob.send("POST", "/visit").await, "2", "the logout was another's");
    }

    #[tokio::test]
    async fn the_application_does_the_same_before_and_after() {
        behaves(serve(before::app(tower_sessions::MemoryStore::default())).await).await;
        behaves(serve(after::app(after::store().expect("a store"))).await).await;
        let old = tower_sessions::MemoryStore::default();
        behaves(serve(both::app(old, after::store().expect("a store"))).await).await;
    }

    #[tokio::test]
    async fn nobody_is_logged_out_by_the_move() {
        let (old, new) = (tower_sessions::MemoryStore::default(), after::store().expect("a store"));
        let mut ada = Visitor::new(serve(before::app(old.clone())).await);
        let mut visitor = ada.clone();
        assert_eq!(visitor.send("POST", "/visit").await, "1");
        assert_eq!(ada.send("POST", "/visit").await, "1");
        assert_eq!(ada.send("POST", "/login/ada").await, "hello, ada");
        let copy = ada.clone();
        // Both layers are deployed.
        let site = serve(both::app(old.clone(), new.clone())).await;
        (ada, visitor) = (ada.at(site), visitor.at(site));
        assert_eq!(ada.send("GET", "/me").await, "ada");
        assert_eq!(visitor.send("POST", "/visit").await, "2");
        assert!(!ada.holds("id") && ada.holds("session"), "the former cookie is removed");
        // The old session has ended: a copy of its cookie opens nothing, here or in a process that still runs.
        let still_running = serve(before::app(old)).await;
        for site in [site, still_running] {
            assert_eq!(copy.at(site).send("GET", "/me").await, "nobody");
        }
        // The old layer is gone.
        let site = serve(after::app(new)).await;
        (ada, visitor) = (ada.at(site), visitor.at(site));
        assert_eq!(ada.send("GET", "/me").await, "ada");
        assert_eq!(ada.send("POST", "/visit").await, "2");
        assert_eq!(visitor.send("POST", "/visit").await, "3");
    }

    /// `tests/migrating/express/run` installs express-session and sets `EXPRESS_SESSION` to the application's script.
    #[tokio::test]
    #[ignore = "needs Node.js and express-session: ./tests/migrating/express/run"]
    async fn the_application_did_the_same_on_express_session() {
        use tokio::io::{AsyncBufReadExt, BufReader};
        let script = std::env::var("EXPRESS_SESSION").expect("the script's path");
        let mut node = tokio::process::Command::new("node");
        let mut node =
            node.arg(script).stdout(std::process::Stdio::piped()).kill_on_drop(true).spawn().expect("node");
        let mut lines = BufReader::new(node.stdout.take().expect("its output")).lines();
        let port: u16 = lines.next_line().await.expect("a line").expect("a port").parse().expect("a port");
        behaves(SocketAddr::from(([127, 0, 0, 1], port))).await;
    }
}
