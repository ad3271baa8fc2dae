//! express-session 1.18, as it reads here: each line of the guide's table. `express/before.js` is an application on express-session
//! itself.

use std::time::Duration;

use hyper_session::cookie::{CookieOptions, Priority, SameSite};
use hyper_session::{
    AppKey, CookieStore, Error, Keyring, Lifetime, MemoryStore, Session, SessionHandle, SessionWatch,
};

const DAY: Duration = Duration::from_secs(24 * 3600);

async fn handler(session: Session, handle: SessionHandle) -> Result<Option<String>, Error> {
    session.set("user", "ada")?;
    let user: Option<String> = session.get("user")?;
    session.delete("user")?;
    let _ = (session.keys(), session.id(), session.lifetime(), session.remaining());
    session.set_lifetime(Lifetime::persistent(30 * DAY))?;
    session.set_lifetime(Lifetime::until_browser_closes())?;
    session.clear()?;
    session.regenerate()?;
    session.save().await?;
    session.destroy()?;
    if let Some(watch) = handle.watch().await? {
        outside_of_a_request(&watch).await?;
    }
    Ok(user)
}

async fn outside_of_a_request(watch: &SessionWatch) -> Result<(), Error> {
    let _ = watch.reload().await?;
    watch.renew().await.map(drop)
}

/// `secret: [new, old]`, `name`, `cookie`, and `secure: 'auto'` behind a proxy.
fn cookies() -> Result<CookieStore, Error> {
    let cookie = CookieOptions::new()
        .name("__Secure-app")
        .domain("example.com")
        .path("/app")
        .http_only(true)
        .same_site(SameSite::None)
        .partitioned(true)
        .priority(Priority::High);
    CookieStore::builder(Keyring::new(AppKey::generate()?).accept(AppKey::generate()?)).cookie(cookie).build()
}

fn sessions_on_the_server() -> Result<MemoryStore, Error> {
    MemoryStore::builder()
        .cookie(CookieOptions::new().name("app"))
        .plain_http_on(|_uri, headers| {
            headers.get("x-forwarded-proto").is_some_and(|scheme| scheme == "http")
        })
        .idle_timeout(Duration::from_secs(3600))
        .renewal_threshold(Duration::ZERO)
        .build()
}

#[test]
fn the_options_fit_together() {
    assert!(cookies().is_ok() && sessions_on_the_server().is_ok());
}
