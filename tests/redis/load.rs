//! A load of requests on many sessions, and the book that is kept on what each of them must hold.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

use hyper::service::Service;
use hyper_session::{Error, RedisStore, SessionHandle, session_fn};

use crate::server::PATIENCE;
use crate::support::{Body, Jar, request};

/// A client's view of its session: how often counting was confirmed, and how often it may have happened unconfirmed.
#[derive(Debug, Default)]
pub(crate) struct Book {
    pub(crate) jar: Jar,
    pub(crate) confirmed: u64,
    pub(crate) unknown: u64,
    pub(crate) ended: bool,
}

/// Clients that count in their sessions and now and then log out and in again, until they are told to stop.
pub(crate) struct Load {
    stop: Arc<AtomicBool>,
    done: Arc<AtomicU64>,
    failed: Arc<AtomicU64>,
    clients: Vec<tokio::task::JoinHandle<Vec<Book>>>,
}

impl Load {
    pub(crate) fn start(store: &RedisStore, clients: usize) -> Self {
        let (stop, done, failed): (Arc<AtomicBool>, Arc<AtomicU64>, Arc<AtomicU64>) = Default::default();
        let clients = (0..clients)
            .map(|_| {
                let client = client(store.clone(), Arc::clone(&stop), Arc::clone(&done), Arc::clone(&failed));
                tokio::spawn(client)
            })
            .collect();
        Self { stop, done, failed, clients }
    }

    /// How many requests succeeded so far.
    pub(crate) fn successes(&self) -> u64 {
        self.done.load(Ordering::SeqCst)
    }

    pub(crate) fn failures(&self) -> u64 {
        self.failed.load(Ordering::SeqCst)
    }

    /// Stops, and hands out every session that there ever was.
    pub(crate) async fn stop(self) -> Vec<Book> {
        self.stop.store(true, Ordering::SeqCst);
        let mut books = Vec::new();
        for client in self.clients {
            books.extend(client.await.unwrap());
        }
        books
    }
}

async fn client(
    store: RedisStore,
    stop: Arc<AtomicBool>,
    done: Arc<AtomicU64>,
    failed: Arc<AtomicU64>,
) -> Vec<Book> {
    let (mut books, mut book) = (Vec::new(), Book::default());
    for turn in 1.. {
        if stop.load(Ordering::SeqCst) {
            break;
        }
        let logout = turn % 10 == 0 && book.confirmed > 0;
        let before = book.jar.0.is_empty();
        let outcome =
            if logout { end(&store, &mut book.jar).await } else { count(&store, &mut book.jar).await };
        match outcome {
            Ok(()) if logout => {
                done.fetch_add(1, Ordering::SeqCst);
                book.ended = true;
                books.push(std::mem::take(&mut book));
            }
            Ok(()) => {
                done.fetch_add(1, Ordering::SeqCst);
                book.confirmed += 1;
            }
            Err(error) => {
                assert!(error.is_unavailable(), "{error:?}");
                failed.fetch_add(1, Ordering::SeqCst);
                if logout {
                    // Ended or not: a client without a confirmation cannot rely on either.
                    book = Book::default();
                } else if !before {
                    book.unknown += 1;
                }
                // As a person would: not again at once.
                tokio::time::sleep(std::time::Duration::from_millis(20)).await;
            }
        }
    }
    books.push(book);
    books
}

/// One request that adds one to the session's count.
pub(crate) async fn count(store: &RedisStore, jar: &mut Jar) -> Result<(), Error> {
    handle(store, jar, |session| session.update("n", |n: Option<u64>| n.unwrap_or(0) + 1).map(drop)).await
}

/// One request that ends the session.
pub(crate) async fn end(store: &RedisStore, jar: &mut Jar) -> Result<(), Error> {
    let sent = jar.clone();
    let ended = handle(store, jar, hyper_session::Session::destroy).await;
    // The book keeps the token: it must no longer work.
    *jar = sent;
    ended
}

/// Returns the count of the session behind the jar; `None` if there is no session.
pub(crate) async fn counted(store: &RedisStore, jar: &Jar) -> Result<Option<u64>, Error> {
    let service = session_fn(store.clone(), |_: http::Request<Body>, session: SessionHandle| async move {
        let count: Option<u64> = session.load().await?.get("n")?;
        let body = count.map_or(String::new(), |count| count.to_string());
        Ok::<_, Error>(http::Response::new(Body::from(body)))
    });
    let response = service.call(request("/", jar.header().as_deref())).await?;
    let body = http_body_util::BodyExt::collect(response.into_body()).await.unwrap().to_bytes();
    Ok(std::str::from_utf8(&body).unwrap().parse().ok())
}

async fn handle<F>(store: &RedisStore, jar: &mut Jar, change: F) -> Result<(), Error>
where
    F: Fn(&hyper_session::Session) -> Result<(), Error> + Send + Sync + 'static,
{
    let change = Arc::new(change);
    let service = session_fn(store.clone(), move |_: http::Request<Body>, session: SessionHandle| {
        let change = Arc::clone(&change);
        async move {
            change(&session.load().await?)?;
            Ok::<_, Error>(http::Response::new(Body::default()))
        }
    });
    let response = service.call(request("/", jar.header().as_deref())).await?;
    if response.status() == http::StatusCode::SERVICE_UNAVAILABLE {
        assert!(!response.headers().contains_key("set-cookie"), "no cookie before the store has confirmed");
        return Err(Error::unavailable("503"));
    }
    jar.store(response.headers());
    Ok(())
}

/// Holds every session against its book: nothing lost, nothing doubled, nothing that was ended there again.
pub(crate) async fn audit(store: &RedisStore, books: &[Book]) {
    for book in books.iter().filter(|book| !book.jar.0.is_empty()) {
        let start = Instant::now();
        // A store with short deadlines may miss one on a busy machine.
        let counted = loop {
            match counted(store, &book.jar).await {
                Ok(counted) => break counted,
                Err(error) => assert!(start.elapsed() < PATIENCE, "{error:?}"),
            }
        };
        if book.ended {
            assert_eq!(counted, None, "an ended session is served: {book:?}");
        } else {
            let counted = counted.unwrap_or_else(|| panic!("a session is lost: {book:?}"));
            let possible = book.confirmed..=book.confirmed + book.unknown;
            assert!(possible.contains(&counted), "{counted} is not in {possible:?}: {book:?}");
        }
    }
}
