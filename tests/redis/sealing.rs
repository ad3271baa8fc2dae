//! Records that are sealed in Redis: a dump reveals nothing, and what is moved or altered does not open (T78).

use hyper_session::AppKey;

use crate::app::{App, builder};
use crate::server::Server;
use crate::values::{Raw, key};

fn contains(haystack: &[u8], needle: &[u8]) -> bool {
    haystack.windows(needle.len()).any(|window| window == needle)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dump_of_sealed_records_reveals_nothing() {
    let server = Server::start();
    let clear = App::connect(server.url()).await;
    let sealed =
        App::with(builder(server.url()).prefix("sealed").seal_records(AppKey::from_bytes(&key(1)).unwrap()))
            .await;
    for app in [&clear, &sealed] {
        let mut jar = app.jar().await;
        app.ok("/set/confidential", &mut jar).await;
        app.ok("/big", &mut jar).await;
        app.ok("/regenerate", &mut jar).await;
    }
    let mut raw = Raw::of(&server);
    let keys = raw.keys();
    let revealed = |raw: &mut Raw, prefix: &str| {
        let of_this = keys.iter().filter(|key| key.starts_with(prefix));
        of_this
            .map(|key| raw.get(key))
            .any(|value| contains(&value, b"confidential") || contains(&value, b"xxxxxxxx"))
    };
    assert!(revealed(&mut raw, "test:"), "the check finds what is there to find");
    assert!(!revealed(&mut raw, "sealed:"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn t78_swapped_altered_and_planted_records_do_not_open() {
    let server = Server::start();
    let ring = || AppKey::from_bytes(&key(1)).unwrap();
    let app = App::with(builder(server.url()).seal_records(ring())).await;
    let clear = App::connect(server.url()).await;
    let jars = [app.jar().await, app.jar().await];
    let mut raw = Raw::of(&server);
    let keys = raw.keys();
    let values = [raw.get(&keys[0]), raw.get(&keys[1])];
    raw.set(&keys[0], &values[1]);
    raw.set(&keys[1], &values[0]);
    for jar in &jars {
        assert_eq!(app.ok("/read", &mut jar.clone()).await, "none");
    }
    for byte in 8..values[0].len() {
        let mut altered = values[0].clone();
        altered[byte] ^= 1;
        raw.set(&keys[0], &altered);
        raw.set(&keys[1], &values[1]);
        let read = [app.ok("/read", &mut jars[0].clone()).await, app.ok("/read", &mut jars[1].clone()).await];
        assert_eq!(read.iter().filter(|read| *read == "none").count(), 1, "byte {byte}: {read:?}");
    }
    // Clear records of the same prefix, as an intruder in Redis would write them.
    let planted = clear.jar().await;
    assert_eq!(app.ok("/read", &mut planted.clone()).await, "none");
    raw.set(&keys[0], &values[0]);
    for jar in &jars {
        assert_eq!(app.ok("/read", &mut jar.clone()).await, "1");
    }
}
