//! The entries of a log of revocations, as a host reads them back.

use std::sync::{Arc, LazyLock, Mutex};
use std::time::Duration;

use arbitrary::{Arbitrary, Unstructured};
use http::{Request, Response};
use hyper::service::Service;
use hyper_session::__internals::Verbs;
use hyper_session::revocation::{Entry, Page, Revocation, RevocationLog};
use hyper_session::testing::{Cookies, FakeClock};
use hyper_session::{CookieStore, Error, Refusal, Revocations, SessionHandle, Timestamp, session_fn};

use crate::unseal::builder;
use crate::{NAME, NOW};

/// The position of the session.
const POSITION: u64 = 1_000;

#[derive(Arbitrary, Debug)]
struct Step<'a> {
    name: Name<'a>,
    flags: u8,
    /// The distance from the position of the entry before.
    gap: u16,
    original: Original,
}

#[derive(Arbitrary, Debug)]
enum Name<'a> {
    /// One of those by which the session is known: its id, its root, its owner, everything.
    Of(u8),
    Raw(&'a [u8]),
}

#[derive(Arbitrary, Debug)]
enum Original {
    None,
    /// Around the position of the session.
    Near(i8),
    Any(u64),
}

/// A log with these entries, which keeps what is appended.
#[derive(Clone, Default)]
struct Script(Arc<Mutex<Vec<Entry>>>);

impl Script {
    fn top(&self) -> u64 {
        self.0.lock().unwrap().last().map_or(POSITION, |entry| entry.position.max(POSITION))
    }
}

impl RevocationLog for Script {
    fn incarnation(&self) -> u64 {
        7
    }

    async fn append(&self, revocations: Vec<Revocation>, _: u64) -> Result<u64, Error> {
        let mut entries = self.0.lock().unwrap();
        entries.extend(revocations.into_iter().map(|revocation| entry(POSITION, revocation)));
        Ok(POSITION)
    }

    async fn top(&self, _: u64) -> Result<u64, Error> {
        Ok(Script::top(self))
    }

    async fn read(&self, after: u64, _: Duration) -> Result<Page, Error> {
        let entries = self.0.lock().unwrap().iter().filter(|entry| entry.position > after).copied().collect();
        Ok(Page { entries, top: Script::top(self), more: false, history: 0 })
    }

    async fn trim(&self, _: Duration) -> Result<(), Error> {
        Ok(())
    }
}

fn entry(position: u64, revocation: Revocation) -> Entry {
    Entry { position, written: Timestamp::from_unix(NOW), revocation }
}

async fn store(log: &Script) -> CookieStore {
    let revocations = Revocations::open(log.clone()).await.unwrap().max_staleness(Duration::from_secs(600));
    builder().clock(FakeClock::at(NOW)).revocations(revocations).build().unwrap()
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    thread_local! {
        static RUNTIME: tokio::runtime::Runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    }
    RUNTIME.with(|runtime| runtime.block_on(future))
}

/// The token of a session at [`POSITION`], and the names by which it is revoked: its id, its root, its owner, everything.
static SESSION: LazyLock<(Vec<u8>, [[u8; 16]; 4])> = LazyLock::new(|| {
    std::thread::spawn(|| {
        block_on(async {
            let log = Script::default();
            let store = store(&log).await;
            let service = session_fn(store.clone(), |_: Request<()>, handle: SessionHandle| async move {
                handle.load().await?.login("ada")?;
                Ok::<_, Error>(Response::new(()))
            });
            let mut cookies = Cookies::new();
            cookies.receive(service.call(Request::new(())).await.unwrap().headers());
            let token = cookies.get(NAME).unwrap().to_vec();
            let record = store.load(&token, Timestamp::from_unix(NOW)).await.unwrap().unwrap();
            store.end_session(record.id()).await.unwrap();
            store.end_sessions_of("ada").await.unwrap();
            store.end_all().await.unwrap();
            let appended = log.0.lock().unwrap().clone();
            let names: Vec<[u8; 16]> =
                appended.iter().map(|entry| entry.revocation.to_bytes()[..16].try_into().unwrap()).collect();
            (token, names.try_into().expect("four revocations"))
        })
    })
    .join()
    .unwrap()
});

/// An entry is read as it is written, or not at all. A session is refused if and only if, by the documented meaning of the
/// bytes, an entry ends it.
pub fn revocation_log(data: &[u8]) {
    if let Some(read) = Revocation::from_bytes(data) {
        assert_eq!(read.to_bytes()[..], *data, "another entry than was stored");
    }
    let Ok(steps) = Vec::<Step<'_>>::arbitrary(&mut Unstructured::new(data)) else { return };
    let (token, names) = &*SESSION;
    let (log, mut position, mut expected) = (Script::default(), 0, false);
    // The flags of the entries that name the id or the root, and the positions from which they count.
    let mut direct = Vec::new();
    for step in steps.iter().take(20) {
        position += 1 + u64::from(step.gap % 400);
        let mut bytes = [0; Revocation::LEN];
        match step.name {
            Name::Of(which) => bytes[..16].copy_from_slice(&names[usize::from(which % 4)]),
            Name::Raw(raw) => bytes.iter_mut().zip(raw.iter().take(16)).for_each(|(to, from)| *to = *from),
        }
        bytes[16] = step.flags % 8;
        let original = match step.original {
            Original::None => 0,
            Original::Near(offset) => POSITION.saturating_add_signed(offset.into()),
            Original::Any(any) => any,
        };
        bytes[17..].copy_from_slice(&original.to_be_bytes());
        let read = Revocation::from_bytes(&bytes);
        assert_eq!(read.is_some(), bytes[16] <= 3, "unknown flags");
        let Some(read) = read else { continue };
        log.0.lock().unwrap().push(entry(position, read));
        // WIRE.md, "The log of revocations".
        let is_position = original != 0 && original >> 63 == 0;
        let counts_from = if is_position { original.min((1 << 62) - 1) } else { position };
        let name = &bytes[..16];
        expected |= match names.iter().position(|known| known == name) {
            Some(0 | 1) => {
                direct.push((bytes[16], counts_from));
                false
            }
            Some(2) => bytes[16] & 1 != 0 || counts_from > POSITION,
            Some(3) => counts_from > POSITION,
            _ => false,
        };
    }
    // All entries are of this moment: a session that they all retire is valid for another minute, but not in a process that begins
    // later.
    let (last, top) = (direct.iter().map(|(_, position)| *position).max(), log.top());
    expected |= direct.iter().any(|(flags, _)| *flags != 2) || last.is_some_and(|last| last <= top);
    let refused = block_on(async {
        let store = store(&log).await;
        match store.load(token, Timestamp::from_unix(NOW)).await.unwrap() {
            Ok(_) => false,
            Err(Refusal::Revoked | Refusal::Regenerated) => true,
            Err(other) => panic!("{other:?}"),
        }
    });
    assert_eq!(refused, expected, "{steps:?}");
}
