//! A Cluster of nodes whose views differ.

use std::fmt::Write as _;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::task::{Context, Waker};

use super::super::connection_options::ConnectionOptions;
use super::super::transport::Transport;
use super::*;

const LONG: Duration = Duration::from_secs(60);

/// A key, and the first of the slots that its master has in each view.
const KEY: &str = "foo";
const OF_KEY: usize = 8_192;

/// The first and last slots of a master, and its port.
type Masters = Vec<(usize, usize, u16)>;

/// A node that answers CLUSTER SLOTS with its view, or not at all if it has none, PING with OK or what a test says, and all else with
/// OK.
struct FakeNode {
    port: u16,
    view: Arc<Mutex<Option<Masters>>>,
    reply: Arc<Mutex<&'static str>>,
}

impl FakeNode {
    fn start() -> Self {
        let view: Arc<Mutex<Option<Masters>>> = Arc::default();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let reply = Arc::new(Mutex::new("+OK"));
        let shared = (Arc::clone(&view), Arc::clone(&reply));
        std::thread::spawn(move || {
            for client in listener.incoming() {
                let (client, (view, reply)) = (client.unwrap(), shared.clone());
                std::thread::spawn(move || serve(client, &view, &reply));
            }
        });
        Self { port, view, reply }
    }

    /// A server that closes each connection at once.
    fn dead() -> u16 {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        std::thread::spawn(move || listener.incoming().for_each(drop));
        port
    }

    fn sees(&self, view: &[(usize, usize, u16)]) {
        *lock(&self.view) = Some(view.to_vec());
    }

    fn fall_silent(&self) {
        *lock(&self.view) = None;
    }
}

fn serve(client: TcpStream, view: &Mutex<Option<Masters>>, reply: &Mutex<&str>) -> Option<()> {
    let mut requests = BufReader::new(client.try_clone().ok()?);
    let mut client = client;
    loop {
        let command = read_command(&mut requests)?;
        let reply = if command.first().is_some_and(|name| name == b"CLUSTER") {
            let Some(masters) = lock(view).clone() else { continue };
            slots(&masters)
        } else if command.first().is_some_and(|name| name == b"PING") {
            format!("{}\r\n", lock(reply))
        } else {
            "+OK\r\n".to_owned()
        };
        client.write_all(reply.as_bytes()).ok()?;
    }
}

fn read_command(requests: &mut BufReader<TcpStream>) -> Option<Vec<Vec<u8>>> {
    let number = |requests: &mut BufReader<TcpStream>| -> Option<usize> {
        let mut line = String::new();
        requests.read_line(&mut line).ok()?;
        line.get(1..)?.trim_end().parse().ok()
    };
    let parts = number(requests)?;
    let part = |_| {
        let mut part = vec![0; number(requests)? + 2];
        requests.read_exact(&mut part).ok()?;
        part.truncate(part.len() - 2);
        Some(part)
    };
    (0..parts).map(part).collect()
}

fn slots(masters: &Masters) -> String {
    let mut reply = format!("*{}\r\n", masters.len());
    for (first, last, port) in masters {
        write!(reply, "*3\r\n:{first}\r\n:{last}\r\n*3\r\n$9\r\n127.0.0.1\r\n:{port}\r\n$2\r\nid\r\n")
            .unwrap();
    }
    reply
}

/// Connects to the Cluster that the first seed sees.
async fn connect(seeds: &[&FakeNode]) -> Arc<Cluster> {
    let seeds: Vec<_> = seeds.iter().map(|seed| format!("127.0.0.1:{}", seed.port)).collect();
    let options = ConnectionOptions::new(format!("redis-cluster://{}", seeds.join(",")));
    let Ok(Transport::Cluster(cluster)) = options.transport(&Arc::new(Counters::default()), None, LONG)
    else {
        panic!("a Cluster")
    };
    let begun = Instant::now();
    // A connection has a second, and a busy machine may take longer.
    while let Err(failure) = cluster.connect().await {
        assert!(begun.elapsed() < LONG, "{failure}");
    }
    cluster
}

async fn send(cluster: &Arc<Cluster>) -> Result<Value, Trouble> {
    cluster.send(KEY, &cmd("PING"), &Limits::new(Instant::now() + LONG, LONG, LONG)).await
}

fn owner(cluster: &Cluster) -> Arc<Member> {
    cluster.owner(slot_of(KEY)).unwrap()
}

/// A node that is cut off from the others answers, with the masters of that time. In which order the nodes are asked is left to
/// chance.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_outdated_view_does_not_hide_the_new_master() {
    let (outdated, informed, new) = (FakeNode::start(), FakeNode::start(), FakeNode::start());
    let rest = [(0, 4_095, outdated.port), (4_096, OF_KEY - 1, informed.port)];
    outdated.sees(&[rest[0], rest[1], (OF_KEY, SLOTS - 1, FakeNode::dead())]);
    informed.sees(&[rest[0], rest[1], (OF_KEY, SLOTS - 1, new.port)]);
    for _ in 0..20 {
        let cluster = connect(&[&outdated]).await;
        assert!(matches!(send(&cluster).await, Ok(Value::Okay)));
        assert_eq!(owner(&cluster).address.1, new.port);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_seed_knows_the_new_master_that_no_known_node_knows() {
    let (outdated, new) = (FakeNode::start(), FakeNode::start());
    outdated.sees(&[(0, OF_KEY - 1, outdated.port), (OF_KEY, SLOTS - 1, FakeNode::dead())]);
    new.sees(&[(0, OF_KEY - 1, outdated.port), (OF_KEY, SLOTS - 1, new.port)]);
    let cluster = connect(&[&outdated, &new]).await;
    assert!(matches!(send(&cluster).await, Ok(Value::Okay)));
    assert_eq!(owner(&cluster).address.1, new.port);
}

/// The refresh has a second for all of them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_that_are_silent_leave_time_for_the_seeds() {
    let (nodes, new) = ([(); 8].map(|()| FakeNode::start()), FakeNode::start());
    let known: Masters = nodes.iter().zip(0..).map(|(node, slot)| (slot, slot, node.port)).collect();
    let of = |port| [&known[..], &[(8, SLOTS - 1, port)]].concat();
    nodes[0].sees(&of(FakeNode::dead()));
    nodes[1..].iter().for_each(|node| node.sees(&of(0)));
    new.sees(&of(new.port));
    let cluster = connect(&[&nodes[0], &new]).await;
    nodes.iter().for_each(FakeNode::fall_silent);
    let begun = Instant::now();
    while owner(&cluster).address.1 != new.port {
        assert!(begun.elapsed() < LONG, "the seeds are not asked");
        *lock(&cluster.refreshing) = Refreshing::default();
        cluster.refresh(Some(&owner(&cluster)), begun + LONG).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_that_gives_up_does_not_end_the_refresh() {
    let (outdated, new) = (FakeNode::start(), FakeNode::start());
    let before = [(0, OF_KEY - 1, outdated.port), (OF_KEY, SLOTS - 1, FakeNode::dead())];
    for _ in 0..100 {
        outdated.sees(&before);
        let cluster = connect(&[&outdated]).await;
        outdated.sees(&[(0, OF_KEY - 1, outdated.port), (OF_KEY, SLOTS - 1, new.port)]);
        let mut refreshed = pin!(cluster.refreshed.notified());
        refreshed.as_mut().enable();
        let gives_up = {
            let failed = owner(&cluster);
            let request = pin!(cluster.refresh(Some(&failed), Instant::now() + LONG));
            request.poll(&mut Context::from_waker(Waker::noop())).is_pending()
        };
        timeout_at(Instant::now() + LONG, refreshed).await.unwrap();
        assert_eq!(owner(&cluster).address.1, new.port);
        // On a busy machine, the refresh may end while this thread does not run.
        if gives_up {
            return;
        }
    }
    panic!("no request gives up");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_masters_are_asked_for_again_if_another_one_may_have_taken_over() {
    for (reply, expected) in [
        ("-BUSY Redis is busy running a script.", false),
        ("-LOADING Redis is loading the dataset in memory", true),
    ] {
        let node = FakeNode::start();
        node.sees(&[(0, SLOTS - 1, node.port)]);
        let cluster = connect(&[&node]).await;
        *lock(&node.reply) = reply;
        let before = Instant::now();
        assert!(matches!(send(&cluster).await, Err(Trouble::Reply(_))));
        let is_new = matches!(lock(&cluster.refreshing).begin(before), Refresh::Begins { .. });
        assert_eq!(!is_new, expected, "{reply}");
    }
}
