//! Waiting for several steps at once, which takes about as long as one step.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::task::Poll;

/// How many steps run at a time, so that so many sessions of a subject take one round trip. Each reply that arrives polls all running
/// steps: to list 4,000 sessions in Redis over loopback took 109 ms of this process's time with 256 steps, and 181 ms with 1,024 (a
/// debug build). But with 256, it takes four times as many round trips, and one to another region takes longer than that.
const WIDTH: usize = 1_024;

/// Runs the steps that `step` makes of `items`, [`WIDTH`] at a time. Returns their results in the order of the items.
pub(crate) async fn join_all<I, T, F>(items: impl IntoIterator<Item = I>, step: impl Fn(I) -> F) -> Vec<T>
where
    F: Future<Output = T>,
{
    let mut items = items.into_iter().fuse();
    let mut has_more = true;
    let mut results: Vec<Option<T>> = Vec::new();
    let mut running: Vec<(usize, Pin<Box<F>>)> = Vec::new();
    poll_fn(|cx| {
        loop {
            while running.len() < WIDTH {
                let Some(item) = items.next() else {
                    has_more = false;
                    break;
                };
                running.push((results.len(), Box::pin(step(item))));
                results.push(None);
            }
            let before = running.len();
            running.retain_mut(|(place, future)| match future.as_mut().poll(cx) {
                Poll::Ready(result) => {
                    if let Some(slot) = results.get_mut(*place) {
                        *slot = Some(result);
                    }
                    false
                }
                Poll::Pending => true,
            });
            if running.is_empty() && !has_more {
                return Poll::Ready(());
            }
            // The steps that were just added have not been polled yet.
            if running.len() == before || !has_more {
                return Poll::Pending;
            }
        }
    })
    .await;
    results.into_iter().flatten().collect()
}

/// Waits for both futures.
pub(crate) async fn join<A, B>(one: impl Future<Output = A>, two: impl Future<Output = B>) -> (A, B) {
    let (mut one, mut two) = (pin!(one), pin!(two));
    let (mut first, mut second) = (None, None);
    poll_fn(|cx| {
        if first.is_none() {
            first = ready(one.as_mut().poll(cx));
        }
        if second.is_none() {
            second = ready(two.as_mut().poll(cx));
        }
        match (first.take(), second.take()) {
            (Some(one), Some(two)) => Poll::Ready((one, two)),
            (one, two) => {
                (first, second) = (one, two);
                Poll::Pending
            }
        }
    })
    .await
}

fn ready<T>(poll: Poll<T>) -> Option<T> {
    match poll {
        Poll::Ready(value) => Some(value),
        Poll::Pending => None,
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::cell::Cell;

    use super::*;

    /// Returns the result of a future that is ready at once.
    pub(crate) fn run<T>(future: impl Future<Output = T>) -> T {
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        match pin!(future).poll(&mut context) {
            Poll::Ready(result) => result,
            Poll::Pending => panic!("the future is not ready at once"),
        }
    }

    /// Ready when it is polled the second time.
    async fn step(number: usize, under_way: &Cell<usize>, most: &Cell<usize>) -> usize {
        under_way.set(under_way.get() + 1);
        most.set(most.get().max(under_way.get()));
        let mut polled = false;
        poll_fn(|_| if std::mem::replace(&mut polled, true) { Poll::Ready(()) } else { Poll::Pending }).await;
        under_way.set(under_way.get() - 1);
        number
    }

    #[test]
    fn results_come_in_order_and_a_bounded_number_runs_at_a_time() {
        for count in [0, 1, WIDTH, WIDTH + 1, 5 * WIDTH] {
            let (under_way, most) = (Cell::new(0), Cell::new(0));
            let mut joined = pin!(join_all(0..count, |number| step(number, &under_way, &most)));
            let mut context = std::task::Context::from_waker(std::task::Waker::noop());
            let mut polls = 0;
            let results = loop {
                polls += 1;
                if let Poll::Ready(results) = joined.as_mut().poll(&mut context) {
                    break results;
                }
            };
            assert_eq!(results, (0..count).collect::<Vec<_>>());
            assert_eq!(most.get(), count.min(WIDTH));
            assert!(polls <= 2 * count.div_ceil(WIDTH) + 1, "{polls} for {count}");
        }
    }
}
