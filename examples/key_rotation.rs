//! Changes the application key while users stay logged in, and revokes a leaked key.
//!
//! ```text
//! cargo run --example key_rotation
//! ```
#![allow(clippy::print_stdout)] // it is a program

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{COOKIE, SET_COOKIE};
use hyper::service::Service;
use hyper::{Request, Response};
use hyper_session::{AppKey, CookieStore, Error, Event, Keyring, SessionHandle, session_fn};

type Body = Full<Bytes>;

/// Makes a service with these keys. It greets a user who is logged in, and logs in any other.
fn service(
    keys: Keyring,
) -> Result<impl Service<Request<Body>, Response = Response<Body>, Error = Error>, Error> {
    let tell = |event: &Event<'_>| println!("    event: {:?}", event.kind);
    let store = CookieStore::builder(keys).observer(tell).build()?;
    Ok(session_fn(store, |_: Request<Body>, session: SessionHandle| async move {
        let session = session.load().await?;
        let greeting = if let Some(user) = session.get_str("user")? {
            format!("welcome back, {user}")
        } else {
            session.set("user", "ada")?;
            "logged in".to_owned()
        };
        Ok(Response::new(greeting.into()))
    }))
}

/// Sends a request with the cookie of the previous visit, prints the greeting, and returns the cookie for the next visit.
async fn visit(keys: Keyring, cookie: Option<String>) -> Result<Option<String>, Box<dyn std::error::Error>> {
    let mut request = Request::new(Body::default());
    if let Some(cookie) = &cookie {
        request.headers_mut().insert(COOKIE, cookie.parse()?);
    }
    let response = service(keys)?.call(request).await?;
    let set = response.headers().get(SET_COOKIE).map(|line| line.to_str()).transpose()?;
    let set = set.and_then(|line| line.split(';').next()).map(str::to_owned);
    let body = http_body_util::BodyExt::collect(response.into_body()).await?.to_bytes();
    println!("    {}{}", String::from_utf8_lossy(&body), if set.is_some() { " (new cookie)" } else { "" });
    Ok(set.or(cookie))
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let (first, second) = (AppKey::generate()?, AppKey::generate()?);
    let leaked = first.id();
    let (first, second) = (first.to_text(), second.to_text());
    // The text of a file or of SESSION_KEYS in each deployment: the first key seals.
    let keys = |text: &str| Keyring::from_text(text);

    println!("1. before: the first key seals");
    let cookie = visit(keys(&first)?, None).await?;

    println!("2. the second key is accepted everywhere, the first key still seals");
    let cookie = visit(keys(&format!("{}\n{}", *first, *second))?, cookie).await?;
    let old_cookie = cookie.clone();

    println!("3. the second key seals, the first key still opens: sessions are sealed again as they come in");
    let cookie = visit(keys(&format!("{}\n{}", *second, *first))?, cookie).await?;

    println!("4. the first key is dropped when its sessions have ended");
    visit(keys(&second)?, cookie).await?;

    println!("5. if the first key had leaked: its sessions are refused, and an event says why");
    visit(keys(&format!("{}\nrevoked:{leaked}", *second))?, old_cookie).await?;
    Ok(())
}
