//! Sessions that move from cookies to a server, while another host ends them.

use std::time::Duration;

use http::Request;
use http::header::COOKIE;
use hyper::service::Service;
use hyper_session::revocation::FailurePolicy;
use hyper_session::store::MigratingStore;
use hyper_session::testing::{Cookies, FakeClock};
use hyper_session::{Error, MemoryStore, Revocations, SessionHandle, Timestamp, session_fn};

use crate::requests::{START, Site};
use crate::shared_log::{Call, Fault, SharedLog};
use crate::support::block_on;

const PATIENT: Duration = Duration::from_secs(60);

/// For a log that is to be missed: a test waits for this, and a follower on a busy machine is faster.
const IMPATIENT: Duration = Duration::from_secs(5);

async fn host(log: &SharedLog, max_per_subject: u16) -> Site {
    let revocations = Revocations::open(log.clone()).await.unwrap();
    let revocations = revocations.max_staleness(PATIENT).max_per_subject(max_per_subject);
    Site::built(FakeClock::at(START), |builder| builder.revocations(revocations))
}

/// Takes a request to `store`, whose handler sets a value if `sets`. Returns the user.
async fn visit(store: &MigratingStore, cookies: &mut Cookies, sets: bool) -> Option<String> {
    let service = session_fn(store.clone(), |_: Request<()>, handle: SessionHandle| async move {
        let session = handle.load().await?;
        if sets {
            session.set("a", 1)?;
        }
        Ok::<_, Error>(http::Response::new(session.subject().map(|subject| subject.to_string())))
    });
    let mut request = Request::new(());
    request.headers_mut().extend(cookies.header().map(|cookies| (COOKIE, cookies)));
    let response = service.call(request).await.unwrap();
    cookies.receive(response.headers());
    response.into_body()
}

#[derive(Clone, Copy, Debug)]
enum End {
    Logout,
    OfSubject,
    Regenerated,
    /// It does not end.
    None,
}

// The end is in the log, and the host that moves the session has not read it when the request is loaded.
#[test]
fn a_session_that_moves_does_not_outrun_an_end_on_another_host() {
    block_on(async {
        for end in [End::Logout, End::OfSubject, End::Regenerated, End::None] {
            // Beyond the limit, its move writes no revocation.
            for max_per_subject in [1_000, 1] {
                let log = SharedLog::default();
                let (here, there) = (host(&log, max_per_subject).await, host(&log, 1_000).await);
                let memory = MemoryStore::builder().clock(here.clock.clone()).build().unwrap();
                let store =
                    MigratingStore::new(memory, here.store.clone(), Timestamp::from_unix(START + 10_000));
                let store = store.unwrap();
                here.regenerate(&mut here.logged_in("ada").await).await;
                let mut browser = there.logged_in("ada").await;
                assert!(here.accepts(&browser).await);
                log.settled().await;
                log.hold(Call::Read);
                log.is_holding(2).await;
                match end {
                    End::Logout => there.logout(&mut browser.clone()).await,
                    End::OfSubject => there.store.end_sessions_of("ada").await.unwrap(),
                    End::Regenerated => there.regenerate(&mut browser.clone()).await,
                    End::None => {}
                }
                let saved = visit(&store, &mut browser, true);
                let readable = async {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                    log.release();
                };
                let (user, ()) = tokio::join!(saved, readable);
                let what = format!("{end:?}, {max_per_subject}");
                assert_eq!(user.as_deref(), Some("ada"), "{what}: not known yet");
                let goes_on = visit(&store, &mut browser, false).await;
                let expected = matches!(end, End::None).then_some("ada");
                assert_eq!(goes_on.as_deref(), expected, "{what}");
            }
        }
    });
}

#[test]
fn a_session_stays_where_it_is_while_the_log_cannot_be_read() {
    block_on(async {
        let log = SharedLog::default();
        let revocations = Revocations::open(log.clone()).await.unwrap();
        let revocations = revocations.max_staleness(IMPATIENT);
        let revocations = revocations.failure_policy(FailurePolicy::Trust);
        let site = Site::built(FakeClock::at(START), |builder| builder.revocations(revocations));
        let memory = MemoryStore::builder().clock(site.clock.clone()).build().unwrap();
        let store = MigratingStore::new(memory, site.store.clone(), Timestamp::from_unix(START + 10_000));
        let store = store.unwrap();
        let mut browser = site.logged_in("ada").await;
        log.set(Fault::Unreadable);
        while !site.changes().contains(&"trusted") {
            visit(&store, &mut browser, false).await;
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        assert_eq!(visit(&store, &mut browser, true).await, None, "it may have ended elsewhere");
        log.set(Fault::None);
        while !site.changes().contains(&"reachable") {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        assert_eq!(visit(&store, &mut browser, true).await.as_deref(), Some("ada"));
        assert_eq!(visit(&store, &mut browser, false).await.as_deref(), Some("ada"));
        assert!(site.revoked() > 0, "it has moved");
    });
}

#[test]
fn a_session_that_moves_on_two_hosts_goes_on_in_one_session() {
    block_on(async {
        let log = SharedLog::default();
        let hosts = [host(&log, 1_000).await, host(&log, 1_000).await];
        let memory = MemoryStore::builder().clock(hosts[0].clock.clone()).build().unwrap();
        let stores = hosts.each_ref().map(|host| {
            let until = Timestamp::from_unix(START + 10_000);
            MigratingStore::new(memory.clone(), host.store.clone(), until).unwrap()
        });
        let mut browsers = [hosts[0].logged_in("ada").await];
        let mut second = browsers[0].clone();
        for host in &hosts {
            assert!(host.accepts(&second).await);
        }
        log.settled().await;
        log.set(Fault::Unreadable);
        let readable = async {
            // Both have written that they moved it.
            while log.top_now() < 3 {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            log.set(Fault::None);
        };
        tokio::join!(
            visit(&stores[0], &mut browsers[0], true),
            visit(&stores[1], &mut second, true),
            readable
        );
        let mut users = Vec::new();
        for browser in browsers.iter_mut().chain([&mut second]) {
            users.extend(visit(&stores[0], browser, false).await);
        }
        assert_eq!(users, ["ada"]);
    });
}
