//! Sessions as a tower layer with other middleware, on hyper-util's server.
//!
//! ```text
//! cargo run --features tower --example tower_layer
//! ```
#![allow(clippy::print_stdout)] // it is a program

use hyper::{Request, Response, body::Incoming, server::conn::http1};
use hyper_session::{AppKey, CookieStore, Error, SessionExt, SessionLayer};
use hyper_util::{rt::TokioIo, service::TowerToHyperService};
use tower::{ServiceBuilder, service_fn};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let store = CookieStore::builder(AppKey::generate()?).development().build()?;
    let service = ServiceBuilder::new()
        .concurrency_limit(1024)
        .layer(SessionLayer::new(store))
        .service(service_fn(count));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:3000").await?;
    println!("listening on http://{}", listener.local_addr()?);
    loop {
        // For example, too many files are open. Wait, and try again.
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
            continue;
        };
        let service = TowerToHyperService::new(service.clone());
        tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
    }
}

async fn count(request: Request<Incoming>) -> Result<Response<String>, Error> {
    let session = request.session().await?;
    let visits = session.update("visits", |visits: Option<u64>| visits.unwrap_or(0) + 1)?;
    Ok(Response::new(format!("visit number {visits}\n")))
}
