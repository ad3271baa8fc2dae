//! Logouts that an identity provider posts, as its users and its enemies see them.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use hyper_session::testing::FakeClock;
use hyper_session::{AppKey, Clock, CookieStore, Revocations, SystemClock};
use serde_json::{Value, json};

use crate::oidc_logout::{Provider, post, start, visit};
use crate::shared_log::SharedLog;
use crate::support::block_on;

/// Long enough for any follower on a busy machine.
const PATIENT: Duration = Duration::from_secs(60);

struct Deployment {
    clock: FakeClock,
    provider: Arc<Provider>,
    application: String,
}

impl Deployment {
    async fn start() -> Self {
        Self::with(Revocations::in_memory()).await
    }

    async fn with(revocations: Revocations) -> Self {
        let key = AppKey::danger_from_any_bytes(b"a key for tests").unwrap();
        let store = CookieStore::builder(key).revocations(revocations).development().build().unwrap();
        let clock = FakeClock::at(SystemClock.now().as_unix());
        let (provider, application) = start(store, Arc::new(clock.clone())).await.unwrap();
        Self { clock, provider, application }
    }

    async fn log_in(&self, user: &str, sid: &str) -> String {
        let url = format!("{}/callback?code={user}.{sid}", self.application);
        visit(url, "").await.unwrap().1.unwrap()
    }

    async fn is_logged_in(&self, cookie: &str) -> bool {
        visit(format!("{}/", self.application), cookie).await.unwrap().0 != "nobody"
    }

    /// Posts a logout token. Returns the status of the answer.
    async fn log_out(&self, token: String) -> u16 {
        let url = format!("{}/back-channel-logout", self.application);
        let form = "application/x-www-form-urlencoded";
        post(url, form, format!("state=x&logout_token={token}")).await.unwrap().0.as_u16()
    }

    async fn event(&self, token: String) -> (u16, String) {
        let url = format!("{}/events", self.application);
        let (status, body) = post(url, "application/secevent+jwt", token).await.unwrap();
        (status.as_u16(), body)
    }

    fn logout_token(&self, claims: &Value) -> String {
        self.provider.logout_token(claims).unwrap()
    }
}

#[test]
fn a_logout_at_the_provider_ends_the_session_that_began_there() {
    block_on(async {
        let site = Deployment::start().await;
        let (phone, laptop, bob) =
            (site.log_in("ada", "1").await, site.log_in("ada", "2").await, site.log_in("bob", "3").await);
        assert_eq!(site.log_out(site.logout_token(&json!({ "sub": "ada", "sid": "1" }))).await, 200);
        assert!(!site.is_logged_in(&phone).await);
        assert!(site.is_logged_in(&laptop).await && site.is_logged_in(&bob).await);
        // Without a session of the provider, all sessions of the user end. The user may return.
        assert_eq!(site.log_out(site.logout_token(&json!({ "sub": "ada" }))).await, 200);
        assert!(!site.is_logged_in(&laptop).await && site.is_logged_in(&bob).await);
        assert!(site.is_logged_in(&site.log_in("ada", "4").await).await);
        // A logout that overtakes the callback.
        assert_eq!(site.log_out(site.logout_token(&json!({ "sid": "5" }))).await, 200);
        assert!(!site.is_logged_in(&site.log_in("ada", "5").await).await);
    });
}

#[test]
fn a_security_event_ends_a_session_or_all_of_a_user() {
    block_on(async {
        let site = Deployment::start().await;
        let (phone, laptop, bob) =
            (site.log_in("ada", "1").await, site.log_in("ada", "2").await, site.log_in("bob", "3").await);
        let event = |subject: Value| site.provider.session_revoked(&subject).unwrap();
        assert_eq!(site.event(event(json!({ "format": "opaque", "id": "1" }))).await.0, 202);
        assert!(!site.is_logged_in(&phone).await && site.is_logged_in(&laptop).await);
        let elsewhere = json!({ "format": "iss_sub", "iss": "https://elsewhere.test", "sub": "ada" });
        let (status, body) = site.event(event(elsewhere)).await;
        assert!(status == 400 && body.contains(r#""err":"invalid_request""#), "{body}");
        assert!(site.is_logged_in(&laptop).await);
        let ada = json!({ "format": "iss_sub", "iss": site.provider.issuer, "sub": "ada" });
        assert_eq!(site.event(event(ada)).await.0, 202);
        assert!(!site.is_logged_in(&laptop).await && site.is_logged_in(&bob).await);
    });
}

/// The provider sends the same token again.
#[test]
fn a_logout_that_could_not_be_recorded_can_be_repeated() {
    block_on(async {
        let log = SharedLog::default();
        let revocations = Revocations::open(log.clone()).await.unwrap().max_staleness(PATIENT);
        let site = Deployment::with(revocations).await;
        let (ada, bob) = (site.log_in("ada", "1").await, site.log_in("bob", "2").await);
        let token = site.logout_token(&json!({ "sub": "ada", "sid": "1" }));
        let event = site.provider.session_revoked(&json!({ "format": "opaque", "id": "2" })).unwrap();
        log.refuse_appends(2);
        assert_eq!(site.log_out(token.clone()).await, 400);
        assert_eq!(site.event(event.clone()).await.0, 503);
        assert!(site.is_logged_in(&ada).await && site.is_logged_in(&bob).await);
        assert_eq!(site.log_out(token.clone()).await, 200);
        assert_eq!(site.event(event.clone()).await.0, 202);
        assert!(!site.is_logged_in(&ada).await && !site.is_logged_in(&bob).await);
        assert_eq!(site.log_out(token).await, 400, "it was accepted before");
    });
}

/// The response to the first delivery may have been lost. Then the provider sends the event again.
#[test]
fn an_event_that_is_repeated_is_answered_as_at_first_and_ends_nothing_more() {
    block_on(async {
        let site = Deployment::start().await;
        let ada = site.log_in("ada", "1").await;
        let subject = json!({ "format": "iss_sub", "iss": site.provider.issuer, "sub": "ada" });
        let event = site.provider.session_revoked(&subject).unwrap();
        assert_eq!(site.event(event.clone()).await, (202, String::new()));
        assert!(!site.is_logged_in(&ada).await);
        let later = site.log_in("ada", "2").await;
        assert_eq!(site.event(event.clone()).await, (202, String::new()));
        assert!(site.is_logged_in(&later).await, "it is carried out once");
        // An event that is refused is refused again.
        let elsewhere = json!({ "format": "iss_sub", "iss": "https://elsewhere.test", "sub": "ada" });
        let refused = site.provider.session_revoked(&elsewhere).unwrap();
        for _ in 0..2 {
            assert_eq!(site.event(refused.clone()).await.0, 400);
        }
        // A logout token of the same `jti` is another token.
        let claims = json!({ "sub": "ada", "jti": "shared" });
        let mut of_event = json!({ "sub_id": subject, "events": {}, "jti": "shared" });
        of_event["events"] =
            json!({ "https://schemas.openid.net/secevent/caep/event-type/session-revoked": {} });
        assert_eq!(site.event(site.provider.sign("secevent+jwt", &of_event).unwrap()).await.0, 202);
        let last = site.log_in("ada", "3").await;
        assert_eq!(site.log_out(site.logout_token(&claims)).await, 200);
        assert!(!site.is_logged_in(&last).await);
    });
}

#[test]
fn keys_of_the_provider_are_fetched_again_at_most_once_a_minute() {
    block_on(async {
        let site = Deployment::start().await;
        let served = || site.provider.keys_served.load(Ordering::Relaxed);
        let logout = async |sid: &str| site.log_out(site.logout_token(&json!({ "sid": sid }))).await;
        assert_eq!((logout("1").await, served()), (200, 1));
        site.provider.rotate("2").unwrap();
        assert_eq!((logout("2").await, served()), (200, 2));
        assert_eq!((logout("3").await, served()), (200, 2), "the new key is known");
        // Any client can name a key that does not exist.
        site.provider.rotate("3").unwrap();
        for _ in 0..5 {
            assert_eq!((logout("4").await, served()), (400, 2));
        }
        site.clock.advance(Duration::from_secs(59));
        assert_eq!((logout("4").await, served()), (400, 2));
        site.clock.advance(Duration::from_secs(1));
        assert_eq!((logout("4").await, served()), (200, 3));
    });
}

#[test]
fn tokens_that_the_provider_did_not_mean_end_nothing() {
    block_on(async {
        let site = Deployment::start().await;
        let ada = site.log_in("ada", "1").await;
        let provider = &site.provider;
        let claims = json!({ "sub": "ada", "sid": "1" });
        let forger = Provider::new(provider.issuer.clone(), &provider.client_id).unwrap();
        let foreign = Provider::new("http://127.0.0.1:1".to_owned(), &provider.client_id).unwrap();
        let good = site.logout_token(&claims);
        let (head, rest) = good.split_once('.').unwrap();
        let with = |more: Value| {
            let mut claims = claims.clone();
            claims.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            claims
        };
        let bad = [
            ("of another key", forger.logout_token(&claims).unwrap()),
            ("of another issuer", foreign.logout_token(&claims).unwrap()),
            ("for another application", site.logout_token(&with(json!({ "aud": "other" })))),
            ("that expired", site.logout_token(&with(json!({ "exp": 1_000_000_000 })))),
            ("without an expiry", site.logout_token(&with(json!({ "exp": null })))),
            ("from long ago", site.logout_token(&with(json!({ "iat": 1_000_000_000 })))),
            ("with a nonce", site.logout_token(&with(json!({ "nonce": "n" })))),
            ("without the event", site.logout_token(&with(json!({ "events": {} })))),
            ("that names no session", site.logout_token(&json!({}))),
            ("that is an ID token", provider.sign("JWT", &claims).unwrap()),
            ("without a signature", format!("{head}.{}.", rest.split_once('.').unwrap().0)),
            ("that says none", format!("eyJhbGciOiJub25lIiwidHlwIjoibG9nb3V0K2p3dCIsImtpZCI6IjEifQ.{rest}")),
            ("that is text", "x".repeat(10_000)),
            ("that is too large", "x".repeat(1_000_000)),
        ];
        for (what, token) in bad {
            assert_eq!(site.log_out(token.clone()).await, 400, "a token {what}");
            assert_eq!(site.event(token).await.0, 400, "a token {what}");
            assert!(site.is_logged_in(&ada).await, "a token {what}");
        }
        // Sent again after a later login, it ends nothing.
        let of_the_user = site.logout_token(&json!({ "sub": "ada" }));
        assert_eq!(site.log_out(of_the_user.clone()).await, 200);
        assert!(!site.is_logged_in(&ada).await);
        let later = site.log_in("ada", "2").await;
        assert_eq!(site.log_out(of_the_user).await, 400);
        assert!(site.is_logged_in(&later).await);
    });
}
