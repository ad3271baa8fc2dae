//! The binder: challenges, the grace of a new binding, and the paths that are answered.

use super::*;
use crate::cookie::{CookieFinder, CookieOptions, MAX_CANDIDATES};
use crate::crypto::AppKey;
use crate::device_bound::challenge::{self, WINDOW};

const NOW: Timestamp = Timestamp::from_unix(1_800_000_000);

fn binder(seed: &[u8], name: &str) -> Binder {
    let keys = Keyring::new(AppKey::danger_from_any_bytes(seed).unwrap());
    let cookie = CookieOptions::new().name(name).validate().unwrap();
    Binder::new(DeviceBound::new(), Some(&keys), &cookie).unwrap()
}

/// The cookies of a session with the name `s` in these fields.
fn found(fields: &[HeaderValue]) -> FoundCookies {
    let mut finder = CookieFinder::new(&CookieName::new("s").unwrap());
    finder.find_companions(&Binder::COOKIES);
    finder.find(fields)
}

fn challenge(binder: &Binder, issued_for: IssuedFor, issued: Timestamp) -> String {
    Challenge { issued_for, issued }.seal(&binder.keys.challenges).unwrap()
}

#[test]
fn challenges_are_of_one_store_and_one_cookie() {
    let one = binder(b"one", "s");
    let [registration, text] =
        [IssuedFor::Registration([7; 16]), IssuedFor::Refresh([7; 16])].map(|issued_for| {
            let text = challenge(&one, issued_for, NOW);
            assert_eq!(text.len(), challenge::MAX_LEN);
            let opened = Challenge::open(&text, &one.keys.challenges).unwrap();
            assert_eq!(opened, Challenge { issued_for, issued: NOW });
            text
        });
    assert_ne!(registration, text);
    for other in [binder(b"two", "s"), binder(b"one", "t")] {
        assert_eq!(Challenge::open(&text, &other.keys.challenges), None);
    }
    for bad in ["", &text[1..], &format!("{text}A")] {
        assert_eq!(Challenge::open(bad, &one.keys.challenges), None);
    }
}

#[test]
fn a_challenge_is_fresh_for_five_minutes_and_clocks_may_differ_by_as_much() {
    let challenge = Challenge { issued_for: IssuedFor::Refresh([7; 16]), issued: NOW };
    let at = |seconds: i64| Timestamp::from_unix(NOW.as_unix().checked_add_signed(seconds).unwrap());
    for (seconds, age) in [
        (-86_400, Age::Ahead),
        (-300, Age::Ahead),
        (-299, Age::Fresh),
        (0, Age::Fresh),
        (299, Age::Fresh),
        (300, Age::Old),
        (86_400, Age::Old),
    ] {
        assert_eq!(challenge.age(at(seconds)), age, "{seconds}");
    }
    assert_eq!(challenge.end(), at(300));
    assert!(Duration::from_secs(WINDOW) <= SHORTEST_LIFETIME, "a proof is worth a cookie");
}

#[test]
fn a_device_is_present_in_the_grace_and_while_its_cookie_lasts() {
    let binder = binder(b"one", "s");
    let binding = DeviceBinding { key: PublicKey::of(true, &[7; 32]), since: NOW };
    let lines = binder.set_cookie(&binding.key, NOW, NOW).unwrap();
    let cookie = lines[0].to_str().unwrap().split(';').next().unwrap().to_owned();
    let cookie = HeaderValue::from_str(&cookie).unwrap();
    let other = HeaderValue::from_static("s=x; s.bound=y");
    let at = |seconds: u64| NOW.saturating_add(Duration::from_secs(seconds));
    let is_present =
        |fields: &[HeaderValue], seconds| binder.is_present(&binding, &found(fields), &[], None, at(seconds));
    let both = [other.clone(), cookie.clone()];
    for (seconds, with, without) in
        [(0, true, true), (59, true, true), (60, true, false), (599, true, false), (600, false, false)]
    {
        assert_eq!(is_present(std::slice::from_ref(&cookie), seconds), with, "{seconds}");
        assert_eq!(is_present(std::slice::from_ref(&other), seconds), without, "{seconds}");
        // In another field, as HTTP/2 may send it, and after another cookie of the name.
        assert_eq!(is_present(&both, seconds), with, "{seconds}");
    }
}

#[test]
fn a_binding_is_new_for_five_minutes_by_whichever_clock() {
    let binding = DeviceBinding { key: PublicKey::of(true, &[7; 32]), since: NOW };
    for (seconds, expected) in [(0, true), (299, true), (300, false), (86_400, false)] {
        let times = [NOW.as_unix() - seconds, NOW.as_unix() + seconds].map(Timestamp::from_unix);
        assert_eq!(times.map(|now| Binder::is_new(&binding, now)), [expected; 2], "{seconds}");
    }
}

/// The cookie is named `s`, and was named `old` and `older`.
fn renamed() -> Binder {
    let keys = Keyring::new(AppKey::danger_from_any_bytes(b"one").unwrap());
    let cookie = CookieOptions::new().name("s").retired_name("old").retired_name("older");
    Binder::new(DeviceBound::new(), Some(&keys), &cookie.validate().unwrap()).unwrap()
}

#[test]
fn a_bound_cookie_may_count_until_its_end_if_its_key_is_known() {
    let (renamed, key) = (renamed(), PublicKey::of(true, &[7; 32]));
    let field = |seed, name| {
        let value = bound_cookie::write(&binder(seed, name).keys.tagger, &key, NOW).unwrap();
        HeaderValue::try_from(format!("s.bound={value}")).unwrap()
    };
    let before = Timestamp::from_unix(NOW.as_unix() - 1);
    let shapeless = HeaderValue::try_from(format!("s.bound={}", "A".repeat(56))).unwrap();
    // The id of a key does not depend on the name.
    for (fields, expected) in [
        (vec![field(b"one", "s")], true),
        (vec![field(b"one", "older")], true),
        (vec![shapeless.clone(), field(b"one", "s")], true),
        (vec![shapeless], false),
        (vec![field(b"two", "s")], false),
        (vec![HeaderValue::from_static("s=x; s.bound=x; s.retry=1")], false),
        (vec![], false),
    ] {
        for (now, expected) in [(before, expected), (NOW, false)] {
            assert_eq!(renamed.may_count(&found(&fields), &[], now), expected, "{fields:?}");
            // As those of the second retired name.
            let retired = [found(&[]), found(&fields)];
            assert_eq!(renamed.may_count(&found(&[]), &retired, now), expected, "{fields:?}");
        }
        // Whatever its end.
        assert_eq!(renamed.has_known_key(&found(&fields), &[]), expected, "{fields:?}");
        assert_eq!(renamed.has_known_key(&found(&[]), &[found(&[]), found(&fields)]), expected, "{fields:?}");
    }
}

#[test]
fn a_bound_cookie_is_of_the_device_whose_key_its_tag_covers_whatever_its_end() {
    let (renamed, key, other) = (renamed(), PublicKey::of(true, &[7; 32]), PublicKey::of(false, &[7; 32]));
    let binding = DeviceBinding { key, since: NOW };
    let field = |name, key| {
        let value = bound_cookie::write(&binder(b"one", name).keys.tagger, key, NOW).unwrap();
        HeaderValue::try_from(format!("s.bound={value}")).unwrap()
    };
    for (name, place) in [("s", None), ("old", Some(0)), ("older", Some(1))] {
        for (of, expected) in [(&key, true), (&other, false)] {
            let fields = [field(name, of)];
            let mut cookies = [found(&[]), found(&[]), found(&[])];
            cookies[place.map_or(0, |place| place + 1)] = found(&fields);
            let [present, retired @ ..] = &cookies;
            assert_eq!(renamed.has_cookie_of(&binding, present, retired), expected, "{name}");
        }
    }
}

#[test]
fn challenges_of_retired_names_are_opened() {
    let (renamed, issued_for) = (renamed(), IssuedFor::Refresh([7; 16]));
    for (name, is_known) in [("s", true), ("old", true), ("older", true), ("other", false)] {
        let text = challenge(&binder(b"one", name), issued_for, NOW);
        assert_eq!(renamed.open(&text).is_some(), is_known, "{name}");
        assert_eq!(renamed.open(&challenge(&binder(b"two", name), issued_for, NOW)), None, "{name}");
    }
}

#[test]
fn only_bound_cookies_that_could_be_genuine_count_among_those_that_are_tried() {
    let binder = binder(b"one", "s");
    let [key, other] = [7, 8].map(|byte| PublicKey::of(true, &[byte; 32]));
    let binding = DeviceBinding { key, since: NOW };
    let until = |seconds| NOW.saturating_add(Duration::from_secs(seconds));
    let write = |key, seconds| bound_cookie::write(&binder.keys.tagger, key, until(seconds)).unwrap();
    let field = |value: &str| HeaderValue::try_from(format!("s.bound={value}")).unwrap();
    let genuine = field(&write(&key, 600));
    let is_present =
        |fields: Vec<HeaderValue>| binder.is_present(&binding, &found(&fields), &[], None, until(300));
    let foreign = bound_cookie::write(&self::binder(b"two", "s").keys.tagger, &key, until(600)).unwrap();
    for (planted, what) in [
        (field("x"), "its form"),
        (field(&"A".repeat(56)), "its version"),
        (field(&foreign), "the id of its key"),
        (field(&write(&key, 300)), "its end"),
        (field(&write(&other, 600)), "of another device, each time the same"),
    ] {
        for count in [4, 40, 63] {
            let mut fields = vec![planted.clone(); count];
            fields.push(genuine.clone());
            assert!(is_present(fields), "{what} {count}");
        }
    }
    // The number of tags that are checked is limited, as that of a session's cookies.
    for (forged, expected) in [(MAX_CANDIDATES - 1, true), (MAX_CANDIDATES, false)] {
        let mut fields: Vec<_> = (0..forged as u64).map(|n| field(&write(&other, 400 + n))).collect();
        fields.push(genuine.clone());
        assert_eq!(is_present(fields), expected, "{forged}");
    }
}

#[test]
fn what_cannot_be_a_companion_does_not_count_as_one() {
    let [absent, present] = [
        ["s.bound=x", "s.bound=", "s.retry=3", "s.retry="],
        ["s.bound=", "s.bound=", "s.retry=1", "s.retry=2"],
    ];
    for field in absent {
        let found = found(&[HeaderValue::from_static(field)]);
        assert!(!Binder::has_cookie(&found) && !Binder::was_asked(&found), "{field}");
    }
    // Those of another key, which another host has, and of a later version.
    for (at, field) in present.into_iter().enumerate() {
        let value = match at {
            0 => "A".repeat(56),
            1 => format!("Ag{}", "B".repeat(53) + "A"),
            _ => String::new(),
        };
        let found = found(&[HeaderValue::try_from(format!("{field}{value}")).unwrap()]);
        assert_eq!(
            (Binder::has_cookie(&found), Binder::was_asked(&found)),
            (at < 2, at >= 2),
            "{field}{value}"
        );
    }
}

#[test]
fn binders_share_paths_whether_they_offer_or_accept_them() {
    let keys = Keyring::new(AppKey::danger_from_any_bytes(b"one").unwrap());
    let cookie = CookieOptions::new().name("s").validate().unwrap();
    let with = |options| Binder::new(options, Some(&keys), &cookie).unwrap();
    let [one, both, two] = [
        DeviceBound::new().path("/one"),
        DeviceBound::new().path("/two").accept_path("/one/"),
        DeviceBound::new().path("/two"),
    ]
    .map(with);
    for (first, second, expected) in [(&one, &both, true), (&both, &two, true), (&one, &two, false)] {
        assert_eq!((first.shares_paths(second), second.shares_paths(first)), (expected, expected));
    }
}

#[test]
fn identifiers_differ_by_key_and_begin_with_a_letter() {
    let (one, two) = (PublicKey::of(true, &[7; 32]), PublicKey::of(false, &[7; 32]));
    assert_ne!(binding_id(&one), binding_id(&two));
    for id in [binding_id(&one), binding_id(&two)] {
        let text = identifier_of(id);
        assert!(text.starts_with('b') && text.len() == MAX_IDENTIFIER);
    }
}

#[test]
fn three_paths_are_answered_each_for_one_method() {
    let binder = binder(b"one", "s");
    for (name, expected, endpoint) in [
        ("register", Method::POST, Endpoint::Register),
        ("refresh", Method::POST, Endpoint::Refresh),
        ("present", Method::GET, Endpoint::Present),
    ] {
        for method in [Method::GET, Method::POST, Method::HEAD, Method::PUT] {
            let answered = binder.endpoint(&method, &format!("/device-bound/{name}"));
            assert_eq!(answered, (method == expected).then_some(endpoint), "{method} {name}");
        }
    }
    for path in ["/", "/device-bound", "/device-bound/", "/device-bound/register/", "/device-bound//refresh"]
    {
        assert_eq!(binder.endpoint(&Method::POST, path), None, "{path}");
    }
}

#[test]
fn accepted_paths_are_answered_and_not_offered() {
    let keys = Keyring::new(AppKey::danger_from_any_bytes(b"one").unwrap());
    let cookie = CookieOptions::new().name("s").validate().unwrap();
    let options = DeviceBound::new().path("/new").accept_path("/old/").accept_path("/older");
    let binder = Binder::new(options, Some(&keys), &cookie).unwrap();
    for path in ["/new", "/old", "/older"] {
        let post = |name| binder.endpoint(&Method::POST, &format!("{path}/{name}"));
        assert_eq!(post("register"), Some(Endpoint::Register), "{path}");
        assert_eq!(post("refresh"), Some(Endpoint::Refresh), "{path}");
    }
    assert_eq!(binder.endpoint(&Method::POST, "/device-bound/refresh"), None);
    let offer = binder.offer(SessionId::from_bytes([7; 16]), NOW).unwrap();
    assert!(offer.to_str().unwrap().starts_with("(ES256);path=\"/new/register\";"));
    let instructions = binder.instructions(&PublicKey::of(true, &[7; 32]));
    assert!(instructions.contains("\"refresh_url\":\"/new/refresh\""), "{instructions}");
}
