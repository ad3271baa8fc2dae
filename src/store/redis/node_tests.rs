//! One server: connections that are being made while the network fails or the runtime ends.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::sync::{Condvar, Mutex, mpsc};
use std::task::{Context, Waker};
use std::time::Duration;

use super::super::connection_options::ConnectionOptions;
use super::super::transport::Transport;
use super::*;

/// A node without a connection, at this address.
fn node_at(address: &str) -> Arc<Node> {
    node_with(ConnectionOptions::new(format!("redis://{address}")))
}

fn node_with(options: ConnectionOptions) -> Arc<Node> {
    let checkout = Duration::from_secs(60);
    let Ok(Transport::One(node)) = options.transport(&Arc::new(Counters::default()), None, checkout) else {
        panic!("one server")
    };
    node
}

/// A node without a connection, and a runtime that has ended, whose tasks are dropped as they are spawned. Runs `body` inside of
/// that runtime.
fn after_the_runtime(body: fn(&Arc<Node>) -> bool) -> bool {
    let (done, is_done) = mpsc::channel();
    std::thread::spawn(move || {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let node = node_at("127.0.0.1:1");
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
        node.read().iter().all(|pooled| pooled.dialing.is_none())
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

/// An attempt may have begun before the network failed, and end long after.
#[test]
fn an_attempt_that_fails_says_nothing_while_another_is_under_way() {
    let node = node_at("127.0.0.1:1");
    assert_eq!(node.take_missing(None, Instant::now()), [(0, 0), (1, 1)]);
    fail(&node, 0, 0);
    assert!(node.is_up(), "the other attempt may succeed");
    fail(&node, 1, 1);
    assert!(!node.is_up());
}

fn fail(node: &Node, place: usize, number: u64) {
    node.dialed(place, number, Some(Err(Failure::Connect("no reply in time".to_owned()))));
}

/// The runtime of the first tasks is there, and no thread drives it.
#[test]
fn a_task_that_is_not_run_does_not_keep_its_place() {
    let node = node_at("127.0.0.1:1");
    let begun = Instant::now();
    let late = begun + 2 * node.dialer.access.timeout;
    assert_eq!(node.take_missing(None, begun), [(0, 0), (1, 1)]);
    assert_eq!(node.take_missing(None, late - Duration::from_millis(1)), []);
    assert_eq!(node.take_missing(None, late), [(0, 2), (1, 3)]);
    // The first tasks run again.
    assert!(!node.goes_on_dialing(0, 0) && node.goes_on_dialing(0, 2));
    fail(&node, 0, 0);
    fail(&node, 1, 1);
    assert!(node.is_up());
    let dialing = |place: usize, number| node.read().get(place).unwrap().is_dialed_by(number);
    assert!(dialing(0, 2) && dialing(1, 3));
}

/// A task that waits for a silent server for a long time is not replaced while it is run.
#[test]
fn a_task_that_is_run_keeps_its_place() {
    let node = node_at("127.0.0.1:1");
    let begun = Instant::now();
    let late = begun + 2 * node.dialer.access.timeout;
    assert_eq!(node.take_missing(None, begun), [(0, 0), (1, 1)]);
    while Instant::now() <= begun {
        std::thread::yield_now();
    }
    assert!(node.goes_on_dialing(0, 0));
    assert_eq!(node.take_missing(None, late), [(1, 2)]);
}

/// A server that answers as `replies` says, which gets the numbers of the connection and of its command. `None` is silence. The
/// second connection gets its first reply when another connection has met silence.
fn server(replies: fn(connection: usize, command: usize) -> Option<&'static str>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let silent = Arc::new((Mutex::new(false), Condvar::new()));
    std::thread::spawn(move || {
        for (number, client) in listener.incoming().enumerate() {
            let (mut client, silent) = (client.unwrap(), Arc::clone(&silent));
            std::thread::spawn(move || {
                let mut buffer = [0; 1_024];
                let mut command = 0;
                while client.read(&mut buffer).is_ok_and(|len| len > 0) {
                    if number == 1 && command == 0 {
                        drop(silent.1.wait_while(silent.0.lock().unwrap(), |silent| !*silent).unwrap());
                    }
                    if let Some(reply) = replies(number, command) {
                        client.write_all(format!("{reply}\r\n").as_bytes()).unwrap();
                    } else {
                        *silent.0.lock().unwrap() = true;
                        silent.1.notify_all();
                    }
                    command += 1;
                }
            });
        }
    });
    address
}

/// Both connections go dead while the second one is being made: the reply to its last question is under way already.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_that_was_being_made_when_the_network_failed_is_not_a_fresh_one() {
    let long = Duration::from_secs(60);
    // The first connection gets replies to HELLO and one command, the second one to HELLO.
    let server = server(|connection, command| (connection > 1 || command < 2 - connection).then_some("+OK"));
    let node = node_at(&server.to_string());
    for patience in [long, Duration::from_millis(500)] {
        let limits = Limits::new(Instant::now() + long, long, patience);
        let reply = node.send(&bb8_redis::redis::cmd("PING"), false, &limits).await;
        assert!(matches!(reply, Ok(Value::Okay)), "{reply:?}");
    }
}

/// Their first questions have no replies, as if the network had failed and was back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_connections_that_were_being_made_when_the_network_failed_cost_no_request() {
    let server = server(|connection, _| (connection > 1).then_some("+OK"));
    let mut options = ConnectionOptions::new(format!("redis://{server}"));
    options.connect_timeout = Duration::from_secs(8);
    let node = node_with(options);
    let long = Duration::from_secs(60);
    let limits = Limits::new(Instant::now() + long, long, long);
    let reply = node.send(&bb8_redis::redis::cmd("PING"), false, &limits).await;
    assert!(matches!(reply, Ok(Value::Okay)), "{reply:?}");
    assert!(node.is_up());
}

/// A Cluster refuses with TRYAGAIN a command whose keys are on two nodes, while their slot is on the move.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_says_tryagain_is_asked_again() {
    let server = server(|_, command| match command {
        1 | 2 => Some("-TRYAGAIN Multiple keys request during rehashing of slot"),
        _ => Some("+OK"),
    });
    let counters = Counters::default();
    let long = Duration::from_secs(60);
    let limits = Limits::new(Instant::now() + long, long, long);
    let transport = Transport::One(node_at(&server.to_string()));
    let reply = transport.send("key", &bb8_redis::redis::cmd("PING"), &limits, &counters).await;
    assert!(matches!(reply, Ok(Value::Okay)), "{reply:?}");
    assert_eq!(counters.retries.load(std::sync::atomic::Ordering::Relaxed), 2);
}
