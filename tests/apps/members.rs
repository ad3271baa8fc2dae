//! A members' area on axum: an extractor of its own, login at an identity provider (OAuth 2 with PKCE), and server-sent events
//! and a WebSocket that end with the login.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use axum::Router;
use axum::extract::{FromRequestParts, RawQuery, State};
use axum::http::request::Parts;
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::{get, post};
use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD, Engine};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::{Body, Frame};
use hyper::{Request, StatusCode};
use hyper_session::store::Store;
use hyper_session::{
    AppKey, CrossOriginProtection, Error, Session, SessionHandle, SessionLayer, SessionWatch,
};
use hyper_util::client::legacy::Client;
use hyper_util::rt::{TokioExecutor, TokioIo};
use sha2::{Digest, Sha256};
use tokio::io::AsyncWriteExt;
use tokio::sync::Notify;
use tokio::sync::mpsc::{Receiver, Sender, channel};

const VERIFIER: &str = "pkce";

#[derive(Clone)]
pub(crate) struct Members {
    pub(crate) provider: SocketAddr,
    /// Lets streams look at their session again. An application would wait for a few seconds instead.
    pub(crate) look: Arc<Notify>,
}

/// The member who is logged in. Handlers that take one are for members only.
struct Member {
    name: String,
    session: Session,
}

impl<S: Sync> FromRequestParts<S> for Member {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Response> {
        let session = Session::from_request_parts(parts, state).await.map_err(IntoResponse::into_response)?;
        match session.subject() {
            Some(name) => Ok(Self { name: name.to_string(), session }),
            None => Err(Redirect::to("/login").into_response()),
        }
    }
}

pub(crate) fn app(members: Members, store: impl Store) -> Router {
    Router::new()
        .route("/", get(|member: Member| async move { format!("hello, {}", member.name) }))
        .route("/login", get(log_in))
        .route("/callback", get(callback))
        .route("/role", post(|member: Member| async move { member.session.set("role", "editor") }))
        .route("/logout", post(|member: Member| async move { member.session.destroy() }))
        .route("/events", get(events))
        .route("/socket", get(socket))
        .with_state(members)
        .layer(SessionLayer::new(store))
        .layer(CrossOriginProtection::new())
}

/// Sends the browser to the provider. The session keeps the values that the callback needs.
async fn log_in(State(members): State<Members>, session: Session) -> Result<Redirect, Error> {
    let verifier = AppKey::generate()?.to_text().to_string();
    session.set_flash(VERIFIER, &verifier)?;
    let challenge = BASE64_URL_SAFE_NO_PAD.encode(Sha256::digest(&verifier));
    let query = form_urlencoded::Serializer::new(String::new())
        .append_pair("state", &session.csrf_token()?)
        .append_pair("code_challenge", &challenge)
        .finish();
    Ok(Redirect::to(&format!("http://{}/authorize?{query}", members.provider)))
}

/// The provider has sent the browser back.
async fn callback(
    State(members): State<Members>,
    session: Session,
    RawQuery(query): RawQuery,
) -> Result<Response, Error> {
    let query = query.unwrap_or_default();
    let parameter = |name: &str| {
        let mut pairs = form_urlencoded::parse(query.as_bytes());
        pairs.find(|(key, _)| key == name).map(|(_, value)| value.into_owned()).unwrap_or_default()
    };
    session.verify_csrf(&parameter("state"))?;
    let Some(verifier) = session.flash::<String>(VERIFIER)? else {
        return Ok((StatusCode::BAD_REQUEST, "This login was used already.").into_response());
    };
    match exchange(members.provider, &parameter("code"), &verifier).await {
        Some(member) => {
            session.login(&member)?;
            session.set_authentication_context(None, &["fed"])?;
            Ok(Redirect::to("/").into_response())
        }
        None => Ok((StatusCode::BAD_GATEWAY, "The provider refused.").into_response()),
    }
}

/// Asks the provider whose code this is.
async fn exchange(provider: SocketAddr, code: &str, verifier: &str) -> Option<String> {
    let query = form_urlencoded::Serializer::new(String::new())
        .append_pair("code", code)
        .append_pair("code_verifier", verifier)
        .finish();
    let request =
        Request::post(format!("http://{provider}/token?{query}")).body(Full::<Bytes>::default()).ok()?;
    let response = Client::builder(TokioExecutor::new()).build_http().request(request).await.ok()?;
    let ok = response.status() == StatusCode::OK;
    let member = response.into_body().collect().await.ok()?.to_bytes();
    ok.then(|| String::from_utf8(member.to_vec()).ok()).flatten()
}

/// A stream that lasts as long as the login.
async fn events(State(members): State<Members>, handle: SessionHandle) -> Result<Response, Error> {
    let Some(watch) = handle.watch().await? else { return Ok(StatusCode::UNAUTHORIZED.into_response()) };
    let (client, stream) = channel(8);
    tokio::spawn(send_events(watch, client, members.look));
    let body = axum::body::Body::new(Events(stream));
    Ok(([("content-type", "text/event-stream"), ("cache-control", "no-store")], body).into_response())
}

async fn send_events(watch: SessionWatch, client: Sender<String>, look: Arc<Notify>) {
    let role = || async {
        // No stale roles: as it is now.
        let session = watch.reload().await.ok()?.ok()?;
        Some(session.get_lenient::<String>("role").unwrap_or_else(|| "reader".to_owned()))
    };
    let pause = || async {
        if let Some(role) = role().await {
            let _ = client.send(format!("data: {role}\n\n")).await;
        }
        look.notified().await;
    };
    let ended = tokio::select! {
        ended = watch.ended(pause) => ended,
        () = client.closed() => return, // the browser has left
    };
    let last = match ended {
        Ok(why) => format!("event: end\ndata: {why}\n\n"),
        Err(error) => format!("event: retry\ndata: {}\n\n", error.label()),
    };
    let _ = client.send(last).await;
}

/// A WebSocket that lasts as long as the login. An application takes a library for its messages; this one only greets and closes.
async fn socket(
    State(members): State<Members>,
    handle: SessionHandle,
    mut request: axum::extract::Request,
) -> Result<Response, Error> {
    let Some(watch) = handle.watch().await? else { return Ok(StatusCode::UNAUTHORIZED.into_response()) };
    let Some(key) = request.headers().get("sec-websocket-key").map(|key| key.as_bytes().to_vec()) else {
        return Ok(StatusCode::BAD_REQUEST.into_response());
    };
    let upgrade = hyper::upgrade::on(&mut request);
    tokio::spawn(async move {
        let Ok(connection) = upgrade.await else { return };
        let mut socket = TokioIo::new(connection);
        let _ = socket.write_all(b"\x81\x05hello").await; // a text
        let pause = || async { members.look.notified().await };
        let code: u16 = match watch.ended(pause).await {
            Ok(_) => 1008,  // policy violation
            Err(_) => 1011, // the server failed
        };
        let [high, low] = code.to_be_bytes();
        let _ = socket.write_all(&[0x88, 2, high, low]).await; // close
        let _ = socket.shutdown().await;
    });
    // RFC 6455 section 4.2.2
    let accept =
        digest(&SHA1_FOR_LEGACY_USE_ONLY, &[&key, &b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"[..]].concat());
    let fields = [
        ("connection", "upgrade".to_owned()),
        ("upgrade", "websocket".to_owned()),
        ("sec-websocket-accept", BASE64_STANDARD.encode(accept)),
    ];
    Ok((StatusCode::SWITCHING_PROTOCOLS, fields).into_response())
}

/// A body of the texts that the task of a stream sends.
struct Events(Receiver<String>);

impl Body for Events {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.0.poll_recv(cx).map(|event| event.map(|event| Ok(Frame::data(event.into()))))
    }
}

/// A provider at which everyone is ada. Its codes are the challenges that it was shown.
pub(crate) fn provider(app: SocketAddr) -> Router {
    let parameter = |query: Option<String>, name: &str| {
        let query = query.unwrap_or_default();
        let mut pairs = form_urlencoded::parse(query.as_bytes());
        pairs.find(|(key, _)| key == name).map(|(_, value)| value.into_owned()).unwrap_or_default()
    };
    let authorize = move |RawQuery(query): RawQuery| async move {
        let (state, code) = (parameter(query.clone(), "state"), parameter(query, "code_challenge"));
        Redirect::to(&format!("http://{app}/callback?state={state}&code={code}"))
    };
    let token = move |RawQuery(query): RawQuery| async move {
        let (code, verifier) = (parameter(query.clone(), "code"), parameter(query, "code_verifier"));
        if BASE64_URL_SAFE_NO_PAD.encode(Sha256::digest(verifier)) == code {
            (StatusCode::OK, "ada")
        } else {
            (StatusCode::BAD_REQUEST, "")
        }
    };
    Router::new().route("/authorize", get(authorize)).route("/token", post(token))
}
