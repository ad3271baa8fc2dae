//! Moves a service from Astra (Go) to Rust while its users stay logged in: first side by side, then a migration.
//!
//! ```text
//! cargo run --features astra --example astra_migration
//! ```
//!
//! Astra's own code made the first cookie. The guide "Moving from Astra" explains the steps.
#![allow(clippy::print_stdout)] // it is a program

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{COOKIE, SET_COOKIE};
use hyper::service::Service;
use hyper::{Request, Response};
use hyper_session::cookie::CookieOptions;
use hyper_session::store::{Builder, CookieKeys};
use hyper_session::{
    AppKey, Clock, CookieStore, Error, Event, SessionHandle, SystemClock, Timestamp, session_fn,
};

type Body = Full<Bytes>;

/// `{"name":296494,"success":true}`, sealed by Astra's `CookieStore` under the application key below: one of the vectors in
/// `tests/vectors`.
const FROM_GO: &str = "rF8vCZvnoXAwI_bBZKEYdMQGic1TIgMKdKcPvWObxo7mFW6CqsT3cWirmbTw6jYhiLHo9gYd4F9MsU1bErNbNFQyS5Nbf4mwaybv9Smezx8hyh76VtpXtCzz";
const ASTRA_KEY: [u8; 31] = [
    0x5c, 0xe1, 0x20, 0x2c, 0xa7, 0x28, 0x90, 0xac, 0x20, 0x25, 0xa6, 0x0c, 0x7d, 0xb1, 0x5e, 0x05, 0x01,
    0xeb, 0xc3, 0x4b, 0x73, 0x43, 0x55, 0xfe, 0x4a, 0x05, 0x9b, 0xd3, 0x89, 0x9d, 0x92,
];

/// Sends a request with `cookie` to a service that greets its user and counts the visit; keeps the new cookie.
async fn visit(builder: Builder<CookieKeys>, cookie: &mut String) -> Result<(), Box<dyn std::error::Error>> {
    let tell = |event: &Event<'_>| println!("    event: {:?}", event.kind);
    let store = builder.cookie(CookieOptions::astra()).observer(tell).build()?;
    let service = session_fn(store, |_: Request<Body>, session: SessionHandle| async move {
        let session = session.load().await?;
        let Some(name) = session.get_i64("name")? else {
            return Ok::<_, Error>(Response::new(Body::from("who are you?")));
        };
        let visits = session.update("visits", |old: Option<i64>| old.unwrap_or(0) + 1)?;
        // A flash value that Go has set is read once here too.
        let flash = session.flash::<bool>("success")?.unwrap_or(false);
        let flash = if flash { ", and well done" } else { "" };
        Ok(Response::new(format!("welcome back, number {name}: visit {visits}{flash}").into()))
    });
    let request =
        Request::builder().header(COOKIE, format!("astra_session={cookie}")).body(Body::default())?;
    let response = service.call(request).await?;
    if let Some(line) = response.headers().get(SET_COOKIE) {
        let pair = line.to_str()?.split(';').next().unwrap_or_default();
        pair.trim_start_matches("astra_session=").clone_into(cookie);
    }
    let body = http_body_util::BodyExt::collect(response.into_body()).await?.to_bytes();
    println!("    {}", String::from_utf8_lossy(&body));
    Ok(())
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let own = AppKey::generate()?.to_text();
    let builder = || Ok::<_, Error>(CookieStore::builder(AppKey::from_text(&own)?));
    let astra = || AppKey::danger_from_any_bytes(&ASTRA_KEY);
    let now = SystemClock.now().as_unix();
    let mut cookie = FROM_GO.to_owned();

    println!("1. side by side: Rust reads what Go wrote, and writes what Go reads");
    visit(builder()?.beside_astra(astra()?), &mut cookie).await?;
    let left_behind = cookie.clone();

    println!("2. migration for one day: a cookie of Astra's comes in, a native cookie goes out");
    let tomorrow = Timestamp::from_unix(now + 86_400);
    visit(builder()?.migrate_from_astra(astra()?, tomorrow), &mut cookie).await?;
    visit(builder()?.migrate_from_astra(astra()?, tomorrow), &mut cookie).await?;

    println!("3. after the deadline: Astra's cookies are refused");
    visit(builder()?.migrate_from_astra(astra()?, Timestamp::from_unix(now)), &mut left_behind.clone())
        .await?;

    println!("4. after the migration: the migrated session is still valid");
    visit(builder()?, &mut cookie).await?;
    Ok(())
}
