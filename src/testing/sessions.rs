//! Requests that carry a session, and the session that a response carries.

use std::collections::BTreeMap;
use std::sync::Mutex;

use http::header::{COOKIE, HeaderMap, HeaderValue, SET_COOKIE};
use http::{Request, Response, Uri};
use hyper::service::Service;

use crate::error::Error;
use crate::lock::lock;
use crate::service::{Connection, SessionHandle, session_fn};
use crate::session::{Session, SessionView};
use crate::store::Store;

/// Returns `request` with a session whose values `fill` set, as if its browser had been here before.
///
/// Other cookies of the request stay. If `fill` stores nothing, the request is returned unchanged.
///
/// # Errors
///
/// The errors of `fill`, and of saving the session.
///
/// # Examples
///
/// ```
/// use http::{Request, Response};
/// use hyper::service::Service;
/// use hyper_session::{AppKey, CookieStore, Error, SessionHandle, session_fn, testing};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Error> {
/// let store = CookieStore::builder(AppKey::generate()?).build()?;
/// let service = session_fn(store.clone(), |_: Request<()>, session: SessionHandle| async move {
///     let session = session.load().await?;
///     session.set("greeted", session.get::<String>("user")?)?;
///     Ok::<_, Error>(Response::new(()))
/// });
///
/// let request = testing::with_session(Request::new(()), &store, |session| session.set("user", "Ada")).await?;
/// let response = service.call(request).await?;
///
/// let session = testing::session_in(&response, &store).await?.expect("a session");
/// assert_eq!(session.get_str("greeted")?.unwrap(), "Ada");
/// # Ok(())
/// # }
/// ```
pub async fn with_session<B>(
    mut request: Request<B>,
    store: &(impl Store + Clone),
    fill: impl FnOnce(&Session) -> Result<(), Error>,
) -> Result<Request<B>, Error> {
    let fill = Mutex::new(Some(fill));
    let service = session_fn(store.clone(), |_: Request<()>, handle: SessionHandle| {
        let fill = lock(&fill).take();
        async move {
            let session = handle.load().await?;
            fill.map_or(Ok(()), |fill| fill(&session))?;
            session.save().await?;
            Ok::<_, Passed>(Response::new(()))
        }
    });
    let response = service.call(Request::new(())).await.map_err(|Passed(error)| error)?;
    let mut cookies = Cookies::new();
    cookies.receive(response.headers());
    if let Some(cookies) = cookies.header() {
        request.headers_mut().append(COOKIE, cookies);
    }
    Ok(request)
}

/// An error that passes through the service. It would make a response of an [`Error`].
struct Passed(Error);

impl From<Error> for Passed {
    fn from(error: Error) -> Self {
        Self(error)
    }
}

/// Returns the session that the browser has after `response`, or `None` if the response sets none, or removes it.
///
/// # Errors
///
/// [`is_unavailable`](Error::is_unavailable) if the store is unavailable.
///
/// # Examples
///
/// See [`with_session`].
pub async fn session_in<R>(
    response: &Response<R>,
    store: &(impl Store + Clone),
) -> Result<Option<SessionView>, Error> {
    let mut cookies = Cookies::new();
    cookies.receive(response.headers());
    let connection = Connection::without_memo(store.clone());
    let headers = cookies.header().map(|cookies| (COOKIE, cookies));
    let session =
        SessionHandle::begin(&connection, &Uri::default(), &headers.into_iter().collect()).load().await?;
    Ok(session.id().map(|_| session.view()))
}

/// A browser's cookies for one host: requests carry the cookies that responses set, until one removes them. Paths,
/// domains and deadlines are ignored.
///
/// # Examples
///
/// ```
/// use http::HeaderMap;
/// use hyper_session::testing::Cookies;
///
/// let mut cookies = Cookies::new();
/// let mut response = HeaderMap::new();
/// response.insert("set-cookie", "a=1; Path=/".parse().unwrap());
/// cookies.receive(&response);
/// assert_eq!(cookies.header().unwrap(), "a=1");
/// response.insert("set-cookie", "a=; Max-Age=0; Path=/".parse().unwrap());
/// cookies.receive(&response);
/// assert_eq!(cookies.header(), None);
/// ```
#[derive(Clone, Debug, Default)]
pub struct Cookies {
    // Bytes as they came: a cookie's value need not be text.
    jar: BTreeMap<Vec<u8>, Vec<u8>>,
}

impl Cookies {
    /// Creates an empty jar.
    pub fn new() -> Self {
        Self::default()
    }

    /// Stores the cookies that a response sets, and removes those it removes.
    ///
    /// # Examples
    ///
    /// ```
    /// use http::HeaderMap;
    /// use hyper_session::testing::Cookies;
    ///
    /// let mut cookies = Cookies::new();
    /// let mut response = HeaderMap::new();
    /// response.append("set-cookie", "a=1; Path=/".parse().unwrap());
    /// response.append("set-cookie", "b=2; Path=/".parse().unwrap());
    /// cookies.receive(&response);
    /// assert_eq!((cookies.get("a"), cookies.get("b")), (Some(&b"1"[..]), Some(&b"2"[..])));
    ///
    /// response.clear();
    /// response.append("set-cookie", "a=; Max-Age=0; Path=/".parse().unwrap());
    /// cookies.receive(&response);
    /// assert_eq!((cookies.get("a"), cookies.get("b")), (None, Some(&b"2"[..])));
    /// ```
    pub fn receive(&mut self, headers: &HeaderMap) {
        for line in headers.get_all(SET_COOKIE) {
            let mut parts = line.as_bytes().split(|&byte| byte == b';').map(<[u8]>::trim_ascii);
            let pair = parts.next().unwrap_or_default();
            let Some(equals) = pair.iter().position(|&byte| byte == b'=') else { continue };
            let (name, value) = pair.split_at(equals);
            if parts.any(|attribute| attribute.eq_ignore_ascii_case(b"max-age=0")) {
                self.jar.remove(name);
            } else {
                self.jar.insert(name.to_vec(), value.get(1..).unwrap_or_default().to_vec());
            }
        }
    }

    /// Returns the `Cookie` header that the browser sends, or `None` if it has no cookie.
    ///
    /// # Examples
    ///
    /// ```
    /// use http::HeaderMap;
    /// use hyper_session::testing::Cookies;
    ///
    /// let mut cookies = Cookies::new();
    /// assert_eq!(cookies.header(), None);
    /// let mut response = HeaderMap::new();
    /// response.append("set-cookie", "a=1; Path=/".parse().unwrap());
    /// response.append("set-cookie", "b=2; Path=/".parse().unwrap());
    /// cookies.receive(&response);
    /// assert_eq!(cookies.header().unwrap(), "a=1; b=2");
    /// ```
    pub fn header(&self) -> Option<HeaderValue> {
        let pairs: Vec<Vec<u8>> =
            self.jar.iter().map(|(name, value)| [name.as_slice(), value].join(&b'=')).collect();
        // Every pair came in a header, so it fits into one.
        if pairs.is_empty() { None } else { HeaderValue::from_bytes(&pairs.join(&b"; "[..])).ok() }
    }

    /// Writes the `Cookie` header that the browser sends into the headers of a request, instead of any that is there. Removes it
    /// if the browser has no cookie.
    ///
    /// # Examples
    ///
    /// ```
    /// use http::{HeaderMap, Request};
    /// use hyper_session::testing::Cookies;
    ///
    /// let mut cookies = Cookies::new();
    /// let mut response = HeaderMap::new();
    /// response.insert("set-cookie", "a=1; Path=/".parse().unwrap());
    /// cookies.receive(&response);
    ///
    /// let mut request = Request::new(());
    /// cookies.send(request.headers_mut());
    /// assert_eq!(request.headers()["cookie"], "a=1");
    /// Cookies::new().send(request.headers_mut());
    /// assert!(!request.headers().contains_key("cookie"));
    /// ```
    pub fn send(&self, headers: &mut HeaderMap) {
        match self.header() {
            Some(cookies) => drop(headers.insert(COOKIE, cookies)),
            None => drop(headers.remove(COOKIE)),
        }
    }

    /// Returns the value of a cookie.
    ///
    /// # Examples
    ///
    /// ```
    /// use http::HeaderMap;
    /// use hyper_session::testing::Cookies;
    ///
    /// let mut cookies = Cookies::new();
    /// let mut response = HeaderMap::new();
    /// response.insert("set-cookie", "theme=dark; Path=/".parse().unwrap());
    /// cookies.receive(&response);
    /// assert_eq!(cookies.get("theme"), Some(&b"dark"[..]));
    /// assert_eq!(cookies.get("session"), None);
    /// ```
    pub fn get(&self, name: &str) -> Option<&[u8]> {
        self.jar.get(name.as_bytes()).map(Vec::as_slice)
    }
}

#[cfg(test)]
#[path = "sessions_tests.rs"]
mod tests;
