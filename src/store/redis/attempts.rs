//! Attempts side by side: the next one begins while earlier ones are silent, and the first success counts.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::Poll;
use std::time::Duration;

use tokio::time::{Instant, timeout_at};

use super::fault::Failure;

/// The most attempts at once. With more sentinels or seeds, one for each.
const AT_ONCE: usize = 4;

/// How long an attempt may be silent before the next one begins beside it.
#[derive(Clone, Copy)]
pub(super) struct Pauses {
    pub(super) first: Duration,
    /// Each pause is twice as long as the one before, up to this.
    pub(super) longest: Duration,
}

impl Pauses {
    /// All pauses last this long.
    pub(super) const fn of(pause: Duration) -> Self {
        Self { first: pause, longest: pause }
    }

    pub(super) fn halved(self) -> Self {
        Self { first: self.first / 2, longest: self.longest / 2 }
    }
}

/// Makes attempts until one succeeds. An attempt whose packets were swallowed is never answered. So the next attempt begins after a
/// pause, beside it, or at once if an earlier one fails. The pauses grow: an attempt that begins later may be a slow one, whose
/// server is answering.
///
/// The first `each` attempts are made in any case. Further ones are made only while `is_wanted` returns true, so that an attempt
/// begins soon after a network is back. Where too many are under way, the second oldest makes room: the oldest keeps its whole time,
/// in case the server is slow.
///
/// Fails with the most useful failure, when the last attempt has failed.
pub(super) async fn side_by_side<T, F>(
    each: usize,
    pauses: Pauses,
    is_wanted: impl Fn() -> bool,
    attempt: impl Fn(usize) -> F,
) -> Result<T, Failure>
where
    F: Future<Output = Result<T, Failure>>,
{
    let mut running = Vec::new();
    let (mut begun, mut most_useful) = (0, Failure::NoConnection);
    let mut pause = pauses.first;
    loop {
        // In this order: a caller may take the question as a sign of life.
        if is_wanted() || begun < each {
            if running.len() >= AT_ONCE.max(each) {
                drop(running.remove(1));
            }
            // On the heap: the task that makes a connection would hold several large futures.
            running.push(Box::pin(attempt(begun)));
            begun += 1;
        }
        let next = Instant::now() + pause;
        while let Ok(outcome) = timeout_at(next, first_of(&mut running)).await {
            match outcome {
                Err(failure) => most_useful = most_useful.or_more_useful(failure),
                success => return success,
            }
            if begun < each {
                break;
            }
            if running.is_empty() {
                return Err(most_useful);
            }
        }
        if Instant::now() >= next {
            pause = (2 * pause).min(pauses.longest.max(pauses.first));
        }
    }
}

/// Returns the output of the attempt that ends first, and removes that attempt.
async fn first_of<F: Future>(running: &mut Vec<Pin<Box<F>>>) -> F::Output {
    poll_fn(|cx| {
        for place in 0..running.len() {
            let polled = running.get_mut(place).map(|attempt| attempt.as_mut().poll(cx));
            if let Some(Poll::Ready(output)) = polled {
                drop(running.remove(place));
                return Poll::Ready(output);
            }
        }
        Poll::Pending
    })
    .await
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::future::pending;
    use std::rc::Rc;

    use tokio::time::sleep;

    use super::*;

    const STEP: Duration = Duration::from_millis(1);
    const SHORT: Pauses = Pauses::of(STEP);
    const ENDLESS: Pauses = Pauses::of(Duration::from_secs(3_600));

    fn refused() -> Failure {
        Failure::Connect("refused".to_owned())
    }

    #[tokio::test]
    async fn a_silent_attempt_holds_up_no_other() {
        let attempt = |number| async move { if number == 2 { Ok(number) } else { pending().await } };
        for (each, is_wanted) in [(3, false), (1, true)] {
            assert_eq!(side_by_side(each, SHORT, || is_wanted, attempt).await.unwrap(), 2);
        }
    }

    /// A server that refuses connections is not asked again and again, though a connection is wanted.
    #[tokio::test]
    async fn a_failure_begins_the_next_attempt_at_once_and_the_last_failure_is_the_end() {
        let begun = Cell::new(0);
        let attempt = |number| {
            begun.set(number + 1);
            async move { Err::<(), _>(if number == 1 { Failure::Setup("setup".to_owned()) } else { refused() }) }
        };
        let failure = side_by_side(3, ENDLESS, || true, attempt).await.unwrap_err();
        assert!(matches!(failure, Failure::Setup(_)), "{failure}");
        assert_eq!(begun.get(), 3);
    }

    #[tokio::test]
    async fn attempts_that_are_not_wanted_come_to_an_end() {
        let begun = Cell::new(0);
        let attempt = |number| {
            begun.set(number + 1);
            let begun = &begun;
            async move {
                while begun.get() < 3 {
                    sleep(STEP).await;
                }
                sleep(5 * STEP).await;
                Err::<(), _>(refused())
            }
        };
        assert!(side_by_side(1, SHORT, || begun.get() < 3, attempt).await.is_err());
        assert_eq!(begun.get(), 3);
    }

    /// Later attempts are as far apart as the longest pause.
    #[tokio::test]
    async fn the_pauses_grow() {
        let pauses = Pauses { first: 2 * STEP, longest: 10 * STEP };
        let begun = std::cell::RefCell::new(Vec::new());
        let attempt = |number| {
            begun.borrow_mut().push(Instant::now());
            async move { if number == 5 { Ok(()) } else { pending().await } }
        };
        side_by_side(1, pauses, || true, attempt).await.unwrap();
        let begun = begun.into_inner();
        for (pair, least) in begun.windows(2).zip([2, 4, 8, 10, 10]) {
            assert!(pair[1] - pair[0] >= least * STEP, "{begun:?}");
        }
    }

    #[test]
    fn halved_pauses_are_half_as_long() {
        let halved = Pauses { first: 4 * STEP, longest: 10 * STEP }.halved();
        assert_eq!((halved.first, halved.longest), (2 * STEP, 5 * STEP));
    }

    /// Counts its instances.
    struct Counted(Rc<Cell<usize>>);

    impl Counted {
        fn new(count: &Rc<Cell<usize>>) -> Self {
            count.set(count.get() + 1);
            Self(Rc::clone(count))
        }
    }

    impl Drop for Counted {
        fn drop(&mut self) {
            self.0.set(self.0.get() - 1);
        }
    }

    /// The network swallows a hundred attempts, which would never end.
    #[tokio::test]
    async fn after_a_long_silence_another_attempt_begins_and_few_are_under_way() {
        let under_way = Rc::new(Cell::new(0));
        let attempt = |number| {
            let counted = Counted::new(&under_way);
            async move {
                assert!(counted.0.get() <= AT_ONCE, "{}", counted.0.get());
                if number == 100 { Ok(number) } else { pending().await }
            }
        };
        assert_eq!(side_by_side(1, SHORT, || true, attempt).await.unwrap(), 100);
        assert_eq!(under_way.get(), 0);
    }

    /// The server takes longer to accept a connection than there is room for attempts.
    #[tokio::test]
    async fn the_oldest_attempt_keeps_its_time() {
        let begun = Cell::new(0);
        let attempt = |number| {
            begun.set(number);
            let begun = &begun;
            async move {
                while number > 0 || begun.get() < 3 * AT_ONCE {
                    sleep(STEP).await;
                }
                Ok(number)
            }
        };
        assert_eq!(side_by_side(1, SHORT, || true, attempt).await.unwrap(), 0);
    }
}
