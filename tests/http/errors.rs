//! Errors of handlers on the wire: a response, never a closed connection.

use http::{Method, Request, Response};
use hyper::body::Incoming;
use hyper_session::store::Memory;
use hyper_session::testing::{Fault, Faulty, Primitive};
use hyper_session::{Error, ServerStore, SessionHandle, session_fn};

use crate::servers::{Client, VERSIONS, run, serve};
use crate::support::Body;

/// The handler of the README and of most services: `?` on everything.
async fn count(request: Request<Incoming>, session: SessionHandle) -> Result<Response<Body>, Error> {
    let session = session.load().await?;
    match request.uri().path() {
        "/type" => {
            session.set("visits", "many")?;
            session.update("visits", |old: Option<u64>| old.unwrap_or(0) + 1)?;
        }
        _ => drop(session.update("visits", |old: Option<u64>| old.unwrap_or(0) + 1)?),
    }
    Ok(Response::default())
}

#[test]
fn b9_the_connection_goes_on_when_a_handler_fails() {
    run(async {
        for version in VERSIONS {
            let backend = Faulty::new(Memory::new());
            let store = ServerStore::with_backend(backend.clone()).development().build().unwrap();
            let address = serve(session_fn(store, count)).await;
            let mut client = Client::connect(version, address).await;
            let (status, headers, _) = client.ask(Method::GET, "/", &[]).await;
            assert_eq!(status, 200);
            let cookie = headers["set-cookie"].to_str().unwrap().split(';').next().unwrap().to_owned();
            let cookies = [cookie];

            backend.fail(Primitive::Fetch, Fault::Unreachable);
            let (status, headers, body) = client.ask(Method::GET, "/", &cookies).await;
            assert_eq!((status.as_u16(), body.as_str()), (503, ""), "{version:?}");
            assert_eq!(headers["retry-after"], "1");
            assert!(!headers.contains_key("set-cookie"));
            backend.repair();

            let (status, headers, body) = client.ask(Method::GET, "/type", &cookies).await;
            assert_eq!((status.as_u16(), body.as_str()), (500, ""));
            assert!(!headers.contains_key("retry-after") && !headers.contains_key("set-cookie"));

            // The same connection, and nothing was saved.
            let (status, ..) = client.ask(Method::GET, "/", &cookies).await;
            assert_eq!(status, 200);
        }
    });
}
