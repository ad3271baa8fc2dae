//! The queue before worker threads: its order, its bounds, and the deadlines of its jobs.

use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Waker};
use std::thread;

use super::*;

type Numbers = Queue<u32, u32>;

const LONG: Duration = Duration::from_secs(3_600);

fn poll<F: Future>(future: Pin<&mut F>) -> Poll<F::Output> {
    future.poll(&mut Context::from_waker(Waker::noop()))
}

fn jobs(taken: Taken<u32>) -> Vec<(u64, u32)> {
    match taken {
        Taken::Jobs(jobs) => jobs,
        Taken::Idle | Taken::Closed => Vec::new(),
    }
}

#[test]
fn jobs_are_taken_in_order_and_each_caller_gets_its_own_answer() {
    let queue = Arc::new(Numbers::new(LONG));
    let _worker = queue.worker();
    let (mut one, mut two, mut three) =
        (pin!(queue.call(1, 0)), pin!(queue.call(2, 0)), pin!(queue.call(3, 0)));
    assert!(poll(one.as_mut()).is_pending());
    assert!(poll(two.as_mut()).is_pending());
    assert!(poll(three.as_mut()).is_pending());
    let first = jobs(queue.take(2, None));
    assert_eq!(first.iter().map(|job| job.1).collect::<Vec<_>>(), [1, 2]);
    // In another order than they came.
    queue.answer([(first[1].0, Ok(20))]);
    assert_eq!(poll(two.as_mut()), Poll::Ready(Ok(20)));
    assert!(poll(one.as_mut()).is_pending());
    let last = jobs(queue.take(2, None));
    queue.answer([(last[0].0, Ok(30)), (first[0].0, Err(Failure::Full))]);
    assert_eq!(poll(one.as_mut()), Poll::Ready(Err(Failure::Full)));
    assert_eq!(poll(three.as_mut()), Poll::Ready(Ok(30)));
    assert!(queue.state().replies.is_empty(), "nothing is kept of what was answered");
}

#[test]
fn a_worker_that_is_stuck_holds_up_no_caller_of_a_queue_that_closes() {
    let queue = Arc::new(Numbers::new(Duration::from_millis(1)));
    let worker = queue.worker();
    let call = queue.push(1, 0).unwrap();
    queue.close();
    let watch = {
        let queue = Arc::clone(&queue);
        thread::spawn(move || queue.watch())
    };
    assert_eq!(call.blocking_recv().unwrap(), Err(Failure::TimedOut));
    drop(worker);
    watch.join().unwrap();
}

#[test]
fn a_job_that_no_caller_waits_for_is_not_done() {
    let queue = Arc::new(Numbers::new(LONG));
    let _worker = queue.worker();
    {
        let mut dropped = pin!(queue.call(1, 0));
        assert!(poll(dropped.as_mut()).is_pending());
    }
    let mut kept = pin!(queue.call(2, 0));
    assert!(poll(kept.as_mut()).is_pending());
    let taken = jobs(queue.take(10, None));
    assert_eq!(taken.iter().map(|job| job.1).collect::<Vec<_>>(), [2]);
    queue.answer([(taken[0].0, Ok(2))]);
    assert_eq!(poll(kept.as_mut()), Poll::Ready(Ok(2)));
}

#[test]
fn a_worker_that_is_stuck_does_not_hold_up_its_callers() {
    let queue = Arc::new(Numbers::new(Duration::from_millis(1)));
    let worker = queue.worker();
    let watch = {
        let queue = Arc::clone(&queue);
        thread::spawn(move || queue.watch())
    };
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    // One job runs and one waits. The worker replies to neither.
    let (taken, waiting) = runtime.block_on(async {
        tokio::join!(
            async {
                let mut call = pin!(queue.call(1, 0));
                assert!(poll(call.as_mut()).is_pending());
                // The watch may have been faster, so the job is taken only if it is still there.
                let _ = queue.take(1, Some(Duration::ZERO));
                call.await
            },
            queue.call(2, 0)
        )
    });
    assert_eq!((taken, waiting), (Err(Failure::TimedOut), Err(Failure::TimedOut)));
    // Its answers come too late, and are not taken for the answer of a later job.
    let mut later = pin!(queue.push(3, 0).unwrap());
    queue.answer([(0, Ok(1)), (1, Ok(2))]);
    assert!(!matches!(poll(later.as_mut()), Poll::Ready(Ok(Ok(_)))));
    queue.close();
    drop(worker);
    watch.join().unwrap();
}

#[test]
fn too_many_jobs_are_refused_at_once_and_so_are_too_many_bytes() {
    let queue = Arc::new(Numbers::new(LONG));
    let _worker = queue.worker();
    let _kept: Vec<_> = (0..MAX_WAITING).map(|_| queue.push(0, 1).unwrap()).collect();
    assert_eq!(queue.push(0, 1).unwrap_err(), Failure::QueueFull);
    let mut taken = 0;
    while taken < MAX_WAITING {
        taken += jobs(queue.take(1_000, None)).len();
    }
    let _large = queue.push(0, MAX_WAITING_BYTES).unwrap();
    assert_eq!(queue.push(0, 1).unwrap_err(), Failure::QueueFull);
    assert_eq!(jobs(queue.take(1_000, None)).len(), 1);
    assert!(queue.push(0, 1).is_ok());
}

#[test]
fn a_worker_takes_few_large_jobs_at_once() {
    let queue = Arc::new(Numbers::new(LONG));
    let _worker = queue.worker();
    let _kept: Vec<_> = (0..8).map(|_| queue.push(0, MAX_TAKEN_BYTES / 2).unwrap()).collect();
    assert_eq!(jobs(queue.take(1_000, None)).len(), 2);
}

#[test]
fn the_last_worker_to_go_tells_those_who_wait() {
    let queue = Arc::new(Numbers::new(LONG));
    let (one, two) = (queue.worker(), queue.worker());
    let mut call = pin!(queue.call(1, 0));
    assert!(poll(call.as_mut()).is_pending());
    drop(one);
    assert!(poll(call.as_mut()).is_pending());
    drop(two);
    assert_eq!(poll(call.as_mut()), Poll::Ready(Err(Failure::Stopped)));
    assert_eq!(queue.push(2, 0).unwrap_err(), Failure::Stopped);
    queue.wait_for_workers();
    queue.watch(); // returns at once: there is nothing left to watch
}

#[test]
fn a_closed_queue_has_its_jobs_done_first() {
    let queue = Arc::new(Numbers::new(LONG));
    let worker = queue.worker();
    let _kept = queue.push(7, 0).unwrap();
    queue.close();
    assert_eq!(queue.push(8, 0).unwrap_err(), Failure::Stopped);
    assert_eq!(jobs(worker.queue().take(10, None)).len(), 1);
    assert!(matches!(worker.queue().take(10, None), Taken::Closed));
    assert!(matches!(Numbers::new(LONG).take(1, Some(Duration::ZERO)), Taken::Idle));
}

#[test]
fn closing_waits_for_the_workers_and_not_for_longer_than_a_job_may_take() {
    let queue = Arc::new(Numbers::new(LONG));
    let worker = queue.worker();
    let is_gone = AtomicBool::new(false);
    queue.close();
    thread::scope(|scope| {
        scope.spawn(|| {
            is_gone.store(true, Ordering::SeqCst);
            drop(worker);
        });
        queue.wait_for_workers();
        assert!(is_gone.load(Ordering::SeqCst));
    });
    let queue = Arc::new(Numbers::new(Duration::from_millis(1)));
    let _worker = queue.worker();
    queue.wait_for_workers();
}

/// A process that was forked has the queue, and neither its workers nor its watch.
#[test]
fn a_process_that_was_forked_gets_an_error() {
    let mut queue = Numbers::new(LONG);
    queue.process ^= 1;
    assert_eq!(poll(pin!(queue.call(1, 0))), Poll::Ready(Err(Failure::Stopped)));
}
