//! One server: connections that are being made while the network fails or the runtime ends.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Condvar, Mutex, mpsc};
use std::task::{Context, Waker};
use std::time::Duration;

use bb8_redis::redis::parse_redis_value;

use super::super::connection_options::ConnectionOptions;
use super::super::transport::Transport;
use super::*;

/// A node without a connection, at this address.
fn node_at(address: &str) -> Arc<Node> {
    node_with(options_for(address))
}

/// With the time that a busy machine may take for a connection.
fn options_for(address: &str) -> ConnectionOptions {
    let mut options = ConnectionOptions::new(format!("redis://{address}"));
    options.connect_timeout = Duration::from_secs(60);
    options
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

/// Waits until no connection is being made.
async fn until_none_is_dialed(node: &Node) {
    let start = Instant::now();
    while node.read().iter().any(|pooled| pooled.dialing.is_some()) {
        assert!(start.elapsed() < Duration::from_secs(60));
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn ping() -> Cmd {
    bb8_redis::redis::cmd("PING")
}

/// A server with one good connection. It answers the second question of that connection once another connection was accepted, and
/// never answers the others. After the third answer it waits for the test, and closes the others.
fn stalling_server() -> (SocketAddr, mpsc::Sender<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let (close, is_to_close) = mpsc::channel();
    std::thread::spawn(move || {
        let (mut good, _) = listener.accept().unwrap();
        let hear = |good: &mut TcpStream| assert!(good.read(&mut [0; 1_024]).unwrap() > 0);
        let reply = |good: &mut TcpStream| good.write_all(b"+OK\r\n").unwrap();
        hear(&mut good);
        reply(&mut good);
        hear(&mut good);
        let other = listener.accept().unwrap();
        reply(&mut good);
        hear(&mut good);
        reply(&mut good);
        let _ = is_to_close.recv();
        drop((listener, other));
        answer(good);
    });
    (address, close)
}

/// The server stalls for longer than the patience, and new connections cannot be made.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_that_answers_after_all_is_used_again() {
    let (server, close) = stalling_server();
    let mut options = options_for(&server.to_string());
    options.connections = 1;
    let node = node_with(options);
    node.connect().await.unwrap();
    let long = Duration::from_secs(60);
    let limits = Limits::new(Instant::now() + long, long, Duration::from_millis(100));
    assert!(matches!(node.send(&ping(), false, &limits).await, Ok(Value::Okay)));
    assert_eq!(node.counters.connections_broken.load(Ordering::Relaxed), 1, "it was silent");
    let is_ok = async || {
        let limits = Limits::new(Instant::now() + long, long, long);
        assert!(matches!(node.send(&ping(), false, &limits).await, Ok(Value::Okay)));
        assert!(node.is_up() && node.is_connected());
    };
    is_ok().await;
    assert!(
        node.read().iter().any(|pooled| pooled.dialing.is_some()),
        "it is in use while a new connection is made"
    );
    close.send(()).unwrap();
    until_none_is_dialed(&node).await;
    assert!(node.read().iter().all(|pooled| pooled.failed.is_some()));
    is_ok().await;
    assert_eq!(node.counters.connections_created.load(Ordering::Relaxed), 1);
}

/// Answers all requests of a client.
fn answer(mut client: TcpStream) {
    let mut requests = [0; 1_024];
    while let Ok(len @ 1..) = client.read(&mut requests) {
        // The requests that waited come together.
        for _ in requests[..len].iter().filter(|&&byte| byte == b'*') {
            let _ = client.write_all(b"+OK\r\n");
        }
    }
}

/// A node whose connections lead to a port on which no server listens by now, and the server's ends of them.
async fn without_a_listener(connections: u32) -> (Arc<Node>, Vec<TcpStream>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut options = options_for(&listener.local_addr().unwrap().to_string());
    options.connections = connections;
    let accepting = std::thread::spawn(move || {
        let accept = |_| {
            let (mut client, _) = listener.accept().unwrap();
            assert!(client.read(&mut [0; 1_024]).unwrap() > 0);
            client.write_all(b"+OK\r\n").unwrap();
            client
        };
        (0..connections).map(accept).collect()
    });
    let node = node_with(options);
    node.connect().await.unwrap();
    (node, accepting.join().unwrap())
}

/// The server stalls for longer than a step takes, so no request waits for the replies when they come.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn silent_connections_are_the_last_resort_where_none_can_be_made() {
    for connections in [1, 2] {
        let (node, servers) = without_a_listener(connections).await;
        let short = Duration::from_millis(100);
        // All connections are found silent, and the failed attempts to make others are known.
        let start = Instant::now();
        while node.is_up() || node.is_connected() {
            assert!(start.elapsed() < Duration::from_secs(60));
            let limits = Limits::new(Instant::now() + short, short, short / 2);
            assert!(node.send(&ping(), false, &limits).await.is_err());
        }
        assert!(node.read().iter().any(|pooled| pooled.connection.is_some()), "one is kept");
        for server in servers {
            std::thread::spawn(|| answer(server));
        }
        let start = Instant::now();
        let long = Duration::from_secs(60);
        loop {
            let limits = Limits::new(Instant::now() + long, long, long);
            match node.send(&ping(), false, &limits).await {
                Ok(_) => break,
                // While it counts as down, one request at a time tries it.
                Err(failed) => assert!(start.elapsed() < long, "{failed:?}"),
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        assert!(node.is_up() && node.is_connected());
        // A further attempt that fails says nothing about the connection that works.
        until_none_is_dialed(&node).await;
        assert!(node.is_up());
        assert_eq!(node.counters.connections_created.load(Ordering::Relaxed), u64::from(connections));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_silent_connection_is_dropped_when_a_new_one_works() {
    let (node, _servers) = without_a_listener(2).await;
    let [first, second] = [0, 1]
        .map(|place: usize| node.read().get(place).and_then(|pooled| pooled.connection.clone()).unwrap());
    let places = || -> Vec<_> { node.read().iter().map(|pooled| pooled.connection.is_some()).collect() };
    node.fall_silent(&first);
    assert_eq!(places(), [false, true], "the other one works");
    node.fall_silent(&second);
    assert_eq!(places(), [false, true], "it is kept");
    assert!(!node.is_connected() && node.another(None, Instant::now()).is_some());
    assert!(node.another(Some(&second), Instant::now()).is_none());
    // The first one answers after all, and gets a place again.
    node.speak(&first);
    assert_eq!(places(), [true, false], "the other one is silent");
    // So does the second one. A refusal is an answer, too.
    let refusal = |reply: &[u8]| parse_redis_value(reply).and_then(Value::extract_error);
    node.judge(&second, refusal(b"-LOADING Redis is loading the dataset in memory\r\n"));
    assert_eq!(places(), [true, true]);
    node.fall_silent(&second);
    node.judge(&second, refusal(b"-READONLY You can't write against a read only replica.\r\n"));
    node.speak(&second);
    assert!(second.is_broken(), "a connection to a replica does not come back");
    assert_eq!(node.counters.connections_broken.load(Ordering::Relaxed), 3, "each silence once");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_connection_replaces_the_silent_ones_of_all_places() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let node = node_at(&listener.local_addr().unwrap().to_string());
    std::thread::spawn(move || {
        for client in listener.incoming().flatten() {
            std::thread::spawn(|| answer(client));
        }
    });
    node.connect().await.unwrap();
    let connections: Vec<_> = node.read().iter().filter_map(|pooled| pooled.connection.clone()).collect();
    for connection in &connections {
        node.fall_silent(connection);
    }
    assert_eq!(node.take_missing(None, Instant::now()), [(0, 0), (1, 1)]);
    let (connection, _) = node.dialer.dial().await.unwrap();
    node.dialed(0, 0, Some(Ok(connection)));
    assert!(node.read().iter().map(|pooled| pooled.working().is_some()).eq([true, false]));
    let places = || -> Vec<_> { node.read().iter().map(|pooled| pooled.connection.is_some()).collect() };
    assert_eq!(places(), [true, false]);
    // They answer after all. By now, they may lead to a former master.
    for connection in &connections {
        node.speak(connection);
        assert_eq!(places(), [true, false]);
        assert!(!connection.works());
    }
}

/// A node with one silent connection, to a server that does not answer new ones. And the server's end of the silent one.
async fn with_a_silent_connection() -> (Arc<Node>, Arc<Connection>, TcpStream, TcpListener) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut options = options_for(&listener.local_addr().unwrap().to_string());
    options.connections = 1;
    let accepting = std::thread::spawn(move || {
        let (mut client, _) = listener.accept().unwrap();
        assert!(client.read(&mut [0; 1_024]).unwrap() > 0);
        client.write_all(b"+OK\r\n").unwrap();
        (client, listener)
    });
    let node = node_with(options);
    node.connect().await.unwrap();
    let (client, listener) = accepting.join().unwrap();
    let connection = node.ready(Instant::now()).unwrap();
    node.fall_silent(&connection);
    (node, connection, client, listener)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_that_waits_gets_the_connection_that_answers_after_all() {
    let (node, connection, _client, _listener) = with_a_silent_connection().await;
    let now = Instant::now();
    let mut waiting = pin!(node.wait_for(None, now, now + Duration::from_secs(60)));
    assert!(waiting.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
    node.speak(&connection);
    assert!(Arc::ptr_eq(&waiting.await.unwrap(), &connection));
    assert!(now.elapsed() < Duration::from_secs(60));
}

/// Also where a request could wait for a new connection until its deadline.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_silent_connection_is_used_while_there_is_time_for_a_reply() {
    // A busy machine may not get there in half of the first times.
    for whole in [1, 4, 16, 64].map(Duration::from_secs) {
        let (node, _, client, _listener) = with_a_silent_connection().await;
        std::thread::spawn(|| answer(client));
        let reply = node.send(&ping(), false, &Limits::new(Instant::now() + whole, whole, whole / 2)).await;
        if matches!(reply, Ok(Value::Okay)) {
            return;
        }
    }
    panic!("it is not used in time");
}

/// It accepts connections and answers nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_to_which_no_connection_is_made_in_time_is_down_after_three_steps() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let node = node_at(&listener.local_addr().unwrap().to_string());
    for is_up in [true, true, false] {
        let short = Duration::from_millis(20);
        let now = Instant::now();
        let result = node.missing(now, &Limits::new(now + short, short, short)).await;
        assert!(matches!(result, Err(Failure::NoConnection)));
        assert_eq!(node.is_up(), is_up);
    }
}

/// The first connection is silent, and the network swallows the attempts to make a new one. On a busy machine, the other one may be
/// late: then there is more time.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_no_fresh_connection_comes_the_other_one_is_used_in_time() {
    let long = Duration::from_secs(60);
    for patience in [250, 1_000, 4_000].map(Duration::from_millis) {
        let server = server(|connection, command| {
            (connection == 1 || connection == 0 && command < 2).then_some("+OK")
        });
        let node = node_at(&server.to_string());
        let reply = node.send(&ping(), false, &Limits::new(Instant::now() + long, long, long)).await;
        assert!(matches!(reply, Ok(Value::Okay)), "{reply:?}");
        let whole = 4 * patience;
        let reply = node.send(&ping(), false, &Limits::new(Instant::now() + whole, whole, patience)).await;
        if matches!(reply, Ok(Value::Okay)) {
            assert!(node.is_connected() && node.is_up());
            return;
        }
    }
    panic!("the other one is not used in time");
}

/// The step ends before the patience does: that the server has not answered yet shows nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_last_moment_of_a_step_is_no_silence() {
    let begun = Instant::now();
    let (node, _servers) = without_a_listener(2).await;
    let long = Duration::from_secs(60);
    for left in [Duration::ZERO, Duration::from_millis(20)] {
        let limits = Limits::new(Instant::now() + left, long, long);
        let reply = node.send(&ping(), false, &limits).await;
        assert!(matches!(reply, Err(Trouble::Failed(Failure::TimedOut))), "{reply:?}");
    }
    // The same for a connection that was made just before the deadline.
    let limits = Limits::new(Instant::now() + Duration::from_millis(20), long, long);
    let silent = node.ready(Instant::now()).unwrap();
    let reply = node.over_fresh(&silent, &ping(), false, begun, &limits).await;
    assert!(matches!(reply, Err(Trouble::Failed(Failure::TimedOut))), "{reply:?}");
    // A deadline that has passed sends nothing, also to a server that is down.
    node.health.down(Failure::NoConnection);
    let reply = node.send(&ping(), false, &Limits::new(Instant::now(), long, long)).await;
    assert!(matches!(reply, Err(Trouble::Failed(Failure::TimedOut))), "{reply:?}");
    node.health.answered();
    assert!(node.read().iter().all(|pooled| pooled.working().is_some()) && node.is_up());
    let counters = [&node.counters.timeouts, &node.counters.connections_broken, &node.counters.turned_away];
    assert_eq!(counters.map(|counter| counter.load(Ordering::Relaxed)), [0; 3]);
}

/// The server is still loading when the step ends, and its last answer does not come in time. If there was time for an answer, the
/// server is silent.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_step_that_ends_while_the_server_is_loading_says_so() {
    for (patience, expected) in [(Duration::from_secs(60), true), (Duration::from_millis(200), false)] {
        // A busy machine may not ask a third time within the first times.
        let mut says_so = true;
        for whole in [1, 4, 16, 64].map(Duration::from_secs) {
            says_so = says_that_it_is_loading(whole, patience).await;
            if says_so == expected {
                break;
            }
        }
        assert_eq!(says_so, expected);
    }
}

/// Returns how a step of that length ends. Its third question has no answer.
async fn says_that_it_is_loading(whole: Duration, patience: Duration) -> bool {
    let server = server(|connection, command| match (connection, command) {
        (0, 1 | 2) => Some("-LOADING Redis is loading the dataset in memory"),
        (0, 0) => Some("+OK"),
        _ => None,
    });
    let mut options = options_for(&server.to_string());
    options.connections = 1;
    let node = node_with(options);
    node.connect().await.unwrap();
    let limits = Limits::new(Instant::now() + whole, whole, patience);
    let transport = Transport::One(Arc::clone(&node));
    let says_so = match transport.send("key", &ping(), &limits, &node.counters).await {
        Err(Trouble::Reply(error)) if error.code() == Some("LOADING") => true,
        Err(Trouble::Failed(Failure::TimedOut)) => false,
        other => panic!("{other:?}"),
    };
    assert_eq!(node.is_connected(), says_so);
    assert_eq!(node.counters.timeouts.load(Ordering::Relaxed), u64::from(!says_so));
    says_so
}
