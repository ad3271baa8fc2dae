//! Secrets that must not leak into rows, commands, logs or debug output.

use std::sync::{Arc, Mutex};

use base64::prelude::{BASE64_URL_SAFE_NO_PAD as BASE64, Engine};
use http::{Request, Response};
use hyper::service::service_fn;
use hyper_session::__internals::Verbs;
use hyper_session::store::Store;
use hyper_session::{
    AppKey, CookieStore, Error, Event, Keyring, ServerStore, SessionExt, SessionHandle, SessionService,
    session_fn,
};

use crate::attack_fixture::{NAME, Options, Rows, START, VALUE};
use crate::support::{self, Body, Jar, block_on, request, status};

#[test]
fn t06_t74_no_row_and_no_command_holds_what_a_client_holds() {
    block_on(async {
        let rows = Rows::default();
        let world = Options::default().over(&rows);
        let token = world.token().await;
        let secret = BASE64.decode(&token).unwrap();
        let (id, value) = rows.with(|table| {
            assert!(table.fetched.iter().all(|id| table.rows.contains_key(id)));
            table.rows.iter().next().map(|(id, stored)| (*id, stored.value.clone())).unwrap()
        });
        let contains =
            |haystack: &[u8], needle: &[u8]| haystack.windows(needle.len()).any(|window| window == needle);
        for part in secret.chunks(8) {
            assert!(!contains(&value, part) && !contains(&id.to_bytes(), part));
        }
        assert!(!contains(&value, token.as_bytes()));
        // An attacker who dumps the rows cannot log in with anything in them.
        let dumped = [
            BASE64.encode(id.to_bytes()),
            id.to_string(),
            BASE64.encode(&value),
            BASE64.encode([&value, &value[..4]].concat()),
        ];
        for stolen in dumped
            .iter()
            .map(String::as_str)
            .chain([&*BASE64.encode([id.to_bytes(), id.to_bytes()].concat())])
        {
            assert_eq!(world.value(&Jar::with(NAME, stolen)).await, None);
        }
    });
}

#[test]
fn t76_a_row_holds_what_was_set_and_nothing_of_the_request() {
    block_on(async {
        let rows = Rows::default();
        let world = Options::default().over(&rows);
        let mut request = request("/secret-path?secret-query", Some("other=secret-cookie"));
        for name in ["authorization", "user-agent", "x-forwarded-for", "referer"] {
            request.headers_mut().insert(name, "secret-header".parse().unwrap());
        }
        world.send(request, |session| session.set("a", "b").map(|()| status(200))).await;
        // Kind, when it began, how old it is, its lifetime, eight random bytes, and the map {"a": "b"}.
        let row = rows.only_value();
        assert_eq!(row[..10], [&[1][..], &START.to_be_bytes()[3..], &[0; 4]].concat());
        assert_eq!(row[10..14], u32::try_from(crate::attack_fixture::IDLE).unwrap().to_be_bytes());
        assert_eq!(row[22..], *b"\x81\xa1a\xa1b");
    });
}

/// Everything that can be printed, printed.
#[test]
fn t75_t77_nothing_that_is_printed_shows_a_key_a_token_or_a_value() {
    let key = AppKey::generate().unwrap();
    let key_text = key.to_text().to_string();
    let key_bytes = BASE64.decode(&key_text["hsk1_".len()..]).unwrap();
    let printed =
        Arc::new(Mutex::new(vec![format!("{key:?} {:?}", Keyring::new(key_text.parse().unwrap()))]));
    let print = |text: String| printed.lock().unwrap().push(text);
    let sink = Arc::clone(&printed);
    let observer = move |event: &Event<'_>| sink.lock().unwrap().push(format!("{event:?}"));
    let mut secrets =
        vec![VALUE.to_owned(), key_text["hsk1_".len()..].to_owned(), format!("{:?}", &key_bytes[..4])];

    block_on(async {
        let rows = Rows::default();
        let sealed = CookieStore::builder(key).observer(observer.clone());
        print(format!("{sealed:?}"));
        let sealed = sealed.build().unwrap();
        let server = ServerStore::with_backend(rows.clone()).observer(observer).build().unwrap();
        print(format!("{sealed:?} {server:?} {sealed:#?} {server:#?} {:?}", server.config()));
        let stores: [Arc<dyn Store>; 2] = [Arc::new(sealed), Arc::new(server)];
        for store in stores {
            let mut jar = Jar::new();
            for _ in 0..2 {
                let sink = Arc::clone(&printed);
                let handler = move |request: Request<Body>, handle: SessionHandle| {
                    let sink = Arc::clone(&sink);
                    async move {
                        let session = handle.load().await?;
                        session.set("a", VALUE)?;
                        session.set_flash("f", VALUE)?;
                        let error = session.get::<u64>("a").unwrap_err();
                        let printed = format!(
                            "{handle:?} {session:?} {session:#?} {error} {error:?} {:?}",
                            session.id()
                        );
                        sink.lock().unwrap().extend([printed, format!("{:?}", request.extensions())]);
                        session.save().await?;
                        Ok::<_, Error>(status(200))
                    }
                };
                let service = session_fn(Arc::clone(&store), handler);
                print(format!("{service:?}"));
                let response = support::visit(&service, "/", &mut jar).await;
                print(format!("{:?}", response.headers()));
            }
            // Refusals tell why, and not what.
            let token = jar.get(NAME).unwrap().to_owned();
            let handler = service_fn(|request: Request<Body>| async move {
                request.session().await.map(|session| Response::new(Body::from(format!("{session:?}"))))
            });
            let service = SessionService::new(handler, store);
            let mut altered = Jar::with(NAME, &format!("{token}AAAA"));
            print(format!("{:?}", support::visit(&service, "/", &mut altered).await));
            let decoded = BASE64.decode(&token).unwrap();
            secrets.extend([token[..16].to_owned(), token[token.len() - 16..].to_owned()]);
            secrets.push(format!("{:?}", &decoded[decoded.len() - 8..]));
        }
        rows.with(|table| print(format!("{:?}", table.rows)));
    });

    let printed = printed.lock().unwrap();
    assert!(printed.len() > 12 && printed.iter().any(|line| line.contains("Refused")), "{printed:?}");
    for secret in &secrets {
        let secret = secret.trim_matches(['[', ']']);
        for line in printed.iter() {
            assert!(!line.contains(secret), "{secret} in {line}");
        }
    }
    assert_eq!(secrets.len(), 9);
}
