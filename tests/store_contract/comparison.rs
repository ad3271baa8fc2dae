//! Comparisons of each store with the model, step by step.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use http::{Request, Response};
use hyper::service::{Service, service_fn};
use hyper_session::store::{Backend, Store};
use hyper_session::testing::FakeClock;
use hyper_session::{
    AppKey, Clock, CookieStore, Error, ServerStore, Session, SessionExt, SessionId, SessionService,
};
use proptest::prelude::*;

use crate::concurrent_requests::{ABSOLUTE, IDLE, NAME, RENEWAL, START, Watched, run};
use crate::model::{Cookie, Model, Op, Seen, Step, step};
use crate::support::{Answer, Body, Jar, block_on, request, set_cookies, status};
use crate::test_backend::Place;

/// Does `ops` to the session, and notes what is seen.
async fn perform(session: &Session, ops: &[Op]) -> Result<Vec<Seen<SessionId>>, Error> {
    let mut seen = Vec::new();
    for op in ops.iter().cloned() {
        seen.push(match op {
            Op::Look => {
                let id = session.id().map(|id| {
                    (id, session.created_at().unwrap().as_unix(), session.expires_at().unwrap().as_unix())
                });
                Seen::Session(id, session.keys())
            }
            Op::Get(key) => Seen::Value(session.get(key)?),
            Op::Peek(key) => Seen::Value(session.peek(key)?),
            Op::Flash(key) => Seen::Value(session.flash(key)?),
            Op::Delete(key) => Seen::Removed(session.delete(key)?),
            Op::Update(key, n) => {
                Seen::Value(Some(session.update(key, move |old: Option<i64>| old.unwrap_or(0) + n)?))
            }
            Op::Set(key, value) => session.set(key, value).map(|()| Seen::Nothing)?,
            Op::SetFlash(key, value) => session.set_flash(key, value).map(|()| Seen::Nothing)?,
            Op::Clear => session.clear().map(|()| Seen::Nothing)?,
            Op::Regenerate => session.regenerate().map(|()| Seen::Nothing)?,
            Op::Destroy => session.destroy().map(|()| Seen::Nothing)?,
            Op::Save => match session.save().await {
                // The changes of an overtaken request are dropped, and `save` returns an error.
                Err(error) if error.is_ended() => Seen::Dropped,
                saved => saved.map(|()| Seen::Nothing)?,
            },
        });
    }
    Ok(seen)
}

/// The operations of a request and whether it fails; [`Report`] is the result. Both travel beside the messages.
#[derive(Clone)]
struct Script(Vec<Op>, bool);

#[derive(Clone)]
struct Report(Vec<Seen<SessionId>>);

async fn play_script(request: Request<Body>) -> Answer {
    let Script(ops, fails) = request.extensions().get::<Script>().unwrap().clone();
    let seen = perform(&request.session().await?, &ops).await?;
    let mut response = status(if fails { 500 } else { 200 });
    response.extensions_mut().insert(Report(seen));
    Ok(response)
}

/// Plays `steps` on a store and on the model, and compares after each.
struct Comparison<S> {
    service: S,
    clock: FakeClock,
    model: Model,
    /// The real ids of the model's names.
    ids: BTreeMap<u64, SessionId>,
    jars: [Jar; 2],
    /// All tokens that a client ever had.
    history: [Vec<String>; 2],
}

impl<S> Comparison<S>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Error>,
{
    fn now(&self) -> u64 {
        self.clock.now().as_unix()
    }

    async fn step(&mut self, step: &Step) {
        match step {
            Step::Visit { client, ops, fails } => {
                let mut jar = std::mem::take(&mut self.jars[*client]);
                self.visit(&mut jar, ops, *fails).await;
                if let Some(token) = jar.get(NAME) {
                    self.history[*client].push(token.to_owned());
                }
                self.jars[*client] = jar;
            }
            Step::Wait(seconds) => self.clock.advance(Duration::from_secs(*seconds)),
            Step::WaitForDeadline { client, offset } => {
                let kept = self.jars[*client].get(NAME).and_then(|token| self.model.tokens.get(token));
                let then = kept.map_or(0, |kept| kept.expires.saturating_add_signed(*offset));
                self.clock.set(then.max(self.now()));
            }
            Step::Replay { client, which } => {
                if !self.history[*client].is_empty() {
                    self.jars[*client] = Jar::with(NAME, which.get::<String>(&self.history[*client]));
                }
            }
        }
    }

    async fn visit(&mut self, jar: &mut Jar, ops: &[Op], fails: bool) {
        let before = jar.get(NAME).map(str::to_owned);
        let mut request = request("/", jar.header().as_deref());
        request.extensions_mut().insert(Script(ops.to_vec(), fails));
        let response = self.service.call(request).await.unwrap();
        let Report(seen) = response.extensions().get().cloned().expect("the handler's own response");
        let (expected, draft) = self.model.visit(self.now(), before.as_deref(), ops, fails);
        for ((op, seen), expected) in ops.iter().zip(&seen).zip(expected) {
            let expected = self.with_real_id(expected, seen);
            assert_eq!(*seen, expected, "{op:?} of {ops:?}");
        }

        let lines = set_cookies(response.headers());
        let removed = lines.iter().any(|line| line.contains("Max-Age=0"));
        let cookie = match (lines.len(), removed) {
            (0, _) => Cookie::AsItWas,
            (1, true) => Cookie::Removed,
            (1, false) => Cookie::Set,
            _ => panic!("more than one cookie: {lines:?}"),
        };
        assert_eq!(cookie, draft.cookie, "the cookie after {ops:?}, fails: {fails}");
        if let (Cookie::Set, Some(kept)) = (cookie, &draft.base) {
            let lifetime = format!("Max-Age={};", kept.expires - self.now());
            assert!(lines[0].contains(&lifetime), "{lifetime} in {}", lines[0]);
        }
        jar.store(response.headers());
        self.model.settle(before.as_deref(), jar.get(NAME), draft);
    }

    /// Replaces the model's name of an id by the real id. A name that is new to the model has an id that was never used before:
    /// that is what regenerating is for.
    fn with_real_id(&mut self, expected: Seen<u64>, seen: &Seen<SessionId>) -> Seen<SessionId> {
        match expected {
            Seen::Session(Some((name, created, expires)), keys) => {
                if let (None, Seen::Session(Some((id, ..)), _)) = (self.ids.get(&name), seen) {
                    assert!(!self.ids.values().any(|known| known == id), "an id for the second time");
                    self.ids.insert(name, *id);
                }
                let id = self.ids.get(&name).copied().unwrap_or(SessionId::from_bytes([0; 16]));
                Seen::Session(Some((id, created, expires)), keys)
            }
            Seen::Session(None, keys) => Seen::Session(None, keys),
            Seen::Nothing => Seen::Nothing,
            Seen::Value(value) => Seen::Value(value),
            Seen::Removed(removed) => Seen::Removed(removed),
            Seen::Dropped => Seen::Dropped,
        }
    }
}

/// Plays `steps` on `store` and on the model. `count` is how many entries the store has, if it has entries.
fn compare_to_model<S: Store + Clone>(
    store: &S,
    clock: FakeClock,
    count: impl Fn(&S) -> Option<usize>,
    steps: &[Step],
) {
    block_on(async {
        let mut comparison = Comparison {
            service: SessionService::new(service_fn(play_script), store.clone()),
            clock,
            model: Model {
                server_side: count(store).is_some(),
                tokens: HashMap::new(),
                replaced: HashMap::new(),
                next: HashMap::new(),
                names: 0,
            },
            ids: BTreeMap::new(),
            jars: Default::default(),
            history: Default::default(),
        };
        for step in steps {
            comparison.step(step).await;
            if let Some(count) = count(store) {
                assert_eq!(count, comparison.model.tokens.len(), "entries in the store after {step:?}");
            }
        }
        // Every token that was ever out: those taken back are refused, the others show what they should.
        let tokens: Vec<_> = comparison.history.concat();
        for token in tokens {
            let look = [Op::Look, Op::Get("a"), Op::Get("b"), Op::Get("c")];
            comparison.visit(&mut Jar::with(NAME, &token), &look, false).await;
        }
    });
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn t18_t22_t30_cookie_store_does_what_the_model_does(steps in proptest::collection::vec(step(), 1..25)) {
        let clock = FakeClock::at(START);
        let store = CookieStore::builder(AppKey::generate().unwrap())
            .idle_timeout(Duration::from_secs(IDLE))
            .absolute_timeout(Duration::from_secs(ABSOLUTE))
            .renewal_threshold(Duration::from_secs(RENEWAL))
            .clock(clock.clone())
            .build()
            .unwrap();
        compare_to_model(&store, clock, |_| None, &steps);
    }

    #[test]
    fn t19_t22_t25_t30_t32_t71_server_store_does_what_the_model_does(
        steps in proptest::collection::vec(step(), 1..25),
    ) {
        let clock = FakeClock::at(START);
        let backend = Watched::default();
        // The clock of the memory stands still, so that it frees nothing: it would do so by random ids.
        let still: Arc<dyn Clock> = Arc::new(FakeClock::at(0));
        if let Place::Memory(memory) = &*backend.memory {
            memory.__use_clock(&still);
        }
        let store = ServerStore::with_backend(backend)
            .idle_timeout(Duration::from_secs(IDLE))
            .absolute_timeout(Duration::from_secs(ABSOLUTE))
            .renewal_threshold(Duration::from_secs(RENEWAL))
            .clock(clock.clone())
            .build()
            .unwrap();
        compare_to_model(&store, clock, |store| Some(store.backend().ids().len()), &steps);
    }
}

/// A deletion is followed by a `clear`, with which the session counts as changed although it had no value left by then.
#[test]
fn a_clear_after_the_deletion_of_the_last_value_is_a_change() {
    let visit = |ops| Step::Visit { client: 0, ops, fails: false };
    for last in ["c", "a"] {
        let steps = [visit(vec![Op::Set("c", 2)]), visit(vec![Op::Delete("c"), Op::Clear, Op::Set(last, 2)])];
        let clock = FakeClock::at(START);
        let store = CookieStore::builder(AppKey::generate().unwrap())
            .idle_timeout(Duration::from_secs(IDLE))
            .absolute_timeout(Duration::from_secs(ABSOLUTE))
            .renewal_threshold(Duration::from_secs(RENEWAL))
            .clock(clock.clone())
            .build()
            .unwrap();
        compare_to_model(&store, clock, |_| None, &steps);
    }
}

/// A value that ends up equal to the stored one changes nothing, whichever way it got there: no write, and no cookie set.
#[test]
fn changes_that_lead_back_to_the_stored_value_write_nothing() {
    let cases: [(&str, &[Op]); 6] = [
        ("set", &[Op::Set("a", 1)]),
        ("set twice", &[Op::Set("a", 2), Op::Set("a", 1)]),
        ("delete, set", &[Op::Delete("a"), Op::Set("a", 1)]),
        ("update by nothing", &[Op::Update("a", 0)]),
        ("set, update", &[Op::Set("a", 0), Op::Update("a", 1)]),
        ("delete, update", &[Op::Delete("a"), Op::Update("a", 1)]),
    ];
    let store = CookieStore::builder(AppKey::generate().unwrap()).build().unwrap();
    let service = SessionService::new(service_fn(play_script), store);
    let call = |jar: &mut Jar, ops: &[Op]| {
        let mut request = request("/", jar.header().as_deref());
        request.extensions_mut().insert(Script(ops.to_vec(), false));
        let response = run(service.call(request)).unwrap();
        jar.store(response.headers());
        set_cookies(response.headers()).len()
    };
    let mut jar = Jar::new();
    call(&mut jar, &[Op::Set("a", 1)]);
    let written: Vec<_> =
        cases.iter().filter(|(_, ops)| call(&mut jar.clone(), ops) != 0).map(|(name, _)| name).collect();
    assert!(written.is_empty(), "{written:?}");
}
