//! actix-session 0.11, each method of its session and of its middleware.

mod before {
    use actix_session::config::{
        BrowserSession, CookieContentSecurity, PersistentSession, TtlExtensionPolicy,
    };
    use actix_session::storage::CookieSessionStore;
    use actix_session::{Session, SessionMiddleware};
    use actix_web::cookie::time::Duration;
    use actix_web::cookie::{Key, SameSite};

    async fn handler(session: Session) -> Result<String, actix_web::Error> {
        session.insert("user", "ada")?;
        let user: Option<String> = session.get("user")?;
        let _ = (session.contains_key("user"), session.entries().len(), session.status());
        session.update("visits", |visits: u64| visits + 1)?;
        session.update_or("visits", 1_u64, |visits| visits + 1)?;
        let _: Option<String> = session.remove("user");
        let _: Option<Result<u64, String>> = session.remove_as("visits");
        session.renew();
        session.clear();
        session.purge();
        Ok(user.unwrap_or_default())
    }

    fn middleware() -> SessionMiddleware<CookieSessionStore> {
        let persistent = PersistentSession::default()
            .session_ttl(Duration::hours(1))
            .session_ttl_extension_policy(TtlExtensionPolicy::OnEveryRequest);
        let browser = BrowserSession::default()
            .state_ttl(Duration::hours(1))
            .state_ttl_extension_policy(TtlExtensionPolicy::OnStateChanges);
        SessionMiddleware::builder(CookieSessionStore::default(), Key::generate())
            .session_lifecycle(browser)
            .session_lifecycle(persistent)
            .cookie_name("app".to_owned())
            .cookie_secure(false)
            .cookie_same_site(SameSite::Lax)
            .cookie_path("/app".to_owned())
            .cookie_domain(None)
            .cookie_content_security(CookieContentSecurity::Private)
            .cookie_http_only(true)
            .build()
    }
}

mod after {
    use std::time::Duration;

    use hyper_session::cookie::{CookieOptions, SameSite};
    use hyper_session::{AppKey, CookieStore, Error, Session};

    async fn handler(session: Session) -> Result<String, Error> {
        session.set("user", "ada")?;
        let user: Option<String> = session.get("user")?;
        let _ = (session.has("user"), session.keys().len());
        if session.has("visits") {
            session.update("visits", |visits: Option<u64>| visits.unwrap_or(0) + 1)?;
        }
        session.update("visits", |visits: Option<u64>| visits.map_or(1, |visits| visits + 1))?;
        session.delete("user")?;
        let _: Option<u64> = session.take("visits")?;
        session.regenerate()?;
        session.clear()?;
        session.destroy()?;
        Ok(user.unwrap_or_default())
    }

    fn store() -> Result<CookieStore, Error> {
        let cookie =
            CookieOptions::development().name("app").same_site(SameSite::Lax).path("/app").http_only(true);
        CookieStore::builder(AppKey::generate()?)
            .cookie(cookie.max_age(None))
            .idle_timeout(Duration::from_secs(3600))
            .renewal_threshold(Duration::ZERO)
            .no_renewal_on(|_, _| true)
            .build()
    }

    #[test]
    fn the_options_fit_together() {
        assert!(store().is_ok());
    }
}
