//! The smallest service with a session. It counts the visits of each browser.
//!
//! ```text
//! cargo run --example counter
//! ```
#![allow(clippy::print_stdout)] // it is a program

use bytes::Bytes;
use http_body_util::Full;
use hyper::server::conn::http1;
use hyper::{Request, Response, body::Incoming};
use hyper_session::{AppKey, CookieStore, Error, SessionHandle, session_fn};
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let store = CookieStore::builder(AppKey::generate()?).development().build()?;
    let listener = TcpListener::bind("127.0.0.1:3000").await?;
    println!("listening on http://{}", listener.local_addr()?);
    loop {
        // For example, too many files are open. Wait, and try again.
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
            continue;
        };
        let service = session_fn(store.clone(), count);
        tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
    }
}

async fn count(_: Request<Incoming>, session: SessionHandle) -> Result<Response<Full<Bytes>>, Error> {
    let session = session.load().await?;
    let visits = session.update("visits", |visits: Option<u64>| visits.unwrap_or(0) + 1)?;
    Ok(Response::new(format!("visit number {visits}\n").into()))
}
