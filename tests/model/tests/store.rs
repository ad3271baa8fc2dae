//! Every order of the steps of two or three requests on the server-side store.

use hyper_session_model::request::{Deed, Mistake};
use hyper_session_model::store::Scenario;
use stateright::{Checker, Model};

fn states(scenario: Scenario) -> usize {
    let described = format!("{scenario:?}");
    let checker = scenario.checker().spawn_bfs().join();
    for (property, path) in checker.discoveries() {
        if property != "all requests end" {
            panic!("{property}: {described}\n{:#?}", path.into_actions());
        }
    }
    checker.assert_properties();
    checker.unique_state_count()
}

#[test]
fn any_two_requests_beside_a_crash_and_a_lost_list() {
    let mut sum = 0;
    for logged_in in [true, false] {
        for deeds in Deed::combinations(2) {
            for (crashes, loses_list) in [(1, false), (0, true)] {
                sum += states(Scenario { logged_in, crashes, loses_list, ..Scenario::of(&deeds) });
            }
        }
    }
    assert!(sum > 20_000, "{sum} states");
}

/// `cargo run --release` visits those with two new tokens, which have millions of states, unless they
/// [have too many](Deed::have_too_many_states).
#[test]
fn any_three_requests_of_which_one_gives_the_session_a_new_token() {
    let mut sum = 0;
    for deeds in Deed::combinations(3) {
        let new_tokens = deeds.iter().filter(|deed| matches!(deed, Deed::Regenerate | Deed::Login)).count();
        if new_tokens < 2 && !Deed::have_too_many_states(&deeds) {
            sum += states(Scenario::of(&deeds));
        }
    }
    assert!(sum > 400_000, "{sum} states");
}

/// Of three requests, two renew. `cargo run --release` also visits those with new tokens.
#[test]
fn two_browsers_whose_list_is_lost_beside_a_step_of_healing_that_fails() {
    let mut sum = 0;
    for deeds in Deed::combinations(2) {
        sum += states(Scenario { failures: 2, ..losing_the_list(&deeds) });
    }
    for deed in [Deed::Renew, Deed::Logout, Deed::EndAll] {
        sum += states(Scenario { failures: 1, ..losing_the_list(&[Deed::Renew, Deed::Renew, deed]) });
    }
    assert!(sum > 500_000, "{sum} states");
}

/// Of three requests of one browser, one gives the session a new token, and one ends sessions.
#[test]
fn two_browsers_whose_list_decides_and_is_lost() {
    let mut sum = 0;
    for deeds in Deed::combinations(2) {
        sum += states(Scenario { checks_list: true, ..losing_the_list(&deeds) });
    }
    for new in [Deed::Regenerate, Deed::Login] {
        for end in [Deed::EndAll, Deed::EndOthers] {
            let losing = losing_the_list(&[Deed::Renew, new, end]);
            sum += states(Scenario { checks_list: true, second_browser: false, ..losing });
        }
    }
    assert!(sum > 300_000, "{sum} states");
}

fn losing_the_list(deeds: &[Deed]) -> Scenario {
    Scenario { second_browser: true, loses_list: true, ..Scenario::of(deeds) }
}

#[track_caller]
fn finds(mistake: Mistake, deeds: &[Deed], crashes: u8, rule: &str) {
    finds_in(Scenario { mistake, crashes, ..Scenario::of(deeds) }, rule);
}

#[track_caller]
fn finds_in(scenario: Scenario, rule: &str) {
    let checker = scenario.checker().spawn_bfs().join();
    let found: Vec<_> =
        checker.discoveries().into_keys().filter(|name| *name != "all requests end").collect();
    assert!(found.contains(&rule), "found only {found:?}");
}

#[test]
fn a_save_that_creates_is_found() {
    finds(Mistake::SaveCreates, &[Deed::Update, Deed::Logout], 0, "no session comes back");
}

#[test]
fn a_regenerate_that_does_not_compare_is_found() {
    finds(Mistake::RegenerateDeletes, &[Deed::Update, Deed::Regenerate], 0, "no update is lost");
}

#[test]
fn a_new_session_that_is_not_looked_up_again_is_found() {
    let rule = "the list names every live session";
    finds(Mistake::NotLookedUpAgain, &[Deed::Login, Deed::EndAll], 0, rule);
}

#[test]
fn an_end_that_flags_nothing_is_found() {
    let rule = "ending all leaves no earlier session, under whatever token";
    finds(Mistake::EndsUnflagged, &[Deed::Regenerate, Deed::EndAll], 0, rule);
}

#[test]
fn a_logout_that_does_not_follow_a_new_token_is_found() {
    let rule = "a logout ends the session, under whatever token";
    for deed in [Deed::Regenerate, Deed::Login] {
        finds(Mistake::FollowsNone, &[deed, Deed::Logout], 0, rule);
    }
}

#[test]
fn an_end_of_the_others_that_keeps_none_is_found() {
    finds(Mistake::KeepsNone, &[Deed::EndOthers], 0, "ending the others keeps the own session");
}

#[test]
fn a_renewal_that_does_not_enter_its_session_again_is_found() {
    let rule = "a renewal enters a session in the list that lacks it";
    let losing = |mistake, deeds: &[Deed]| Scenario { mistake, failures: 1, ..losing_the_list(deeds) };
    finds_in(losing(Mistake::RenewsOnly, &[Deed::Renew]), rule);
    finds_in(losing(Mistake::RenewsOnly, &[Deed::LateUpdate]), rule);
    finds_in(losing(Mistake::HealsUncompared, &[Deed::Renew, Deed::Renew]), rule);
    finds_in(losing(Mistake::HealsOnce, &[Deed::Renew, Deed::Renew]), rule);
}

#[test]
fn a_session_that_counts_although_the_list_that_decides_was_lost_is_found() {
    let losing = |mistake, deeds: &[Deed]| Scenario { mistake, checks_list: true, ..losing_the_list(deeds) };
    let rule = "where the list decides, no session counts that an end did not reach";
    finds_in(losing(Mistake::RegeneratesUnlisted, &[Deed::Regenerate, Deed::EndAll]), rule);
    finds_in(losing(Mistake::HealsListThatDecides, &[Deed::Renew, Deed::EndAll]), rule);
    finds_in(losing(Mistake::HealsListThatDecides, &[Deed::Renew, Deed::EndOthers]), rule);
    let rule = "where the list decides, no request has a session that an end did not reach";
    finds_in(losing(Mistake::LoadsUnlisted, &[Deed::Update, Deed::EndAll]), rule);
}

/// A host may crash, or not learn whether the session has left the old store. `cargo run --release` visits more.
#[test]
fn requests_that_move_a_session_to_another_store() {
    let mut sum = 0;
    let moving = |deeds: &[Deed]| Scenario { migrates: true, ..Scenario::of(deeds) };
    for deeds in Deed::combinations(2).into_iter().filter(|deeds| !deeds.contains(&Deed::EndOthers)) {
        sum += states(Scenario { crashes: 1, ..moving(&deeds) });
        sum += states(Scenario { failures: 2, ..moving(&deeds) });
        sum += states(Scenario { failures: 1, logged_in: false, ..moving(&deeds) });
    }
    for deeds in [[Deed::Update, Deed::Renew, Deed::Logout], [Deed::Update, Deed::Update, Deed::Renew]] {
        // The session of a visitor is on no list: that saves most of the states.
        let logged_in = deeds.contains(&Deed::Logout);
        sum += states(Scenario { failures: 1, logged_in, ..moving(&deeds) });
    }
    assert!(sum > 90_000, "{sum} states");
}

#[test]
fn a_session_that_moves_and_stays_or_is_copied_is_found() {
    let finds = |mistake, rule| {
        let deeds = [Deed::Update, Deed::Renew];
        finds_in(Scenario { mistake, migrates: true, failures: 1, ..Scenario::of(&deeds) }, rule);
    };
    for mistake in [Mistake::MovesWithoutLeaving, Mistake::MovesTwice, Mistake::MovesUnconfirmed] {
        finds(mistake, "a session that moves is never in both stores");
    }
    finds(Mistake::MovesWithoutLeaving, "no update is lost");
    finds(Mistake::LeavesCopy, "no copy of a session is left behind");
}

/// A known limit: the copy in the new store ends, since the request cannot know whether the session still is in the old one.
#[test]
fn a_session_whose_move_gets_no_reply_is_lost() {
    let scenario = Scenario { migrates: true, failures: 1, strict: true, ..Scenario::of(&[Deed::Update]) };
    finds_in(scenario, "a session that no request ends lives on");
}
