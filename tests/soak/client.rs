//! A client with two devices, and the model of its sessions that every response is held against.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU16, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use http::header::COOKIE;
use http::{HeaderMap, Request};
use http_body_util::BodyExt;
use hyper_util::client::legacy::Client as HttpClient;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use tokio::sync::RwLock;

use crate::dice::Dice;
use crate::host::{PATIENT, WHY};
use crate::rows::Row;
use crate::support::{Body, Jar, set_cookies};

/// The most steps that a request takes one after the other: `docs/REDIS.md`, "Deadlines".
const STEPS: u32 = 16;

/// A request that would hang takes longer than this. Each step waits for a connection and for a reply, and the steps add up. If its
/// site is deployed meanwhile, it waits as long for the requests of the former store.
const BOUND: Duration = PATIENT.saturating_mul(2 * STEPS * 2);

/// A client logs out after this time, so that no session reaches a deadline.
const RETIRES_AFTER: Duration = Duration::from_secs(180);

/// How many tokens of ended sessions a client remembers, and presents again.
const REMEMBERED: usize = 200;

/// The state that the clients of a row share with its faults.
pub(crate) struct Shared {
    pub(crate) row: &'static Row,
    pub(crate) ports: [AtomicU16; 2],
    /// Changes when the connections to a site end, so that no client uses one of those.
    pub(crate) connections: AtomicU64,
    pub(crate) window: Window,
    /// Held by each step of a client: a fault that waits until none is under way holds it alone.
    pub(crate) gate: RwLock<()>,
    pub(crate) stop: AtomicBool,
    counts: Mutex<BTreeMap<String, u64>>,
    failures: AtomicU64,
    /// The request that took longest to be answered, and what it asked for.
    longest: Mutex<(Duration, String)>,
}

/// The time in which requests may fail: from the beginning of a fault until the stores work again.
#[derive(Default)]
pub(crate) struct Window {
    is_open: AtomicBool,
    opened: AtomicU64,
}

impl Window {
    /// In the reverse order of [`state`](Self::state): a request that begins meanwhile finds it open, or opened since.
    pub(crate) fn open(&self) {
        self.is_open.store(true, Ordering::SeqCst);
        self.opened.fetch_add(1, Ordering::SeqCst);
    }

    pub(crate) fn close(&self) {
        self.is_open.store(false, Ordering::SeqCst);
    }

    fn state(&self) -> (bool, u64) {
        let opened = self.opened.load(Ordering::SeqCst);
        (self.is_open.load(Ordering::SeqCst), opened)
    }
}

impl Shared {
    pub(crate) fn new(row: &'static Row) -> Self {
        Self {
            row,
            ports: Default::default(),
            connections: AtomicU64::new(0),
            window: Window::default(),
            gate: RwLock::new(()),
            stop: AtomicBool::new(false),
            counts: Mutex::default(),
            failures: AtomicU64::new(0),
            longest: Mutex::default(),
        }
    }

    pub(crate) fn count(&self, what: impl Into<String>) {
        *self.counts.lock().unwrap().entry(what.into()).or_default() += 1;
    }

    pub(crate) fn counts(&self) -> BTreeMap<String, u64> {
        self.counts.lock().unwrap().clone()
    }

    fn took(&self, duration: Duration, deed: &str) {
        let mut longest = self.longest.lock().unwrap();
        if duration > longest.0 {
            *longest = (duration, deed.to_owned());
        }
    }

    pub(crate) fn longest(&self) -> (Duration, String) {
        self.longest.lock().unwrap().clone()
    }

    /// How many requests got a 503 or no response.
    pub(crate) fn failures(&self) -> u64 {
        self.failures.load(Ordering::SeqCst)
    }
}

/// The connections of one browser.
struct Connections {
    since: u64,
    http: HttpClient<HttpConnector, Body>,
}

impl Connections {
    fn new(since: u64) -> Self {
        Self { since, http: HttpClient::builder(TokioExecutor::new()).build_http() }
    }
}

struct Reply {
    begun: Instant,
    /// True if it came during a fault.
    disturbed: bool,
    status: u16,
    headers: HeaderMap,
    text: String,
}

/// A session as its device knows it.
#[derive(Debug)]
struct Device {
    jar: Jar,
    /// How often counting was acknowledged.
    confirmed: u64,
    /// How often it may have happened beside.
    possible: u64,
    born: Instant,
    /// When the last change was acknowledged.
    changed: Instant,
}

/// A token of a session that was ended, or that was replaced.
struct Ended {
    cookies: String,
    acknowledged: Instant,
}

pub(crate) struct Client {
    shared: Arc<Shared>,
    connections: Connections,
    dice: Dice,
    number: u64,
    users: u64,
    devices: [Option<Device>; 2],
    ended: Vec<Ended>,
    /// True if a session ended in the present step.
    has_ended: bool,
}

impl Client {
    pub(crate) fn new(shared: Arc<Shared>, number: u64) -> Self {
        Self {
            shared,
            connections: Connections::new(0),
            dice: Dice(0x9E37_79B9_7F4A_7C15 ^ (number + 1)),
            number,
            users: 0,
            devices: [None, None],
            ended: Vec::new(),
            has_ended: false,
        }
    }

    fn user(&self, number: u64) -> String {
        format!("user-{}-{number}", self.number)
    }

    /// Goes on until it is told to stop.
    pub(crate) async fn run(mut self) -> Self {
        while !self.shared.stop.load(Ordering::SeqCst) {
            self.step().await;
            tokio::time::sleep(Duration::from_millis(10 + self.dice.roll(80))).await;
        }
        self
    }

    /// One request at random, and what must be true of its response.
    async fn step(&mut self) {
        let shared = Arc::clone(&self.shared);
        let _open = shared.gate.read().await;
        let connections = shared.connections.load(Ordering::SeqCst);
        if connections != self.connections.since {
            self.connections = Connections::new(connections);
        }
        let place = usize::from(self.dice.roll(2) == 1);
        let Some(device) = self.devices[place].take() else { return self.log_in(place).await };
        let retires = device.born.elapsed() > RETIRES_AFTER;
        let kept = match if retires { 0 } else { self.dice.roll(100) } {
            0..=2 => self.log_out(device).await,
            3..=5 => self.regenerate(device).await,
            6..=7 => self.end_others(device, 1 - place).await,
            8 => self.end_all(device).await,
            9 => self.list(device).await,
            10 => self.resize(device, "grow").await,
            11 => self.resize(device, "shrink").await,
            12..=17 => {
                self.present_an_ended_token().await;
                Some(device)
            }
            18..=21 => self.count_on_both_sites(device).await,
            22..=59 => self.count(device).await,
            _ => self.read(device).await,
        };
        self.devices[place] = kept;
        // Where it can be waited for, the newest ended session is presented as soon as the bound has passed.
        if std::mem::take(&mut self.has_ended) && shared.row.bound < Duration::from_secs(1) {
            tokio::time::sleep(shared.row.bound).await;
            for site in [0, 1] {
                self.is_ended(self.ended.last().unwrap(), site).await;
            }
        }
    }

    /// Sends a request to a site. Returns `None` if it is not known what became of it, which only a fault or a client that hangs
    /// up may cause.
    async fn send(
        &self,
        site: usize,
        path: &str,
        cookies: Option<&str>,
        patience: Duration,
    ) -> Option<Reply> {
        let deed = path[1..].split('/').next().unwrap();
        let port = self.shared.ports[site].load(Ordering::SeqCst);
        let mut request = Request::builder().uri(format!("http://127.0.0.1:{port}{path}"));
        if let Some(cookies) = cookies {
            request = request.header(COOKIE, cookies);
        }
        let request = request.body(Body::default()).unwrap();
        let (was_open, opened) = self.shared.window.state();
        let begun = Instant::now();
        let answer = async {
            let response =
                self.connections.http.request(request).await.map_err(|error| format!("{error:?}"))?;
            let (head, body) = response.into_parts();
            let body = body.collect().await.map_err(|error| format!("{error:?}"))?.to_bytes();
            let text = String::from_utf8(body.to_vec()).unwrap();
            let disturbed = was_open || self.shared.window.state().1 != opened;
            Ok::<_, String>(Reply {
                begun,
                disturbed,
                status: head.status.as_u16(),
                headers: head.headers,
                text,
            })
        };
        let Ok(answer) = tokio::time::timeout(patience, answer).await else {
            assert!(patience < BOUND, "{}: {deed} hangs", self.shared.row.name);
            self.shared.count("hung up");
            return None;
        };
        self.shared.took(begun.elapsed(), deed);
        let why = match answer {
            Ok(reply) if [200, 413].contains(&reply.status) => {
                self.shared.count(format!("{deed} {}", reply.status));
                return Some(reply);
            }
            Ok(reply) => {
                let why = reply.headers.get(WHY).map_or("", |why| why.to_str().unwrap());
                assert_eq!(reply.status, 503, "{}: {deed}: {why}", self.shared.row.name);
                // A renewal that was due may come with it, and remove chunks that are no longer needed.
                let lines = set_cookies(&reply.headers);
                let stays = lines.is_empty() || lines.iter().any(|line| !line.contains("Max-Age=0"));
                assert!(stays, "{}: {deed} removes the cookie: {why}", self.shared.row.name);
                self.shared.count("failed with 503");
                why.to_owned()
            }
            Err(error) => {
                self.shared.count("failed without a response");
                error
            }
        };
        let disturbed = was_open || self.shared.window.state().1 != opened;
        assert!(disturbed, "{}: {deed} failed without a fault: {why}", self.shared.row.name);
        self.shared.failures.fetch_add(1, Ordering::SeqCst);
        None
    }

    /// Sends a request with the device's cookies to one of the sites, and keeps those of the response.
    async fn visit(&mut self, device: &mut Device, path: &str, patience: Duration) -> Option<Reply> {
        let site = usize::from(self.dice.roll(2) == 1);
        let reply = self.send(site, path, device.jar.header().as_deref(), patience).await?;
        device.jar.store(&reply.headers);
        Some(reply)
    }

    /// One in forty clients does not wait for the response.
    fn patience(&mut self) -> Duration {
        if self.dice.roll(40) == 0 { Duration::from_micros(self.dice.roll(5_000)) } else { BOUND }
    }

    fn remember(&mut self, cookies: Option<String>) {
        let Some(cookies) = cookies else { return };
        let ended = Ended { cookies, acknowledged: Instant::now() };
        self.has_ended = true;
        if self.ended.len() == REMEMBERED {
            let forgotten = self.dice.roll(REMEMBERED as u64);
            self.ended.remove(usize::try_from(forgotten).unwrap());
        }
        self.ended.push(ended);
    }

    async fn log_in(&mut self, place: usize) {
        let mut device = Device {
            jar: Jar::new(),
            confirmed: 0,
            possible: 0,
            born: Instant::now(),
            changed: Instant::now(),
        };
        let path = format!("/login/{}", self.user(self.users));
        let Some(_) = self.visit(&mut device, &path, BOUND).await else { return };
        assert!(device.jar.header().is_some(), "{}: a login sets a cookie", self.shared.row.name);
        device.changed = Instant::now();
        self.devices[place] = Some(device);
    }

    async fn read(&mut self, mut device: Device) -> Option<Device> {
        let patience = self.patience();
        if let Some(reply) = self.visit(&mut device, "/read", patience).await {
            if reply.headers.contains_key("set-cookie") {
                self.shared.count("renewed");
            }
            self.check(&mut device, &reply);
        }
        Some(device)
    }

    /// The session is there, no acknowledged change is lost, and none happened that was not asked for.
    fn check(&self, device: &mut Device, reply: &Reply) {
        let name = self.shared.row.name;
        let n: u64 = reply.text.parse().unwrap_or_else(|_| panic!("{name}: a session is lost: {device:?}"));
        let highest = device.confirmed + device.possible;
        assert!(n <= highest, "{name}: {n} was never asked for: {device:?}");
        // Before the bound, a near-cache may answer with an older state.
        if reply.begun >= device.changed + self.shared.row.bound {
            assert!(n >= device.confirmed, "{name}: a change is lost: {n}, {device:?}");
            (device.confirmed, device.possible) = (n, highest - n);
        }
    }

    async fn count(&mut self, mut device: Device) -> Option<Device> {
        let patience = self.patience();
        match self.visit(&mut device, "/add", patience).await {
            Some(reply) if reply.status == 413 => self.shared.count("too large, as deployed"),
            Some(reply) => {
                let is_alone = device.possible == 0;
                Self::counted(&mut device, &reply, is_alone);
            }
            None => self.maybe_counted(&mut device),
        }
        Some(device)
    }

    /// If the reply of a backend is lost, and another request writes before the step is sent again, it counts twice: a known limit.
    fn counted(device: &mut Device, reply: &Reply, is_alone: bool) {
        device.confirmed += 1;
        device.possible += u64::from(reply.disturbed && !is_alone);
        device.changed = Instant::now();
    }

    /// The state of a session in a cookie is what the client has received.
    fn maybe_counted(&self, device: &mut Device) {
        device.possible += u64::from(!self.shared.row.kind.is_cookie());
    }

    /// Two requests at the same time lose none of each other's changes, on a server-side store.
    async fn count_on_both_sites(&mut self, mut device: Device) -> Option<Device> {
        if self.shared.row.kind.is_cookie() {
            return self.count(device).await;
        }
        let cookies = device.jar.header();
        let (one, two) = tokio::join!(
            self.send(0, "/add", cookies.as_deref(), BOUND),
            self.send(1, "/add", cookies.as_deref(), BOUND)
        );
        for reply in [one, two] {
            match reply {
                Some(reply) => {
                    device.jar.store(&reply.headers);
                    Self::counted(&mut device, &reply, false);
                }
                None => self.maybe_counted(&mut device),
            }
        }
        self.shared.count("both sites at once");
        Some(device)
    }

    async fn resize(&mut self, mut device: Device, deed: &str) -> Option<Device> {
        if self.visit(&mut device, &format!("/{deed}"), BOUND).await.is_some() {
            device.changed = Instant::now();
        }
        Some(device)
    }

    /// Without an acknowledgement, the session may have ended or not: the client forgets it.
    async fn log_out(&mut self, mut device: Device) -> Option<Device> {
        let cookies = device.jar.header();
        self.visit(&mut device, "/logout", BOUND).await?;
        assert_eq!(device.jar.header(), None, "{}: a logout removes the cookie", self.shared.row.name);
        self.remember(cookies);
        None
    }

    async fn regenerate(&mut self, mut device: Device) -> Option<Device> {
        let cookies = device.jar.header();
        let reply = self.visit(&mut device, "/regenerate", BOUND).await?;
        if reply.status == 413 {
            return Some(device);
        }
        assert_ne!(device.jar.header(), cookies, "{}: there is a new token", self.shared.row.name);
        self.remember(cookies);
        device.changed = Instant::now();
        Some(device)
    }

    async fn end_others(&mut self, mut device: Device, other: usize) -> Option<Device> {
        let (cookies, other) = (device.jar.header(), self.devices[other].take());
        let Some(reply) = self.visit(&mut device, "/others", BOUND).await else {
            self.begin_anew();
            return None;
        };
        if reply.status == 413 {
            self.begin_anew();
            return None;
        }
        self.remember(other.and_then(|other| other.jar.header()));
        if device.jar.header() != cookies {
            self.remember(cookies);
        }
        device.changed = Instant::now();
        Some(device)
    }

    async fn end_all(&mut self, mut device: Device) -> Option<Device> {
        let path = format!("/end/{}", self.user(self.users));
        if self.visit(&mut device, &path, BOUND).await.is_some() {
            let devices = [Some(device), self.devices[0].take(), self.devices[1].take()];
            for device in devices.into_iter().flatten() {
                self.remember(device.jar.header());
            }
        }
        self.begin_anew();
        None
    }

    /// Forgets both devices, and goes on as another user, whose sessions are all known.
    fn begin_anew(&mut self) {
        self.devices = [None, None];
        self.users += 1;
    }

    /// The list names each live session.
    async fn list(&mut self, mut device: Device) -> Option<Device> {
        if self.shared.row.kind.is_cookie() {
            return self.read(device).await;
        }
        let path = format!("/list/{}", self.user(self.users));
        if let Some(reply) = self.visit(&mut device, &path, BOUND).await {
            let listed: usize = reply.text.parse().unwrap();
            let live = 1 + self.devices.iter().flatten().count();
            assert!(listed >= live, "{}: {listed} of {live} sessions are listed", self.shared.row.name);
        }
        Some(device)
    }

    async fn present_an_ended_token(&mut self) {
        if self.ended.is_empty() {
            return;
        }
        let place = usize::try_from(self.dice.roll(self.ended.len() as u64)).unwrap();
        let site = usize::from(self.dice.roll(2) == 1);
        self.is_ended(&self.ended[place], site).await;
    }

    async fn is_ended(&self, ended: &Ended, site: usize) {
        if ended.acknowledged.elapsed() < self.shared.row.bound {
            return;
        }
        if let Some(reply) = self.send(site, "/read", Some(&ended.cookies), BOUND).await {
            let age = ended.acknowledged.elapsed();
            let name = self.shared.row.name;
            assert_eq!(
                reply.text, "none",
                "{name}: a session that ended {age:?} ago is served by site {site}"
            );
            self.shared.count("ended session refused");
        }
    }

    /// Returns true if a session begins, changes and ends on each site. While a fault lasts it may not.
    pub(crate) async fn sees_both_sites_work(&mut self) -> bool {
        self.connections = Connections::new(0);
        for site in [0, 1] {
            let mut jar = Jar::new();
            for path in ["/login/probe", "/add", "/read", "/logout"] {
                let Some(reply) = self.send(site, path, jar.header().as_deref(), BOUND).await else {
                    return false;
                };
                jar.store(&reply.headers);
            }
        }
        true
    }

    /// How many loads the near-caches of both sites have answered since they were deployed.
    pub(crate) async fn near_cache_hits(&self) -> u64 {
        let mut hits = 0;
        for site in [0, 1] {
            let reply = self.send(site, "/hits", None, BOUND).await.expect("no fault is left");
            hits += reply.text.parse::<u64>().unwrap();
        }
        hits
    }

    /// After the last fault: every session is there, and none that ended. Then all sessions of all users are ended, and are gone.
    pub(crate) async fn audit(mut self) {
        self.connections = Connections::new(0);
        let bound = self.shared.row.bound;
        tokio::time::sleep(bound).await;
        let devices: Vec<_> = self.devices.iter_mut().filter_map(Option::take).collect();
        let mut ended = std::mem::take(&mut self.ended);
        for mut device in devices {
            for site in [0, 1] {
                let cookies = device.jar.header();
                let reply =
                    self.send(site, "/read", cookies.as_deref(), BOUND).await.expect("no fault is left");
                device.jar.store(&reply.headers);
                self.check(&mut device, &reply);
            }
            self.shared.count("live session at the end");
            ended.extend(device.jar.header().map(|cookies| Ended { cookies, acknowledged: Instant::now() }));
        }
        for user in 0..=self.users {
            let path = format!("/end/{}", self.user(user));
            self.send(0, &path, None, BOUND).await.expect("no fault is left");
        }
        for ended in &mut ended {
            ended.acknowledged = Instant::now();
        }
        tokio::time::sleep(bound + Duration::from_millis(1)).await;
        for ended in &ended {
            for site in [0, 1] {
                self.is_ended(ended, site).await;
            }
        }
    }
}
