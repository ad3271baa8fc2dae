//! A server that compares and sets is replaced by an older one that does not, and the other way round, as during an upgrade.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::OwnedReadHalf;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::sync::mpsc;

use crate::app::{App, builder};
use crate::server::Server;
use crate::support::Jar;

/// `SET … IFEQ … PX …`, for a server that does not have it.
const SET_IF_EQUAL: &str = "\
if redis.call('GET', KEYS[1]) ~= ARGV[2] then return false end
return redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[3])";

/// A front of a server that compares and sets, whatever the server behind it does, until it is told not to.
struct Front {
    url: String,
    state: Arc<State>,
}

struct State {
    server: u16,
    /// How many commands must have been refused before the first refusal is sent. Zero: none is refused.
    refusals: AtomicU32,
    refused: AtomicU32,
    all_refused: Semaphore,
}

impl Front {
    async fn before(server: &Server) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("redis://{}", listener.local_addr().unwrap());
        let state = Arc::new(State {
            server: server.port,
            refusals: AtomicU32::new(0),
            refused: AtomicU32::new(0),
            all_refused: Semaphore::new(0),
        });
        let shared = Arc::clone(&state);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(Arc::clone(&shared).serve(client));
            }
        });
        Self { url, state }
    }

    /// From now on, every IFEQ is a syntax error. The first so many are answered together, when all of them have arrived.
    fn becomes_older(&self, together: u32) {
        self.state.refusals.store(together, Ordering::SeqCst);
    }

    fn becomes_newer(&self) {
        self.state.refusals.store(0, Ordering::SeqCst);
    }
}

impl State {
    async fn serve(self: Arc<Self>, client: TcpStream) {
        let (mut requests, mut replies) = client.into_split();
        let (mut answers, mut upstream) =
            TcpStream::connect(("127.0.0.1", self.server)).await.unwrap().into_split();
        // The requests in their order, as they are sent to the server, or nothing for a refusal.
        let (queue, mut queued) = mpsc::unbounded_channel::<Option<Vec<u8>>>();
        let state = Arc::clone(&self);
        tokio::spawn(async move {
            let mut buffer = Vec::new();
            while let Some(request) = queued.recv().await {
                let answer = if let Some(request) = request {
                    upstream.write_all(&request).await.unwrap();
                    next_frame(&mut answers, &mut buffer).await
                } else {
                    let _all = state.all_refused.acquire().await.unwrap();
                    Some(b"-ERR syntax error\r\n".to_vec())
                };
                let Some(answer) = answer else { return };
                if replies.write_all(&answer).await.is_err() {
                    return;
                }
            }
        });
        let mut buffer = Vec::new();
        while let Some(request) = next_frame(&mut requests, &mut buffer).await {
            let arguments = arguments(&request);
            let compares = arguments[0] == b"SET" && arguments.iter().any(|argument| argument == b"IFEQ");
            let refusals = self.refusals.load(Ordering::SeqCst);
            let sent = if !compares {
                Some(request)
            } else if refusals == 0 {
                let (key, value, expected) = (&arguments[1], &arguments[2], &arguments[4]);
                let lifetime = arguments.last().unwrap();
                Some(command(&[b"EVAL", SET_IF_EQUAL.as_bytes(), b"1", key, value, expected, lifetime]))
            } else {
                if self.refused.fetch_add(1, Ordering::SeqCst) + 1 == refusals {
                    self.all_refused.add_permits(1);
                }
                None
            };
            if queue.send(sent).is_err() {
                return;
            }
        }
    }
}

/// Reads the next request or reply.
async fn next_frame(from: &mut OwnedReadHalf, buffer: &mut Vec<u8>) -> Option<Vec<u8>> {
    loop {
        if let Some(len) = frame_len(buffer) {
            let rest = buffer.split_off(len);
            return Some(std::mem::replace(buffer, rest));
        }
        if from.read_buf(buffer).await.ok()? == 0 {
            return None;
        }
    }
}

/// Returns the length of the value of RESP2 that these bytes begin with, if all of it is there.
fn frame_len(bytes: &[u8]) -> Option<usize> {
    let line = bytes.windows(2).position(|window| window == b"\r\n")? + 2;
    let number = || std::str::from_utf8(&bytes[1..line - 2]).unwrap().parse::<i64>().unwrap();
    let len = match bytes[0] {
        b'$' => line + usize::try_from(number()).map_or(0, |len| len + 2),
        b'*' => {
            let mut len = line;
            for _ in 0..number() {
                len += frame_len(&bytes[len..])?;
            }
            len
        }
        _ => line,
    };
    (bytes.len() >= len).then_some(len)
}

fn arguments(request: &[u8]) -> Vec<Vec<u8>> {
    let mut rest = &request[request.iter().position(|byte| *byte == b'\n').unwrap() + 1..];
    let mut arguments = Vec::new();
    while let Some(len) = frame_len(rest) {
        let (argument, next) = rest.split_at(len);
        let start = argument.iter().position(|byte| *byte == b'\n').unwrap() + 1;
        arguments.push(argument[start..len - 2].to_vec());
        rest = next;
    }
    arguments
}

fn command(arguments: &[&[u8]]) -> Vec<u8> {
    let mut command = format!("*{}\r\n", arguments.len()).into_bytes();
    for argument in arguments {
        command.extend(format!("${}\r\n", argument.len()).bytes());
        command.extend(*argument);
        command.extend(b"\r\n");
    }
    command
}

async fn ten_sessions(app: &App) -> Vec<Jar> {
    let mut jars = Vec::new();
    for _ in 0..10 {
        jars.push(app.jar().await);
    }
    jars
}

/// Requests of these sessions, which save them at the same time.
async fn all_save(app: &App, jars: Vec<Jar>) {
    let count = u32::try_from(jars.len()).unwrap();
    let requests = jars.into_iter().map(|mut jar| {
        let app = app.clone();
        tokio::spawn(async move { app.ok("/late/add", &mut jar).await })
    });
    let requests: Vec<_> = requests.collect();
    app.gate.arrived.acquire_many(count).await.unwrap().forget();
    app.gate.go.add_permits(requests.len());
    for request in requests {
        assert_eq!(request.await.unwrap(), "2");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_older_server_takes_over_while_many_steps_are_under_way() {
    let server = Server::start();
    let front = Front::before(&server).await;
    let app = App::connect(front.url.clone()).await;
    let jars = ten_sessions(&app).await;
    front.becomes_older(10);
    all_save(&app, jars).await;
    assert_eq!(front.state.refused.load(Ordering::SeqCst), 10, "they were sent before the first refusal");
    // From now on by scripts.
    all_save(&app, ten_sessions(&app).await).await;
    assert_eq!(front.state.refused.load(Ordering::SeqCst), 10);
}

/// Of a user that may not run scripts, the older server saves nothing, and the newer one everything at once. So do the newer nodes of
/// a Cluster in which one is older.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_newer_server_takes_over_for_a_user_that_may_not_run_scripts() {
    let server = Server::start();
    // The front itself runs its script by EVAL.
    assert_eq!(server.cli(&["ACL", "SETUSER", "default", "-evalsha"]), "OK");
    let front = Front::before(&server).await;
    let app = App::connect(front.url.clone()).await;
    let jars = ten_sessions(&app).await;
    front.becomes_older(1);
    app.fails("/add", &jars[0]).await;
    front.becomes_newer();
    all_save(&app, jars).await;
}

/// A right that only a renewal on a full server needs is missing: connecting says so.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a11_without_scripts_the_right_to_set_a_time_to_live_is_checked_too() {
    let server = Server::start();
    let front = Front::before(&server).await;
    App::connect(front.url.clone()).await;
    assert_eq!(server.cli(&["ACL", "SETUSER", "default", "-pexpire"]), "OK");
    let error = builder(front.url).connect().await.unwrap_err();
    assert!(error.is_config() && error.to_string().contains("PEXPIRE"), "{error:?}");
}
