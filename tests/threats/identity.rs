//! Sessions that are never adopted, never brought back, and never shared between requests.

use std::sync::Arc;

use base64::prelude::{BASE64_URL_SAFE_NO_PAD as BASE64, Engine};
use http::{Request, Response};
use hyper::service::{Service, service_fn};
use hyper_session::{Error, Refusal, Session, SessionExt, SessionHandle, SessionService, session_fn};

use crate::attack_fixture::{NAME, Options, Rows, VALUE, assert_removed, on_both};
use crate::support::{self, Body, Jar, block_on, refused, request, text};

#[test]
fn t28_clearing_to_empty_is_written() {
    block_on(async {
        for act in [Session::clear, |session: &Session| session.delete("a").map(drop)] {
            let rows = Rows::default();
            let world = Options::default().over(&rows);
            let mut jar = world.jar().await;
            assert_removed(&world.edit(&mut jar, act).await);
            assert_eq!(rows.ids(), []);
        }
    });
}

#[test]
fn t32_an_unknown_token_is_never_adopted() {
    block_on(async {
        let rows = Rows::default();
        let world = Options::default().over(&rows);
        let planted = BASE64.encode([0x5a; 32]);
        let mut victim = Jar::with(NAME, &planted);
        world.edit(&mut victim, |session| session.set("a", VALUE)).await;
        assert_ne!(victim.get(NAME), Some(planted.as_str()));
        assert_eq!(world.events.take(), [refused(Refusal::UnknownId)]);
        let (asked, stored) = (rows.with(|table| table.fetched.clone()), rows.ids());
        assert_eq!((asked.len(), stored.len()), (1, 1));
        assert!(
            stored.iter().all(|id| id.to_bytes() != asked[0].to_bytes()),
            "the attacker's id is not in the store"
        );
        assert_eq!(world.value(&Jar::with(NAME, &planted)).await, None);
        // Nor is the token of a session that ended.
        let ended = victim.clone();
        world.edit(&mut victim, Session::destroy).await;
        let mut again = ended.clone();
        world.edit(&mut again, |session| session.set("a", VALUE)).await;
        assert_ne!(again.0, ended.0);
        assert_eq!(world.value(&ended).await, None);
    });
}

#[test]
fn t33_a_row_that_is_no_session_is_refused() {
    block_on(async {
        let rows = Rows::default();
        let world = Options::default().over(&rows);
        let jar = world.jar().await;
        let good = rows.only_value();
        let header = &good[..22];
        let with = |payload: &[u8]| [header, payload].concat();
        let mut bad = vec![
            Vec::new(),
            b"{}".to_vec(),
            br#"{"a":"x"}"#.to_vec(),
            with(b"{}"),
            with(b"\x80"),
            with(b"[]"),
            with(b"null"),
            with(b"\xc0"),
            with(b"\x91\xa1a"),
            with(b"\x82\xa1a\x01\xa1a\x02"),
            with(b"\x82\xa1b\x01\xa1a\x02"),
            with(b"\x81\xa1\xff\x01"),
            with(b"\x81\x01\x01"),
            [&good[..], b"\0"].concat(),
            [&[2], &good[1..]].concat(),
            [&[3], &good[1..]].concat(),
            [&[4, 1], &good[2..]].concat(), // too short to be sealed
            [&[3], &good[1..9]].concat(),   // a list of no sessions
        ];
        bad.extend((0..good.len()).map(|len| good[..len].to_vec()));
        for row in bad {
            rows.tamper(&row);
            let (value, response) = world.present(jar.header().unwrap().as_bytes()).await;
            assert_eq!(value, None, "{row:?}");
            assert_eq!(world.events.take(), [refused(Refusal::Payload)], "{row:?}");
            assert_removed(&response);
        }
        rows.tamper(&good);
        assert_eq!(world.value(&jar).await.as_deref(), Some(VALUE));
    });
}

#[test]
fn t38_requests_share_nothing_but_their_cookies() {
    on_both(|_, world| async move {
        // One service, one task, users in turn: with a session, without one, and with a handler that fails.
        let handler = service_fn(|request: Request<Body>| async move {
            let session = request.session().await?;
            let seen = session.get::<String>("a")?.unwrap_or_default();
            match request.uri().path() {
                "/fail" => {
                    session.set("a", "left behind")?;
                    Err(Error::unavailable("the handler's own trouble"))
                }
                path if path.len() > 1 => {
                    session.set("a", &path[1..])?;
                    Ok(Response::new(Body::from(seen)))
                }
                _ => Ok(Response::new(Body::from(seen))),
            }
        });
        let service = SessionService::new(handler, Arc::clone(&world.store));
        let mut jars = vec![Jar::new(); 5];
        for round in 0..3 {
            for (user, jar) in jars.iter_mut().enumerate() {
                let before = if round == 0 { String::new() } else { format!("user{user}") };
                let path = format!("/user{user}");
                assert_eq!(text(support::visit(&service, &path, jar).await).await, before);
                let failed = service.call(request("/fail", jar.header().as_deref())).await.unwrap();
                assert_eq!(failed.status(), 503);
                assert_eq!(text(support::visit(&service, "/", &mut Jar::new()).await).await, "");
            }
        }
        let tokens: std::collections::BTreeSet<_> = jars.iter().map(|jar| jar.get(NAME).unwrap()).collect();
        assert_eq!(tokens.len(), jars.len());
    });
}

#[test]
fn t38_requests_that_interleave_keep_apart() {
    on_both(|_, world| async move {
        let (store, jars) = (Arc::clone(&world.store), [world.jar().await, Jar::new(), world.jar().await]);
        let barrier = Arc::new(tokio::sync::Barrier::new(jars.len()));
        let service = Arc::new(session_fn(store, move |request: Request<Body>, handle: SessionHandle| {
            let barrier = Arc::clone(&barrier);
            async move {
                let session = handle.load().await?;
                session.set("who", request.uri().path())?;
                barrier.wait().await;
                let seen = format!("{:?} {:?}", session.get::<String>("a")?, session.get::<String>("who")?);
                Ok::<_, Error>(Response::new(Body::from(seen)))
            }
        }));
        let visits = jars.iter().enumerate().map(|(user, jar)| {
            let request = request(&format!("/{user}"), jar.header().as_deref());
            tokio::spawn(service.call(request))
        });
        for (user, visit) in visits.collect::<Vec<_>>().into_iter().enumerate() {
            let a = if user == 1 { None } else { Some(VALUE) };
            let response = visit.await.unwrap().unwrap();
            assert_eq!(text(response).await, format!("{a:?} {:?}", Some(format!("/{user}"))));
        }
    });
}
