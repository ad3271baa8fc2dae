//! A time limit for tasks that wait for the log.

use std::pin::pin;
use std::time::Duration;

use tokio::time::timeout;

/// The parts of a time limit, one after the other. A reply of a log that works is there long before the last one.
const PARTS: u32 = 4;

/// Waits for `future`, for `limit` at most. Returns `None` if it is not ready then.
///
/// A process may be stopped for longer than that: a virtual machine is moved, or its share of the CPU is used up. The tasks that the
/// future waits for were stopped, too. So such a pause counts as one part of the limit at most.
pub(super) async fn within<F: Future>(limit: Duration, future: F) -> Option<F::Output> {
    let mut future = pin!(future);
    for _ in 0..PARTS {
        if let Ok(output) = timeout(limit / PARTS, future.as_mut()).await {
            return Some(output);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use std::future::{pending, poll_fn};
    use std::task::Poll;

    use tokio::time::{Instant, sleep};

    use super::*;

    #[tokio::test]
    async fn a_limit_is_kept() {
        let limit = Duration::from_millis(20);
        let begun = Instant::now();
        assert_eq!(within(limit, pending::<()>()).await, None);
        assert!(begun.elapsed() >= limit);
        assert_eq!(within(Duration::ZERO, pending::<()>()).await, None);
        assert_eq!(within(Duration::ZERO, async { 7 }).await, Some(7));
    }

    #[tokio::test]
    async fn a_pause_of_the_process_is_no_more_than_a_part_of_the_limit() {
        let limit = Duration::from_millis(20);
        let mut waiting = pin!(within(limit, pending::<()>()));
        let mut is_pending =
            async || poll_fn(|context| Poll::Ready(waiting.as_mut().poll(context).is_pending())).await;
        assert!(is_pending().await);
        // This thread runs the timers, too: nothing else happens meanwhile.
        for _ in 1..PARTS {
            std::thread::sleep(2 * limit);
            // Behind the timer that is due.
            sleep(Duration::from_millis(1)).await;
            assert!(is_pending().await);
        }
        std::thread::sleep(limit);
        sleep(Duration::from_millis(1)).await;
        assert!(!is_pending().await);
    }
}
