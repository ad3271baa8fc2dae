//! Tests of the options: the defaults, the combinations that are refused, and when a session is renewed.

use http::header::COOKIE;

use super::*;
use crate::__internals::{candidates, set_cookie};
use crate::clock::TestClock;
use crate::session::Record;

fn config(change: impl Fn(&mut Options)) -> Result<Config, Error> {
    let mut options = Options::default();
    change(&mut options);
    options.validate()
}

#[test]
fn impossible_timeouts_say_what_to_change() {
    let seconds = Duration::from_secs;
    let why = |change: &dyn Fn(&mut Options)| config(change).unwrap_err().to_string();
    assert!(why(&|o| o.idle = Duration::ZERO).contains("second"));
    assert!(why(&|o| (o.idle, o.absolute) = (seconds(9), Some(seconds(8)))).contains("absolute_timeout()"));
    assert!(why(&|o| o.renewal = Some(seconds(86_400))).contains("renewal_threshold()"));
    assert!(config(|o| o.renewal = Some(Duration::ZERO)).is_ok());
}

// The absolute timeout is too short for the idle timeout, too, but no idle timeout is short enough for it.
#[test]
fn a_max_age_that_removes_the_cookie_is_named_as_such() {
    let error = config(|o| o.cookie = CookieOptions::new().max_age(Duration::from_millis(999))).unwrap_err();
    assert!(error.to_string().contains("removes the cookie"), "{error}");
}

#[test]
fn timeouts_of_one_second_are_the_shortest() {
    let second = Duration::from_secs(1);
    let one = config(|o| (o.idle, o.absolute, o.renewal) = (second, Some(second), None)).unwrap();
    assert_eq!((one.timeouts().idle, one.timeouts().absolute), (second, second));
    assert!(config(|o| (o.idle, o.absolute) = (second, Some(Duration::from_millis(999)))).is_err());
}

// A renewal that gains nothing is not made, not even with a threshold of zero.
#[test]
fn renewal_is_due_when_the_threshold_can_be_gained() {
    use crate::session::{Origin, Payload, SessionId};
    let at = Timestamp::from_unix;
    let id = SessionId::from_bytes([0; 16]);
    let record = |expires| Record::new(id, at(0), at(expires), Payload::default(), Origin::native(false));
    let seconds = Duration::from_secs;
    let timeouts =
        |renewal| Timeouts { idle: seconds(100), absolute: seconds(150), renewal: seconds(renewal) };
    let due = |renewal, record: &Record, now| timeouts(renewal).standing(record, now).renewal_due;
    assert!(!due(10, &record(100), at(9)));
    assert!(due(10, &record(100), at(10)));
    assert!(due(10, &record(100), at(60)));
    assert!(!due(10, &record(150), at(60)), "the absolute deadline is reached");
    assert!(!due(0, &record(150), at(60)), "nothing is gained");
    // Reading does not shorten a deadline that is longer than the present options give.
    assert!(!due(0, &record(500), at(60)));
}

/// A request that began in time keeps its session, even if less than the threshold is left of its absolute timeout. A
/// threshold that is never reached is not reached then either.
#[test]
fn b5_what_expired_meanwhile_is_renewed() {
    use crate::session::{Origin, Payload, SessionId};
    let at = Timestamp::from_unix;
    let record = Record::new(
        SessionId::from_bytes([0; 16]),
        at(0),
        at(145),
        Payload::default(),
        Origin::native(false),
    );
    let seconds = Duration::from_secs;
    let timeouts = Timeouts { idle: seconds(100), absolute: seconds(150), renewal: seconds(10) };
    for (now, expired, absolute_passed, due) in [
        (144, false, false, false),
        (145, true, false, true),
        (149, true, false, true),
        (150, true, true, true),
    ] {
        let standing = timeouts.standing(&record, at(now));
        assert_eq!(
            (standing.expired, standing.absolute_passed, standing.renewal_due),
            (expired, absolute_passed, due),
            "at {now}"
        );
        let never = Timeouts { renewal: Timeouts::NEVER, ..timeouts };
        assert!(!never.standing(&record, at(now)).renewal_due);
    }
}

// T23: the largest durations do not overflow.
#[test]
fn t23_timeouts_saturate() {
    let config = config(|o| (o.idle, o.absolute) = (Duration::MAX, Some(Duration::MAX))).unwrap();
    let now = Timestamp::from_unix(u64::MAX - 5);
    assert_eq!(config.timeouts().deadline(now, now), Timestamp::MAX);
}

// Renewal moves the deadline of the session. A cookie that the browser dropped before cannot be renewed.
#[test]
fn a_cookie_does_not_die_before_its_session() {
    let hour = Duration::from_secs(3_600);
    let error = config(|o| o.cookie = CookieOptions::new().max_age(hour)).unwrap_err();
    assert!(error.to_string().contains("idle_timeout()"), "{error}");
    for max_age in [Some(hour), Some(2 * hour), Some(Duration::MAX), None] {
        let cookie = CookieOptions::new().max_age(max_age);
        assert!(config(|o| (o.cookie, o.idle) = (cookie.clone(), hour)).is_ok(), "{max_age:?}");
    }
    let month = Duration::from_secs(30 * 24 * 3_600);
    let config = config(|o| o.idle = month).unwrap();
    let line = config.cookie.set(b"t", month, 0).unwrap();
    assert!(line[0].to_str().unwrap().contains("; Max-Age=2592000;"), "{line:?}");
}

#[test]
fn presets_are_what_their_sources_say() {
    let (minute, hour) = (Duration::from_secs(60), Duration::from_secs(3_600));
    for (preset, idle, absolute) in [
        (Timeouts::nist_aal1(), 720 * hour, 720 * hour),
        (Timeouts::nist_aal2(), hour, 24 * hour),
        (Timeouts::nist_aal3(), 15 * minute, 12 * hour),
        (Timeouts::owasp_high_value(), 5 * minute, 4 * hour),
        (Timeouts::owasp_low_value(), 30 * minute, 8 * hour),
    ] {
        assert_eq!(preset, Timeouts { idle, absolute, renewal: idle / 10 });
        preset.validate().unwrap();
    }
}

#[test]
fn a_max_age_that_is_shorter_than_the_idle_timeout_of_visitors_is_refused() {
    let hours = |hours: u64| Duration::from_secs(hours * 3600);
    let with = |max_age, anonymous| {
        config(|o| {
            (o.cookie, o.idle) = (CookieOptions::new().max_age(hours(max_age)), hours(1) / 2);
            o.anonymous = Some(anonymous);
        })
    };
    let visitors = Timeouts { idle: hours(24), absolute: hours(7 * 24), renewal: hours(24) / 10 };
    assert!(with(1, visitors).unwrap_err().is_config());
    assert!(with(23, visitors).unwrap_err().is_config());
    assert!(with(24, visitors).is_ok());
    // No session lasts longer than its absolute timeout.
    let short = Timeouts { absolute: hours(24), ..visitors };
    assert!(with(24, short).is_ok());
}

#[test]
fn an_idle_timeout_beyond_the_cap_on_max_age_is_no_conflict() {
    let (day, idle) = (Duration::from_secs(24 * 3_600), Duration::from_secs(500 * 24 * 3_600));
    let with = |max_age| config(|o| (o.cookie, o.idle) = (CookieOptions::new().max_age(max_age), idle));
    assert!(with(400 * day).is_ok() && with(401 * day).is_ok());
    assert!(with(399 * day).is_err());
}

#[test]
fn without_renewal_on_reading_a_threshold_of_ones_own_counts() {
    let hour = Duration::from_secs(3_600);
    let renewal = |on_read, own| {
        config(|o| (o.idle, o.renew_on_read, o.renewal) = (10 * hour, on_read, own))
            .unwrap()
            .timeouts()
            .renewal
    };
    assert_eq!([renewal(true, None), renewal(true, Some(2 * hour))], [hour, 2 * hour]);
    assert_eq!([renewal(false, None), renewal(false, Some(2 * hour))], [Duration::MAX, 2 * hour]);
}

#[test]
fn site_data_is_a_list_of_quoted_names() {
    let header = |kinds: &[SiteData]| SiteData::header(kinds);
    assert_eq!(header(&[]), None);
    let all = header(&[SiteData::Cache, SiteData::Cookies, SiteData::Storage]).unwrap();
    assert_eq!(all, "\"cache\", \"cookies\", \"storage\"");
}

#[derive(Clone, Default)]
struct Names(Arc<std::sync::Mutex<Vec<String>>>);

impl Observer for Names {
    fn event(&self, event: &Event<'_>) {
        let EventKind::InsecureCookie = event.kind else { panic!("{event:?}") };
        self.0.lock().unwrap().push(event.cookie.to_owned());
    }
}

#[test]
fn a_config_is_what_its_options_were() {
    let names = Names::default();
    let config = |cookie: CookieOptions| {
        let observer = Some(Arc::new(names.clone()) as Arc<dyn Observer>);
        let settings = Settings { observer, clock: Arc::new(TestClock::at(7)), ..Settings::default() };
        let options = Options { cookie, settings, ..Options::default() };
        options.validate().unwrap()
    };
    assert_eq!(config(CookieOptions::new()).cookie_name(), "__Host-session");
    assert!(names.0.lock().unwrap().is_empty());
    let insecure = config(CookieOptions::development().name("s"));
    assert_eq!(*names.0.lock().unwrap(), ["s"]);

    assert_eq!((insecure.cookie_name(), insecure.now().as_unix()), ("s", 7));
    assert_eq!(insecure.timeouts(), Timeouts::default());
    assert!(insecure.wants_timings(), "there is an observer");
    assert_eq!(Options::default().validate().unwrap().wants_timings(), Facades::default().wants_timings());
    let mut headers = HeaderMap::new();
    assert_eq!(candidates(&insecure, &headers), 0);
    headers.insert(COOKIE, HeaderValue::from_static("s=1; s=2; t=3"));
    assert_eq!(candidates(&insecure, &headers), 2);
    let line = set_cookie(&insecure, b"token").unwrap();
    assert!(line.to_str().unwrap().starts_with("s=token; Max-Age=86400; "));
}

#[test]
fn defaults_follow_idle() {
    let month = Duration::from_secs(720 * 3_600);
    let timeouts = config(|o| o.idle = month).unwrap().timeouts();
    assert_eq!((timeouts.absolute, timeouts.renewal), (month, month / 10));
}
