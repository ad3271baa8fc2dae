//! The backend of `examples/custom_store.rs`, from which applications copy.

use hyper_session::testing::check_backend;
use hyper_session::{Clock, SystemClock};

use crate::concurrent_requests::run;
use crate::custom_store::Map;

#[test]
fn the_backend_of_the_example_keeps_the_contract() {
    run(check_backend(&Map::default(), SystemClock.now()));
}
