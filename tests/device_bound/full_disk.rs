//! A disk that is full: what is stored is bound or not, and no browser is told to end a binding.

use std::fs;
use std::sync::Arc;

use hyper_session::store::Store;
use hyper_session::testing::FakeClock;
use hyper_session::{CookieStore, DeviceBound, Revocations, SqliteStore};

use crate::browser::Browser;
use crate::device::Offer;
use crate::site::{BOUND, Events, GRACE, LIFETIME, START, Site, block_on, key, observer};
use crate::small_disk::SmallDisk;
use crate::support::UNHURRIED;

/// A site whose sessions are on this disk, or whose revocations are.
async fn site(disk: &SmallDisk, in_cookies: bool) -> Site {
    let (clock, events) = (FakeClock::at(START), Events::default());
    let store: Arc<dyn Store> = if in_cookies {
        let revocations = Revocations::sqlite(disk.0.file()).await.unwrap().max_staleness(UNHURRIED);
        let builder = CookieStore::builder(key()).revocations(revocations);
        let builder = builder.clock(clock.clone()).observer(observer(&events));
        Arc::new(builder.device_bound(DeviceBound::new()).build().unwrap())
    } else {
        let builder = SqliteStore::builder(disk.0.file()).busy_timeout(UNHURRIED);
        let builder = builder.clock(clock.clone()).observer(observer(&events));
        Arc::new(builder.device_bound(DeviceBound::new().keys(key())).open().unwrap())
    };
    let kind = if in_cookies { "cookies, revoked in SQLite" } else { "SQLite" };
    Site { kind, store, clock, events, place: None }
}

/// How many browsers log in before the disk is full.
const COUNT: usize = 20;

#[test]
fn a_full_disk_loses_no_session_and_ends_no_binding() {
    for in_cookies in [false, true] {
        let Some(disk) = SmallDisk::mount() else { return };
        block_on(async {
            let site = site(&disk, in_cookies).await;
            let mut bound = Browser::new();
            bound.bind(&site).await;
            let mut waiting: Vec<(Browser, Offer)> = Vec::new();
            for _ in 0..COUNT {
                let mut browser = Browser::new();
                let offer = browser.log_in(&site).await;
                waiting.push((browser, offer));
            }
            disk.leave(0);
            site.events();
            let mut refused = Vec::new();
            for (mut browser, offer) in waiting {
                let response = browser.register(&site, &offer).await;
                match response.status().as_u16() {
                    // There was room in the pages that the file has.
                    200 => browser.obey(response).await,
                    status => {
                        assert_eq!(status, 503, "{}", site.kind);
                        assert_eq!(response.headers()["retry-after"], "1");
                        assert_eq!(browser.cookies.get(BOUND), None);
                        refused.push(browser);
                        continue;
                    }
                }
                assert_eq!(browser.read(&site, "/").await, "ada bound 0", "{}", site.kind);
            }
            println!("{}: {} of {COUNT} registrations were refused", site.kind, refused.len());
            assert!(!refused.is_empty(), "{}", site.kind);
            for browser in &mut refused {
                assert_eq!(browser.read(&site, "/").await, "ada unbound 0", "{}: it goes on", site.kind);
            }

            // A refresh writes nothing.
            site.clock.advance(LIFETIME);
            assert_eq!(bound.refresh(&site).await, 200, "{}", site.kind);
            assert_eq!(bound.read(&site, "/").await, "ada bound 0", "{}", site.kind);

            // When there is room, the next login or renewal offers it again.
            fs::remove_file(disk.ballast()).unwrap();
            for browser in &mut refused {
                browser.bind(&site).await;
                site.clock.advance(GRACE);
                assert_eq!(browser.read(&site, "/").await, "ada bound 0", "{}", site.kind);
            }
        });
    }
}
