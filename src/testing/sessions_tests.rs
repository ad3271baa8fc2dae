//! Requests with sessions for tests: which errors are returned.

use super::*;
use crate::{AppKey, CookieStore};

#[tokio::test]
async fn the_errors_of_filling_and_saving_are_returned() {
    let store = CookieStore::builder(AppKey::generate().unwrap()).build().unwrap();
    let large = || "x".repeat(100_000);
    let error = with_session(Request::new(()), &store, |session| session.set("a", large())).await;
    assert!(error.unwrap_err().is_too_large());
    let error =
        with_session(Request::new(()), &store, |_| Err(Error::unavailable("as this test wants"))).await;
    assert!(error.unwrap_err().is_unavailable());
}
