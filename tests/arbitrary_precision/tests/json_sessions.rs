//! A value that a session stores as JSON reads back with its type, whatever features another crate gives serde_json.

use std::collections::BTreeMap;

use http::{Request, Response};
use hyper::service::Service;
use hyper_session::cookie::CookieOptions;
use hyper_session::store::Store;
use hyper_session::testing::Cookies;
use hyper_session::{
    AppKey, CookieStore, Error, MemoryStore, PayloadFormat, Session, SessionHandle, session_fn,
};

/// One request of a browser whose cookies these are.
async fn visit<S: Store + Clone, T: Default>(
    store: &S,
    cookies: &mut Cookies,
    deed: impl Fn(&Session) -> Result<T, Error>,
) -> T {
    let deed = &deed;
    let service = session_fn(store.clone(), |_: Request<()>, handle: SessionHandle| async move {
        Ok::<_, Error>(Response::new(deed(&handle.load().await?)?))
    });
    let mut request = Request::new(());
    request.headers_mut().extend(cookies.header().map(|header| (http::header::COOKIE, header)));
    let response = service.call(request).await.unwrap();
    cookies.receive(response.headers());
    response.into_body()
}

async fn numbers_read_back<S: Store + Clone>(store: S, largest: u64) {
    let cookies = &mut Cookies::new();
    visit(&store, cookies, |session| {
        session.set("n", 5_u64)?;
        session.set("negative", -7_i64)?;
        session.set("large", largest)?;
        session.set("float", 0.1_f64)?;
        session.set("tiny", -2.5e-300_f64)?;
        session.set("list", [1, 2, 3])?;
        session.set("map", BTreeMap::from([("a", 1), ("b", 2)]))
    })
    .await;
    visit(&store, cookies, |session| {
        assert_eq!(session.get::<u64>("n")?, Some(5));
        assert_eq!(session.get::<u8>("n")?, Some(5));
        assert_eq!(session.get::<i64>("negative")?, Some(-7));
        assert_eq!(session.get::<u64>("large")?, Some(largest));
        assert_eq!(session.get::<f64>("float")?, Some(0.1));
        assert_eq!(session.get::<f64>("tiny")?, Some(-2.5e-300));
        assert_eq!(session.get::<Vec<u32>>("list")?, Some(vec![1, 2, 3]));
        let map = session.get::<BTreeMap<String, u8>>("map")?.unwrap();
        assert_eq!(map, BTreeMap::from([("a".to_owned(), 1), ("b".to_owned(), 2)]));
        assert_eq!(session.get::<serde_json::Value>("n")?, Some(serde_json::json!(5)));
        // Written once more, beside a change.
        session.update("n", |n: Option<u64>| n.unwrap_or(0) + 1).map(drop)
    })
    .await;
    let n =
        visit(&store, cookies, |session| Ok((session.get::<u64>("n")?, session.get::<f64>("float")?))).await;
    assert_eq!(n, (Some(6), Some(0.1)));
}

/// The only keys of maps that serde_json reads as something else, with these features.
const PRIVATE: [(&str, &str); 3] = [
    ("$serde_json::private::RawValue", "[1,2]"),
    ("$serde_json::private::Number", "x"),
    ("$serde_json::private::Number", "1"),
];

async fn maps_read_back<S: Store + Clone>(store: S) {
    for (key, value) in PRIVATE {
        let map = BTreeMap::from([(key.to_owned(), value.to_owned())]);
        let cookies = &mut Cookies::new();
        visit(&store, cookies, |session| {
            session.set("map", &map)?;
            session.set("inside", [&map])
        })
        .await;
        visit(&store, cookies, |session| {
            assert_eq!(session.get("map")?, Some(map.clone()));
            assert_eq!(session.get("inside")?, Some([map.clone()]));
            session.set("n", 1)
        })
        .await;
        visit(&store, cookies, |session| {
            assert_eq!(session.get("map")?, Some(map.clone()));
            Ok(())
        })
        .await;
    }
}

#[tokio::test]
async fn cookie_sessions_in_json_with_keys_of_serde_json() {
    let builder = CookieStore::builder(AppKey::generate().unwrap());
    maps_read_back(builder.payload_format(PayloadFormat::Json).build().unwrap()).await;
}

#[tokio::test]
async fn stored_sessions_in_json_with_keys_of_serde_json() {
    maps_read_back(MemoryStore::builder().payload_format(PayloadFormat::Json).build().unwrap()).await;
}

#[tokio::test]
async fn cookie_sessions_in_json() {
    let builder = CookieStore::builder(AppKey::generate().unwrap());
    numbers_read_back(builder.payload_format(PayloadFormat::Json).build().unwrap(), u64::MAX).await;
}

#[tokio::test]
async fn stored_sessions_in_json() {
    let builder = MemoryStore::builder();
    numbers_read_back(builder.payload_format(PayloadFormat::Json).build().unwrap(), u64::MAX).await;
}

#[tokio::test]
async fn sessions_in_messagepack() {
    numbers_read_back(MemoryStore::builder().build().unwrap(), u64::MAX).await;
}

#[tokio::test]
async fn sessions_shared_with_go() {
    let builder = CookieStore::builder(AppKey::generate().unwrap()).cookie(CookieOptions::astra());
    let store = builder.beside_astra(AppKey::generate().unwrap()).build().unwrap();
    numbers_read_back(store, 1 << 53).await;
}
