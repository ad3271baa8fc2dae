//! How large entries may be (A4): too large is an error when it is written, and never a session that cannot be ended.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use hyper::service::Service;
use hyper_session::store::redis::{NearCache, Redis, RedisOptions};
use hyper_session::store::{Backend as _, Builder, SessionLimit};
use hyper_session::testing::Faulty;
use hyper_session::{Error, ServerStore, SessionHandle, session_fn};

use crate::app::{App, builder};
use crate::contract::builder as contract_builder;
use crate::server::Server;
use crate::session_lists::{list_keys, log_in, user};
use crate::support::{Body, Jar, in_time, request, visit};
use crate::values::Raw;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a4_what_is_too_large_is_refused_before_it_is_written() {
    let server = Server::start();
    let app = App::with(builder(server.url()).max_entry_len(64 << 10)).await;
    let mut jar = app.jar().await;
    // From the limit down: what is written can be read.
    for (len, fits) in [(1_500_000, false), (64 << 10, false), ((64 << 10) - 200, true)] {
        let error = std::sync::Arc::new(std::sync::Mutex::new(None));
        let told = std::sync::Arc::clone(&error);
        let service = session_fn(app.store.clone(), move |_: http::Request<Body>, session: SessionHandle| {
            let told = std::sync::Arc::clone(&told);
            async move {
                let session = session.load().await?;
                session.set("big", "x".repeat(len))?;
                *told.lock().unwrap() =
                    session.save().await.err().map(|error| (error.is_too_large(), error.size_and_limit()));
                session.delete("big")?;
                Ok::<_, Error>(http::Response::new(Body::default()))
            }
        });
        let response = service.call(request("/", jar.header().as_deref())).await.unwrap();
        let error = error.lock().unwrap().take();
        if fits {
            assert_eq!(error, None);
        } else {
            let (too_large, sizes) = error.unwrap();
            let (size, limit) = sizes.unwrap();
            assert!(too_large && size > len && limit == 64 << 10, "{size} {limit}");
        }
        jar.store(response.headers());
        assert_eq!(app.ok("/read", &mut jar).await, "1", "the session is as it was");
    }
    let old = jar.clone();
    app.ok("/logout", &mut jar).await;
    assert_eq!(app.ok("/read", &mut old.clone()).await, "none");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a4_limits_that_do_not_fit_together_do_not_build() {
    let server = Server::start();
    for (builder, says) in [
        (builder(server.url()).max_sessions_per_subject(100_000), "max_sessions_per_subject()"),
        (builder(server.url()).max_sessions_per_subject(usize::MAX), "max_sessions_per_subject()"),
        (builder(server.url()).max_entry_len(4_096), "max_sessions_per_subject()"),
        (builder(server.url()).max_entry_len(0), "max_entry_len()"),
        (builder(server.url()).max_entry_len(usize::MAX), "max_entry_len()"),
    ] {
        let error = builder.connect().await.unwrap_err();
        assert!(error.is_config() && error.to_string().contains(says), "{error}");
    }
    let manager = bb8_redis::RedisConnectionManager::new(server.url()).unwrap();
    let pool = bb8_redis::bb8::Pool::builder().build_unchecked(manager);
    let over_pool = ServerStore::with_backend(Redis::from_pool(pool, "test").unwrap());
    assert!(over_pool.max_sessions_per_subject(100_000).build().unwrap_err().is_config());
    let store =
        builder(server.url()).max_entry_len(4_096).max_sessions_per_subject(20).connect().await.unwrap();
    for _ in 0..60 {
        log_in(&store, "ada").await;
    }
    assert_eq!(store.sessions_of("ada").await.unwrap().len(), 20);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_timeout_is_too_long() {
    in_time(stores_whose_timeouts_are_the_longest()).await;
}

async fn stores_whose_timeouts_are_the_longest() {
    let server = Server::start();
    let longest = |builder: Builder<RedisOptions>| {
        let builder = builder.connect_timeout(Duration::MAX).checkout_timeout(Duration::MAX);
        builder.command_timeout(Duration::MAX).near_cache(NearCache::new())
    };
    let app = App::with(longest(builder(server.url()))).await;
    log_in(&app.store, "ada").await;
    assert_eq!(app.store.sessions_of("ada").await.unwrap().len(), 1);
    let manager = bb8_redis::RedisConnectionManager::new(server.url()).unwrap();
    let pool = bb8_redis::bb8::Pool::builder().build_unchecked(manager);
    let backend = Redis::from_pool(pool, "pool").unwrap().with_timeouts(Duration::MAX, Duration::MAX);
    let store = ServerStore::with_backend(backend.unwrap()).build().unwrap();
    assert!(store.sessions_of("ada").await.unwrap().is_empty());
}

/// A task waits as long for the permit of another task. Wrappers must pass the question on: by default, the answer never comes.
#[tokio::test]
async fn a_step_takes_as_long_as_both_timeouts() {
    let manager = bb8_redis::RedisConnectionManager::new("redis://127.0.0.1").unwrap();
    let pool = bb8_redis::bb8::Pool::builder().build_unchecked(manager);
    let (checkout, command) = (Duration::from_millis(2), Duration::from_millis(1));
    let redis = Redis::from_pool(pool, "test").unwrap().with_timeouts(checkout, command).unwrap();
    let wrapped = Faulty::new(Arc::new(redis));
    let begun = Instant::now();
    wrapped.__after_steps(4).await;
    assert!(begun.elapsed() >= 4 * (checkout + command));
}

/// At the shortest length that entries may have, more logins are under way than the list of their subject has room for.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a4_many_logins_at_once_find_room_on_the_shortest_list() {
    let server = Server::start();
    for (max, policy) in [
        (1, SessionLimit::EndLeastRecentlyUsed),
        (1, SessionLimit::RefuseLogin),
        (9, SessionLimit::EndLeastRecentlyUsed),
        (9, SessionLimit::RefuseLogin),
    ] {
        let options = |len| {
            let options = builder(server.url()).max_entry_len(len).max_sessions_per_subject(max);
            options.at_session_limit(policy).check_session_list(true)
        };
        let shortest = 128 + 33 * (2 * max + 16);
        assert!(options(shortest - 1).connect().await.unwrap_err().is_config());
        // Two processes.
        let apps = [App::with(options(shortest)).await, App::with(options(shortest)).await];
        let logins: Vec<_> = (0..64)
            .map(|number| {
                let store = apps[number % 2].store.clone();
                tokio::spawn(async move {
                    let error = Arc::new(Mutex::new(None));
                    let told = Arc::clone(&error);
                    let handler = move |_: http::Request<Body>, session: SessionHandle| {
                        let told = Arc::clone(&told);
                        async move {
                            let session = session.load().await?;
                            session.login("ada")?;
                            *told.lock().unwrap() = session.save().await.err();
                            Ok::<_, Error>(http::Response::new(Body::default()))
                        }
                    };
                    let mut jar = Jar::new();
                    visit(&session_fn(store, handler), "/", &mut jar).await;
                    (jar, error.lock().unwrap().take())
                })
            })
            .collect();
        let (mut alive, mut refused) = (0, 0);
        let mut jars = Vec::new();
        for login in logins {
            let (jar, error) = login.await.unwrap();
            // Many logins later, a session may have ended before it was written.
            let expected = error.as_ref().is_none_or(|error| match policy {
                SessionLimit::RefuseLogin => error.is_session_limit(),
                _ => error.is_ended(),
            });
            assert!(expected, "{policy:?}, at most {max}: {error:?}");
            refused += usize::from(error.is_some());
            jars.push(jar);
        }
        for jar in &jars {
            alive += usize::from(user(&apps[0].store, jar).await.is_some());
        }
        let listed = apps[1].store.sessions_of("ada").await.unwrap().len();
        assert!(alive == listed && (1..=max).contains(&listed), "{policy:?}: {alive} of {listed}");
        if policy == SessionLimit::RefuseLogin {
            assert_eq!((listed, refused), (max, 64 - max));
        }
        // The list has room again.
        assert_eq!(apps[0].store.end_sessions_of("ada", None).await.unwrap(), listed);
        let jar = log_in(&apps[0].store, "ada").await;
        assert_eq!(user(&apps[1].store, &jar).await.as_deref(), Some("ada"));
        assert_eq!(apps[0].store.end_sessions_of("ada", None).await.unwrap(), 1);
        server.has_entries(0);
    }
}

/// Whatever lies under the keys of a subject's sessions, and of its list.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a4_ending_works_on_entries_of_any_size_and_kind_and_a_list_locks_no_user_out() {
    let server = Server::start();
    let store = contract_builder(&server).connect().await.unwrap();
    let mut raw = Raw::of(&server);
    for list in [&b"RPUSH"[..], b"SET"] {
        for damage in ["too long", "a list", "garbage"] {
            let jars = [log_in(&store, "ada").await, log_in(&store, "ada").await];
            let lists = list_keys(&mut raw);
            let sessions: Vec<_> = raw.keys().into_iter().filter(|key| !lists.contains(key)).collect();
            for key in &sessions {
                match damage {
                    "too long" => raw.set(key, &vec![1; 2 << 20]),
                    "a list" => {
                        server.cli(&["DEL", key]);
                        server.cli(&["RPUSH", key, "x"]);
                    }
                    _ => raw.set(key, b"garbage, but long enough"),
                }
            }
            let listed = store.sessions_of("ada").await.unwrap();
            assert!(listed.iter().all(|session| !session.readable), "{damage}: {listed:?}");
            store.end_sessions_of("ada", None).await.unwrap();
            server.has_entries(0);
            for jar in &jars {
                assert_eq!(user(&store, jar).await, None);
            }
            // The list itself.
            let before = log_in(&store, "ada").await;
            let key = list_keys(&mut raw)[0].clone();
            if list == b"SET" {
                raw.set(&key, &vec![3; 2 << 20]);
            } else {
                server.cli(&["DEL", &key]);
                server.cli(&["RPUSH", &key, "x"]);
            }
            assert!(store.end_sessions_of("ada", None).await.unwrap_err().is_unavailable());
            let after = log_in(&store, "ada").await;
            assert_eq!(user(&store, &after).await.as_deref(), Some("ada"), "the login works");
            assert_eq!(user(&store, &before).await.as_deref(), Some("ada"));
            assert_eq!(store.sessions_of("ada").await.unwrap().len(), 1);
            server.cli(&["FLUSHALL"]);
        }
    }
}

/// The limits were lowered since the list was written. It is read, so that its sessions can be ended, and a login makes room on it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a4_a_list_that_is_longer_than_a_lowered_limit_is_read_and_shrinks() {
    let server = Server::start();
    for (scripts_only, policy) in
        [(true, SessionLimit::EndLeastRecentlyUsed), (false, SessionLimit::RefuseLogin)]
    {
        let wide = App::connect(server.url()).await;
        let options =
            builder(server.url()).max_entry_len(800).max_sessions_per_subject(2).check_session_list(true);
        let options = options.at_session_limit(policy);
        let narrow = App::with(if scripts_only { options.scripts_only() } else { options }).await;
        let mut jars = Vec::new();
        for _ in 0..30 {
            jars.push(log_in(&wide.store, "ada").await);
        }
        assert!(Raw::of(&server).get(&list_keys(&mut Raw::of(&server))[0]).len() > 800);
        // Twice: the second time, the process knows which list to read.
        for _ in 0..2 {
            assert_eq!(user(&narrow.store, &jars[0]).await.as_deref(), Some("ada"));
        }
        let listed = narrow.store.sessions_of("ada").await.unwrap();
        assert_eq!(listed.len(), 30);
        assert!(narrow.store.end_session_of("ada", listed[0].id).await.unwrap());
        assert_eq!(user(&narrow.store, &jars[0]).await, None);
        let service =
            session_fn(narrow.store.clone(), |_: http::Request<Body>, session: SessionHandle| async move {
                session.load().await?.login("ada")?;
                Ok::<_, Error>(http::Response::new(Body::default()))
            });
        let refuses = policy == SessionLimit::RefuseLogin;
        assert_eq!(visit(&service, "/", &mut Jar::new()).await.status().is_success(), !refuses);
        let left = if refuses { 29 } else { 2 };
        assert_eq!(wide.store.sessions_of("ada").await.unwrap().len(), left);
        assert_eq!(narrow.store.end_sessions_of("ada", None).await.unwrap(), left);
        for jar in &jars {
            assert_eq!(user(&wide.store, jar).await, None);
        }
        server.has_entries(0);
    }
}

/// A login that is too large to be stored takes no place: it ends no other session, and keeps no later login out.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a4_a_login_that_is_too_large_leaves_the_others_alone() {
    let server = Server::start();
    for policy in [SessionLimit::EndLeastRecentlyUsed, SessionLimit::RefuseLogin] {
        let options = builder(server.url()).max_entry_len(64 << 10).max_sessions_per_subject(2);
        let app = App::with(options.at_session_limit(policy)).await;
        let service = session_fn(
            app.store.clone(),
            |request: http::Request<Body>, session: SessionHandle| async move {
                let session = session.load().await?;
                session.login("ada")?;
                if request.uri().path() == "/big" {
                    session.set("big", "x".repeat(100_000))?;
                }
                Ok::<_, Error>(http::Response::new(Body::default()))
            },
        );
        let first = log_in(&app.store, "ada").await;
        for _ in 0..3 {
            assert_eq!(visit(&service, "/big", &mut Jar::new()).await.status(), 500);
        }
        let second = log_in(&app.store, "ada").await;
        assert_eq!(visit(&service, "/big", &mut Jar::new()).await.status(), 500);
        for jar in [&first, &second] {
            assert_eq!(user(&app.store, jar).await.as_deref(), Some("ada"), "{policy:?}");
        }
        assert_eq!(app.store.end_sessions_of("ada", None).await.unwrap(), 2);
    }
}
