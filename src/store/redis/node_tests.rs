use std::sync::mpsc;
use std::time::Duration;

use super::super::connection_options::ConnectionOptions;
use super::super::transport::Transport;
use super::*;

#[test]
fn a_runtime_that_has_ended_leaves_no_connection_half_made_and_no_lock_held() {
    let (done, is_done) = mpsc::channel();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).build().unwrap();
        let counters = Arc::new(Counters::default());
        let options = ConnectionOptions::new("redis://127.0.0.1:1".to_owned());
        let Ok(Transport::One(node)) = options.transport(&counters, None) else { panic!("one server") };
        let handle = runtime.handle().clone();
        drop(runtime);
        let _inside = handle.enter();
        node.mend(None);
        done.send(node.read().iter().all(|pooled| !pooled.dialing)).unwrap();
    });
    let answer = is_done.recv_timeout(Duration::from_secs(60));
    assert_eq!(answer, Ok(true), "it waits for a lock that it holds itself");
}
