//! A server-side store whose cookie gets another name, and services that share a backend under several names.

use std::sync::Arc;

use hyper::service::Service;
use hyper_session::cookie::CookieOptions;
use hyper_session::store::{Builder, Memory, MigratingStore, Store};
use hyper_session::testing::FakeClock;
use hyper_session::{
    AppKey, CookieStore, Error, Refusal, ServerStore, Session, SessionHandle, SessionWatch, Timestamp,
    session_fn,
};

use crate::migrating::{edit, user};
use crate::stores::{Act, START, seconds};
use crate::support::{Events, Jar, block_on, refused, request, set_cookies, status};

type Server = ServerStore<Arc<Memory>>;

/// Builds a store with these options for its cookie.
type Build<'a> = &'a dyn Fn(CookieOptions) -> Arc<dyn Store>;

/// One backend, one key, one clock, and any number of deployments.
struct House {
    memory: Arc<Memory>,
    key: String,
    clock: FakeClock,
    events: Events,
    sealed: bool,
}

impl House {
    fn new(sealed: bool) -> Self {
        println!("sealed: {sealed}"); // shown if it fails
        let key = AppKey::generate().unwrap().to_text().to_string();
        let (clock, events) = (FakeClock::at(START), Events::new());
        Self { memory: Arc::new(Memory::new()), key, clock, events, sealed }
    }

    fn builder(&self, cookie: CookieOptions) -> Builder<Arc<Memory>> {
        let builder = ServerStore::with_backend(Arc::clone(&self.memory))
            .cookie(cookie)
            .idle_timeout(seconds(1_000))
            .clock(self.clock.clone())
            .observer(self.events.clone());
        if self.sealed { builder.seal_records(self.key.parse::<AppKey>().unwrap()) } else { builder }
    }

    fn build(&self, cookie: CookieOptions) -> Server {
        self.builder(cookie).build().unwrap()
    }
}

fn everywhere<T: Future<Output = ()>>(scenario: impl Fn(House) -> T) {
    for sealed in [false, true] {
        block_on(scenario(House::new(sealed)));
    }
}

fn old() -> CookieOptions {
    CookieOptions::new().name("__Host-old")
}

fn new() -> CookieOptions {
    CookieOptions::new().name("__Host-new").retired_name("__Host-older").retired_name("__Host-old")
}

/// The names of the cookies that a browser holds.
fn held(jar: &Jar) -> Vec<&str> {
    jar.0.keys().map(String::as_str).collect()
}

async fn log_in(store: &(impl Store + Clone), subject: &str) -> Jar {
    let mut jar = Jar::new();
    edit(store, &mut jar, |session| session.login(subject).and_then(|()| session.set("cart", 3))).await;
    jar
}

async fn watch(store: &(impl Store + Clone), jar: &Jar) -> SessionWatch {
    let service = session_fn(store.clone(), |_: http::Request<_>, handle: SessionHandle| async move {
        Ok::<_, Error>(http::Response::new(handle.watch().await?))
    });
    service.call(request("/", jar.header().as_deref())).await.unwrap().into_body().unwrap()
}

#[test]
fn a_session_under_a_retired_name_is_read_and_moves_when_it_is_saved() {
    everywhere(|house| async move {
        let mut jar = log_in(&house.build(old()), "ada").await;
        let before = jar.clone();
        house.events.take();
        house.clock.advance(seconds(10));
        // The requests of one page, at once: each sees the session, and none ends it for the others.
        let new = house.build(new());
        for _ in 0..4 {
            let (lines, seen) = edit(&new, &mut before.clone(), user).await;
            assert_eq!((lines.len(), seen.as_deref()), (0, Some("ada")));
        }
        assert_eq!(house.events.take(), ["migrating:retired_name"; 4]);

        let (lines, ()) = edit(&new, &mut jar, |session| session.set("cart", 4)).await;
        let (set, expired): (Vec<_>, Vec<_>) = lines.iter().partition(|line| !line.contains("Max-Age=0"));
        assert!(set.len() == 1 && set[0].starts_with("__Host-new="), "{lines:?}");
        assert!(expired.iter().any(|line| line.starts_with("__Host-old=;")), "{lines:?}");
        assert_eq!(held(&jar), ["__Host-new"]);
        house.events.take();
        let facts = |session: &Session| {
            let began = session.created_at().unwrap().as_unix();
            Ok((user(session)?, session.get::<u8>("cart")?, began, session.authenticated_at().unwrap()))
        };
        let (_, facts) = edit(&new, &mut jar, facts).await;
        assert_eq!(facts, (Some("ada".into()), Some(4), START, Timestamp::from_unix(START)));
        assert_eq!(house.events.take(), [""; 0]);
        // A late request with the old cookie is shown nothing, and the cookie is left alone.
        let (lines, late) = edit(&new, &mut before.clone(), user).await;
        assert_eq!((lines.len(), late), (0, None));
        assert_eq!(house.events.take(), [refused(Refusal::Regenerated)]);
    });
}

/// Another tab logs out while a handler waits, or its session moves: the login of the handler stays.
#[test]
fn a_login_does_not_depend_on_whether_the_session_under_the_retired_name_has_ended() {
    everywhere(|house| async move {
        let deeds: [Act; 2] = [Session::destroy, |session| session.set("cart", 4)];
        let new = house.build(new());
        for deed in deeds {
            let mut jar = log_in(&house.build(old()), "ada").await;
            let slow = session_fn(new.clone(), |_: http::Request<_>, handle: SessionHandle| {
                let (new, mut tab) = (&new, jar.clone());
                async move {
                    let session = handle.load().await?;
                    edit(new, &mut tab, deed).await;
                    session.login("bob")?;
                    Ok::<_, Error>(status(200))
                }
            });
            let response = slow.call(request("/", jar.header().as_deref())).await.unwrap();
            drop(slow);
            jar.store(response.headers());
            let seen = edit(&new, &mut jar, |session| Ok((user(session)?, session.has("cart")))).await.1;
            assert_eq!(seen, (Some("bob".into()), false));
        }
    });
}

/// The end of the time for a retired name: to the second, on each store, with an event, and the cookie goes.
#[test]
fn a_retired_name_ends_at_its_date() {
    everywhere(|house| async move {
        let until = Timestamp::from_unix(START + 100);
        let server = |options: CookieOptions, dated: bool| -> Arc<dyn Store> {
            let builder = house.builder(options);
            let builder = if dated { builder.accept_retired_until(until) } else { builder };
            Arc::new(builder.build().unwrap())
        };
        let cookies = |options: CookieOptions, dated: bool| -> Arc<dyn Store> {
            let builder = CookieStore::builder(house.key.parse::<AppKey>().unwrap())
                .cookie(options)
                .clock(house.clock.clone())
                .observer(house.events.clone());
            let builder = if dated { builder.accept_retired_until(until) } else { builder };
            Arc::new(builder.build().unwrap())
        };
        let stores: [&dyn Fn(CookieOptions, bool) -> Arc<dyn Store>; 2] = [&server, &cookies];
        for build in stores {
            house.clock.set(START);
            let jar = log_in(&build(old(), false), "ada").await;
            let renamed = build(new(), true);
            let mut moved = jar.clone();
            edit(&renamed, &mut moved, |session| session.set("cart", 4)).await;
            // Another session, under the old name, which did not move.
            let mut late = log_in(&build(old(), false), "bob").await;
            house.clock.set(START + 99);
            assert_eq!(edit(&renamed, &mut late.clone(), user).await.1.as_deref(), Some("bob"));
            house.events.take();
            house.clock.set(START + 100);
            let (lines, seen) = edit(&renamed, &mut late, user).await;
            assert_eq!(seen, None);
            assert!(lines.iter().any(|line| line.starts_with("__Host-old=;")), "{lines:?}");
            assert_eq!(held(&late), [""; 0], "removed");
            assert_eq!(house.events.take(), [refused(Refusal::RetiredFormat)]);
            assert_eq!(edit(&renamed, &mut moved, user).await.1.as_deref(), Some("ada"), "it has moved");
        }
    });
}

#[test]
fn a_date_without_a_retired_name_does_not_build() {
    let house = House::new(false);
    let error = house.builder(old()).accept_retired_until(Timestamp::MAX).build().unwrap_err();
    assert!(error.is_config() && error.to_string().contains("retired_name"), "{error}");
}

#[test]
fn a_renewal_and_each_new_token_move_it_too() {
    let ways: [Act; 4] =
        [Session::regenerate, Session::reauthenticate, |session| session.login("ada"), |_| Ok(())];
    everywhere(|house| async move {
        let new = house.build(new());
        for way in ways {
            let mut jar = log_in(&house.build(old()), "ada").await;
            house.clock.advance(seconds(500));
            edit(&new, &mut jar, way).await;
            house.clock.advance(seconds(999));
            assert_eq!(held(&jar), ["__Host-new"]);
            assert_eq!(edit(&new, &mut jar, user).await.1.as_deref(), Some("ada"));
        }
        let mut jar = log_in(&house.build(old()), "ada").await;
        edit(&new, &mut jar, |session| session.login("bob")).await;
        let seen = edit(&new, &mut jar, |session| Ok((user(session)?, session.has("cart")))).await.1;
        assert_eq!(seen, (Some("bob".into()), false), "another subject gets nothing");
    });
}

#[test]
fn t25_a_logout_under_the_present_name_ends_the_session_under_the_retired_one() {
    everywhere(|house| async move {
        let (former, new) = (house.build(old()), house.build(new()));
        let mut jar = log_in(&former, "ada").await;
        let copied = jar.clone();
        edit(&new, &mut jar, Session::destroy).await;
        assert!(jar.0.is_empty());
        assert_eq!(edit(&new, &mut copied.clone(), user).await.1, None);
        assert_eq!(
            edit(&former, &mut copied.clone(), user).await.1,
            None,
            "nor on a host with the former options"
        );
        assert_eq!(new.sessions_of("ada").await.unwrap(), []);
        // After the deadline, while a slow request still has it.
        let jar = log_in(&former, "ada").await;
        let slow = session_fn(new.clone(), |_: http::Request<_>, handle: SessionHandle| {
            let (house, new, mut other) = (&house, &new, jar.clone());
            async move {
                let session = handle.load().await?;
                house.clock.advance(seconds(1_001));
                edit(new, &mut other, Session::destroy).await;
                session.set("cart", 9)?;
                assert!(session.save().await.unwrap_err().is_ended());
                Ok::<_, Error>(status(200))
            }
        });
        let response = slow.call(request("/", jar.header().as_deref())).await.unwrap();
        assert_eq!(set_cookies(response.headers()), [""; 0]);
        assert_eq!(format!("{:?}", house.memory).matches("entries: 0").count(), 1, "{:?}", house.memory);
    });
}

// T34: of two requests that move it, or of a move and a logout, one counts.
#[test]
fn t34_a_session_that_ended_or_moved_meanwhile_is_not_moved() {
    everywhere(|house| async move {
        let new = house.build(new());
        let ends: [Act; 2] = [Session::destroy, |session| session.set("cart", 4)];
        for end in ends {
            let jar = log_in(&house.build(old()), "ada").await;
            let slow = session_fn(new.clone(), |_: http::Request<_>, handle: SessionHandle| {
                let (new, mut other) = (&new, jar.clone());
                async move {
                    let session = handle.load().await?;
                    edit(new, &mut other, end).await;
                    session.set("cart", 9)?;
                    assert!(session.save().await.unwrap_err().is_ended());
                    Ok::<_, Error>(status(200))
                }
            });
            let response = slow.call(request("/", jar.header().as_deref())).await.unwrap();
            assert_eq!(set_cookies(response.headers()), [""; 0]);
            assert!(house.events.take().contains(&"dropped:session_ended".to_owned()));
        }
        assert_eq!(new.sessions_of("ada").await.unwrap().len(), 1, "the session that moved");
    });
}

#[test]
fn lists_and_endings_include_retired_names() {
    everywhere(|house| async move {
        let (former, new) = (house.build(old()), house.build(new()));
        let mut laptop = log_in(&former, "ada").await;
        house.clock.advance(seconds(1));
        let phone = log_in(&new, "ada").await;
        house.clock.advance(seconds(1));
        let mut tablet = log_in(&former, "ada").await;
        log_in(&former, "bob").await;
        let listed = new.sessions_of("ada").await.unwrap();
        let cookies: Vec<_> = listed.iter().map(|session| &*session.cookie).collect();
        assert_eq!(cookies, ["__Host-old", "__Host-new", "__Host-old"], "in the order of logins");
        assert!(listed.iter().all(|session| session.readable));
        let watching = watch(&new, &laptop).await;
        assert_eq!(watching.id(), listed[0].id);
        assert!(watching.is_alive().await.unwrap());
        assert!(!new.end_session_of("bob", listed[0].id).await.unwrap(), "it is not bob's");
        assert!(new.end_session_of("ada", listed[0].id).await.unwrap());
        assert!(!watching.is_alive().await.unwrap());
        assert_eq!(edit(&new, &mut laptop, user).await.1, None);

        // "My other devices", asked for under the retired name.
        let service = session_fn(new.clone(), |_: http::Request<_>, handle: SessionHandle| async move {
            let ended = handle.load().await?.end_other_sessions().await?;
            Ok::<_, Error>(http::Response::new(ended))
        });
        let response = service.call(request("/", tablet.header().as_deref())).await.unwrap();
        assert_eq!(*response.body(), Some(1));
        tablet.store(response.headers());
        assert_eq!(edit(&new, &mut tablet, user).await.1.as_deref(), Some("ada"));
        assert_eq!(edit(&new, &mut phone.clone(), user).await.1, None);
        assert_eq!(new.end_sessions_of("ada", None).await.unwrap(), 1);
        assert_eq!(edit(&new, &mut tablet, user).await.1, None);
        assert_eq!(new.end_sessions_of("bob", None).await.unwrap(), 1);
    });
}

#[test]
fn linked_cookies_are_listed_and_ended_together_and_read_separately() {
    everywhere(|house| async move {
        let (shop, admin) = (CookieOptions::new(), || CookieOptions::new().name("__Host-admin"));
        let stranger = house.build(CookieOptions::new().name("__Host-blog"));
        let shop = house.builder(shop).linked_cookie("__Host-admin").build().unwrap();
        let admin_store = house.builder(admin()).linked_cookie("__Host-session").build().unwrap();
        let (mut browsing, mut managing) = (log_in(&shop, "ada").await, log_in(&admin_store, "ada").await);
        let mut blogging = log_in(&stranger, "ada").await;
        assert_eq!(shop.sessions_of("ada").await.unwrap().len(), 2);
        assert_eq!(admin_store.sessions_of("ada").await.unwrap().len(), 2);
        // A session of one cookie is none of the other, also if a client moves it there.
        let mut moved = Jar::with("__Host-session", managing.get("__Host-admin").unwrap());
        assert_eq!(edit(&shop, &mut moved, user).await.1, None);

        let keep = edit(&shop, &mut browsing, |session| Ok(session.id())).await.1;
        assert_eq!(shop.end_sessions_of("ada", keep).await.unwrap(), 1);
        assert_eq!(edit(&admin_store, &mut managing, user).await.1, None);
        assert_eq!(edit(&shop, &mut browsing, user).await.1.as_deref(), Some("ada"));
        assert_eq!(admin_store.end_sessions_of("ada", None).await.unwrap(), 1);
        assert_eq!(edit(&shop, &mut browsing, user).await.1, None);
        assert_eq!(edit(&stranger, &mut blogging, user).await.1.as_deref(), Some("ada"), "another ada");

        for (name, named) in
            [("__Host-session", "linked_cookie"), ("__Host-old", "linked_cookie"), ("a b", "name")]
        {
            let cookie = CookieOptions::new().retired_name("__Host-old");
            let error = house.builder(cookie).linked_cookie(name).build().unwrap_err();
            assert!(error.is_config() && error.to_string().contains(named), "{name}: {error}");
        }
    });
}

/// The list decides, also under a retired name.
#[test]
fn a_session_under_a_retired_name_that_is_not_listed_is_refused_if_lists_decide() {
    everywhere(|house| async move {
        let former = house.build(old());
        let checking = house.builder(new()).check_session_list(true).build().unwrap();
        let mut jar = log_in(&former, "ada").await;
        for _ in 0..2 {
            assert_eq!(edit(&checking, &mut jar.clone(), user).await.1.as_deref(), Some("ada"));
        }
        edit(&checking, &mut jar, |session| session.set("cart", 5)).await;
        assert_eq!(edit(&checking, &mut jar, user).await.1.as_deref(), Some("ada"));
        assert_eq!(checking.end_sessions_of("ada", None).await.unwrap(), 1);
        assert_eq!(edit(&checking, &mut jar, user).await.1, None);
    });
}

/// A store and a name that change at once, in both directions, and names that the old store had retired before.
#[test]
fn a_migration_reads_the_names_that_the_old_store_retired() {
    everywhere(|house| async move {
        let key = || house.key.parse::<AppKey>().unwrap();
        let cookies = |options: CookieOptions| -> Arc<dyn Store> {
            let builder = CookieStore::builder(key()).cookie(options).idle_timeout(seconds(1_000));
            Arc::new(builder.clock(house.clock.clone()).build().unwrap())
        };
        let server = |options: CookieOptions| -> Arc<dyn Store> { Arc::new(house.build(options)) };
        let fresh = |options: CookieOptions| -> Arc<dyn Store> {
            let builder =
                ServerStore::with_backend(Memory::new()).cookie(options).idle_timeout(seconds(1_000));
            Arc::new(builder.clock(house.clock.clone()).build().unwrap())
        };
        let named = |name: &str| CookieOptions::new().name(name);
        let middle = || named("__Host-old").retired_name("__Host-older");
        let moves: [(Build<'_>, Build<'_>); 3] = [(&cookies, &fresh), (&server, &cookies), (&server, &fresh)];
        for (from, to) in moves {
            for first in ["__Host-older", "__Host-old"] {
                let mut jar = log_in(&from(named(first)), "ada").await;
                let both = MigratingStore::new(to(new()), from(middle()), Timestamp::MAX).unwrap();
                let (lines, seen) = edit(&both, &mut jar, user).await;
                assert_eq!((lines.len(), seen.as_deref()), (0, Some("ada")), "{first}");
                assert!(watch(&both, &jar).await.is_alive().await.unwrap());
                let before = jar.clone();
                edit(&both, &mut jar, |session| session.set("cart", 4)).await;
                assert_eq!(held(&jar), ["__Host-new"], "{first}");
                let cart = edit(&both, &mut jar, |session| session.get::<u8>("cart")).await.1;
                assert_eq!(cart, Some(4));
                if from(middle()).sessions_of("ada").await.is_ok() {
                    assert_eq!(edit(&both, &mut before.clone(), user).await.1, None, "it has moved");
                }
            }
        }
        let strangers =
            MigratingStore::new(fresh(named("__Host-a")), cookies(named("__Host-b")), Timestamp::MAX);
        let error = strangers.unwrap_err();
        assert!(error.is_config() && error.to_string().contains("retired_name"), "{error}");
    });
}
