//! Sessions in axum, with a layer and extractors.
//!
//! ```text
//! cargo run --features axum --example axum_app
//! ```
#![allow(clippy::print_stdout)] // it is a program

use axum::{Router, routing::get};
use hyper_session::{AppKey, CookieStore, Error, Key, Session, SessionLayer, SessionView};
use tokio::net::TcpListener;

const VISITS: Key<u64> = Key::new("visits");

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let store = CookieStore::builder(AppKey::generate()?).development().build()?;
    let routes = Router::new().route("/", get(count)).route("/visits", get(show));
    let listener = TcpListener::bind("127.0.0.1:3000").await?;
    println!("listening on http://{}", listener.local_addr()?);
    Ok(axum::serve(listener, routes.layer(SessionLayer::new(store))).await?)
}

async fn count(session: Session) -> Result<String, Error> {
    let visits = session.update(VISITS, |visits| visits.unwrap_or(0) + 1)?;
    Ok(format!("visit number {visits}\n"))
}

async fn show(session: SessionView) -> Result<String, Error> {
    Ok(format!("{} visits so far\n", session.get(VISITS)?.unwrap_or(0)))
}
