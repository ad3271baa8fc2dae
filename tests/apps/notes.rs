//! Notes over gRPC: a tonic service whose calls share a session with the browser's pages, as gRPC-Web does.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Buf, BufMut};
use http::{Request, Response};
use hyper_session::{Error, Key, Session, SessionExt};
use tonic::body::Body;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::server::{Grpc, NamedService, UnaryService};
use tonic::{Code, Status};

const NOTES: Key<Vec<String>> = Key::new("notes");
const ATTEMPTS: Key<u64> = Key::new("attempts");

/// The service. `tonic-build` generates this type from a `.proto` file.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Notes;

/// One of its methods, by the path of the call.
struct Method(String);

async fn call(method: &str, request: tonic::Request<String>) -> Result<String, Status> {
    // The layer has put the session beside the request. No session is a bug of the program, and not of the caller.
    let session = request.extensions().session().await.map_err(status)?;
    let text = request.into_inner();
    match method {
        "/test.Notes/LogIn" => {
            session.login(&text).map_err(status)?;
            Ok(format!("welcome, {text}"))
        }
        "/test.Notes/LogOut" => {
            session.destroy().map_err(status)?;
            Ok(String::new())
        }
        "/test.Notes/Add" => add(&session, text),
        "/test.Notes/List" => {
            user(&session)?;
            Ok(session.get(NOTES).map_err(status)?.unwrap_or_default().join("\n"))
        }
        _ => Err(Status::unimplemented(method)),
    }
}

fn add(session: &Session, text: String) -> Result<String, Status> {
    user(session)?;
    let attempts = session.update(ATTEMPTS, |before| before.unwrap_or(0) + 1).map_err(status)?;
    if text.is_empty() {
        // The attempt is not counted: a call that fails saves nothing.
        return Err(Status::invalid_argument("a note has text"));
    }
    let add = move |notes: Option<Vec<String>>| {
        let mut notes = notes.unwrap_or_default();
        notes.push(text.clone());
        notes
    };
    session.update(NOTES, add).map_err(status)?;
    Ok(attempts.to_string())
}

fn user(session: &Session) -> Result<String, Status> {
    let user = session.subject().ok_or_else(|| Status::unauthenticated("log in first"))?;
    Ok(user.to_string())
}

/// An error of the session layer, as its callers may know it.
#[allow(clippy::needless_pass_by_value)] // for `map_err`
fn status(error: Error) -> Status {
    let code = if error.is_unavailable() { Code::Unavailable } else { Code::Internal };
    Status::new(code, error.label())
}

impl UnaryService<String> for Method {
    type Response = String;
    type Future = Pin<Box<dyn Future<Output = Result<tonic::Response<String>, Status>> + Send>>;

    fn call(&mut self, request: tonic::Request<String>) -> Self::Future {
        let method = self.0.clone();
        Box::pin(async move { call(&method, request).await.map(tonic::Response::new) })
    }
}

impl NamedService for Notes {
    const NAME: &'static str = "test.Notes";
}

impl tower::Service<Request<Body>> for Notes {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let method = Method(request.uri().path().to_owned());
        Box::pin(async move { Ok(Grpc::new(Text).unary(method, request).await) })
    }
}

/// Messages of plain text. A real service has those of `prost`.
#[derive(Clone, Copy, Debug)]
struct Text;

impl Codec for Text {
    type Encode = String;
    type Decode = String;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Text {
    type Item = String;
    type Error = Status;

    fn encode(&mut self, text: String, out: &mut EncodeBuf<'_>) -> Result<(), Status> {
        out.put_slice(text.as_bytes());
        Ok(())
    }
}

impl Decoder for Text {
    type Item = String;
    type Error = Status;

    fn decode(&mut self, input: &mut DecodeBuf<'_>) -> Result<Option<String>, Status> {
        let bytes = input.copy_to_bytes(input.remaining());
        let text = String::from_utf8(bytes.to_vec());
        text.map(Some).map_err(|_| Status::invalid_argument("text is UTF-8"))
    }
}
