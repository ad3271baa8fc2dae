//! Options that fit together, and options that do not.

use std::time::Duration;

use hyper_session::cookie::CookieOptions;
#[cfg(feature = "astra")]
use hyper_session::{AppKey, Timestamp};
use hyper_session::{CookieStore, DeviceBound, MemoryStore};

use crate::site::key;

fn why(cookie: CookieOptions, options: DeviceBound) -> String {
    CookieStore::builder(key()).cookie(cookie).device_bound(options).build().unwrap_err().to_string()
}

#[test]
fn cookies_that_browsers_do_not_bind_are_refused() {
    let shared = CookieOptions::new().name("__Secure-s").domain("example.com");
    assert!(why(shared, DeviceBound::new()).contains("one host"));
    let embedded = CookieOptions::new().partitioned(true).same_site(hyper_session::cookie::SameSite::None);
    assert!(why(embedded, DeviceBound::new()).contains("partitioned"));
    assert!(why(CookieOptions::development(), DeviceBound::new()).contains("https"));
    assert!(why(CookieOptions::new().name("__Host-Http-s"), DeviceBound::new()).contains("prefix"));
}

#[test]
fn lifetimes_and_paths_are_checked() {
    let cookie = || CookieOptions::new().name("s");
    for seconds in [0, 299, 24 * 3600 + 1] {
        let options = DeviceBound::new().lifetime(Duration::from_secs(seconds));
        assert!(why(cookie(), options).contains("lifetime()"), "{seconds}");
    }
    for seconds in [300, 24 * 3600] {
        let options = DeviceBound::new().lifetime(Duration::from_secs(seconds));
        assert!(CookieStore::builder(key()).device_bound(options).build().is_ok(), "{seconds}");
    }
    let characters =
        ["/a b", "/a?b", "/a#b", "/a\"b", "/\u{e9}", "/a\nb", "/{tenant}/device", "/a|b", "/a^b", "/a`b"];
    // Browsers take the first for another host, and resolve the others.
    let changed = ["//device", "/a/../b", "/./a", "/a/.", "/a/%2e%2E/b", "/.%2e/b", "/a/%2E"];
    for path in ["", "device"].into_iter().chain(characters).chain(changed) {
        assert!(why(cookie(), DeviceBound::new().path(path)).contains("path()"), "{path:?}");
        assert!(why(cookie(), DeviceBound::new().accept_path(path)).contains("accept_path()"), "{path:?}");
    }
    for path in
        ["/", "/device/", "/a//b", "/.well-known/device", "/a.b/c..d", "/...", "/%2e%2e%2e", "/~a/@b/c=d&e"]
    {
        let options = DeviceBound::new().path(path).accept_path("/x");
        assert!(CookieStore::builder(key()).device_bound(options).build().is_ok(), "{path}");
    }
    let error = why(cookie().path("/app"), DeviceBound::new());
    assert!(error.contains("within the path"), "{error}");
    let error = why(cookie().path("/app"), DeviceBound::new().path("/app/device").accept_path("/device"));
    assert!(error.contains("within the path"), "{error}");
    let fits = CookieStore::builder(key()).cookie(cookie().path("/app"));
    assert!(fits.device_bound(DeviceBound::new().path("/app/device/")).build().is_ok());
}

// Each would replace the other in the browser.
#[test]
fn a_session_in_a_cookie_that_the_option_sets_is_refused() {
    for (name, retired, taken) in [
        ("s", "s.bound", "s.bound"),
        ("s", "s.retry", "s.retry"),
        ("s.bound", "s", "s.bound"),
        ("s.retry", "s", "s.retry"),
    ] {
        let error = why(CookieOptions::new().name(name).retired_name(retired), DeviceBound::new());
        assert!(error.contains(&format!("named \"{taken}\"")), "{error}");
    }
    let linked = |name: &str| {
        let builder = MemoryStore::builder().cookie(CookieOptions::new().name("s")).linked_cookie(name);
        builder.device_bound(DeviceBound::new().keys(key())).build()
    };
    assert!(linked("s.bound").unwrap_err().to_string().contains("linked_cookie()"));
    assert!(linked("t.bound").is_ok());
    let fits = CookieOptions::new().name("s").retired_name("t").retired_name("u.bound");
    assert!(CookieStore::builder(key()).cookie(fits).device_bound(DeviceBound::new()).build().is_ok());
}

#[test]
fn a_server_side_store_needs_a_key() {
    let error = MemoryStore::builder().device_bound(DeviceBound::new()).build().unwrap_err();
    assert!(error.is_config() && error.to_string().contains("keys()"), "{error}");
    assert!(MemoryStore::builder().seal_records(key()).device_bound(DeviceBound::new()).build().is_ok());
    assert!(MemoryStore::builder().device_bound(DeviceBound::new().keys(key())).build().is_ok());
}

// Astra would accept a bound session without its device, and its cookies cannot be revoked.
#[cfg(feature = "astra")]
#[test]
fn sessions_that_are_shared_with_astra_cannot_be_bound() {
    let astra = || AppKey::danger_from_any_bytes(b"key of Astra").unwrap();
    let cookie = CookieOptions::astra;
    let until = Timestamp::from_unix(1_900_000_000);
    let options = DeviceBound::new;
    let in_cookies = || CookieStore::builder(key()).cookie(cookie()).device_bound(options());
    let errors = [
        in_cookies().beside_astra(astra()).build().unwrap_err(),
        in_cookies().migrate_from_astra(astra(), until).build().unwrap_err(),
        MemoryStore::builder()
            .cookie(cookie())
            .beside_astra()
            .device_bound(options().keys(key()))
            .build()
            .unwrap_err(),
    ];
    for error in errors {
        assert!(error.is_config() && error.to_string().contains("methods for Astra"), "{error}");
    }
    // A migration between two stores ends in one that binds.
    let old = MemoryStore::builder().cookie(cookie()).beside_astra().build().unwrap();
    let new = MemoryStore::builder().cookie(cookie()).device_bound(options().keys(key())).build().unwrap();
    assert!(hyper_session::store::MigratingStore::new(new, old, until).is_ok());
}
