use std::sync::mpsc;
use std::task::{Context, Waker};
use std::time::Duration;

use super::super::connection_options::ConnectionOptions;
use super::super::transport::Transport;
use super::*;

/// A node without a connection, and a runtime that has ended, whose tasks are dropped as they are spawned. Runs `body` inside of
/// that runtime.
fn after_the_runtime(body: fn(&Arc<Node>) -> bool) -> bool {
    let (done, is_done) = mpsc::channel();
    std::thread::spawn(move || {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let counters = Arc::new(Counters::default());
        let options = ConnectionOptions::new("redis://127.0.0.1:1".to_owned());
        let Ok(Transport::One(node)) = options.transport(&counters, None) else { panic!("one server") };
        let handle = runtime.handle().clone();
        drop(runtime);
        let _inside = handle.enter();
        done.send(body(&node)).unwrap();
    });
    is_done.recv_timeout(Duration::from_secs(60)).expect("it hangs")
}

#[test]
fn a_runtime_that_has_ended_leaves_no_connection_half_made_and_no_lock_held() {
    assert!(after_the_runtime(|node| {
        node.mend(None);
        node.read().iter().all(|pooled| !pooled.dialing)
    }));
}

#[test]
fn a_task_that_waits_for_a_connection_lets_its_runtime_end() {
    assert!(after_the_runtime(|node| {
        let now = Instant::now();
        let waiting = pin!(node.wait_for(None, now, now + Duration::from_secs(3_600)));
        waiting.poll(&mut Context::from_waker(Waker::noop())).is_pending()
    }));
}
