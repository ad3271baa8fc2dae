//! Revocations in a real Redis: what happens when it is killed, restarted with less, emptied, hung or full.

use std::time::{Duration, Instant};

use hyper_session::revocation::RevocationLog;
use hyper_session::testing::{Cookies, Cut, FakeClock, Relay, check_revocation_log};
use hyper_session::{Clock, Refusal, Revocations, SystemClock};

use crate::requests::{Site, until};
use crate::server::{Server, unhurried_revocations};
use crate::support::{block_on, in_time};

/// Beside what Redis itself takes, for a busy machine.
const PATIENT: Duration = Duration::from_secs(20);

/// For a server that is to be missed: a test waits for this, and a busy machine is faster.
const IMPATIENT: Duration = Duration::from_secs(5);

async fn host(server: &Server, patience: Duration) -> Site {
    let revocations = Revocations::redis(server.url()).prefix("test");
    let revocations = revocations.connect_timeout(patience).command_timeout(patience);
    let revocations = revocations.connect().await.unwrap();
    let clock = FakeClock::at(SystemClock.now().as_unix());
    Site::built(clock, |builder| builder.revocations(revocations.max_staleness(patience)))
}

async fn site_behind(relay: &Relay) -> Site {
    let url = format!("redis://{}", relay.address());
    let revocations = unhurried_revocations(url, "test").connect().await.unwrap();
    Site::built(FakeClock::at(SystemClock.now().as_unix()), |builder| {
        builder.revocations(revocations.max_staleness(PATIENT))
    })
}

/// Logs `user` in and out on `site`, and returns the copy of the cookie.
async fn logged_out(site: &Site, user: &str) -> Cookies {
    let mut browser = site.logged_in(user).await;
    let copy = browser.clone();
    site.logout(&mut browser).await;
    copy
}

#[test]
fn the_stream_keeps_the_contract_of_logs() {
    let server = Server::start();
    block_on(async {
        let log = async || unhurried_revocations(server.url(), "test").into_log().await.unwrap();
        check_revocation_log(&log().await, &log().await).await;
    });
}

#[test]
fn what_one_process_ends_another_refuses() {
    let server = Server::start();
    block_on(async {
        let (one, two) = (host(&server, PATIENT).await, host(&server, PATIENT).await);
        for number in 0..50 {
            let user = number.to_string();
            let other_device = two.logged_in(&user).await;
            let mut browser = one.logged_in(&user).await;
            let copy = browser.clone();
            assert!(two.accepts(&copy).await);
            one.logout(&mut browser).await;
            until("the logout to be known", async || !two.accepts(&copy).await).await;
            assert_eq!(two.refusal(&copy).await, Some(Refusal::Revoked));
            assert!(two.accepts(&other_device).await);
            two.store.end_sessions_of(&user).await.unwrap();
            until("the end to be known", async || !one.accepts(&other_device).await).await;
            assert!(two.accepts(&two.logged_in(&user).await).await);
        }
        // Another prefix is another application.
        let other = unhurried_revocations(server.url(), "other").connect().await.unwrap();
        assert!(other.is_empty());
        // A process that starts now knows it all.
        assert_eq!(host(&server, PATIENT).await.revoked(), 100);
    });
}

#[test]
fn ending_all_and_logging_in_within_one_request_on_two_hosts() {
    let server = Server::start();
    block_on(async {
        let hosts = [host(&server, PATIENT).await, host(&server, PATIENT).await];
        let mut browser = hosts[0].logged_in("ada").await;
        for turn in 0..10_000 {
            let (here, there) = (&hosts[turn % 2], &hosts[(turn + 1) % 2]);
            let copy = browser.clone();
            here.end_all_and_log_in(&mut browser, "ada").await;
            assert!(here.accepts(&browser).await && there.accepts(&browser).await, "turn {turn}");
            assert!(!here.accepts(&copy).await && !there.accepts(&copy).await, "turn {turn}");
        }
    });
}

#[test]
fn a_redis_that_comes_back_without_its_tail_gets_it_back() {
    let mut server = Server::start();
    block_on(async {
        let (one, two) = (host(&server, PATIENT).await, host(&server, PATIENT).await);
        let kept = logged_out(&one, "before").await;
        let saved = server.cli(&["XLEN", "test:revoked"]).parse::<u32>().unwrap();
        assert!(saved < 10, "one logout, and what the processes wrote at their start: {saved}");
        assert_eq!(server.cli(&["SAVE"]), "OK");
        let mut lost = Vec::new();
        for number in 0..300 {
            let site = if number % 2 == 0 { &one } else { &two };
            lost.push(logged_out(site, &number.to_string()).await);
        }
        let alive = one.logged_in("ada").await;
        server.restart(); // killed as by a crash, and started with what was saved
        until("the tail to be written again", async || {
            server.cli(&["XLEN", "test:revoked"]).parse::<u32>().unwrap() >= 301
        })
        .await;
        let three = host(&server, PATIENT).await;
        for site in [&one, &two, &three] {
            assert!(!site.accepts(&kept).await);
            for copy in &lost {
                assert!(!site.accepts(copy).await);
            }
            assert!(site.accepts(&alive).await);
        }
    });
}

#[test]
fn a_server_whose_clock_is_behind_gives_no_lower_positions() {
    let mut server = Server::start();
    block_on(async {
        let (one, two) = (host(&server, PATIENT).await, host(&server, PATIENT).await);
        assert_eq!(server.cli(&["SAVE"]), "OK");
        // As if the clock of this server were an hour ahead of the next one's.
        let ahead = unhurried_revocations(server.url(), "test").into_log().await.unwrap();
        let hour = 3_600_000 << 20;
        let top = ahead.top((SystemClock.now().as_unix() * 1_000) << 20).await.unwrap();
        ahead.top(top + hour).await.unwrap();
        let copy = logged_out(&one, "bob").await;
        let ada = one.logged_in("ada").await;
        until("the position to be known", async || two.accepts(&ada).await).await;
        server.restart();
        until("the log to be raised", async || {
            one.changes().contains(&"rolled_back") || two.changes().contains(&"rolled_back")
        })
        .await;
        let three = host(&server, PATIENT).await;
        for site in [&one, &two, &three] {
            until("the lost tail", async || !site.accepts(&copy).await).await;
            assert!(site.accepts(&ada).await);
        }
        two.store.end_sessions_of("ada").await.unwrap();
        for site in [&one, &two, &three] {
            until("the end of a session from the hour ahead", async || !site.accepts(&ada).await).await;
        }
    });
}

/// No running process has seen the position of the login.
#[test]
fn a_login_whose_position_was_lost_is_ended_by_what_comes_after_it() {
    let mut server = Server::start();
    block_on(async {
        let one = host(&server, PATIENT).await;
        assert_eq!(server.cli(&["SAVE"]), "OK");
        // As if millions of entries were lost.
        let ahead = unhurried_revocations(server.url(), "test").into_log().await.unwrap();
        let top = ahead.top(0).await.unwrap();
        ahead.top(top + (30_000 << 20)).await.unwrap();
        let (ada, bob) = (one.logged_in("ada").await, one.logged_in("bob").await);
        drop((one, ahead));
        server.restart();
        let two = host(&server, PATIENT).await;
        two.store.end_sessions_of("ada").await.unwrap();
        let three = host(&server, PATIENT).await;
        for site in [&two, &three] {
            assert_eq!(site.refusal(&ada).await, Some(Refusal::Revoked));
            assert!(site.accepts(&bob).await, "it was ended by nothing");
            assert!(site.accepts(&site.logged_in("ada").await).await);
        }
    });
}

#[test]
fn a_login_after_a_restart_is_behind_the_revocations_that_were_lost() {
    let mut server = Server::start();
    block_on(async {
        let (one, two) = (host(&server, PATIENT).await, host(&server, PATIENT).await);
        assert_eq!(server.cli(&["SAVE"]), "OK");
        // As if millions of entries were lost with it.
        let ahead = unhurried_revocations(server.url(), "test").into_log().await.unwrap();
        let top = ahead.top(0).await.unwrap();
        ahead.top(top + (30_000 << 20)).await.unwrap();
        one.store.end_sessions_of("ada").await.unwrap();
        server.restart();
        // On a host that starts now. It does not know what was lost.
        let ada = host(&server, PATIENT).await.logged_in("ada").await;
        until("the lost entry to be written again", async || {
            one.changes().contains(&"rolled_back") || two.changes().contains(&"rolled_back")
        })
        .await;
        let three = host(&server, PATIENT).await;
        for site in [&one, &two, &three] {
            assert!(site.accepts(&ada).await);
        }
    });
}

#[test]
fn an_emptied_redis_is_filled_again_although_a_login_comes_first() {
    let server = Server::start();
    block_on(async {
        let hosts = [host(&server, PATIENT).await, host(&server, PATIENT).await];
        let mut copies = Vec::new();
        for number in 0..600 {
            copies.push(logged_out(&hosts[number % 2], &number.to_string()).await);
        }
        assert_eq!(server.cli(&["FLUSHALL"]), "OK");
        let bob = hosts[0].logged_in("bob").await;
        until("the log to be written again", async || {
            server.cli(&["XLEN", "test:revoked"]).parse::<u32>().unwrap() > 600
        })
        .await;
        until("both to be done", async || hosts[0].accepts(&bob).await && hosts[1].accepts(&bob).await).await;
        let written = server.cli(&["XLEN", "test:revoked"]).parse::<u32>().unwrap();
        // Each entry once, unless both hosts were at it at the same moment.
        assert!(written < 2_000, "{written}");
        let three = host(&server, PATIENT).await;
        for copy in &copies {
            assert!(!three.accepts(copy).await);
        }
    });
}

#[test]
fn a_log_in_which_many_processes_started_can_be_read() {
    let server = Server::start();
    block_on(async {
        let site = host(&server, PATIENT).await;
        let copy = logged_out(&site, "ada").await;
        let log = unhurried_revocations(server.url(), "test").into_log().await.unwrap();
        let mut top = log.top(0).await.unwrap();
        for _ in 0..2_500 {
            top = log.top(top + 1).await.unwrap();
        }
        let later = logged_out(&site, "bob").await;
        let other = host(&server, PATIENT).await;
        assert!(!other.accepts(&copy).await && !other.accepts(&later).await);
        assert_eq!(other.revoked(), 2);
    });
}

#[test]
fn an_emptied_redis_is_filled_again() {
    let server = Server::start();
    block_on(async {
        let one = host(&server, PATIENT).await;
        let copy = logged_out(&one, "ada").await;
        one.store.end_all().await.unwrap();
        let alive = one.logged_in("bob").await;
        assert_eq!(server.cli(&["FLUSHALL"]), "OK");
        until("the log to be written again", async || one.changes().contains(&"rolled_back")).await;
        until("both entries", async || server.cli(&["XLEN", "test:revoked"]).parse::<u32>().unwrap() >= 2)
            .await;
        let two = host(&server, PATIENT).await;
        for site in [&one, &two] {
            assert!(!site.accepts(&copy).await);
            assert!(site.accepts(&alive).await);
        }
    });
}

#[test]
fn a_redis_that_hangs_is_noticed_within_the_bound() {
    let server = Server::start();
    block_on(async {
        let bound = IMPATIENT;
        let site = host(&server, bound).await;
        let mut browser = site.logged_in("ada").await;
        server.freeze();
        let frozen = Instant::now();
        let mut last_accepted = frozen;
        loop {
            let asked = Instant::now();
            if site.visit(&mut browser, |_| async { Ok(()) }).await.status() == 503 {
                break;
            }
            last_accepted = asked;
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        assert!(last_accepted - frozen <= bound, "accepted {:?} after it hung", last_accepted - frozen);
        let response = site.visit(&mut browser, |session| async move { session.destroy() }).await;
        assert_eq!(response.status(), 503);
        server.thaw();
        until("it to be back", async || site.visit(&mut browser, |_| async { Ok(()) }).await.status() == 200)
            .await;
        assert!(browser.header().is_some());
    });
}

#[test]
fn a_stopped_redis_refuses_and_a_full_one_refuses_logouts() {
    let mut server = Server::start();
    block_on(async {
        let site = host(&server, IMPATIENT).await;
        let mut browser = site.logged_in("ada").await;
        let copy = logged_out(&site, "bob").await;
        assert_eq!(server.cli(&["CONFIG", "SET", "maxmemory", "1"]), "OK");
        let response = site.visit(&mut browser, |session| async move { session.destroy() }).await;
        assert_eq!(response.status(), 503, "a logout that is not kept is not answered");
        assert!(site.accepts(&browser).await, "reads go on");
        assert!(!site.accepts(&copy).await);
        server.kill();
        until("requests to be refused", async || {
            site.visit(&mut browser, |_| async { Ok(()) }).await.status() == 503
        })
        .await;
        server.run();
        server.wait_until_ready();
        until("it to be back", async || site.visit(&mut browser, |_| async { Ok(()) }).await.status() == 200)
            .await;
        assert!(!site.accepts(&copy).await);
        let last = browser.clone();
        site.logout(&mut browser).await;
        assert!(!site.accepts(&last).await);
    });
}

#[test]
fn a_master_that_becomes_a_replica_is_not_believed() {
    let (server, other) = (Server::start(), Server::start());
    block_on(async {
        let site = host(&server, IMPATIENT).await;
        let mut browser = site.logged_in("ada").await;
        assert_eq!(server.cli(&["REPLICAOF", "127.0.0.1", &other.port.to_string()]), "OK");
        until("requests to be refused", async || {
            site.visit(&mut browser, |_| async { Ok(()) }).await.status() == 503
        })
        .await;
        assert_eq!(server.cli(&["REPLICAOF", "NO", "ONE"]), "OK");
        until("it to be back", async || site.visit(&mut browser, |_| async { Ok(()) }).await.status() == 200)
            .await;
    });
}

#[test]
fn what_cannot_work_is_said_at_the_start() {
    let server = Server::with(&["--requirepass", "secret"]);
    block_on(async {
        let connect = async |url: String| unhurried_revocations(url, "test").connect().await;
        assert!(connect(server.url()).await.unwrap_err().is_config(), "no password");
        assert!(connect("redis://127.0.0.1:1".to_owned()).await.unwrap_err().is_unavailable());
        assert!(connect("nonsense".to_owned()).await.unwrap_err().is_config());
        assert!(Revocations::redis(server.url()).connect().await.unwrap_err().is_config(), "no prefix");
        server.cli_as(
            "default",
            "secret",
            &[
                "ACL",
                "SETUSER",
                "narrow",
                "on",
                ">pw",
                "~test:revoked",
                "-@all",
                "+eval",
                "+evalsha",
                "+info",
                "+time",
                "+xadd",
                "+xrange",
                "+xrevrange",
                "+xread",
                "+xtrim",
                "+client",
                "+hello",
            ],
        );
        let url = format!("redis://narrow:pw@127.0.0.1:{}", server.port);
        let revocations = connect(url.clone()).await.unwrap();
        revocations.end_sessions_of("ada").await.unwrap();
        server.cli_as("default", "secret", &["ACL", "SETUSER", "narrow", "-xadd"]);
        assert!(revocations.end_sessions_of("bob").await.unwrap_err().is_unavailable());
        for command in ["-xadd", "-xread", "-xtrim", "-info"] {
            server.cli_as("default", "secret", &["ACL", "SETUSER", "narrow", "+xadd", command]);
            let error = connect(url.clone()).await.unwrap_err();
            assert!(error.is_config() && error.to_string().contains("XREAD"), "{command}: {error}");
        }
    });
}

#[test]
fn ending_the_others_stays_logged_in_although_the_reply_of_redis_is_lost() {
    let server = Server::start();
    let relay = Relay::before(("127.0.0.1", server.port)).unwrap();
    block_on(async {
        let site = site_behind(&relay).await;
        let (mut browser, other) = (site.logged_in("ada").await, site.logged_in("ada").await);
        // Redis knows the script from now on.
        site.store.end_sessions_of("bob").await.unwrap();
        // With two revocations.
        relay.cut_next("*8\r\n$7\r\nEVALSHA", Cut::BeforeReply);
        assert_eq!(site.end_others(&mut browser).await.status(), 200);
        assert!(relay.is_done());
        assert!(site.accepts(&browser).await && !site.accepts(&other).await);
    });
}

/// A NAT or a load balancer forgets the connections, and tells neither end. Redis is healthy, and new connections work.
#[test]
fn connections_that_go_silent_are_replaced_and_no_request_notices() {
    let server = Server::start();
    let relay = Relay::before(("127.0.0.1", server.port)).unwrap();
    block_on(async {
        // A silent connection is given up after two seconds, and a read fails after ten.
        let url = format!("redis://{}", relay.address());
        let revocations = Revocations::redis(url).prefix("test").connect_timeout(PATIENT);
        let revocations = revocations.command_timeout(Duration::from_secs(4)).connect().await.unwrap();
        let site = Site::built(FakeClock::at(SystemClock.now().as_unix()), |builder| {
            builder.revocations(revocations.max_staleness(Duration::from_secs(30)))
        });
        let other = host(&server, PATIENT).await;
        let (mut browser, mut ended) = (site.logged_in("ada").await, site.logged_in("bob").await);
        let copy = ended.clone();
        relay.silence_open_connections();
        other.logout(&mut ended).await;
        until("the logout to be known", async || {
            assert_eq!(site.visit(&mut browser, |_| async { Ok(()) }).await.status(), 200);
            !site.accepts(&copy).await
        })
        .await;
        // A login and a logout are over connections of their own, which are silent, too.
        assert!(site.accepts(&site.logged_in("eve").await).await);
        site.logout(&mut browser).await;
        assert_eq!(site.changes(), [""; 0]);
    });
}

/// A proxy that does not support XREAD closes the connection at that command.
#[test]
fn a_proxy_without_xread_is_found_at_the_start_and_is_not_asked_without_a_pause() {
    let server = Server::start();
    let relay = Relay::before(("127.0.0.1", server.port)).unwrap();
    let cut_xread_and_its_repetition = || {
        for _ in 0..2 {
            relay.cut_next("XREAD", Cut::BeforeRequest);
        }
    };
    block_on(async {
        let log = async || {
            let url = format!("redis://{}", relay.address());
            unhurried_revocations(url, "test").into_log().await
        };
        cut_xread_and_its_repetition();
        assert!(log().await.unwrap_err().is_unavailable());
        assert!(relay.is_done());
        let log = log().await.unwrap();
        let top = log.top(0).await.unwrap();
        cut_xread_and_its_repetition();
        let (begun, wait) = (Instant::now(), Duration::from_millis(500));
        log.read(top, wait).await.unwrap();
        assert!(relay.is_done());
        assert!(begun.elapsed() >= wait, "{:?}", begun.elapsed());
    });
}

/// A read waits for a tenth of a second, and takes two round trips: the half second after which a read fails is too short for them.
#[test]
fn a_distant_redis_is_followed_without_interruption() {
    let server = Server::start();
    let relay = Relay::before(("127.0.0.1", server.port)).unwrap();
    block_on(async {
        let site = site_behind(&relay).await;
        let browser = site.logged_in("ada").await;
        relay.set_latency(Duration::from_millis(150));
        let before = relay.round_trips();
        until("three reads", async || {
            assert!(site.accepts(&browser).await);
            relay.round_trips() >= before + 8
        })
        .await;
        assert_eq!(site.changes(), [""; 0]);
    });
}

#[test]
fn no_duration_is_too_long() {
    let server = Server::start();
    block_on(in_time(async {
        let revocations = Revocations::redis(server.url()).prefix("test");
        let revocations = revocations.connect_timeout(Duration::MAX).command_timeout(Duration::MAX);
        let revocations = revocations.connect().await.unwrap().max_staleness(Duration::MAX);
        let site = Site::built(FakeClock::at(SystemClock.now().as_unix()), |builder| {
            builder.revocations(revocations)
        });
        let copy = logged_out(&site, "ada").await;
        let browser = site.logged_in("ada").await;
        assert!(site.accepts(&browser).await && !site.accepts(&copy).await);
    }));
}

/// The runtime that connected is there, and no thread drives it: neither the task that follows the stream, nor the connections.
#[test]
fn the_stream_is_followed_although_the_runtime_that_connected_is_not_driven() {
    let server = Server::start();
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (idle, serving) = (runtime(), runtime());
    let site = idle.block_on(async {
        // A silent connection is given up after two seconds.
        let revocations = Revocations::redis(server.url()).prefix("test").connect_timeout(PATIENT);
        let revocations = revocations.command_timeout(Duration::from_secs(4)).connect().await.unwrap();
        Site::built(FakeClock::at(SystemClock.now().as_unix()), |builder| {
            builder.revocations(revocations.max_staleness(PATIENT))
        })
    });
    serving.block_on(async {
        let other = host(&server, PATIENT).await;
        for _ in 0..2 {
            // Behind that revocation, so it must be confirmed.
            other.store.end_sessions_of("bob").await.unwrap();
            let browser = other.logged_in("ada").await;
            assert_eq!(site.answer(&browser, |_| async { Ok(()) }).await.status(), 200);
        }
        assert!(site.accepts(&site.logged_in("ada").await).await);
    });
    assert_eq!(site.changes(), [""; 0]);
}
