//! A shop on raw hyper: login with "remember me", a cart, flash messages, forms, "my devices", and a password that is asked for
//! again. It knows no more of its store than the trait.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Collected, Full, Limited};
use hyper::body::Body;
use hyper::header::{LOCATION, USER_AGENT};
use hyper::{Method, Request, Response, StatusCode};
use hyper_session::store::Store;
use hyper_session::{Error, Key, Lifetime, Session, SessionHandle};

pub(crate) type Page = Response<Full<Bytes>>;

const CART: Key<Vec<String>> = Key::new("cart");
const NOTICES: &str = "notices";
pub(crate) const DAY: Duration = Duration::from_secs(24 * 3600);

/// The state of one process.
#[derive(Clone)]
pub(crate) struct Shop {
    pub(crate) store: Arc<dyn Store>,
}

impl Shop {
    /// Answers any request. Errors become responses here, so that none reaches hyper.
    pub(crate) async fn answer<B>(&self, request: Request<B>, handle: SessionHandle) -> Page
    where
        B: Body<Data: Send, Error: std::error::Error + Send + Sync + 'static> + Send,
    {
        self.route(request, handle).await.unwrap_or_else(|error| {
            let status = if error.is_forgery() {
                StatusCode::FORBIDDEN
            } else if error.is_transient() {
                StatusCode::SERVICE_UNAVAILABLE
            } else {
                StatusCode::INTERNAL_SERVER_ERROR
            };
            page(status, "Sorry.")
        })
    }

    async fn route<B>(&self, request: Request<B>, handle: SessionHandle) -> Result<Page, Error>
    where
        B: Body<Data: Send, Error: std::error::Error + Send + Sync + 'static> + Send,
    {
        let (parts, body) = request.into_parts();
        if (&parts.method, parts.uri.path()) == (&Method::GET, "/remaining") {
            // Polled by every open page: it must not keep the session alive.
            let session = handle.load_without_renewal().await?;
            return Ok(page(
                StatusCode::OK,
                session.remaining().map_or(0, |left| left.as_secs()).to_string(),
            ));
        }
        let session = handle.load().await?;
        if parts.method == Method::GET {
            return match parts.uri.path() {
                "/" => home(&session),
                "/devices" => self.devices(&session).await,
                _ => Ok(page(StatusCode::NOT_FOUND, "")),
            };
        }
        let form = Limited::new(body, 10_000).collect().await.map(Collected::to_bytes).unwrap_or_default();
        let field = |name: &str| {
            let mut fields = form_urlencoded::parse(&form);
            fields.find(|(field, _)| field == name).map(|(_, value)| value.into_owned()).unwrap_or_default()
        };
        session.verify_csrf(&field("csrf"))?;
        match parts.uri.path() {
            "/login" => {
                let agent = parts.headers.get(USER_AGENT).and_then(|agent| agent.to_str().ok());
                log_in(&session, &field("user"), field("remember") == "on", agent.unwrap_or("unknown"))
            }
            "/cart" => {
                let item = field("item");
                session
                    .update(CART, move |cart| cart.into_iter().flatten().chain([item.clone()]).collect())?;
                notify(&session, "It is in your cart.")
            }
            "/password" => {
                // The password was checked here.
                session.reauthenticate()?;
                notify(&session, "Thank you.")
            }
            "/email" if session.authenticated_within(Duration::from_secs(300)) => {
                session.set("email", field("email"))?;
                notify(&session, "Your address is changed.")
            }
            "/email" => Ok(page(StatusCode::UNAUTHORIZED, "Please give your password again.")),
            "/devices/end-others" => {
                let ended = session.end_other_sessions().await?;
                // A cookie store does not know how many there were.
                let others = ended.map_or_else(|| "All".to_owned(), |ended| ended.to_string());
                notify(&session, &format!("{others} other devices are logged out."))
            }
            "/logout" => {
                session.destroy()?;
                Ok(see_home())
            }
            _ => Ok(page(StatusCode::NOT_FOUND, "")),
        }
    }

    /// One device a line.
    async fn devices(&self, session: &Session) -> Result<Page, Error> {
        let Some(user) = session.subject() else { return Ok(page(StatusCode::UNAUTHORIZED, "")) };
        let devices = match self.store.sessions_of(&user).await {
            Ok(devices) => devices,
            Err(error) if error.is_config() => {
                return Ok(page(StatusCode::NOT_FOUND, "This store keeps no list."));
            }
            Err(error) => return Err(error),
        };
        let lines = devices.iter().map(|device| {
            let this = if Some(device.id) == session.id() { " (this one)" } else { "" };
            format!("{}{this}\n", device.description.as_deref().unwrap_or("unknown"))
        });
        Ok(page(StatusCode::OK, lines.collect::<String>()))
    }
}

fn log_in(session: &Session, user: &str, remember: bool, agent: &str) -> Result<Page, Error> {
    session.login(user)?;
    session.describe(agent)?;
    session.set_lifetime(if remember {
        Lifetime::persistent(30 * DAY)
    } else {
        Lifetime::until_browser_closes()
    })?;
    notify(session, &format!("Welcome, {user}."))
}

fn home(session: &Session) -> Result<Page, Error> {
    let user = session.subject().unwrap_or_default();
    let cart = session.get(CART)?.unwrap_or_default();
    let notices: Vec<String> = session.flash(NOTICES)?.unwrap_or_default();
    let csrf = session.csrf_token()?;
    Ok(page(
        StatusCode::OK,
        format!("user={user}\ncart={}\nnotices={}\ncsrf={csrf}\n", cart.join(","), notices.join("|")),
    ))
}

fn notify(session: &Session, notice: &str) -> Result<Page, Error> {
    let notice = notice.to_owned();
    session.update_flash(NOTICES, move |old: Option<Vec<String>>| {
        old.into_iter().flatten().chain([notice.clone()]).collect()
    })?;
    Ok(see_home())
}

fn see_home() -> Page {
    let mut response = page(StatusCode::SEE_OTHER, "");
    response.headers_mut().insert(LOCATION, hyper::header::HeaderValue::from_static("/"));
    response
}

fn page(status: StatusCode, text: impl Into<Bytes>) -> Page {
    let mut response = Response::new(Full::new(text.into()));
    *response.status_mut() = status;
    response
}
