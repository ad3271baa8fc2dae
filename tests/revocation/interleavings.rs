//! Every order in which the requests of one browser can be loaded and committed.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::SeqCst;
use std::task::{Context, Poll, Waker};

use http::header::COOKIE;
use http::{Request, Response};
use hyper::service::Service;
use hyper_session::testing::Cookies;
use hyper_session::{Error, SessionHandle, session_fn};

use crate::requests::Site;
use crate::support::block_on;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Deed {
    Read,
    Set,
    Regenerate,
    Login,
    Logout,
    LogoutWithNotice,
    /// A logout that is written as `clear`: it ends the session that the request has loaded.
    ClearWithNotice,
    EndSubject,
    /// Ends the other sessions of its subject, unless its own has ended.
    EndOthers,
}

const DEEDS: [Deed; 9] = [
    Deed::Read,
    Deed::Set,
    Deed::Regenerate,
    Deed::Login,
    Deed::Logout,
    Deed::LogoutWithNotice,
    Deed::ClearWithNotice,
    Deed::EndSubject,
    Deed::EndOthers,
];

type Pending = Pin<Box<dyn Future<Output = Response<()>>>>;

/// A request that has loaded its session, done its deed, and not committed yet.
struct Open {
    response: Pending,
    go_on: Arc<AtomicBool>,
}

fn start(site: &Site, cookies: &Cookies, deed: Deed) -> Open {
    let go_on = Arc::new(AtomicBool::new(false));
    let (site, permit, cookies) = (site.clone(), Arc::clone(&go_on), cookies.clone());
    let response = async move {
        let store = site.store.clone();
        let service = session_fn(store.clone(), move |_: Request<()>, handle: SessionHandle| {
            let (store, permit) = (store.clone(), Arc::clone(&permit));
            async move {
                let session = handle.load().await?;
                match deed {
                    Deed::Read => {}
                    Deed::Set => session.set("a", 1)?,
                    Deed::Regenerate => session.regenerate()?,
                    Deed::Login => session.login("ada")?,
                    Deed::Logout => session.destroy()?,
                    Deed::LogoutWithNotice => {
                        session.destroy()?;
                        session.set_flash("notice", "good bye")?;
                    }
                    Deed::ClearWithNotice => {
                        session.clear()?;
                        session.set_flash("notice", "good bye")?;
                    }
                    Deed::EndSubject => store.end_sessions_of("ada").await?,
                    Deed::EndOthers => match session.end_other_sessions().await {
                        Err(error) if !error.is_not_logged_in() => return Err(error),
                        _ => {}
                    },
                }
                poll_fn(|_| if permit.load(SeqCst) { Poll::Ready(()) } else { Poll::Pending }).await;
                Ok::<_, Error>(Response::new(()))
            }
        });
        let mut request = Request::new(());
        request.headers_mut().extend(cookies.header().map(|cookies| (COOKIE, cookies)));
        service.call(request).await.unwrap()
    };
    let mut response: Pending = Box::pin(response);
    let polled = response.as_mut().poll(&mut Context::from_waker(Waker::noop()));
    assert!(polled.is_pending(), "it waits to be let go on");
    Open { response, go_on }
}

impl Open {
    fn finish(mut self) -> Response<()> {
        self.go_on.store(true, SeqCst);
        match self.response.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(response) => response,
            Poll::Pending => panic!("a log in memory answers at once"),
        }
    }
}

/// All orders of two steps of each of `requests` requests.
fn orders(requests: usize) -> Vec<Vec<usize>> {
    fn extend(done: &mut Vec<usize>, counts: &mut [usize], orders: &mut Vec<Vec<usize>>) {
        if done.len() == 2 * counts.len() {
            orders.push(done.clone());
        }
        for at in 0..counts.len() {
            if counts[at] < 2 {
                counts[at] += 1;
                done.push(at);
                extend(done, counts, orders);
                done.pop();
                counts[at] -= 1;
            }
        }
    }
    let mut all = Vec::new();
    extend(&mut Vec::new(), &mut vec![0; requests], &mut all);
    all
}

/// Runs the requests in this order, all with the cookies of one logged-in browser, and looks at every cookie that there
/// ever was.
async fn run(deeds: &[Deed], order: &[usize]) {
    let site = Site::in_memory();
    let browser = site.logged_in("ada").await;
    // Late enough for reading to renew.
    site.clock.advance(std::time::Duration::from_secs(4 * 3_600));
    let mut open: Vec<Option<Open>> = deeds.iter().map(|_| None).collect();
    let mut answers: Vec<(usize, Deed, Cookies)> = Vec::new();
    for &at in order {
        if open[at].is_none() {
            open[at] = Some(start(&site, &browser, deeds[at]));
            continue;
        }
        let response = open[at].take().unwrap().finish();
        let mut cookies = Cookies::new();
        cookies.receive(response.headers());
        answers.push((at, deeds[at], cookies));
    }
    let context = format!("{deeds:?} in the order {order:?}");
    // When each deed took effect: `EndSubject` and `EndOthers` when their handlers ran, the others when they were committed.
    let started = |request: usize| order.iter().position(|at| *at == request).unwrap();
    let finished = |request: usize| order.iter().rposition(|at| *at == request).unwrap();
    let all = || deeds.iter().copied().enumerate();
    // By `clear` only if no other request had given the session another token when it was loaded.
    let found_it = |clear: usize| {
        all().all(|(at, deed)| match deed {
            Deed::Regenerate | Deed::Login => finished(at) > started(clear),
            Deed::EndOthers => started(at) > started(clear),
            _ => true,
        })
    };
    let logged_out = all().any(|(at, deed)| match deed {
        Deed::Logout | Deed::LogoutWithNotice => true,
        Deed::ClearWithNotice => found_it(at),
        _ => false,
    });
    let ended_at = all().filter(|(_, deed)| *deed == Deed::EndSubject).map(|(at, _)| started(at)).max();
    // The first one, if nothing has given the session another token or ended it by then.
    let others_ended_by =
        all().filter(|(_, deed)| *deed == Deed::EndOthers).map(|(at, _)| at).min_by_key(|at| started(*at));
    let others_ended_by = others_ended_by.filter(|by| {
        all().all(|(at, deed)| match deed {
            Deed::Read | Deed::Set | Deed::EndOthers => true,
            Deed::EndSubject => started(at) > started(*by),
            Deed::Regenerate
            | Deed::Login
            | Deed::Logout
            | Deed::LogoutWithNotice
            | Deed::ClearWithNotice => finished(at) > started(*by),
        })
    });
    for (at, deed, cookies) in &answers {
        let Some(_) = cookies.header() else { continue };
        // A request that finds no session may begin one without a subject.
        let accepted = site.user(cookies).await.as_deref() == Some("ada");
        match deed {
            // A login begins a session of its own. It ends by what ends its subject afterwards, and by nothing else here.
            Deed::Login => {
                let expected =
                    ended_at.max(others_ended_by.map(started)).is_none_or(|ended| ended < finished(*at));
                assert_eq!(accepted, expected, "the login of request {at}, {context}");
            }
            // All others go on with the session that the browser had.
            _ => {
                if logged_out || ended_at.is_some() {
                    assert!(!accepted, "request {at} brought the session back, {context}");
                } else if others_ended_by.is_some() {
                    // A later login of this browser replaces the session.
                    let stays = others_ended_by == Some(*at) && !deeds.contains(&Deed::Login);
                    assert_eq!(accepted, stays, "request {at}, {context}");
                } else if deeds.iter().all(|deed| matches!(deed, Deed::Read | Deed::Set)) {
                    assert!(accepted, "no request ended the session of request {at}, {context}");
                } else if *deed == Deed::Regenerate && !deeds.contains(&Deed::Login) {
                    assert!(accepted, "request {at} has a new id, {context}");
                }
            }
        }
    }
    let survives = deeds.iter().all(|deed| matches!(deed, Deed::Read | Deed::Set));
    assert_eq!(site.user(&browser).await.is_some(), survives, "the cookie from before, {context}");
}

#[test]
fn no_order_of_two_or_three_requests_brings_a_session_back() {
    block_on(async {
        let mut runs = 0;
        // Each choice of deeds once: the orders are those of all requests.
        for (at, one) in DEEDS.into_iter().enumerate() {
            for (at, two) in DEEDS.into_iter().enumerate().skip(at) {
                for order in orders(2) {
                    run(&[one, two], &order).await;
                    runs += 1;
                }
                for three in DEEDS.into_iter().skip(at) {
                    for order in orders(3) {
                        run(&[one, two, three], &order).await;
                        runs += 1;
                    }
                }
            }
        }
        assert_eq!(runs, 45 * 6 + 165 * 90);
    });
}
