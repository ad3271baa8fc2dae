//! Values that are equal to what is stored: no change, however they are encoded.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use http::Request;
use hyper::service::Service;
use hyper_session::store::{Builder, Memory, Store};
use hyper_session::{AppKey, CookieStore, PayloadFormat, ServerStore, Session, SessionHandle, session_fn};
use serde::{Deserialize, Serialize};

use crate::spy_store::Act;
use crate::support::{Answer, Body, Jar, block_on, request, set_cookies, status};

/// Every kind of store, in either format.
fn stores() -> Vec<(PayloadFormat, Arc<dyn Store>)> {
    fn in_format<K>(builder: Builder<K>, format: PayloadFormat) -> Builder<K> {
        builder.payload_format(format)
    }
    let mut stores: Vec<(PayloadFormat, Arc<dyn Store>)> = Vec::new();
    for format in [PayloadFormat::MessagePack, PayloadFormat::Json] {
        let cookie = in_format(CookieStore::builder(AppKey::generate().unwrap()), format).build().unwrap();
        let server = in_format(ServerStore::with_backend(Memory::new()), format).build().unwrap();
        stores.push((format, Arc::new(cookie)));
        stores.push((format, Arc::new(server)));
    }
    stores
}

/// True if the response set a cookie.
async fn changes(store: &Arc<dyn Store>, jar: &mut Jar, act: Act) -> bool {
    let service = session_fn(Arc::clone(store), move |_: Request<Body>, handle: SessionHandle| async move {
        act(&handle.load().await?)?;
        Answer::Ok(status(200))
    });
    let response = service.call(request("/", jar.header().as_deref())).await.unwrap();
    jar.store(response.headers());
    !set_cookies(response.headers()).is_empty()
}

#[derive(Serialize, Deserialize)]
struct Declared {
    zebra: f32,
    aardvark: Option<Box<Declared>>,
    map: BTreeMap<String, f64>,
}

fn declared() -> Declared {
    let inner = Declared { zebra: 0.1, aardvark: None, map: BTreeMap::new() };
    let map = BTreeMap::from([("whole".to_owned(), 5.0), ("half".to_owned(), 0.5)]);
    Declared { zebra: -1.5, aardvark: Some(Box::new(inner)), map }
}

fn hash_map() -> HashMap<String, Vec<u16>> {
    (0..20).map(|n| (n.to_string(), vec![n, 300])).collect() // in another order each time
}

#[test]
fn b11_an_unchanged_value_is_no_change_in_either_format() {
    let acts: [(&str, Act); 8] = [
        ("hash map", |session| session.set("v", hash_map())),
        ("struct", |session| session.set("v", declared())),
        ("float", |session| session.set("v", 5.0)),
        ("narrow float", |session| session.set("v", 0.1_f32)),
        ("integer", |session| session.set("v", u64::MAX)),
        ("update", |session| {
            session.update("v", |_: Option<HashMap<String, Vec<u16>>>| hash_map()).map(drop)
        }),
        ("all fields", |session| session.set_all(&declared())),
        ("flash", |session| session.set_flash("v", hash_map())),
    ];
    for (format, store) in stores() {
        block_on(async {
            for (name, act) in acts {
                let mut jar = Jar::new();
                assert!(changes(&store, &mut jar, act).await);
                for _ in 0..10 {
                    assert!(!changes(&store, &mut jar, act).await, "{name} {format:?}");
                }
            }
        });
    }
}

#[test]
fn b11_a_changed_value_is_a_change() {
    let changed: [Act; 5] = [
        |session| {
            let mut map = hash_map();
            map.insert("7".to_owned(), vec![8, 300]);
            session.set("v", map)
        },
        |session| {
            let mut map = hash_map();
            map.remove("7");
            session.set("v", map)
        },
        |session| session.set("v", Vec::<u8>::new()),
        |session| session.set("v", None::<u8>),
        |session| session.delete("v").map(drop),
    ];
    for (format, store) in stores() {
        block_on(async {
            for act in changed {
                let mut jar = Jar::new();
                changes(&store, &mut jar, |session| session.set("v", hash_map())).await;
                changes(&store, &mut jar, |session| session.set("other", 1)).await;
                assert!(changes(&store, &mut jar, act).await, "{format:?}");
            }
            // A number of another type is another value, if it does not read back as that type.
            let mut jar = Jar::new();
            changes(&store, &mut jar, |session: &Session| session.set("v", 5.0)).await;
            assert!(changes(&store, &mut jar, |session| session.set("v", 5_u64)).await);
            let reads: Act = |session| session.get::<u64>("v").map(|value| assert_eq!(value, Some(5)));
            assert!(!changes(&store, &mut jar, reads).await);
        });
    }
}
