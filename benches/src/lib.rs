//! The arms of all measurements: times, allocations, instructions, and load over sockets.

pub mod arms;
pub mod cases;
pub mod client;
pub mod limit;
#[cfg(feature = "peers")]
pub mod peers;
pub mod plot;
pub mod results;
pub mod services;
pub mod stores;
pub mod tokens;

use std::future::Future;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

/// The payloads that are sealed and opened, in bytes.
pub const SIZES: [usize; 4] = [64, 256, 1024, 3000];

/// The application key of every arm that takes one. It has as many bytes as the key of any peer needs, and is not
/// the text of a key.
pub const KEY: [u8; 64] = *b"W2Qz!p8rV1yTn5cL#gXkB3sJ7mHd%4fA6uEoZ0iK&YwNvCxStGb(hMjUlFaO)I-_";

/// The output of a future that is ready at its first poll: in process, every arm's is.
///
/// # Panics
///
/// If it does wait.
pub fn ready<F: Future>(future: F) -> F::Output {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(output) => output,
        Poll::Pending => panic!("an arm waits for something"),
    }
}
