//! tower-sessions 0.15, each method of its session and of its layer.

mod before {
    use axum::{Router, routing::get};
    use serde_json::Value;
    use time::{Duration, OffsetDateTime};
    use tower_sessions::cookie::{Key, SameSite};
    use tower_sessions::{CachingSessionStore, Expiry, MemoryStore, Session, SessionManagerLayer};

    async fn handler(session: Session) -> Result<String, String> {
        visit(session).await.map_err(|error| error.to_string())
    }

    async fn visit(session: Session) -> Result<String, tower_sessions::session::Error> {
        session.insert("visits", 1_u64).await?;
        session.insert_value("raw", Value::from(1)).await?;
        let visits: Option<u64> = session.get("visits").await?;
        let _: Option<Value> = session.get_value("raw").await?;
        let _: Option<u64> = session.remove("visits").await?;
        let _: Option<Value> = session.remove_value("raw").await?;
        session.set_expiry(Some(Expiry::AtDateTime(OffsetDateTime::now_utc() + Duration::days(30))));
        session.set_expiry(Some(Expiry::OnInactivity(Duration::hours(1))));
        session.set_expiry(Some(Expiry::OnSessionEnd));
        session.set_expiry(None);
        let _ = (
            session.is_empty().await,
            session.id(),
            session.expiry(),
            session.expiry_date(),
            session.expiry_age(),
        );
        if session.is_modified() {
            session.save().await?;
        }
        session.load().await?;
        session.cycle_id().await?;
        session.clear().await;
        session.delete().await?;
        session.flush().await?;
        Ok(format!("{visits:?}"))
    }

    fn app() -> Router {
        let layer = SessionManagerLayer::new(CachingSessionStore::new(
            MemoryStore::default(),
            MemoryStore::default(),
        ))
        .with_name("app")
        .with_http_only(true)
        .with_same_site(SameSite::Lax)
        .with_expiry(Expiry::OnInactivity(Duration::hours(1)))
        .with_secure(false)
        .with_path("/app")
        .with_domain("example.com")
        .with_always_save(false);
        let _ = layer.clone().with_signed(Key::generate());
        Router::new().route("/", get(handler)).layer(layer.with_private(Key::generate()))
    }
}

mod after {
    use std::time::Duration;

    use axum::{Router, routing::get};
    use hyper_session::cookie::{CookieOptions, SameSite};
    use hyper_session::{Error, Lifetime, MemoryStore, Session, SessionHandle, SessionLayer};
    use serde_json::Value;

    const DAY: Duration = Duration::from_secs(24 * 3600);

    async fn handler(session: Session, handle: SessionHandle) -> Result<String, Error> {
        session.set("visits", 1_u64)?;
        session.set("raw", Value::from(1))?;
        let visits: Option<u64> = session.get("visits")?;
        let _: Option<Value> = session.get("raw")?;
        let _: Option<u64> = session.take("visits")?;
        let _: Option<Value> = session.take("raw")?;
        session.set_lifetime(Lifetime::persistent(30 * DAY))?;
        session.set_lifetime(Lifetime::new().idle_timeout(Duration::from_secs(3600)))?;
        session.set_lifetime(Lifetime::until_browser_closes())?;
        session.set_lifetime(Lifetime::new())?;
        let _ =
            (session.is_empty(), session.id(), session.lifetime(), session.expires_at(), session.remaining());
        session.save().await?;
        if let Some(watch) = handle.watch().await? {
            let _ = watch.reload().await?;
        }
        session.regenerate()?;
        session.clear()?;
        session.destroy()?;
        Ok(format!("{visits:?}"))
    }

    fn app() -> Result<Router, Error> {
        let cookie = CookieOptions::development()
            .name("app")
            .http_only(true)
            .same_site(SameSite::Lax)
            .secure(false)
            .path("/app")
            .domain("example.com");
        let store = MemoryStore::builder()
            .cookie(cookie.max_age(None))
            .idle_timeout(Duration::from_secs(3600))
            .absolute_timeout(30 * DAY)
            .renewal_threshold(Duration::ZERO)
            .build()?;
        Ok(Router::new().route("/", get(handler)).layer(SessionLayer::new(store)))
    }

    #[test]
    fn the_options_fit_together() {
        assert!(app().is_ok());
    }
}
