//! Requests that are dropped at every await.

use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::Request;
use hyper::service::{Service, service_fn};
use hyper_session::store::{Backend, EntryId};
use hyper_session::testing::FakeClock;
use hyper_session::{Error, ServerStore, SessionExt, SessionService, Timestamp};
use tokio::task::yield_now;

use crate::concurrent_requests::{Deed, START, Values, Watched, look, poll_once, server, shared_session};
use crate::support::{Body, Events, block_on, request, status};

/// The state after a request was dropped, and all of its work in the background is done.
#[derive(Debug)]
struct Dropped {
    /// The handler had done its part, up to its own `save` if it has one.
    handled: bool,
    entries: usize,
    /// The values of the session that the request's old token leads to.
    by_old_token: Option<Values>,
    /// Every session is, byte for byte, what was stored before; but each write has another revision.
    as_before: bool,
}

/// Drops a request that was polled `polls` times: `None` if it was done by then.
async fn dropped_after(polls: usize, deed: Deed, saves: bool) -> Option<Dropped> {
    let store = server(&Watched::in_turns(), &FakeClock::at(START), &Events::new());
    let jar = shared_session(&store);
    let handled = Arc::new(Mutex::new(false));
    let to_set = Arc::clone(&handled);
    let service = SessionService::new(
        service_fn(move |request: Request<Body>| {
            let handled = Arc::clone(&to_set);
            async move {
                let session = request.session().await?;
                deed.perform(&session, 0)?;
                *handled.lock().unwrap() = true;
                if saves {
                    session.save().await?;
                }
                Ok::<_, Error>(status(200))
            }
        }),
        store.clone(),
    );
    let before = stored_values(&store).await;
    let mut future = Box::pin(service.call(request("/", jar.header().as_deref())));
    for _ in 0..polls {
        if poll_once(future.as_mut()).is_ready() {
            return None;
        }
    }
    drop(future);
    for _ in 0..100 {
        yield_now().await;
    }
    let after = stored_values(&store).await;
    let handled = *handled.lock().unwrap();
    let by_old_token = look(&store, &jar).map(|found| found.state.1);
    Some(Dropped {
        handled,
        entries: after.len(),
        by_old_token,
        as_before: after.iter().all(|value| before.contains(value)),
    })
}

async fn stored_values(store: &ServerStore<Watched>) -> Vec<(Bytes, Bytes)> {
    let mut values = Vec::new();
    for id in store.backend().ids() {
        let stored = store
            .backend()
            .memory
            .fetch(EntryId::from_bytes(id.to_bytes()), Timestamp::from_unix(START))
            .await
            .unwrap();
        let value = stored.expect("what is listed").value;
        // Without when it was written, its lifetime and the revision.
        values.push((value.slice(..6), value.slice(22..)));
    }
    values
}

/// Drops a request at every await, with and without a `save` of the handler's own. Before the handler is done nothing may
/// have changed; `check` judges what is there afterwards.
fn dropped_at_every_await(deed: Deed, check: impl Fn(&Dropped)) {
    for saves in [false, true] {
        let (mut polls, mut after_handler) = (0, 0);
        while let Some(dropped) = block_on(dropped_after(polls, deed, saves)) {
            if dropped.handled {
                check(&dropped);
                after_handler += 1;
            } else {
                let unchanged = dropped.entries == 1 && dropped.as_before && dropped.by_old_token.is_some();
                assert!(unchanged, "nothing is saved before the handler is done: {dropped:?}");
            }
            polls += 1;
        }
        assert!(
            polls >= 3 && after_handler >= 1,
            "{deed:?}: {polls} polls, {after_handler} after the handler"
        );
    }
}

fn values(pairs: &[(&str, i64)]) -> Values {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), *value)).collect()
}

#[test]
fn a_dropped_request_saves_all_or_nothing() {
    let (before, after) = (values(&[("n", 5)]), values(&[("n", 5), ("client0", 1)]));
    dropped_at_every_await(Deed::Set, |dropped| {
        let found = dropped.by_old_token.as_ref().unwrap();
        assert!(dropped.entries == 1 && (*found == before || *found == after), "{dropped:?}");
    });
}

#[test]
fn t25_a_dropped_request_still_destroys() {
    dropped_at_every_await(Deed::Destroy, |dropped| {
        assert!(dropped.entries == 0 && dropped.by_old_token.is_none(), "{dropped:?}");
    });
}

#[test]
fn t35_t40_a_dropped_request_still_regenerates() {
    dropped_at_every_await(Deed::Regenerate, |dropped| {
        assert!(dropped.entries == 1 && dropped.as_before && dropped.by_old_token.is_none(), "{dropped:?}");
    });
    for deed in [Deed::RegenerateAndSet, Deed::DestroyAndSet] {
        dropped_at_every_await(deed, |dropped| {
            assert!(
                dropped.entries == 1 && !dropped.as_before && dropped.by_old_token.is_none(),
                "{dropped:?}"
            );
        });
    }
}
