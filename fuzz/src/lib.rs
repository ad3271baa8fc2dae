//! The checks of each fuzz target. The targets, the replay of seeds and regressions, and the property tests all call these.
//!
//! Each check takes any bytes and panics if a promise of the crate is broken: stronger than "does not crash".

mod astra;
mod csrf_token;
mod device_proof;
mod fields;
mod header;
mod key_text;
pub mod model;
mod peers;
mod revocation_log;
mod seal;
mod service_e2e;
mod session_list;
mod session_model;
mod set_cookie;
mod store;
mod unseal;
mod wire;

pub use astra::astra_open;
pub use csrf_token::csrf_token;
pub use device_proof::device_proof;
pub use fields::cookie_multi_field;
pub use header::cookie_header;
pub use key_text::key_text;
pub use peers::cookie_header_peers;
pub use revocation_log::revocation_log;
pub use service_e2e::service_e2e;
pub use session_list::session_list;
pub use session_model::{session_model, session_model_trace};
pub use set_cookie::set_cookie_build;
pub use store::{record_decode, record_is_session};
pub use unseal::{unseal_mutated, unseal_past_crypto, unseal_raw};

/// A check, by the name of its target.
pub type Check = fn(&[u8]);

/// All of them.
pub const CHECKS: [(&str, Check); 16] = [
    ("cookie_header", cookie_header),
    ("cookie_header_peers", cookie_header_peers),
    ("cookie_multi_field", cookie_multi_field),
    ("unseal_raw", unseal_raw),
    ("unseal_mutated", unseal_mutated),
    ("unseal_past_crypto", unseal_past_crypto),
    ("record_decode", record_decode),
    ("set_cookie_build", set_cookie_build),
    ("astra_open", astra_open),
    ("device_proof", device_proof),
    ("session_model", session_model),
    ("service_e2e", service_e2e),
    ("session_list", session_list),
    ("revocation_log", revocation_log),
    ("key_text", key_text),
    ("csrf_token", csrf_token),
];

/// The moment in which every check lives.
const NOW: u64 = 1_800_000_000;

/// The application key of every check.
const APP_KEY: &[u8] = b"a key that is known to the fuzzer";

/// The name of the session cookie in every check that does not choose one.
const NAME: &str = "s";

/// Runs a future that is never pending: stores in this process answer at once.
fn run<T>(future: impl Future<Output = T>) -> T {
    let mut future = std::pin::pin!(future);
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    match future.as_mut().poll(&mut context) {
        std::task::Poll::Ready(value) => value,
        std::task::Poll::Pending => panic!("a future that should be ready is pending"),
    }
}

/// Names of the refusals that a store's events told, in order.
#[derive(Clone, Default)]
struct Refusals(std::sync::Arc<std::sync::Mutex<Vec<String>>>);

impl Refusals {
    fn take(&self) -> Vec<String> {
        std::mem::take(&mut self.0.lock().unwrap())
    }
}

impl hyper_session::Observer for Refusals {
    fn event(&self, event: &hyper_session::Event<'_>) {
        if let hyper_session::EventKind::Refused { refusal, .. } = event.kind {
            self.0.lock().unwrap().push(refusal.to_string());
        }
    }
}
